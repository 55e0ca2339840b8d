//! The thread that begins tasks when they are due, each on a thread of its own.
//!
//! At most one thread per task, so a task that hangs takes nothing from the others; it is left behind when
//! the gateway ends. Must not know what a task does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use portcullis_config::Config;
use portcullis_model::UnixMs;
use portcullis_store::State;

use crate::detection::Control;
use crate::sentence::sentence;

use super::registry::{GatewayParts, Task, TaskContext};
use super::runner::AlreadyRunning;
use super::schedule::Plan;
use super::stats::TaskStats;

/// The longest time between two looks at the wall clock, which may jump.
const TICK: Duration = Duration::from_secs(1);
const SHORTEST_WAIT: Duration = Duration::from_millis(10);
/// How long the end of the process waits for tasks; they have been told to stop.
const PATIENCE_AT_END: Duration = Duration::from_secs(5);
const END_POLL: Duration = Duration::from_millis(10);
/// The niceness of tasks: they take what nobody else wants.
const NICENESS: i32 = 10;

pub(super) struct Scheduler {
    rows: Vec<Row>,
    gateway: Option<GatewayParts>,
    stats: Arc<TaskStats>,
    control: Arc<Control>,
}

struct Row {
    task: Task,
    plan: Option<Plan>,
    running: Option<Running>,
    /// Somebody else was running it when it was due. It may be done with that.
    was_put_off: bool,
}

struct Running {
    thread: JoinHandle<()>,
    /// Set when somebody else was running it.
    is_put_off: Arc<AtomicBool>,
    /// Of the run before.
    last: UnixMs,
}

impl Scheduler {
    pub(super) fn new(tasks: &[Task], gateway: Option<GatewayParts>, control: Arc<Control>) -> Self {
        let stats = gateway.as_ref().map(|gateway| Arc::clone(&gateway.stats.tasks)).unwrap_or_default();
        let rows =
            tasks.iter().map(|&task| Row { task, plan: None, running: None, was_put_off: false }).collect();
        Self { rows, gateway, stats, control }
    }

    /// Returns when the process ends.
    pub(super) fn run(&mut self, config: &dyn Fn() -> Arc<Config>, clock: &dyn Fn() -> UnixMs) {
        self.plan(&config(), clock());
        while !self.control.is_stopping() {
            let wait = self.begin_what_is_due(&config(), clock());
            std::thread::park_timeout(wait);
        }
        let until = Instant::now() + PATIENCE_AT_END;
        for row in &mut self.rows {
            let Some(Running { thread, .. }) = row.running.take() else { continue };
            while !thread.is_finished() && Instant::now() < until {
                std::thread::sleep(END_POLL);
            }
            if thread.is_finished() {
                // A panic has been caught in the run.
                let _ = thread.join();
            } else {
                tracing::warn!("the task \"{}\" does not end; it is left behind", row.task.name);
            }
        }
    }

    /// When each task ran last, in whichever process. Without the database all of them are new.
    fn plan(&mut self, config: &Config, now: UnixMs) {
        let mut state = State::open_existing(&config.data)
            .inspect_err(|error| tracing::warn!("what was missed is not made up for: {error}"))
            .ok();
        for row in &mut self.rows {
            let (mut last, mut known_since) = (None, now);
            if let Some(state) = &mut state {
                let name = row.task.name;
                known_since = state.note_task(name, now).unwrap_or(now);
                let runs = state.task_runs(Some(name), 1).unwrap_or_default();
                last = runs.first().map(|run| run.started_at);
                self.stats.known(name, state.last_success(name).ok().flatten());
            }
            row.plan = Some(Plan::at_start(last, known_since, now));
        }
    }

    /// Returns how long there is nothing more to do.
    fn begin_what_is_due(&mut self, config: &Arc<Config>, now: UnixMs) -> Duration {
        let zone = config.tasks.time_zone.time_zone();
        let mut wait = TICK;
        for row in &mut self.rows {
            let Some(plan) = &mut row.plan else { continue };
            match row.running.take() {
                Some(running) if !running.thread.is_finished() => {
                    row.running = Some(running);
                    continue;
                }
                Some(running) if running.is_put_off.load(Ordering::Relaxed) => {
                    plan.put_off(running.last, now);
                    row.was_put_off = true;
                }
                Some(_) | None => {}
            }
            let schedule = (row.task.schedule)(config);
            let Some(mut next) = plan.next(&schedule, &zone, now) else { continue };
            if next <= now && std::mem::take(&mut row.was_put_off) {
                if let Some(at) = last_run(config, row.task.name) {
                    plan.was_run(at);
                }
                next = plan.next(&schedule, &zone, now).unwrap_or(next);
            }
            if next > now {
                wait = wait.min(next.since(now));
                continue;
            }
            let last = plan.last();
            plan.began(now);
            let context = TaskContext {
                config: Arc::clone(config),
                now,
                gateway: self.gateway.clone(),
                control: Arc::clone(&self.control),
            };
            row.running = begin(row.task, context, Arc::clone(&self.stats), last)
                .inspect_err(|error| tracing::error!("the task \"{}\" cannot begin: {error}", row.task.name))
                .ok();
        }
        wait.max(SHORTEST_WAIT)
    }
}

