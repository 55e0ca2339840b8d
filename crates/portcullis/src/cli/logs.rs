//! `portcullis logs`: requests from the log, once or as they come.
//!
//! Owns the columns. Must not keep a reader open on a log that was moved away.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use clap::Args;
use clap::builder::styling::Style;
use ipnet::IpNet;

use portcullis_model::{Reason, RequestId, VerdictKind, network_of};
use portcullis_store::{LogCursor, LogFilter, LogReader, LogRow, StatusFilter, StoreError};

use super::context::{Context, Misuse};
use super::output::{Align, Cell, DIM, GREEN, MAGENTA, PLAIN, RED, Screen, Table, YELLOW, short, tell};
use super::time::Moment;
use super::{Format, Outcome};

const EXAMPLES: &str = "\
Examples:
  portcullis logs --follow
  portcullis logs --ip 203.0.113.0/24 --since 1h
  portcullis logs --path '/wp-*' --status 4xx
  portcullis logs --agent sqlmap --reason limit:login --suspicious
  portcullis logs --verdict blocked --country NL --since 2026-11-01 --limit 1000
  portcullis logs --since 1h --limit 100000 --json | jq -r .user_agent | sort -u

Prints the newest requests that match, the newest last. Times are in your time
zone; --json has UTC. \"portcullis why ID\" explains a single one; --ids and
--json show the IDs. Verdicts: admitted, allowed, blocked, limited, would_block,
would_limit, malformed; where it was no block and no limit, the reason is shown
in the verdict's place, such as malformed:target or connections:per_client.

The same data for any SQLite client:
  sqlite3 -readonly DATA/log.db 'select * from request_log limit 9'";

/// Between two looks at the log.
const POLL: Duration = Duration::from_millis(200);
/// On a narrower terminal the request itself gets the place of the year and the user agent.
const COMPACT_BELOW: usize = 130;
/// Rows that one look takes at most.
const BATCH: usize = 5_000;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Logs {
    /// Of this address or prefix
    #[arg(long, value_name = "IP|CIDR", value_parser = network_of)]
    ip: Option<IpNet>,

    /// Whose path begins with this; with *, which stands for any text, whose whole path matches
    #[arg(long, value_name = "GLOB")]
    path: Option<String>,

    /// Whose query holds this, in any case
    #[arg(long, value_name = "TEXT")]
    query: Option<String>,

    /// With this method
    #[arg(long, value_name = "METHOD")]
    method: Option<String>,

    /// To this host
    #[arg(long, value_name = "HOST")]
    host: Option<String>,

    /// Whose user agent holds this, in any case
    #[arg(long, value_name = "TEXT")]
    agent: Option<String>,

    /// By this user
    #[arg(long, value_name = "NAME")]
    user: Option<String>,

    /// With this status, or with one of this class
    #[arg(long, value_name = "404|4xx")]
    status: Option<StatusFilter>,

    /// With this verdict
    #[arg(long, value_name = "VERDICT")]
    verdict: Option<VerdictKind>,

    /// Whose reason begins with this, such as limit:login
    #[arg(long, value_name = "REASON")]
    reason: Option<String>,

    /// To sensitive paths, or refused
    #[arg(long)]
    suspicious: bool,

    /// From this country, by its two letters
    #[arg(long, value_name = "CC", value_parser = country)]
    country: Option<String>,

    /// From this autonomous system, by its number
    #[arg(long, value_name = "ASN", value_parser = asn)]
    asn: Option<u32>,

    /// Not before: 1h, 7d, today, 2026-11-01, a date with a time
    #[arg(long, value_name = "TIME")]
    since: Option<Moment>,

    /// Before
    #[arg(long, value_name = "TIME")]
    until: Option<Moment>,

    /// At most so many, the newest [default: 50, or 10 with --follow]
    #[arg(long, value_name = "N")]
    limit: Option<usize>,

    /// Go on and print requests as they come
    #[arg(long, short = 'f', conflicts_with = "until")]
    follow: bool,

    /// Show the decision IDs
    #[arg(long)]
    ids: bool,

    #[command(flatten)]
    format: Format,
}

