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
const RECENT_LINES: usize = 6;
/// Head and totals above the rows, a blank line on either side of what happened, the cursor's line.
const LINES_AROUND: usize = 7;
const TOTALS_EVERY: Duration = Duration::from_secs(5);
/// Texts from outside are cut to this before they are laid out.
const MAX_TEXT_CHARS: usize = 200;

const CLIENT_COLUMN: usize = 19;
const ADDRESS_COLUMN: usize = 21;
const DOING_COLUMN: usize = 39;
/// What is left for the state must be at least this, else the column before it goes.
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
        let turns_text =
            matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
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

    fn colour(&self) -> Colour {
        match self {
            Self::Hurt(_) | Self::Blocked { .. } | Self::Refused => Colour::Red,
            // Low and medium are remarks; nobody is refused for them.
            Self::Flagged { severity: Severity::High | Severity::Critical, .. } => Colour::Magenta,
            Self::Flagged { is_limited: true, .. } | Self::Limited => Colour::Yellow,
            Self::Flagged { .. } => Colour::Plain,
            Self::Visiting => Colour::Green,
        }
    }
}

impl fmt::Display for State<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hurt(times) => write!(f, "HURT: refused {times} times"),
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
    let length = text.chars().count();
    if length <= width {
        return format!("{text:<width$}");
    }
    let mut cut: String = text.chars().take(width.saturating_sub(1)).collect();
    if width > 0 {
        cut.push('…');
    }
    cut
}

/// The columns that a terminal of some width has room for.
struct Layout {
    address: bool,
    doing: bool,
    state: usize,
}

impl Layout {
    fn new(columns: usize) -> Self {
        // The last column stays free: some terminals wrap as soon as it is written.
        let left = columns.saturating_sub(1 + CLIENT_COLUMN + NUMBERS.len() * NUMBER_COLUMN + 2);
        let doing = left >= ADDRESS_COLUMN + DOING_COLUMN + STATE_MINIMUM;
        let address = left >= ADDRESS_COLUMN + STATE_MINIMUM;
        let state = left - if address { ADDRESS_COLUMN } else { 0 } - if doing { DOING_COLUMN } else { 0 };
        Self { address, doing, state }
    }

    /// Everything before the state.
    fn start(&self, client: &str, address: &str, doing: &str, numbers: &[String; 5]) -> String {
        let mut line = fit(client, CLIENT_COLUMN);
        if self.address {
            line.push_str(&fit(address, ADDRESS_COLUMN));
        }
        if self.doing {
            line.push_str(&fit(doing, DOING_COLUMN));
        }
        for number in numbers {
            line.push_str(&format!("{number:>NUMBER_COLUMN$}"));
        }
        line.push_str("  ");
        line
    }
}

fn numbers(tally: &Tally) -> [String; 5] {
    [tally.requests(), tally.ok, tally.not_found, tally.limited, tally.blocked].map(|n| n.to_string())
}

/// The table as it looks at one moment, a line each.
fn lay_out(snapshot: &Snapshot, board: &Board, size: Size, colour: bool) -> Vec<String> {
    let layout = Layout::new(size.columns);
    let mut lines = vec![paint(&fit(&totals(snapshot, board), size.columns - 1), Colour::Bold, colour), String::new()];
    let head = layout.start("client", "address", "what it does", &NUMBERS.map(str::to_owned));
    lines.push(paint(&fit(&format!("{head}state"), size.columns - 1), Colour::Dim, colour));

    // Attackers are what there is to see; visitors are summed up when the terminal is too low.
    let (attackers, others): (Vec<_>, Vec<_>) = snapshot.rows.iter().partition(|row| row.role.is_attacker());
    let room = size.lines.saturating_sub(LINES_AROUND + RECENT_LINES).max(4);
    let fitting = room.saturating_sub(attackers.len());
    let shown = if others.len() <= fitting { others.len() } else { fitting.saturating_sub(1) };
    let (shown, summed_up) = others.split_at(shown);
    let too_many = attackers.len().saturating_sub(room.saturating_sub(1));
    for row in attackers[too_many..].iter().chain(shown) {
        let state = State::of(row, board);
        let start = layout.start(&row.name, &address_of(row), row.doing, &numbers(&row.tally));
        let gone = if row.has_left { ", gone" } else { "" };
        let end = fit(&format!("{state}{gone}"), layout.state);
        let tint = if row.has_left { Colour::Dim } else { Colour::Plain };
        lines.push(paint(&start, tint, colour) + &paint(&end, state.colour(), colour));
    }
    if !summed_up.is_empty() {
        let mut tally = Tally::default();
        summed_up.iter().for_each(|row| tally.add(&row.tally));
        let name = format!("{} others", summed_up.len());
        let hurt = summed_up.iter().filter(|row| row.is_hurt()).count();
        let start = layout.start(&name, "", "visitors and good robots", &numbers(&tally));
        let (end, tint) =
            if hurt == 0 { ("none refused".to_owned(), Colour::Green) } else { (format!("HURT: {hurt}"), Colour::Red) };
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
            "{} detection runs, the last one: {} findings, {} blocked, {} ms",
            board.runs,
            run.findings,
            run.blocked,
            run.took.as_millis()
        ),
    };
    let failed = if total.failed == 0 { String::new() } else { format!(", {} FAILED", total.failed) };
    format!(
        "{:>4.0} s  {} requests ({:.0}/s), {} limited, {} blocked{failed}; {good} visitors, {refused}; {detection}",
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
        let size = Size { columns: size.columns.max(CLIENT_COLUMN), lines: size.lines };
        let mut lines = lay_out(snapshot, board, size, self.colour);
        lines.push(String::new());
        lines.extend(self.recent.iter().map(|line| fit(line, size.columns - 1)));
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
                format!("detection run: {findings} findings, {blocked} blocked, {} ms", took.as_millis())
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
                    self.tell_refusal(row, at, &format!("{what} after {after_requests} requests"), decision)?;
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

    fn tell_refusal(&mut self, row: &ClientRow, at: Duration, what: &str, decision: RequestId) -> io::Result<()> {
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
