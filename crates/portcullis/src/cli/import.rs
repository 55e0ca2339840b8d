//! `portcullis import`: blocks from a list, all of them or none.
//!
//! Owns what becomes of entries that have run out, are refused or are bad. Must not know the formats.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Context as _;
use clap::Args;
use ipnet::IpNet;
use serde_json::{Value, json};

use portcullis_config::Config;
use portcullis_lists::{BadLine, Entry, Format, Limits, MAX_SHOWN, Screen as Guard, Summary};
use portcullis_model::{UnixMs, network_of, reason_of};
use portcullis_store::{BanEnd, Imported, NewBlock, State, fail2ban_bans};

use crate::import::{self, Defaults, List, Sorted};
use crate::machine::operators_address;

use super::context::{Context, Misuse, actor, open_state};
use super::output::{Screen, count, number, tell};
use super::time::Expiry;
use super::{Format as Output, Outcome};

/// The largest list, in bytes.
const MAX_BYTES: u64 = 256 << 20;
/// Blocks that one import may add.
const MAX_ENTRIES: usize = 1_000_000;
/// How a SQLite database begins.
const SQLITE: &[u8] = b"SQLite format 3\0";

const EXAMPLES: &str = "\
Examples:
  portcullis import blocklist.txt --dry-run
  portcullis import drop.txt --reason \"Spamhaus DROP\" --expires +7d
  portcullis import /var/lib/fail2ban/fail2ban.sqlite3
  portcullis import /etc/nginx/conf.d/deny.conf
  curl -sf https://lists.example.com/bad.csv | portcullis import -

Reads plain text (an address, prefix or range per line, as in Spamhaus DROP
and FireHOL netsets), CSV (network,reason,expires), JSON, nginx \"deny\" lines
and fail2ban's database. All is added, or nothing. What is blocked already stays
as it is. For a list that changes, see [[feed]] in the configuration.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Import {
    /// The list; - reads standard input
    #[arg(value_name = "FILE|-", value_hint = clap::ValueHint::FilePath)]
    file: PathBuf,

    /// plain, csv, json, nginx or fail2ban; auto tells them apart
    #[arg(long, value_name = "FORMAT", default_value = "auto")]
    format: ImportFormat,

    /// Why, for entries that do not say it themselves
    #[arg(long, value_name = "TEXT", value_parser = reason_of)]
    reason: Option<String>,

    /// When blocks end that do not say it themselves: +7d, 2026-12-31, RFC 3339, or never
    #[arg(long, value_name = "WHEN", default_value = "never")]
    expires: Expiry,

    /// The share of lines that may be bad before the whole list is refused
    #[arg(long, value_name = "SHARE", default_value = "5%", value_parser = share)]
    max_bad: f64,

    /// Also block what is private, this machine's, a trusted proxy's, or very wide
    #[arg(long)]
    force: bool,

    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    output: Output,
}

/// What `--format` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ImportFormat {
    Auto,
    List(Format),
    Fail2ban,
}

impl FromStr for ImportFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "fail2ban" => Ok(Self::Fail2ban),
            _ => text.parse().map(Self::List).map_err(|_: String| {
                format!("expected auto, plain, csv, json, nginx or fail2ban, got {text:?}")
            }),
        }
    }
}

/// `5%` or `0.05`.
fn share(text: &str) -> Result<f64, String> {
    let (number, whole) = match text.strip_suffix('%') {
        Some(percent) => (percent, 100.0),
        None => (text, 1.0),
    };
    let share = number.trim().parse::<f64>().ok().map(|number| number / whole);
    share
        .filter(|share| (0.0..=1.0).contains(share))
        .ok_or_else(|| format!("expected a share such as 5% or 0.05, got {text:?}"))
}

