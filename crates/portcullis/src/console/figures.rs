//! How the gateway is at this moment: counters for the live overview, health of its parts.
//! Must not know about pages.

use portcullis_admin::Figures;

use super::Backend;

impl Figures for Backend {}
