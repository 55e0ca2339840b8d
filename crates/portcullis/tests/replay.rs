//! `portcullis replay` as people and scripts run it, over logs that are made up here.
//!
//! Owns what is printed, what is written, and the exit codes. Must not start a gateway.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use flate2::write::GzEncoder;
use portcullis_model::{
    Protocol, Reason, RecordText, RequestId, RequestRecord, TextFields, UnixMs, VerdictKind,
};
use portcullis_store::{Log, LogSettings, NoEnrichment};
use serde_json::Value;
use tempfile::TempDir;

const DONE: i32 = 0;
const FAILED: i32 = 1;
const MISUSED: i32 = 2;
const NOTHING: i32 = 3;
/// 2026-03-02T08:00:00Z
const START: i64 = 1_772_438_400;
const BROWSER: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0";
const SCANNER: &str = "203.0.113.66";
const PERSON: &str = "192.0.2.1";

#[derive(Clone)]
struct Asked {
    /// Seconds after [`START`].
    at: i64,
    client: String,
    method: &'static str,
    target: String,
    status: u16,
    referer: &'static str,
    agent: &'static str,
}

/// A page, what belongs to it, and another page.
fn visit(client: &str, at: i64) -> Vec<Asked> {
    let page = "https://shop.example/";
    [("/", ""), ("/style.css", page), ("/app.js", page), ("/logo.png", page), ("/list?page=2", page)]
        .into_iter()
        .zip(0..)
        .map(|((target, referer), n)| Asked {
            at: at + 2 * n,
            client: client.to_owned(),
            method: "GET",
            target: target.to_owned(),
            status: 200,
            referer,
            agent: BROWSER,
        })
        .collect()
}

/// What no site has, a second apart.
fn scan(client: &str, at: i64, count: usize) -> Vec<Asked> {
    let secrets =
        ["/.env", "/.git/config", "/.aws/credentials", "/wp-config.php.bak", "/id_rsa", "/phpinfo.php"];
    (0..count)
        .map(|n| Asked {
            at: at + n as i64,
            client: client.to_owned(),
            method: "GET",
            target: format!("{}{}", "/old".repeat(n / secrets.len()), secrets[n % secrets.len()]),
            status: 404,
            referer: "",
            agent: "curl/8.5.0",
        })
        .collect()
}

/// People in the course of a few hours, and one who scans.
fn day() -> Vec<Asked> {
    let mut all: Vec<Asked> =
        (0..40_i64).flat_map(|n| visit(&format!("192.0.2.{}", n + 1), n * 300)).collect();
    all.extend(scan(SCANNER, 1_000, 30));
    all.extend(scan(SCANNER, 1_900, 5));
    all.sort_by_key(|asked| asked.at);
    all
}

fn time(asked: &Asked, format: &str) -> String {
    let at = jiff::Timestamp::from_second(START + asked.at).unwrap();
    at.to_zoned(jiff::tz::TimeZone::fixed(jiff::tz::offset(2))).strftime(format).to_string()
}

fn common(asked: &Asked) -> String {
    let stamp = time(asked, "%d/%b/%Y:%H:%M:%S +0200");
    let Asked { client, method, target, status, .. } = asked;
    format!("{client} - - [{stamp}] \"{method} {target} HTTP/1.1\" {status} 512")
}

fn combined(asked: &Asked) -> String {
    let referer = if asked.referer.is_empty() { "-" } else { asked.referer };
    format!("{} \"{referer}\" \"{}\"", common(asked), asked.agent)
}

fn caddy(asked: &Asked) -> String {
    serde_json::json!({
        "level": "info", "ts": (START + asked.at) as f64, "logger": "http.log.access",
        "request": {
            "client_ip": asked.client, "method": asked.method, "host": "", "uri": asked.target,
            "headers": { "User-Agent": [asked.agent], "Referer": [asked.referer] },
        },
        "size": 512, "status": asked.status,
    })
    .to_string()
}

fn traefik(asked: &Asked) -> String {
    serde_json::json!({
        "ClientHost": asked.client, "DownstreamContentSize": 512, "DownstreamStatus": asked.status,
        "RequestMethod": asked.method, "RequestPath": asked.target, "request_User-Agent": asked.agent,
        "request_Referer": asked.referer, "StartUTC": time(asked, "%Y-%m-%dT%H:%M:%S+02:00"),
    })
    .to_string()
}

