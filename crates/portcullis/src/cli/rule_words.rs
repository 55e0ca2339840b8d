//! Limits and rules of the access list in words and in JSON, as `check`, `limits` and `why` show them.
//! Must not decide what a rule means; that is for the policy.

use std::fmt::Write as _;

use serde_json::{Value, json};

use portcullis_policy::{AccessRule, LimitKey, LimitRule, Mode, RequestMatch};

/// `login: 10/5m per client for POST requests to /login`
pub(super) fn limit_in_words(limit: &LimitRule) -> String {
    format!(
        "{}: {} per {} for {}{}",
        limit.name,
        limit.allowance(),
        per(&limit.key),
        matched(&limit.applies_to),
        in_dry_run(limit.mode)
    )
}

/// `europe: deny all requests from RU`
pub(super) fn access_in_words(rule: &AccessRule) -> String {
    let mode = in_dry_run(rule.mode);
    format!("{}: {} {}{mode}", rule.name, rule.action.as_str(), matched(&rule.applies_to))
}

fn in_dry_run(mode: Mode) -> &'static str {
    match mode {
        Mode::Enforce => "",
        Mode::DryRun => " (dry-run)",
    }
}

/// Whose requests are counted together.
pub(crate) fn per(key: &LimitKey) -> String {
    match key {
        LimitKey::Ip => "client".to_owned(),
        LimitKey::Prefix { v4, v6 } => format!("network (/{v4}, IPv6 /{v6})"),
        LimitKey::User => "user".to_owned(),
        LimitKey::Session => "session".to_owned(),
        LimitKey::Header(name) => format!("value of {name}"),
        LimitKey::IpAndPath => "client and path".to_owned(),
    }
}

/// Which requests a rule means, in words.
pub(crate) fn matched(rule: &RequestMatch) -> String {
    let mut text = match rule.methods.is_empty() {
        true => "all requests".to_owned(),
        false => format!("{} requests", rule.methods.join("/")),
    };
    let mut add = |word: &str, items: Vec<String>| {
        if !items.is_empty() {
            // Writing into a String cannot fail.
            let _ = write!(text, " {word} {}", items.join(", "));
        }
    };
    add("to", rule.paths.iter().map(|path| path.as_str().to_owned()).collect());
    add("at", rule.hosts.iter().map(|host| host.as_str().to_owned()).collect());
    add("of", rule.identities.iter().map(|who| format!("{who} clients").replace(':', " ")).collect());
    let or_unknown = rule.unknown_place.then(|| "an unknown place".to_owned());
    let countries = rule.countries.iter().map(|code| country(*code));
    let networks = rule.asns.iter().map(|asn| format!("AS{asn}"));
    add("from", countries.chain(networks).chain(or_unknown).collect());
    add("by", rule.user_agents.iter().map(|pattern| format!("{:?}", pattern.as_str())).collect());
    text
}

pub(super) fn country(code: [u8; 2]) -> String {
    code.iter().map(|letter| char::from(*letter)).collect()
}

/// The criteria under the names of the configuration; those that are left out are not there.
pub(super) fn criteria(rule: &RequestMatch) -> Value {
    let RequestMatch { paths, methods, hosts, identities, countries, asns, unknown_place, user_agents } =
        rule;
    let mut all = serde_json::Map::new();
    let mut add = |name: &str, items: Vec<Value>| {
        if !items.is_empty() {
            all.insert(name.to_owned(), Value::Array(items));
        }
    };
    add("paths", paths.iter().map(|path| json!(path.as_str())).collect());
    add("methods", methods.iter().map(|method| json!(method)).collect());
    add("hosts", hosts.iter().map(|host| json!(host.as_str())).collect());
    add("identity", identities.iter().map(|who| json!(who.to_string())).collect());
    add("countries", countries.iter().map(|code| json!(country(*code))).collect());
    add("asns", asns.iter().map(|asn| json!(asn)).collect());
    add("user_agents", user_agents.iter().map(|pattern| json!(pattern.as_str())).collect());
    if *unknown_place {
        all.insert("unknown_place".to_owned(), json!(true));
    }
    Value::Object(all)
}

/// A limit without its criteria.
pub(super) fn limit_json(limit: &LimitRule) -> Value {
    json!({
        "name": &*limit.name,
        "rate": limit.rate.map(|rate| rate.to_string()),
        "burst": limit.burst.map(|burst| burst.to_string()),
        "concurrency": limit.concurrency,
        "cost": limit.cost,
        "key": limit.key.to_string(),
        "mode": limit.mode.as_str(),
        "criteria": criteria(&limit.applies_to),
    })
}

pub(super) fn access_json(rule: &AccessRule) -> Value {
    json!({
        "name": &*rule.name,
        "action": rule.action.as_str(),
        "mode": rule.mode.as_str(),
        "criteria": criteria(&rule.applies_to),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_read_as_sentences() {
        let applies_to = RequestMatch {
            paths: vec!["/api/*".parse().unwrap()],
            methods: vec!["POST".into()],
            identities: vec!["role:staff".parse().unwrap(), "anonymous".parse().unwrap()],
            countries: vec![*b"DE"],
            asns: vec![64_500],
            unknown_place: true,
            user_agents: vec!["*bot*".parse().unwrap()],
            ..RequestMatch::default()
        };
        let rule = LimitRule {
            burst: "10/1s".parse().ok(),
            concurrency: Some(4),
            cost: 2,
            key: LimitKey::User,
            mode: Mode::DryRun,
            applies_to,
            ..LimitRule::per_client("api", "600/1m".parse().unwrap())
        };
        assert_eq!(
            limit_in_words(&rule),
            "api: 600/1m, burst 10/1s, each taking 2, 4 at once per user for POST requests to /api/* of role staff \
             clients, anonymous clients from DE, AS64500, an unknown place by \"*bot*\" (dry-run)"
        );
        assert_eq!(matched(&RequestMatch::default()), "all requests");
        assert_eq!(criteria(&RequestMatch::default()), json!({}));
    }
}
