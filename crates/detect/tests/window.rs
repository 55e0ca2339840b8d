//! What a window makes of clients, beyond single rules: the originals' behaviour, who is spared, how evidence
//! combines, and that memory stays bounded whatever clients send.

mod support;

use std::time::Duration;

use portcullis_detect::{BotStatus, ForestHealth, Observation, Settings, Window};
use portcullis_model::{LoginOutcome, Severity, UnixMs, VerdictKind};
use proptest::prelude::*;
use support::{HOUR_MS, about, judge, request, window};

const CLIENT: &str = "192.0.2.1";

fn rules(details: &serde_json::Value) -> Vec<&str> {
    details["rules"].as_array().into_iter().flatten().filter_map(|rule| rule["rule"].as_str()).collect()
}

#[test]
fn the_hundred_and_first_request_within_an_hour_flags_an_address() {
    for (count, flagged) in [(100, false), (101, true)] {
        let mut window = window();
        for n in 0..count {
            let path = if n % 4 == 0 { "/page" } else { "/logo.png" };
            window.observe(&Observation { path, ..request(CLIENT, n * 30) });
        }
        let report = judge(window);
        assert_eq!(about(&report, CLIENT).is_some(), flagged, "{count}");
        if let Some(finding) = about(&report, CLIENT) {
            assert_eq!((finding.reason.as_str(), finding.severity), ("high_frequency", Severity::Low));
            assert_eq!(finding.request_count, 101);
        }
    }
}

#[test]
fn a_burst_of_one_page_is_no_monitor() {
    let mut window = window();
    for n in 0..101 {
        window.observe(&Observation { time: UnixMs(n * 50), ..request(CLIENT, 0) });
    }
    assert_eq!(about(&judge(window), CLIENT).unwrap().reason, "high_frequency");
}

#[test]
fn a_longer_window_counts_requests_per_hour() {
    let settings = Settings::default();
    for (gap_seconds, flagged) in [(60, false), (20, true)] {
        let mut window = Window::new(&settings, UnixMs(0), UnixMs(24 * HOUR_MS));
        for n in 0..400 {
            window.observe(&Observation { path: &format!("/{n}"), ..request(CLIENT, n * gap_seconds) });
        }
        let report = window.finish(None, UnixMs(24 * HOUR_MS));
        assert_eq!(about(&report, CLIENT).is_some(), flagged, "{gap_seconds}");
    }
}

#[test]
fn one_touch_of_admin_flags_an_address() {
    let mut window = window();
    window.observe(&Observation { path: "/admin", ..request(CLIENT, 0) });
    let report = judge(window);
    let finding = about(&report, CLIENT).unwrap();
    assert_eq!((finding.reason.as_str(), finding.severity), ("sensitive_paths", Severity::Low));
    let sample = &finding.details["rules"][0]["samples"][0];
    assert_eq!((sample["path"].as_str(), sample["status"].as_u64()), (Some("/admin"), Some(200)));
}

#[test]
fn more_than_half_errors_flag_an_address_and_never_block() {
    let mut window = window();
    for n in 0..20 {
        let status = if n < 9 { 200 } else { 404 };
        window.observe(&Observation { path: "/same", status, ..request(CLIENT, n * 9) });
    }
    let report = judge(window);
    let finding = about(&report, CLIENT).unwrap();
    assert_eq!((finding.reason.as_str(), finding.severity), ("error_rate", Severity::Low));
    assert_eq!(finding.details["rules"][0]["evidence"]["errors"], 11);
}

#[test]
fn an_allowed_client_is_never_scored() {
    let mut window = window();
    for n in 0..300 {
        let verdict = if n == 150 { VerdictKind::Allowed } else { VerdictKind::Admitted };
        window.observe(&Observation { path: "/.env", status: 404, verdict, ..request(CLIENT, n) });
    }
    let report = judge(window);
    assert!(report.findings.is_empty() && report.presumed_good.is_empty());
    assert_eq!((report.requests, report.clients), (300, 1));
}

