//! The task `bots`: fetches the networks of crawlers that are due.

use std::time::Duration;

use portcullis_config::{Config, Schedule};

use crate::{bots, feeds};

use super::{Task, TaskContext};

pub(super) const TASK: Task =
    Task { name: bots::TASK_NAME, about: "fetch the networks of crawlers that are due", schedule, run };

/// How often it is looked at what is due: a source that failed is tried again before its interval is over.
const LOOK: Duration = Duration::from_secs(300);

fn schedule(config: &Config) -> Schedule {
    let intervals = config.bots.sources.iter().map(|source| source.list.interval);
    match intervals.min() {
        Some(shortest) if config.bots.enabled => Schedule::Every(shortest.min(LOOK)),
        Some(_) | None => Schedule::Off,
    }
}

fn run(context: &TaskContext) -> anyhow::Result<String> {
    let updated = bots::update(&context.config, context.now, &|| context.is_stopping())?;
    feeds::judge(&updated).map_err(anyhow::Error::msg)
}
