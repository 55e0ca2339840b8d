//! `[[limit]]` and `[[access]]`: how often requests may come, and which may not come at all.
//! Must not decide anything; that is for the policy.

use std::collections::HashSet;

use portcullis_policy::{
    AccessAction, AccessRule, LimitKey, LimitRule, MAX_ACCESS_RULES, MAX_LIMIT_RULES, Mode, Rate,
};

use super::criteria::criteria;
use super::fields::{Section, Value};
use super::rules::MODES;

/// Requests of one subject under way at the same time; more than one gateway has.
const MAX_CONCURRENCY: u64 = 1_000_000;
const RATE: &str = "a rate such as \"3/5m\"";

pub(super) fn limits(root: &mut Section<'_>) -> Vec<LimitRule> {
    let mut names = HashSet::new();
    root.sections("limit", MAX_LIMIT_RULES)
        .into_iter()
        .filter_map(|section| limit(section, &mut names))
        .collect()
}

fn limit(mut section: Section<'_>, names: &mut HashSet<String>) -> Option<LimitRule> {
    let name = unique_name(&mut section, "limit", names);
    let has_concurrency = section.has("concurrency");
    let has_rate = section.has("rate");
    let rate = match has_rate || !has_concurrency {
        true => section.required("rate", "\"3/5m\"", |value| value.parse::<Rate>(RATE)),
        false => None,
    };
    let needs_rate = |value: &Value<'_>| {
        if !has_rate {
            value.fail("has no effect without rate");
        }
        has_rate.then_some(())
    };
    let burst = section.read("burst", None, |value| {
        needs_rate(value)?;
        burst(value, rate).map(Some)
    });
    let concurrency = section
        .read("concurrency", None, |value| u32::try_from(value.integer(1..=MAX_CONCURRENCY)?).ok().map(Some));
    let cost = section.read("cost", 1, |value| {
        needs_rate(value)?;
        let cost = value.positive()?;
        let most = [rate, burst].into_iter().flatten().map(Rate::count).min();
        if most.is_some_and(|most| cost > most) {
            value.fail("is more than rate or burst admit in all: every request would be refused");
        }
        Some(cost)
    });
    let key = key(&mut section);
    let mode = section.read("mode", Mode::Enforce, |value| value.choice(&MODES, Mode::as_str));
    let applies_to = criteria(&mut section);
    section.finish();
    // What is wrong has been reported.
    if has_rate && rate.is_none() || !has_rate && !has_concurrency {
        return None;
    }
    Some(LimitRule { name: name?.into(), rate, burst, concurrency, cost, key, mode, applies_to })
}

/// The section is called by its name in messages from now on.
fn unique_name<'a>(
    section: &mut Section<'a>,
    kind: &'static str,
    names: &mut HashSet<String>,
) -> Option<&'a str> {
    let example = if kind == "limit" { "\"login\"" } else { "\"europe-only\"" };
    let name = section.required("name", example, |value| {
        let name = value.name()?;
        if !names.insert(name.to_owned()) {
            value.fail(format!("another [[{kind}]] is named {name:?} already"));
        }
        Some(name)
    });
    if let Some(name) = name {
        section.rename(format!("{kind}.{name}"));
    }
    name
}

/// One that could never refuse is a mistake.
fn burst(value: &Value<'_>, rate: Option<Rate>) -> Option<Rate> {
    let burst = value.parse::<Rate>("a rate such as \"10/1s\"")?;
    let Some(rate) = rate else { return Some(burst) };
    if burst.window() >= rate.window() || burst.count() >= rate.count() {
        value.fail(format!(
            "expected a smaller count in a shorter period than rate = \"{rate}\" has, got \"{burst}\""
        ));
    }
    Some(burst)
}

fn key(section: &mut Section<'_>) -> LimitKey {
    const WHAT: &str = "\"ip\", \"prefix\", \"user\", \"session\", \"header:NAME\" or \"ip+path\"";
    let key = section.read("key", LimitKey::Ip, |value| value.parse(WHAT));
    let is_prefix = matches!(key, LimitKey::Prefix { .. });
    let mut length = |name, default, longest| {
        section.read(name, default, |value| {
            if !is_prefix {
                value.fail("has no effect without key = \"prefix\"");
            }
            u8::try_from(value.integer(1..=longest)?).ok()
        })
    };
    let v4 = length("prefix_v4", LimitKey::PREFIX_V4, 32);
    let v6 = length("prefix_v6", LimitKey::PREFIX_V6, 128);
    if is_prefix { LimitKey::Prefix { v4, v6 } } else { key }
}

pub(super) fn access(root: &mut Section<'_>) -> Vec<AccessRule> {
    let mut names = HashSet::new();
    let mut rules: Vec<AccessRule> = Vec::new();
    for section in root.sections("access", MAX_ACCESS_RULES) {
        let ends = rules.iter().find(|rule| rule.mode == Mode::Enforce && rule.applies_to.is_everything());
        if let Some(earlier) = ends {
            section.report(format!("is never asked: access.{} means every request", earlier.name));
        }
        rules.extend(access_rule(section, &mut names));
    }
    rules
}

fn access_rule(mut section: Section<'_>, names: &mut HashSet<String>) -> Option<AccessRule> {
    let name = unique_name(&mut section, "access", names);
    let action = section
        .required("action", "\"deny\"", |value| value.choice(&AccessAction::ALL, AccessAction::as_str));
    let mode = section.read("mode", Mode::Enforce, |value| {
        let mode = value.choice(&MODES, Mode::as_str)?;
        if mode == Mode::DryRun && action == Some(AccessAction::Allow) {
            value.fail("an allow in dry-run would do nothing; take the rule out instead");
        }
        Some(mode)
    });
    let applies_to = criteria(&mut section);
    section.finish();
    Some(AccessRule { name: name?.into(), action: action?, mode, applies_to })
}