impl Import {
    pub(super) fn run(self, context: &Context, screen: &mut Screen) -> anyhow::Result<Outcome> {
        let expires_at = self.expires.resolve(context.now, &context.zone).map_err(Misuse)?;
        let config = context.config()?;
        let list = self.list(expires_at)?;
        let guard = match self.force {
            true => None,
            false => {
                let state = open_state(&config.data)?;
                Some(import::guard(&config, state.as_ref(), operators_address())?)
            }
        };
        let sorted = self.sort(&list, guard.as_ref(), expires_at, context.now);
        let imported = self.store(&config, &sorted.blocks, context.now)?;
        if self.output.json {
            screen.json(&self.json(&list, &sorted, imported))?;
        } else {
            self.print(&list, &sorted, imported, screen)?;
        }
        Ok(if imported == Imported::default() { Outcome::Nothing } else { Outcome::Done })
    }

    fn list(&self, expires_at: Option<UnixMs>) -> anyhow::Result<List> {
        let is_stdin = self.file == Path::new("-");
        if self.format == ImportFormat::Fail2ban || (!is_stdin && begins_as_sqlite(&self.file)) {
            if is_stdin {
                return Err(Misuse(
                    "fail2ban's database is read from a file, not from standard input".into(),
                )
                .into());
            }
            return fail2ban(&self.file, expires_at, self.max_bad);
        }
        let bytes = if is_stdin {
            bounded(&mut io::stdin().lock(), "standard input")?
        } else {
            let name = self.file.display().to_string();
            let mut file = File::open(&self.file).with_context(|| format!("cannot read {name}"))?;
            bounded(&mut file, &name)?
        };
        let format = match self.format {
            ImportFormat::List(format) => format,
            ImportFormat::Auto | ImportFormat::Fail2ban => Format::detect(&bytes),
        };
        let limits = Limits { max_entries: MAX_ENTRIES, max_bad: self.max_bad };
        List::read(format, &bytes, limits)
            .with_context(|| format!("nothing was imported from {}, read as {format}", self.file.display()))
    }

    fn sort(&self, list: &List, guard: Option<&Guard>, expires_at: Option<UnixMs>, now: UnixMs) -> Sorted {
        let name = self.file.file_name().unwrap_or(self.file.as_os_str()).to_string_lossy().into_owned();
        let from = if name == "-" { "imported".to_owned() } else { format!("imported from {name}") };
        let reason = self.reason.as_deref().unwrap_or(&from);
        list.sort(guard, &Defaults { reason, expires_at }, now)
    }

    fn store(&self, config: &Config, blocks: &[NewBlock], now: UnixMs) -> anyhow::Result<Imported> {
        if !self.dry_run {
            return match blocks.is_empty() {
                true => Ok(Imported::default()),
                false => Ok(State::open_or_create(&config.data)?.import_blocks(blocks, &actor(), now)?),
            };
        }
        match open_state(&config.data)? {
            Some(state) => Ok(state.rehearse_import(blocks, now)?),
            None => Ok(Imported { added: blocks.len() as u64, kept: 0 }),
        }
    }

    fn json(&self, list: &List, sorted: &Sorted, imported: Imported) -> Value {
        let refused: serde_json::Map<String, Value> =
            sorted.refused.iter().map(|(why, n)| (why.to_string(), (*n).into())).collect();
        json!({
            "format": list.format,
            "dry_run": self.dry_run,
            "lines": list.summary.lines,
            "added": imported.added,
            "already_blocked": imported.kept,
            "expired": sorted.expired,
            "refused": refused,
            "bad": list.summary.bad,
            "bad_lines": list.summary.shown,
            "allows_left_out": list.summary.allows,
        })
    }