#[test]
fn addresses_of_one_ipv6_64_are_judged_together_under_the_busiest() {
    let mut window = window();
    for n in 0..12 {
        let client = if n % 3 == 0 { "2001:db8:0:1::9".to_owned() } else { "2001:db8:0:1::5".to_owned() };
        window.observe(&Observation {
            path: &format!("/page-{n}"),
            status: 404,
            client: client.parse().unwrap(),
            ..request(CLIENT, n * 9)
        });
    }
    let report = judge(window);
    assert_eq!(report.findings.len(), 1);
    let finding = about(&report, "2001:db8:0:1::5").unwrap();
    assert_eq!((finding.request_count, finding.severity), (12, Severity::High));
    assert_eq!(finding.details["network"], "2001:db8:0:1::/64");
}

#[test]
fn a_verified_user_is_held_at_medium_unless_caught_in_the_act() {
    for (path, expected) in [("/page", Severity::Medium), ("/.env", Severity::High)] {
        let mut window = window();
        for n in 0..20 {
            window.observe(&Observation {
                path: &format!("{path}-{n}"),
                status: 404,
                user: "anna",
                ..request(CLIENT, n * 9)
            });
        }
        window.observe(&Observation { path, status: 404, user: "anna", ..request(CLIENT, 300) });
        let report = judge(window);
        let finding = about(&report, CLIENT).unwrap();
        assert_eq!(finding.severity, expected, "{}", finding.details);
        assert_eq!(finding.details["held_down"].is_string(), expected == Severity::Medium);
    }
}

/// The pages of so many users of one address, all with the same browser.
fn users(window: &mut Window, count: usize) {
    for user in 0..count {
        for n in 0..6 {
            let user = format!("user-{user}");
            window.observe(&Observation { path: "/inbox", user: &user, ..request(CLIENT, n * 60) });
        }
    }
}

#[test]
fn a_user_who_attacks_is_named_and_its_neighbours_are_not() {
    let mut window = window();
    users(&mut window, 50);
    for (n, path) in ["/.env", "/.git/config", "/wp-config.php.bak", "/.aws/credentials"].iter().enumerate() {
        window.observe(&Observation { path, status: 404, user: "mallory", ..request(CLIENT, n as i64) });
    }
    let report = judge(window);
    assert_eq!(report.findings.len(), 1, "{:?}", report.findings);
    let finding = &report.findings[0];
    assert_eq!(finding.user.as_deref(), Some("mallory"));
    assert!(finding.severity >= Severity::High, "{}", finding.details);
    assert_eq!(report.shared_by(finding).unwrap().verified_users, 50);
}

#[test]
fn guessing_by_an_anonymous_neighbour_is_told_from_a_crowd_that_mistypes() {
    let guess = |window: &mut Window, count: i64, agent: &str| {
        for n in 0..count {
            let login = Observation { method: "POST", path: "/login", status: 401, ..request(CLIENT, n) };
            window.observe(&Observation { user_agent: agent, ..login });
        }
    };
    let severity = |count, agent| {
        let mut window = window();
        users(&mut window, 50);
        guess(&mut window, count, agent);
        let report = judge(window);
        let finding = report.findings.iter().find(|finding| finding.user.is_none()).cloned();
        let shared = finding.as_ref().and_then(|finding| report.shared_by(finding).cloned());
        (finding.map(|finding| finding.severity), shared)
    };
    // With the browser that the users have, failures are theirs until there are too many.
    let browser = request(CLIENT, 0).user_agent;
    assert!(severity(20, browser).0 < Some(Severity::Medium));
    let (found, shared) = severity(100, browser);
    assert_eq!(found, Some(Severity::High));
    assert!(shared.unwrap().user_agents.is_empty(), "the users' own browser gives nobody away");
    // With a user agent that none of them has.
    let (found, shared) = severity(10, "guesser/1");
    assert_eq!(found, Some(Severity::High));
    let shared = shared.unwrap();
    assert_eq!((shared.verified_users, shared.user_agents), (50, vec!["guesser/1".into()]));
}

