//! What only many clients, or many hours, show: swarms, spread logins, slow probing; and what the site's own paths and
//! a person's word take away.

#![expect(clippy::unwrap_used, reason = "a finding without its parts is a failed test")]

#[allow(dead_code, reason = "each file of tests uses a part of it")]
mod support;

use std::sync::Arc;

use portcullis_detect::{
    Knowledge, Observation, Past, Report, Scope, Settings, Site, Suppression, Suppressions, Window,
};
use portcullis_model::{Finding, Severity, UnixMs};
use serde_json::Value;
use support::{HOUR_MS, about, judge, request, window};

const TOOL: &str = "python-requests/2.31";

fn rule<'a>(finding: &'a Finding, name: &str) -> Option<&'a Value> {
    finding.details["rules"].as_array().unwrap().iter().find(|rule| rule["rule"] == name)
}

fn says(report: &Report, client: &str, name: &str) -> Option<Severity> {
    let rule = rule(about(report, client)?, name)?;
    Some(rule["severity"].as_str().unwrap().parse().unwrap())
}

fn missing(client: &str, second: i64, path: &'static str) -> Observation<'static> {
    Observation { status: 404, path, user_agent: TOOL, ..request(client, second) }
}

fn login(client: &str, second: i64) -> Observation<'static> {
    Observation { method: "POST", path: "/signin", user_agent: TOOL, ..request(client, second) }
}

/// A person who mistypes once and gets in.
fn visit(window: &mut Window, client: &str) {
    for (second, path) in [(1, "/"), (2, "/style.css"), (3, "/logo.png"), (4, "/signin")] {
        window.observe(&Observation { path, referer: "https://example.com/", ..request(client, second) });
    }
    let form = Observation { referer: "https://example.com/signin", ..login(client, 9) };
    window.observe(&Observation { status: 200, ..form });
    window.observe(&Observation { status: 302, time: UnixMs(14_000), ..form });
}

#[test]
fn a_little_counts_more_in_a_network_whose_other_addresses_attack() {
    let neighbours = |bad: u32| {
        let mut window = window();
        for n in 0..bad {
            for path in ["/.env", "/.git/config", "/wp-config.php.bak", "/.aws/credentials"] {
                window.observe(&missing(&format!("192.0.2.{}", n + 1), 10, path));
            }
        }
        window.observe(&missing("192.0.2.200", 50, "/old-page"));
        visit(&mut window, "192.0.2.201");
        window.observe(&missing("198.51.100.9", 60, "/old-page"));
        judge(window)
    };
    let report = neighbours(4);
    assert_eq!(says(&report, "192.0.2.200", "swarm"), Some(Severity::Medium));
    let finding = about(&report, "192.0.2.200").unwrap();
    assert_eq!(finding.severity, Severity::Medium, "what others do blocks nobody");
    let summary = finding.details["summary"].as_str().unwrap();
    assert!(summary.contains("as 4 of the 5 other addresses of its network do"), "{summary}");
    assert!(about(&report, "192.0.2.201").is_none(), "who did nothing is not held liable");
    assert!(about(&report, "198.51.100.9").is_none(), "nor who lives elsewhere");
    assert!(about(&neighbours(3), "192.0.2.200").is_none());
}

#[test]
fn a_crowd_of_strangers_in_one_network_is_no_swarm() {
    let mut window = window();
    for n in 1..=4 {
        for path in ["/.env", "/.git/config", "/wp-config.php.bak"] {
            window.observe(&missing(&format!("192.0.2.{n}"), 10, path));
        }
    }
    for n in 10..20 {
        window.observe(&request(&format!("192.0.2.{n}"), 20));
    }
    window.observe(&missing("192.0.2.200", 50, "/old-page"));
    assert!(about(&judge(window), "192.0.2.200").is_none());
}

#[test]
fn passwords_guessed_from_many_addresses_of_one_network_are_noticed() {
    let of_network = |addresses: i64, each: i64| {
        let mut window = window();
        for n in 0..addresses {
            for attempt in 0..each {
                window.observe(&login(&format!("192.0.2.{}", n + 1), attempt * 60));
            }
        }
        visit(&mut window, "192.0.2.99");
        judge(window)
    };
    let report = of_network(5, 2);
    assert_eq!(says(&report, "192.0.2.3", "login_campaign"), Some(Severity::Medium));
    assert!(about(&report, "192.0.2.99").is_none(), "a person of the same network");
    assert_eq!(says(&of_network(10, 3), "192.0.2.3", "login_campaign"), Some(Severity::High));
    assert_eq!(says(&of_network(4, 2), "192.0.2.3", "login_campaign"), None);
    assert_eq!(says(&of_network(2, 6), "192.0.2.1", "login_campaign"), None);
}

