//! Fetches the networks that operators of bots publish, as feeds are fetched. Must not put them in force: the gateway
//! notices new copies by itself.

use portcullis_config::Config;
use portcullis_model::UnixMs;

use crate::feeds::{Shelf, Updated, update_shelf};

/// The name of the task.
pub(crate) const TASK_NAME: &str = "bots";
/// Where copies are kept, in the data folder.
pub(super) const FOLDER: &str = "bots";

/// Fetches what is due at `now`.
///
/// # Errors
/// The data folder or the state database cannot be used; a source that fails is no error.
pub(crate) fn update(
    config: &Config,
    now: UnixMs,
    is_stopping: &dyn Fn() -> bool,
) -> anyhow::Result<Vec<Updated>> {
    let lists = config.bots.sources.iter().map(|source| &source.list).collect();
    let shelf = Shelf { folder: FOLDER, what: "list of networks of the crawler", lists };
    update_shelf(config, &shelf, None, now, is_stopping)
}