#[test]
fn thresholds_of_an_address_grow_with_its_verified_users_up_to_a_cap() {
    let flagged = |known: usize, requests: i64| {
        let mut window = window();
        users(&mut window, known);
        for n in 0..requests {
            window.observe(&Observation { path: "/", ..request(CLIENT, n % 3_000) });
        }
        judge(window).findings.iter().any(|finding| finding.user.is_none())
    };
    assert!(flagged(0, 101) && !flagged(5, 500) && flagged(5, 501));
    assert!(!flagged(100, 6_400) && flagged(100, 6_401), "100 count as 64");
}

#[test]
fn sessions_that_nobody_has_named_raise_little_however_many_one_account_has() {
    let flagged = |sessions: usize, requests: i64| {
        let mut window = window();
        for n in 0..sessions {
            let user = format!("session:{n:08x}");
            window.observe(&Observation { path: "/inbox", user: &user, ..request(CLIENT, n as i64) });
        }
        for n in 0..requests {
            window.observe(&Observation { path: "/", ..request(CLIENT, n % 3_000) });
        }
        judge(window).findings.iter().any(|finding| finding.user.is_none())
    };
    assert!(!flagged(4, 200) && flagged(4, 201), "four count as two");
    assert!(!flagged(200, 800) && flagged(200, 801), "200 count as 8");
}

#[test]
fn a_bad_user_makes_no_crowd() {
    let mut window = window();
    for account in ["own-1", "own-2"] {
        for (n, path) in ["/.env", "/.git/config", "/.aws/credentials"].iter().enumerate() {
            window.observe(&Observation { path, status: 404, user: account, ..request(CLIENT, n as i64) });
        }
    }
    let report = judge(window);
    assert_eq!(report.findings.len(), 2);
    assert!(report.findings.iter().all(|finding| report.shared_by(finding).is_none()));
}

#[test]
fn a_shared_address_is_held_at_medium() {
    let mut window = window();
    for n in 0..60 {
        let agent = format!("Mozilla/5.0 (Windows NT 10.0; rv:{}.0)", 100 + n % 9);
        let user_agent = agent.as_str();
        window.observe(&Observation { path: "/style.css", user_agent, ..request(CLIENT, n * 9) });
        window.observe(&Observation {
            path: "/login",
            method: "POST",
            status: 401,
            user_agent,
            ..request(CLIENT, n * 9 + 1)
        });
    }
    let report = judge(window);
    let finding = about(&report, CLIENT).unwrap();
    assert_eq!((finding.reason.as_str(), finding.severity), ("login_failures", Severity::Medium));
}

#[test]
fn volume_of_every_kind_is_a_note() {
    let mut window = window();
    for n in 0..30_000 {
        window.observe(&Observation { path: &format!("/{n}"), time: UnixMs(n * 100), ..request(CLIENT, 0) });
    }
    let report = judge(window);
    let finding = about(&report, CLIENT).unwrap();
    assert_eq!(rules(&finding.details), ["high_frequency", "spike", "crawling"]);
    assert_eq!(finding.severity, Severity::Low);
}

#[test]
fn two_independent_weak_evidences_are_one_step_more_if_one_is_about_attacks() {
    for (path, expected) in [("/", Severity::Low), ("/wordpress/", Severity::Medium)] {
        let mut window = window();
        for n in 0..20 {
            window.observe(&Observation { path: "/gone", status: 404, ..request(CLIENT, n * 9) });
        }
        window.observe(&Observation { path, status: 404, ..request(CLIENT, 998) });
        window.observe(&Observation { path: "/admin", ..request(CLIENT, 999) });
        let report = judge(window);
        assert_eq!(about(&report, CLIENT).unwrap().severity, expected, "{path}");
    }
}

#[test]
fn requests_outside_of_the_window_are_passed_over() {
    let mut window = Window::new(&Settings::default(), UnixMs(10_000), UnixMs(20_000));
    for second in [9, 10, 19, 20] {
        window.observe(&Observation { path: "/admin", ..request(CLIENT, second) });
    }
    let report = window.finish(None, UnixMs(20_000));
    assert_eq!((report.requests, report.findings[0].request_count), (2, 2));
}

