//! Signing in with name and password.
//!
//! Owns its order: who is locked out is told so before anything is hashed, and a name that nobody has takes as long
//! as one that somebody has.

use std::net::IpAddr;
use std::sync::Arc;

use portcullis_model::{Secret, UnixMs};
use portcullis_store::{ConsoleUser, Credentials, State};

use super::attempts::{Account, Attempt, Locked, Refused};
use super::password::{Comparison, MAX_PASSWORD_BYTES, compare, hash_password};
use super::{MAX_NAME, Shared};
use crate::console::error::PageError;
use crate::console::words;

/// How a sign-in ended.
pub(in crate::console) enum SignIn {
    Done(ConsoleUser),
    Wrong,
    /// There were too many wrong ones.
    Locked(PageError),
}

impl Shared {
    pub(in crate::console) async fn sign_in(
        self: &Arc<Self>,
        name: &str,
        password: String,
        from: IpAddr,
    ) -> Result<SignIn, PageError> {
        let now = self.now();
        let credentials = self.credentials(name).await?;
        let account = match &credentials {
            Some(found) => Account::Known(found.user.id),
            None => self.access.attempts.unknown(name),
        };
        let forgotten = credentials.as_ref().and_then(|found| found.unlocked_at);
        let attempt = match self.access.attempts.begin(account, from, forgotten, now) {
            Ok(attempt) => attempt,
            Err(refused) => return Ok(SignIn::Locked(locked(name, &refused, now))),
        };
        let compared = self.compare(password, credentials.as_ref()).await;
        let compared = compared.inspect_err(|_| self.access.attempts.was_none(&attempt))?;
        match (compared, credentials) {
            (Some(renewed), Some(found)) if found.user.disabled_at.is_none() => {
                self.access.attempts.was_right(&attempt);
                self.renew(&found, renewed).await?;
                Ok(SignIn::Done(found.user))
            }
            (_, found) => {
                self.note_failure(found.map(|found| found.user), &attempt, from, now).await?;
                Ok(SignIn::Wrong)
            }
        }
    }

    /// Whether this is the password of somebody who has signed in.
    pub(in crate::console) async fn is_password_of(
        self: &Arc<Self>,
        name: &str,
        password: String,
        from: IpAddr,
    ) -> Result<bool, PageError> {
        match self.sign_in(name, password, from).await? {
            SignIn::Done(_) => Ok(true),
            SignIn::Wrong => Ok(false),
            SignIn::Locked(error) => Err(error),
        }
    }

    async fn credentials(self: &Arc<Self>, name: &str) -> Result<Option<Credentials>, PageError> {
        if name.is_empty() || name.len() > MAX_NAME {
            return Ok(None);
        }
        let name = name.to_owned();
        self.look_up(move |shared| State::open_read_only(&shared.data)?.credentials(&name)).await
    }

    /// `Some` when the password is right; inside, its hash of today's parameters when the one that is kept is not.
    async fn compare(
        &self,
        password: String,
        credentials: Option<&Credentials>,
    ) -> Result<Option<Option<Secret>>, PageError> {
        let hash = credentials.and_then(|found| found.password.clone());
        self.access
            .hasher
            .run(move || {
                let hash = hash.filter(|_| password.len() <= MAX_PASSWORD_BYTES);
                let Some(hash) = hash else {
                    // Takes as long as comparing does.
                    hash_password(password.get(..MAX_PASSWORD_BYTES).unwrap_or_default());
                    return None;
                };
                match compare(&password, &hash) {
                    Comparison::Wrong => None,
                    Comparison::Right => Some(None),
                    Comparison::RightButOld => Some(Some(hash_password(&password))),
                }
            })
            .await
    }

    async fn renew(self: &Arc<Self>, found: &Credentials, renewed: Option<Secret>) -> Result<(), PageError> {
        let (Some(new), Some(old)) = (renewed, found.password.clone()) else { return Ok(()) };
        let id = found.user.id;
        self.look_up(move |shared| {
            State::open_existing(&shared.data)?.rehash_console_password(id, &old, &new)
        })
        .await
    }

    async fn note_failure(
        self: &Arc<Self>,
        user: Option<ConsoleUser>,
        attempt: &Attempt,
        from: IpAddr,
        now: UnixMs,
    ) -> Result<(), PageError> {
        let locks = self.access.attempts.locks_after(attempt, now);
        let Some(left_out) = self.access.noting.note(now) else { return Ok(()) };
        let action = if locks.is_some() { "login-locked" } else { "login-failed" };
        let mut detail = match (&user, locks) {
            (Some(user), None) if user.disabled_at.is_some() => "the user is disabled".to_owned(),
            (_, None) => String::new(),
            (_, Some(Locked::Account)) => "too many wrong passwords for this name".to_owned(),
            (_, Some(Locked::Address)) => "too many wrong passwords from this address".to_owned(),
        };
        if left_out > 0 {
            detail += &format!(" (and {left_out} more failed before that are not listed)");
        }
        // A name that nobody has may be a password in the wrong field.
        let subject = user.map_or_else(|| "(no such user)".to_owned(), |user| user.name);
        self.look_up(move |shared| {
            State::open_existing(&shared.data)?.acting_from(from).note_act(
                "console",
                action,
                &subject,
                detail.trim(),
                now,
            )
        })
        .await
    }
}

fn locked(name: &str, refused: &Refused, now: UnixMs) -> PageError {
    let wait = refused.until.since(now);
    let minutes = wait.as_secs().div_ceil(60).max(1);
    let wait_words = words::count(minutes, "minute");
    // Only what can be a name is repeated, as a command to copy.
    let name = if super::check_name(name).is_ok() { name } else { "NAME" };
    let sentence = match refused.locked {
        Locked::Account => format!(
            "There were too many wrong passwords for this name. Wait {wait_words}, or run \
             \"portcullis console unlock {name}\" on the server."
        ),
        Locked::Address => format!(
            "There were too many wrong passwords from your address. Wait {wait_words}, or run \
             \"portcullis console link {name}\" on the server for a link that lets you in."
        ),
    };
    PageError::TooMany { sentence, wait }
}
