//! `config/originals.toml` has exactly the limits of the projects that the gateway takes over from.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::path::Path;

use portcullis_config::{Config, Overrides, TEMPLATE, load, parse};
use portcullis_policy::{IdentityMatch, LimitKey, LimitRule, RequestMatch};

#[test]
fn the_originals_limits_are_theirs_and_all_else_is_the_default() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/originals.toml");
    let config = load(Some(&file), &Overrides::default()).unwrap().config;
    let of = |name, rate: &str, key, applies_to| LimitRule {
        key,
        applies_to,
        ..LimitRule::per_client(name, rate.parse().unwrap())
    };
    let only = |who| RequestMatch { identities: vec![who], ..RequestMatch::default() };
    let logins = RequestMatch {
        paths: vec!["*/login".parse().unwrap()],
        methods: vec!["POST".into()],
        ..RequestMatch::default()
    };
    let expected = [
        of("anonymous", "5/1m", LimitKey::Ip, only(IdentityMatch::Anonymous)),
        of("authenticated", "10/1m", LimitKey::User, only(IdentityMatch::Authenticated)),
        of("login", "3/5m", LimitKey::Ip, logins),
    ];
    assert!(config.limits.iter().map(AsRef::as_ref).eq(&expected), "{:#?}", config.limits);
    let base = file.parent().unwrap();
    let defaults = parse(TEMPLATE, "portcullis.toml", base, &Overrides::default()).unwrap();
    let sessions = config.identity.sessions.as_ref().unwrap();
    assert_eq!(sessions.cookie, "sessionid");
    let identity = config.identity.clone();
    assert_eq!(config, Config { limits: config.limits.clone(), identity, ..defaults });
}
