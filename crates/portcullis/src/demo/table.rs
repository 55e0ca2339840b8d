//! What the demo shows while it runs: a table redrawn in place on a terminal, lines otherwise.
//! Owns the layout; must not judge anything, and prints no control character that a client sent.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io::{self, Write};
use std::time::Duration;

use portcullis_model::{ClientIp, RequestId, Severity};

use super::ledger::{ClientRow, Refusal, Role, RowId, Snapshot, Tally};
use super::{Board, DemoEvent};

/// Without a terminal, or where it does not tell its size.
const DEFAULT_SIZE: Size = Size { columns: 100, lines: 40 };
/// Of what happened, under the table.
const RECENT_LINES: usize = 8;
/// Head and totals above the rows, a blank line on either side of what happened, the cursor's line.
const LINES_AROUND: usize = 7;
const TOTALS_EVERY: Duration = Duration::from_secs(5);
/// Texts from outside are cut to this before they are laid out.
const MAX_TEXT_CHARS: usize = 200;

const CLIENT_COLUMN: usize = 19;
const ADDRESS_COLUMN: usize = 21;
/// As wide as the longest text and the gap after it; less where there is less room, then none.
const DOING_COLUMN: usize = 39;
const DOING_MINIMUM: usize = 16;
const STATE_MINIMUM: usize = 30;
const NUMBER_COLUMN: usize = 6;
const NUMBERS: [&str; 5] = ["reqs", "ok", "404", "429", "403"];

/// A terminal's size in characters.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    columns: usize,
    lines: usize,
}

pub(super) fn terminal_size() -> Size {
    terminal_size::terminal_size().map_or(DEFAULT_SIZE, |(width, height)| Size {
        columns: usize::from(width.0),
        lines: usize::from(height.0),
    })
}

/// SGR codes; nothing is written when colours are off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Colour {
    Plain,
    Bold,
    Dim,
    Green,
    Yellow,
    Magenta,
    Red,
}

