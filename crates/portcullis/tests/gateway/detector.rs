//! What the runs of the detector flag and block, end to end: requests in, refusals and explanations out. What it does
//! at request time is in `seconds.rs`.

use std::time::{Duration, Instant};

use portcullis_model::Severity;
use portcullis_store::{FindingFilter, StoredFinding};
use portcullis_testkit::{Gateway, GatewayConfig, Request, Upstream, eventually};

/// The runs of every hour alone.
const RUNS: &str = "[detection]\nlive = false";

fn behind_proxy(upstream: &Upstream) -> GatewayConfig {
    crate::behind_proxy(upstream).section(RUNS)
}

const VISITOR: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0";

/// Requests of one client, as a browser sends them.
fn visit(gateway: &Gateway, client: &str, paths: impl IntoIterator<Item = String>) {
    let mut connection = gateway.client_of(client);
    for path in paths {
        let request =
            Request::get(&path).header("User-Agent", VISITOR).header("Referer", "http://shop.example/");
        connection.send(&request);
    }
}

/// Runs the detector by command over everything that was answered so far.
fn detect(gateway: &Gateway, requests: u64) -> String {
    gateway.data().wait_for_count(requests);
    gateway.cli_ok(&["detect"])
}

fn finding_of(gateway: &Gateway, client: &str) -> Option<StoredFinding> {
    let filter = FindingFilter { client: Some(client.parse().unwrap()), ..FindingFilter::default() };
    gateway.data().state().findings(&filter).unwrap().pop()
}

/// The finding of a client, which must mention this rule.
fn flagged(gateway: &Gateway, client: &str, rule: &str) -> StoredFinding {
    let found = finding_of(gateway, client).unwrap_or_else(|| panic!("{client} was not flagged"));
    let details = found.finding.details.to_string();
    assert!(found.finding.reason == rule || details.contains(rule), "{rule} is not in {found:?}");
    found
}

#[test]
fn a_hundred_and_one_requests_in_an_hour_flag_an_address_and_a_hundred_do_not() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(behind_proxy(&upstream));
    visit(&gateway, "203.0.113.101", (0..101).map(|n| format!("/page/{}", n % 7)));
    visit(&gateway, "203.0.113.100", (0..100).map(|n| format!("/page/{}", n % 7)));
    detect(&gateway, 201);
    let found = flagged(&gateway, "203.0.113.101", "high_frequency");
    assert_eq!(found.finding.request_count, 101);
    assert!(found.finding.severity <= Severity::Medium, "volume alone is at most medium");
    assert_eq!(found.block_id, None, "volume alone never blocks");
    let below = finding_of(&gateway, "203.0.113.100");
    let mentions = below.is_some_and(|found| found.finding.details.to_string().contains("high_frequency"));
    assert!(!mentions, "100 are not more than 100");
    let suspicious = gateway.cli_ok(&["suspicious"]);
    assert!(suspicious.contains("203.0.113.101"), "{suspicious}");
}

#[test]
fn touching_admin_flags_an_address() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(behind_proxy(&upstream));
    visit(&gateway, "203.0.113.9", ["/".to_owned(), "/admin".to_owned(), "/about".to_owned()]);
    visit(&gateway, "203.0.113.10", ["/".to_owned(), "/administrators-guide".to_owned()]);
    detect(&gateway, 5);
    let found = flagged(&gateway, "203.0.113.9", "sensitive_paths");
    assert_eq!(found.finding.severity, Severity::Low, "the site's own people do it too");
    assert!(found.finding.details.to_string().contains("/admin"));
    assert!(finding_of(&gateway, "203.0.113.10").is_none());
    assert!(gateway.data().row_of("/admin").is_suspicious);
    assert!(!gateway.data().row_of("/about").is_suspicious);
}

#[test]
fn more_than_half_errors_flag_an_address_and_half_do_not() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(behind_proxy(&upstream));
    let of = |errors: usize, good: usize| {
        let errors = (0..errors).map(|_| "/missing/image-list".to_owned());
        errors.chain((0..good).map(|_| "/".to_owned())).collect::<Vec<_>>()
    };
    visit(&gateway, "203.0.113.11", of(11, 9));
    visit(&gateway, "203.0.113.10", of(10, 10));
    visit(&gateway, "203.0.113.2", of(2, 0));
    detect(&gateway, 42);
    flagged(&gateway, "203.0.113.11", "error_rate");
    for client in ["203.0.113.10", "203.0.113.2"] {
        assert!(finding_of(&gateway, client).is_none(), "{client}");
    }
}

/// What a scanner asks for, under its own name.
fn scan(gateway: &Gateway, client: &str) -> u64 {
    let paths = [
        "/.env",
        "/.git/config",
        "/wp-login.php",
        "/phpmyadmin/index.php",
        "/actuator/env",
        "/cgi-bin/luci",
        "/vendor/phpunit/phpunit/src/Util/PHP/eval-stdin.php",
        "/backup.sql",
        "/server-status",
        "/.aws/credentials",
    ];
    let mut connection = gateway.client_of(client);
    for path in paths {
        connection.send(&Request::get(&format!("/missing{path}")).header("User-Agent", "sqlmap/1.8"));
        connection.send(&Request::get(path).header("User-Agent", "sqlmap/1.8"));
    }
    2 * paths.len() as u64
}

