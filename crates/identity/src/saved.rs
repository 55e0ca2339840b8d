//! The sessions as a file holds them between two runs: keyed hashes, never a cookie's value. Whoever reads it
//! without the key can use none of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use portcullis_model::{Identity, UnixMs};
use serde::{Deserialize, Serialize};

use crate::claims::{usable_roles, usable_user};
use crate::sessions::Session;
use crate::{IdentityError, MAX_SESSIONS, SessionRules, Sessions};

/// The largest file that is read, in bytes.
pub const MAX_SAVED_BYTES: u64 = 256 << 20;
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Document {
    version: u32,
    sessions: Vec<Row>,
    /// Those that are to be forgotten.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    ended: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Row {
    /// Hexadecimal, since JSON's numbers are too small.
    hash: String,
    number: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    roles: Vec<String>,
    began: i64,
    last_seen: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    replaced: Option<i64>,
}

impl Sessions {
    /// All sessions, as JSON.
    pub fn export(&self) -> Vec<u8> {
        let sessions = self.table.iter().map(|(hash, session)| Row::of(*hash, &session)).collect();
        Document { version: VERSION, sessions, ended: Vec::new() }.encode()
    }

    /// What has begun and ended since [`Self::note_changes`] or the last call; `None` is nothing.
    pub fn export_changes(&self) -> Option<Vec<u8>> {
        let noted = self.take_noted()?;
        let row = |hash: u128| self.table.get(&hash).map(|session| Row::of(hash, &session));
        let sessions = noted.begun.into_iter().filter_map(row).collect();
        let ended = noted.ended.into_iter().map(hex).collect();
        Some(Document { version: VERSION, sessions, ended }.encode())
    }

    /// Saved sessions without those that go by this name in the log, and how many those were; `None` is none.
    ///
    /// # Errors
    /// They are not what [`Self::export`] or [`Self::export_changes`] writes.
    pub fn without_user(saved: &[u8], name: &str) -> Result<Option<(Vec<u8>, usize)>, IdentityError> {
        let mut document = Document::decode(saved)?;
        let before = document.sessions.len();
        document.sessions.retain(|row| row.name() != name);
        let gone = before - document.sessions.len();
        Ok((gone > 0).then(|| (document.encode(), gone)))
    }

    /// Takes over saved sessions that have not ended, beside those that are there, which win but for values
    /// that have been replaced. Returns how many.
    ///
    /// # Errors
    /// They are not what [`Self::export`] or [`Self::export_changes`] writes; nothing is taken over.
    pub fn import(&self, saved: &[u8], rules: &SessionRules, now: UnixMs) -> Result<usize, IdentityError> {
        let document = Document::decode(saved)?;
        for hash in document.ended.iter().filter_map(|hash| u128::from_str_radix(hash, 16).ok()) {
            self.close(hash);
        }
        let mut taken = 0;
        // A table in use may hold a few more than its maximum when it is written.
        for row in document.sessions.into_iter().take(MAX_SESSIONS) {
            let Some((hash, session)) = row.into_session() else { continue };
            if session.has_ended(rules, now) {
                continue;
            }
            match self.table.get(&hash) {
                Some(held) => held.end_like(&session),
                None => {
                    self.insert(hash, session);
                    taken += 1;
                }
            }
        }
        self.table.run_pending_tasks();
        Ok(taken)
    }
}

impl Document {
    fn decode(saved: &[u8]) -> Result<Self, IdentityError> {
        let problem = |problem: String| IdentityError::SavedSessions { problem };
        let document: Self = serde_json::from_slice(saved).map_err(|error| problem(error.to_string()))?;
        if document.version != VERSION {
            return Err(problem(format!("version {} is unknown", document.version)));
        }
        Ok(document)
    }

    fn encode(&self) -> Vec<u8> {
        // There is nothing in it that cannot be JSON.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

fn hex(hash: u128) -> String {
    format!("{hash:032x}")
}

impl Row {
    fn of(hash: u128, session: &Session) -> Self {
        let identity = &session.identity;
        let replaced = session.replaced.load(Ordering::Relaxed);
        Self {
            hash: hex(hash),
            number: identity.session.unwrap_or_default(),
            user: identity.user.as_deref().map(str::to_owned),
            roles: identity.roles.iter().map(ToString::to_string).collect(),
            began: session.began.0,
            last_seen: session.last_seen.load(Ordering::Relaxed),
            replaced: (replaced < i64::MAX).then_some(replaced),
        }
    }

    /// As [`Identity::name`] has it.
    fn name(&self) -> String {
        let user = self.user.as_deref().map(Arc::from);
        Identity { user, roles: Vec::new(), session: Some(self.number) }.name().into_owned()
    }

    fn into_session(self) -> Option<(u128, Session)> {
        let hash = u128::from_str_radix(&self.hash, 16).ok()?;
        let user = match &self.user {
            Some(user) => Some(usable_user(user)?),
            None => None,
        };
        let roles = usable_roles(self.roles.iter().map(String::as_str));
        let identity = Arc::new(Identity { user, roles, session: Some(self.number) });
        let session = Session {
            identity,
            began: UnixMs(self.began),
            last_seen: AtomicI64::new(self.last_seen),
            replaced: AtomicI64::new(self.replaced.unwrap_or(i64::MAX)),
        };
        Some((hash, session))
    }
}
