//! The end of the demo: numbers, the verdict, and where to look further.
//! Owns what counts as success; must not print or exit.

use std::time::Duration;

use portcullis_model::RequestId;

use super::Board;
use super::ledger::{ClientRow, Role, Snapshot, Tally};
use super::table::{Colour, address_of, count, paint, printable, span};

/// Where things are, for the texts before and after.
#[derive(Clone, Debug)]
pub(crate) struct Guide {
    /// The site's URL through the gateway.
    pub(crate) site: String,
    /// The URL of the console, with the link that makes the first account.
    pub(crate) console: String,
    /// The URL of the metrics.
    pub(crate) metrics: String,
    /// The configuration as `--config` takes it; it names the data folder.
    pub(crate) config: String,
    /// How the program is called in the example commands.
    pub(crate) program: String,
}

impl Guide {
    pub(super) fn introduction(&self) -> String {
        let Self { site, console, metrics, config, program } = self;
        format!(
            "A sample shop behind the gateway, with visitors and attackers from made-up addresses.\n  \
             the shop   {site}  (log in as ada, lovelace)\n  console    {console}\n  \
             metrics    {metrics}\n  \
             the log    {program} logs --follow --config {config}\nCtrl-C ends it.\n\n"
        )
    }
}

/// Whether the demo showed what it is to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Passed,
    /// A sentence for each thing that is wrong.
    Failed(Vec<String>),
}

impl Verdict {
    pub(crate) fn is_passed(&self) -> bool {
        match self {
            Self::Passed => true,
            Self::Failed(_) => false,
        }
    }
}

/// What is left to print, and to exit by.
#[derive(Clone, Debug)]
pub(crate) struct Summary {
    pub(crate) text: String,
    pub(crate) verdict: Verdict,
}

pub(super) fn sum_up(snapshot: &Snapshot, board: &Board, guide: &Guide, colour: bool) -> Summary {
    let verdict = judge(&snapshot.rows, board);
    let mut text = format!("\nAfter {} seconds\n", snapshot.elapsed.as_secs());
    text.push_str(&people(snapshot));
    text.push_str(&attackers(snapshot, board));
    match &verdict {
        Verdict::Passed => {
            let line = "PASSED: attackers were limited and blocked, and no visitor was refused.";
            text.push_str(&format!("\n{}\n", paint(line, Colour::Green, colour)));
        }
        Verdict::Failed(problems) => {
            text.push_str(&format!("\n{}\n", paint("FAILED", Colour::Red, colour)));
            for problem in problems {
                text.push_str(&format!("  - {problem}\n"));
            }
        }
    }
    text.push_str(&further(&snapshot.rows, board, guide));
    Summary { text, verdict }
}

/// Blocked by a detector's decision, and then really refused.
fn is_blocked(row: &ClientRow, board: &Board) -> bool {
    let by_detector = board.standing(row.address).is_some_and(|s| s.blocked.is_some());
    by_detector && row.first_blocked.is_some()
}

fn judge(rows: &[ClientRow], board: &Board) -> Verdict {
    let mut problems = Vec::new();
    let of = |role| rows.iter().filter(move |row| row.role == role);
    for role in [Role::Scanner, Role::BruteForcer] {
        if !of(role).any(|row| is_blocked(row, board)) {
            problems.push(format!(
                "no {} was blocked by the detector (60 seconds are enough for it)",
                role.as_str()
            ));
        }
    }
    if !of(Role::Scraper).any(|row| row.tally.limited > 0) {
        problems.push("the scraper was not limited".into());
    }
    if of(Role::Scraper).any(|row| row.tally.blocked > 0) {
        problems.push("the scraper was blocked, although volume alone is no reason for it".into());
    }
    for row in rows.iter().filter(|row| !row.role.is_attacker()) {
        if let Some(refusal) = row.first_refusal() {
            problems.push(format!(
                "{} ({}) was refused {}; the first decision is {}",
                row.name,
                row.address,
                count(row.tally.refused(), "time"),
                refusal.decision
            ));
        }
        if let Some(why) = &row.first_failure {
            let times = count(row.tally.failed, "time");
            problems.push(format!("{} got no answer {times}, first: {}", row.name, printable(why)));
        }
        if row.tally.requests() == 0 {
            problems.push(format!("{} never got an answer", row.name));
        }
    }
    if rows.iter().all(|row| row.role.is_attacker()) {
        problems.push("no visitor came".into());
    }
    if problems.is_empty() { Verdict::Passed } else { Verdict::Failed(problems) }
}

