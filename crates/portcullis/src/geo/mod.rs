//! What the geo part is handed in: a way out over HTTP, a place in the databases, and the log to correct.
//! Must not know the formats of sources.

mod download;
mod http;
mod lookup;
mod refresh;
mod shelf;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use portcullis_geo::{Geo, Parts, SourcesThread};
use portcullis_model::ClientIp;
use portcullis_store::{Locator, LogReader};

use crate::app::wall_now;

pub(crate) use download::{Downloaded, due, update};
pub(crate) use http::Http;
pub(crate) use lookup::{Said, said};
pub(crate) use refresh::{Whom, refresh, unavailable};
pub(crate) use shelf::{StateShelf, source_state};

/// How far back clients without a country are looked for.
pub(crate) const WINDOW: Duration = Duration::from_secs(86_400);
/// Clients that are looked for at once.
const MAX_MISSING: usize = 5_000;

/// Starts the thread that asks the sources of `geo`, if it has any.
///
/// # Errors
/// The system has no thread.
pub(crate) fn start(geo: &Geo, data: &Path, locator: Locator) -> anyhow::Result<Option<SourcesThread>> {
    let folder: PathBuf = data.to_owned();
    let parts = Parts {
        transport: Box::new(Http::new()?),
        shelf: Box::new(StateShelf::new(data)),
        now: Box::new(wall_now),
        on_location: Box::new(move |client, location| locator.locate(client, location)),
        missing: Box::new(move || missing(&folder)),
    };
    SourcesThread::start(geo, parts).context("cannot start the thread that asks geo sources")
}

/// Clients of the last day whose country nobody has said yet.
fn missing(data: &Path) -> Vec<ClientIp> {
    let found = LogReader::open(data)
        .and_then(|log| log.clients_without_country(wall_now().minus(WINDOW), MAX_MISSING));
    found.unwrap_or_else(|error| {
        tracing::debug!("clients without a country cannot be looked for: {error}");
        Vec::new()
    })
}
