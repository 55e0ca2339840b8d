//! A finding explained on a person's screen and in JSON: by `suspicious`, `why` and `analyze`, after a real attack.

use portcullis_model::{Finding, Severity, UnixMs};
use portcullis_store::{FindingFilter, State};
use portcullis_testkit::{Gateway, Request, Upstream, eventually};
use serde_json::{Value, json};

use crate::behind_proxy;

const ATTACKER: &str = "203.0.113.66";

/// Asks for files that no visitor asks for, and returns the ID of a refusal afterwards.
fn attack(gateway: &Gateway) -> String {
    let mut client = gateway.client_of(ATTACKER);
    let paths =
        ["/.env", "/.git/config", "/.aws/credentials", "/wp-config.php.bak", "/id_rsa", "/backup.sql"];
    for path in paths {
        client.send(&Request::get(&format!("/missing{path}")));
    }
    gateway.data().wait_for_count(paths.len() as u64);
    gateway.cli_ok(&["detect"]);
    eventually("the attacker is refused", || {
        let answer = gateway.client_of(ATTACKER).get("/again");
        (answer.status() == 403).then(|| answer.decision_id())
    })
}

fn id_of(gateway: &Gateway) -> i64 {
    let filter = FindingFilter { client: Some(ATTACKER.parse().unwrap()), ..FindingFilter::default() };
    gateway.data().state().findings(&filter).unwrap().pop().expect("no finding").id
}

#[test]
fn a_finding_is_told_in_full_wherever_somebody_looks() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(behind_proxy(&upstream));
    let refusal = attack(&gateway);
    gateway.data().row(&refusal);
    let id = id_of(&gateway).to_string();
    for command in [["suspicious", &id], ["analyze", ATTACKER], ["why", ATTACKER], ["why", &refusal]] {
        let shown = gateway.cli_ok(&command);
        let dismiss = format!("suspicious {id} --dismiss");
        for part in [
            "sensitive_files",
            "GET /missing/.env  404",
            "prevented",
            &format!("portcullis allow {ATTACKER}"),
            &dismiss,
            "until",
        ] {
            assert!(shown.contains(part), "{command:?}: {part:?} is not in\n{shown}");
        }
    }

    let json = |command: &[&str]| -> Value {
        serde_json::from_str(&gateway.cli_ok(&[command, &["--json"]].concat())).unwrap()
    };
    let of_suspicious = json(&["suspicious", &id]);
    let of_client = json(&["why", ATTACKER])["findings"][0].clone();
    let of_report = json(&["analyze", ATTACKER])["standing"]["findings"][0].clone();
    let of_decision = json(&["why", &refusal])["evidence"]["block"]["finding"].clone();
    for told in [of_suspicious, of_client, of_report, of_decision] {
        let samples: Vec<&Value> =
            told["details"]["rules"].as_array().unwrap().iter().map(|rule| &rule["samples"]).collect();
        let samples: usize = samples.iter().map(|samples| samples.as_array().unwrap().len()).sum();
        assert!((1..=10).contains(&samples), "{told:#}");
        let explanation = &told["explanation"];
        assert!(explanation["found"].is_string() && explanation["outcome"].is_string(), "{told:#}");
        assert!(explanation["prevented_by"].as_array().unwrap().len() >= 2, "{told:#}");
        assert_eq!(told["block"]["network"], format!("{ATTACKER}/32"), "{told:#}");
    }
}

#[test]
fn why_nobody_was_blocked_is_said() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(behind_proxy(&upstream));
    gateway.client_of("203.0.113.9").get("/admin");
    gateway.data().row_of("/admin");
    gateway.cli_ok(&["detect"]);
    let told = gateway.cli_ok(&["why", "203.0.113.9"]);
    assert!(told.contains("not blocked: its severity is low"), "{told}");
}

/// As a program might leave it that is newer, older, or hostile.
fn odd_details() -> Value {
    let evil = "\u{1b}]0;owned\u{7}\u{202e}\r\n%1b[2J";
    json!({
        "summary": evil,
        "found": "request",
        "held_down": evil,
        "shared": { "verified_users": 3, "user_agents": [evil, 7] },
        "rules": [
            { "rule": evil, "severity": evil, "says": evil, "evidence": { evil: evil },
              "samples": [{ "time": i64::MAX, "method": evil, "path": evil, "status": evil }, 7, null] },
            "no rule",
        ],
        "score_history": [{ "time": -1, "rule": evil, "points": "many", "score": 1e308 }, [], evil],
        "forest": { "model": evil, "score": 0.7, "threshold": "?", "strongest": [
            { "feature": evil, "value": 1e308, "typical": null },
            { "feature": "distinct_missing_pages", "value": 41.0, "typical": 0.0 },
        ] },
        "prevented_by": [evil, 7],
    })
}

#[test]
fn nothing_in_a_finding_reaches_a_terminal_as_a_command_and_nothing_odd_in_it_is_an_error() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(behind_proxy(&upstream));
    let now = UnixMs::from_system(std::time::SystemTime::now());
    let finding = |details| Finding {
        client: ATTACKER.parse().unwrap(),
        user: None,
        reason: "sensitive_files".to_owned(),
        severity: Severity::High,
        request_count: 3,
        first_seen: now,
        last_seen: now,
        detected_at: now,
        details,
    };
    let mut state = State::open_existing(gateway.data().folder()).unwrap();
    let id = state.save_finding(&finding(odd_details())).unwrap().to_string();
    gateway.client_of(ATTACKER).get("/seen");
    gateway.data().row_of("/seen");
    for command in [["suspicious", &id], ["analyze", ATTACKER], ["why", ATTACKER]] {
        let shown = gateway.cli_ok(&command);
        assert!(shown.contains("41 distinct missing pages; typical here: 0"), "{shown}");
        assert!(shown.contains("3 verified users of the same address"), "{shown}");
        let is_obeyed = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!shown.contains(is_obeyed), "{shown:?}");
        gateway.cli_ok(&[command[0], command[1], "--json"]);
    }
}

#[test]
fn whoever_names_itself_as_a_crawler_is_told_apart_where_somebody_looks() {
    let upstream = Upstream::start();
    let bots = "[bots]\ndns = false\n[[bot]]\nname = \"our-monitor\"\nkind = \"monitor\"\n\
                user_agents = [\"OurMonitor\"]\nnetworks = [\"203.0.113.16/28\"]\nstrict = true";
    let gateway = Gateway::start(behind_proxy(&upstream).section(bots));
    let (real, borrowed) = ("203.0.113.20", "8.8.4.9");
    for client in [real, borrowed] {
        gateway.client_of(client).send(&Request::get("/seen").header("User-Agent", "OurMonitor/1.0"));
    }
    gateway.data().wait_for_count(2);
    for command in ["why", "analyze"] {
        let told = gateway.cli_ok(&[command, real]);
        assert!(told.contains("our-monitor, verified: the address is in its networks"), "{told}");
        let told = gateway.cli_ok(&[command, borrowed]);
        assert!(told.contains("no our-monitor, though it says so"), "{told}");
    }
    let json: Value = serde_json::from_str(&gateway.cli_ok(&["why", real, "--json"])).unwrap();
    assert_eq!(
        (&json["bots"][0]["bot"], &json["bots"][0]["status"]),
        (&json!("our-monitor"), &json!("verified"))
    );
}
