//! The commands as people and scripts run them: the real binary against real data folders.
//!
//! Owns what is printed and the exit codes. Must not start a gateway; the tests of the gateway do.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, SystemTime};

use portcullis_model::{
    BlockSource, ClientIp, Finding, MalformedKind, Protocol, Reason, RecordText, RequestId, RequestRecord,
    Severity, TextFields, UnixMs, UpstreamFailure, VerdictKind,
};
use portcullis_store::{Log, LogSettings, NewBlock, NoEnrichment, State};
use serde_json::Value;
use tempfile::TempDir;

const DONE: i32 = 0;
const FAILED: i32 = 1;
const MISUSED: i32 = 2;
const NOTHING: i32 = 3;

/// A working directory with a data folder in it.
struct Place {
    folder: TempDir,
}

/// What a command printed, and how it ended.
struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Place {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn data(&self) -> std::path::PathBuf {
        self.folder.path().join("portcullis-data")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env("TZ", "UTC")
            .env("USER", "alice")
            .env_remove("SUDO_USER")
            .env_remove("SSH_CONNECTION")
            .env_remove("SSH_CLIENT")
            .env_remove("NO_COLOR")
            .env_remove("RUST_LOG")
            .stdin(Stdio::null());
        command
    }

    /// `arguments` are separated by blanks.
    fn run(&self, arguments: &str) -> Ran {
        self.run_all(&arguments.split_whitespace().collect::<Vec<_>>())
    }

    fn run_all(&self, arguments: &[&str]) -> Ran {
        let Output { status, stdout, stderr } = self.command(arguments).output().unwrap();
        Ran {
            code: status.code().unwrap(),
            out: String::from_utf8(stdout).unwrap(),
            err: String::from_utf8(stderr).unwrap(),
        }
    }

    fn log(&self, records: impl IntoIterator<Item = RequestRecord>) {
        // As a gateway does, which has both.
        drop(self.state());
        let log = Log::start(&self.data(), LogSettings::default(), Box::new(NoEnrichment)).unwrap();
        let recorder = log.recorder();
        for record in records {
            assert!(recorder.offer(record));
        }
        log.flusher().flush().unwrap();
        log.shutdown();
    }

    fn state(&self) -> State {
        State::open(&self.data()).unwrap()
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join(name), text).unwrap();
    }
}

impl Ran {
    #[track_caller]
    fn expect(self, code: i32, parts: &[&str]) -> Self {
        let Self { out, err, .. } = &self;
        assert_eq!(self.code, code, "\n--- out\n{out}\n--- err\n{err}");
        for part in parts {
            assert!(
                out.contains(part) || err.contains(part),
                "no {part:?} in\n--- out\n{out}\n--- err\n{err}"
            );
        }
        self
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap()
    }

    fn lines(&self) -> usize {
        self.out.lines().count()
    }
}

fn now() -> UnixMs {
    UnixMs::from_system(SystemTime::now())
}

fn ip(text: &str) -> ClientIp {
    text.parse().unwrap()
}

/// A request of `client` to `path`, so many seconds ago, that the site answered with 200.
fn request(client: &str, path: &str, seconds_ago: u64) -> RequestRecord {
    static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(1);
    let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    RequestRecord {
        id: RequestId::new(now().minus(Duration::from_secs(seconds_ago)), number),
        client: ip(client),
        protocol: Protocol::Http11,
        status: 200,
        bytes_in: 0,
        bytes_out: 1_000,
        latency_us: 1_500,
        verdict: VerdictKind::Admitted,
        reason: Reason::None,
        login: None,
        text: text("GET", path, "test/1.0"),
    }
}

fn text(method: &str, path: &str, user_agent: &str) -> RecordText {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    RecordText::new(TextFields {
        method: method.as_bytes(),
        host: b"shop.example",
        path: path.as_bytes(),
        query: query.as_bytes(),
        user_agent: user_agent.as_bytes(),
        ..TextFields::default()
    })
}

fn refused(record: RequestRecord, verdict: VerdictKind, status: u16, reason: Reason) -> RequestRecord {
    RequestRecord { verdict, status, reason, ..record }
}

fn finding(client: &str) -> Finding {
    Finding {
        client: ip(client),
        user: None,
        reason: "sensitive_files".to_owned(),
        severity: Severity::Critical,
        request_count: 84,
        first_seen: now().minus(Duration::from_secs(600)),
        last_seen: now(),
        detected_at: now(),
        details: serde_json::json!({
            "summary": format!("{client} asked for 12 files that scanners ask for, in 84 requests"),
            "rules": [{
                "rule": "sensitive_files",
                "severity": "critical",
                "says": "asked for 12 files that scanners ask for",
                "evidence": {},
                "samples": [{ "time": now().0, "method": "GET", "path": "/.env", "status": 404 }],
            }],
            "features": {},
            "forest": null,
        }),
    }
}

/// A finding, the block that it led to, and a request that the block refused.
fn detected(place: &Place, client: &str) -> RequestId {
    let mut state = place.state();
    let finding_id = state.save_finding(&finding(client)).unwrap();
    let block = state
        .add_block(
            NewBlock {
                network: ip(client).ip().into(),
                reason: "sensitive_files (critical)".to_owned(),
                source: BlockSource::Detector,
                created_at: now().minus(Duration::from_secs(60)),
                expires_at: Some(now().plus(Duration::from_secs(86_400))),
                finding_id: Some(finding_id),
            },
            "detect",
        )
        .unwrap();
    state.link_block(finding_id, block.id).unwrap();
    let record =
        refused(request(client, "/.git/config", 30), VerdictKind::Blocked, 403, Reason::Block(block.id));
    let id = record.id;
    place.log([record]);
    id
}

#[test]
fn a_block_is_listed_and_lifted() {
    let place = Place::new();
    let ran = place.run_all(&["block", "203.0.113.9", "--reason", "tries passwords", "--expires", "+7d"]);
    ran.expect(DONE, &["Blocked 203.0.113.9", "in 7 days", "block 1", "portcullis unblock 203.0.113.9"]);
    place.run("blocks").expect(DONE, &["203.0.113.9", "tries passwords", "cli", "in 7 days"]);
    let listed = place.run("blocks --json").json();
    assert_eq!(listed[0]["network"], "203.0.113.9/32");
    assert_eq!(listed[0]["in_force"], true);
    assert!(listed[0]["expires_at"].as_str().unwrap().ends_with('Z'));

    place.run("unblock 203.0.113.9").expect(DONE, &["Unblocked 203.0.113.9", "tries passwords"]);
    place.run("blocks").expect(DONE, &["No blocks."]);
    place.run("blocks --all").expect(DONE, &["203.0.113.9", "lifted"]);
    place.run("unblock 203.0.113.9").expect(NOTHING, &["not blocked"]);
}

#[test]
fn a_mapped_address_is_the_ipv4_address_inside() {
    let place = Place::new();
    place.run("block ::ffff:203.0.113.9").expect(DONE, &["Blocked 203.0.113.9"]);
    place.run("unblock 203.0.113.9").expect(DONE, &[]);
}

