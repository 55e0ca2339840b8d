//! What is known before the first request of a window comes. Plain data; must not learn.

use std::sync::Arc;

use crate::{Past, Site, Suppressions};

/// What requests are judged with besides the settings; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Knowledge {
    /// What the site is like in ordinary times.
    pub site: Arc<Site>,
    /// What a person said is no attack.
    pub suppressions: Arc<Suppressions>,
    /// Clients that did a little that was odd, days ago.
    pub past: Arc<Past>,
}
