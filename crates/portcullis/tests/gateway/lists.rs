//! Lists that are imported and exported while the gateway runs.

use std::time::{Duration, SystemTime};

use portcullis_testkit::{Gateway, Upstream, eventually, write_fail2ban_database};
use serde_json::Value;

use crate::behind_proxy;

fn write(gateway: &Gateway, name: &str, text: &str) -> String {
    let path = gateway.folder().join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

fn wait_for_status(gateway: &Gateway, client: &str, status: u16) {
    eventually(&format!("{client} gets {status}"), || {
        (gateway.client_of(client).get("/").status() == status).then_some(())
    });
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn seconds_from_now(seconds: i64) -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    now.as_secs() as i64 + seconds
}

#[test]
fn an_imported_list_is_in_force_and_says_what_it_left_out() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(behind_proxy(&upstream));
    let list = "; a list\n203.0.113.0/25 ; SBL1\n203.0.113.200\n0.0.0.0/0\n127.0.0.1\n10.0.0.0/8\n";
    let file = write(&gateway, "list.txt", list);

    let tried = gateway.cli_ok(&["import", &file, "--dry-run"]);
    assert!(tried.contains("Would import 2 blocks (plain)"), "{tried}");
    assert!(gateway.cli_ok(&["blocks"]).contains("No blocks"));

    let done = gateway.cli_ok(&["import", &file, "--reason", "from a friend", "--expires", "+7d", "--json"]);
    let done = json(&done);
    assert_eq!((done["added"].as_u64(), done["already_blocked"].as_u64()), (Some(2), Some(0)));
    let refused = done["refused"].as_object().unwrap();
    assert_eq!(refused.values().filter_map(Value::as_u64).sum::<u64>(), 3, "{refused:?}");
    wait_for_status(&gateway, "203.0.113.7", 403);
    wait_for_status(&gateway, "203.0.113.200", 403);
    assert_eq!(gateway.client_of("203.0.113.201").get("/").status(), 200);
    let blocks = json(&gateway.cli_ok(&["blocks", "--json"]));
    let reasons: Vec<&str> = blocks.as_array().unwrap().iter().filter_map(|b| b["reason"].as_str()).collect();
    assert_eq!(reasons, ["from a friend", "SBL1"]);

    let again = json(&gateway.cli_ok(&["import", &file, "--expires", "+1d", "--json"]));
    assert_eq!((again["added"].as_u64(), again["already_blocked"].as_u64()), (Some(0), Some(2)));
    assert_eq!(json(&gateway.cli_ok(&["blocks", "--all", "--json"])).as_array().unwrap().len(), 2);
}

#[test]
fn a_list_with_too_much_garbage_changes_nothing_and_names_the_first_bad_line() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(behind_proxy(&upstream));
    let file = write(&gateway, "list.txt", "203.0.113.9\n<html>\u{1b}[2J\n203.0.113.10\n");
    let output = gateway.cli(&["import", &file]);
    let error = output.stderr.clone();
    assert!(
        output.code == Some(1) && error.contains("line 2") && error.contains("nothing was imported"),
        "{error}"
    );
    assert!(!error.contains('\u{1b}'));
    assert!(gateway.cli_ok(&["blocks"]).contains("No blocks"));
    let taken = gateway.cli(&["import", &file, "--max-bad", "50%"]);
    assert!(taken.code == Some(0) && taken.stderr.contains("bad: line 2"), "{}", taken.stderr);
    wait_for_status(&gateway, "203.0.113.10", 403);
}

#[test]
fn fail2bans_database_comes_over_with_its_ends() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(behind_proxy(&upstream));
    let path = gateway.folder().join("fail2ban.sqlite3");
    let bans = [
        ("sshd", "203.0.113.1", seconds_from_now(-100), 3_600),
        ("sshd", "203.0.113.2", seconds_from_now(-100), 10),
        ("nginx-auth", "203.0.113.3", seconds_from_now(-900_000), -1),
        ("sshd", "203.0.113.1", seconds_from_now(-50), 7_200),
        ("sshd", "192.168.1.9", seconds_from_now(-50), 7_200),
    ];
    write_fail2ban_database(&path, true, &bans);
    let done = json(&gateway.cli_ok(&["import", &path.display().to_string(), "--json"]));
    assert_eq!((done["format"].as_str(), done["added"].as_u64()), (Some("fail2ban"), Some(2)), "{done}");
    assert_eq!(done["expired"].as_u64(), Some(1));
    wait_for_status(&gateway, "203.0.113.1", 403);
    wait_for_status(&gateway, "203.0.113.3", 403);
    assert_eq!(gateway.client_of("203.0.113.2").get("/").status(), 200);
    let blocks = gateway.cli_ok(&["blocks"]);
    assert!(blocks.contains("fail2ban: sshd") && blocks.contains("no end"), "{blocks}");

    let old = gateway.folder().join("old.sqlite3");
    write_fail2ban_database(&old, false, &[("sshd", "203.0.113.77", seconds_from_now(-100), 0)]);
    let old = old.display().to_string();
    let refused = gateway.cli(&["import", &old]);
    assert!(refused.stderr.contains("--expires"), "{}", refused.stderr);
    gateway.cli_ok(&["import", &old, "--expires", "+1d"]);
    wait_for_status(&gateway, "203.0.113.77", 403);
}

#[test]
fn what_is_exported_can_be_imported_again() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(behind_proxy(&upstream));
    gateway.cli_ok(&[
        "block",
        "203.0.113.9",
        "--reason",
        "=1+1, \"quoted\"",
        "--expires",
        "2099-01-01T00:00:00Z",
    ]);
    gateway.cli_ok(&["block", "2001:db8:7::/48"]);
    // Those that keep the expiry first.
    for format in ["csv", "json", "plain", "nginx"] {
        let text = gateway.cli_ok(&["export", "--format", format]);
        let file = write(&gateway, "export", &text);
        gateway.cli_ok(&["unblock", "203.0.113.9"]);
        gateway.cli_ok(&["unblock", "2001:db8:7::/48"]);
        gateway.cli_ok(&["import", &file]);
        let blocks = json(&gateway.cli_ok(&["blocks", "--json"]));
        let mut networks: Vec<&str> =
            blocks.as_array().unwrap().iter().filter_map(|block| block["network"].as_str()).collect();
        networks.sort_unstable();
        assert_eq!(networks, ["2001:db8:7::/48", "203.0.113.9/32"], "{format}");
        if matches!(format, "csv" | "json") {
            let text = blocks.to_string();
            assert!(text.contains("=1+1, \\\"quoted\\\"") && text.contains("2099-01-01T00:00:00"), "{text}");
        }
    }
    assert_eq!(gateway.cli_ok(&["export", "--source", "detector"]), "");
    assert!(gateway.cli_ok(&["export", "--format", "nginx"]).contains("deny 203.0.113.9;"));
}