fn own_json(asked: &Asked) -> String {
    serde_json::json!({
        "when": (START + asked.at) * 1_000, "peer": { "address": asked.client }, "code": asked.status, "len": 512,
        "req": { "verb": asked.method, "target": asked.target, "ua": asked.agent, "from": asked.referer },
    })
    .to_string()
}

fn text(all: &[Asked], line: fn(&Asked) -> String) -> String {
    all.iter().fold(String::new(), |mut text, asked| {
        writeln!(text, "{}", line(asked)).unwrap();
        text
    })
}

struct Place(TempDir);

struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), bytes).unwrap();
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    fn run_with(&self, input: Option<&[u8]>, arguments: &[&str]) -> Ran {
        let mut child = Command::new(env!("CARGO_BIN_EXE_portcullis"))
            .arg("replay")
            .args(arguments)
            .current_dir(self.0.path())
            .env_remove("RUST_LOG")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // It may end before it has read all.
        let _ = stdin.write_all(input.unwrap_or_default());
        drop(stdin);
        let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
        Ran {
            code: status.code().unwrap(),
            out: String::from_utf8(stdout).unwrap(),
            err: String::from_utf8(stderr).unwrap(),
        }
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        self.run_with(None, arguments)
    }

    /// The lines of `--json` for a replay that must work. The first one of a place stores its model for the others:
    /// each fit scores a little differently.
    fn flagged(&self, arguments: &[&str]) -> Vec<Value> {
        let mut all = vec!["--json", "-", "--model", "forest.model"];
        all.extend(arguments);
        lines(&self.run(&all))
    }
}