#[test]
fn a_block_of_this_machine_or_of_half_the_internet_needs_force() {
    let place = Place::new();
    place.run("block 127.0.0.1").expect(MISUSED, &["loopback", "--force"]);
    place.run("block 0.0.0.0/1").expect(MISUSED, &["/8", "--force"]);
    place.run("block 2000::/3").expect(MISUSED, &["/16"]);
    place.run("blocks").expect(DONE, &["No blocks."]);
    place.run("block 127.0.0.1 --force").expect(DONE, &["Blocked 127.0.0.1"]);
}

#[test]
fn a_block_of_whoever_is_logged_in_needs_force() {
    let place = Place::new();
    let mut command = place.command(&["block", "198.51.100.0/24"]);
    let output = command.env("SSH_CONNECTION", "198.51.100.7 50000 192.0.2.1 22").output().unwrap();
    assert_eq!(output.status.code(), Some(MISUSED));
    assert!(String::from_utf8(output.stderr).unwrap().contains("from which you are logged in"));
}

#[test]
fn a_block_of_a_trusted_proxy_needs_force() {
    let place = Place::new();
    place.write(
        "portcullis.toml",
        "[server]\ntrusted_proxies = [\"198.51.100.7\"]\n[[upstream]]\nname = \"a\"\n\
         servers = [\"http://127.0.0.1:8000\"]\n",
    );
    place.run("block 198.51.100.0/24").expect(MISUSED, &["trusted_proxies"]);
    place.run("block 198.51.100.0/24 --force").expect(DONE, &[]);
}

#[test]
fn a_block_under_an_allow_warns_that_the_allow_wins() {
    let place = Place::new();
    place.run_all(&["allow", "203.0.113.0/24", "--reason", "office"]).expect(DONE, &["Allowed"]);
    place.run("block 203.0.113.9").expect(DONE, &["has no effect", "office", "disallow 203.0.113.0/24"]);
    place.run("block 203.0.0.0/16").expect(DONE, &["203.0.113.0/24 inside of it stays let in"]);
}

#[test]
fn an_address_inside_of_a_blocked_prefix_is_not_unblocked_by_itself() {
    let place = Place::new();
    place.run("block 203.0.113.0/24").expect(DONE, &[]);
    place.run("unblock 203.0.113.9").expect(
        NOTHING,
        &["block 1 of 203.0.113.0/24 covers it", "unblock 203.0.113.0/24", "allow 203.0.113.9"],
    );
    place.run("unblock 203.0.0.0/16").expect(NOTHING, &["1 block", "unblock 203.0.113.0/24"]);
}

#[test]
fn a_user_is_blocked_listed_and_unblocked() {
    let place = Place::new();
    place
        .run_all(&["block", "--user", "mallory o'neil", "--reason", "scans us", "--expires", "+7d"])
        .expect(DONE, &["Blocked user mallory o'neil", "block 1", "unblock --user 'mallory o'\\''neil'"]);
    place.run("block 203.0.113.9").expect(DONE, &["block 2"]);
    place.run("blocks").expect(DONE, &["user mallory o'neil", "scans us", "in 7 days", "203.0.113.9"]);
    let listed: Value = serde_json::from_str(&place.run("blocks --json").out).unwrap();
    assert_eq!(listed[1]["party"]["user"], "mallory o'neil", "{listed}");
    place.run("unblock --user mallory").expect(NOTHING, &["user mallory is not blocked"]);
    place.run_all(&["unblock", "--user", "mallory o'neil"]).expect(DONE, &["Unblocked user", "scans us"]);
    place.run("blocks --all --limit 1").expect(DONE, &["203.0.113.9"]);
    place.run("block --user mallory 203.0.113.9").expect(MISUSED, &["--user"]);
    place.run("block").expect(MISUSED, &["--user"]);
}

#[test]
fn allows_are_listed_and_removed() {
    let place = Place::new();
    place.run("block 198.51.100.7").expect(DONE, &[]);
    place.run_all(&["allow", "198.51.100.7", "--reason", "office"]).expect(DONE, &["overrules block 1"]);
    place.run("allows").expect(DONE, &["198.51.100.7", "office"]);
    place.run("disallow 198.51.100.7").expect(DONE, &["not allowed any more"]);
    place.run("disallow 198.51.100.7").expect(NOTHING, &["not allowed by itself"]);
    place.run("allows").expect(DONE, &["No allows."]);
}

#[test]
fn wrong_usage_says_what_was_expected() {
    let place = Place::new();
    place.run("block nonsense").expect(MISUSED, &["192.0.2.1 or 2001:db8::/32"]);
    place.run("block 203.0.113.9 --expires 2020-01-01").expect(MISUSED, &["not in the future"]);
    place.run("block 203.0.113.9 --expires soon").expect(MISUSED, &["+7d"]);
    place.run("logs --status 99x").expect(MISUSED, &["404 or 4xx"]);
    place.run("logs --verdict bad").expect(MISUSED, &["would_block"]);
    place.run("logs --since never").expect(MISUSED, &["2026-12-31"]);
    place.run("logs --since 1h --until 2h").expect(MISUSED, &["before --until"]);
    place.run("why nonsense").expect(MISUSED, &["decision ID of 16"]);
    place.run("nonsense").expect(MISUSED, &["Usage"]);
    place.run("").expect(MISUSED, &["Usage"]);
}

#[test]
fn help_goes_to_standard_output_and_names_the_exit_codes() {
    let place = Place::new();
    let ran = place.run("--help").expect(DONE, &["Exit codes", "portcullis run --upstream"]);
    assert!(ran.err.is_empty());
    assert!(!ran.out.contains('\u{1b}'));
}

#[test]
fn a_folder_without_a_log_is_named() {
    let place = Place::new();
    for command in ["logs", "top", "analyze 192.0.2.1", "detect", "why 06GZFMEMAFNN3DTJ"] {
        let ran = place.run(command).expect(FAILED, &["portcullis-data/log.db", "--data"]);
        assert_eq!(ran.err.lines().count(), 1, "{}", ran.err);
    }
    place.run("suspicious").expect(DONE, &["No findings."]);
    place.run("why 192.0.2.1").expect(NOTHING, &["Nothing is known"]);
}

#[test]
fn a_folder_that_cannot_be_written_is_one_clear_sentence() {
    let place = Place::new();
    place.write("file", "");
    let ran = place.run("block 203.0.113.9 --data file/data");
    assert_eq!(ran.err.lines().count(), 1, "{}", ran.err);
    assert_eq!(ran.err.matches("os error").count(), 1, "the cause is named once: {}", ran.err);
    ran.expect(FAILED, &["cannot use the data folder file/data", "--data"]);
}

#[test]
fn a_damaged_database_is_one_clear_sentence() {
    let place = Place::new();
    std::fs::create_dir(place.data()).unwrap();
    std::fs::write(place.data().join("log.db"), "this is no database, it is a text of some length").unwrap();
    let ran = place.run("logs");
    assert_eq!(ran.err.lines().count(), 1, "{}", ran.err);
    ran.expect(FAILED, &["log.db is damaged"]);
}

