//! A thousand texts of attackers through every field that is logged or kept, and then every page: nothing of them runs,
//! nothing of them becomes part of a page, a spreadsheet or a terminal's work.
//!
//! Owns how they get in: by requests as far as HTTP allows them, and by the store for the rest.

mod strings;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;
use portcullis_model::{
    BlockSource, ClientIp, Finding, FindingStatus, Location, Party, Protocol, Reason, RecordText, RequestId,
    RequestRecord, Severity, TextFields, VerdictKind, user_of,
};
use portcullis_store::{Enrich, NewBlock, NewNever, NewPartyBlock, NewTaskRun, State};

use super::{Scene, open, past};

const STRUCTURE: &str = include_str!("structure.js");
const COUNT: usize = 1_000;
/// Pages of a list that are followed at most.
const MAX_PAGES: usize = 21;
/// Of pages with a single thing on them, every so many-th is opened.
const EVERY: usize = 80;
const ALL_COLUMNS: &str = "column=time&column=ip&column=country&column=method&column=host&column=path&column=status&\
                           column=verdict&column=reason&column=duration&column=received&column=sent&column=agent&\
                           column=referer&column=user&column=city&column=network&column=protocol&column=suspicious&\
                           column=id";

/// A client of its own for each text.
fn client(number: usize) -> ClientIp {
    format!("198.18.{}.{}", 40 + number / 250, 1 + number % 250).parse().unwrap()
}

/// Another one, whom nobody has blocked or allowed.
fn stranger(number: usize) -> String {
    client(number).to_string().replace("198.18.", "198.19.")
}

fn network(number: usize) -> IpNet {
    client(number).limit_network()
}

/// Somewhere along the texts, a different one for each field of the same row.
fn pick(texts: &[String], number: usize) -> &str {
    &texts[number % texts.len()]
}

/// A database of places that somebody has made for us.
struct HostileAtlas(Vec<String>);

impl Enrich for HostileAtlas {
    fn location(&mut self, of: ClientIp) -> Location {
        let number = (0..COUNT).find(|number| client(*number) == of).unwrap_or(0);
        let text = |add: usize| Some(pick(&self.0, number + add).to_owned());
        Location {
            country: Some(["DE", "XX", "US"][number % 3].to_owned()),
            city: text(0),
            region: text(1),
            isp: text(2),
            asn: Some(64_496 + number as u32 % 400),
            ..Location::default()
        }
    }

    fn is_suspicious(&mut self, _: &RequestRecord) -> bool {
        true
    }
}

fn row(texts: &[String], number: usize) -> RequestRecord {
    let text = |add: usize| pick(texts, number + add * 101).as_bytes();
    let at = past::now().minus(Duration::from_secs(3_600)).plus(Duration::from_secs(number as u64));
    RequestRecord {
        id: RequestId::new(at, number as u32),
        client: client(number),
        protocol: Protocol::Http11,
        status: 404,
        bytes_in: 0,
        bytes_out: 0,
        latency_us: 900,
        verdict: VerdictKind::Admitted,
        reason: Reason::None,
        login: None,
        text: RecordText::new(TextFields {
            method: if number.is_multiple_of(5) { text(7) } else { b"GET" },
            host: text(1),
            path: text(0),
            query: text(2),
            user_agent: text(3),
            referer: text(4),
            user: text(5),
        }),
    }
}

fn finding(texts: &[String], number: usize) -> Finding {
    let text = |add: usize| pick(texts, number + add * 53);
    let at = past::now().minus(Duration::from_secs(600));
    Finding {
        client: client(number),
        user: number.is_multiple_of(2).then(|| user(text(1))),
        reason: if number.is_multiple_of(3) { text(2).to_owned() } else { "sensitive_files".to_owned() },
        severity: Severity::High,
        request_count: 7,
        first_seen: at,
        last_seen: at,
        detected_at: at,
        details: serde_json::json!({
            "summary": text(3),
            "rules": [{
                "rule": text(4), "severity": "high", "says": text(5), "evidence": { "path": text(6), text(7): 1 },
                "samples": [{ "time": at.0, "method": text(8), "path": text(9), "status": 404 }],
            }],
            "score": [{ "at": at.0, "rule": text(10), "points": 3.0, "score": 3.0 }],
            "features": { text(11): 1.5 },
            "forest": { "score": 0.7, "strongest": [{ "feature": text(12), "says": text(13), "value": 1.0, "share": 0.5 }] },
            "prevented_by": [text(14)],
        }),
    }
}

/// As long as users may be.
fn user(text: &str) -> String {
    let mut name = text.to_owned();
    while user_of(&name).is_err() {
        name.pop();
    }
    name
}