#[test]
fn the_least_active_clients_make_room_and_are_counted() {
    let settings = Settings { max_clients: 50, ..Settings::default() };
    let mut window = Window::new(&settings, UnixMs(0), UnixMs(HOUR_MS));
    for n in 0..120 {
        window.observe(&Observation { path: "/.env", status: 404, ..request(CLIENT, n) });
    }
    for n in 0..5_000 {
        window.observe(&request(&format!("198.51.{}.{}", n / 250, n % 250), 200 + n % 3_000));
    }
    let report = judge(window);
    assert_eq!((report.clients, report.requests), (50, 5_120));
    assert_eq!(report.overflowed_clients, 4_951);
    assert_eq!(about(&report, CLIENT).unwrap().request_count, 120);
}

#[test]
fn a_window_for_no_clients_still_works() {
    let settings = Settings { max_clients: 0, ..Settings::default() };
    let mut window = Window::new(&settings, UnixMs(0), UnixMs(HOUR_MS));
    window.observe(&request("192.0.2.1", 1));
    window.observe(&request("192.0.2.2", 2));
    assert_eq!(judge(window).clients, 1);
}

#[test]
fn hostile_texts_neither_panic_nor_grow_a_finding() {
    let long = "é".repeat(5_000);
    let texts = [
        "",
        "%",
        "%%%",
        "/%",
        "/\0\u{1b}[31m",
        "//////",
        "/..;/../..",
        "\u{fffd}",
        "/é%C3",
        &long,
        "/%00%ff%fe",
    ];
    let mut window = window();
    for (n, path) in texts.iter().enumerate() {
        for (m, query) in texts.iter().enumerate() {
            window.observe(&Observation {
                path,
                query,
                method: query,
                user_agent: path,
                referer: query,
                user: "",
                login: None,
                bot: BotStatus::None,
                status: (n * 97) as u16,
                bytes_out: u64::MAX,
                ..request(CLIENT, (n * 20 + m) as i64)
            });
        }
    }
    window.observe(&Observation { path: "/.env", query: &long, status: 404, ..request(CLIENT, 1) });
    let report = judge(window);
    let finding = about(&report, CLIENT).unwrap();
    let samples = finding.details["rules"].as_array().unwrap().iter();
    let samples: Vec<_> = samples.flat_map(|rule| rule["samples"].as_array().unwrap()).collect();
    assert!(!samples.is_empty() && samples.len() <= 10, "{}", samples.len());
    assert!(samples.iter().all(|sample| sample["path"].as_str().unwrap().chars().count() <= 200));
}

#[test]
fn times_far_apart_and_out_of_order_are_survived() {
    let mut window = Window::new(&Settings::default(), UnixMs(i64::MIN), UnixMs(i64::MAX));
    for ms in [0, i64::MAX - 1, i64::MIN, 5, -5, i64::MIN + 1] {
        window.observe(&Observation { time: UnixMs(ms), path: "/admin", ..request(CLIENT, 0) });
    }
    let report = window.finish(None, UnixMs(0));
    assert_eq!(report.findings[0].request_count, 6);
}

#[test]
fn a_finding_tells_everything_that_the_model_documents() {
    let mut window = window();
    for (n, path) in ["/.env", "/.git/config", "/wp-login.php", "/backup.zip"].into_iter().enumerate() {
        window.observe(&Observation { path, status: 404, ..request(CLIENT, n as i64 * 30) });
    }
    let report = window.finish(None, UnixMs(HOUR_MS));
    let finding = about(&report, CLIENT).unwrap();
    assert_eq!((finding.reason.as_str(), finding.severity), ("sensitive_files", Severity::High));
    assert_eq!((finding.first_seen, finding.last_seen), (UnixMs(0), UnixMs(90_000)));
    assert_eq!(finding.detected_at, UnixMs(HOUR_MS));
    let summary = finding.details["summary"].as_str().unwrap();
    assert!(summary.contains("4 things") && summary.contains("within 90 seconds"), "{summary}");
    assert_eq!(finding.details["features"]["requests"], 4.0);
    assert!(finding.details["forest"].is_null());
    assert!(matches!(&report.forest, ForestHealth::Off { why } if why.contains("200 client-hours")));
    for rule in finding.details["rules"].as_array().unwrap() {
        for key in ["rule", "severity", "says", "evidence", "samples"] {
            assert!(!rule[key].is_null(), "{key}");
        }
    }
}

