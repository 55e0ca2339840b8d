//! `[[feed]]`: lists of addresses that others publish. Must not fetch them.

use std::collections::HashSet;
use std::time::Duration;

use portcullis_lists::Format;
use portcullis_model::Secret;
use portcullis_policy::{MAX_FEEDS, Mode};
use url::Url;

use crate::{Feed, FeedSource};

use super::fields::{Section, Value};
use super::rules::MODES;
use super::{DAY, HOUR, SECOND, secret};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
const MINUTE: Duration = Duration::from_secs(60);
const DEFAULT_MAX_BYTES: u64 = 32 << 20;
const MAX_BYTES: u64 = 256 << 20;
/// A range of IPv4 takes 8 bytes of memory, one of IPv6 32.
const DEFAULT_MAX_ENTRIES: usize = 1_000_000;
const MAX_ENTRIES: usize = 10_000_000;
const DEFAULT_MAX_BAD: f64 = 0.05;

const URL: &str = "a URL such as \"https://lists.example.com/bad.txt\"";

pub(super) fn read(root: &mut Section<'_>) -> Vec<Feed> {
    let mut names = HashSet::new();
    root.sections("feed", MAX_FEEDS).into_iter().filter_map(|section| feed(section, &mut names)).collect()
}

fn feed(mut section: Section<'_>, names: &mut HashSet<String>) -> Option<Feed> {
    let name = section.required("name", "\"drop\"", |value| {
        let name = value.name()?;
        if !names.insert(name.to_owned()) {
            value.fail(format!("another feed is named {name:?} already"));
        }
        Some(name)
    });
    if let Some(name) = name {
        section.rename(format!("feed.{name}"));
    }
    let source = source(&mut section);
    let feed = Feed {
        name: name.unwrap_or_default().into(),
        source: FeedSource::File("".into()),
        format: section.read("format", None, format),
        interval: section.read("interval", HOUR, |value| value.duration(MINUTE..=30 * DAY)),
        timeout: section.read("timeout", DEFAULT_TIMEOUT, |value| value.duration(SECOND..=HOUR)),
        max_bytes: section.read("max_size", DEFAULT_MAX_BYTES, |value| value.size(1_024..=MAX_BYTES)),
        max_entries: section.read("max_entries", DEFAULT_MAX_ENTRIES, |value| value.count(1..=MAX_ENTRIES)),
        max_bad: section.read("max_bad_lines", DEFAULT_MAX_BAD, Value::share),
        max_age: section.read("max_age", None, |value| match value.text("a duration or \"forever\"")? {
            "forever" => Some(None),
            _ => value.duration(HOUR..=3_650 * DAY).map(Some),
        }),
        mode: section.read("mode", Mode::Enforce, |value| value.choice(&MODES, Mode::as_str)),
    };
    section.finish();
    name?;
    Some(Feed { source: source?, ..feed })
}

pub(super) fn source(section: &mut Section<'_>) -> Option<FeedSource> {
    let url = section.get("url");
    let file = section.get("file");
    match (url, file) {
        (Some(value), None) => url_of(&value).map(FeedSource::Url),
        (None, Some(value)) => value.path().map(FeedSource::File),
        (None, None) | (Some(_), Some(_)) => {
            section.report("expected either url = \"https://...\" or file = \"...\"");
            None
        }
    }
}

fn url_of(value: &Value<'_>) -> Option<Secret> {
    let secret = secret::line(value)?;
    let is_http = |url: &Url| matches!(url.scheme(), "http" | "https") && url.has_host();
    // It may hold a token, so no message repeats it.
    match Url::parse(secret.expose()).ok().filter(is_http) {
        Some(_) => Some(secret),
        None => {
            value.fail(format!("expected {URL}, http or https"));
            None
        }
    }
}

fn format(value: &Value<'_>) -> Option<Option<Format>> {
    const WHAT: &str = "\"auto\", \"plain\", \"csv\", \"json\" or \"nginx\"";
    match value.text(WHAT)? {
        "auto" => Some(None),
        text => match text.parse() {
            Ok(format) => Some(Some(format)),
            Err(_) => value.expected(WHAT),
        },
    }
}
