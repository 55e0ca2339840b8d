//! The blocks in force as a list for another program.
//! Must not know the formats.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;

use super::Asked;
use crate::console::error::PageError;
use crate::console::shared::Shared;
use crate::console::visitor::Visitor;

#[derive(Deserialize)]
pub(super) struct Form {
    #[serde(default)]
    format: String,
    #[serde(default)]
    source: String,
}

pub(super) async fn export(
    State(shared): State<Arc<Shared>>,
    _visitor: Visitor,
    Query(Form { format, source }): Query<Form>,
) -> Result<Response, PageError> {
    let source = Asked { source, ..Asked::default() }.source()?;
    let (content_type, name) = match format.as_str() {
        "csv" => ("text/csv; charset=utf-8", "blocks.csv"),
        "json" => ("application/json", "blocks.json"),
        "nginx" => ("text/plain; charset=utf-8", "blocks.conf"),
        _ => ("text/plain; charset=utf-8", "blocks.txt"),
    };
    let now = shared.now();
    let mut blocks = shared.state(move |state| state.active_blocks(now)).await?;
    let text = shared
        .blocking(move |shared| {
            blocks.retain(|block| source.is_none_or(|source| block.source == source));
            shared.running.write_list(&format, &blocks).map_err(PageError::Invalid)
        })
        .await?;
    let headers = [
        (CONTENT_TYPE, content_type.to_owned()),
        (CONTENT_DISPOSITION, format!("attachment; filename=\"{name}\"")),
    ];
    Ok((headers, text).into_response())
}