fn fill(data: &Path, texts: &[String]) {
    past::write(data, (0..COUNT).map(|number| row(texts, number)), HostileAtlas(texts.to_vec()));
    let mut state = State::open(data).unwrap();
    let now = past::now();
    for (number, text) in texts.iter().enumerate() {
        let next = pick(texts, number + 1);
        let (network, source, actor) = (network(number), BlockSource::Import, next);
        let block = NewBlock {
            network,
            reason: text.clone(),
            source,
            created_at: now,
            expires_at: None,
            finding_id: None,
        };
        let added = state.add_block(block, actor).unwrap();
        if number.is_multiple_of(4) {
            state.remove_blocks([added.id], actor, now).unwrap();
        }
        state.add_allow(network, text, source, actor, now).unwrap();
        let party = Party::User(user(text).into());
        let block = NewPartyBlock {
            party,
            reason: next.to_owned(),
            source,
            created_at: now,
            expires_at: None,
            finding_id: None,
        };
        state.add_party_block(block, actor).unwrap();
        let finding = state.save_finding(&finding(texts, number)).unwrap();
        // What is written once in a while, and costs a commit each.
        if !number.is_multiple_of(10) {
            continue;
        }
        state.set_finding_status(finding, FindingStatus::Dismissed, actor, now).unwrap();
        let never = NewNever {
            rule: text.clone(),
            network: Some(network),
            path: Some(next.to_owned()),
            note: text.clone(),
            finding_id: Some(finding),
        };
        state.add_never(&never, actor, now).unwrap();
        let run = NewTaskRun {
            task: "feeds".to_owned(),
            started_at: now,
            finished_at: now,
            succeeded: false,
            summary: text.clone(),
        };
        state.record_task_run(&run).unwrap();
        state.note_act(actor, text, next, pick(texts, number + 2), now).unwrap();
    }
}

/// One request as it is; whatever the answer is.
fn send_raw(scene: &Scene, head: &str) {
    let mut socket = TcpStream::connect(scene.gateway.address()).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    // Where the gateway has had enough it closes, and that is its right.
    let _ = socket.write_all(head.as_bytes());
    let _ = socket.read(&mut [0; 512]);
}

/// Requests with the texts in every place of a head, as far as a line goes.
fn send_all(scene: &Scene, texts: &[String]) {
    let line = |text: &str| text.replace(['\r', '\n'], " ").chars().take(900).collect::<String>();
    let in_path = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    for number in 0..texts.len() {
        let text = |add: usize| line(pick(texts, number + add * 211));
        let target = match number % 4 {
            0 => text(0).replace(' ', "+"),
            1 => format!("/{}?{}", text(0).replace([' ', '?', '#'], "+"), text(1).replace([' ', '#'], "+")),
            _ => format!("/{}?q={}", in_path(&line(&text(0))), in_path(&text(1))),
        };
        let host = if number.is_multiple_of(3) { text(2) } else { "lamps.example".to_owned() };
        send_raw(
            scene,
            &format!(
                "GET {target} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {}\r\nReferer: {}\r\nX-Forwarded-For: {}\r\n\
                 Connection: close\r\n\r\n",
                text(3),
                text(4),
                stranger(number),
            ),
        );
    }
}

/// What is wrong with the page that is open.
async fn wrong(scene: &Scene) -> Vec<String> {
    // Tables whose columns differ as much as these settle as they come in.
    let mut faults: Vec<String> =
        scene.faults().await.into_iter().filter(|fault| !fault.starts_with("shifts")).collect();
    let of = scene.browser.script(STRUCTURE).await;
    faults.extend(of.as_array().unwrap().iter().map(|fault| fault.as_str().unwrap_or("?").to_owned()));
    faults
}

/// Opens a page, and all that follow it.
async fn follow(scene: &Scene, address: &str, faults: &mut Vec<String>) -> usize {
    let mut address = Some(address.to_owned());
    let mut pages = 0;
    while let Some(this) = address.take().filter(|_| pages < MAX_PAGES) {
        scene.go(&this).await;
        pages += 1;
        faults.extend(wrong(scene).await.into_iter().map(|fault| format!("{this}: {fault}")));
        let next =
            scene.browser.script("return document.querySelector('a[rel=next]')?.getAttribute('href')").await;
        address = next.as_str().map(str::to_owned);
    }
    pages
}

