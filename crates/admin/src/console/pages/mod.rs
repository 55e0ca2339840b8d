//! The pages for people: a file each, with its routes.
//! Must not hold what two pages need: that belongs to the layout or to the words.

mod account;
mod audit;
mod blocks;
mod client;
mod decision;
mod findings;
mod limits;
mod login;
mod over_time;
mod overview;
mod requests;
mod settings;
mod setup;
mod tokens;
mod undo;
mod users;

use std::sync::Arc;

use axum::Router;

use portcullis_store::AccessRefusal;

use super::error::PageError;
use super::shared::Shared;

pub(super) use requests::MAX_EXPORTS;

/// Pages for whoever has signed in; what they change is for operators.
pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .merge(overview::routes())
        .merge(requests::routes())
        .merge(client::routes())
        .merge(findings::routes())
        .merge(blocks::routes())
        .merge(limits::routes())
        .merge(decision::routes())
        .merge(settings::routes())
        .merge(undo::routes())
        .merge(users::routes())
        .merge(tokens::routes())
        .merge(audit::routes())
}

/// What everybody who has signed in may change: their own.
pub(super) fn own_routes() -> Router<Arc<Shared>> {
    account::routes()
}

/// For whoever has not signed in.
pub(super) fn open_routes() -> Router<Arc<Shared>> {
    Router::new().merge(login::routes()).merge(setup::routes())
}

fn sentence(refusal: &AccessRefusal) -> String {
    let text = refusal.to_string();
    let mut characters = text.chars();
    characters
        .next()
        .map_or_else(String::new, |first| format!("{}{}", first.to_uppercase(), characters.as_str()))
}

fn refused(refusal: AccessRefusal) -> PageError {
    let sentence = format!("{}.", sentence(&refusal));
    match refusal {
        AccessRefusal::NoSuchUser => PageError::NotFound(sentence),
        AccessRefusal::LinkEnded => PageError::Forbidden(sentence),
        AccessRefusal::NameTaken
        | AccessRefusal::TooManyUsers
        | AccessRefusal::LastOperator
        | AccessRefusal::TokenNameTaken
        | AccessRefusal::TooManyTokens => PageError::Conflict(sentence),
    }
}
