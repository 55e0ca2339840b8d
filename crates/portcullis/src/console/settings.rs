//! Settings of the detector that are changed while running, beside what the file says.
//! Must not know about pages.

use portcullis_admin::LiveSettings;

use super::Backend;

impl LiveSettings for Backend {}
