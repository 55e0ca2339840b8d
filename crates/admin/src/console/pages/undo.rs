//! Takes back what was just done.
//! Must not know what there is to take back.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::Redirect;
use axum::routing::post;
use serde::Deserialize;

use crate::console::actions;
use crate::console::error::PageError;
use crate::console::forms::Change;
use crate::console::shared::Shared;

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new().route("/undo", post(take_back))
}

#[derive(Deserialize)]
struct Key {
    key: String,
}

async fn take_back(
    State(shared): State<Arc<Shared>>,
    Change { visitor, form: Key { key } }: Change<Key>,
) -> Result<Redirect, PageError> {
    let notice = shared.notices.take(&visitor, &key);
    let kept = notice.and_then(|notice| notice.undo.clone().map(|undo| (undo, notice)));
    let Some((undo, notice)) = kept else {
        return Err(PageError::Conflict(
            "This was taken back already, or is too long ago for a button: change it on its page.".to_owned(),
        ));
    };
    let text = shared.act(&visitor, move |state, author| actions::undo(state, &undo, author)).await?;
    Ok(Redirect::to(&shared.notices.keep(&visitor, &notice.page, text, None)))
}