fn country(text: &str) -> Result<String, String> {
    match text.len() == 2 && text.bytes().all(|b| b.is_ascii_alphabetic()) {
        true => Ok(text.to_ascii_uppercase()),
        false => Err(format!("expected the two letters of a country such as DE, got {text:?}")),
    }
}

fn asn(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix("AS").or_else(|| text.strip_prefix("as")).unwrap_or(text);
    digits.parse().map_err(|_| format!("expected a number such as 64496 or AS64496, got {text:?}"))
}

impl Logs {
    pub(super) fn run(self, context: &Context, screen: &mut Screen) -> anyhow::Result<Outcome> {
        let data = context.config()?.data;
        let filter = self.filter(context)?;
        let mut printer = Printer::new(self.format.json, self.ids, screen.is_narrower_than(COMPACT_BELOW));
        if self.follow {
            printer.reserve();
            let limit = self.limit.unwrap_or(10);
            return Follow { data: &data, filter: &filter, limit }.run(context, &mut printer, screen);
        }
        let mut rows = LogReader::open(&data)?.rows(&filter, self.limit.unwrap_or(50))?;
        rows.reverse();
        if rows.is_empty() && !self.format.json {
            tell("", "No request matches.");
        }
        printer.print(&rows, context, screen)?;
        Ok(Outcome::Done)
    }

    fn filter(&self, context: &Context) -> Result<LogFilter, Misuse> {
        let resolve =
            |moment: &Option<Moment>| moment.as_ref().map(|m| m.resolve(context.now, &context.zone));
        let (since, until) = (resolve(&self.since), resolve(&self.until));
        if since.zip(until).is_some_and(|(since, until)| since >= until) {
            return Err(Misuse("--since must be before --until".to_owned()));
        }
        Ok(LogFilter {
            network: self.ip,
            method: self.method.clone(),
            host: self.host.clone(),
            path: self.path.clone(),
            query: self.query.clone(),
            user_agent: self.agent.clone(),
            user: self.user.clone(),
            status: self.status,
            verdict: self.verdict,
            reason: self.reason.clone(),
            is_suspicious: self.suspicious.then_some(true),
            country: self.country.clone(),
            asn: self.asn,
            since,
            until,
        })
    }
}

/// Prints rows as they come, through a log that is not there yet, fails for a while or is replaced.
struct Follow<'a> {
    data: &'a Path,
    filter: &'a LogFilter,
    /// Rows to begin with.
    limit: usize,
}

/// An open log and the place up to which it has been printed.
struct Open {
    reader: LogReader,
    cursor: LogCursor,
    file: Option<(u64, u64)>,
}

impl Follow<'_> {
    fn run(&self, context: &Context, printer: &mut Printer, screen: &mut Screen) -> anyhow::Result<Outcome> {
        let mut open: Option<Open> = None;
        let mut is_first = true;
        let mut complained = false;
        // Rows of the beginning, which the first looks see again.
        let mut printed: HashSet<RequestId> = HashSet::new();
        loop {
            let looked = self.look(&mut open, is_first, &mut printed);
            match looked {
                Ok(rows) => {
                    let is_full = rows.len() >= BATCH;
                    is_first = false;
                    complained = false;
                    printer.print(&rows, context, screen)?;
                    screen.flush()?;
                    if is_full {
                        continue;
                    }
                }
                // Trying again does not help.
                Err(error @ StoreError::Newer { .. }) => return Err(error.into()),
                Err(error) => {
                    open = None;
                    if !complained {
                        tell("waiting: ", &error.to_string());
                        complained = true;
                    }
                    // A log that begins later is printed from its beginning.
                    is_first &= !matches!(error, StoreError::NoLog(_));
                }
            }
            std::thread::sleep(POLL);
        }
    }

    fn look(
        &self,
        open: &mut Option<Open>,
        is_first: bool,
        printed: &mut HashSet<RequestId>,
    ) -> Result<Vec<LogRow>, StoreError> {
        let file = file_of(self.data);
        // Another file of the same name: the old one was moved away, and nothing is added to it any more.
        let is_replaced = open.as_ref().is_some_and(|open| open.file != file);
        if is_replaced {
            *open = None;
        }
        let log = match open {
            Some(log) => log,
            None => {
                let reader = LogReader::open(self.data)?;
                let cursor = if is_first { reader.end()? } else { LogCursor::default() };
                let beginning = if is_first { reader.rows(self.filter, self.limit)? } else { Vec::new() };
                let log = open.insert(Open { reader, cursor, file });
                if !beginning.is_empty() {
                    printed.extend(beginning.iter().map(|row| row.id));
                    return Ok(beginning.into_iter().rev().collect());
                }
                log
            }
        };
        let (mut rows, cursor) = log.reader.tail(self.filter, log.cursor, BATCH)?;
        log.cursor = cursor;
        if !printed.is_empty() && !rows.is_empty() {
            rows.retain(|row| !printed.contains(&row.id));
            printed.clear();
        }
        Ok(rows)
    }
}

