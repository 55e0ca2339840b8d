//! The timeline: a past judged as it would have been when it happened.

use std::sync::Arc;

use crate::support::{HOUR_MS, request};
use portcullis_detect::{ForestModel, Observation, Settings, Signatures, Timeline};
use portcullis_model::{Finding, Severity, UnixMs};

const CLIENT: &str = "192.0.2.1";

fn timeline(model: Option<ForestModel>) -> Timeline {
    Timeline::new(&Settings::default(), Arc::new(Signatures::builtin()), model)
}

/// People who read some pages each, in an hour that begins at this second.
fn visitors(timeline: &mut Timeline, count: usize, begin: i64) {
    let mut rng = fastrand::Rng::with_seed(begin as u64);
    let mut visits: Vec<(i64, usize)> =
        (0..count * 6).map(|n| (begin + rng.i64(0..3_500), n % count)).collect();
    visits.sort_unstable();
    for (second, visitor) in visits {
        let client = format!("198.51.{}.{}", visitor / 250, visitor % 250);
        let page = format!("/articles/{}", rng.u32(0..40));
        timeline.observe(&Observation {
            path: &page,
            bytes_out: rng.u64(2_000..30_000),
            ..request(&client, second)
        });
        for n in 0..rng.usize(1..5) {
            let path = format!("/assets/{n}.js");
            timeline.observe(&Observation {
                path: &path,
                referer: "https://example.com/",
                ..request(&client, second)
            });
        }
    }
}

fn about<'a>(findings: &'a [Finding], client: &str) -> Vec<&'a Finding> {
    findings.iter().filter(|finding| finding.client.to_string() == client).collect()
}

#[test]
fn alarms_come_at_once_and_the_hour_adds_what_only_it_can_see() {
    let mut timeline = timeline(None);
    timeline.observe(&Observation { path: "/.env", status: 404, ..request(CLIENT, 10) });
    let found = timeline.take_findings();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].severity, found[0].detected_at), (Severity::Medium, UnixMs(10_000)));
    // Volume is the hour's.
    for second in 20..140 {
        timeline.observe(&request("192.0.2.2", second));
    }
    assert_eq!(timeline.take_findings(), []);
    timeline.observe(&request("192.0.2.3", 3_600 + 61));
    let found = timeline.take_findings();
    assert_eq!(about(&found, CLIENT), Vec::<&Finding>::new(), "nothing new about it");
    let [busy] = about(&found, "192.0.2.2")[..] else { panic!("{found:?}") };
    assert_eq!((busy.reason.as_str(), &busy.details["found"]), ("high_frequency", &"hourly".into()));
}

#[test]
fn records_that_come_a_little_late_still_count_in_their_hour() {
    let mut timeline = timeline(None);
    for second in 0..100 {
        timeline.observe(&request(CLIENT, 3_500 + second / 2));
    }
    timeline.observe(&request("192.0.2.2", 3_610));
    timeline.observe(&request(CLIENT, 3_599));
    timeline.finish();
    assert_eq!(about(&timeline.take_findings(), CLIENT)[0].request_count, 101);
    assert_eq!(timeline.late_records(), 0);
}

#[test]
fn a_forest_is_trained_on_the_past_and_scores_what_follows() {
    let mut timeline = timeline(None);
    for hour in 0..3 {
        visitors(&mut timeline, 150, hour * 3_600);
    }
    assert!(timeline.model().is_some(), "two hours of 150 visitors are enough");
    timeline.finish();
    let scores = timeline.take_scores();
    assert!(scores.len() >= 140, "{}", scores.len());
    assert!(scores.iter().all(|score| score.hour >= UnixMs(2 * HOUR_MS) && score.score <= 1.0));
    assert_eq!(timeline.take_findings(), []);
}

#[test]
fn with_a_fixed_model_two_runs_are_the_same() {
    let model = {
        let mut timeline = timeline(None);
        (0..3).for_each(|hour| visitors(&mut timeline, 150, hour * 3_600));
        timeline.model().unwrap().to_bytes()
    };
    let run = || {
        let model = ForestModel::from_bytes(&model).unwrap();
        let mut timeline = timeline(Some(model)).with_fixed_model();
        for hour in 0..30 {
            visitors(&mut timeline, 60, hour * 3_600);
            for n in 0..40 {
                let path = format!("/a/b/c/{n}");
                timeline.observe(&Observation {
                    path: &path,
                    method: "POST",
                    ..request(CLIENT, hour * 3_600 + 3_550 + n)
                });
            }
        }
        timeline.finish();
        (timeline.take_findings(), timeline.take_scores())
    };
    let (first, second) = (run(), run());
    assert!(!first.1.is_empty());
    assert_eq!(first, second);
}

#[test]
fn a_past_that_jumps_is_survived() {
    let mut timeline = timeline(None);
    for time in [0, i64::MAX, i64::MIN, 5, 90_000_000, 0, i64::MAX - 1, i64::MIN + 1, -1] {
        timeline.observe(&Observation {
            time: UnixMs(time),
            path: "/.env",
            status: 404,
            ..request(CLIENT, 0)
        });
    }
    timeline.finish();
    assert!(!timeline.take_findings().is_empty());
}

#[test]
fn what_the_site_serves_to_many_for_days_is_its_own_and_no_evidence() {
    let touch = |timeline: &mut Timeline, client: &str, second, status| {
        timeline.observe(&Observation { path: "/phpmyadmin/", status, ..request(client, second) });
    };
    let day = 24 * 3_600;
    let mut taught = timeline(None);
    for hour in 0..5 * 24 {
        for n in 0..12 {
            let client = format!("198.{n}.100.7");
            touch(&mut taught, &client, hour * 3_600 + n * 60, 200);
        }
    }
    taught.observe(&request("198.51.100.9", 5 * day + 2 * 3_600));
    taught.take_findings();
    let mut untaught = timeline(None);
    for timeline in [&mut taught, &mut untaught] {
        for n in 0..3 {
            touch(timeline, CLIENT, 5 * day + 3 * 3_600 + n, 403);
        }
        timeline.finish();
    }
    assert!(!about(&untaught.take_findings(), CLIENT).is_empty());
    assert_eq!(about(&taught.take_findings(), CLIENT), Vec::<&Finding>::new());
}
