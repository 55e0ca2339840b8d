//! New requests of the filter, told as they come.
//! Must not hold up anybody: a tail that falls behind leaves rows out and says so.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::HeaderMap;
use axum::response::Response;
use axum::response::sse::Event;
use portcullis_store::{LogCursor, LogFilter, LogRow, StoreError};
use serde::Serialize;

use super::asked::Asked;
use super::{columns, pairs};
use crate::console::error::PageError;
use crate::console::shared::Shared;
use crate::console::streams;

/// Rows that are told at once. More come faster than anybody reads.
const MAX_ROWS: usize = 100;

/// What one event says.
#[derive(Serialize)]
struct Told {
    /// Rows of the table as HTML, the newest first.
    rows: String,
    count: usize,
    /// More came than are told.
    has_skipped: bool,
}

#[derive(Clone)]
struct Tail {
    asked: Arc<Asked>,
    filter: Arc<LogFilter>,
    /// `None` until the end of the log has been looked up.
    cursor: Option<LogCursor>,
}

/// Goes on where the last stream of the same page ended, if that is known.
pub(super) async fn follow(
    State(shared): State<Arc<Shared>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, PageError> {
    let asked = Asked::of(&pairs(query));
    let filter = asked.filter(shared.now()).map_err(|faults| {
        let (field, why) = &faults[0];
        PageError::Invalid(format!("{}: {why}.", field.label()))
    })?;
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    let tail = Tail { asked: Arc::new(asked), filter: Arc::new(filter), cursor: last };
    let streams = Arc::clone(&shared.streams);
    streams::tell(&streams, tail, move |tail| look(Arc::clone(&shared), tail))
}

async fn look(shared: Arc<Shared>, tail: Tail) -> (Option<Event>, Tail) {
    let (filter, cursor) = (Arc::clone(&tail.filter), tail.cursor);
    let looked = shared
        .log(move |log| match cursor {
            None => Ok((Vec::new(), log.end()?, false)),
            Some(cursor) => {
                let (rows, next) = log.tail(&filter, cursor, MAX_ROWS)?;
                let is_behind = rows.len() >= MAX_ROWS;
                let next = if is_behind { log.end()? } else { next };
                Ok((rows, next, is_behind))
            }
        })
        .await;
    match looked {
        Ok((rows, next, has_skipped)) => {
            let event = (!rows.is_empty()).then(|| event(&rows, next, has_skipped, &tail.asked));
            (event, Tail { cursor: Some(next), ..tail })
        }
        // A log that begins later is told from its beginning.
        Err(PageError::Store(StoreError::NoLog(_))) => {
            (None, Tail { cursor: Some(LogCursor::default()), ..tail })
        }
        // Noted where it is shown next; the tail tries again.
        Err(_) => (None, tail),
    }
}

fn event(rows: &[LogRow], next: LogCursor, has_skipped: bool, asked: &Asked) -> Event {
    let html: String = rows.iter().rev().map(|row| columns::row(row, asked).into_string()).collect();
    let told = Told { rows: html, count: rows.len(), has_skipped };
    let event = Event::default().event("rows").id(next.to_string());
    // A struct of text and numbers is always JSON.
    event.json_data(told).unwrap_or_default()
}