#[test]
fn a_database_of_a_newer_version_is_one_clear_sentence() {
    let place = Place::new();
    place.log([request("203.0.113.9", "/", 10)]);
    drop(place.state());
    for (file, command) in [("log.db", "logs"), ("state.db", "blocks"), ("state.db", "block 203.0.113.9")] {
        // SQLite keeps the schema version big-endian at byte 60 of the file.
        let path = place.data().join(file);
        let mut database = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        database.seek(SeekFrom::Start(60)).unwrap();
        database.write_all(&9_999_u32.to_be_bytes()).unwrap();
        let ran = place.run(command);
        assert_eq!(ran.err.lines().count(), 1, "{}", ran.err);
        ran.expect(FAILED, &[file, "schema version 9999", "run the newer portcullis"]);
    }
}

fn a_day_of_traffic(place: &Place) {
    let missing = |record: RequestRecord| RequestRecord { status: 404, ..record };
    place.log([
        request("203.0.113.9", "/", 7_200),
        missing(request("203.0.113.9", "/wp-login.php", 120)),
        missing(request("203.0.113.9", "/wp-admin/x", 110)),
        request("198.51.100.7", "/products?page=2", 100),
        request("2001:db8::7", "/products", 90),
        refused(
            request("203.0.113.9", "/login", 80),
            VerdictKind::Limited,
            429,
            Reason::Limit("login".into()),
        ),
        refused(request("203.0.113.9", "/", 70), VerdictKind::Blocked, 403, Reason::Block(1)),
    ]);
}

#[test]
fn logs_are_filtered_by_everything_that_is_offered() {
    let place = Place::new();
    a_day_of_traffic(&place);
    for (filter, rows) in [
        ("", 7),
        ("--ip 203.0.113.9", 5),
        ("--ip 203.0.113.0/24 --since 1h", 4),
        ("--ip 2001:db8::/64", 1),
        ("--path /products", 2),
        ("--path /wp-*", 2),
        ("--path *.php", 1),
        ("--status 404", 2),
        ("--status 4xx", 4),
        ("--verdict blocked", 1),
        ("--country DE", 0),
        ("--until 1h", 1),
        ("--limit 3", 3),
    ] {
        let ran = place.run(&format!("logs --json {filter}")).expect(DONE, &[]);
        assert_eq!(ran.lines(), rows, "{filter}");
        for line in ran.out.lines() {
            assert!(serde_json::from_str::<Value>(line).unwrap()["id"].is_string());
        }
    }
    let ran = place.run("logs --ids").expect(DONE, &["GET shop.example/products?page=2", "limited", "429"]);
    assert_eq!(ran.lines(), 8, "a heading and the rows");
    assert!(ran.out.lines().last().unwrap().contains("blocked"), "the newest is the last");
}

#[test]
fn nothing_that_a_client_sent_reaches_a_terminal_as_it_is() {
    let place = Place::new();
    let hostile = "/\u{1b}[2J\u{1b}]0;owned\u{7}\u{9b}31m\u{202e}evil\u{200b}\r\n";
    let mut record = request("203.0.113.9", hostile, 30);
    record.text = RecordText::new(TextFields {
        method: b"G\x1b[1mT",
        host: "\u{1b}[31mhost".as_bytes(),
        path: hostile.as_bytes(),
        query: hostile.as_bytes(),
        user_agent: hostile.as_bytes(),
        referer: hostile.as_bytes(),
        user: hostile.as_bytes(),
    });
    record = refused(record, VerdictKind::Limited, 429, Reason::Limit("\u{1b}[5mlimit".into()));
    let id = record.id;
    place.log([record]);
    let mut finding = finding("203.0.113.9");
    finding.reason = hostile.to_owned();
    finding.details["summary"] = hostile.into();
    finding.details["rules"][0]["says"] = hostile.into();
    finding.details["rules"][0]["samples"][0]["path"] = hostile.into();
    place.state().save_finding(&finding).unwrap();
    place.run_all(&["block", "203.0.113.9", "--reason", hostile]).expect(DONE, &[]);

    for command in [
        "logs".to_owned(),
        "logs --ids".to_owned(),
        "top --by path --by host --by user-agent --by ip".to_owned(),
        "analyze 203.0.113.9".to_owned(),
        "suspicious".to_owned(),
        "suspicious 1".to_owned(),
        "blocks".to_owned(),
        "why 203.0.113.9".to_owned(),
        format!("why {id}"),
    ] {
        for option in ["", " --json"] {
            let ran = place.run(&format!("{command}{option}")).expect(DONE, &[]);
            let raw = |c: &char| (c.is_control() && *c != '\n') || "\u{202e}\u{200b}".contains(*c);
            let found: String = format!("{}{}", ran.out, ran.err).chars().filter(raw).collect();
            assert!(found.is_empty(), "{command}{option} printed {found:?}");
        }
    }
    // The colours are the program's own, and only those.
    let coloured = place.run("logs --color always").expect(DONE, &["\u{1b}[33mlimited"]);
    assert!(!coloured.out.contains("\u{1b}[2J") && !coloured.out.contains("\u{1b}]"));
}

