//! The forest from end to end: windows of ordinary visits train it, it then has its say about an odd client, and
//! that never blocks.

mod support;

use std::time::Duration;

use portcullis_detect::{
    Features, ForestError, ForestHealth, ForestModel, MAX_TRAINING_ROWS, Observation, Origin, Settings,
    Window, reference_model, train,
};
use portcullis_model::{Severity, UnixMs};
use proptest::prelude::*;
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
fn the_reference_scores_from_the_first_hour_and_never_speaks_first() {
    let model = reference_model().unwrap();
    let mut window = visitors(20);
    harvest(&mut window, "192.0.2.1");
    let report = window.finish(Some(&model), UnixMs(HOUR_MS));
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    let ForestHealth::Scored { scored, flagged, origin, .. } = &report.forest else {
        panic!("{:?}", report.forest)
    };
    assert_eq!((*scored, *flagged, *origin), (21, 1, Origin::Reference));
    let mut window = visitors(20);
    harvest(&mut window, "192.0.2.1");
    window.observe(&Observation { path: "/wp-login.php", ..request("192.0.2.1", 3_000) });
    let report = window.finish(Some(&model), UnixMs(HOUR_MS));
    let rules = about(&report, "192.0.2.1").unwrap().details["rules"].to_string();
    assert!(rules.contains("\"forest\""), "it agrees with a rule: {rules}");
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

/// What an attacker could make of a training set; each is a column, and any twelve of them make the rows.
fn hostile_columns(rows: usize) -> [Vec<f64>; 9] {
    let column = |value: &dyn Fn(usize) -> f64| (0..rows).map(value).collect();
    [
        column(&|_| 0.3),
        // Equal but for the last bits: what the forest crate would search for ever.
        column(&|n| f64::from_bits(0.3_f64.to_bits() + (n % 3) as u64)),
        column(&|n| 1.0 + f64::EPSILON * (n % 2) as f64),
        column(&|n| if n % 2 == 0 { f64::MAX } else { f64::MIN }),
        column(&|n| n as f64 * f64::MIN_POSITIVE),
        column(&|n| 1e15 + n as f64),
        column(&|n| [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.5][n % 4]),
        column(&|n| if n == 0 { 1e308 } else { -0.0 }),
        column(&|n| (n as f64 * 0.618_034).fract() * 10.0),
    ]
}

/// Trains on a thread of its own, and panics if that does not come back.
fn train_in_time(rows: Vec<Features>) -> Result<ForestModel, ForestError> {
    let (done, result) = std::sync::mpsc::channel();
    std::thread::spawn(move || drop(done.send(train(&rows))));
    result.recv_timeout(Duration::from_mins(5)).expect("training comes to an end, and does not panic")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn no_training_set_hangs_or_panics_the_forest(
        rows in prop::sample::select(vec![0_usize, 1, 2, 199, 200, 201, 256, 300, 600]),
        chosen in prop::array::uniform12(0..9_usize),
    ) {
        let columns = hostile_columns(rows);
        let rows: Vec<Features> =
            (0..rows).map(|n| Features(std::array::from_fn(|feature| columns[chosen[feature]][n]))).collect();
        match train_in_time(rows.clone()) {
            Ok(model) => {
                for row in &rows {
                    let score = model.score(row);
                    prop_assert!(score.is_none_or(|score| (0.0..=1.0).contains(&score)), "{:?}", score);
                    prop_assert!(model.explain(row).is_none_or(|opinion| opinion.strongest.len() <= 3));
                }
                prop_assert!(model.threshold() <= model.highest());
            }
            Err(error) => prop_assert!(matches!(error, ForestError::TooFewRows { .. }), "{}", error),
        }
    }
}

#[test]
fn a_million_rows_train_in_time() {
    let columns = hostile_columns(1_000);
    let rows =
        |n: usize| Features(std::array::from_fn(|feature| columns[feature % 6][(n * 7 + feature) % 1_000]));
    let model = train_in_time((0..1_000_000).map(rows).collect()).unwrap();
    assert_eq!(model.training_rows(), MAX_TRAINING_ROWS);
}