fn file_of(data: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(data.join("log.db")).ok().map(|meta| (meta.dev(), meta.ino()))
}

/// Rows as a table that goes on, or as JSON lines.
struct Printer {
    json: bool,
    ids: bool,
    is_compact: bool,
    table: Table,
}

impl Printer {
    fn new(json: bool, ids: bool, is_compact: bool) -> Self {
        let mut columns = vec![
            ("time", Align::Left),
            ("ip", Align::Left),
            ("cc", Align::Left),
            ("verdict", Align::Left),
            ("code", Align::Right),
            ("ms", Align::Right),
            ("request", Align::Left),
        ];
        if !is_compact {
            columns.insert(columns.len() - 1, ("agent", Align::Left));
        }
        if ids {
            columns.insert(0, ("id", Align::Left));
        }
        Self { json, ids, is_compact, table: Table::new(&columns) }
    }

    /// Room for what ordinary rows hold: they come one by one.
    fn reserve(&mut self) {
        const ID: usize = 16;
        // time, ip, cc, verdict, code, ms
        let widths = [if self.is_compact { 14 } else { 19 }, 15, 2, 11, 4, 5];
        let id = if self.ids { &[ID][..] } else { &[] };
        self.table.reserve(&[id, &widths].concat());
    }

    fn print(&mut self, rows: &[LogRow], context: &Context, screen: &mut Screen) -> std::io::Result<()> {
        if self.json {
            return rows.iter().try_for_each(|row| screen.json_line(row));
        }
        if rows.is_empty() {
            return Ok(());
        }
        for row in rows {
            let mut cells = cells(row, self.is_compact, context);
            if self.ids {
                cells.insert(0, Cell::new(row.id.to_string()));
            }
            self.table.row(cells);
        }
        screen.table(&mut self.table)
    }
}

fn cells(row: &LogRow, is_compact: bool, context: &Context) -> Vec<Cell> {
    let time = context.short_time(row.time());
    // Without the year.
    let time = if is_compact { time.get(5..).unwrap_or(&time) } else { &time };
    let mut cells = vec![
        Cell::styled(time, DIM),
        Cell::new(row.client.to_string()),
        Cell::new(row.location.country.as_deref().unwrap_or("-")),
        Cell::styled(verdict(row), verdict_style(row.verdict)),
        Cell::styled(status(row.status), status_style(row.status)),
        Cell::new(milliseconds(row.latency_us)),
    ];
    if !is_compact {
        cells.push(Cell::styled(agent(&row.user_agent), DIM));
    }
    cells.push(Cell::new(request(row)));
    cells
}

/// What was asked, in one line: method, host, path and query.
pub(super) fn request(row: &LogRow) -> String {
    let method = if row.method.is_empty() { "-" } else { &row.method };
    let question = if row.query.is_empty() { "" } else { "?" };
    let text = format!("{method} {}{}{question}{}", row.host, row.path, row.query);
    text.trim_end().to_owned()
}

