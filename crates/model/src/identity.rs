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

impl Identity {
    /// What the log's user column, blocks of users and findings call it: the user, cut as the log cuts it, or
    /// `session:` and half of the session's number where nobody has said whose session it is.
    pub fn name(&self) -> Cow<'_, str> {
        match (&self.user, self.session) {
            (Some(user), _) => String::from_utf8_lossy(cut_text(user.as_bytes(), limits::USER)),
            (None, Some(session)) => Cow::Owned(format!("session:{:08x}", session >> 32)),
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
        let long = "é".repeat(100);
        let logged =
            crate::RecordText::new(crate::TextFields { user: long.as_bytes(), ..Default::default() });
        assert_eq!(of(Some(&long), None).name(), logged.user());
    }
}
