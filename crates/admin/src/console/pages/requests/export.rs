//! All requests of a filter as a file: CSV or a JSON object per line.
//!
//! Owns the two forms, and how little an export may take from everything else. Must not hold more than a page of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State};
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use portcullis_store::{LogCursor, LogFilter, LogRow};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::sleep;

use super::asked::Asked;
use super::pairs;
use crate::console::csv;
use crate::console::error::PageError;
use crate::console::shared::Shared;

/// Exports at once; each reads the log and fills the visitor's line.
pub(in crate::console) const MAX_EXPORTS: usize = 2;
/// Rows that are read and written at once.
const BATCH: usize = 1_000;
/// How long one batch is searched for.
const BATCH_TIME: Duration = Duration::from_millis(500);
/// Rest between two batches, so that pages and the proxy come first.
const PAUSE: Duration = Duration::from_millis(5);

/// What a file is written as.
#[derive(Clone, Copy, Debug)]
enum Form {
    Csv,
    JsonLines,
}

impl Form {
    fn content_type(self) -> &'static str {
        match self {
            Self::Csv => "text/csv; charset=utf-8",
            Self::JsonLines => "application/jsonl; charset=utf-8",
        }
    }

    fn extension(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::JsonLines => "jsonl",
        }
    }

    fn head(self) -> String {
        match self {
            Self::Csv => CSV_COLUMNS.map(|(name, _)| name).join(",") + "\r\n",
            Self::JsonLines => String::new(),
        }
    }

    fn write(self, row: &LogRow, out: &mut String) {
        match self {
            Self::Csv => csv_row(row, out),
            Self::JsonLines => {
                // A row of text and numbers is always JSON.
                out.push_str(&serde_json::to_string(row).unwrap_or_default());
                out.push('\n');
            }
        }
    }
}

/// An export under way.
struct Export {
    shared: Arc<Shared>,
    filter: Arc<LogFilter>,
    form: Form,
    before: Option<LogCursor>,
    /// Rows that may still be written.
    left: usize,
    has_ended: bool,
    _permit: OwnedSemaphorePermit,
}

pub(super) async fn as_csv(state: State<Arc<Shared>>, query: RawQuery) -> Result<Response, PageError> {
    export(state, query, Form::Csv)
}

pub(super) async fn as_json_lines(state: State<Arc<Shared>>, query: RawQuery) -> Result<Response, PageError> {
    export(state, query, Form::JsonLines)
}

fn export(
    State(shared): State<Arc<Shared>>,
    RawQuery(query): RawQuery,
    form: Form,
) -> Result<Response, PageError> {
    let pairs = pairs(query);
    let now = shared.now();
    let filter = Asked::of(&pairs).filter(now).map_err(|faults| {
        let faults: Vec<String> =
            faults.iter().map(|(field, why)| format!("{}: {why}.", field.label())).collect();
        PageError::Invalid(faults.join(" "))
    })?;
    let permit = Arc::clone(&shared.exports).try_acquire_owned().map_err(|_| {
        PageError::Conflict(
            "Other exports are under way. Wait until they have ended, or cancel them.".to_owned(),
        )
    })?;
    let export = Export {
        left: limit(&pairs)?,
        shared,
        filter: Arc::new(filter),
        form,
        before: None,
        has_ended: false,
        _permit: permit,
    };
    let stamp = jiff::Timestamp::from_millisecond(now.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    let name = format!("requests-{}.{}", stamp.strftime("%Y%m%dT%H%M%SZ"), form.extension());
    let headers = [
        (CONTENT_TYPE, form.content_type().to_owned()),
        (CONTENT_DISPOSITION, format!("attachment; filename=\"{name}\"")),
    ];
    let head = form.head();
    let batches = stream::unfold((export, head), |(export, head)| next(export, head));
    Ok((headers, Body::from_stream(batches)).into_response())
}

/// All, unless somebody wants fewer.
fn limit(pairs: &[(String, String)]) -> Result<usize, PageError> {
    let wanted = pairs.iter().find(|(name, value)| name == "limit" && !value.trim().is_empty());
    wanted.map_or(Ok(usize::MAX), |(_, value)| {
        let why = || PageError::Invalid(format!("limit: expected a number of rows, got {value:?}."));
        value.trim().parse().map_err(|_| why())
    })
}

type Step = (Result<Bytes, PageError>, (Export, String));

/// The next batch, after `text`. A failure breaks the download off, so that nobody takes it for whole.
async fn next(mut export: Export, mut text: String) -> Option<Step> {
    if export.has_ended || export.left == 0 {
        return (!text.is_empty()).then(|| (Ok(Bytes::from(text)), (ended(export), String::new())));
    }
    if export.before.is_some() {
        sleep(PAUSE).await;
    }
    let (filter, before, wanted) = (Arc::clone(&export.filter), export.before, export.left.min(BATCH));
    let page = export
        .shared
        .log_if_any(move |log| log.page(&filter, before, wanted, Instant::now() + BATCH_TIME))
        .await;
    let page = match page {
        Ok(page) => page,
        Err(error) => {
            error.note();
            return Some((Err(error), (ended(export), String::new())));
        }
    };
    let (rows, before) = page.map_or_else(Default::default, |page| (page.rows, page.next));
    rows.iter().for_each(|row| export.form.write(row, &mut text));
    export.left -= rows.len().min(export.left);
    export.has_ended = before.is_none();
    export.before = before;
    Some((Ok(Bytes::from(text)), (export, String::new())))
}

fn ended(export: Export) -> Export {
    Export { has_ended: true, ..export }
}

type Cell = fn(&LogRow) -> String;

fn text(value: Option<&String>) -> String {
    value.cloned().unwrap_or_default()
}

/// The columns of the view `request_log`, by its names.
const CSV_COLUMNS: [(&str, Cell); 25] = [
    ("id", |row| row.id.to_string()),
    ("time", LogRow::time_text),
    ("ip", |row| row.client.to_string()),
    ("method", |row| row.method.clone()),
    ("host", |row| row.host.clone()),
    ("path", |row| row.path.clone()),
    ("query", |row| row.query.clone()),
    ("status", |row| row.status.to_string()),
    ("bytes_in", |row| row.bytes_in.to_string()),
    ("bytes_out", |row| row.bytes_out.to_string()),
    ("latency_us", |row| row.latency_us.to_string()),
    ("user_agent", |row| row.user_agent.clone()),
    ("referer", |row| row.referer.clone()),
    ("protocol", |row| row.protocol.clone()),
    ("user", |row| row.user.clone()),
    ("country", |row| text(row.location.country.as_ref())),
    ("city", |row| text(row.location.city.as_ref())),
    ("region", |row| text(row.location.region.as_ref())),
    ("latitude", |row| row.location.latitude.map_or_else(String::new, |degrees| degrees.to_string())),
    ("longitude", |row| row.location.longitude.map_or_else(String::new, |degrees| degrees.to_string())),
    ("isp", |row| text(row.location.isp.as_ref())),
    ("asn", |row| row.location.asn.map_or_else(String::new, |asn| asn.to_string())),
    ("verdict", |row| row.verdict.to_string()),
    ("reason", |row| row.reason.clone()),
    ("is_suspicious", |row| row.is_suspicious.to_string()),
];

fn csv_row(row: &LogRow, out: &mut String) {
    for (at, (_, cell)) in CSV_COLUMNS.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        csv::cell(&cell(row), out);
    }
    out.push_str("\r\n");
}