pub(super) fn paint(text: &str, colour: Colour, enabled: bool) -> String {
    let code = match colour {
        Colour::Plain => return text.to_owned(),
        Colour::Bold => "1",
        Colour::Dim => "2",
        Colour::Green => "32",
        Colour::Yellow => "33",
        Colour::Magenta => "35",
        Colour::Red => "31",
    };
    if enabled { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// Text from outside, harmless to a terminal: control and bidirectional characters are escaped, and
/// its length is bounded.
pub(super) fn printable(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars().take(MAX_TEXT_CHARS) {
        let turns_text = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if c.is_control() || turns_text {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

/// A length of time for people: `0.4 s`, `42 s`, `5 min`, `24 h`, `7 days`.
pub(super) fn span(time: Duration) -> String {
    // Rounded up, because a block for a day has a moment less to go when it is shown.
    let seconds = time.as_millis().div_ceil(1_000);
    match seconds {
        0..60 if time < Duration::from_secs(10) => format!("{:.1} s", time.as_secs_f64()),
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

pub(super) fn count(n: u64, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// The address, or the /64 of a client that uses all of it.
pub(super) fn address_of(row: &ClientRow) -> String {
    match row.role {
        Role::Scraper => format!("{}/64", row.address.limit_key()),
        _ => row.address.to_string(),
    }
}

/// Where one client stands, strongest first.
#[derive(Debug, PartialEq, Eq)]
enum State<'a> {
    Hurt(u64),
    Blocked { reason: &'a str, lasts: Option<Duration> },
    Refused,
    Flagged { severity: Severity, reason: &'a str, is_limited: bool },
    Limited,
    Visiting,
}

impl<'a> State<'a> {
    fn of(row: &ClientRow, board: &'a Board) -> Self {
        let standing = board.standing(row.address);
        let is_limited = row.first_limited.is_some();
        if row.is_hurt() {
            Self::Hurt(row.tally.refused())
        } else if let Some(ban) = standing.and_then(|s| s.blocked.as_ref()) {
            Self::Blocked { reason: &ban.reason, lasts: ban.lasts }
        } else if row.first_blocked.is_some() {
            Self::Refused
        } else if let Some(flag) = standing.and_then(|s| s.flagged.as_ref()) {
            Self::Flagged { severity: flag.severity, reason: &flag.reason, is_limited }
        } else if is_limited {
            Self::Limited
        } else {
            Self::Visiting
        }
    }

    fn colour(&self, role: Role) -> Colour {
        match self {
            Self::Hurt(_) | Self::Blocked { .. } | Self::Refused => Colour::Red,
            // Low and medium are remarks; nobody is refused for them.
            Self::Flagged { severity: Severity::High | Severity::Critical, .. } => Colour::Magenta,
            Self::Flagged { is_limited: true, .. } | Self::Limited => Colour::Yellow,
            Self::Flagged { .. } => Colour::Plain,
            Self::Visiting if role.is_attacker() => Colour::Plain,
            Self::Visiting => Colour::Green,
        }
    }
}

impl fmt::Display for State<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hurt(times) => write!(f, "HURT: refused {}", count(*times, "time")),
            Self::Blocked { reason, lasts: Some(lasts) } => {
                write!(f, "blocked {}: {}", span(*lasts), printable(reason))
            }
            Self::Blocked { reason, lasts: None } => write!(f, "blocked: {}", printable(reason)),
            Self::Refused => f.write_str("blocked"),
            Self::Flagged { severity, reason, is_limited } => {
                let limited = if *is_limited { "limited, " } else { "" };
                write!(f, "{limited}flagged {severity}: {}", printable(reason))
            }
            Self::Limited => f.write_str("limited"),
            Self::Visiting => f.write_str("visiting"),
        }
    }
}

/// Cuts or fills to exactly `width` characters.
fn fit(text: &str, width: usize) -> String {
    match width.checked_sub(1) {
        None => String::new(),
        Some(_) if text.chars().count() <= width => format!("{text:<width$}"),
        Some(kept) => text.chars().take(kept).chain(['…']).collect(),
    }
}

/// How a terminal's width is shared; the client and the numbers always have theirs.
struct Layout {
    columns: usize,
    address: usize,
    doing: usize,
    state: usize,
}

impl Layout {
    fn new(columns: usize) -> Self {
        // The last column stays free: some terminals wrap as soon as it is written.
        let columns = columns.saturating_sub(1);
        let left = columns.saturating_sub(CLIENT_COLUMN + NUMBERS.len() * NUMBER_COLUMN + 2);
        let address = if left >= ADDRESS_COLUMN + STATE_MINIMUM { ADDRESS_COLUMN } else { 0 };
        let spare = left.saturating_sub(address + STATE_MINIMUM);
        let doing = if spare >= DOING_MINIMUM { spare.min(DOING_COLUMN) } else { 0 };
        Self { columns, address, doing, state: left - address - doing }
    }

    /// Everything before the state.
    fn start(&self, client: &str, address: &str, doing: &str, numbers: &[String; 5]) -> String {
        let mut line = fit(client, CLIENT_COLUMN) + &fit(address, self.address) + &fit(doing, self.doing);
        for number in numbers {
            line.push_str(&format!("{number:>NUMBER_COLUMN$}"));
        }
        line.push_str("  ");
        let width = line.chars().count().min(self.columns);
        fit(&line, width)
    }
}

fn numbers(tally: &Tally) -> [String; 5] {
    [tally.requests(), tally.ok, tally.not_found, tally.limited, tally.blocked].map(|n| n.to_string())
}

/// The table as it looks at one moment, a line each.
fn lay_out(snapshot: &Snapshot, board: &Board, size: Size, colour: bool) -> Vec<String> {
    let layout = Layout::new(size.columns);
    let head = layout.start("client", "address", "what it does", &NUMBERS.map(str::to_owned)) + "state";
    let mut lines = vec![
        paint(&fit(&totals(snapshot, board), layout.columns), Colour::Bold, colour),
        String::new(),
        paint(&fit(&head, layout.columns), Colour::Dim, colour),
    ];

    // Attackers are what there is to see; visitors are summed up when the terminal is too low.
    let (attackers, others): (Vec<_>, Vec<_>) = snapshot.rows.iter().partition(|row| row.role.is_attacker());
    let room = size.lines.saturating_sub(LINES_AROUND + RECENT_LINES).max(4);
    let fitting = room.saturating_sub(attackers.len());
    let shown = if others.len() <= fitting { others.len() } else { fitting.saturating_sub(1) };
    let (shown, summed_up) = others.split_at(shown);
    let too_many = attackers.len().saturating_sub(room.saturating_sub(1));
    for row in attackers[too_many..].iter().chain(shown) {
        let state = State::of(row, board);
        let doing = if row.has_left { "has gone" } else { row.doing };
        let start = layout.start(&row.name, &address_of(row), doing, &numbers(&row.tally));
        let end = fit(&state.to_string(), layout.state);
        let tint = if row.has_left { Colour::Dim } else { Colour::Plain };
        lines.push(paint(&start, tint, colour) + &paint(&end, state.colour(row.role), colour));
    }
    if !summed_up.is_empty() {
        let mut tally = Tally::default();
        summed_up.iter().for_each(|row| tally.add(&row.tally));
        let name = format!("{} others", summed_up.len());
        let hurt = summed_up.iter().filter(|row| row.is_hurt()).count();
        let start = layout.start(&name, "", "visitors and good robots", &numbers(&tally));
        let (end, tint) = if hurt == 0 {
            ("none refused".to_owned(), Colour::Green)
        } else {
            (format!("HURT: {hurt}"), Colour::Red)
        };
        lines.push(start + &paint(&fit(&end, layout.state), tint, colour));
    }
    lines
}

/// One line about everybody.
fn totals(snapshot: &Snapshot, board: &Board) -> String {
    let total = snapshot.total();
    let seconds = snapshot.elapsed.as_secs_f64().max(0.1);
    let hurt = snapshot.rows.iter().filter(|row| row.is_hurt()).count();
    let good = snapshot.rows.iter().filter(|row| !row.role.is_attacker()).count();
    let refused = if hurt == 0 { "none refused".to_owned() } else { format!("{hurt} REFUSED") };
    let detection = match board.last_run {
        None => "no detection run yet".to_owned(),
        Some(run) => format!(
            "{}, the last one: {}, {} blocked, {} ms",
            count(board.runs, "detection run"),
            count(run.findings, "finding"),
            run.blocked,
            run.took.as_millis()
        ),
    };
    let failed = if total.failed == 0 { String::new() } else { format!(", {} FAILED", total.failed) };
    format!(
        "{:>4.0} s  {} requests ({:.0}/s), {} limited, {} blocked{failed}; {good} good clients, {refused}; {detection}",
        seconds,
        total.requests(),
        total.requests() as f64 / seconds,
        total.limited,
        total.blocked,
    )
}

/// What has been told about a row already.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    limited: bool,
    blocked: bool,
    failed: bool,
}

/// Standard output, or whatever else takes the demo's text.
pub(super) struct Screen<W> {
    out: W,
    is_live: bool,
    colour: bool,
    /// Lines of the table on the terminal that the next one replaces.
    drawn: usize,
    recent: VecDeque<String>,
    /// By row; holds no more than the last snapshot had rows.
    told: HashMap<RowId, Told>,
    next_totals: Duration,
}

impl<W: Write> Screen<W> {
    /// `is_live` redraws in place and needs a terminal.
    pub(super) fn new(out: W, is_live: bool, colour: bool) -> Self {
        Self {
            out,
            is_live,
            colour,
            drawn: 0,
            recent: VecDeque::new(),
            told: HashMap::new(),
            next_totals: TOTALS_EVERY,
        }
    }

    /// Prints text as it is, before the first table.
    pub(super) fn say(&mut self, text: &str) -> io::Result<()> {
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }

    /// Shows where everybody stands now.
    pub(super) fn draw(&mut self, snapshot: &Snapshot, board: &Board, size: Size) -> io::Result<()> {
        self.tell_firsts(snapshot)?;
        if !self.is_live {
            if snapshot.elapsed >= self.next_totals {
                self.next_totals = snapshot.elapsed + TOTALS_EVERY;
                writeln!(self.out, "{}", totals(snapshot, board))?;
            }
            return self.out.flush();
        }
        let mut lines = lay_out(snapshot, board, size, self.colour);
        lines.push(String::new());
        lines.extend(self.recent.iter().map(|line| fit(line, size.columns.saturating_sub(1))));
        // One write per frame, so that a terminal never shows half of one.
        let mut frame = if self.drawn == 0 { String::new() } else { format!("\x1b[{}F", self.drawn) };
        for line in &lines {
            frame.push_str(line);
            frame.push_str("\x1b[K\n");
        }
        frame.push_str("\x1b[J");
        self.drawn = lines.len();
        self.out.write_all(frame.as_bytes())?;
        self.out.flush()
    }

    /// Something that the gateway told and that was not known.
    pub(super) fn tell(&mut self, event: &DemoEvent, snapshot: &Snapshot) -> io::Result<()> {
        let who = |client: &ClientIp| {
            let key = client.limit_key();
            let row = snapshot.rows.iter().rev().find(|row| row.address.limit_key() == key);
            row.map_or_else(|| client.to_string(), |row| format!("{} {client}", row.name))
        };
        let text = match event {
            DemoEvent::Finding { client, severity, reason, says } => {
                format!("{} flagged {severity}, {}: {}", who(client), printable(reason), printable(says))
            }
            DemoEvent::Blocked { client, reason, .. } => {
                format!("{} BLOCKED by the detector: {}", who(client), printable(reason))
            }
            // The totals show it on a terminal.
            DemoEvent::DetectionRun { .. } if self.is_live => return Ok(()),
            DemoEvent::DetectionRun { findings, blocked, took } => {
                let findings = count(*findings, "finding");
                format!("detection run: {findings}, {blocked} blocked, {} ms", took.as_millis())
            }
        };
        self.tell_line(snapshot.elapsed, &text)
    }

    /// First refusals and first failures since the last look.
    fn tell_firsts(&mut self, snapshot: &Snapshot) -> io::Result<()> {
        let mut told = HashMap::with_capacity(snapshot.rows.len());
        for row in &snapshot.rows {
            let before = self.told.get(&row.id).copied().unwrap_or_default();
            let now = Told {
                limited: row.first_limited.is_some(),
                blocked: row.first_blocked.is_some(),
                failed: row.first_failure.is_some(),
            };
            let refusals = [
                (before.limited, row.first_limited, "limited: first 429"),
                (before.blocked, row.first_blocked, "refused: first 403"),
            ];
            for (was_told, refusal, what) in refusals {
                if let (false, Some(Refusal { at, after_requests, decision })) = (was_told, refusal) {
                    self.tell_refusal(
                        row,
                        at,
                        &format!("{what} after {}", count(after_requests, "request")),
                        decision,
                    )?;
                }
            }
            if let (false, Some(why)) = (before.failed, &row.first_failure) {
                let text = format!("{} got no answer: {}", row.name, printable(why));
                self.tell_line(snapshot.elapsed, &text)?;
            }
            told.insert(row.id, now);
        }
        self.told = told;
        Ok(())
    }

    fn tell_refusal(
        &mut self,
        row: &ClientRow,
        at: Duration,
        what: &str,
        decision: RequestId,
    ) -> io::Result<()> {
        let hurt = if row.is_hurt() { " (A VISITOR!)" } else { "" };
        self.tell_line(at, &format!("{} {}{hurt} {what}, decision {decision}", row.name, address_of(row)))
    }

    fn tell_line(&mut self, at: Duration, text: &str) -> io::Result<()> {
        let line = format!("{:>4.0} s  {text}", at.as_secs_f64());
        if !self.is_live {
            return writeln!(self.out, "{line}");
        }
        if self.recent.len() >= RECENT_LINES {
            self.recent.pop_front();
        }
        self.recent.push_back(line);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use portcullis_model::UnixMs;

    use super::super::ledger::{Ledger, Outcome};
    use super::*;

    fn refused(status: u16) -> Outcome {
        Outcome::Answered { status, decision: Some(RequestId::new(UnixMs(1_000), 7)) }
    }

    /// Twelve visitors and, of attackers, one that is limited and one that is flagged and blocked.
    fn scene() -> (Ledger, Board) {
        let ledger = Ledger::new(Instant::now());
        for n in 0..12 {
            let address = format!("198.51.100.{n}").parse().unwrap();
            let id = ledger.arrive(format!("Visitor {n}"), Role::Visitor, address, "browses the shop");
            ledger.record(id, Outcome::Answered { status: 200, decision: None });
        }
        let network = "2001:db8:bad:1::".parse().unwrap();
        let scraper = ledger.arrive("scraper 1".into(), Role::Scraper, network, "copies");
        ledger.record(scraper, refused(429));
        let address = "203.0.113.9".parse().unwrap();
        let scanner = ledger.arrive("scanner 1".into(), Role::Scanner, address, "looks around");
        ledger.record(scanner, refused(403));
        let mut board = Board::default();
        let reason = "path_probing".to_owned();
        let severity = Severity::High;
        let finding =
            DemoEvent::Finding { client: address, severity, reason: reason.clone(), says: "x".into() };
        board.record(&finding, Duration::from_secs(15), UnixMs(0));
        let expires = Some(UnixMs(86_400_000));
        board.record(
            &DemoEvent::Blocked { client: address, reason, expires },
            Duration::from_secs(15),
            UnixMs(0),
        );
        (ledger, board)
    }

    fn drawn(columns: usize, lines: usize) -> Vec<String> {
        let (ledger, board) = scene();
        lay_out(&ledger.snapshot(), &board, Size { columns, lines }, false)
    }

    #[test]
    fn no_line_is_wider_than_the_terminal_and_no_table_is_higher() {
        for columns in [1, 2, 19, 20, 50, 51, 52, 53, 80, 100, 118, 119, 120, 142, 143, 200] {
            for lines in [24, 30, 60] {
                let table = drawn(columns, lines);
                assert!(table.len() + RECENT_LINES + 2 < lines, "{lines} lines");
                for line in table {
                    assert!(line.chars().count() < columns.max(1), "{columns} columns: {line:?}");
                }
            }
        }
    }

    #[test]
    fn a_wide_table_names_address_occupation_and_state() {
        let table = drawn(150, 60).join("\n");
        for text in [
            "203.0.113.9",
            "2001:db8:bad:1::/64",
            "browses the shop",
            "blocked 24 h: path_probing",
            "limited",
        ] {
            assert!(table.contains(text), "{text}");
        }
    }

    #[test]
    fn on_a_low_terminal_attackers_stay_and_visitors_are_summed_up() {
        let table = drawn(100, 24).join("\n");
        assert!(table.contains("scanner 1") && table.contains("scraper 1"));
        assert!(table.contains("others") && table.contains("none refused"));
        assert!(!table.contains("Visitor 11"));
    }

    #[test]
    fn a_refused_visitor_is_shown_as_hurt() {
        let (ledger, board) = scene();
        ledger.record(0, refused(429));
        let table = lay_out(&ledger.snapshot(), &board, Size { columns: 100, lines: 60 }, false).join("\n");
        assert!(table.contains("HURT: refused 1 time") && table.contains("1 REFUSED"));
    }

    #[test]
    fn a_terminal_gets_frames_that_replace_each_other() {
        let (ledger, board) = scene();
        let mut out = Vec::new();
        let mut screen = Screen::new(&mut out, true, true);
        let size = Size { columns: 100, lines: 60 };
        screen.draw(&ledger.snapshot(), &board, size).unwrap();
        let height = screen.drawn;
        screen.draw(&ledger.snapshot(), &board, size).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.matches(&format!("\x1b[{height}F")).count(), 1);
        assert!(text.contains("\x1b[31mblocked 24 h"));
    }

    #[test]
    fn without_a_terminal_each_first_is_told_once_and_without_escapes() {
        let (ledger, board) = scene();
        let mut out = Vec::new();
        let mut screen = Screen::new(&mut out, false, false);
        for _ in 0..3 {
            screen.draw(&ledger.snapshot(), &board, DEFAULT_SIZE).unwrap();
        }
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.matches("first 429").count(), 1);
        assert_eq!(text.matches("first 403 after 0 requests").count(), 1);
        assert!(!text.contains('\x1b'));
    }

    #[test]
    fn what_a_client_sent_cannot_steer_the_terminal() {
        let (ledger, mut board) = scene();
        let mut out = Vec::new();
        let mut screen = Screen::new(&mut out, false, false);
        let event = DemoEvent::Finding {
            client: "203.0.113.9".parse().unwrap(),
            severity: Severity::Critical,
            reason: "a\x1b[2Jb".into(),
            says: format!("c\r\n\u{9b}31m\u{202e}{}", "d".repeat(10_000)),
        };
        assert!(board.record(&event, Duration::ZERO, UnixMs(0)));
        screen.tell(&event, &ledger.snapshot()).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains(
            "scanner 1 203.0.113.9 flagged critical, a\\u{1b}[2Jb: c\\u{d}\\u{a}\\u{9b}31m\\u{202e}d"
        ));
        assert_eq!(text.chars().filter(|c| c.is_control()).collect::<String>(), "\n");
        assert!(text.len() < 1_000);
    }

    #[test]
    fn spans_read_well_at_every_size() {
        for (ms, text) in [
            (80, "0.1 s"),
            (5_600, "5.6 s"),
            (13_000, "13 s"),
            (119_000, "119 s"),
            (600_000, "10 min"),
            (86_399_990, "24 h"),
            (604_800_000, "7 days"),
        ] {
            assert_eq!(span(Duration::from_millis(ms)), text);
        }
    }
}
