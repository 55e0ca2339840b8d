//! What every page works with: the databases, read on threads of their own, and the running gateway.
//!
//! Owns how many read at once and for how long. Must not know what is read for.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use portcullis_config::{Config, Console as Settings};
use portcullis_model::UnixMs;
use portcullis_store::{LogReader, State, StoreError};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::access::Access;
use super::actions::Author;
use super::api;
use super::error::PageError;
use super::notices::Notices;
use super::pages::MAX_EXPORTS;
use super::streams::MAX_STREAMS;
use super::visitor::Visitor;
use super::{MAX_READERS, Parts, Running};

/// How long a page may wait for its turn to read.
const WAIT: Duration = Duration::from_secs(10);

pub(super) struct Shared {
    pub(super) api_texts: api::Texts,
    pub(super) settings: Settings,
    /// The address that is really listened on.
    pub(super) address: SocketAddr,
    pub(super) data: PathBuf,
    config: Arc<ArcSwap<Config>>,
    pub(super) running: Arc<dyn Running>,
    /// What was done of late, and how it is taken back.
    pub(super) notices: Notices,
    pub(super) access: Access,
    permits: Semaphore,
    /// Answers that go on.
    pub(super) streams: Arc<Semaphore>,
    /// Downloads of the log.
    pub(super) exports: Arc<Semaphore>,
    /// Readers with what they have looked up before.
    readers: Mutex<Vec<LogReader>>,
}

impl Shared {
    pub(super) fn new(parts: Parts, address: SocketAddr) -> Self {
        let Parts { settings, data, config, running } = parts;
        Self {
            api_texts: api::Texts::default(),
            settings,
            address,
            data,
            config,
            running,
            notices: Notices::new(),
            access: Access::new(),
            permits: Semaphore::new(MAX_READERS),
            streams: Arc::new(Semaphore::new(MAX_STREAMS)),
            exports: Arc::new(Semaphore::new(MAX_EXPORTS)),
            readers: Mutex::default(),
        }
    }

    /// The configuration that is in force.
    pub(super) fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }

    pub(super) fn now(&self) -> UnixMs {
        UnixMs::from_system(std::time::SystemTime::now())
    }

    /// Reads the log.
    pub(super) async fn log<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&LogReader) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, PageError> {
        self.blocking(move |shared| {
            let kept = shared.readers.lock().pop();
            let reader = kept.map_or_else(|| LogReader::open(&shared.data), Ok)?;
            let result = work(&reader)?;
            shared.readers.lock().push(reader);
            Ok(result)
        })
        .await
    }

    /// Reads the log; `None` before the first request has been logged.
    pub(super) async fn log_if_any<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&LogReader) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<Option<T>, PageError> {
        match self.log(work).await {
            Ok(read) => Ok(Some(read)),
            Err(PageError::Store(StoreError::NoLog(_))) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads the state.
    pub(super) async fn state<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&State) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, PageError> {
        self.blocking(move |shared| Ok(work(&State::open_read_only(&shared.data)?)?)).await
    }

    /// Changes the state; the running gateway notices at once. The audit log has where `visitor` was.
    pub(super) async fn change<T: Send + 'static>(
        self: &Arc<Self>,
        visitor: &Visitor,
        work: impl FnOnce(&mut State) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, PageError> {
        let from = visitor.from;
        self.blocking(move |shared| Ok(work(&mut State::open_existing(&shared.data)?.acting_from(from))?))
            .await
    }

    /// The same for one of the [`actions`](super::actions).
    pub(super) async fn act<T: Send + 'static>(
        self: &Arc<Self>,
        visitor: &Visitor,
        work: impl FnOnce(&mut State, &Author) -> Result<T, PageError> + Send + 'static,
    ) -> Result<T, PageError> {
        let (from, author) = (visitor.from, Author { actor: visitor.actor(), now: self.now() });
        self.blocking(move |shared| work(&mut State::open_existing(&shared.data)?.acting_from(from), &author))
            .await
    }

    /// Anything that may take its time, on a thread where it holds nobody up.
    pub(super) async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, PageError> + Send + 'static,
    ) -> Result<T, PageError> {
        let permit = timeout(WAIT, self.permits.acquire()).await;
        let Ok(Ok(_permit)) = permit else { return Err(PageError::Busy) };
        let shared = Arc::clone(self);
        match tokio::task::spawn_blocking(move || work(&shared)).await {
            Ok(result) => result,
            Err(panicked) => Err(PageError::Failed(format!("a page failed: {panicked}"))),
        }
    }

    /// The whole address of a page, for whoever is elsewhere.
    pub(super) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.settings.base_url(self.address))
    }

    pub(super) fn data(&self) -> &Path {
        &self.data
    }
}
