//! Limits as they stand: what is counted, and what other limits would have refused.
//! Must not know about pages.

use portcullis_admin::Limits;

use super::Backend;

impl Limits for Backend {}