fn lines(ran: &Ran) -> Vec<Value> {
    assert_eq!(ran.code, DONE, "{}", ran.err);
    ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn every_format_and_packing_gives_the_same_answer() {
    let place = Place::new();
    let day = day();
    let plain = text(&day, combined);
    place.write("access.log", &plain);
    let expected = place.flagged(&["access.log"]);
    let scanner: Vec<&Value> = expected.iter().filter(|line| line["ip"] == SCANNER).collect();
    assert_eq!((scanner.len(), expected.len()), (1, 1), "{expected:?}");
    let scanner = scanner[0];
    assert_eq!((&scanner["would_block"], &scanner["requests"]), (&Value::from(true), &Value::from(35)));
    assert_eq!(scanner["first_request_at"], "2026-03-02T08:16:40.000Z");
    assert!(scanner["requests_before_flag"].as_u64().unwrap() < 6, "{scanner}");
    assert!(scanner["flagged_at"].as_str().unwrap().starts_with("2026-03-02T08:16:4"));
    assert!(!scanner["reasons"].as_array().unwrap().is_empty() && scanner["forest_score"].is_number());
    assert_eq!(scanner.as_object().unwrap().len(), 9, "the fields that scripts read");

    let map = "--map=time=when,ip=peer.address,status=code,bytes=len,method=req.verb,uri=req.target,\
               user_agent=req.ua,referer=req.from";
    place.write("caddy.json", text(&day, caddy));
    place.write("traefik.json", text(&day, traefik));
    place.write("own.json", text(&day, own_json));
    place.write("by-name.log", gzip(&plain));
    place.write("frames.log", zstd::encode_all(plain.as_bytes(), 1).unwrap());
    place.write("dos.log", format!("\u{feff}{}", plain.replace('\n', "\r\n")));
    for arguments in [
        &["caddy.json"][..],
        &["traefik.json"],
        &["own.json", map],
        &["by-name.log"],
        &["frames.log", "--format", "combined"],
        &["dos.log"],
    ] {
        assert_eq!(place.flagged(arguments), expected, "{arguments:?}");
    }
    for input in [plain.clone().into_bytes(), gzip(&plain)] {
        assert_eq!(
            lines(&place.run_with(Some(&input), &["-", "--json", "-", "--model", "forest.model"])),
            expected,
            "standard input"
        );
    }
    // Without referrers and user agents the scanner is one all the same.
    place.write("common.log", text(&day, common));
    assert_eq!(place.flagged(&["common.log"])[0]["ip"], SCANNER);
    let out = place.run(&["by-name.log"]).out;
    assert!(out.contains("by-name.log: combined, gzip, 235 requests"), "{out}");
}

#[test]
fn rotated_logs_are_one_whatever_their_order_and_merged_where_they_overlap() {
    let place = Place::new();
    let day = day();
    place.write("whole.log", text(&day, combined));
    let expected = place.flagged(&["whole.log"]);
    let (older, newer) = day.split_at(120);
    place.write("access.log", text(newer, combined));
    place.write("access.log.1.gz", gzip(&text(older, combined)));
    assert_eq!(place.flagged(&["access.log", "access.log.1.gz"]), expected);
    let (even, odd): (Vec<_>, Vec<_>) = day.iter().cloned().enumerate().partition(|(n, _)| n % 2 == 0);
    let only = |half: Vec<(usize, Asked)>| half.into_iter().map(|(_, asked)| asked).collect::<Vec<_>>();
    place.write("a.log", text(&only(even), combined));
    place.write("b.log", text(&only(odd), combined));
    let ran = place.run(&["a.log", "b.log"]);
    assert!(ran.out.contains("are of the same time and were merged"), "{}", ran.out);
    let merged = place.flagged(&["b.log", "a.log"]);
    assert_eq!(
        (merged.len(), &merged[0]["ip"], &merged[0]["requests"]),
        (1, &expected[0]["ip"], &Value::from(35))
    );
}

#[test]
fn the_same_files_and_the_same_model_give_the_same_answer_to_the_byte() {
    let place = Place::new();
    let people = (0..260_i64).flat_map(|n| visit(&format!("198.51.100.{}", n % 250), n * 120));
    let mut all: Vec<Asked> = people.chain(day()).collect();
    all.sort_by_key(|asked| asked.at);
    place.write("access.log", text(&all, combined));
    let arguments = [
        "access.log",
        "--model",
        "model",
        "--scores",
        "scores.csv",
        "--json",
        "flagged.jsonl",
        "--severity",
        "low",
    ];
    let run = || {
        let ran = place.run(&arguments);
        assert_eq!(ran.code, DONE, "{}", ran.err);
        (ran.out, place.read("scores.csv"), place.read("flagged.jsonl"))
    };
    let first = run();
    let model = std::fs::read(place.path("model")).unwrap();
    let second = run();
    assert_eq!((&first.1, &first.2), (&second.1, &second.2));
    assert_eq!(second, run());
    assert_eq!(std::fs::read(place.path("model")).unwrap(), model, "it was used, not made again");
    let scores = first.1;
    assert!(scores.starts_with("ip,hour,forest_score\n") && scores.lines().count() > 250, "{scores}");
    let line = scores.lines().find(|line| line.starts_with(SCANNER)).unwrap();
    let [_, hour, score] = line.split(',').collect::<Vec<_>>()[..] else { panic!("{line}") };
    assert_eq!(hour, "2026-03-02T08:00:00.000Z");
    assert!((0.0..=1.0).contains(&score.parse::<f64>().unwrap()));
    let flagged: Vec<Value> = first.2.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let scanner = flagged.iter().find(|line| line["ip"] == SCANNER).unwrap();
    assert!(scanner["forest_score"].is_number(), "{scanner}");
    place.write("broken", "no model");
    let ran = place.run(&["access.log", "--model", "broken"]);
    assert!(ran.code == FAILED && ran.err.contains("broken is of no use"), "{}", ran.err);
}

#[test]
fn a_block_refuses_until_it_ends_and_the_next_one_is_longer() {
    let place = Place::new();
    let mut all = scan(SCANNER, 0, 20);
    // Within the hour of the block, after it, and after the four hours of the second one.
    all.extend(visit(SCANNER, 1_800));
    all.extend(scan(SCANNER, 3 * 3_600, 20));
    all.extend(visit(SCANNER, 6 * 3_600));
    all.extend(visit(SCANNER, 8 * 3_600));
    place.write("access.log", text(&all, combined));
    let ran = place.run(&["access.log"]);
    assert!(
        ran.out.contains("blocked 1 hour, 2 times in all") || ran.out.contains("2 times in all"),
        "{}",
        ran.out
    );
    let before = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.contains(name)).unwrap_or_else(|| panic!("{text}"));
        line.split_whitespace().last().unwrap().parse::<u64>().unwrap()
    };
    let refused = before(&ran.out, "blocked by the detector");
    // The scans but for their first requests, and the two visits under a block; not the last one.
    assert!((35..50).contains(&refused), "{}", ran.out);
    // A list with the scanner on it spares it.
    place.write("allow.toml", format!("[[allow]]\nnetwork = \"{SCANNER}\"\nreason = \"our own\"\n"));
    let ran = place.run(&["access.log", "--policy", "allow.toml"]);
    assert!(ran.out.contains("[not blocked: on the allowlist]"), "{}", ran.out);
    assert_eq!(before(&ran.out, "blocked by the detector"), 0);
}

