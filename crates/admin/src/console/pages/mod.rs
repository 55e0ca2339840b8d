//! The pages for people: a file each, with its routes.
//! Must not hold what two pages need: that belongs to the layout or to the words.

mod blocks;
mod client;
mod decision;
mod findings;
mod limits;
mod overview;
mod requests;
mod settings;
mod undo;

use std::sync::Arc;

use axum::Router;

use super::shared::Shared;

pub(super) use requests::MAX_EXPORTS;

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
}
