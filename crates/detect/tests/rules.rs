//! Runs the fixtures of `tests/rules/`, whose README describes their format. Every rule must have some.

#![expect(clippy::unwrap_used, reason = "a fixture that cannot be read is a failed test")]

use std::fs;
use std::path::{Path, PathBuf};

use portcullis_detect::{BotStatus, Observation, Settings, Window, rule_names};
use portcullis_model::{Finding, Severity, UnixMs, VerdictKind};

const HOUR_MS: i64 = 3_600_000;
const BROWSER: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0";
const CLIENT: &str = "192.0.2.1";

struct Request {
    time_ms: i64,
    status: u16,
    method: String,
    target: String,
    agent: String,
    referer: String,
    user: String,
    verdict: VerdictKind,
    bot: BotStatus,
    client: String,
}

#[test]
fn every_fixture_gets_what_its_first_line_expects() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rules");
    // The forest needs a trained model, slow patterns and spikes need earlier windows: tests/forest.rs and
    // tests/together.rs are their fixtures.
    for rule in rule_names().filter(|rule| !matches!(*rule, "forest" | "slow_probing" | "site_spike")) {
        let files = files(&folder.join(rule));
        for kind in ["hostile", "benign"] {
            let has = files.iter().any(|file| file.file_name().unwrap().to_str().unwrap().starts_with(kind));
            assert!(has, "{rule} has no {kind} fixture");
        }
        for file in files {
            check(&file);
        }
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    entries.map(|entry| entry.unwrap().path()).collect()
}

fn check(file: &Path) {
    let text = fs::read_to_string(file).unwrap();
    let mut lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    let expected: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
    let mut window = Window::new(&Settings::default(), UnixMs(0), UnixMs(HOUR_MS));
    let mut clock = 0;
    let mut agent = BROWSER.to_owned();
    for line in lines {
        for request in requests(line, &mut clock, &mut agent) {
            observe(&mut window, &request);
        }
    }
    let report = window.finish(None, UnixMs(HOUR_MS));
    let finding = report.findings.iter().find(|finding| finding.client.to_string() == CLIENT);
    let name = file.display();
    match expected[..] {
        ["expect", "not", rule] => {
            assert_eq!(severity(finding, rule), None, "{name}: {finding:#?}");
            assert!(finding.is_none_or(|f| f.severity < Severity::High), "{name}: {finding:#?}");
        }
        ["expect", rule, level] => {
            assert_eq!(severity(finding, rule).as_deref(), Some(level), "{name}: {finding:#?}");
        }
        _ => panic!("{name}: expected `expect [not] RULE [SEVERITY]`, got {expected:?}"),
    }
}

fn severity(finding: Option<&Finding>, rule: &str) -> Option<String> {
    let rules = finding?.details["rules"].as_array()?;
    let hit = rules.iter().find(|hit| hit["rule"] == rule)?;
    Some(hit["severity"].as_str()?.to_owned())
}

fn requests(line: &str, clock: &mut i64, agent: &mut String) -> Vec<Request> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [at, status, method, target, ref options @ ..] = words[..] else { panic!("{line}") };
    let seconds = |text: &str| (text.parse::<f64>().unwrap() * 1_000.0) as i64;
    let start = match at.strip_prefix('+') {
        Some(after) => *clock + seconds(after),
        None => seconds(at),
    };
    let option = |key: &str| {
        let prefix = format!("{key}=");
        options
            .iter()
            .find_map(|word| word.strip_prefix(prefix.as_str()))
            .map(|value| value.replace('_', " "))
    };
    if let Some(new) = option("agent") {
        *agent = new;
    }
    let times = option("times").map_or(1, |n| n.parse::<i64>().unwrap());
    let every = option("every").map_or(0, |n| seconds(&n));
    *clock = start + (times - 1) * every;
    let verdict = options.iter().find_map(|word| word.strip_prefix("verdict=")).unwrap_or("admitted");
    (0..times)
        .map(|n| Request {
            time_ms: start + n * every,
            status: status.parse().unwrap(),
            method: method.to_owned(),
            target: target.replace("{n}", &n.to_string()),
            agent: agent.clone(),
            referer: option("referer").unwrap_or_default(),
            user: option("user").unwrap_or_default(),
            verdict: verdict.parse().unwrap(),
            bot: match option("bot").as_deref() {
                None => BotStatus::None,
                Some("claimed") => BotStatus::Claimed,
                Some("verified") => BotStatus::Verified,
                Some("false") => BotStatus::False,
                Some(other) => panic!("{other:?} is no status of a bot"),
            },
            client: option("client").unwrap_or_else(|| CLIENT.to_owned()),
        })
        .collect()
}

fn observe(window: &mut Window, request: &Request) {
    let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
    window.observe(&Observation {
        time: UnixMs(request.time_ms),
        client: request.client.parse().unwrap(),
        status: request.status,
        verdict: request.verdict,
        bytes_out: 1_000,
        method: &request.method,
        host: "example.com",
        path,
        query,
        user_agent: &request.agent,
        referer: &request.referer,
        user: &request.user,
        login: None,
        bot: request.bot,
    });
}
