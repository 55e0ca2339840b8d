//! What is remembered of each name across restarts, so that an authority is never hammered.

use portcullis_model::UnixMs;
use serde::{Deserialize, Serialize};

/// How far it is with one name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Progress {
    /// The directory and the challenge of the last try.
    pub directory: String,
    pub challenge: String,
    /// The directory of the certificate that there is; empty when none has been issued.
    pub issued_by: String,
    /// When that one is to be renewed.
    pub renew_at: Option<UnixMs>,
    pub last_try: Option<UnixMs>,
    /// Failed tries in a row.
    pub failures: u32,
    pub last_error: Option<String>,
    /// No try before this.
    pub next_try: Option<UnixMs>,
}
