//! Keeps what geo sources said in the state database, and how it is with them. Must not judge either.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use portcullis_geo::{Answer, Shelf, SourceKind, SourceState};
use portcullis_model::{ClientIp, UnixMs};
use portcullis_store::{GeoAnswer, State, StoreError};

/// Answers that are kept at most: about 100 MiB.
const MAX_ANSWERS: usize = 500_000;
/// Addresses of other processes that are taken over at once.
const MAX_NEWS: usize = 10_000;
/// A connection is used for so long: somebody may put another database in the place of this one.
const CONNECTION_AGE: Duration = Duration::from_secs(30);

/// The state database of a data folder; it must be there.
pub(crate) struct StateShelf {
    data: PathBuf,
    open: Option<Open>,
}

struct Open {
    state: State,
    since: Instant,
    /// At the last look for news.
    version: Option<i64>,
}

impl StateShelf {
    pub(crate) fn new(data: &Path) -> Self {
        Self { data: data.to_owned(), open: None }
    }

    fn with<T>(&mut self, work: impl FnOnce(&mut Open) -> Result<T, StoreError>) -> Result<T, String> {
        let usable = self.open.take().filter(|open| open.since.elapsed() < CONNECTION_AGE);
        let open = match usable {
            Some(open) => open,
            None => {
                let state = State::open_existing(&self.data).map_err(|error| error.to_string())?;
                Open { state, since: Instant::now(), version: None }
            }
        };
        // After a failure the next call opens it anew.
        let open = self.open.insert(open);
        let result = work(open);
        if result.is_err() {
            self.open = None;
        }
        result.map_err(|error| error.to_string())
    }
}

/// The state of a source as the database keeps it.
pub(crate) fn source_state(state: &State, kind: SourceKind) -> Result<SourceState, StoreError> {
    let Some(json) = state.geo_source(kind.as_str())? else { return Ok(SourceState::default()) };
    serde_json::from_str(&json).map_err(|_| bad(json))
}

fn bad(json: String) -> StoreError {
    StoreError::BadValue { table: "geo_sources", column: "state", value: json }
}

impl Shelf for StateShelf {
    fn answers(&mut self, client: ClientIp) -> Result<Vec<Answer>, String> {
        let kept = self.with(|open| open.state.geo_answers(client))?;
        let known = |kept: GeoAnswer| {
            let source = SourceKind::named(&kept.source)?;
            Some(Answer { source, location: kept.location, fetched_at: kept.fetched_at })
        };
        Ok(kept.into_iter().filter_map(known).collect())
    }

    fn keep(&mut self, client: ClientIp, answer: &Answer) -> Result<(), String> {
        let kept = GeoAnswer {
            source: answer.source.as_str().to_owned(),
            location: answer.location.clone(),
            fetched_at: answer.fetched_at,
        };
        self.with(|open| open.state.keep_geo_answer(client, &kept))
    }

    fn source(&mut self, kind: SourceKind) -> Result<SourceState, String> {
        self.with(|open| source_state(&open.state, kind))
    }

    fn change_source(
        &mut self,
        kind: SourceKind,
        change: &mut dyn FnMut(&mut SourceState),
    ) -> Result<(), String> {
        let mut unreadable = None;
        let mut change = |old: Option<&str>| {
            let read = old.map_or_else(|| Ok(SourceState::default()), serde_json::from_str);
            let Ok(mut state) = read else {
                // A quota that was used must not be forgotten: what is there stays.
                let old = old.unwrap_or_default().to_owned();
                unreadable = Some(old.clone());
                return old;
            };
            change(&mut state);
            serde_json::json!(state).to_string()
        };
        self.with(|open| open.state.change_geo_source(kind.as_str(), &mut change))?;
        unreadable.map_or(Ok(()), |json| Err(bad(json).to_string()))
    }

    fn news(&mut self, after: UnixMs) -> Result<Vec<(ClientIp, UnixMs)>, String> {
        self.with(|open| {
            let version = open.state.data_version()?;
            if open.version.replace(version) == Some(version) {
                return Ok(Vec::new());
            }
            open.state.geo_answers_after(after, MAX_NEWS)
        })
    }

    fn trim(&mut self) -> Result<(), String> {
        self.with(|open| open.state.trim_geo_answers(MAX_ANSWERS)).map(drop)
    }
}
