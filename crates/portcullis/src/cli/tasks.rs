//! `portcullis tasks`: what the gateway does by itself, when it did and when it will; `tasks run` does it now.
//! Must not know what a task does.

use std::path::Path;
use std::sync::Arc;

use clap::{Args, Subcommand};

use portcullis_config::Config;

use super::context::{Context, Misuse, open_state};
use super::output::{Align, Cell, DIM, GREEN, RED, Screen, Table, YELLOW};
use super::{Format, Outcome, time};
use crate::tasks::{Standing, TASKS, Task, TaskContext, find, standing};

const EXAMPLES: &str = "\
Examples:
  portcullis tasks
  portcullis tasks --json | jq '.[] | select(.last_run.succeeded == false)'
  portcullis tasks run cleanup

Schedules are set in [tasks] of the configuration, the detector's in
detection.interval. What was missed while no gateway ran is made up for once.";

const RUN_EXAMPLES: &str = "\
Examples:
  portcullis tasks run detect

Runs the task in this process, whether a gateway runs or not, and ends with 1
when it fails or is running already. A task that is off can be run too.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(super) struct Tasks {
    #[command(flatten)]
    format: Format,

    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Run a task now
    Run(Run),
}

#[derive(Debug, Args)]
#[command(after_help = RUN_EXAMPLES)]
struct Run {
    /// Its name, as "tasks" lists it
    #[arg(value_name = "NAME", value_parser = task)]
    task: Task,

    #[command(flatten)]
    format: Format,
}

fn task(name: &str) -> Result<Task, String> {
    find(name).copied().ok_or_else(|| {
        let names: Vec<&str> = TASKS.iter().map(|task| task.name).collect();
        format!("there is no such task; there are: {}", names.join(", "))
    })
}

impl Tasks {
    pub(super) fn run(self, context: &Context, screen: &mut Screen) -> anyhow::Result<Outcome> {
        let config = context.config()?;
        if let Some(Action::Run(run)) = self.action {
            return run.run(config, context, screen);
        }
        let state = open_state(&config.data)?;
        let tasks = standing(&config, state.as_ref(), context.now)?;
        if self.format.json {
            screen.json(&tasks)?;
            return Ok(Outcome::Done);
        }
        screen.table(&mut table(&tasks, context))?;
        screen.blank()?;
        screen.spans(&[(DIM, &format!("run one now: {}", context.command("tasks run NAME")))])?;
        Ok(Outcome::Done)
    }
}

impl Run {
    fn run(self, config: Config, context: &Context, screen: &mut Screen) -> anyhow::Result<Outcome> {
        require_state(&config.data)?;
        let run = TaskContext {
            config: Arc::new(config),
            now: context.now,
            gateway: None,
            control: Arc::default(),
        };
        let summary = self.task.run_now(&run)?;
        match self.format.json {
            true => screen.json(&serde_json::json!({ "task": self.task.name, "summary": summary }))?,
            false => screen.line(&format!("{}: {summary}.", self.task.name))?,
        }
        Ok(Outcome::Done)
    }
}

/// Where no gateway ever ran there is nothing that a task could do.
fn require_state(data: &Path) -> anyhow::Result<()> {
    match open_state(data)? {
        Some(_) => Ok(()),
        None => Err(Misuse(format!(
            "no gateway has run on the data folder {}; start one first, or name another folder with --data",
            data.display()
        ))
        .into()),
    }
}

fn table(tasks: &[Standing], context: &Context) -> Table {
    let mut table = Table::new(&[
        ("task", Align::Left),
        ("schedule", Align::Left),
        ("last run", Align::Left),
        ("took", Align::Right),
        ("next run", Align::Left),
        ("outcome", Align::Left),
    ])
    .wrapped();
    for shown in tasks {
        let run = shown.last_run.as_ref();
        let next = match (shown.running_since, shown.next_run) {
            (Some(since), _) => {
                Cell::styled(format!("running for {}", time::span(context.now.since(since))), YELLOW)
            }
            (None, Some(at)) => Cell::new(time::relative(at, context.now)),
            (None, None) => Cell::styled("-", DIM),
        };
        table.row(vec![
            Cell::new(shown.task),
            Cell::new(&shown.schedule),
            run.map_or_else(
                || Cell::styled("never", DIM),
                |run| Cell::new(time::relative(run.started_at, context.now)),
            ),
            Cell::new(
                run.map_or_else(|| "-".to_owned(), |run| time::span(run.finished_at.since(run.started_at))),
            ),
            next,
            match run {
                None => Cell::styled(format!("will {}", shown.about), DIM),
                Some(run) if run.succeeded => Cell::styled(&run.summary, GREEN),
                Some(run) => Cell::styled(format!("failed: {}", run.summary), RED),
            },
        ]);
    }
    table
}
