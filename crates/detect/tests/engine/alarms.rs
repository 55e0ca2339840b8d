//! The engine: alarms at the request that gives a client away, evidence that adds up and fades, bounded memory, and
//! the same alarms for the same requests.

use std::sync::Arc;

use crate::support::{about, judge, request, window};
use portcullis_detect::{Alarm, Engine, Observation, Settings, Signatures};
use portcullis_model::{Severity, UnixMs, VerdictKind};

const CLIENT: &str = "192.0.2.1";

fn engine() -> Engine {
    Engine::new(&Settings::default(), Arc::new(Signatures::builtin()))
}

fn missing<'a>(client: &str, second: i64, path: &'a str) -> Observation<'a> {
    Observation { path, status: 404, ..request(client, second) }
}

fn severities(alarms: &[Alarm]) -> Vec<Severity> {
    alarms.iter().map(|alarm| alarm.finding.severity).collect()
}

#[test]
fn the_request_that_gives_a_client_away_raises_the_alarm() {
    let engine = engine();
    assert_eq!(engine.observe(&request(CLIENT, 0)), None);
    let alarm = engine.observe(&missing(CLIENT, 1, "/.env")).unwrap();
    assert_eq!(
        (alarm.finding.severity, alarm.finding.reason.as_str()),
        (Severity::Medium, "sensitive_files")
    );
    assert_eq!((alarm.finding.request_count, alarm.finding.detected_at), (2, UnixMs(1_000)));
    let details = &alarm.finding.details;
    assert_eq!(details["found"], "request");
    assert_eq!(details["score_history"][0]["rule"], "sensitive_files");
    assert_eq!(details["score_history"][0]["time"], 1_000);
    assert!(details["prevented_by"][0].as_str().unwrap().contains("allow"));
    assert_eq!(alarm.shared, None);
}

#[test]
fn each_severity_is_told_once_while_the_evidence_lasts() {
    let engine = engine();
    let paths = ["/.env", "/.git/config", "/.aws/credentials", "/id_rsa", "/wp-config.php.bak", "/.npmrc"];
    let mut alarms = Vec::new();
    for second in 0..600 {
        alarms.extend(engine.observe(&missing(CLIENT, second, paths[second as usize % paths.len()])));
    }
    assert_eq!(severities(&alarms), [Severity::Medium, Severity::High, Severity::Critical]);
    // An hour later the same is told again.
    let later = (600..5_000).filter_map(|second| engine.observe(&missing(CLIENT, second, "/.env")));
    assert!(!later.collect::<Vec<_>>().is_empty());
}

#[test]
fn what_somebody_did_for_days_does_not_add_up() {
    let engine = engine();
    for hour in 0..200 {
        for n in 0..4 {
            let path = format!("/gone-{hour}-{n}");
            let alarm = engine.observe(&missing(CLIENT, hour * 3_600 + n, &path));
            assert_eq!(alarm, None, "{hour}");
            for m in 0..5 {
                engine.observe(&request(CLIENT, hour * 3_600 + 5 + m));
            }
        }
    }
}

#[test]
fn evidence_of_different_kinds_adds_up_and_the_history_says_how() {
    let engine = engine();
    let mut alarms = Vec::new();
    // A medium signature, then a medium of another kind.
    alarms.extend(engine.observe(&missing(CLIENT, 0, "/.env")));
    for (n, path) in ["/admin", "/administrator", "/manager/html"].into_iter().enumerate() {
        alarms.extend(engine.observe(&Observation { status: 403, path, ..request(CLIENT, 60 + n as i64) }));
    }
    assert_eq!(alarms.last().unwrap().finding.severity, Severity::High);
    let details = &alarms.last().unwrap().finding.details;
    let history = details["score_history"].as_array().unwrap();
    assert!(history.len() >= 2, "{history:?}");
    assert!(history.last().unwrap()["score"].as_f64() > history[0]["score"].as_f64());
    assert_eq!(details["score"], history.last().unwrap()["score"]);
}

#[test]
fn an_allowed_client_and_a_verified_crawler_raise_no_alarm() {
    let engine = engine();
    engine.observe(&Observation { verdict: VerdictKind::Allowed, ..request(CLIENT, 0) });
    let bot = portcullis_detect::BotStatus::Verified;
    for second in 0..100 {
        assert_eq!(engine.observe(&missing(CLIENT, second, "/.env")), None);
        assert_eq!(engine.observe(&Observation { bot, ..missing("192.0.2.2", second, "/.env") }), None);
    }
}

#[test]
fn volume_alone_never_reaches_high() {
    let engine = engine();
    for n in 0..50_000_i64 {
        let path = format!("/{n}");
        let seen = Observation { path: &path, time: UnixMs(n * 50), ..request(CLIENT, 0) };
        let severity = engine.observe(&seen).map(|alarm| alarm.finding.severity);
        assert!(severity < Some(Severity::High), "{n}");
    }
}

#[test]
fn a_guesser_among_users_is_told_by_its_user_agent() {
    let engine = engine();
    for user in 0..20 {
        let user = format!("user-{user}");
        for second in 0..5 {
            assert_eq!(engine.observe(&Observation { user: &user, ..request(CLIENT, second) }), None);
        }
    }
    let mut alarms = Vec::new();
    for second in 10..40 {
        alarms.extend(engine.observe(&Observation {
            method: "POST",
            path: "/login",
            status: 401,
            user_agent: "guesser/1",
            ..request(CLIENT, second)
        }));
    }
    let worst = alarms.last().unwrap();
    assert_eq!((worst.finding.severity, worst.finding.user.as_deref()), (Severity::High, None));
    let shared = worst.shared.as_ref().unwrap();
    assert_eq!((shared.verified_users, &shared.user_agents[..]), (20, &["guesser/1".into()][..]));
}

#[test]
fn engine_and_window_say_the_same_of_the_same_requests() {
    let engine = engine();
    let mut window = window();
    let mut worst = None;
    for (n, path) in ["/.env", "/page", "/wp-login.php", "/backup.zip", "/gone"].into_iter().enumerate() {
        let seen = missing(CLIENT, n as i64 * 30, path);
        worst = worst.max(engine.observe(&seen).map(|alarm| alarm.finding.severity));
        window.observe(&seen);
    }
    let report = judge(window);
    let finding = about(&report, CLIENT).unwrap();
    assert_eq!(finding.severity, worst.unwrap());
    assert_eq!(finding.details["found"], "hourly");
}

#[test]
fn memory_is_bounded_and_those_with_evidence_stay() {
    let settings = Settings { max_clients: 50, ..Settings::default() };
    let engine = Engine::new(&settings, Arc::new(Signatures::builtin()));
    assert!(engine.observe(&missing(CLIENT, 0, "/.env")).is_some());
    for n in 0..5_000 {
        engine.observe(&request(&format!("198.51.{}.{}", n / 250, n % 250), n / 10));
    }
    assert_eq!(engine.clients(), 50);
    assert!(engine.overflowed_clients() > 4_900);
    assert_eq!(engine.observe(&missing(CLIENT, 501, "/.env")), None, "it is known still");
}