#[test]
fn nothing_of_a_thousand_hostile_texts_runs_or_becomes_part_of_a_page() {
    let texts = strings::make(COUNT);
    open(
        |data| fill(data, &texts),
        async |scene| {
            send_all(scene, &texts);
            scene.gateway.cli_ok(&["detect"]);
            scene.resize(1_280, 900).await;
            let mut faults = Vec::new();
            let mut pages = 0;
            for list in [
                &format!("/requests?{ALL_COLUMNS}"),
                "/findings?status=all",
                "/findings/never",
                "/blocks",
                "/blocks/users",
                "/blocks/ended",
                "/allows",
                "/settings/audit",
                "/settings/tasks",
                "/settings/alerts",
                "/settings/sources",
                "/limits",
                "/?range=day",
                "/?range=week&map=blocks",
                "/account",
            ] {
                pages += follow(scene, list, &mut faults).await;
            }
            let data = scene.gateway.data();
            for row in data.rows().iter().step_by(EVERY) {
                pages += follow(scene, &format!("/decision/{}", row.id), &mut faults).await;
            }
            for number in (0..COUNT).step_by(EVERY) {
                pages += follow(scene, &format!("/findings/{}", number + 1), &mut faults).await;
                pages += follow(scene, &format!("/clients/{}", client(number)), &mut faults).await;
            }
            // What pages say back.
            for text in texts.iter().step_by(EVERY) {
                let text: String = url::form_urlencoded::byte_serialize(text.as_bytes()).collect();
                for page in [
                    "/find?q=",
                    "/requests?path=",
                    "/requests?ip=",
                    "/decision?id=",
                    "/blocks?q=",
                    "/blocks?reason=",
                    "/findings?client=",
                    "/settings/audit?actor=",
                    "/clients/",
                    "/",
                ] {
                    pages += follow(scene, &format!("{page}{text}"), &mut faults).await;
                }
            }
            println!("{pages} pages were opened");
            assert!(
                faults.is_empty(),
                "{} faults, of which\n{}",
                faults.len(),
                faults[..faults.len().min(60)].join("\n")
            );

            // The live tail puts rows into the page itself.
            scene.go(&format!("/requests?{ALL_COLUMNS}")).await;
            scene.browser.click("[data-tail]").await;
            scene.browser.wait_for("[data-tail-state]", "Live").await;
            send_all(scene, &texts[..60]);
            scene.browser.wait_for("[data-rows] tr.new", "").await;
            assert_eq!(wrong(scene).await, Vec::<String>::new());
            check_files(scene).await;
            check_terminal(scene);
        },
    );
}

/// What the exports hold: no cell that a spreadsheet would compute, and lines that are JSON.
async fn check_files(scene: &Scene) {
    let fetch = async |address: &str| {
        let script = format!(
            "const done = arguments[0]; fetch({address:?}).then((answer) => answer.text()).then(done, (error) => done(`${{error}}`))"
        );
        scene.browser.script_that_waits(&script).await.as_str().unwrap().to_owned()
    };
    for (address, least) in
        [("/requests/export.csv", 2 * COUNT - 100), ("/blocks/export?format=csv", COUNT / 2)]
    {
        let text = fetch(address).await;
        let mut reader = csv::ReaderBuilder::new().flexible(false).from_reader(text.as_bytes());
        let mut rows = 0;
        for record in reader.records() {
            rows += 1;
            for cell in &record.unwrap() {
                let begins = cell.chars().next();
                let is_formula = begins.is_some_and(|c| "=+-@\t\r\n＝＋－＠".contains(c));
                assert!(!is_formula || cell.parse::<f64>().is_ok(), "{address}: {cell:?}");
            }
        }
        assert!(rows >= least, "{address} has {rows} rows");
    }
    let lines = fetch("/requests/export.jsonl").await;
    let parsed = lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    assert!(parsed.count() >= 2 * COUNT - 100);
}

/// Nothing that a terminal would obey, and nothing that turns or hides what is read.
fn check_terminal(scene: &Scene) {
    let is_bad = |c: char| {
        (c.is_control() && c != '\n')
            || matches!(c, '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    let rows = scene.gateway.data().rows();
    let id = rows[rows.len() / 3].id.to_string();
    let (client, finding) = (client(3).to_string(), 4.to_string());
    for command in [
        &["logs", "--limit", "3000", "--color", "always"][..],
        &["why", &id, "--color", "never"],
        &["why", &client, "--color", "never"],
        &["analyze", &client, "--color", "never"],
        &["top", "--color", "never"],
        &["suspicious", "--status", "all", "--color", "never"],
        &["suspicious", &finding, "--color", "never"],
        &["blocks", "--all", "--color", "never"],
        &["allows", "--color", "never"],
        &["tasks", "--color", "never"],
    ] {
        let output = scene.gateway.cli(command);
        assert!(output.code == Some(0), "{command:?}: {}", output.stderr);
        // Colours are the program's own.
        let text = output.stdout.replace("\u{1b}[", "");
        let text = if command.contains(&"always") { text } else { output.stdout };
        let bad = text.char_indices().find(|(_, c)| is_bad(*c));
        assert!(
            bad.is_none(),
            "{command:?} prints {bad:?} in {:?}",
            bad.map(|(at, _)| &text[at.saturating_sub(40)..at])
        );
    }
}