const STRICT: &str = "[[limit]]\nname = \"pages\"\nrate = \"3/1m\"\n\n[[access]]\nname = \"no-lists\"\naction = \"deny\"\n\
                      paths = [\"/list\"]\n\n[[block]]\nnetwork = \"192.0.2.7\"\nreason = \"a nuisance\"\n";

#[test]
fn limits_rules_and_blocks_are_played_and_the_innocent_come_first() {
    let place = Place::new();
    place.write("access.log", text(&day(), combined));
    place.write("strict.toml", STRICT);
    let ran = place.run(&["access.log", "--policy", "strict.toml", "--limit", "50"]);
    assert_eq!(ran.code, DONE, "{}", ran.err);
    let at = |what: &str| ran.out.find(what).unwrap_or_else(|| panic!("no {what:?} in {}", ran.out));
    assert!(at("Look innocent, and would have been refused: 40 clients") < at("Would have been"));
    assert!(at("Would have been\n") < at("Flagged: 1 client"));
    for what in ["block: a nuisance", "limit:pages", "access:no-lists", "denied by the access list"] {
        at(what);
    }
    assert!(
        ran.out.lines().any(|line| line.contains(PERSON) && line.contains("looks like a person")),
        "{}",
        ran.out
    );
    assert!(ran.err.contains("per second"), "{}", ran.err);
    let lenient = place.run(&["access.log"]);
    assert!(lenient.out.contains("Nobody who looks innocent would have been refused"), "{}", lenient.out);
}

#[test]
fn budgets_decide_the_exit_code() {
    let place = Place::new();
    place.write("access.log", text(&day(), combined));
    place.write("strict.toml", STRICT);
    let code = |arguments: &[&str]| {
        let mut all = vec!["access.log"];
        all.extend(arguments);
        let ran = place.run(&all);
        (ran.code, ran.err)
    };
    assert_eq!(code(&["--fail-if", "humans_blocked > 0"]).0, DONE);
    assert_eq!(code(&["--fail-if", "flagged > 5, humans_refused > 0 and humans > 0"]).0, DONE);
    let (failed, err) = code(&["--policy", "strict.toml", "--fail-if", "humans_refused > 0"]);
    assert!(failed == FAILED && err.contains("failed: humans_refused > 0 (it is 40)"), "{err}");
    assert_eq!(code(&["--fail-if", "blocked < 1", "--fail-if", "flagged >= 1"]).0, FAILED);
    let (misused, err) = code(&["--fail-if", "people > 0"]);
    assert!(
        misused == MISUSED && err.contains("there is no figure \"people\"") && err.contains("humans_blocked"),
        "{err}"
    );
    let (misused, err) = code(&["--fail-if", "newly_blocked > 0"]);
    assert!(misused == MISUSED && err.contains("with --against only"), "{err}");
}

#[test]
fn two_policies_show_what_differs_and_nothing_else() {
    let place = Place::new();
    place.write("access.log", text(&day(), combined));
    place.write("never.toml", "[detection]\nblock_severity = \"never\"\n");
    place.write("now.toml", "[detection]\nblock_severity = \"medium\"\n");
    let ran = place.run(&["access.log", "--policy", "now.toml", "--against", "never.toml"]);
    assert_eq!(ran.code, DONE, "{}", ran.err);
    assert!(ran.out.contains("Different for 1 client") && ran.out.contains(SCANNER), "{}", ran.out);
    assert!(!ran.out.contains(PERSON) && ran.out.contains("1 refused now and not before"), "{}", ran.out);
    let same = place.run(&["access.log", "--policy", "now.toml", "--against", "now.toml"]);
    assert!(same.out.contains("would have done the same to every client"), "{}", same.out);
    let budget =
        ["access.log", "--policy", "now.toml", "--against", "never.toml", "--fail-if", "newly_blocked > 0"];
    assert_eq!(place.run(&budget).code, FAILED);
    let humans = [
        "access.log",
        "--policy",
        "now.toml",
        "--against",
        "never.toml",
        "--fail-if",
        "humans_newly_blocked > 0",
    ];
    assert_eq!(place.run(&humans).code, DONE);
}

#[test]
fn detection_is_played_as_it_is_set() {
    let place = Place::new();
    place.write("access.log", text(&day(), combined));
    place.write("hourly.toml", "[detection]\nlive = false\n");
    place.write("off.toml", "[detection]\nlive = false\nenabled = false\n");
    let hourly = place.flagged(&["access.log", "--policy", "hourly.toml"]);
    assert_eq!((hourly.len(), &hourly[0]["ip"]), (1, &Value::from(SCANNER)));
    assert_eq!(hourly[0]["flagged_at"], "2026-03-02T09:00:00.000Z", "at the end of its hour");
    assert_eq!(place.flagged(&["access.log", "--policy", "off.toml"]), Vec::<Value>::new());
}

