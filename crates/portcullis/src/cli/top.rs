//! `portcullis top`: who and what comes most often.

use clap::{Args, ValueEnum};
use serde_json::{Map, json};

use portcullis_store::{LogReader, TopBy, TopRow};

use super::context::Context;
use super::output::{Align, Cell, DIM, RED, Screen, Table, YELLOW, bytes, number};
use super::time::{self, Moment};
use super::{Format, Outcome};

const EXAMPLES: &str = "\
Examples:
  portcullis top
      addresses, paths, countries and user agents of the last 24 hours
  portcullis top --by ip --since 1h --limit 30
  portcullis top --by asn --since 7d --json

refused: answered by the gateway itself (blocked, limited, malformed); errors:
other answers from 400 on.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Top {
    /// What to count [default: ip, path, country and user-agent]
    #[arg(long, value_name = "WHAT", value_enum)]
    by: Vec<By>,

    /// Not before: 1h, 7d, today, 2026-11-01, a date with a time
    #[arg(long, value_name = "TIME", default_value = "24h")]
    since: Moment,

    /// Rows of each list
    #[arg(long, value_name = "N", default_value_t = 10)]
    limit: usize,

    #[command(flatten)]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum By {
    Ip,
    Path,
    Country,
    UserAgent,
    Asn,
    Host,
}

impl By {
    fn column(self) -> TopBy {
        match self {
            Self::Ip => TopBy::Ip,
            Self::Path => TopBy::Path,
            Self::Country => TopBy::Country,
            Self::UserAgent => TopBy::UserAgent,
            Self::Asn => TopBy::Asn,
            Self::Host => TopBy::Host,
        }
    }

    /// The name in JSON, and the heading of the column.
    fn name(self) -> &'static str {
        match self {
            Self::Ip => "ip",
            Self::Path => "path",
            Self::Country => "country",
            Self::UserAgent => "user_agent",
            Self::Asn => "asn",
            Self::Host => "host",
        }
    }

    /// What an empty value means.
    fn nothing(self) -> &'static str {
        match self {
            Self::Ip | Self::Path => "(none)",
            Self::Country | Self::Asn => "(unknown)",
            Self::UserAgent | Self::Host => "(none sent)",
        }
    }
}

impl Top {
    pub(super) fn run(self, context: &Context, screen: &mut Screen) -> anyhow::Result<Outcome> {
        let log = LogReader::open(&context.config()?.data)?;
        let since = self.since.resolve(context.now, &context.zone);
        let lists = match self.by.is_empty() {
            true => vec![By::Ip, By::Path, By::Country, By::UserAgent],
            false => self.by,
        };
        let mut document = Map::new();
        document.insert("since".to_owned(), json!(since));
        if !self.format.json {
            screen.line(&format!("Since {}", time::full(since, &context.zone)))?;
        }
        for by in lists {
            let rows = log.top(by.column(), since, self.limit)?;
            if self.format.json {
                document.insert(by.name().to_owned(), json!(rows));
            } else {
                screen.blank()?;
                screen.table(&mut table(by, &rows, context))?;
            }
        }
        if self.format.json {
            screen.json(&document)?;
        }
        Ok(Outcome::Done)
    }
}

fn table(by: By, rows: &[TopRow], context: &Context) -> Table {
    let mut table = Table::new(&[
        ("requests", Align::Right),
        ("refused", Align::Right),
        ("errors", Align::Right),
        ("sent", Align::Right),
        ("last", Align::Left),
        (by.name(), Align::Left),
    ]);
    for row in rows {
        let key = if row.key.is_empty() { by.nothing() } else { &row.key };
        let zero_or = |n: u64, style| Cell::styled(number(n), if n == 0 { DIM } else { style });
        table.row(vec![
            Cell::new(number(row.requests)),
            zero_or(row.refused, RED),
            zero_or(row.errors, YELLOW),
            Cell::new(bytes(row.bytes_out)),
            Cell::styled(time::relative(row.last_seen, context.now), DIM),
            Cell::new(key),
        ]);
    }
    table
}
