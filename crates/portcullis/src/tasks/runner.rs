//! One run of a task: never two at once, whichever processes they are in, and on record.
//! Must not decide when a task runs, nor let its panic through.

use std::fmt;
use std::fs::{File, TryLockError};
use std::io::{Read as _, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use portcullis_model::UnixMs;
use portcullis_store::{NewTaskRun, State, give_to_owner};

use crate::sentence::sentence;

use super::registry::{Task, TaskContext};

/// Characters of a summary that are kept.
const MAX_SUMMARY: usize = 1_000;
/// Whoever asks whether a task is running holds its lock for a moment: then it is tried again.
const LOCK_TRIES: usize = 5;
const LOCK_PAUSE: Duration = Duration::from_millis(20);
/// More than that is no lock file of ours.
const MAX_LOCK_BYTES: u64 = 64;

/// The task is being run already, by this process or another one.
#[derive(Debug)]
pub(crate) struct AlreadyRunning {
    name: String,
}

impl fmt::Display for AlreadyRunning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the task \"{}\" is running already; try again when it is done", self.name)
    }
}

impl std::error::Error for AlreadyRunning {}

impl Task {
    /// Runs the task now, alone and on record.
    ///
    /// # Errors
    /// It is running already ([`AlreadyRunning`]), it failed, or the state database cannot be written.
    pub(crate) fn run_now(&self, context: &TaskContext) -> anyhow::Result<String> {
        let work = || (self.run)(context);
        alone_and_on_record(self.name, context, work, |done| Ok(done.clone()))
    }
}

/// Does `work` as the task `name`, and records what came of it: `judge` says in a sentence what was done, or as an error
/// what was not, although the work went to its end. A run that was broken off because the process
/// ends is not recorded: the next process makes up for it.
///
/// # Errors
/// The same as [`Task::run_now`].
pub(crate) fn alone_and_on_record<T>(
    name: &str,
    context: &TaskContext,
    work: impl FnOnce() -> anyhow::Result<T>,
    judge: impl FnOnce(&T) -> Result<String, String>,
) -> anyhow::Result<T> {
    let data = &context.config.data;
    // Where nothing was ever recorded there is nothing to do, and no place to say so.
    drop(State::open_existing(data)?);
    let lock = lock(data, name, context.now)?;
    let started = Instant::now();
    let result = catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(anyhow!("it panicked, which is a bug; the gateway's own log says where")));
    if result.is_err() && context.is_stopping() {
        return result;
    }
    let judged = result.as_ref().map_err(sentence).and_then(judge);
    let succeeded = judged.is_ok();
    let summary = judged.unwrap_or_else(|problem| problem);
    let run = NewTaskRun {
        task: name.to_owned(),
        started_at: context.now,
        finished_at: context.now.plus(started.elapsed()),
        succeeded,
        summary: summary.chars().take(MAX_SUMMARY).collect(),
    };
    let recorded = State::open_existing(data).and_then(|mut state| state.record_task_run(&run));
    drop(lock);
    match (result, recorded) {
        (Ok(_), Err(error)) => Err(error).context("it is done, but not on record"),
        (result, _) => result,
    }
}

/// Since when the task is being run, by whichever process; `None` when it is not.
pub(crate) fn running_since(data: &Path, name: &str) -> Option<UnixMs> {
    let file = File::open(path(data, name)).ok()?;
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => {}
        Ok(()) | Err(TryLockError::Error(_)) => return None,
    }
    let mut text = String::new();
    file.take(MAX_LOCK_BYTES).read_to_string(&mut text).ok()?;
    // Locked and not written yet: it has just begun, and the next look will see when.
    text.trim().parse().ok().map(UnixMs)
}

fn path(data: &Path, name: &str) -> PathBuf {
    data.join(format!("task-{name}.lock"))
}

/// Held while the task runs; the kernel releases it with the process, however that ends. The file says since
/// when.
fn lock(data: &Path, name: &str, now: UnixMs) -> anyhow::Result<File> {
    let path = path(data, name);
    let cannot = |doing| format!("cannot {doing} {}", path.display());
    let mut options = File::options();
    let mut file =
        options.write(true).create(true).truncate(false).open(&path).with_context(|| cannot("write"))?;
    give_to_owner(&path);
    for n in 0..LOCK_TRIES {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) if n + 1 < LOCK_TRIES => std::thread::sleep(LOCK_PAUSE),
            Err(TryLockError::WouldBlock) => return Err(AlreadyRunning { name: name.to_owned() }.into()),
            Err(TryLockError::Error(error)) => return Err(error).with_context(|| cannot("lock")),
        }
    }
    file.set_len(0).and_then(|()| write!(file, "{}", now.0)).with_context(|| cannot("write"))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use portcullis_config::{Overrides, Schedule, load};

    use super::*;

    fn context(folder: &Path) -> TaskContext {
        drop(State::open(folder).unwrap());
        let overrides = Overrides {
            upstream: Some("http://127.0.0.1:8000".to_owned()),
            data: Some(folder.to_owned()),
            ..Overrides::default()
        };
        let config = Arc::new(load(None, &overrides).unwrap().config);
        TaskContext { config, now: UnixMs(1_000_000), gateway: None, control: Arc::default() }
    }

    fn task(run: fn(&TaskContext) -> anyhow::Result<String>) -> Task {
        Task { name: "sample", about: "a sample", schedule: |_| Schedule::Off, run }
    }

    fn runs(context: &TaskContext) -> Vec<(bool, String)> {
        let state = State::open(&context.config.data).unwrap();
        let runs = state.task_runs(Some("sample"), 9).unwrap();
        runs.into_iter().map(|run| (run.succeeded, run.summary)).collect()
    }

    #[test]
    fn a_run_is_recorded_with_what_came_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let context = context(folder.path());
        assert_eq!(task(|_| Ok("3 done".to_owned())).run_now(&context).unwrap(), "3 done");
        assert!(task(|_| Err(anyhow!("no disk"))).run_now(&context).is_err());
        assert!(task(|_| panic!("a bug")).run_now(&context).is_err());
        let [(false, panicked), (false, failed), (true, done)] = &runs(&context)[..] else {
            panic!("{:?}", runs(&context))
        };
        assert_eq!((done.as_str(), failed.as_str()), ("3 done", "no disk"));
        assert!(panicked.contains("panicked"), "{panicked}");
    }

    #[test]
    fn while_a_task_runs_nobody_else_can_run_it_and_everybody_can_see_since_when() {
        let folder = tempfile::tempdir().unwrap();
        let context = context(folder.path());
        assert_eq!(running_since(folder.path(), "sample"), None);
        let nested = task(|context| {
            assert_eq!(running_since(&context.config.data, "sample"), Some(UnixMs(1_000_000)));
            let again = task(|_| Ok(String::new())).run_now(context).unwrap_err();
            assert!(again.is::<AlreadyRunning>(), "{again}");
            Ok("once".to_owned())
        });
        nested.run_now(&context).unwrap();
        assert_eq!(running_since(folder.path(), "sample"), None);
        assert_eq!(runs(&context), [(true, "once".to_owned())]);
    }

    #[test]
    fn a_run_that_is_broken_off_by_the_end_of_the_process_is_not_on_record() {
        let folder = tempfile::tempdir().unwrap();
        let context = context(folder.path());
        context.control.stop();
        assert!(task(|_| Err(anyhow!("broken off"))).run_now(&context).is_err());
        assert_eq!(runs(&context), []);
    }
}
