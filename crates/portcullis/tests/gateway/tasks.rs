//! What the gateway does by itself: on its schedule, by command, never twice at once, and on record.

use std::fs::File;
use std::time::Duration;

use portcullis_model::UnixMs;
use portcullis_store::{NewTaskRun, State};
use portcullis_testkit::{Gateway, Upstream, eventually};
use serde_json::Value;

use crate::{config, in_front_of};

fn listed(text: &str, task: &str) -> Value {
    let tasks: Vec<Value> = serde_json::from_str(text).unwrap();
    tasks.into_iter().find(|row| row["task"] == task).unwrap_or_else(|| panic!("{task} is not in {text}"))
}

fn now() -> UnixMs {
    UnixMs::from_system(std::time::SystemTime::now())
}

#[test]
fn every_task_is_listed_with_its_schedule_and_its_next_run() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    let text = gateway.cli_ok(&["tasks", "--json"]);
    let cleanup = listed(&text, "cleanup");
    assert_eq!((cleanup["schedule"].as_str(), &cleanup["last_run"]), (Some("30 3 * * *"), &Value::Null));
    let next = UnixMs(cleanup["next_run"].as_i64().unwrap());
    assert!(next.since(now()) <= Duration::from_secs(25 * 3_600) && next > now(), "{cleanup}");
    assert_eq!(listed(&text, "detect")["schedule"], "every 1h");
    let table = gateway.cli_ok(&["tasks"]);
    assert!(table.contains("30 3 * * *") && table.contains("never"), "{table}");
}

#[test]
fn a_task_run_by_command_beside_the_gateway_is_on_record() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    let said = gateway.cli_ok(&["tasks", "run", "cleanup"]);
    assert_eq!(said.trim(), "cleanup: nothing was old enough.");
    let cleanup = listed(&gateway.cli_ok(&["tasks", "--json"]), "cleanup");
    assert_eq!(
        (cleanup["last_run"]["succeeded"].as_bool(), cleanup["running_since"].is_null()),
        (Some(true), true)
    );
    let unknown = gateway.cli(&["tasks", "run", "clean"]);
    let why = &unknown.stderr;
    assert!(unknown.code == Some(2) && why.contains("cleanup"), "{why}");
}

#[test]
fn a_task_that_somebody_is_running_is_refused_with_a_sentence() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    gateway.cli_ok(&["tasks", "run", "cleanup"]);
    let lock = File::open(gateway.data().folder().join("task-cleanup.lock")).unwrap();
    lock.lock().unwrap();
    let refused = gateway.cli(&["tasks", "run", "cleanup"]);
    let why = &refused.stderr;
    assert!(refused.code == Some(1) && why.contains("\"cleanup\" is running already"), "{why}");
    assert!(gateway.cli_ok(&["tasks"]).contains("running for"));
    drop(lock);
    gateway.cli_ok(&["tasks", "run", "cleanup"]);
}

#[test]
fn what_was_missed_while_no_gateway_ran_is_made_up_for_once_and_counted() {
    let upstream = Upstream::start();
    let ended = in_front_of(&upstream).terminate();
    let mut state = State::open(ended.data.folder()).unwrap();
    let days_ago = now().minus(Duration::from_secs(3 * 86_400));
    for (task, succeeded) in [("cleanup", true), ("detect", false)] {
        let summary = "an earlier one".to_owned();
        let run = NewTaskRun {
            task: task.to_owned(),
            started_at: days_ago,
            finished_at: days_ago,
            succeeded,
            summary,
        };
        state.record_task_run(&run).unwrap();
    }
    let gateway = ended.start_again();
    let last = |task: &str| {
        gateway.metric(&format!("portcullis_task_last_success_timestamp_seconds{{task=\"{task}\"}}"))
    };
    let days_ago = days_ago.0 as f64 / 1e3;
    eventually("both runs", || {
        let done = |task: &str| {
            state.task_runs(Some(task), 9).unwrap().len() == 2 && last(task) > days_ago + 86_400.0
        };
        (done("cleanup") && done("detect")).then_some(())
    });
    for task in ["cleanup", "detect"] {
        let count = |outcome: &str| {
            gateway.metric(&format!("portcullis_task_runs_total{{task=\"{task}\",outcome=\"{outcome}\"}}"))
        };
        assert_eq!((count("succeeded"), count("failed")), (1.0, 0.0), "{task}");
        assert_eq!(gateway.metric(&format!("portcullis_task_running_seconds{{task=\"{task}\"}}")), 0.0);
        assert!(gateway.metric(&format!("portcullis_task_duration_seconds{{task=\"{task}\"}}")) < 60.0);
    }
}

#[test]
fn a_schedule_is_changed_while_the_gateway_runs() {
    let upstream = Upstream::start();
    let config = config().upstream(&upstream);
    let gateway = Gateway::start(config.section("[tasks]\ncleanup = \"off\""));
    assert_eq!(listed(&gateway.cli_ok(&["tasks", "--json"]), "cleanup")["next_run"], Value::Null);
    let text = std::fs::read_to_string(gateway.config_file()).unwrap();
    gateway.write_config(&text.replace("cleanup = \"off\"", "cleanup = \"every 10s\""));
    eventually("a run on the new schedule", || {
        let runs = gateway.data().state().task_runs(Some("cleanup"), 9).unwrap();
        (!runs.is_empty()).then_some(())
    });
}
