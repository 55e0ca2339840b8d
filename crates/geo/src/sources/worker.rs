//! The thread that asks sources about addresses that the files do not know, while requests go on.
//!
//! Owns the questions that wait, the addresses that are tried again, and the look at what other processes
//! have found out. Must not be waited for by anybody.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use portcullis_model::{ClientIp, Location, UnixMs};

use super::ask::{Asked, Effort, ask};
use super::{Shelf, Transport};
use crate::geo::Geo;

/// Addresses that can wait to be asked about, those that are tried again later included.
pub const MAX_WAITING: usize = 10_000;
/// Those that are tried again later: what waits for a quota must not keep out what is known already.
const MAX_PARKED: usize = MAX_WAITING / 2;
/// Locations whose receiver had no time yet.
const MAX_UNDELIVERED: usize = 4_096;
/// How often an address is tried when no source can answer.
const MAX_ATTEMPTS: u8 = 5;
/// How often the thread looks at what else there is to do.
const TICK: Duration = Duration::from_millis(500);
/// What was missed while the gateway was down or no source answered is looked for so long after the start, and
/// so often.
const FIRST_SWEEP: Duration = Duration::from_secs(10);
const SWEEP_INTERVAL: Duration = Duration::from_secs(3_600);
/// How long the thread waits after what is kept could not be read or written.
const SHELF_BACK_OFF: Duration = Duration::from_secs(10);
/// Answers between two bounds of what is kept.
const ANSWERS_TO_TRIM: u32 = 1_000;
/// Another process may take this long between the time of its answer and keeping it.
const NEWS_OVERLAP: Duration = Duration::from_secs(5);
/// How long a stop waits for an answer that is under way.
const STOP_PATIENCE: Duration = Duration::from_secs(1);
const STOP_POLL: Duration = Duration::from_millis(5);

/// Hears where a client is. `false` when it has no time.
pub type OnLocation = Box<dyn Fn(ClientIp, &Location) -> bool + Send>;

/// What the thread works with.
pub struct Parts {
    pub transport: Box<dyn Transport>,
    pub shelf: Box<dyn Shelf>,
    pub now: Box<dyn Fn() -> UnixMs + Send>,
    /// Called when it was not known at first, and again when there was no time.
    pub on_location: OnLocation,
    /// Clients of which nothing is known though they have been here: asked for after the start, and every hour.
    pub missing: Box<dyn FnMut() -> Vec<ClientIp> + Send>,
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Parts")
    }
}

/// The addresses that wait, each once.
#[derive(Debug, Default)]
pub(crate) struct Questions {
    waiting: Mutex<Waiting>,
    has_come: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    order: VecDeque<ClientIp>,
    /// Those in `order`, and those that the thread is busy with.
    all: HashSet<ClientIp>,
}

impl Questions {
    /// False when there is no room.
    pub(crate) fn push(&self, client: ClientIp) -> bool {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.all.contains(&client) {
            return true;
        }
        if waiting.all.len() >= MAX_WAITING {
            return false;
        }
        waiting.all.insert(client);
        waiting.order.push_back(client);
        drop(waiting);
        self.has_come.notify_one();
        true
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).all.len()
    }

    fn next(&self, patience: Duration) -> Option<ClientIp> {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let is_empty = |waiting: &mut Waiting| waiting.order.is_empty();
        let waited = self.has_come.wait_timeout_while(waiting, patience, is_empty);
        waited.unwrap_or_else(PoisonError::into_inner).0.order.pop_front()
    }

    fn finished(&self, client: ClientIp) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).all.remove(&client);
    }
}

/// The running thread; ends when it is dropped. An answer that is under way is waited for only briefly.
#[derive(Debug)]
pub struct SourcesThread {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl SourcesThread {
    /// Starts to answer the questions that `geo` has; `None` when it has no sources.
    ///
    /// # Errors
    /// The system has no thread.
    pub fn start(geo: &Geo, parts: Parts) -> std::io::Result<Option<Self>> {
        if geo.settings().sources.is_empty() {
            return Ok(None);
        }
        let stop = Arc::new(AtomicBool::new(false));
        let started = (parts.now)();
        let worker = Worker {
            geo: geo.clone(),
            parts,
            stop: Arc::clone(&stop),
            parked: Vec::new(),
            undelivered: VecDeque::new(),
            heard: HashMap::new(),
            newest_news: started,
            kept_since_trim: 0,
            rests_until: None,
        };
        let name = "portcullis-geo".to_owned();
        let thread = std::thread::Builder::new().name(name).spawn(move || worker.run())?;
        Ok(Some(Self { stop, thread: Some(thread) }))
    }
}

impl Drop for SourcesThread {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let Some(thread) = self.thread.take() else { return };
        let by = Instant::now() + STOP_PATIENCE;
        while !thread.is_finished() && Instant::now() < by {
            std::thread::sleep(STOP_POLL);
        }
        if thread.is_finished() {
            // A panic has been printed by the panic hook.
            let _ = thread.join();
        }
    }
}

/// An address that no source could answer for.
#[derive(Debug)]
struct Parked {
    client: ClientIp,
    attempts: u8,
    due: UnixMs,
}

struct Worker {
    geo: Geo,
    parts: Parts,
    stop: Arc<AtomicBool>,
    parked: Vec<Parked>,
    undelivered: VecDeque<(ClientIp, Location)>,
    /// What has been dealt with, and the time of its answer: as far back as news overlap.
    heard: HashMap<ClientIp, UnixMs>,
    newest_news: UnixMs,
    kept_since_trim: u32,
    rests_until: Option<Instant>,
}

