//! The task `detect`: a run of the detector.

use portcullis_config::Schedule;

use crate::detection;

use super::{Task, TaskContext};

pub(super) const TASK: Task = Task {
    name: detection::TASK,
    about: "flag suspicious clients, and block the worst",
    schedule: |config| match config.detection.enabled {
        true => Schedule::Every(config.detection.interval),
        false => Schedule::Off,
    },
    run,
};

fn run(context: &TaskContext) -> anyhow::Result<String> {
    if let Some(gateway) = &context.gateway
        && let Err(error) = gateway.flusher.flush()
    {
        tracing::warn!("the detector does not see the newest requests: {error}");
    }
    let result = detection::run(&context.config, context.now, &context.control);
    if let Ok(outcome) = &result {
        detection::report(&outcome.done);
        tracing::debug!("detector: {} findings in {:?}", outcome.done.saved.len(), outcome.took);
    }
    if let Some(gateway) = &context.gateway
        && !context.is_stopping()
    {
        gateway.stats.detected(&result);
        (gateway.on_detection)(&result);
    }
    result.map(|outcome| detection::summary(&outcome))
}
