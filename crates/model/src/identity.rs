//! Who a request is from, as far as the gateway itself has verified it.
//! Plain data. Must never hold what a client merely says.

use std::borrow::Cow;
use std::sync::Arc;

use crate::record::{cut_text, limits};

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

/// What the names of sessions begin with of which nobody has said whose they are.
const SESSION_PREFIX: &str = "session:";

/// Whether this name, as [`Identity::name`] gives it, is that of a session and of no user.
pub fn is_session_name(name: &str) -> bool {
    name.starts_with(SESSION_PREFIX)
}

impl Identity {
    /// What the log's user column, blocks of users and findings call it: the user, cut as the log cuts it, or
    /// `session:` and half of the session's number where nobody has said whose session it is.
    pub fn name(&self) -> Cow<'_, str> {
        match (&self.user, self.session) {
            (Some(user), _) => String::from_utf8_lossy(cut_text(user.as_bytes(), limits::USER)),
            (None, Some(session)) => Cow::Owned(format!("{SESSION_PREFIX}{:08x}", session >> 32)),
            (None, None) => Cow::Borrowed(""),
        }
    }

    /// Whether the user has this role.
    pub fn has_role(&self, role: &str) -> bool {
        self.roles.iter().any(|held| **held == *role)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_has_the_name_that_the_log_gives_it() {
        let of =
            |user: Option<&str>, session| Identity { user: user.map(Into::into), roles: Vec::new(), session };
        assert_eq!(of(Some("anna"), Some(7)).name(), "anna");
        assert_eq!(of(None, Some(0xab << 32)).name(), "session:000000ab");
        assert!(is_session_name(&of(None, Some(1)).name()) && !is_session_name("anna"));
        let long = "é".repeat(100);
        let logged =
            crate::RecordText::new(crate::TextFields { user: long.as_bytes(), ..Default::default() });
        assert_eq!(of(Some(&long), None).name(), logged.user());
    }
}
