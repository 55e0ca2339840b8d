//! Tasks, alerts, reloads: what a person may have done at once.
//! Must not know about pages.

use portcullis_admin::Chores;

use super::Backend;

impl Chores for Backend {}
