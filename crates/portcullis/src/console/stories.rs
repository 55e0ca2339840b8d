//! Decisions and findings in words.
//! Must not know about pages.

use portcullis_admin::Stories;

use super::Backend;

impl Stories for Backend {}
