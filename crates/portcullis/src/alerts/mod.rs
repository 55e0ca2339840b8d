//! Tells people: events into the database, and from there to mail and webhooks.
//!
//! Owns the way of an event through `state.db`, whichever process raised it. Must not wait for a mail server on any
//! thread but its own.

mod channel;
mod detected;
mod sender;
mod standing;
mod stats;
#[cfg(test)]
mod tests;
mod watch;

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use jiff::tz::TimeZone;
use parking_lot::Mutex;
use portcullis_config::Config;
use portcullis_model::UnixMs;
use portcullis_notify::{Digest, Event, Settings};
use portcullis_store::{NewAlert, State, StoreError};

use crate::app::{App, wall_now};
use crate::detection::Control;

pub(crate) use channel::{Channel, channels, send};
pub(crate) use detected::Known;
pub(crate) use sender::{Lines, Sender};
pub(crate) use standing::{Status, in_words, statuses, test};
pub(crate) use stats::{AlertStats, ChannelStats};
pub(crate) use watch::Watch;

/// How often the sender looks whether something is to be sent.
const TICK: Duration = Duration::from_millis(500);
/// How long the end of the process waits for a message that is being sent.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Events that this process has noticed and not stored yet.
#[derive(Default)]
pub(crate) struct Alerts {
    waiting: Mutex<Option<Digest>>,
}

impl Alerts {
    /// Takes an event, if anybody wants to hear of it. Does not wait; [`Alerts::keep`] stores it.
    pub(crate) fn raise(&self, settings: &Settings, event: &Event, now: UnixMs) {
        if !settings.wants(event.kind()) {
            return;
        }
        let digest = Digest::of(event, now);
        let mut waiting = self.waiting.lock();
        match waiting.as_mut() {
            Some(known) => known.add(digest),
            None => *waiting = Some(digest),
        }
    }

    /// Stores what has been raised. What cannot be stored waits for the next time.
    ///
    /// # Errors
    /// The state database fails.
    pub(crate) fn keep(&self, config: &Config) -> Result<(), StoreError> {
        let Some(digest) = self.waiting.lock().take() else { return Ok(()) };
        let stored =
            State::open_existing(&config.data).and_then(|mut state| store(&mut state, config, &digest));
        if stored.is_err() {
            let mut waiting = self.waiting.lock();
            match waiting.as_mut() {
                Some(newer) => newer.add(digest),
                None => *waiting = Some(digest),
            }
        }
        stored
    }
}

/// Puts events into the queue of every channel. The gateway that runs on the same data sends them.
///
/// # Errors
/// The state database fails; nothing is stored.
pub(crate) fn store(state: &mut State, config: &Config, digest: &Digest) -> Result<(), StoreError> {
    let channels = channels(&config.alerts);
    let names: Vec<&str> = channels.iter().map(Channel::name).collect();
    if names.is_empty() {
        return Ok(());
    }
    let join = |stored: &str| {
        let mut joined: Digest = serde_json::from_str(stored).ok()?;
        joined.add(digest.clone());
        Some(row(&joined))
    };
    let lost = state.add_alert(&names, &row(digest), &join)?;
    if lost > 0 {
        tracing::error!(
            "{lost} events that nobody was told of had to go: too many wait for a channel that fails"
        );
    }
    Ok(())
}

fn row(digest: &Digest) -> NewAlert {
    NewAlert {
        first_at: digest.first_at,
        last_at: digest.last_at,
        severity: digest.worst,
        events: digest.events,
        // A struct of plain fields always becomes JSON.
        body: serde_json::to_string(digest).unwrap_or_default(),
    }
}

/// What messages call this gateway.
pub(crate) fn name(settings: &Settings) -> String {
    if !settings.name.is_empty() {
        return settings.name.clone();
    }
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .or_else(|_| std::fs::read_to_string("/etc/hostname"));
    match host.unwrap_or_default().trim() {
        "" => "Portcullis".to_owned(),
        host => host.to_owned(),
    }
}

/// The thread that sends.
pub(crate) struct SenderThread {
    control: Arc<Control>,
    thread: JoinHandle<()>,
}

impl SenderThread {
    /// # Errors
    /// When no thread can be started.
    pub(crate) fn start(app: &App) -> std::io::Result<Self> {
        let control = Arc::new(Control::default());
        let (config, end, stats) = (app.shared_config(), Arc::clone(&control), app.stats().alerts.clone());
        let work = move || {
            let mut sender = Sender::new(TimeZone::system(), stats);
            while !end.is_stopping() {
                std::thread::park_timeout(TICK);
                let config = config.load_full();
                sender.tick(&config, &wall_now);
            }
        };
        let thread = std::thread::Builder::new().name("portcullis-alerts".to_owned()).spawn(work)?;
        Ok(Self { control, thread })
    }

    /// Ends it. A message that is being sent right now is left to its fate: the database knows of it.
    pub(crate) fn stop(self) {
        self.control.stop();
        self.thread.thread().unpark();
        let until = std::time::Instant::now() + LAST_WORDS;
        while !self.thread.is_finished() && std::time::Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Locked by the process that sends the alerts of a data folder.
const LOCK_FILE: &str = "alerts.lock";

/// The lock, or `None` when another process has it.
fn lock(data: &Path) -> anyhow::Result<Option<std::fs::File>> {
    let path = data.join(LOCK_FILE);
    let file = std::fs::File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(std::fs::TryLockError::WouldBlock) => Ok(None),
        Err(std::fs::TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}", path.display()))
        }
    }
}
