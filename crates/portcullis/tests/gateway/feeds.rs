//! Feeds: lists from a real HTTP server and from files, while the gateway runs.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::thread;

use portcullis_testkit::{Gateway, GatewayConfig, Upstream, eventually};
use serde_json::Value;

use crate::behind_proxy;

/// A server that publishes one list and understands ETags.
struct Publisher {
    address: SocketAddr,
    /// Status and body of the next answers.
    answer: Arc<Mutex<(u16, String)>>,
    /// The statuses that were sent.
    sent: Arc<Mutex<Vec<u16>>>,
}

impl Publisher {
    fn start(body: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let answer = Arc::new(Mutex::new((200, body.to_owned())));
        let sent = Arc::new(Mutex::new(Vec::new()));
        let (published, statuses) = (Arc::clone(&answer), Arc::clone(&sent));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
                    head.push(byte[0]);
                }
                let (mut status, mut body) = published.lock().unwrap().clone();
                let etag = format!("\"{}-{}\"", body.len(), body.bytes().map(u64::from).sum::<u64>());
                let head = String::from_utf8_lossy(&head).to_lowercase();
                if status == 200 && head.contains(&format!("if-none-match: {etag}")) {
                    (status, body) = (304, String::new());
                }
                statuses.lock().unwrap().push(status);
                let length =
                    if status == 304 { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
                let text =
                    format!("HTTP/1.1 {status} X\r\nETag: {etag}\r\n{length}Connection: close\r\n\r\n{body}");
                let _ = stream.write_all(text.as_bytes());
            }
        });
        Self { address, answer, sent }
    }

    fn publish(&self, status: u16, body: &str) {
        *self.answer.lock().unwrap() = (status, body.to_owned());
    }

    fn last_sent(&self) -> Option<u16> {
        self.sent.lock().unwrap().last().copied()
    }
}

fn feed(name: &str, source: &str) -> String {
    format!("[[feed]]\nname = \"{name}\"\n{source}\n")
}

fn with_feed(upstream: &Upstream, publisher: &Publisher) -> GatewayConfig {
    let source = format!("url = \"http://{}/list?token=hidden\"", publisher.address);
    behind_proxy(upstream).section(&feed("drop", &source))
}

fn status(gateway: &Gateway, client: &str) -> u16 {
    gateway.client_of(client).get("/").status()
}

fn wait_for(gateway: &Gateway, client: &str, wanted: u16) {
    eventually(&format!("{client} gets {wanted}"), || (status(gateway, client) == wanted).then_some(()));
}

fn feeds(gateway: &Gateway) -> Value {
    serde_json::from_str(&gateway.cli_ok(&["feeds", "--json"])).unwrap()
}

#[test]
fn a_feed_is_in_force_explains_itself_and_survives_a_restart_without_its_server() {
    let upstream = Upstream::start();
    let publisher = Publisher::start("# list\n203.0.113.0/25\n2001:db8:9::/48\n10.0.0.0/8\n0.0.0.0/0\n");
    let gateway = Gateway::start(with_feed(&upstream, &publisher));
    assert_eq!(status(&gateway, "203.0.113.9"), 200);
    let told = gateway.cli_ok(&["feeds", "update"]);
    assert!(told.contains("drop: 2 networks"), "{told}");
    wait_for(&gateway, "203.0.113.9", 403);
    assert_eq!(status(&gateway, "2001:db8:9:1::5"), 403);
    assert_eq!(status(&gateway, "203.0.113.129"), 200);

    let refused = gateway.client_of("203.0.113.9").get("/again");
    let row = gateway.data().row(&refused.decision_id());
    assert_eq!((row.verdict.as_str(), row.reason.as_str()), ("blocked", "feed:drop"));
    let why = gateway.cli_ok(&["why", &refused.decision_id()]);
    assert!(why.contains("Refused with 403 by the feed \"drop\"."), "{why}");
    assert!(why.contains("The feed \"drop\" lists 203.0.113.9") && why.contains("203.0.113.0/25"), "{why}");
    let why = gateway.cli_ok(&["why", "203.0.113.9"]);
    assert!(why.contains("the feed \"drop\" lists it") && why.contains("allow 203.0.113.9"), "{why}");
    assert_eq!(gateway.metric("portcullis_feed_entries{feed=\"drop\"}"), 2.0);
    let shown = feeds(&gateway);
    assert_eq!((shown[0]["entries"].as_u64(), shown[0]["refused"].as_u64()), (Some(2), Some(2)), "{shown}");
    let blocks = gateway.cli(&["blocks"]);
    assert!(blocks.stderr.contains("drop (2 networks)"), "{blocks:?}");
    for command in [&["feeds"][..], &["feeds", "--json"], &["check"]] {
        let output = gateway.cli(command);
        assert!(!output.stdout.contains("hidden") && !output.stderr.contains("hidden"), "{output:?}");
    }

    publisher.publish(500, "");
    let gateway = gateway.terminate().start_again();
    assert_eq!(status(&gateway, "203.0.113.9"), 403, "the first request after a restart");
    gateway.cli_ok(&["allow", "203.0.113.9"]);
    wait_for(&gateway, "203.0.113.9", 200);
    assert_eq!(status(&gateway, "203.0.113.10"), 403, "an allow is for one address only");
}

