//! Which requests a rule means: lists of patterns that have to hold together.
//!
//! Owns what each criterion means, unknown values included. Must not look anything up: [`Needs`] says what the
//! caller has to fill into the facts.

use std::fmt;
use std::str::FromStr;

use portcullis_model::Identity;

use crate::{HostPattern, PathPattern, PatternError, Place, RequestFacts, TextPattern};

/// Which requests a rule means. Of each list one item must match; an empty list means "any".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestMatch {
    pub paths: Vec<PathPattern>,
    /// Upper case.
    pub methods: Vec<Box<str>>,
    pub hosts: Vec<HostPattern>,
    pub identities: Vec<IdentityMatch>,
    /// ISO 3166-1 alpha-2, upper case.
    pub countries: Vec<[u8; 2]>,
    /// Numbers of autonomous systems.
    pub asns: Vec<u32>,
    /// Whether `countries` and `asns` also mean clients of which it is not known.
    pub unknown_place: bool,
    pub user_agents: Vec<TextPattern>,
}

/// Whose requests a rule means, as far as the gateway has verified it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentityMatch {
    Anonymous,
    /// Anybody who is not anonymous.
    Authenticated,
    User(Box<str>),
    Role(Box<str>),
}

/// What a set of rules asks for beyond what every request brings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    pub place: bool,
    pub user_agent: bool,
}

impl Needs {
    /// What one of the two or both need.
    pub fn or(self, other: Self) -> Self {
        Self { place: self.place || other.place, user_agent: self.user_agent || other.user_agent }
    }
}

impl RequestMatch {
    /// Methods are compared without case, since some applications read `post` as `POST`.
    pub fn matches(&self, facts: &RequestFacts<'_>) -> bool {
        (self.methods.is_empty() || self.methods.iter().any(|m| m.eq_ignore_ascii_case(facts.method)))
            && (self.hosts.is_empty() || self.hosts.iter().any(|h| h.matches(facts.host)))
            && (self.paths.is_empty() || self.paths.iter().any(|p| p.matches(&facts.path)))
            && (self.identities.is_empty() || self.identities.iter().any(|who| who.matches(facts.identity)))
            && self.matches_place(facts.place)
            && (self.user_agents.is_empty() || self.user_agents.iter().any(|p| p.matches(facts.user_agent)))
    }

    fn matches_place(&self, Place { country, asn }: Place) -> bool {
        let country_fits = self.countries.is_empty()
            || country.map_or(self.unknown_place, |country| self.countries.contains(&country));
        let asn_fits = self.asns.is_empty() || asn.map_or(self.unknown_place, |asn| self.asns.contains(&asn));
        country_fits && asn_fits
    }

    /// What the facts must have for [`RequestMatch::matches`] to be right.
    pub fn needs(&self) -> Needs {
        Needs {
            place: !self.countries.is_empty() || !self.asns.is_empty(),
            user_agent: !self.user_agents.is_empty(),
        }
    }

    /// Whether it means every request.
    pub fn is_everything(&self) -> bool {
        let Self { paths, methods, hosts, identities, countries, asns, unknown_place: _, user_agents } = self;
        paths.is_empty()
            && methods.is_empty()
            && hosts.is_empty()
            && identities.is_empty()
            && countries.is_empty()
            && asns.is_empty()
            && user_agents.is_empty()
    }
}

impl IdentityMatch {
    /// Whether it means this one; `None` is anonymous.
    pub fn matches(&self, identity: Option<&Identity>) -> bool {
        match (self, identity) {
            (Self::Anonymous, identity) => identity.is_none(),
            (Self::Authenticated, identity) => identity.is_some(),
            (Self::User(_) | Self::Role(_), None) => false,
            (Self::User(name), Some(identity)) => identity.user.as_deref() == Some(&**name),
            (Self::Role(role), Some(identity)) => identity.has_role(role),
        }
    }
}

impl FromStr for IdentityMatch {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            None if text == "anonymous" => Ok(Self::Anonymous),
            None if text == "authenticated" => Ok(Self::Authenticated),
            Some(("user", name)) if !name.is_empty() => Ok(Self::User(name.into())),
            Some(("role", name)) if !name.is_empty() => Ok(Self::Role(name.into())),
            _ => Err(PatternError(format!(
                "expected \"anonymous\", \"authenticated\", \"user:NAME\" or \"role:NAME\", got {text:?}"
            ))),
        }
    }
}

