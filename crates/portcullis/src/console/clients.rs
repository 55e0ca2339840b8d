//! Blocks, allows, findings and erasures: what may be done about a client, and what speaks against it.
//! Must not know about pages.

use portcullis_admin::Clients;

use super::Backend;

impl Clients for Backend {}
