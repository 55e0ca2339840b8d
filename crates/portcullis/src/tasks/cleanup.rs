//! The task `cleanup`: deletes from the state database what nobody needs any more.

use portcullis_store::{Purged, State};

use super::{Task, TaskContext};

pub(super) const TASK: Task = Task {
    name: "cleanup",
    about: "delete old findings, limit events, removed blocks and audit entries",
    schedule: |config| config.tasks.cleanup.clone(),
    run,
};

fn run(context: &TaskContext) -> anyhow::Result<String> {
    let purged = State::open_existing(&context.config.data)?.purge(context.now)?;
    Ok(summary(&purged))
}

fn summary(purged: &Purged) -> String {
    let Purged { blocks, allows, findings, limit_events, task_runs, locations, audit, alerts, console } =
        *purged;
    let rows = [
        (blocks, "blocks"),
        (allows, "allows"),
        (findings, "findings"),
        (limit_events, "limit events"),
        (task_runs, "task runs"),
        (locations, "locations"),
        (audit, "audit entries"),
        (alerts, "alerts"),
        (console, "sessions and tokens of the console"),
    ];
    let rows: Vec<String> =
        rows.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
    if rows.is_empty() { "nothing was old enough".to_owned() } else { format!("deleted {}", rows.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_names_what_went() {
        assert_eq!(summary(&Purged::default()), "nothing was old enough");
        let purged = Purged { findings: 3, audit: 1, ..Purged::default() };
        assert_eq!(summary(&purged), "deleted 3 findings, 1 audit entries");
    }
}