/// When the last run on record began, whoever ran it.
fn last_run(config: &Config, task: &str) -> Option<UnixMs> {
    let runs = State::open_read_only(&config.data).and_then(|state| state.task_runs(Some(task), 1));
    runs.ok()?.first().map(|run| run.started_at)
}

fn begin(task: Task, context: TaskContext, stats: Arc<TaskStats>, last: UnixMs) -> std::io::Result<Running> {
    let is_put_off = Arc::new(AtomicBool::new(false));
    let put_off = Arc::clone(&is_put_off);
    let name = match task.name {
        // As it has always been called.
        "detect" => "portcullis-detector".to_owned(),
        other => format!("portcullis-{other}"),
    };
    let thread = std::thread::Builder::new().name(name).spawn(move || {
        lower_priority();
        stats.began(task.name, Instant::now());
        let result = task.run_now(&context);
        match &result {
            Ok(summary) => tracing::debug!("{}: {summary}", task.name),
            Err(error) if error.is::<AlreadyRunning>() => {
                put_off.store(true, Ordering::Relaxed);
                return stats.put_off(task.name);
            }
            // Broken off, because the gateway ends.
            Err(_) if context.is_stopping() => return stats.put_off(task.name),
            Err(error) => tracing::error!("the task \"{}\" failed: {}", task.name, sentence(error)),
        }
        stats.ended(task.name, result.is_ok(), context.now, Instant::now());
    })?;
    Ok(Running { thread, is_put_off, last })
}