#[test]
fn a_scanner_is_blocked_within_a_second_and_its_page_explains_itself() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(behind_proxy(&upstream));
    let requests = scan(&gateway, "203.0.113.66");
    visit(&gateway, "198.51.100.1", (0..20).map(|n| format!("/products/{n}")));
    let said = detect(&gateway, requests + 20);
    assert!(said.contains("203.0.113.66"), "{said}");

    let found = Instant::now();
    let refused = eventually("the scanner is refused", || {
        let answer = gateway.client_of("203.0.113.66").get("/");
        (answer.status() == 403).then_some(answer)
    });
    assert!(found.elapsed() < Duration::from_secs(5), "a second is promised, this is far more");
    assert_eq!(gateway.client_of("198.51.100.1").get("/").status(), 200, "the visitor");

    let id = refused.decision_id();
    gateway.data().row(&id);
    let why = gateway.cli_ok(&["why", &id]);
    // Who, which rule, what evidence, and how to undo it.
    for part in ["203.0.113.66", "detector", "sqlmap", "/.env", "unblock"] {
        assert!(why.to_lowercase().contains(part), "{part:?} is not in\n{why}");
    }
    let block = gateway.data().state().covering("203.0.113.66".parse().unwrap(), now()).unwrap().remove(0);
    assert!(block.expires_at.is_some(), "a block by the detector ends");
    assert!(why.contains("until") || why.contains("expires") || why.contains("ends"), "{why}");

    // The command that it names does what it says.
    gateway.cli_ok(&["unblock", "203.0.113.66"]);
    eventually("the scanner is let in again", || {
        (gateway.client_of("203.0.113.66").get("/").status() == 200).then_some(())
    });
    // A person's word counts more than the same evidence once more.
    gateway.cli_ok(&["detect"]);
    assert!(gateway.data().state().active_blocks(now()).unwrap().is_empty());
}

fn now() -> portcullis_model::UnixMs {
    portcullis_model::UnixMs::from_system(std::time::SystemTime::now())
}

#[test]
fn what_is_dismissed_for_good_is_silent_at_request_time_too() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(crate::behind_proxy(&upstream));
    let probe = |client: &str| {
        for name in
            [".env", ".git/config", "wp-config.php.bak", ".aws/credentials", "phpmyadmin/index.php", "x"]
        {
            let path = format!("/missing/{name}");
            gateway.client_of(client).send(&Request::get(&path).header("User-Agent", VISITOR));
        }
    };
    probe("203.0.113.30");
    let found = eventually("the first one is caught", || finding_of(&gateway, "203.0.113.30"));
    let id = found.id.to_string();
    for rule in ["sensitive_files", "path_probing", "error_rate"] {
        let args = ["suspicious", "dismiss", &id, "--never", "path", "--path", "/missing", "--rule", rule];
        gateway.cli_ok(&args);
    }
    eventually("the gateway knows", || {
        (gateway.metric("portcullis_detector_dismissed") >= 1.0).then_some(())
    });
    probe("198.51.100.31");
    detect(&gateway, 12);
    assert!(finding_of(&gateway, "198.51.100.31").is_none());
    assert_eq!(gateway.client_of("198.51.100.31").get("/").status(), 200);
}

#[test]
fn an_allowed_client_is_neither_flagged_nor_blocked() {
    let upstream = Upstream::start();
    let allow = "[[allow]]\nnetwork = \"203.0.113.66\"\nreason = \"our own scanner\"";
    let gateway = Gateway::start(behind_proxy(&upstream).section(allow));
    let requests = scan(&gateway, "203.0.113.66");
    detect(&gateway, requests);
    assert!(finding_of(&gateway, "203.0.113.66").is_none());
    assert_eq!(gateway.client_of("203.0.113.66").get("/").status(), 200);
}

#[test]
fn a_trusted_proxy_is_never_blocked() {
    let upstream = Upstream::start();
    let trust = "trusted_proxies = [\"127.0.0.1\", \"203.0.113.66\", \"2001:db8:1:2::1\"]";
    let gateway = Gateway::start(crate::config().upstream(&upstream).server(trust).section(RUNS));
    // The second one shares its /64, which is what the detector would block otherwise, with a proxy.
    let requests = scan(&gateway, "203.0.113.66") + scan(&gateway, "2001:db8:1:2::66");
    detect(&gateway, requests);
    let blocks = gateway.data().state().active_blocks(now()).unwrap();
    let networks: Vec<String> = blocks.iter().map(|block| block.network.to_string()).collect();
    assert_eq!(networks, ["2001:db8:1:2::66/128"]);
}

