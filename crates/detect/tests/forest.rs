//! The forest from end to end: windows of ordinary visits train it, it then has its say about an odd client, and
//! that never blocks.

mod support;

use portcullis_detect::{ForestError, ForestHealth, Observation, Settings, Window, train};
use portcullis_model::{Severity, UnixMs};
use support::{HOUR_MS, about, judge, request, window};

/// A person reads some pages, each with its assets.
fn visit(window: &mut Window, rng: &mut fastrand::Rng, client: &str) {
    let mut second = rng.i64(0..1_000);
    for _ in 0..rng.usize(2..9) {
        let page = format!("/articles/{}", rng.u32(0..40));
        window.observe(&Observation {
            path: &page,
            bytes_out: rng.u64(2_000..30_000),
            ..request(client, second)
        });
        for n in 0..rng.usize(2..7) {
            window.observe(&Observation {
                path: &format!("/assets/{n}.js"),
                referer: "https://example.com/",
                ..request(client, second)
            });
        }
        second += rng.i64(5..120);
    }
}

fn visitors(count: usize) -> Window {
    let mut rng = fastrand::Rng::with_seed(11);
    let mut window = window();
    for n in 0..count {
        visit(&mut window, &mut rng, &format!("198.51.{}.{}", n / 250, n % 250));
    }
    window
}

/// Answered politely, so that no rule minds, and yet unlike any visitor.
fn harvest(window: &mut Window, client: &str) {
    for n in 0..90 {
        window.observe(&Observation {
            path: &format!("/a/b/c/d/e/{n}"),
            method: "POST",
            user_agent: "harvester",
            ..request(client, n / 2)
        });
    }
}

#[test]
fn ordinary_visits_train_a_forest_that_finds_the_odd_client() {
    let report = judge(visitors(400));
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    assert_eq!(report.presumed_good.len(), 400);
    let model = train(&report.presumed_good).unwrap();

    let mut window = visitors(300);
    harvest(&mut window, "192.0.2.1");
    let report = window.finish(Some(&model), UnixMs(HOUR_MS));
    let finding = about(&report, "192.0.2.1").unwrap();
    assert_eq!((finding.reason.as_str(), finding.severity), ("forest", Severity::Low));
    let forest = &finding.details["forest"];
    assert_eq!(forest["model"], model.id());
    assert!(forest["score"].as_f64() > forest["threshold"].as_f64());
    // At most three: a feature whose replacement makes the row no more ordinary is not named.
    let strongest = forest["strongest"].as_array().unwrap();
    assert!((1..=3).contains(&strongest.len()), "{strongest:?}");
    for strange in strongest {
        for key in ["feature", "value", "typical", "share"] {
            assert!(!strange[key].is_null(), "{key}");
        }
    }
    let ForestHealth::Scored { model_id, scored, flagged, training_rows, .. } = report.forest else {
        panic!("{:?}", report.forest)
    };
    assert_eq!((model_id.as_str(), scored, flagged, training_rows), (model.id(), 301, 1, 400));
}

#[test]
fn the_odd_client_is_no_teacher() {
    let mut window = visitors(10);
    harvest(&mut window, "192.0.2.1");
    for n in 0..30 {
        window.observe(&Observation { path: "/.env", status: 404, ..request("192.0.2.2", n) });
    }
    let rows = judge(window).presumed_good;
    assert_eq!(rows.len(), 10);
    assert_eq!(train(&rows).unwrap_err(), ForestError::TooFewRows { rows: 10, needed: 200 });
}

#[test]
fn a_forest_that_is_switched_off_stays_silent() {
    let model = train(&judge(visitors(300)).presumed_good).unwrap();
    let settings = Settings { forest: false, ..Settings::default() };
    let mut window = Window::new(&settings, UnixMs(0), UnixMs(HOUR_MS));
    harvest(&mut window, "192.0.2.1");
    let report = window.finish(Some(&model), UnixMs(HOUR_MS));
    assert!(about(&report, "192.0.2.1").is_none());
    assert_eq!(report.forest, ForestHealth::Off { why: "switched off in the settings".to_owned() });
}
