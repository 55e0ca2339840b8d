//! `[tasks]`: when what the gateway does by itself is done.
//! Must not know what a task does.

use std::time::Duration;

use crate::Tasks;
use crate::schedule::{Schedule, ScheduleZone};

use super::fields::{Section, Value};

const WHAT: &str = "a schedule such as \"30 3 * * *\", \"@daily\", \"every 15m\" or \"off\"";
const DEFAULT_CLEANUP: &str = "30 3 * * *";
const DEFAULT_REPORT: &str = "0 6 * * *";
const DEFAULT_GEO_UPDATE: &str = "17 * * * *";
const DEFAULT_GEO_REFRESH: &str = "47 * * * *";

pub(super) fn read(root: &mut Section<'_>) -> Tasks {
    let mut tasks = root.section("tasks");
    let time_zone = tasks.read("time_zone", ScheduleZone::default(), |value| {
        value.choice(&ScheduleZone::ALL, ScheduleZone::as_str)
    });
    let cleanup = tasks.read("cleanup", default(DEFAULT_CLEANUP), schedule);
    let report = tasks.read("report", default(DEFAULT_REPORT), schedule);
    let geo_update = tasks.read("geo_update", default(DEFAULT_GEO_UPDATE), schedule);
    let geo_refresh = tasks.read("geo_refresh", default(DEFAULT_GEO_REFRESH), schedule);
    tasks.finish();
    Tasks { time_zone, cleanup, report, geo_update, geo_refresh }
}

fn schedule(value: &Value<'_>) -> Option<Schedule> {
    value.parse(WHAT)
}

/// A default is one of ours, and a test reads each; what cannot be read would be once a day.
fn default(text: &str) -> Schedule {
    text.parse().unwrap_or(Schedule::Every(Duration::from_secs(86_400)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_schedules() {
        for text in [DEFAULT_CLEANUP, DEFAULT_REPORT, DEFAULT_GEO_UPDATE, DEFAULT_GEO_REFRESH] {
            assert_eq!(default(text).to_string(), text);
        }
    }
}