#[test]
fn a_new_feed_is_fetched_by_the_gateway_itself() {
    let upstream = Upstream::start();
    let publisher = Publisher::start("[\"203.0.113.9\"]");
    let gateway = Gateway::start(with_feed(&upstream, &publisher));
    wait_for(&gateway, "203.0.113.9", 403);
    assert!(gateway.cli_ok(&["tasks"]).contains("feeds"));
}

#[test]
fn whatever_a_server_sends_leaves_the_last_good_list_and_is_named() {
    let upstream = Upstream::start();
    let publisher = Publisher::start("203.0.113.9\n");
    let config = with_feed(&upstream, &publisher);
    let gateway = Gateway::start(config);
    gateway.cli_ok(&["feeds", "update"]);
    wait_for(&gateway, "203.0.113.9", 403);
    gateway.cli_ok(&["feeds", "update"]);
    assert_eq!(publisher.last_sent(), Some(304), "what has not changed is not sent again");

    let large = "203.0.113.1 # a long line that makes the list larger than it may be\n".repeat(600_000);
    for (status_sent, body, part) in [
        (503, "", "answered with 503"),
        (200, "<html>\nlog in first\n</html>\n", "3 of its 3 lines are no entries"),
        (200, "", "has no entry"),
        (200, "127.0.0.1\n0.0.0.0/0\n", "none of its 2 networks"),
        (200, &*large, "larger than the 33554432 bytes"),
    ] {
        publisher.publish(status_sent, body);
        let output = gateway.cli(&["feeds", "update", "drop"]);
        assert!(output.code == Some(1) && output.stderr.contains(part), "{part}: {output:?}");
        assert!(!output.stderr.contains("hidden"), "{output:?}");
        assert_eq!(status(&gateway, "203.0.113.9"), 403, "{part}");
    }
    let shown = feeds(&gateway);
    assert_eq!(
        (shown[0]["failures"].as_u64(), shown[0]["in_force"].as_bool()),
        (Some(5), Some(true)),
        "{shown}"
    );
    eventually("the metrics show the failures", || {
        (gateway.metric("portcullis_feed_failures_total{feed=\"drop\"}") == 5.0).then_some(())
    });
    publisher.publish(200, "203.0.113.77\n");
    gateway.cli_ok(&["feeds", "update"]);
    wait_for(&gateway, "203.0.113.77", 403);
    wait_for(&gateway, "203.0.113.9", 200);
    assert!(feeds(&gateway)[0]["error"].is_null());
}

#[test]
fn a_feed_that_is_removed_or_in_dry_run_refuses_nobody_after_a_reload() {
    let upstream = Upstream::start();
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("list.txt");
    std::fs::write(&list, "203.0.113.0/24\n").unwrap();
    let bare = behind_proxy(&upstream);
    let gateway = Gateway::start(bare);
    let without = std::fs::read_to_string(gateway.config_file()).unwrap();
    let source = format!("file = \"{}\"", list.display());
    let write = |more: &str| gateway.write_config(&format!("{without}\n{more}"));

    write(&feed("ours", &format!("{source}\nmode = \"dry-run\"")));
    gateway.hang_up();
    gateway.cli_ok(&["feeds", "update"]);
    eventually("the list is recorded, and refuses nobody", || {
        let answer = gateway.client_of("203.0.113.9").get("/dry");
        assert_eq!(answer.status(), 200);
        gateway.data().rows().iter().any(|row| row.verdict.as_str() == "would_block").then_some(())
    });
    write(&feed("ours", &source));
    gateway.hang_up();
    wait_for(&gateway, "203.0.113.9", 403);
    write("");
    gateway.hang_up();
    wait_for(&gateway, "203.0.113.9", 200);
}

#[test]
fn a_run_with_a_feed_that_fails_is_a_failure_on_record_and_keeps_what_the_others_brought() {
    let upstream = Upstream::start();
    let (good, bad) = (Publisher::start("203.0.113.9\n"), Publisher::start(""));
    bad.publish(503, "");
    let source = |publisher: &Publisher| format!("url = \"http://{}/\"", publisher.address);
    let feeds = feed("broken", &source(&bad)) + &feed("works", &source(&good));
    let gateway = Gateway::start(behind_proxy(&upstream).section(&feeds));
    let last_run = || {
        let run = gateway.data().state().task_runs(Some("feeds"), 1).unwrap().pop();
        run.map(|run| (run.succeeded, run.summary))
    };
    let (succeeded, summary) = eventually("a run of the gateway's own", last_run);
    assert!(!succeeded && summary.starts_with("broken failed") && summary.contains("503"), "{summary}");
    assert!(summary.contains("works: 1 networks"), "{summary}");
    wait_for(&gateway, "203.0.113.9", 403);
    let doctor = gateway.cli(&["doctor"]);
    assert_eq!(doctor.code, Some(2), "{doctor:?}");
    assert!(doctor.stdout.contains("the feed \"broken\" cannot be fetched"), "{doctor:?}");
    assert!(doctor.stdout.contains("nothing of it is in force"), "{doctor:?}");

    bad.publish(200, "198.51.100.7\n");
    gateway.cli_ok(&["feeds", "update"]);
    assert!(last_run().unwrap().0);
    assert!(!gateway.cli(&["doctor"]).stdout.contains("the feed"));
}