#[test]
fn networks_of_clients_who_are_only_noted_are_not_blocked_either() {
    let upstream = Upstream::start();
    let kinds = "[\"signatures\", \"errors\", \"paths\", \"agent\", \"company\"]";
    let actions = format!("[detection.actions]\ndry_run = {kinds}");
    let gateway = Gateway::start(behind_proxy(&upstream).section(&actions));
    let requests = (0..8).map(|n| scan(&gateway, &format!("2001:db8:1:{n:x}::66"))).sum();
    let said = detect(&gateway, requests);
    assert!(finding_of(&gateway, "2001:db8:1:3::66").is_some(), "{said}");
    assert_eq!(gateway.data().state().active_blocks(now()).unwrap(), [], "{said}");
}

#[test]
fn an_attacker_who_changes_ipv6_networks_is_blocked_with_all_of_them() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(behind_proxy(&upstream));
    let mut requests = 0;
    for n in 0..8 {
        requests += scan(&gateway, &format!("2001:db8:1:{n:x}::66"));
    }
    // Another household, as bad, but not that often.
    requests += scan(&gateway, "2001:db8:2:1::66");
    let said = detect(&gateway, requests);
    assert!(said.contains("2001:db8:1::/56"), "{said}");
    let networks = || {
        let blocks = gateway.data().state().active_blocks(now()).unwrap();
        let mut networks: Vec<String> = blocks.iter().map(|block| block.network.to_string()).collect();
        networks.sort();
        networks
    };
    assert_eq!(networks(), ["2001:db8:1::/56", "2001:db8:2:1::/64"]);
    let refused = eventually("a network that was never seen is refused", || {
        let answer = gateway.client_of("2001:db8:1:ff::1").get("/");
        (answer.status() == 403).then_some(answer)
    });
    assert_eq!(gateway.client_of("2001:db8:1:100::1").get("/").status(), 200, "the next household");
    gateway.data().row(&refused.decision_id());
    let why = gateway.cli_ok(&["why", &refused.decision_id()]);
    assert!(why.contains("2001:db8:1::/56") && why.contains("8 of the 8 /64 networks"), "{why}");
    let found = finding_of(&gateway, "2001:db8:1:3::66").or_else(|| finding_of(&gateway, "2001:db8:1:3::"));
    assert!(found.is_some_and(|found| found.block_id.is_some()), "the finding names the block");
    // A person's word counts more than the same evidence once more.
    gateway.cli_ok(&["unblock", "2001:db8:1::/56"]);
    gateway.cli_ok(&["detect"]);
    assert!(!networks().contains(&"2001:db8:1::/56".to_owned()));
}

#[test]
fn the_detector_blocks_by_itself_on_its_schedule() {
    let upstream = Upstream::start();
    let schedule = "[detection]\nlive = false\ninterval = \"2s\"\nblock_for = \"1h\"";
    let gateway = Gateway::start(crate::behind_proxy(&upstream).section(schedule));
    scan(&gateway, "203.0.113.66");
    eventually("the scanner is refused", || {
        (gateway.client_of("203.0.113.66").get("/").status() == 403).then_some(())
    });
    // A run is counted when it ends, which is after its first block.
    let runs = "portcullis_detector_runs_total{outcome=\"succeeded\"}";
    eventually("the run is counted", || (gateway.metric(runs) > 0.5).then_some(()));
    assert_eq!(gateway.metric("portcullis_blocks_active{kind=\"address\"}"), 1.0);
}

#[test]
fn refusals_do_not_count_as_the_clients_errors() {
    let upstream = Upstream::start();
    let gateway =
        Gateway::start(behind_proxy(&upstream).limit("all", "paths = [\"/page\"]\nrate = \"5/1h\""));
    visit(&gateway, "203.0.113.9", (0..40).map(|_| "/page".to_owned()));
    detect(&gateway, 40);
    let found = finding_of(&gateway, "203.0.113.9");
    let errors = found.is_some_and(|found| found.finding.details.to_string().contains("error_rate"));
    assert!(!errors, "429 by the gateway is no error of the client");
}

#[test]
fn a_run_puts_no_empty_database_in_the_place_of_a_deleted_one() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(behind_proxy(&upstream));
    gateway.cli_ok(&["block", "203.0.113.50"]);
    let is_blocked = || gateway.client_of("203.0.113.50").get("/").status() == 403;
    eventually("the block is in force", || is_blocked().then_some(()));
    for name in ["state.db", "state.db-wal", "state.db-shm"] {
        // The last one to close the database may have removed the other two.
        let _ = std::fs::remove_file(gateway.data().folder().join(name));
    }
    let run = gateway.cli(&["detect"]);
    assert_eq!(run.code, Some(1), "{run:?}");
    assert!(run.stderr.contains("no state at"), "{run:?}");
    assert!(!gateway.data().folder().join("state.db").exists());
    assert!(is_blocked(), "the block was lifted");
}
