//! Links that let somebody into the console once, as the terminal prints them.
//! Must not write a token anywhere.

use portcullis_admin::{LINK_LASTS, digest_of, new_token};
use portcullis_model::UnixMs;
use portcullis_store::{AccessRefusal, State, StoreError};

/// The link that makes the first account, in the place of any before; `None` when there is somebody already.
pub(crate) fn first_link(
    state: &mut State,
    console: &str,
    actor: &str,
    now: UnixMs,
) -> Result<Option<String>, StoreError> {
    if state.has_console_users()? {
        return Ok(None);
    }
    Ok(link(state, None, console, actor, now)?.ok())
}

/// A link for a user, or for the first account. `console` is the console's address without a slash at the end.
pub(crate) fn link(
    state: &mut State,
    user_id: Option<i64>,
    console: &str,
    actor: &str,
    now: UnixMs,
) -> Result<Result<String, AccessRefusal>, StoreError> {
    let token = new_token();
    let made = state.make_link(&digest_of(&token), user_id, now.plus(LINK_LASTS), actor, now)?;
    Ok(made.map(|()| format!("{console}/setup?token={}", token.expose())))
}