    fn print(
        &self,
        list: &List,
        sorted: &Sorted,
        imported: Imported,
        screen: &mut Screen,
    ) -> anyhow::Result<()> {
        let done = if self.dry_run { "Would import" } else { "Imported" };
        screen.line(&format!("{done} {} ({}).", count(imported.added, "block"), list.format))?;
        let left = [
            (imported.kept, "blocked already"),
            (sorted.expired, "expired"),
            (sorted.refused(), "refused"),
            (list.summary.bad, "bad"),
        ];
        let left: Vec<String> =
            left.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{} {what}", number(*n))).collect();
        if !left.is_empty() {
            screen.line(&format!("Left out: {}.", left.join(", ")))?;
        }
        if imported.added > 0 && !self.dry_run {
            screen.line("In force at once if the gateway is running.")?;
        }
        for (network, why) in &sorted.refused_shown {
            tell("refused: ", &format!("{network}: {why}"));
        }
        if sorted.refused() > 0 {
            tell("", "To block those all the same: --force.");
        }
        list.summary.shown.iter().for_each(tell_bad);
        if list.summary.bad > list.summary.shown.len() as u64 {
            tell("", &format!("... and {} more.", list.summary.bad - list.summary.shown.len() as u64));
        }
        if list.summary.allows > 0 {
            let allows = count(list.summary.allows, "\"allow\" line");
            tell("", &format!("{allows} left out; \"portcullis allow\" lets an address in."));
        }
        Ok(())
    }
}

fn tell_bad(bad: &BadLine) {
    tell("bad: ", &bad.to_string());
}

fn begins_as_sqlite(path: &Path) -> bool {
    let mut start = [0; SQLITE.len()];
    File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok() && start == SQLITE
}

fn bounded(reader: &mut dyn Read, name: &str) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(MAX_BYTES + 1).read_to_end(&mut bytes).with_context(|| format!("cannot read {name}"))?;
    if bytes.len() as u64 > MAX_BYTES {
        anyhow::bail!("{name} is larger than {} MiB; split it", MAX_BYTES >> 20);
    }
    Ok(bytes)
}

/// The bans as a list. Of several bans of one address the one that ends last counts.
fn fail2ban(path: &Path, expires_at: Option<UnixMs>, max_bad: f64) -> anyhow::Result<List> {
    let bans = fail2ban_bans(path)?;
    if bans.iter().any(|ban| ban.end == BanEnd::Unknown) && expires_at.is_none() {
        return Err(Misuse(format!(
            "{} is of a fail2ban before 0.11 and does not say when its bans end; say it with --expires, \
             such as --expires +1d",
            path.display()
        ))
        .into());
    }
    let mut summary = Summary::default();
    let mut latest: HashMap<IpNet, Entry> = HashMap::new();
    for (n, ban) in (1..).zip(&bans) {
        summary.lines += 1;
        let network = match network_of(&ban.ip) {
            Ok(network) => network,
            Err(problem) => {
                summary.bad += 1;
                if summary.shown.len() < MAX_SHOWN {
                    summary.shown.push(BadLine::new(n, &ban.ip, &problem));
                }
                continue;
            }
        };
        summary.entries += 1;
        let expires = match ban.end {
            BanEnd::At(end) => Some(end),
            BanEnd::Never => None,
            BanEnd::Unknown => expires_at,
        };
        let jail: String = ban.jail.chars().filter(|c| !c.is_control()).take(100).collect();
        let entry = Entry { network, reason: Some(format!("fail2ban: {jail}")), expires };
        let is_longer = |old: &Entry| old.expires.is_some_and(|old| expires.is_none_or(|new| new > old));
        if latest.get(&network).is_none_or(is_longer) {
            latest.insert(network, entry);
        }
    }
    if summary.bad as f64 > max_bad * summary.lines as f64 {
        anyhow::bail!(
            "nothing was imported: {} of the {} bans in {} are no addresses; see --max-bad",
            summary.bad,
            summary.lines,
            path.display()
        );
    }
    let mut entries: Vec<Entry> = latest.into_values().collect();
    entries.sort_by_key(|entry| entry.network);
    Ok(List { format: "fail2ban".to_owned(), entries, summary })
}

impl fmt::Display for ImportFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::List(format) => f.write_str(format.as_str()),
            Self::Fail2ban => f.write_str("fail2ban"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_percentage_or_a_fraction() {
        assert_eq!((share("5%"), share("0.05"), share("100%")), (Ok(0.05), Ok(0.05), Ok(1.0)));
        for bad in ["5", "-1%", "101%", "x", "NaN"] {
            assert!(share(bad).is_err(), "{bad}");
        }
    }
}