#[test]
fn passwords_guessed_with_one_program_from_everywhere_are_noticed() {
    let from_everywhere = |agent: fn(i64) -> &'static str, status: u16| {
        let mut window = window();
        for n in 0..12 {
            let seen = login(&format!("198.51.{n}.7"), n * 100);
            window.observe(&Observation { user_agent: agent(n), status, ..seen });
        }
        judge(window)
    };
    let report = from_everywhere(|_| TOOL, 200);
    assert_eq!(report.findings.len(), 12);
    let finding = about(&report, "198.51.4.7").unwrap();
    assert_eq!((finding.reason.as_str(), finding.severity), ("login_campaign", Severity::Medium));
    let summary = finding.details["summary"].as_str().unwrap();
    assert!(summary.contains("as did 11 other addresses of 12 networks"), "{summary}");
    assert!(from_everywhere(|_| TOOL, 302).findings.is_empty(), "they got in");
    let different = |n| {
        if n % 2 == 0 {
            "a"
        } else if n % 3 == 0 {
            "b"
        } else {
            "c"
        }
    };
    assert!(says(&from_everywhere(different, 200), "198.51.4.7", "login_campaign").is_none());
}

#[test]
fn an_application_whose_users_log_in_from_everywhere_is_no_campaign() {
    let mut window = window();
    for n in 0..30 {
        let client = format!("198.51.{n}.7");
        window.observe(&Observation { path: "/api/v1/login", ..login(&client, n) });
        for second in 1..5 {
            window.observe(&Observation {
                path: "/api/v1/items",
                user_agent: TOOL,
                ..request(&client, n + second)
            });
        }
    }
    assert!(judge(window).findings.is_empty());
}

/// One window for each of these hours, each with what the hours before left behind.
fn days(hours: &[i64], requests: impl Fn(usize) -> Vec<Observation<'static>>) -> Report {
    let mut past = Past::default();
    let mut last = None;
    for (n, hour) in hours.iter().enumerate() {
        let (from, to) = (UnixMs(hour * HOUR_MS), UnixMs((hour + 1) * HOUR_MS));
        let knowledge = Knowledge { past: Arc::new(past.clone()), ..Knowledge::default() };
        let mut window = Window::new(&Settings::default(), from, to).knowing(&knowledge);
        for seen in requests(n) {
            window.observe(&Observation { time: UnixMs(seen.time.0 + from.0), ..seen });
        }
        let report = window.finish(None, to);
        past.remember(&report.weak, to);
        last = Some(report);
    }
    last.unwrap()
}

#[test]
fn a_few_missing_pages_every_few_hours_for_days_are_noticed() {
    const PATHS: [&str; 12] = [
        "/shop1", "/shop2", "/old", "/new", "/test", "/dev", "/beta", "/v1", "/v2", "/bak1", "/site", "/web",
    ];
    let scanner =
        |n: usize| PATHS[n * 2..n * 2 + 2].iter().map(|path| missing("192.0.2.66", 9, path)).collect();
    let report = days(&[2, 9, 20, 31, 50], scanner);
    let finding = about(&report, "192.0.2.66").unwrap();
    assert_eq!((finding.reason.as_str(), finding.severity), ("slow_probing", Severity::Medium));
    let summary = finding.details["summary"].as_str().unwrap();
    assert!(summary.contains("10 distinct things") && summary.contains("each of 5 hours"), "{summary}");
    assert_eq!(rule(finding, "slow_probing").unwrap()["samples"][0]["path"], "/v2");
    assert!(about(&days(&[2, 9, 20], scanner), "192.0.2.66").is_none(), "six are not enough");
    assert!(
        about(&days(&[2, 9, 20, 31, 300], scanner), "192.0.2.66").is_none(),
        "a week later it is forgotten"
    );
}

#[test]
fn a_visitor_with_an_old_bookmark_is_not_slowly_probing() {
    let visitor = |n: usize| {
        let page = Observation { referer: "https://example.com/", ..request("192.0.2.7", 1) };
        let mut all =
            vec![missing("192.0.2.7", 9, ["/a", "/b", "/c", "/d", "/e", "/f", "/g", "/h", "/i"][n])];
        all.extend(["/", "/x.css", "/y.png"].map(|path| Observation { path, ..page }));
        all
    };
    assert!(about(&days(&[2, 9, 20, 31, 50, 60, 70, 80, 90], visitor), "192.0.2.7").is_none());
}

