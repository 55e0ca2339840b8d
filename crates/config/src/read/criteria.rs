//! Which requests a rule means, as `[[limit]]` and `[[access]]` write it.
//! Must not decide anything; that is for the policy.

use portcullis_policy::{IdentityMatch, RequestMatch, TextPattern};

use super::fields::{Section, Value, quoted};
use super::rules::{all_of, hosts, paths};

const MAX_METHODS: usize = 32;
/// More than there are.
const MAX_COUNTRIES: usize = 300;
/// Patterns are tried one after the other, for each request.
const MAX_USER_AGENTS: usize = 100;

/// The criteria of a rule, each of which may be left out.
pub(super) fn criteria(section: &mut Section<'_>) -> RequestMatch {
    let rule = RequestMatch {
        paths: section.read("paths", Vec::new(), paths),
        methods: section.read("methods", Vec::new(), |value| value.list(MAX_METHODS, method)),
        hosts: section.read("hosts", Vec::new(), hosts),
        identities: section.read("identity", Vec::new(), identities),
        countries: section.read("countries", Vec::new(), countries),
        asns: section.read("asns", Vec::new(), asns),
        unknown_place: false,
        user_agents: section.read("user_agents", Vec::new(), user_agents),
    };
    let has_place = !rule.countries.is_empty() || !rule.asns.is_empty();
    let unknown_place = section.read("unknown_place", false, |value| {
        let is_meant = value.boolean()?;
        if is_meant && !has_place {
            value.fail("has no effect without countries or asns");
        }
        Some(is_meant)
    });
    RequestMatch { unknown_place, ..rule }
}

fn method(value: &Value<'_>) -> Option<Box<str>> {
    const WHAT: &str = "a method such as \"POST\"";
    let method = value.text(WHAT)?;
    let valid =
        (1..=32).contains(&method.len()) && method.bytes().all(|b| b.is_ascii_alphabetic() || b == b'-');
    if !valid {
        value.fail(format!("expected {WHAT}, got {}", quoted(method)));
        return None;
    }
    Some(method.to_ascii_uppercase().into())
}

fn identities(value: &Value<'_>) -> Option<Vec<IdentityMatch>> {
    all_of(value, |item| item.parse("\"anonymous\", \"authenticated\", \"user:NAME\" or \"role:NAME\""))
}

fn countries(value: &Value<'_>) -> Option<Vec<[u8; 2]>> {
    value.list(MAX_COUNTRIES, |item| Some(country(item)))?.into_iter().collect()
}

fn country(value: &Value<'_>) -> Option<[u8; 2]> {
    const WHAT: &str = "a country's two letters (ISO 3166) such as \"DE\"";
    let text = value.text(WHAT)?;
    let code =
        <[u8; 2]>::try_from(text.as_bytes()).ok().filter(|code| code.iter().all(u8::is_ascii_alphabetic));
    match code.map(|code| code.map(|letter| letter.to_ascii_uppercase())) {
        Some([b'U', b'K']) => value.expected("\"GB\" for the United Kingdom"),
        Some(code) => Some(code),
        None => value.expected(WHAT),
    }
}

fn asns(value: &Value<'_>) -> Option<Vec<u32>> {
    all_of(value, |item| {
        if !item.is_text() {
            return item.positive();
        }
        item.parse_with("a network's number such as 64500 or \"AS64500\"", |text| {
            let number = text.strip_prefix("AS").or_else(|| text.strip_prefix("as")).unwrap_or(text);
            number.parse().ok().filter(|number: &u32| *number > 0).ok_or_else(|| {
                format!("expected a network's number such as 64500 or \"AS64500\", got {}", quoted(text))
            })
        })
    })
}

fn user_agents(value: &Value<'_>) -> Option<Vec<TextPattern>> {
    let read = |item: &Value<'_>| Some(item.parse("a pattern such as \"*bot*\" or \"curl/*\""));
    value.list(MAX_USER_AGENTS, read)?.into_iter().collect()
}
