//! The task `report`: makes yesterday's report and puts it into the queue of every channel.

use portcullis_config::Schedule;
use portcullis_store::State;

use crate::alerts::{Channel, Lines, channels};
use crate::report;

use super::{Task, TaskContext};

pub(super) const TASK: Task = Task {
    name: "report",
    about: "send the report of yesterday to everybody who gets alerts",
    schedule: |config| match config.alerts.has_channels() {
        true => config.tasks.report.clone(),
        false => Schedule::Off,
    },
    run,
};

fn run(context: &TaskContext) -> anyhow::Result<String> {
    let config = &context.config;
    let channels = channels(&config.alerts);
    let names: Vec<&str> = channels.iter().map(Channel::name).collect();
    if names.is_empty() {
        return Ok("nobody is told: there is no [alerts.smtp] and no [[alerts.webhook]]".to_owned());
    }
    let zone = report::zone(config);
    let day = report::yesterday(context.now, &zone);
    let message = report::make(config, day, context.now)?.message(&zone);
    let lines = serde_json::to_string(&Lines::of(message))?;
    State::open_existing(&config.data)?.add_to_outbox(
        &names,
        &format!("report-{day}"),
        &lines,
        context.now,
    )?;
    Ok(format!("the report of {day} goes to {}", names.join(", ")))
}