fn owning(path: &'static str) -> Knowledge {
    let mut site = Site::new((1, 2));
    for day in 0..2 {
        for client in ["192.0.2.1", "198.51.100.1", "203.0.113.1"] {
            let seen = Observation { path, ..request(client, day * 24 * 3_600) };
            site.observe(&Settings::default(), &seen);
        }
        site.settle(UnixMs((day * 24 + 1) * HOUR_MS), |_| false);
    }
    Knowledge { site: Arc::new(site), ..Knowledge::default() }
}

#[test]
fn what_the_site_owns_is_not_held_against_who_asks_for_it() {
    let asks = |knowledge: &Knowledge, path: &'static str| {
        let mut window = window().knowing(knowledge);
        for status in [404, 403, 302, 404] {
            window.observe(&Observation { status, ..missing("192.0.2.9", 5, path) });
        }
        judge(window)
    };
    let strange = asks(&Knowledge::default(), "/phpmyadmin/");
    assert!(about(&strange, "192.0.2.9").is_some());
    assert!(asks(&owning("/phpmyadmin/"), "/phpmyadmin/").findings.is_empty());
    assert!(about(&asks(&owning("/phpmyadmin/"), "/pma/"), "192.0.2.9").is_some());
    let secret = asks(&owning("/.env"), "/.env");
    assert!(
        about(&secret, "192.0.2.9").is_some(),
        "a secret is none of the site's pages, whatever was served"
    );
}

#[test]
fn a_dismissed_rule_is_silent_for_that_path_or_client_and_the_finding_says_so() {
    let judged = |scope: Option<Scope>| {
        let all = scope.map(|scope| Suppression { id: 7, rule: "path_probing".to_owned(), scope });
        let suppressions = Arc::new(Suppressions::new(all));
        let mut window = window().knowing(&Knowledge { suppressions, ..Knowledge::default() });
        for path in ["/old/1", "/old/2", "/old/3", "/old/4", "/old/5", "/old/6", "/old/7", "/old/8", "/old/9"]
        {
            window.observe(&missing("192.0.2.9", 5, path));
        }
        window.observe(&missing("192.0.2.9", 6, "/x"));
        judge(window)
    };
    assert_eq!(says(&judged(None), "192.0.2.9", "path_probing"), Some(Severity::High));
    let of_path = judged(Some(Scope::Path("/old".to_owned())));
    assert_eq!(says(&of_path, "192.0.2.9", "path_probing"), None);
    let of_client = judged(Some(Scope::Clients("192.0.2.0/28".parse().unwrap())));
    let finding = about(&of_client, "192.0.2.9").unwrap();
    assert_eq!((finding.reason.as_str(), finding.severity), ("error_rate", Severity::Low));
    assert_eq!(finding.details["silent"][0]["never"], 7);
    let others = judged(Some(Scope::Clients("192.0.2.128/28".parse().unwrap())));
    assert_eq!(says(&others, "192.0.2.9", "path_probing"), Some(Severity::High));
}

#[test]
fn a_spike_against_what_is_usual_is_noted_about_who_makes_it_and_blocks_nobody() {
    let mut site = Site::default();
    for day in 0..6 {
        for n in 0..100 {
            let seen = request("192.0.2.1", day * 24 * 3_600 + n);
            site.observe(&Settings::default(), &seen);
        }
        site.settle(UnixMs((day * 24 + 1) * HOUR_MS), |_| false);
    }
    let knowledge = Knowledge { site: Arc::new(site), ..Knowledge::default() };
    let hour = |flood: i64| {
        let from = UnixMs(6 * 24 * HOUR_MS);
        let to = UnixMs(from.0 + HOUR_MS);
        let mut window = Window::new(&Settings::default(), from, to).knowing(&knowledge);
        let start = from.0 / 1_000;
        for n in 0..flood {
            window.observe(&request("192.0.2.66", start + n));
        }
        for n in 0..200 {
            window.observe(&request(&format!("198.51.100.{n}"), start + n));
        }
        window.finish(None, to)
    };
    let report = hour(900);
    assert_eq!(says(&report, "192.0.2.66", "site_spike"), Some(Severity::Low));
    let finding = about(&report, "192.0.2.66").unwrap();
    assert!(finding.severity <= Severity::Medium, "{finding:?}");
    assert!(
        finding
            .details
            .to_string()
            .contains("made 900 of the 1100 requests of an hour in which 100 are usual")
    );
    assert!(about(&report, "198.51.100.7").is_none());
    assert_eq!(says(&hour(200), "192.0.2.66", "site_spike"), None);
}
