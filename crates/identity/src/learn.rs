//! What an answer of the upstream teaches about its client's session: the one place where somebody becomes
//! known by a cookie. Every rule here errs on the side of "anonymous".

use std::sync::Arc;

use portcullis_model::{Identity, UnixMs};

use crate::claims::{usable_roles, usable_user};
use crate::{CookieChange, Known, Sessions};

/// What the request was for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Step {
    /// Neither of the others.
    #[default]
    Visit,
    /// Name and password were sent to a login path.
    Login,
    Logout,
}

/// Who the user of a session is, in the upstream's words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Who {
    pub user: Option<Arc<str>>,
    pub roles: Vec<Box<str>>,
}

impl Who {
    pub(crate) fn with_session(self, session: Option<u64>) -> Identity {
        Identity { user: self.user, roles: self.roles, session }
    }
}

/// What the upstream's user header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// There is none, or it cannot be a name.
    Unsaid,
    /// It is empty: nobody is logged in.
    Nobody,
    Somebody(Who),
}

impl Named {
    /// Reads the header's value, and the roles' with commas between them.
    pub fn read(user: Option<&[u8]>, roles: Option<&[u8]>) -> Self {
        let Some(user) = user else { return Self::Unsaid };
        if user.trim_ascii().is_empty() {
            return Self::Nobody;
        }
        match std::str::from_utf8(user).ok().and_then(usable_user) {
            Some(user) => {
                let roles = roles.and_then(|roles| std::str::from_utf8(roles).ok()).unwrap_or_default();
                Self::Somebody(Who { user: Some(user), roles: usable_roles(roles.split(',')) })
            }
            None => Self::Unsaid,
        }
    }
}

/// The upstream's answer, as far as it concerns sessions.
#[derive(Clone, Debug)]
pub struct Answer<'a> {
    pub step: Step,
    pub cookie: CookieChange<'a>,
    pub named: Named,
    /// The status is one of a successful login, and the answer does not lead back to a login page.
    pub looks_successful: bool,
    /// The status is one of a failed login.
    pub looks_failed: bool,
    /// Below 400.
    pub is_done: bool,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Learned {
    /// The session that this answer began, to take it back with if the rest of the answer says otherwise.
    pub opened: Option<u128>,
    pub login_failed: bool,
}

impl Sessions {
    /// Learns from an answer to a request that came with the session `known`.
    pub fn learn(&self, known: Option<&Known>, answer: Answer<'_>, now: UnixMs) -> Learned {
        let login_failed = answer.step == Step::Login && answer.looks_failed;
        let learned = Learned { opened: None, login_failed };
        if answer.step == Step::Logout && answer.is_done {
            // A new value is that of a stranger.
            self.leave(known);
            return learned;
        }
        let is_login = answer.step == Step::Login && answer.looks_successful && !login_failed;
        match (answer.cookie, answer.named) {
            (_, Named::Nobody) => self.leave(known),
            // Issued in the very answer that says whose it is: single sign-on has no form of its own.
            (CookieChange::Set(value), Named::Somebody(who)) => {
                let is_same = known.is_some_and(|known| known.identity().user == who.user);
                return match known.filter(|_| is_same) {
                    Some(known) => {
                        self.rotate(known, value, Some(who), now);
                        learned
                    }
                    None => self.begin(known, value, who, now, learned),
                };
            }
            (CookieChange::Set(value), Named::Unsaid) if is_login => {
                return self.begin(known, value, Who::default(), now, learned);
            }
            (CookieChange::Set(value), Named::Unsaid) => {
                if let Some(known) = known {
                    self.rotate(known, value, None, now);
                }
            }
            (CookieChange::Removed, Named::Unsaid | Named::Somebody(_)) => self.leave(known),
            (CookieChange::None, Named::Somebody(who)) => {
                if let Some(known) = known {
                    self.rename(known, who);
                }
            }
            (CookieChange::None, Named::Unsaid) => {}
        }
        learned
    }

    /// Takes back what an answer began whose body says that the login failed.
    pub fn take_back(&self, learned: Learned) {
        if let Some(hash) = learned.opened {
            self.close(hash);
        }
    }

    fn begin(&self, old: Option<&Known>, cookie: &[u8], who: Who, now: UnixMs, learned: Learned) -> Learned {
        self.leave(old);
        Learned { opened: Some(self.open(cookie, who, now)), ..learned }
    }

    fn leave(&self, known: Option<&Known>) {
        if let Some(known) = known {
            self.close(known.hash);
        }
    }
}
