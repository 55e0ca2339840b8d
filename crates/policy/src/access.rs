//! The access list: who may ask for what at all. The first rule that matches decides.
//! Must not count, and must not lift a block or a limit: an "allow" of this list only ends the list.

use std::sync::Arc;

use crate::{Mode, RequestFacts, RequestMatch, Snapshot};

/// The most access rules of a configuration.
pub const MAX_ACCESS_RULES: usize = 1_000;

/// What an access rule does with the requests that it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessAction {
    /// Ends the list; blocks have been asked already, limits still are.
    Allow,
    /// Refuses with 403.
    Deny,
}

impl AccessAction {
    pub const ALL: [Self; 2] = [Self::Allow, Self::Deny];

    /// The word that the configuration uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

/// One entry of the access list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessRule {
    /// Unique.
    pub name: Arc<str>,
    pub action: AccessAction,
    pub mode: Mode,
    pub applies_to: RequestMatch,
}

/// The rule that denies the request, if one does. A rule in dry-run is passed over; it is the answer when no other
/// denies.
pub(crate) fn denial<'r>(rules: &'r Snapshot, facts: &RequestFacts<'_>) -> Option<&'r Arc<AccessRule>> {
    let mut would_deny = None;
    for rule in rules.access.iter().filter(|rule| rule.applies_to.matches(facts)) {
        match (rule.action, rule.mode) {
            (AccessAction::Deny, Mode::Enforce) => return Some(rule),
            (AccessAction::Allow, Mode::Enforce) => break,
            (AccessAction::Deny, Mode::DryRun) => would_deny = would_deny.or(Some(rule)),
            (AccessAction::Allow, Mode::DryRun) => {}
        }
    }
    would_deny
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Place;

    fn rule(name: &str, action: AccessAction, mode: Mode, countries: &[[u8; 2]]) -> Arc<AccessRule> {
        let applies_to = RequestMatch { countries: countries.to_vec(), ..RequestMatch::default() };
        Arc::new(AccessRule { name: name.into(), action, mode, applies_to })
    }

    fn denied(access: Vec<Arc<AccessRule>>, country: [u8; 2]) -> Option<String> {
        let rules = Snapshot { access, ..Snapshot::default() };
        let place = Place { country: Some(country), asn: None };
        let client = "192.0.2.1".parse().unwrap();
        let facts = RequestFacts { place, ..RequestFacts::new(client, "GET", "a", "/".into()) };
        denial(&rules, &facts).map(|rule| rule.name.to_string())
    }

    #[test]
    fn the_first_match_decides() {
        use AccessAction::{Allow, Deny};
        let list = || {
            vec![
                rule("home", Allow, Mode::Enforce, &[*b"DE"]),
                rule("not-here", Deny, Mode::Enforce, &[*b"DE", *b"US"]),
                rule("rest", Deny, Mode::Enforce, &[]),
            ]
        };
        assert_eq!(denied(list(), *b"DE"), None);
        assert_eq!(denied(list(), *b"US"), Some("not-here".to_owned()));
        assert_eq!(denied(list(), *b"FR"), Some("rest".to_owned()));
        assert_eq!(denied(Vec::new(), *b"FR"), None);
    }

    #[test]
    fn a_dry_run_rule_neither_denies_nor_ends_the_list() {
        use AccessAction::{Allow, Deny};
        let tried = rule("tried", Deny, Mode::DryRun, &[]);
        assert_eq!(denied(vec![Arc::clone(&tried)], *b"DE"), Some("tried".to_owned()));
        let real = rule("real", Deny, Mode::Enforce, &[]);
        assert_eq!(denied(vec![Arc::clone(&tried), real], *b"DE"), Some("real".to_owned()));
        let home = rule("home", Allow, Mode::Enforce, &[]);
        assert_eq!(denied(vec![tried, home], *b"DE"), Some("tried".to_owned()), "it would have come first");
    }
}