impl Worker {
    fn run(mut self) {
        let mut next_chores = Instant::now();
        let mut next_sweep = Instant::now() + FIRST_SWEEP;
        while !self.stop.load(Ordering::Relaxed) {
            if Instant::now() >= next_chores {
                self.deliver();
                self.look_for_news();
                next_chores = Instant::now() + TICK;
            }
            if Instant::now() >= next_sweep {
                self.sweep();
                next_sweep = Instant::now() + SWEEP_INTERVAL;
            }
            let patience = next_chores.saturating_duration_since(Instant::now());
            if self.rests_until.is_some_and(|until| Instant::now() < until) {
                std::thread::sleep(patience);
                continue;
            }
            let due = self.take_due();
            let next = due.or_else(|| self.geo.questions().next(patience).map(|client| (client, 0)));
            if let Some((client, attempts)) = next {
                self.answer(client, attempts);
            }
        }
    }

    fn take_due(&mut self) -> Option<(ClientIp, u8)> {
        if self.parked.is_empty() {
            return None;
        }
        let now = (self.parts.now)();
        let position = self.parked.iter().position(|parked| parked.due <= now)?;
        let parked = self.parked.swap_remove(position);
        Some((parked.client, parked.attempts))
    }

    fn answer(&mut self, client: ClientIp, attempts: u8) {
        let now = (self.parts.now)();
        match self.look_up(client, Effort::Missing, now) {
            Ok((asked, is_missing)) => {
                if asked.is_open() && is_missing {
                    self.park(client, attempts, &asked, now);
                } else {
                    self.geo.questions().finished(client);
                }
            }
            Err(error) => {
                tracing::warn!("{error}; locations from sources wait for {} s", SHELF_BACK_OFF.as_secs());
                self.rests_until = Some(Instant::now() + SHELF_BACK_OFF);
                let due = now.plus(SHELF_BACK_OFF);
                self.parked.push(Parked { client, attempts, due });
            }
        }
        self.trim();
    }

    /// Finds out, and tells everybody. Says whether something that is wanted is missing still.
    fn look_up(
        &mut self,
        client: ClientIp,
        effort: Effort,
        now: UnixMs,
    ) -> Result<(Asked, bool), crate::GeoError> {
        let known = self.geo.files_know(client);
        let (settings, stats) = (self.geo.settings(), self.geo.source_stats());
        let asked = ask(
            settings,
            stats,
            (client, &known),
            effort,
            (&mut *self.parts.transport, &mut *self.parts.shelf),
            now,
        )?;
        let is_missing = super::is_missing(&settings.wanted, &known.clone().or(asked.location.clone()));
        if let Some(fetched_at) = asked.fetched_at() {
            self.kept_since_trim += 1;
            self.heard.insert(client, fetched_at);
            let location = self.geo.learn(client, &asked.location, now.since(fetched_at));
            if !asked.location.is_unknown() {
                self.tell(client, &location);
            }
        }
        Ok((asked, is_missing))
    }

    /// Tries again when a source may be asked again. Waiting for one that is left alone costs nothing; only
    /// failures count.
    fn park(&mut self, client: ClientIp, attempts: u8, asked: &Asked, now: UnixMs) {
        let has_failed = asked.has_failure();
        let attempts = attempts + u8::from(has_failed);
        if attempts >= MAX_ATTEMPTS || self.parked.len() >= MAX_PARKED {
            self.geo.source_stats().count_dropped();
            return self.geo.questions().finished(client);
        }
        let retry = self.geo.settings().sources.iter().map(|source| source.retry).min();
        let retry = has_failed.then(|| now.plus(retry.unwrap_or(SHELF_BACK_OFF)));
        let due = asked.available_at().into_iter().chain(retry).min().unwrap_or(now);
        self.parked.push(Parked { client, attempts, due });
    }

    fn tell(&mut self, client: ClientIp, location: &Location) {
        if !(self.parts.on_location)(client, location) && self.undelivered.len() < MAX_UNDELIVERED {
            self.undelivered.push_back((client, location.clone()));
        }
    }

    fn deliver(&mut self) {
        while let Some((client, location)) = self.undelivered.front() {
            if !(self.parts.on_location)(*client, location) {
                return;
            }
            self.undelivered.pop_front();
        }
    }

    /// Takes over what commands and tasks in other processes have found out.
    fn look_for_news(&mut self) {
        let after = self.newest_news.minus(NEWS_OVERLAP);
        self.heard.retain(|_, at| *at >= after);
        let news = match self.parts.shelf.news(after) {
            Ok(news) => news,
            Err(why) => return tracing::debug!("no news of locations: {why}"),
        };
        for (client, at) in news {
            self.newest_news = self.newest_news.max(at);
            if self.heard.get(&client).is_some_and(|heard| *heard >= at) {
                continue;
            }
            self.heard.insert(client, at);
            let now = (self.parts.now)();
            if let Err(error) = self.look_up(client, Effort::KeptOnly, now) {
                tracing::debug!("{error}");
            }
        }
    }

    /// Has those asked about that were missed. What finds no room is looked for the next time.
    fn sweep(&mut self) {
        for client in (self.parts.missing)() {
            self.geo.ask_later(client);
        }
    }

    fn trim(&mut self) {
        if self.kept_since_trim < ANSWERS_TO_TRIM {
            return;
        }
        self.kept_since_trim = 0;
        if let Err(why) = self.parts.shelf.trim() {
            tracing::warn!("the cache of locations cannot be bounded: {why}");
        }
    }
}
