//! The tasks that there are, and what each gets to work with.
//! Must not run or schedule anything.

use std::sync::Arc;

use portcullis_config::{Config, Schedule};
use portcullis_model::UnixMs;
use portcullis_store::Flusher;

use crate::detection::Control;
use crate::metrics::AppStats;

use super::{OnDetection, bots, cleanup, detect, feeds, geo, report};

/// Every task, as `portcullis tasks` lists them.
pub(crate) const TASKS: &[Task] =
    &[detect::TASK, cleanup::TASK, report::TASK, geo::UPDATE, geo::REFRESH, feeds::TASK, bots::TASK];

/// Something that the gateway does on a schedule, and that can be done by hand.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Task {
    /// As it is typed, recorded and labelled: lower-case letters and hyphens.
    pub(crate) name: &'static str,
    /// One line for people.
    pub(crate) about: &'static str,
    /// Where its schedule comes from.
    pub(crate) schedule: fn(&Config) -> Schedule,
    /// Does it, and says in a sentence what was done. Alone under its name, whichever process it is in; what
    /// it changes goes through the databases, or files that are replaced as a whole. It should end soon when
    /// [`TaskContext::is_stopping`]; what it then returns as an error is no failure.
    pub(crate) run: fn(&TaskContext) -> anyhow::Result<String>,
}

/// The task of that name.
pub(crate) fn find(name: &str) -> Option<&'static Task> {
    TASKS.iter().find(|task| task.name == name)
}

/// What one run of a task works with.
pub(crate) struct TaskContext {
    pub(crate) config: Arc<Config>,
    /// When the run began.
    pub(crate) now: UnixMs,
    /// Parts of the gateway that this run is in; `None` when a command runs it, beside a gateway or not.
    pub(crate) gateway: Option<GatewayParts>,
    pub(crate) control: Arc<Control>,
}

impl TaskContext {
    /// Whether the process is about to end.
    pub(crate) fn is_stopping(&self) -> bool {
        self.control.is_stopping()
    }
}

/// Parts of a running gateway. None of them keeps it from ending: a task that hangs may hold them.
#[derive(Clone)]
pub(crate) struct GatewayParts {
    /// Brings the newest requests into the log.
    pub(crate) flusher: Flusher,
    pub(crate) stats: Arc<AppStats>,
    pub(crate) on_detection: OnDetection,
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_name_is_one_word_and_there_once() {
        let names: HashSet<&str> = TASKS.iter().map(|task| task.name).collect();
        assert_eq!(names.len(), TASKS.len());
        for task in TASKS {
            assert!(task.name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{}", task.name);
            assert!(!task.about.is_empty() && !task.about.ends_with('.'), "{}", task.about);
            assert_eq!(find(task.name).map(|found| found.about), Some(task.about));
        }
    }
}
