//! `[privacy]`: what of a request is kept. Must not anonymise anything itself.

use std::collections::BTreeSet;
use std::time::Duration;

use portcullis_policy::PathPattern;
use portcullis_privacy::{Anonymise, MAX_NAMES, SecretNames};

use portcullis_store::{FieldRetention, LogSettings};

use crate::Privacy;
use crate::units::parse_duration;

use super::fields::{Section, Value, quoted};
use super::{DAY, HOUR};

const MAX_PATHS: usize = 1_000;
const MAX_COUNTRIES: usize = 300;
const MAX_URL: usize = 500;

/// What "EU" in a list of countries stands for: the member states of 2026.
const EU: [&str; 27] = [
    "AT", "BE", "BG", "CY", "CZ", "DE", "DK", "EE", "ES", "FI", "FR", "GR", "HR", "HU", "IE", "IT", "LT",
    "LU", "LV", "MT", "NL", "PL", "PT", "RO", "SE", "SI", "SK",
];

pub(super) fn read(root: &mut Section<'_>, geo: &portcullis_geo::Settings, log: &mut LogSettings) -> Privacy {
    let mut privacy = root.section("privacy");
    let opt_out_countries = privacy.read("opt_out_countries", Vec::new(), |value| {
        let countries = countries(value)?;
        let is_nowhere = geo.databases.is_empty() && geo.downloads.is_empty() && geo.sources.is_empty();
        if !countries.is_empty() && is_nowhere {
            value.fail("needs a geo database to know countries by; name one in geo.databases");
        }
        Some(countries)
    });
    let settings = Privacy {
        anonymise: privacy.read("anonymise", Anonymise::default(), |value| {
            value.choice(&Anonymise::ALL, Anonymise::as_str)
        }),
        hash_rotation: privacy
            .read("hash_rotation", DAY, |value| value.duration(HOUR..=Duration::from_secs(366 * 86_400))),
        log_query: privacy.read("log_query", true, Value::boolean),
        log_user_agent: privacy.read("log_user_agent", true, Value::boolean),
        log_referer: privacy.read("log_referer", true, Value::boolean),
        log_user: privacy.read("log_user", true, Value::boolean),
        redact: privacy.read("redact", SecretNames::default(), names),
        honour_gpc: privacy.read("honour_gpc", false, Value::boolean),
        honour_dnt: privacy.read("honour_dnt", false, Value::boolean),
        opt_out_countries,
        opt_out_paths: privacy.read("opt_out_paths", Vec::new(), |value| {
            value.list(MAX_PATHS, |item| item.parse::<PathPattern>("a path pattern such as \"/health/*\""))
        }),
        header: privacy.read("header", false, Value::boolean),
        policy_url: privacy.read("policy_url", None, |value| match value.text("a URL in quotes")? {
            "" => Some(None),
            _ => url(value).map(Some),
        }),
    };
    log.fields = fields(&mut privacy);
    privacy.finish();
    settings
}

/// `[privacy.retention]`.
fn fields(privacy: &mut Section<'_>) -> FieldRetention {
    let mut section = privacy.section("retention");
    let fields = FieldRetention {
        addresses: section.read("addresses", None, kept),
        user_agents: section.read("user_agents", None, kept),
        referers: section.read("referers", None, kept),
        queries: section.read("queries", None, kept),
        users: section.read("users", None, kept),
    };
    section.finish();
    fields
}

fn kept(value: &Value<'_>) -> Option<Option<Duration>> {
    const WHAT: &str = "a duration such as \"7d\", or \"log\" for as long as the row";
    match value.text(WHAT)? {
        "log" => Some(None),
        text if parse_duration(text).is_none() => value.expected(WHAT),
        _ => value.duration(HOUR..=3_650 * DAY).map(Some),
    }
}

fn names(value: &Value<'_>) -> Option<SecretNames> {
    let names = value.list(MAX_NAMES, |item| {
        let name = item.text("the name of a parameter in quotes")?;
        // Each by itself, so that the message is at its place.
        match SecretNames::new(vec![name.to_owned()]) {
            Ok(_) => Some(name.to_owned()),
            Err(why) => {
                item.fail(why);
                None
            }
        }
    })?;
    SecretNames::new(names).map_err(|why| value.fail(why)).ok()
}

fn countries(value: &Value<'_>) -> Option<Vec<String>> {
    const WHAT: &str = "a country as two letters such as \"DE\", or \"EU\"";
    let mut all = BTreeSet::new();
    value.list(MAX_COUNTRIES, |item| {
        let text = item.text(WHAT)?;
        let is_code = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_alphabetic());
        match text.to_ascii_uppercase() {
            _ if !is_code => return item.expected(WHAT),
            eu if eu == "EU" => all.extend(EU.map(str::to_owned)),
            code => drop(all.insert(code)),
        }
        Some(())
    })?;
    Some(all.into_iter().collect())
}

fn url(value: &Value<'_>) -> Option<String> {
    const WHAT: &str = "an http:// or https:// address such as \"https://example.com/privacy\"";
    let text = value.text(WHAT)?;
    let parsed = url::Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    match parsed.map(String::from) {
        // What the parser leaves unescaped in a URL and a header value in <> cannot hold.
        Some(url)
            if url.len() <= MAX_URL
                && url.bytes().all(|byte| byte.is_ascii_graphic() && !b"<>\"".contains(&byte)) =>
        {
            Some(url)
        }
        _ => {
            value.fail(format!("expected {WHAT}, got {}", quoted(text)));
            None
        }
    }
}
