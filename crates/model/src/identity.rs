//! Who a request is from, as far as the gateway itself has verified it.
//! Plain data. Must never hold what a client merely says.

use std::sync::Arc;

/// A verified identity: of a signed token, or of a session that the upstream was seen to issue. At least one of
/// `user` and `session` is there; who has neither is anonymous, and has no `Identity`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The user's name or number, as the token or the upstream says it.
    pub user: Option<Arc<str>>,
    /// In the order in which the token names them.
    pub roles: Vec<Box<str>>,
    /// A keyed hash of the session's cookie, never the cookie itself.
    pub session: Option<u64>,
}

impl Identity {
    /// Whether the user has this role.
    pub fn has_role(&self, role: &str) -> bool {
        self.roles.iter().any(|held| **held == *role)
    }
}
