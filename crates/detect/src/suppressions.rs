//! What a person has said is no attack, for good. Owns which rule is silent about whom or what; must not know why.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::path::{is_at_or_below, normalise};

/// The most suppressions that are looked at.
pub const MAX_SUPPRESSIONS: usize = 1_000;

/// One rule is silent: about one network, about what happens at or below one path, or about everybody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suppression {
    /// Names the suppression where it took effect.
    pub id: i64,
    /// As findings call it.
    pub rule: String,
    pub scope: Scope,
}

/// What a rule is silent about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    Everybody,
    Clients(IpNet),
    /// A path and everything below it.
    Path(String),
}

/// All of them, ready to be asked for each request.
#[derive(Clone, Debug, Default)]
pub struct Suppressions {
    /// About everybody or some clients.
    clients: Vec<Suppression>,
    /// About paths, in their normal form.
    paths: Vec<(Suppression, String)>,
}

impl Suppressions {
    /// The first [`MAX_SUPPRESSIONS`] of them.
    pub fn new(all: impl IntoIterator<Item = Suppression>) -> Self {
        let mut suppressions = Self::default();
        for one in all.into_iter().take(MAX_SUPPRESSIONS) {
            match &one.scope {
                Scope::Everybody | Scope::Clients(_) => suppressions.clients.push(one),
                Scope::Path(path) => {
                    let normal = normalise(path).into_owned();
                    suppressions.paths.push((one, normal));
                }
            }
        }
        suppressions
    }

    pub fn is_empty(&self) -> bool {
        self.clients.is_empty() && self.paths.is_empty()
    }

    /// What makes the rule silent about a client: its address, or the first one of its /64.
    pub fn of_client(&self, rule: &str, client: IpAddr) -> Option<&Suppression> {
        self.clients.iter().find(|one| {
            one.rule == rule
                && match &one.scope {
                    Scope::Everybody => true,
                    Scope::Clients(network) => holds(network, client),
                    Scope::Path(_) => false,
                }
        })
    }

    /// What makes the rule silent about requests for a normalised path: they are no evidence for it.
    pub fn of_path(&self, rule: &str, normal: &str) -> Option<&Suppression> {
        let at = self.paths.iter().find(|(one, prefix)| one.rule == rule && is_below(normal, prefix));
        at.map(|(one, _)| one)
    }
}

/// Of IPv6 a client is a /64 and is known by its first address.
fn holds(network: &IpNet, client: IpAddr) -> bool {
    match (network, client) {
        (IpNet::V6(v6), IpAddr::V6(client)) if v6.prefix_len() > 64 => {
            u128::from(v6.network()) >> 64 == u128::from(client) >> 64
        }
        (network, client) => network.contains(&client),
    }
}

fn is_below(normal: &str, prefix: &str) -> bool {
    prefix == "/" || is_at_or_below(normal, prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Suppressions {
        let one = |id, rule: &str, scope| Suppression { id, rule: rule.to_owned(), scope };
        Suppressions::new([
            one(1, "error_rate", Scope::Everybody),
            one(2, "path_probing", Scope::Clients("203.0.113.0/28".parse().unwrap())),
            one(3, "path_probing", Scope::Clients("2001:db8::7/128".parse().unwrap())),
            one(4, "sensitive_files", Scope::Path("/Old//shop/".to_owned())),
        ])
    }

    #[test]
    fn a_rule_is_silent_about_the_client_that_was_dismissed_and_about_no_other() {
        let all = all();
        let silent =
            |rule: &str, client: &str| all.of_client(rule, client.parse().unwrap()).map(|one| one.id);
        assert_eq!(silent("error_rate", "198.51.100.1"), Some(1));
        assert_eq!(silent("path_probing", "203.0.113.9"), Some(2));
        assert_eq!(silent("path_probing", "203.0.113.19"), None);
        assert_eq!(silent("login_failures", "203.0.113.9"), None);
        // The key of the whole /64.
        assert_eq!(silent("path_probing", "2001:db8::"), Some(3));
        assert_eq!(silent("path_probing", "2001:db8:0:1::"), None);
    }

    #[test]
    fn a_rule_is_silent_below_a_path_however_it_is_spelled() {
        let all = all();
        let silent = |rule: &str, path: &str| all.of_path(rule, &normalise(path)).is_some();
        assert!(
            silent("sensitive_files", "/old/shop") && silent("sensitive_files", "/old/shop/wp-login.php")
        );
        assert!(!silent("sensitive_files", "/old/shopping") && !silent("path_probing", "/old/shop"));
        assert!(!all.is_empty() && Suppressions::default().is_empty());
    }

    #[test]
    fn there_are_not_more_than_can_be_asked_for_each_request() {
        let many = (0..2_000).map(|id| Suppression { id, rule: "x".to_owned(), scope: Scope::Everybody });
        assert_eq!(Suppressions::new(many).clients.len(), MAX_SUPPRESSIONS);
    }
}