impl fmt::Display for IdentityMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("anonymous"),
            Self::Authenticated => f.write_str("authenticated"),
            Self::User(name) => write!(f, "user:{name}"),
            Self::Role(name) => write!(f, "role:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts<'a>(identity: Option<&'a Identity>, place: Place, user_agent: &'a str) -> RequestFacts<'a> {
        let client = "192.0.2.1".parse().unwrap();
        RequestFacts {
            identity,
            place,
            user_agent,
            ..RequestFacts::new(client, "POST", "example.com", "/login".into())
        }
    }

    fn alice() -> Identity {
        Identity { user: Some("alice".into()), roles: vec!["staff".into()], session: None }
    }

    #[test]
    fn all_criteria_must_hold_and_of_each_list_one_item() {
        let rule = RequestMatch {
            paths: vec!["/login".parse().unwrap(), "/admin/*".parse().unwrap()],
            methods: vec!["POST".into()],
            identities: vec![IdentityMatch::Role("staff".into()), IdentityMatch::User("bob".into())],
            countries: vec![*b"DE", *b"FR"],
            user_agents: vec!["*curl/*".parse().unwrap()],
            ..RequestMatch::default()
        };
        let (alice, paris) = (alice(), Place { country: Some(*b"FR"), asn: None });
        assert!(rule.matches(&facts(Some(&alice), paris, "CURL/8.1")));
        assert!(!rule.matches(&facts(None, paris, "curl/8.1")));
        assert!(!rule.matches(&facts(Some(&alice), Place::default(), "curl/8.1")));
        assert!(!rule.matches(&facts(Some(&alice), paris, "Mozilla/5.0")));
        let get = RequestFacts { method: "GET", ..facts(Some(&alice), paris, "curl/8.1") };
        assert!(!rule.matches(&get));
    }

    #[test]
    fn an_unknown_place_matches_only_where_the_rule_says_so() {
        let nowhere = facts(None, Place::default(), "");
        for unknown_place in [false, true] {
            let by_country =
                RequestMatch { countries: vec![*b"DE"], unknown_place, ..RequestMatch::default() };
            let by_asn = RequestMatch { asns: vec![64_500], unknown_place, ..RequestMatch::default() };
            assert_eq!(by_country.matches(&nowhere), unknown_place);
            assert_eq!(by_asn.matches(&nowhere), unknown_place);
            let elsewhere = Place { country: Some(*b"US"), asn: Some(1) };
            assert!(!by_country.matches(&facts(None, elsewhere, "")));
            assert!(!by_asn.matches(&facts(None, elsewhere, "")));
            let there = Place { country: Some(*b"DE"), asn: Some(64_500) };
            assert!(by_country.matches(&facts(None, there, "")) && by_asn.matches(&facts(None, there, "")));
        }
    }

    #[test]
    fn identities_mean_what_was_verified() {
        let alice = alice();
        let matches = |text: &str, who| text.parse::<IdentityMatch>().unwrap().matches(who);
        for (text, of_alice, of_nobody) in [
            ("anonymous", false, true),
            ("authenticated", true, false),
            ("user:alice", true, false),
            ("user:bob", false, false),
            ("role:staff", true, false),
            ("role:admin", false, false),
        ] {
            assert_eq!((matches(text, Some(&alice)), matches(text, None)), (of_alice, of_nobody), "{text}");
            assert_eq!(text.parse::<IdentityMatch>().unwrap().to_string(), text);
        }
        for bad in ["", "user:", "alice", "roles:x", "Anonymous"] {
            assert!(bad.parse::<IdentityMatch>().is_err(), "{bad}");
        }
    }

    #[test]
    fn rules_say_what_they_need() {
        let everything = RequestMatch::default();
        assert!(everything.is_everything() && everything.needs() == Needs::default());
        let by_place = RequestMatch { asns: vec![1], ..RequestMatch::default() };
        let by_agent = RequestMatch { user_agents: vec!["*".parse().unwrap()], ..RequestMatch::default() };
        assert!(!by_place.is_everything() && !by_agent.is_everything());
        assert_eq!(by_place.needs().or(by_agent.needs()), Needs { place: true, user_agent: true });
    }
}