/// The verdict, or the reason where that says more in as little room.
fn verdict(row: &LogRow) -> &str {
    match row.reason.parse() {
        Ok(Reason::Malformed(_) | Reason::Connections(_) | Reason::Login(_)) => &row.reason,
        _ => row.verdict.as_str(),
    }
}

pub(super) fn status(status: u16) -> String {
    if status == 0 { "-".to_owned() } else { status.to_string() }
}

pub(super) fn milliseconds(us: u64) -> String {
    match us {
        0..10_000 => format!("{:.1}", us as f64 / 1_000.0),
        _ => ((us + 500) / 1_000).to_string(),
    }
}

pub(super) fn verdict_style(verdict: VerdictKind) -> Style {
    match verdict {
        VerdictKind::Admitted => PLAIN,
        VerdictKind::Allowed => GREEN,
        VerdictKind::Blocked => RED,
        VerdictKind::Limited => YELLOW,
        VerdictKind::WouldBlock | VerdictKind::WouldLimit | VerdictKind::Malformed => MAGENTA,
    }
}

fn status_style(status: u16) -> Style {
    match status {
        500.. => RED,
        400..500 => YELLOW,
        _ => PLAIN,
    }
}

/// Programs whose names hide among the others in their user agent; the first that matches names it.
const AGENTS: &[(&str, &str)] = &[
    ("Googlebot", "Googlebot"),
    ("bingbot", "bingbot"),
    ("Applebot", "Applebot"),
    ("YandexBot", "YandexBot"),
    ("DuckDuckBot", "DuckDuckBot"),
    ("GPTBot", "GPTBot"),
    ("ClaudeBot", "ClaudeBot"),
    ("AhrefsBot", "AhrefsBot"),
    ("SemrushBot", "SemrushBot"),
    ("Edg/", "Edge"),
    ("OPR/", "Opera"),
    ("Firefox/", "Firefox"),
    ("HeadlessChrome/", "HeadlessChrome"),
    ("Chrome/", "Chrome"),
    ("CriOS/", "Chrome"),
    ("Safari/", "Safari"),
];

/// A user agent in one word; what it claims, not what it is.
pub(super) fn agent(user_agent: &str) -> String {
    const WIDTH: usize = 16;
    if let Some((_, name)) = AGENTS.iter().find(|(mark, _)| user_agent.contains(mark)) {
        return (*name).to_owned();
    }
    let first = user_agent.split(' ').next().unwrap_or_default();
    match first {
        "" => "-".to_owned(),
        // Something of its own stands behind `compatible;`, if anywhere.
        "Mozilla/5.0" => short(user_agent, WIDTH),
        name => short(name, WIDTH),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_agents_are_named_by_what_they_claim_to_be() {
        for (text, want) in [
            ("Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0", "Firefox"),
            ("Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 Chrome/126.0 Safari/537.36 Edg/126.0", "Edge"),
            ("Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", "Googlebot"),
            ("curl/8.5.0", "curl/8.5.0"),
            ("", "-"),
            ("\u{1b}[31mred", "\\u{1b}[31mred"),
        ] {
            assert_eq!(agent(text), want);
        }
    }

    #[test]
    fn a_country_is_two_letters() {
        assert_eq!(country("de"), Ok("DE".to_owned()));
        assert!(country("Germany").is_err());
        assert!(country("é").is_err());
    }

    #[test]
    fn an_asn_may_begin_with_its_letters() {
        assert_eq!([asn("64496"), asn("AS64496"), asn("as64496")], [Ok(64_496), Ok(64_496), Ok(64_496)]);
        assert!(asn("ASN1").is_err() && asn("-1").is_err());
    }

    #[test]
    fn milliseconds_are_short() {
        assert_eq!(milliseconds(250), "0.2");
        assert_eq!(milliseconds(9_990), "10.0");
        assert_eq!(milliseconds(1_234_567), "1235");
    }
}
