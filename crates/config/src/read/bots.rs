//! `[bots]` and `[[bot]]`: which crawlers are known and how the real ones are told. Must not fetch or ask anybody.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use portcullis_detect::bots::{Bot, BotKind, MAX_BOTS, builtin_bots, read_bots};
use portcullis_model::{Secret, network_of};
use portcullis_policy::Mode;

use crate::{BotSource, Bots, Feed, FeedSource};

use super::fields::{Section, Value};
use super::{DAY, HOUR, SECOND, feeds, files};

/// The largest table, in bytes.
const MAX_TABLE: u64 = 4 << 20;
const MAX_OWN: usize = 200;
const MAX_TEXTS: usize = 20;
const MAX_NETWORKS: usize = 10_000;
const MAX_SOURCES: usize = 200;
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(2);
const FETCH_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_BYTES: u64 = 8 << 20;
const MAX_ENTRIES: usize = 100_000;
const MAX_BAD: f64 = 0.05;

pub(super) fn read(root: &mut Section<'_>) -> Bots {
    let mut bots = root.section("bots");
    let enabled = bots.read("enabled", true, Value::boolean);
    let dns = bots.read("dns", true, Value::boolean);
    let resolver = bots.get("resolver").and_then(|value| resolver(&value)).flatten();
    let timeout = bots.read("timeout", DEFAULT_TIMEOUT, |value| value.duration(SECOND / 10..=30 * SECOND));
    let update = bots.read("update", false, Value::boolean);
    let interval = bots.read("interval", DAY, |value| value.duration(HOUR..=30 * DAY));
    let mut table = bots.get("table").and_then(|value| table(&value)).flatten().unwrap_or_else(builtin_bots);
    bots.finish();
    let mut sources: Vec<(Arc<str>, FeedSource)> = Vec::new();
    if update {
        for bot in &table {
            let urls = bot.urls.iter().map(|url| FeedSource::Url(Secret::new(url)));
            sources.extend(urls.map(|url| (Arc::clone(&bot.name), url)));
        }
    }
    for (bot, source) in own(root) {
        sources.retain(|(name, _)| !name.eq_ignore_ascii_case(&bot.name));
        sources.extend(source.map(|source| (Arc::clone(&bot.name), source)));
        match table.iter_mut().find(|known| known.name.eq_ignore_ascii_case(&bot.name)) {
            Some(known) => *known = bot,
            None => table.push(bot),
        }
    }
    sources.truncate(MAX_SOURCES);
    let place = |name: &str| table.iter().position(|bot| bot.name.eq_ignore_ascii_case(name));
    let sources = sources.into_iter().filter_map(|(name, source)| {
        Some(BotSource { bot: place(&name)?, list: list(&name, source, interval) })
    });
    Bots { enabled, dns, resolver, timeout, sources: sources.collect(), table }
}

/// Who is asked; `Some(None)` is the system's own.
fn resolver(value: &Value<'_>) -> Option<Option<SocketAddr>> {
    const WHAT: &str = "\"system\", or an address and a port such as \"192.0.2.53:53\"";
    match value.text(WHAT)? {
        "system" => Some(None),
        text => match text.parse() {
            Ok(address) => Some(Some(address)),
            Err(_) => value.expected(WHAT),
        },
    }
}

/// `Some(None)` is the table that comes with the program.
fn table(value: &Value<'_>) -> Option<Option<Vec<Bot>>> {
    if value.text("\"builtin\" or the path of a table of bots")? == "builtin" {
        return Some(None);
    }
    let text = files::text(value, MAX_TABLE)?;
    // Room for the [[bot]] tables.
    match read_bots(&text) {
        Ok(bots) if bots.len() <= MAX_BOTS - MAX_OWN => Some(Some(bots)),
        Ok(bots) => {
            value.fail(format!("{} bots are more than {}", bots.len(), MAX_BOTS - MAX_OWN));
            None
        }
        Err(error) => {
            value.fail(format!("the table of bots is not used: {error}"));
            None
        }
    }
}

/// The bots of the configuration itself, each with where its networks are fetched.
fn own(root: &mut Section<'_>) -> Vec<(Bot, Option<FeedSource>)> {
    let mut names: Vec<String> = Vec::new();
    let sections = root.sections("bot", MAX_OWN).into_iter();
    sections.filter_map(|section| one(section, &mut names)).collect()
}

fn one(mut section: Section<'_>, names: &mut Vec<String>) -> Option<(Bot, Option<FeedSource>)> {
    let name = section.required("name", "\"our-monitor\"", |value| {
        let name = value.name()?;
        if names.iter().any(|known| known.eq_ignore_ascii_case(name)) {
            value.fail(format!("another bot is named {name:?} already"));
        }
        names.push(name.to_owned());
        Some(name)
    });
    if let Some(name) = name {
        section.rename(format!("bot.{name}"));
    }
    let kind = section.read("kind", BotKind::Monitor, |value| value.choice(&BotKind::ALL, BotKind::as_str));
    let agents = section.required("user_agents", "[\"OurMonitor\"]", |value| {
        let agents = value.list(MAX_TEXTS, |text| text.label(3..=100))?;
        match agents.is_empty() {
            true => value.expected("a text of the user agent at least"),
            false => Some(agents),
        }
    });
    let is_strict = section.read("strict", true, Value::boolean);
    let networks = section.read("networks", Vec::new(), |value| {
        value.list(MAX_NETWORKS, |item| item.parse_with("a network such as \"192.0.2.0/24\"", network_of))
    });
    let dns = section.read("dns", Vec::new(), |value| {
        value.list(MAX_TEXTS, |item| item.parse("a domain such as \"bot.example.com\""))
    });
    let has_source = section.has("url") || section.has("file");
    let source = if has_source { feeds::source(&mut section) } else { known(&mut section) };
    if networks.is_empty() && dns.is_empty() && !has_source {
        section.report("needs networks, dns, url or file: nothing would tell the real one from others");
    }
    section.finish();
    let bot = Bot {
        name: Arc::from(name?),
        kind,
        agents: agents?,
        is_strict,
        dns,
        urls: Vec::new(),
        // Who writes them down here says that there are no others.
        is_complete: !networks.is_empty() && !has_source,
        networks,
        about: String::new(),
    };
    Some((bot, source))
}

/// Settings that are not there are known ones all the same.
fn known(section: &mut Section<'_>) -> Option<FeedSource> {
    section.get("url");
    section.get("file");
    None
}

fn list(name: &str, source: FeedSource, interval: Duration) -> Feed {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    // It becomes a part of the names of files.
    let name: String = name.chars().map(|c| if is_plain(c) { c } else { '_' }).collect();
    Feed {
        name: name.into(),
        source,
        format: None,
        interval,
        timeout: FETCH_TIMEOUT,
        max_bytes: MAX_BYTES,
        max_entries: MAX_ENTRIES,
        max_bad: MAX_BAD,
        max_age: None,
        mode: Mode::Enforce,
    }
}
