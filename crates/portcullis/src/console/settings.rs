//! Settings of the detector that are changed while running, beside what the file says.
//! Must not know about pages.

use portcullis_admin::running::settings::LiveSettings;

use super::Backend;

impl LiveSettings for Backend {
    fn apply_settings(&self) -> Result<(), String> {
        self.app()?.apply_settings();
        Ok(())
    }
}