#[test]
fn following_prints_what_comes_later_even_if_there_is_no_log_yet() {
    let place = Place::new();
    let mut child = place
        .command(&["logs", "--follow", "--json", "--path", "/f"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut complaint = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut complaint).unwrap();
    assert!(complaint.contains("no log"), "{complaint}");

    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    place.log([request("203.0.113.9", "/first", 5), request("203.0.113.9", "/other", 4)]);
    assert_eq!(next()["path"], "/first");
    place.log([request("203.0.113.9", "/further", 3), request("203.0.113.9", "/furthest", 2)]);
    assert_eq!(next()["path"], "/further");
    assert_eq!(next()["path"], "/furthest");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn following_begins_with_the_newest_rows_and_repeats_none() {
    let place = Place::new();
    place.log((0..20).map(|n| request("203.0.113.9", &format!("/{n}"), 100 - n)));
    let mut child = place
        .command(&["logs", "--follow", "--json", "--limit", "2"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    assert_eq!(next()["path"], "/18");
    assert_eq!(next()["path"], "/19");
    place.log([request("203.0.113.9", "/20", 1)]);
    assert_eq!(next()["path"], "/20");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let place = Place::new();
    place.log((0..5_000).map(|n| request("203.0.113.9", &format!("/{n}/{}", "x".repeat(200)), 100)));
    let mut child = place
        .command(&["logs", "--limit", "5000"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    reader.read_line(&mut String::new()).unwrap();
    drop(reader);
    let mut complaint = String::new();
    child.stderr.take().unwrap().read_to_string(&mut complaint).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(DONE));
    assert_eq!(complaint, "");
}

#[test]
fn analyze_sums_up_an_address() {
    let place = Place::new();
    a_day_of_traffic(&place);
    place.run("analyze 203.0.113.9").expect(
        DONE,
        &[
            "requests    5",
            "67 % (2 of the 3",
            "/wp-login.php",
            "blocked 1, limited 1",
            "█",
            "limits      \"login\"",
        ],
    );
    let report = place.run("analyze 203.0.113.9 --hours 1 --json").json();
    assert_eq!(report["requests"], 4);
    assert_eq!(report["sensitive"]["count"], 3);
    assert_eq!(report["verdicts"]["limited"], 1);
    assert_eq!(report["standing"]["limit_events"][0]["rule"], "login");
    assert!(report["first_seen"].as_str().unwrap().ends_with('Z'));
    place.run("analyze 192.0.2.200").expect(NOTHING, &["none in this time"]);
}

#[test]
fn top_counts_by_every_column() {
    let place = Place::new();
    a_day_of_traffic(&place);
    let lists = place.run("top --json").json();
    assert_eq!(lists["ip"][0]["key"], "203.0.113.9");
    assert_eq!(lists["ip"][0]["requests"], 5);
    assert_eq!(lists["ip"][0]["refused"], 2);
    for name in ["path", "country", "user_agent"] {
        assert!(lists[name].is_array(), "{name}");
    }
    place.run("top --by host --since 1h --limit 1").expect(DONE, &["shop.example", "6"]);
    place.run("top --by country").expect(DONE, &["(unknown)"]);
}

#[test]
fn why_explains_a_block_of_the_detector_and_how_to_undo_it() {
    let place = Place::new();
    let id = detected(&place, "203.0.113.9");
    // As somebody types it who reads it from a screen.
    let typed = id.to_string().to_lowercase();
    place.run(&format!("why {typed}")).expect(
        DONE,
        &[
            "Refused with 403: 203.0.113.9 was blocked",
            "GET shop.example/.git/config",
            "added by the detector",
            "asked for 12 files that scanners ask for",
            "GET /.env  404",
            "until ",
            "(in ",
            "portcullis unblock 203.0.113.9",
            "portcullis allow 203.0.113.9",
            "portcullis suspicious 1 --dismiss",
        ],
    );
    let explained = place.run(&format!("why {id} --json")).json();
    assert_eq!(explained["request"]["id"], id.to_string());
    assert_eq!(explained["evidence"]["block"]["in_force"], true);
    assert_eq!(explained["evidence"]["block"]["finding"]["id"], 1);
    assert_eq!(explained["advice"][0]["command"], "portcullis unblock 203.0.113.9");

    place.run("unblock 203.0.113.9").expect(DONE, &[]);
    let ran =
        place.run(&format!("why {id}")).expect(DONE, &["over: it was removed by alice", "neither blocked"]);
    assert!(!ran.out.contains("portcullis unblock"), "{}", ran.out);
}

#[test]
fn why_explains_a_block_of_a_person() {
    let place = Place::new();
    place.run_all(&["block", "203.0.113.0/24", "--reason", "tries passwords"]).expect(DONE, &[]);
    let record = refused(request("203.0.113.9", "/", 0), VerdictKind::Blocked, 403, Reason::Block(1));
    let id = record.id;
    place.log([record]);
    place.run(&format!("why {id}")).expect(
        DONE,
        &["203.0.113.0/24, added by alice at the command line", "tries passwords", "without an end"],
    );
}

#[test]
fn why_explains_a_limit_by_what_the_client_did_in_its_window() {
    let place = Place::new();
    place.write(
        "portcullis.toml",
        "[[upstream]]\nname = \"a\"\nservers = [\"http://127.0.0.1:8000\"]\n\
         [[limit]]\nname = \"login\"\npaths = [\"/login\"]\nmethods = [\"POST\"]\nrate = \"3/5m\"\n",
    );
    let login = |seconds_ago| {
        let record = request("203.0.113.9", "/login", seconds_ago);
        RequestRecord { text: text("POST", "/LOGIN", "test"), status: 401, ..record }
    };
    let limited = refused(login(10), VerdictKind::Limited, 429, Reason::Limit("login".into()));
    let id = limited.id;
    place.log([login(400), login(60), request("203.0.113.9", "/", 50), login(40), login(20), limited]);
    place.run(&format!("why {id}")).expect(
        DONE,
        &[
            "Refused with 429: 203.0.113.9 had used up the limit \"login\"",
            "3 requests of one client in any 5 minutes: POST requests to /login",
            "203.0.113.9 had 3 served and 0 refused",
            "POST shop.example/LOGIN  401",
            "until about",
            "portcullis allow 203.0.113.9",
            "rate = \"3/5m\"",
        ],
    );
    let window = &place.run(&format!("why {id} --json")).json()["evidence"]["limit"];
    assert_eq!((&window["served"], &window["refused"]), (&3.into(), &0.into()));
}

#[test]
fn why_does_not_guess_when_another_configuration_made_the_decision() {
    let place = Place::new();
    let limited = |rule: &str| {
        refused(request("203.0.113.9", "/x", 10), VerdictKind::Limited, 429, Reason::Limit(rule.into()))
    };
    let (known, unknown) = (limited("everything"), limited("gone"));
    let ids = (known.id, unknown.id);
    place.log([known, unknown]);
    place.run(&format!("why {}", ids.0)).expect(DONE, &["That does not fit"]);
    place.run(&format!("why {}", ids.1)).expect(DONE, &["does not have it any more"]);
}

#[test]
fn why_explains_what_was_no_request_and_sites_that_fail() {
    let place = Place::new();
    let malformed = refused(
        request("203.0.113.9", "/", 10),
        VerdictKind::Malformed,
        431,
        Reason::Malformed(MalformedKind::HeadTooLarge),
    );
    let failed = refused(
        request("203.0.113.9", "/", 10),
        VerdictKind::Admitted,
        502,
        Reason::Upstream(UpstreamFailure::Connect),
    );
    let admitted = RequestRecord { status: 404, ..request("203.0.113.9", "/", 10) };
    let allowed = refused(request("203.0.113.9", "/", 10), VerdictKind::Allowed, 200, Reason::Allow(1));
    let ids = [malformed.id, failed.id, admitted.id, allowed.id];
    place.log([malformed, failed, admitted, allowed]);
    place.run("allow 203.0.113.0/24 --reason office").expect(DONE, &[]);
    for (id, parts) in ids.into_iter().zip([
        ["Refused with 431", "server.max_head"],
        ["502", "Is the site running"],
        ["the site answered 404", "look into the site's log"],
        ["Let in by an allow", "portcullis disallow 203.0.113.0/24"],
    ]) {
        place.run(&format!("why {id}")).expect(DONE, &parts);
    }
}

#[test]
fn why_of_an_unknown_id_says_what_is_likely() {
    let place = Place::new();
    place.log([request("203.0.113.9", "/", 3_600), request("203.0.113.9", "/", 10)]);
    let id = |seconds_ago: i64| RequestId::new(UnixMs(now().0 - seconds_ago * 1_000), 99).to_string();
    place.run(&format!("why {}", id(7_200))).expect(NOTHING, &["have been deleted"]);
    place.run(&format!("why {}", id(1_800))).expect(NOTHING, &["typed correctly"]);
    place.run(&format!("why {}", id(1))).expect(NOTHING, &["try again in a second"]);
    place.run(&format!("why {}", id(-86_400))).expect(NOTHING, &["cannot be right"]);
}

#[test]
fn why_of_an_address_says_how_it_stands() {
    let place = Place::new();
    let id = detected(&place, "203.0.113.9");
    place.run("why 203.0.113.9").expect(
        DONE,
        &["is blocked by block 1", "1, critical (open", &id.to_string(), "portcullis unblock 203.0.113.9"],
    );
    place.run("allow 203.0.113.9").expect(DONE, &[]);
    place.run("why 203.0.113.9").expect(DONE, &["is always let in", "although block 1", "disallow"]);
    let about = place.run("why 203.0.113.9 --json").json();
    assert_eq!(about["refusals"][0]["id"], id.to_string());
    assert_eq!(about["findings"][0]["severity"], "critical");
}

#[test]
fn an_ipv6_client_is_its_64() {
    let place = Place::new();
    let mut state = place.state();
    state.save_finding(&finding("2001:db8:1:2::5")).unwrap();
    drop(state);
    place.log([refused(
        request("2001:db8:1:2::6", "/", 10),
        VerdictKind::Limited,
        429,
        Reason::Limit("everything".into()),
    )]);
    place.run("why 2001:db8:1:2::7").expect(
        DONE,
        &["1, critical", "limit:everything", "limits      \"everything\"", "allow 2001:db8:1:2::/64"],
    );
}

#[test]
fn findings_are_listed_shown_and_judged() {
    let place = Place::new();
    detected(&place, "203.0.113.9");
    place.run("suspicious").expect(DONE, &["203.0.113.9", "critical", " left", "asked for 12 files"]);
    place.run("suspicious --severity critical --json").expect(DONE, &["sensitive_files"]);
    place.run("suspicious 1").expect(DONE, &["GET /.env  404", "1 of 203.0.113.9, until", "--confirm"]);
    place
        .run("suspicious 1 --dismiss")
        .expect(DONE, &["is dismissed", "still blocked", "portcullis unblock"]);
    place.run("suspicious").expect(DONE, &["No findings."]);
    place.run("suspicious --status dismissed").expect(DONE, &["203.0.113.9"]);
    place.run("suspicious 1 --confirm").expect(DONE, &["is confirmed"]);
    place.run("suspicious 77").expect(NOTHING, &["no finding 77"]);
}

#[test]
fn the_detector_run_by_hand_finds_and_blocks_a_scanner() {
    let place = Place::new();
    let paths = [
        "/.env",
        "/.git/config",
        "/.git/HEAD",
        "/wp-login.php",
        "/.aws/credentials",
        "/phpmyadmin/index.php",
        "/backup.sql",
        "/.svn/entries",
        "/config.php.bak",
        "/etc/passwd",
        "/server-status",
        "/actuator/env",
        "/vendor/phpunit/phpunit/src/Util/PHP/eval-stdin.php",
        "/cgi-bin/luci",
        "/.DS_Store",
        "/id_rsa",
    ];
    place.log(
        paths
            .iter()
            .enumerate()
            .map(|(n, path)| RequestRecord { status: 404, ..request("203.0.113.9", path, 100 - n as u64) }),
    );
    // A gateway makes both databases before it logs anything.
    drop(place.state());
    place.run("detect").expect(DONE, &["16 requests by 1 client", "1 new block", "blocked 203.0.113.9"]);
    place.run("blocks").expect(DONE, &["203.0.113.9", "detector"]);
    let again = place.run("detect --json").json();
    assert_eq!(again["spared"][0]["why"], "already blocked");
    assert_eq!(again["findings"][0]["client"], "203.0.113.9");
}

/// Three visitors of the panel, so many hours ago.
fn visits(hours_ago: u64) -> Vec<RequestRecord> {
    let visitors = ["192.0.2.1", "198.51.100.1", "203.0.113.1"];
    let paths = ["/phpmyadmin/", "/", "/style.css"];
    visitors.into_iter().flat_map(|ip| paths.map(|path| request(ip, path, hours_ago * 3_600))).collect()
}

#[test]
fn the_site_is_learned_from_the_log_shown_and_forgotten() {
    let place = Place::new();
    place.run("site").expect(NOTHING, &["Nothing is known of the site yet", "portcullis detect"]);
    drop(place.state());
    let stranger =
        |path| refused(request("203.0.113.66", path, 60), VerdictKind::Admitted, 404, Reason::None);
    place.log(visits(50).into_iter().chain(visits(25)).chain([stranger("/phpmyadmin/")]));
    place.run("detect").expect(DONE, &[]);
    let site = place.run("site --json").json();
    assert_eq!(site["owned_paths"], 2, "{site}");
    assert_eq!(site["hours"].as_array().unwrap().len(), 2, "{site}");
    assert_eq!((&site["error_share"], &site["answers_everything"]), (&0.0.into(), &serde_json::json!([])));
    let findings = place.run("suspicious --json --status all").json();
    assert!(!findings.to_string().contains("phpmyadmin"), "its own path: {findings}");
    place.run("site").expect(DONE, &["2 are its own", "0.0 %"]);

    place.run("site forget /nowhere").expect(NOTHING, &["nothing of the kind"]);
    place.run("site forget /phpmyadmin").expect(DONE, &["/phpmyadmin is forgotten."]);
    assert_eq!(place.run("site --json").json()["owned_paths"], 1);
    place.log([stranger("/phpmyadmin/"), stranger("/pma/")]);
    place.run("detect").expect(DONE, &["203.0.113.66"]);
    place.run("site forget --all").expect(DONE, &["forgotten"]);
    place.run("site --json").expect(DONE, &["\"forest\""]);
    place.run("detect").expect(DONE, &[]);
    assert_eq!(place.run("site --json").json()["owned_paths"], 2, "learned anew from the log");
    place.run("site forget").expect(MISUSED, &["<PATH>"]);
}

#[test]
fn a_damaged_memory_of_the_site_is_told_and_learned_anew() {
    let place = Place::new();
    drop(place.state());
    place.log(visits(50).into_iter().chain(visits(25)));
    std::fs::write(place.data().join("site.json"), "{\"format\":99}").unwrap();
    place.run("site").expect(FAILED, &["site.json", "learned anew"]);
    place.run("detect").expect(DONE, &[]);
    assert_eq!(place.run("site --json").json()["owned_paths"], 2);
}

#[test]
fn slow_probing_is_found_in_what_earlier_runs_remembered() {
    let place = Place::new();
    drop(place.state());
    let probe = |path: &str, ago: u64| {
        refused(request("203.0.113.66", path, ago), VerdictKind::Admitted, 404, Reason::None)
    };
    place.log([probe("/now", 60), probe("/then", 50)]);
    let mut past = portcullis_detect::Past::default();
    for hours in [30_u64, 20, 10] {
        let (from, to) = (now().minus(Duration::from_secs(hours * 3_600)), now());
        let mut window = portcullis_detect::Window::new(&portcullis_detect::Settings::default(), from, to);
        for n in 0..3 {
            window.observe(&portcullis_detect::Observation {
                time: from,
                client: ip("203.0.113.66"),
                status: 404,
                verdict: VerdictKind::Admitted,
                bytes_out: 10,
                method: "GET",
                host: "shop.example",
                path: &format!("/guess/{hours}/{n}"),
                query: "",
                user_agent: "test/1.0",
                referer: "",
                user: "",
                login: None,
                bot: portcullis_detect::BotStatus::None,
            });
        }
        past.remember(&window.finish(None, to).weak, to);
    }
    let client = ip("203.0.113.66").limit_key();
    let memory = (client, past.to_text(client).unwrap());
    place.state().remember_weak_evidence(&[memory], now(), UnixMs(0)).unwrap();
    place.run("detect").expect(DONE, &["slow_probing"]);
    let rows = place.state().weak_evidence().unwrap();
    assert!(rows[0].1.contains("\"hours\":4"), "{rows:?}");
    place.run("privacy erase 203.0.113.66 --yes").expect(DONE, &[]);
    assert_eq!(place.state().weak_evidence().unwrap(), []);
}

#[test]
fn what_is_dismissed_for_good_is_silent_until_it_is_taken_back() {
    let place = Place::new();
    drop(place.state());
    let probes = |client: &str, folder: &str| -> Vec<RequestRecord> {
        let probe = |n| request(client, &format!("/{folder}/{n}"), 60);
        (0..12).map(|n| refused(probe(n), VerdictKind::Admitted, 404, Reason::None)).collect()
    };
    place.log(probes("203.0.113.9", "old"));
    place.run("detect").expect(DONE, &["path_probing", "blocked 203.0.113.9"]);
    place.run("suspicious dismiss 1 --never path").expect(MISUSED, &["several paths", "--path PATH"]);
    place.run("suspicious dismiss 1 --never path --path old").expect(MISUSED, &["expected a path"]);
    place
        .run("suspicious dismiss 1 --never path --path /o --rule spike")
        .expect(MISUSED, &["--never client"]);
    place.run("suspicious dismiss 1 --never client --rule nonsense").expect(MISUSED, &["error_rate, "]);
    place.run("suspicious dismiss 9 --never rule").expect(NOTHING, &["no finding 9"]);
    let undo = "portcullis suspicious never --remove 1";
    place
        .run_all(&[
            "suspicious",
            "dismiss",
            "1",
            "--never",
            "path",
            "--path",
            "/old",
            "--note",
            "moved in May",
        ])
        .expect(DONE, &["Finding 1 is dismissed.", "path_probing for /old and what is below it", undo]);
    place.run("suspicious never").expect(DONE, &["path_probing for /old", "moved in May", "alice"]);

    let of = |client: &str| {
        place.log(probes(client, "old"));
        place.run("detect").expect(DONE, &[]);
        place.run(&format!("analyze {client} --json")).out
    };
    assert!(!of("203.0.113.20").contains("path_probing"));
    place.run("suspicious never --remove 1").expect(DONE, &["speaks again"]);
    place.run("suspicious never --remove 1").expect(NOTHING, &["no 1 in force"]);
    assert!(of("203.0.113.21").contains("path_probing"));

    let id = place.run("suspicious --json").json();
    let id = id.as_array().unwrap().iter().find(|one| one["client"] == "203.0.113.21").unwrap()["id"].clone();
    let done = place.run(&format!("suspicious dismiss {id} --never client --json")).json();
    assert_eq!(done["never"]["network"], "203.0.113.21/32", "{done}");
    place.run("why 203.0.113.21").expect(DONE, &["never again", "path_probing about 203.0.113.21"]);
    let n = done["never"]["id"].as_i64().unwrap();
    assert_eq!(place.run("suspicious never --json").json()[0]["id"], n);
    place.run("privacy erase 203.0.113.21 --yes").expect(DONE, &[]);
    place.run("suspicious never").expect(DONE, &["Nothing was dismissed for good."]);
}

#[test]
fn check_reports_every_mistake_with_its_place() {
    let place = Place::new();
    place.write(
        "portcullis.toml",
        "[[upstream]]\nname = \"a\"\nservers = [\"http://127.0.0.1:8000\"]\n\
         [[limit]]\nname = \"l\"\nrate = \"3-5m\"\n[[block]]\nnetwork = \"300.1.1.1\"\n",
    );
    let ran = place.run("check").expect(MISUSED, &["portcullis.toml:6:8: ", "portcullis.toml:8:11: "]);
    assert_eq!(ran.out, "");
    let mistakes = place.run("check --json").json();
    assert_eq!(mistakes["errors"][0]["line"], 6);
    assert_eq!(mistakes["errors"].as_array().unwrap().len(), 2);
    place.run("run").expect(MISUSED, &["portcullis.toml:6:8: "]);
    // Neither keeps a mistake anybody from blocking, if it is clear where.
    place.run("block 203.0.113.9").expect(MISUSED, &["portcullis.toml:6:8: "]);
    place.run("block 203.0.113.9 --data d").expect(DONE, &["is left out", "Blocked 203.0.113.9"]);
}

#[test]
fn check_sums_up_what_would_run() {
    let place = Place::new();
    place.run("check").expect(MISUSED, &["no configuration", "--upstream"]);
    place.run("check --upstream 127.0.0.1:8000").expect(
        DONE,
        &[
            "0.0.0.0:8080",
            "http://127.0.0.1:8000",
            "login: 10/5m",
            "every 1h",
            "http://127.0.0.1:9611/metrics",
        ],
    );
    let valid = place.run("check --upstream 127.0.0.1:8000 --data d --json").json();
    assert_eq!((&valid["valid"], &valid["data"]), (&true.into(), &"d".into()));
    place.write(
        "portcullis.toml",
        "[[upstream]]\nname = \"a\"\nservers = [\"http://127.0.0.1:8000\"]\n[upstream.breaker]\n[server]\n\
         listen = [\"127.0.0.1:8080\"]\nproxy_protocol = [\"127.0.0.1:8080\"]\ntrusted_proxies = [\"10.0.0.9\"]\n\
         redirect_to_https = true\nhsts = \"1d\"\nmax_body = \"2MiB\"\nmin_rate = \"0B\"\n\
         max_connections_per_client = 0\n",
    );
    place.run("check").expect(
        DONE,
        &[
            "127.0.0.1:8080 (HTTP, after a PROXY header)",
            "plain requests to https, port 443",
            "hsts        1d",
            "left alone for 10s when most fail",
            "8,192 connections, any number of one client",
            "bodies up to 2MiB and as slow as they like",
        ],
    );
}

#[test]
fn init_writes_a_valid_file_and_does_not_overwrite_one() {
    let place = Place::new();
    place
        .run("init --upstream http://127.0.0.1:3000")
        .expect(DONE, &["Wrote portcullis.toml", "portcullis check", "portcullis run"]);
    place.run("check").expect(DONE, &["portcullis.toml is valid", "http://127.0.0.1:3000"]);
    let ran = place.run("init --upstream http://127.0.0.1:4000");
    ran.expect(MISUSED, &["exists already", "--force"]);
    place.run("check").expect(DONE, &["http://127.0.0.1:3000"]);
    place.run("init --upstream http://127.0.0.1:4000 --force").expect(DONE, &[]);
    place.run("check").expect(DONE, &["http://127.0.0.1:4000"]);
    place.run("init --upstream ftp://x other.toml").expect(MISUSED, &["--upstream"]);
    assert!(!place.folder.path().join("other.toml").exists());
    place.run("init my.toml").expect(DONE, &["portcullis run --config my.toml"]);
}

#[test]
fn the_data_folder_comes_from_the_option_then_from_the_configuration() {
    let place = Place::new();
    place.write(
        "portcullis.toml",
        "data = \"from-file\"\n[[upstream]]\nname = \"a\"\nservers = [\"http://127.0.0.1:8000\"]\n",
    );
    place.run("block 203.0.113.1").expect(DONE, &[]);
    place.run("block 203.0.113.2 --data named").expect(DONE, &["unblock 203.0.113.2 --data named"]);
    let exists = |path: &str| Path::new(place.folder.path()).join(path).join("state.db").exists();
    assert!(exists("from-file") && exists("named") && !exists("portcullis-data"));
    place.run("blocks --config portcullis.toml").expect(DONE, &["203.0.113.1"]);
}

#[test]
fn health_is_a_failure_when_nobody_answers() {
    let place = Place::new();
    // Takes connections and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let site = "[[upstream]]\nname = \"a\"\nservers = [\"http://127.0.0.1:8000\"]\n";
    place.write("portcullis.toml", &format!("{site}[metrics]\nlisten = \"{address}\"\n"));
    place.run("health --timeout 200ms").expect(FAILED, &["gave no answer", &address.to_string()]);
    place.write("portcullis.toml", &format!("{site}[metrics]\nlisten = \"off\"\n"));
    place.run("health").expect(MISUSED, &["metrics.listen"]);
}

#[test]
fn completions_are_printed_for_the_shells() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish"] {
        place.run(&format!("completions {shell}")).expect(DONE, &["suspicious"]);
    }
}

#[test]
fn a_broken_file_does_not_make_a_running_gateway_unhealthy() {
    let place = Place::new();
    place.write("portcullis.toml", "[[upstream]]\nname = \"a\"\nbogus = 1\n");
    // Whether anything answers there is not this test's business.
    let ran = place.run("health --timeout 100ms");
    assert_ne!(ran.code, MISUSED, "{}", ran.err);
    assert!(ran.err.contains("has mistakes") && ran.err.contains("127.0.0.1:9611"), "{}", ran.err);
}

#[test]
fn the_doctor_cries_no_wolf_over_the_defaults() {
    let place = Place::new();
    place.run("init --upstream http://127.0.0.1:8000").expect(DONE, &[]);
    place.run("doctor").expect(DONE, &["Nothing is wrong", "portcullis.toml", "none has run"]);
    // Somebody tries the gateway out from this machine.
    place.state();
    place.log((0..300).map(|n| request("127.0.0.1", &format!("/{n}"), n + 5)));
    place.run("doctor").expect(DONE, &["Nothing is wrong", "300 requests of the last hour"]);
    let said = place.run("doctor --json").expect(DONE, &[]).json();
    assert_eq!(said["findings"], serde_json::json!([]));
}

#[test]
fn the_doctor_names_what_it_saw_the_remedy_and_the_line_to_write() {
    let place = Place::new();
    place.write(
        "portcullis.toml",
        "[server]\nlisten = [\"127.0.0.1:8080\"]\ntrusted_proxies = [\"1.0.0.0/8\"]\n[[upstream]]\nname = \"app\"\n\
         servers = [\"http://127.0.0.1:8080\"]\n[[allow]]\nnetwork = \"::/0\"\nreason = \"test\"\n",
    );
    place.state();
    let ahead = || RequestRecord {
        id: RequestId::new(now().plus(Duration::from_secs(7_200)), 1),
        ..request("198.51.100.1", "/", 1)
    };
    place.log([ahead()]);
    place.run("block 1.2.3.0/24 --force").expect(DONE, &[]);
    place.run("doctor").expect(
        MISUSED,
        &[
            "error wide_trust",
            "16,777,216 addresses",
            "error own_upstream",
            "error allows",
            "portcullis disallow ::/0",
            "error clock",
            "error blocks",
            "portcullis unblock 1.2.3.0/24",
        ],
    );
    let said = place.run("doctor --json").expect(MISUSED, &[]).json();
    assert!(said["findings"].as_array().unwrap().iter().all(|finding| finding["remedy"].is_string()));
}

#[test]
fn the_doctor_ends_with_one_for_warnings() {
    use std::os::unix::fs::PermissionsExt as _;

    let place = Place::new();
    place.run("init --upstream http://127.0.0.1:8000").expect(DONE, &[]);
    place.state();
    place.log([request("198.51.100.1", "/", 1)]);
    for (name, mode) in [("", 0o755), ("log.db", 0o644)] {
        let file = place.data().join(name);
        std::fs::set_permissions(file, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    place.run("doctor").expect(FAILED, &["warning permissions", "chmod o-rwx", "log.db"]);
}

#[test]
fn the_doctor_says_which_database_is_broken() {
    let place = Place::new();
    place.run("init --upstream http://127.0.0.1:8000").expect(DONE, &[]);
    place.state();
    place.log([request("198.51.100.1", "/", 1)]);
    std::fs::write(place.data().join("log.db"), vec![b'x'; 8_192]).unwrap();
    place.run("doctor").expect(MISUSED, &["error databases", "log.db"]);
    place.write("portcullis.toml", "nonsense = 1");
    place.run("doctor").expect(MISUSED, &["portcullis.toml:1:1"]);
}

/// What stood after `python manage.py` in the READMEs of the original projects, quotes as a shell reads them.
fn original(line: &str) -> Vec<&str> {
    let arguments = line.split('"').enumerate().flat_map(|(n, part)| match n % 2 {
        0 => part.split_whitespace().collect(),
        _ => vec![part],
    });
    arguments.collect()
}

#[test]
fn the_commands_of_the_original_projects_work_as_they_were_typed() {
    let place = Place::new();
    let run = |line: &str| place.run_all(&original(line));
    run("migrate").expect(DONE, &["portcullis-data are up to date"]);
    place.log((0..120).map(|n| request("192.168.1.100", if n == 0 { "/admin" } else { "/" }, 600 - n)));

    run(r#"block_ip 192.168.1.100 --reason "Spam bot""#).expect(DONE, &["Blocked 192.168.1.100"]);
    run(r#"block_ip 192.168.1.101 --expires "+7d" --reason "Temporary block""#)
        .expect(DONE, &["192.168.1.101"]);
    let listed = run("list_blocked_ips").expect(DONE, &["192.168.1.100", "Spam bot", "no end"]);
    let temporary = listed.out.lines().find(|line| line.contains("192.168.1.101")).unwrap();
    assert!(temporary.contains("Temporary block") && temporary.contains("7 days"), "{temporary}");

    let analysis = run("analyze_ip 192.168.1.100 --hours 24");
    analysis.expect(DONE, &["120", "/admin", "Spam bot"]);
    run("detect_anomalies_now").expect(DONE, &["120 requests", "192.168.1.100"]);
    let suspicious = run("analyze_ip 192.168.1.100 --hours 24 --json").json();
    assert!(!suspicious["standing"]["findings"].as_array().unwrap().is_empty(), "{suspicious}");

    run("unblock_ip 192.168.1.100").expect(DONE, &["192.168.1.100"]);
    let standing = place.state().active_blocks(now()).unwrap();
    assert_eq!(
        standing.iter().map(|block| block.network.to_string()).collect::<Vec<_>>(),
        ["192.168.1.101/32"]
    );
    run("migrate").expect(DONE, &["up to date"]);
}

#[test]
fn check_reports_what_would_run_as_the_original_did() {
    let place = Place::new();
    place.run("init --upstream http://127.0.0.1:8000").expect(DONE, &[]);
    place.run_all(&original("check")).expect(DONE, &["127.0.0.1:8000"]);
}

#[test]
fn help_knows_the_old_names_and_the_tasks() {
    let place = Place::new();
    let help = place.run("--help").expect(DONE, &["tasks", "migrate", "detect_anomalies_now"]);
    for name in ["block_ip", "unblock_ip", "list_blocked_ips", "analyze_ip"] {
        assert!(help.out.contains(name), "{name} is not in\n{}", help.out);
        place.run(&format!("help {name}")).expect(DONE, &["Examples:"]);
    }
}

#[test]
fn a_setting_is_changed_shown_and_taken_back_by_command() {
    let place = Place::new();
    place.write(
        "portcullis.toml",
        "[[upstream]]\nname = \"a\"\nservers = [\"a:1\"]\n[detection]\nrequests_per_hour = 500\n",
    );
    place.run("settings").expect(DONE, &["detection.requests_per_hour", "500", "the same"]);
    place
        .run("settings unset detection.requests_per_hour")
        .expect(NOTHING, &["was not changed while running"]);
    place
        .run("settings set detection.requests_per_hour 200")
        .expect(DONE, &["detection.requests_per_hour = 200 (the file says 500)", "within a second"]);
    place.run("settings").expect(DONE, &["200", "500", "by alice at the command line"]);
    place.run("check").expect(DONE, &["detection.requests_per_hour = 200 was set while running"]);
    let doctor = place.run("doctor").out;
    assert!(doctor.contains("1 setting changed while running"), "{doctor}");
    place.run("settings set detection.block_severity critical").expect(DONE, &["= \"critical\""]);
    place
        .run("settings set detection.error_rate 2")
        .expect(MISUSED, &["detection.error_rate: expected a share from 0.0 to 1.0, got the number 2"]);
    place.run("settings set server.threads 2").expect(MISUSED, &["cannot be changed while running"]);
    place.run("settings unset detection.requests_per_hour").expect(DONE, &["it was 200"]);
    let listed = place.run("settings --json").expect(DONE, &["\"is_changed\": true"]);
    assert_eq!(listed.out.matches("\"is_changed\": true").count(), 1, "{}", listed.out);
    // A file that does not fit what was set: that is left out, and said.
    place.write(
        "portcullis.toml",
        "[[upstream]]\nname = \"a\"\nservers = [\"a:1\"]\n[detection.actions]\ncritical = \"block 2h\"\n",
    );
    place.run("check").expect(DONE, &["is left out", "settings unset detection.block_severity"]);
}

#[test]
fn tasks_of_a_folder_without_a_gateway_are_listed_and_not_run() {
    let place = Place::new();
    place.run("tasks").expect(DONE, &["cleanup", "30 3 * * *", "never"]);
    place.run("tasks run cleanup").expect(MISUSED, &["no gateway has run", "--data"]);
    place.write(
        "portcullis.toml",
        "[[upstream]]\nname = \"a\"\nservers = [\"a:1\"]\n[tasks]\ncleanup = \"@fortnightly\"\n",
    );
    place
        .run("tasks")
        .expect(MISUSED, &["portcullis.toml:5:11: tasks.cleanup: expected a cron expression", "@daily"]);
}

#[test]
fn migrate_beside_a_running_writer_says_so() {
    let place = Place::new();
    let log = Log::start(&place.data(), LogSettings::default(), Box::new(NoEnrichment)).unwrap();
    place.run("migrate").expect(DONE, &["up to date. The running gateway did it"]);
    log.shutdown();
}

/// People read some pages, each with its assets, in the last hour.
fn ordinary_visits(clients: usize) -> Vec<RequestRecord> {
    let mut rng = fastrand::Rng::with_seed(11);
    let mut records = Vec::new();
    for n in 0..clients {
        let client = format!("198.51.{}.{}", n / 250, n % 250);
        let mut ago = rng.u64(2_000..3_300);
        for _ in 0..rng.usize(2..9) {
            let page = format!("/articles/{}", rng.u32(0..40));
            let assets = (0..rng.usize(2..7)).map(|n| format!("/assets/{n}.js"));
            for path in std::iter::once(page).chain(assets) {
                let bytes_out = rng.u64(2_000..30_000);
                records.push(RequestRecord { bytes_out, ..request(&client, &path, ago) });
            }
            ago -= rng.u64(5..120);
        }
    }
    records
}

#[test]
fn the_isolation_forest_notes_an_address_that_no_rule_minds_and_blocks_nobody() {
    let place = Place::new();
    let mut records = ordinary_visits(300);
    records.extend((0..90).map(|n| RequestRecord {
        text: text("POST", &format!("/a/b/c/d/e/{n}"), "harvester"),
        ..request("192.0.2.1", "/", 1_500 - n)
    }));
    records.sort_by_key(|record| record.id.time());
    place.log(records);
    drop(place.state());
    place.run("detect").expect(DONE, &["isolation forest: trained on", "192.0.2.1"]);
    let findings = place.run("suspicious --json").json();
    let findings = findings.as_array().unwrap();
    let odd = findings.iter().find(|finding| finding["client"] == "192.0.2.1").unwrap();
    assert_eq!((&odd["reason"], &odd["severity"]), (&"forest".into(), &"low".into()), "{odd:#}");
    // It says what is odd: how much was asked for, and how many paths, for example.
    let strongest = odd["details"]["forest"]["strongest"].as_array().unwrap();
    assert!(strongest.iter().all(|feature| feature["feature"].is_string()), "{odd:#}");
    place.run("blocks").expect(DONE, &["No blocks."]);
}

#[test]
fn a_spike_of_pages_within_seconds_is_noted_and_blocks_nobody() {
    let place = Place::new();
    // Too few in the hour to be noted for that.
    place.log((0..90).map(|n| request("203.0.113.9", &format!("/page/{n}"), 600 - n / 10)));
    drop(place.state());
    place.run("detect").expect(DONE, &["203.0.113.9"]);
    let findings = place.run("suspicious --json").json();
    assert_eq!((&findings[0]["reason"], &findings[0]["severity"]), (&"spike".into(), &"low".into()));
    place.run("blocks").expect(DONE, &["No blocks."]);
}