/// On Linux niceness belongs to the thread; elsewhere this would slow the whole process, so it is left.
pub(crate) fn lower_priority() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICENESS) {
        tracing::debug!("a task keeps the ordinary priority: {error}");
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use parking_lot::Mutex;
    use portcullis_config::{Overrides, Schedule, load};
    use portcullis_testkit::eventually;

    use super::*;

    const HOURLY: fn(&Config) -> Schedule = |_| Schedule::Every(Duration::from_secs(3_600));

    fn task(name: &'static str, run: fn(&TaskContext) -> anyhow::Result<String>) -> Task {
        Task { name, about: "a sample", schedule: HOURLY, run }
    }

    fn hang(context: &TaskContext) -> anyhow::Result<String> {
        while !context.is_stopping() {
            std::thread::sleep(END_POLL);
        }
        anyhow::bail!("broken off")
    }

    /// A scheduler on a wall clock that the test sets.
    struct Schedules {
        folder: tempfile::TempDir,
        now: Arc<Mutex<UnixMs>>,
    }

    impl Schedules {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            drop(State::open(folder.path()).unwrap());
            Self { folder, now: Arc::new(Mutex::new(UnixMs(1_000_000_000))) }
        }

        fn pass(&self, seconds: u64) {
            let mut now = self.now.lock();
            *now = now.plus(Duration::from_secs(seconds));
        }

        /// Runs it while `meanwhile` lasts.
        fn run(&self, tasks: &[Task], meanwhile: impl FnOnce(&TaskStats)) {
            let control = Arc::new(Control::default());
            let mut scheduler = Scheduler::new(tasks, None, Arc::clone(&control));
            let stats = Arc::clone(&scheduler.stats);
            let config = config(self.folder.path());
            let now = Arc::clone(&self.now);
            let thread = std::thread::spawn(move || {
                scheduler.run(&move || Arc::clone(&config), &move || *now.lock());
            });
            meanwhile(&stats);
            control.stop();
            thread.thread().unpark();
            thread.join().unwrap();
        }

        fn runs(&self, task: &str) -> Vec<(bool, UnixMs)> {
            let state = State::open(self.folder.path()).unwrap();
            let runs = state.task_runs(Some(task), 99).unwrap();
            runs.into_iter().map(|run| (run.succeeded, run.started_at)).collect()
        }

        fn wait_for_runs(&self, task: &str, count: usize) {
            eventually("the runs", || (self.runs(task).len() >= count).then_some(()));
        }
    }

    fn config(data: &Path) -> Arc<Config> {
        let overrides = Overrides {
            upstream: Some("http://127.0.0.1:8000".to_owned()),
            data: Some(data.to_owned()),
            ..Overrides::default()
        };
        Arc::new(load(None, &overrides).unwrap().config)
    }

    #[test]
    fn tasks_that_panic_or_hang_take_nothing_from_the_others() {
        let schedules = Schedules::new();
        let tasks = [
            task("hangs", hang),
            task("panics", |_| panic!("a bug")),
            task("works", |_| Ok("done".to_owned())),
        ];
        schedules.run(&tasks, |stats| {
            eventually("the plan", || (stats.all().len() == 3).then_some(()));
            for round in 1..=3 {
                schedules.pass(3_601);
                schedules.wait_for_runs("works", round);
                schedules.wait_for_runs("panics", round);
            }
            let hanging = eventually("the one that hangs", || stats.all().get("hangs").copied());
            assert!(hanging.running_since.is_some(), "{hanging:?}");
            let works =
                eventually("the third", || Some(stats.all()["works"]).filter(|stat| stat.succeeded == 3));
            assert_eq!((works.failed, works.running_since), (0, None));
            eventually("the third", || Some(stats.all()["panics"]).filter(|stat| stat.failed == 3));
        });
        assert_eq!(schedules.runs("hangs"), [], "broken off by the end of the process");
    }

    #[test]
    fn days_without_a_gateway_are_made_up_for_by_one_run() {
        let schedules = Schedules::new();
        let tasks = [task("works", |_| Ok("done".to_owned()))];
        schedules.run(&tasks, |stats| {
            eventually("the plan", || (!stats.all().is_empty()).then_some(()));
        });
        assert_eq!(schedules.runs("works"), []);
        schedules.pass(5 * 86_400);
        schedules.run(&tasks, |stats| {
            eventually("the plan", || (!stats.all().is_empty()).then_some(()));
            schedules.pass(11);
            schedules.wait_for_runs("works", 1);
            schedules.pass(600);
            std::thread::sleep(TICK * 2);
        });
        assert_eq!(
            schedules.runs("works"),
            [(true, UnixMs(1_000_000_000).plus(Duration::from_secs(5 * 86_400 + 11)))]
        );
        schedules.run(&tasks, |_| std::thread::sleep(TICK * 2));
        assert_eq!(schedules.runs("works").len(), 1, "a restart does not run it again");
    }

    #[test]
    fn what_a_command_is_running_is_run_by_the_schedule_when_that_is_done() {
        let schedules = Schedules::new();
        let tasks = [task("works", |_| Ok("done".to_owned()))];
        schedules.run(&tasks, |stats| {
            eventually("the plan", || (!stats.all().is_empty()).then_some(()));
            let by_hand = TaskContext {
                config: config(schedules.folder.path()),
                now: *schedules.now.lock(),
                gateway: None,
                control: Arc::default(),
            };
            let slow = super::super::runner::alone_and_on_record(
                "works",
                &by_hand,
                || {
                    schedules.pass(3_601);
                    std::thread::sleep(TICK * 2);
                    Ok(())
                },
                |()| Ok("by hand".to_owned()),
            );
            slow.unwrap();
            assert_eq!(stats.all()["works"].succeeded, 0);
            schedules.pass(61);
            schedules.wait_for_runs("works", 2);
        });
    }

    /// The old process of an upgrade may finish a report when the new one wants to begin it.
    #[test]
    fn what_somebody_else_has_done_when_it_was_due_is_not_done_again() {
        let schedules = Schedules::new();
        let tasks = [task("works", |_| Ok("done".to_owned()))];
        schedules.run(&tasks, |stats| {
            eventually("the plan", || (!stats.all().is_empty()).then_some(()));
            let by_another = TaskContext {
                config: config(schedules.folder.path()),
                now: schedules.now.lock().plus(Duration::from_secs(3_601)),
                gateway: None,
                control: Arc::default(),
            };
            let work = || {
                schedules.pass(3_601);
                std::thread::sleep(TICK * 2);
                Ok(())
            };
            super::super::runner::alone_and_on_record("works", &by_another, work, |()| Ok(String::new()))
                .unwrap();
            schedules.pass(61);
            std::thread::sleep(TICK * 3);
            assert_eq!(schedules.runs("works").len(), 1);
            schedules.pass(3_601);
            schedules.wait_for_runs("works", 2);
        });
    }
}