fn people(snapshot: &Snapshot) -> String {
    let mut out = String::new();
    let visitors = |row: &&ClientRow| row.role == Role::Visitor;
    let robots = |row: &&ClientRow| !row.role.is_attacker() && row.role != Role::Visitor;
    let groups: [(&str, Vec<&ClientRow>); 2] = [
        ("visitors", snapshot.rows.iter().filter(visitors).collect()),
        ("good robots", snapshot.rows.iter().filter(robots).collect()),
    ];
    for (name, rows) in groups {
        let mut tally = Tally::default();
        rows.iter().for_each(|row| tally.add(&row.tally));
        out.push_str(&format!(
            "  {:<12} {:>3} clients, {:>5} requests, {} refused\n",
            name,
            rows.len(),
            tally.requests(),
            tally.refused()
        ));
    }
    let attackers = snapshot.rows.iter().filter(|row| row.role.is_attacker());
    let mut tally = snapshot.forgotten_tally;
    let mut count = snapshot.forgotten;
    for row in attackers {
        tally.add(&row.tally);
        count += 1;
    }
    out.push_str(&format!(
        "  {:<12} {count:>3} clients, {:>5} requests, {} refused ({} limited, {} blocked, {} malformed)\n",
        "attackers",
        tally.requests(),
        tally.refused(),
        tally.limited,
        tally.blocked,
        tally.malformed
    ));
    out
}

fn attackers(snapshot: &Snapshot, board: &Board) -> String {
    let mut out = format!(
        "\n  {:<20}{:<22}{:>9}  {:<19}{:<13}{}\n",
        "attacker", "address", "requests", "first refusal", "blocked", "why"
    );
    for row in snapshot.rows.iter().filter(|row| row.role.is_attacker()) {
        let standing = board.standing(row.address);
        let since_arrival = |at: Duration| format!("after {}", span(at.saturating_sub(row.arrived)));
        let first = row.first_refusal().map_or("never".into(), |r| {
            let status = match Some(r) {
                refusal if refusal == row.first_limited => "429",
                refusal if refusal == row.first_blocked => "403",
                _ => "400",
            };
            format!("{} ({status})", since_arrival(r.at))
        });
        let ban = standing.and_then(|s| s.blocked.as_ref());
        let blocked = ban.map_or("never".into(), |ban| since_arrival(ban.at));
        let flag = standing.and_then(|s| s.flagged.as_ref());
        let why = match (ban, flag) {
            (Some(ban), _) => printable(&ban.reason),
            (None, Some(flag)) => format!("flagged {}: {}", flag.severity, printable(&flag.reason)),
            (None, None) => String::new(),
        };
        out.push_str(&format!(
            "  {:<20}{:<22}{:>9}  {first:<19}{blocked:<13}{why}\n",
            row.name,
            address_of(row),
            row.tally.requests()
        ));
    }
    if snapshot.forgotten > 0 {
        out.push_str(&format!("  and {} earlier ones\n", snapshot.forgotten));
    }
    for row in &snapshot.rows {
        let ban = board.standing(row.address).and_then(|s| s.blocked.as_ref());
        if let (Some(ban), Some(refusal)) = (ban, row.first_blocked.filter(|_| row.role == Role::Scanner)) {
            let lag = refusal.at.saturating_sub(ban.at);
            out.push_str(&format!(
                "\n  {} was refused {} after the detector's block.\n",
                row.name,
                span(lag)
            ));
            break;
        }
    }
    out
}

/// A refusal that has most to tell: a block by the detector if there is one.
fn telling_decision(rows: &[ClientRow], board: &Board) -> Option<(RequestId, String)> {
    let attackers = || rows.iter().filter(|row| row.role.is_attacker());
    let blocked =
        attackers().filter(|row| is_blocked(row, board)).find_map(|row| Some((row.first_blocked?, row)));
    let refused = || attackers().find_map(|row| Some((row.first_refusal()?, row)));
    blocked.or_else(refused).map(|(refusal, row)| (refusal.decision, row.address.to_string()))
}