#[test]
fn what_cannot_be_read_is_named_with_its_place() {
    let place = Place::new();
    let good = text(&day(), combined);
    place.write("mixed.log", format!("{good}\u{1b}[2Jgarbage\n"));
    let ran = place.run(&["mixed.log"]);
    assert_eq!(ran.code, DONE);
    assert!(ran.out.contains("mixed.log:236: it has no request in quotes"), "{}", ran.out);
    assert!(!ran.out.contains('\u{1b}'), "a terminal would obey it");
    place.write("strange.log", "one\ntwo\nthree\n");
    let ran = place.run(&["strange.log"]);
    assert!(
        ran.code == FAILED && ran.err.contains("strange.log") && ran.err.contains("in no known format"),
        "{}",
        ran.err
    );
    let ran = place.run(&["mixed.log", "--format", "caddy"]);
    assert!(ran.code == FAILED && ran.err.contains("are no requests as caddy"), "{}", ran.err);
    let ran = place.run(&["mixed.log", "--format", "clf"]);
    assert!(ran.code == MISUSED && ran.err.contains("vhost_combined"), "{}", ran.err);
    let ran = place.run(&["mixed.log", "--map", "color=x"]);
    assert!(ran.code == MISUSED && ran.err.contains("there is no field"), "{}", ran.err);
    let ran = place.run(&["missing.log"]);
    assert!(ran.code == FAILED && ran.err.contains("cannot read missing.log"), "{}", ran.err);
    let ran = place.run(&["."]);
    assert!(ran.code == FAILED && ran.err.contains("is a folder"), "{}", ran.err);
    assert_eq!(place.run(&[]).code, MISUSED);
    place.write("empty.log", "");
    let ran = place.run(&["empty.log"]);
    assert!(ran.code == NOTHING && ran.out.contains("no request to replay"), "{}", ran.out);
    let packed = gzip(&good);
    place.write("cut.gz", &packed[..packed.len() - 20]);
    let ran = place.run(&["cut.gz"]);
    assert!(
        ran.code == DONE && ran.out.contains("ends in the middle of its packed data"),
        "{}{}",
        ran.out,
        ran.err
    );
}

#[test]
fn the_gateways_own_log_is_replayed_and_says_what_its_privacy_hides() {
    let place = Place::new();
    let now = UnixMs::from_system(std::time::SystemTime::now());
    let start = now.0 - 3 * 3_600_000;
    let log = Log::start(&place.path("data"), LogSettings::default(), Box::new(NoEnrichment)).unwrap();
    for (n, asked) in (0..).zip(day().iter().filter(|asked| asked.at < 3_600)) {
        let (path, query) = asked.target.split_once('?').unwrap_or((&asked.target, ""));
        let record = RequestRecord {
            id: RequestId::new(UnixMs(start + asked.at * 1_000), n),
            client: asked.client.parse().unwrap(),
            protocol: Protocol::Http11,
            status: asked.status,
            bytes_in: 0,
            bytes_out: 512,
            latency_us: 1,
            verdict: VerdictKind::Admitted,
            reason: Reason::None,
            login: None,
            text: RecordText::new(TextFields {
                method: b"GET",
                host: b"shop.example",
                path: path.as_bytes(),
                query: query.as_bytes(),
                user_agent: asked.agent.as_bytes(),
                referer: asked.referer.as_bytes(),
                user: b"",
            }),
        };
        assert!(log.recorder().offer(record));
    }
    log.flusher().flush().unwrap();
    drop(log);
    let own = ["--from-log", "--since", "1d", "--data", "data"];
    let flagged = place.flagged(&own);
    assert_eq!((flagged.len(), &flagged[0]["ip"]), (1, &Value::from(SCANNER)), "{flagged:?}");
    let before = ["--from-log", "--since", "30m", "--data", "data"];
    assert_eq!(place.run(&before).code, NOTHING);
    place.write("quiet.toml", "[privacy]\nlog_referer = false\n");
    let mut quiet = own.to_vec();
    quiet.extend(["--policy", "quiet.toml"]);
    let ran = place.run(&quiet);
    assert!(ran.out.contains("referrers are not in the log"), "{}{}", ran.out, ran.err);
    let ran = place.run(&["--from-log", "access.log"]);
    assert_eq!(ran.code, MISUSED, "{}", ran.err);
}
