//! Who a request is from: reads tokens and cookies from heads, hands answers to the table of sessions, and keeps
//! the user header from clients. What any of it means is decided in the crate `identity`.

mod request;
mod response;
mod rules;
mod visit;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use portcullis_identity::{Sessions, TokenStats};
use portcullis_model::LoginOutcome;

pub(crate) use rules::IdentityRules;
pub(crate) use visit::Visit;

/// What is learned and counted while the gateway runs. A reload leaves it as it is.
#[derive(Default)]
pub struct Identities {
    /// Empty until the binary has opened the table: until then no session is known.
    sessions: OnceLock<Sessions>,
    pub tokens: TokenStats,
    logins: [AtomicU64; LoginOutcome::ALL.len()],
    ambiguous_cookies: AtomicU64,
}

impl Identities {
    /// Hands in the table of sessions, once; later ones are dropped.
    pub fn open(&self, sessions: Sessions) {
        let _ = self.sessions.set(sessions);
    }

    /// The table, if it has been opened.
    pub fn sessions(&self) -> Option<&Sessions> {
        self.sessions.get()
    }

    /// Logins that were seen to end so.
    pub fn logins(&self, outcome: LoginOutcome) -> u64 {
        self.logins[outcome as usize].load(Ordering::Relaxed)
    }

    /// Requests with several values of the session's cookie, which are anonymous.
    pub fn ambiguous_cookies(&self) -> u64 {
        self.ambiguous_cookies.load(Ordering::Relaxed)
    }

    fn login_ended(&self, outcome: LoginOutcome) {
        self.logins[outcome as usize].fetch_add(1, Ordering::Relaxed);
    }
}
