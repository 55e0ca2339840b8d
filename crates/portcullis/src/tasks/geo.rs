//! The tasks `geo-update` and `geo-refresh`: gets files of locations, and has sources asked about clients of
//! which nothing is known.

use std::time::SystemTime;

use anyhow::bail;
use portcullis_config::Schedule;

use crate::geo::{self, Downloaded, Whom};
use crate::sentence::sentence;

use super::{Task, TaskContext};

pub(super) const UPDATE: Task = Task {
    name: "geo-update",
    about: "download the files of [[geo.download]] that are older than their interval",
    schedule: |config| {
        if config.geo_downloads.is_empty() { Schedule::Off } else { config.tasks.geo_update.clone() }
    },
    run: update,
};

pub(super) const REFRESH: Task = Task {
    name: "geo-refresh",
    about: "ask the geo sources about clients of the last day whose country is not known",
    schedule: |config| {
        if config.geo.sources.is_empty() { Schedule::Off } else { config.tasks.geo_refresh.clone() }
    },
    run: refresh,
};

/// Addresses of one run.
const MAX_REFRESHED: usize = 5_000;

fn update(context: &TaskContext) -> anyhow::Result<String> {
    let (mut done, mut failed) = (Vec::new(), Vec::new());
    for download in &context.config.geo_downloads {
        if context.is_stopping() {
            bail!("broken off");
        }
        let now = SystemTime::now();
        if !geo::due(download, now) {
            continue;
        }
        let file = download.file.display();
        match geo::update(download, true, now) {
            Ok(Downloaded::Replaced(_)) => done.push(format!("{file} is new")),
            Ok(Downloaded::Unchanged) => done.push(format!("{file} has not changed")),
            Err(error) => failed.push(format!("{file}: {}", sentence(&error))),
        }
    }
    match (failed.is_empty(), done.is_empty()) {
        (true, true) => Ok("no file is old enough".to_owned()),
        (true, false) => Ok(done.join(", ")),
        (false, _) => {
            done.extend(failed);
            bail!("{}", done.join("; "))
        }
    }
}

fn refresh(context: &TaskContext) -> anyhow::Result<String> {
    let is_stopping = || context.is_stopping();
    let done = geo::refresh(&context.config, &Whom::Missing, MAX_REFRESHED, context.now, &is_stopping)?;
    Ok(done.sentence())
}