#[test]
fn the_defaults_are_the_originals_and_never_block_below_high() {
    let settings = Settings::default();
    assert_eq!((settings.requests_per_hour, settings.error_rate), (100, 0.5));
    assert_eq!(
        (settings.interval, settings.window),
        (Duration::from_secs(3_600), Duration::from_secs(3_600))
    );
    assert_eq!(settings.block_severity, Some(Severity::High));
    for path in ["/admin", "/login"] {
        assert!(settings.sensitive_paths.iter().any(|p| p == path));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_requests_give_a_bounded_report(
        seen in proptest::collection::vec(
            (0..HOUR_MS, any::<u16>(), 0..VerdictKind::ALL.len(), "(/|\\.|%[0-9a-f]{2}|[a-z;\\\\?]|\\PC){0,40}", any::<u8>()),
            0..80,
        )
    ) {
        let mut window = window();
        for (time, status, verdict, text, client) in &seen {
            window.observe(&Observation {
                time: UnixMs(*time),
                status: *status,
                verdict: VerdictKind::ALL[*verdict],
                path: text,
                query: text,
                user_agent: text,
                method: if client % 2 == 0 { "POST" } else { "GET" },
                ..request(&format!("192.0.2.{}", client % 4), 0)
            });
        }
        let report = judge(window);
        prop_assert_eq!(report.requests, seen.len() as u64);
        prop_assert!(report.findings.len() <= report.clients && report.clients <= 4);
        for finding in &report.findings {
            let hits = finding.details["rules"].as_array().into_iter().flatten();
            let samples = hits.filter_map(|hit| hit["samples"].as_array()).map(Vec::len).sum::<usize>();
            prop_assert!(samples <= 10);
            prop_assert!(rules(&finding.details).contains(&finding.reason.as_str()));
            prop_assert!(finding.first_seen <= finding.last_seen);
        }
    }
}

#[test]
fn a_login_that_the_gateway_saw_fail_counts_whatever_its_status_and_path() {
    for (login, reason) in [
        (Some(LoginOutcome::Failed), Some("login_failures")),
        (Some(LoginOutcome::Succeeded), None),
        (None, None),
    ] {
        let mut window = window();
        for n in 0..12 {
            let seen =
                Observation { method: "POST", path: "/enter", status: 200, login, ..request(CLIENT, n * 60) };
            window.observe(&seen);
        }
        let report = judge(window);
        let found = about(&report, CLIENT).map(|finding| finding.reason.as_str());
        assert_eq!(found, reason, "{login:?}");
    }
}

#[test]
fn a_verified_crawler_is_never_scored_and_others_at_its_address_are() {
    let mut window = window();
    for n in 0..200 {
        let path = format!("/gone/{n}");
        let crawler = Observation { path: &path, status: 404, ..request(CLIENT, n * 9) };
        window.observe(&Observation { bot: BotStatus::Verified, user_agent: "Googlebot/2.1", ..crawler });
    }
    let report = judge(window);
    assert_eq!((report.requests, report.findings.len()), (200, 0));

    let mut window = self::window();
    for n in 0..200 {
        let path = format!("/gone/{n}");
        let other = Observation { path: &path, status: 404, ..request(CLIENT, n * 9) };
        window.observe(&Observation { bot: BotStatus::Verified, user_agent: "Googlebot/2.1", ..other });
        window.observe(&other);
    }
    assert!(about(&judge(window), CLIENT).is_some(), "the browser on the same address is judged");
}

#[test]
fn a_false_crawler_that_probes_is_of_high_severity_and_gets_no_crawlers_patience() {
    let agent = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)";
    for (bot, expected) in [(BotStatus::Claimed, Severity::Low), (BotStatus::False, Severity::High)] {
        let mut window = window();
        for n in 0..30 {
            let path = format!("/gone/{n}");
            window.observe(&Observation {
                path: &path,
                status: 404,
                user_agent: agent,
                bot,
                ..request(CLIENT, n * 60)
            });
        }
        let report = judge(window);
        assert_eq!(about(&report, CLIENT).unwrap().severity, expected, "{bot:?}");
    }
}