fn further(rows: &[ClientRow], board: &Board, guide: &Guide) -> String {
    let Guide { site, console: _, metrics, config, program } = guide;
    let mut out = "\nLook further, in what it has kept:\n".to_owned();
    let mut commands = Vec::new();
    if let Some((decision, address)) = telling_decision(rows, board) {
        commands.push((format!("why {decision}"), "which rule, what evidence, until when, how to undo it"));
        commands.push((format!("analyze {address}"), "everything about one client"));
    }
    commands.push(("suspicious".into(), "what the detector found"));
    commands.push(("blocks".into(), "who is blocked"));
    commands.push(("logs".into(), "every request"));
    let width = commands.iter().map(|(command, _)| command.len()).max().unwrap_or(0);
    for (command, what) in commands {
        let padding = " ".repeat(width - command.len());
        out.push_str(&format!("  {program} {command} --config {config}{padding}  # {what}\n"));
    }
    out.push_str(&format!("While it runs, the shop is at {site} and the metrics at {metrics}.\n"));
    out
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use portcullis_model::{Severity, UnixMs};

    use super::super::DemoEvent;
    use super::super::ledger::{Ledger, Outcome};
    use super::*;

    const VISITOR: u64 = 0;
    const SCANNER: u64 = 1;
    const BRUTE_FORCER: u64 = 2;
    const SCRAPER: u64 = 3;

    fn answer(status: u16) -> Outcome {
        Outcome::Answered { status, decision: None }
    }

    fn refusal(status: u16) -> Outcome {
        Outcome::Answered { status, decision: Some(RequestId::new(UnixMs(1_000), u32::from(status))) }
    }

    fn block(board: &mut Board, client: &str) {
        let client = client.parse().unwrap();
        let reason = "path_probing".to_owned();
        board.record(&DemoEvent::Blocked { client, reason, expires: None }, Duration::ZERO, UnixMs(0));
    }

    /// A demo that went well.
    fn scene() -> (Ledger, Board) {
        let ledger = Ledger::new(Instant::now());
        for (role, address) in [
            (Role::Visitor, "198.51.100.1"),
            (Role::Scanner, "203.0.113.1"),
            (Role::BruteForcer, "203.0.113.2"),
            (Role::Scraper, "2001:db8:bad:1::"),
        ] {
            let id = ledger.arrive(format!("{} 1", role.as_str()), role, address.parse().unwrap(), "tests");
            ledger.record(id, answer(200));
        }
        ledger.record(SCANNER, refusal(403));
        ledger.record(BRUTE_FORCER, refusal(429));
        ledger.record(BRUTE_FORCER, refusal(403));
        ledger.record(SCRAPER, refusal(429));
        let mut board = Board::default();
        block(&mut board, "203.0.113.1");
        block(&mut board, "203.0.113.2");
        (ledger, board)
    }

    fn summary(ledger: &Ledger, board: &Board) -> Summary {
        let guide = Guide {
            site: "http://127.0.0.1:8080/".into(),
            console: "http://127.0.0.1:9612/".into(),
            metrics: "http://127.0.0.1:9611/metrics".into(),
            config: "demo-data/portcullis.toml".into(),
            program: "portcullis".into(),
        };
        sum_up(&ledger.snapshot(), board, &guide, false)
    }

    fn problems(ledger: &Ledger, board: &Board) -> Vec<String> {
        match summary(ledger, board).verdict {
            Verdict::Passed => Vec::new(),
            Verdict::Failed(problems) => problems,
        }
    }

    #[test]
    fn a_demo_that_went_well_passes_and_names_a_decision_to_look_at() {
        let (ledger, board) = scene();
        let summary = summary(&ledger, &board);
        assert!(summary.verdict.is_passed());
        let decision = RequestId::new(UnixMs(1_000), 403);
        assert!(
            summary.text.contains(&format!("portcullis why {decision} --config demo-data/portcullis.toml"))
        );
        assert!(summary.text.contains("portcullis analyze 203.0.113.1 --config demo-data/portcullis.toml"));
        assert!(summary.text.contains("PASSED") && summary.text.contains("http://127.0.0.1:8080/"));
    }

    #[test]
    fn one_refused_visitor_fails_it() {
        let (ledger, board) = scene();
        ledger.record(VISITOR, refusal(429));
        let problems = problems(&ledger, &board);
        assert_eq!(problems.len(), 1);
        assert!(problems[0].contains("visitor 1 (198.51.100.1) was refused 1 time"));
    }

    #[test]
    fn a_visitor_without_an_answer_fails_it() {
        let (ledger, board) = scene();
        ledger.record(VISITOR, Outcome::Failed("connection refused".into()));
        assert!(problems(&ledger, &board)[0].contains("got no answer 1 time, first: connection refused"));
    }

    #[test]
    fn a_block_that_refuses_nobody_does_not_count() {
        let (ledger, mut board) = scene();
        let scanner =
            ledger.arrive("scanner 2".into(), Role::Scanner, "203.0.113.7".parse().unwrap(), "tests");
        ledger.record(scanner, answer(404));
        board.standings.remove(&"203.0.113.1".parse().unwrap());
        block(&mut board, "203.0.113.7");
        assert!(problems(&ledger, &board)[0].contains("no scanner was blocked by the detector"));
    }

    #[test]
    fn a_finding_without_a_block_does_not_count() {
        let (ledger, mut board) = scene();
        let client = "203.0.113.2".parse().unwrap();
        board.standings.clear();
        block(&mut board, "203.0.113.1");
        let event = DemoEvent::Finding {
            client,
            severity: Severity::Medium,
            reason: "login_failures".into(),
            says: "x".into(),
        };
        board.record(&event, Duration::ZERO, UnixMs(0));
        assert!(problems(&ledger, &board)[0].contains("no brute-forcer was blocked"));
        assert!(summary(&ledger, &board).text.contains("flagged medium: login_failures"));
    }

    #[test]
    fn a_blocked_scraper_fails_it_and_so_does_one_that_was_not_limited() {
        let (ledger, board) = scene();
        ledger.record(SCRAPER, refusal(403));
        assert!(problems(&ledger, &board)[0].contains("volume alone is no reason"));

        let (_, board) = scene();
        let ledger = Ledger::new(Instant::now());
        let text = problems(&ledger, &board).join("; ");
        assert!(text.contains("the scraper was not limited") && text.contains("no visitor came"));
    }
}
