//! The task `feeds`: fetches the lists that are due.

use std::time::Duration;

use portcullis_config::{Config, Schedule};

use crate::feeds::{self, Files};

use super::{Task, TaskContext};

pub(super) const TASK: Task =
    Task { name: feeds::TASK_NAME, about: "fetch the lists of [[feed]] that are due", schedule, run };

/// A feed that was never tried is fetched as soon as that.
const FIRST: Duration = Duration::from_secs(10);
/// How often it is looked at what is due: a feed that failed is tried again before its interval is over.
const LOOK: Duration = Duration::from_secs(300);

fn schedule(config: &Config) -> Schedule {
    let Some(shortest) = config.feeds.iter().map(|feed| feed.interval).min() else { return Schedule::Off };
    let is_new = config.feeds.iter().any(|feed| !Files::of(&config.data, feed).status.exists());
    Schedule::Every(if is_new { FIRST } else { shortest.min(LOOK) })
}

fn run(context: &TaskContext) -> anyhow::Result<String> {
    let updated = feeds::update(&context.config, None, context.now, &|| context.is_stopping())?;
    feeds::judge(&updated).map_err(anyhow::Error::msg)
}
