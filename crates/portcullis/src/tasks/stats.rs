//! What the tasks of this process did, for the metrics.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use portcullis_model::UnixMs;

/// Counters of every task by its name; as many as there are tasks.
#[derive(Default)]
pub(crate) struct TaskStats {
    tasks: Mutex<BTreeMap<&'static str, TaskStat>>,
}

/// Of one task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TaskStat {
    pub(crate) succeeded: u64,
    pub(crate) failed: u64,
    /// When a run ended well, also in an earlier process.
    pub(crate) last_success: Option<UnixMs>,
    /// How long the last run took.
    pub(crate) took: Option<Duration>,
    pub(crate) running_since: Option<Instant>,
}

impl TaskStats {
    /// All of them, by name.
    pub(crate) fn all(&self) -> BTreeMap<&'static str, TaskStat> {
        self.tasks.lock().clone()
    }

    pub(super) fn known(&self, task: &'static str, last_success: Option<UnixMs>) {
        self.update(task, |stat| stat.last_success = stat.last_success.max(last_success));
    }

    pub(super) fn began(&self, task: &'static str, at: Instant) {
        self.update(task, |stat| stat.running_since = Some(at));
    }

    /// It was not run after all.
    pub(super) fn put_off(&self, task: &'static str) {
        self.update(task, |stat| stat.running_since = None);
    }

    pub(super) fn ended(&self, task: &'static str, succeeded: bool, began: UnixMs, at: Instant) {
        self.update(task, |stat| {
            let took = stat.running_since.take().map(|since| at.duration_since(since));
            stat.took = took;
            if succeeded {
                stat.succeeded += 1;
                stat.last_success = Some(began.plus(took.unwrap_or_default()));
            } else {
                stat.failed += 1;
            }
        });
    }

    fn update(&self, task: &'static str, change: impl FnOnce(&mut TaskStat)) {
        change(self.tasks.lock().entry(task).or_default());
    }
}
