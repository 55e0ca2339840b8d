//! Sends what waits, one channel after the other, as often as it may.
//!
//! Owns the order: a message is noted in the database before it is sent, so that it counts for the cap whatever becomes
//! of the process, and what became of it afterwards. One process per data folder sends. An outage is told in the log once,
//! not at every try.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::tz::TimeZone;
use portcullis_config::Config;
use portcullis_model::UnixMs;
use portcullis_notify::{
    Detail, Digest, GIVE_UP_AFTER, HOUR, Message, NotifyError, Queue, Scene, Settings, Step, alert, backoff,
    next_step,
};
use portcullis_store::{AlertChannel, AlertFailure, State, StoreError};
use serde::{Deserialize, Serialize};

use super::{AlertStats, Channel, channels, lock, name, send};

/// A message about events that was refused so often goes on without what clients had a hand in.
const MAX_REFUSALS: u32 = 2;

/// A message as the outbox keeps it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Lines {
    subject: String,
    text: String,
    html: String,
    data: Option<serde_json::Value>,
}

impl Lines {
    pub(crate) fn of(message: Message) -> Self {
        let Message { id: _, subject, text, html, data } = message;
        Self { subject, text, html, data }
    }
}

/// Sends for one data folder.
pub(crate) struct Sender {
    zone: TimeZone,
    stats: Arc<AlertStats>,
    /// The lock of the folder that it sends for.
    lock: Option<(PathBuf, File)>,
    /// Per channel, how often in a row a receiver did not want the message itself.
    refusals: HashMap<String, u32>,
    /// What the state database could not do was said already.
    has_complained: bool,
}

impl Sender {
    pub(crate) fn new(zone: TimeZone, stats: Arc<AlertStats>) -> Self {
        Self { zone, stats, lock: None, refusals: HashMap::new(), has_complained: false }
    }

    /// Sends what is due. `now` is asked again after everything that may have taken long.
    pub(crate) fn tick(&mut self, config: &Config, now: &dyn Fn() -> UnixMs) {
        let channels = channels(&config.alerts);
        self.stats.keep_only(&channels.iter().map(Channel::name).collect::<Vec<_>>());
        if channels.is_empty() || !self.has_lock(config) {
            return;
        }
        match self.look(config, &channels, now) {
            Ok(()) => self.has_complained = false,
            Err(error) if !std::mem::replace(&mut self.has_complained, true) => {
                tracing::error!("alerts are not sent: {error}");
            }
            Err(_) => {}
        }
    }

    fn has_lock(&mut self, config: &Config) -> bool {
        if self.lock.as_ref().is_none_or(|(folder, _)| *folder != config.data) {
            // A folder that cannot be written is somebody else's news.
            self.lock = lock(&config.data).ok().flatten().map(|file| (config.data.clone(), file));
        }
        self.lock.is_some()
    }

    fn look(
        &mut self,
        config: &Config,
        channels: &[Channel<'_>],
        now: &dyn Fn() -> UnixMs,
    ) -> Result<(), StoreError> {
        let settings = &config.alerts;
        // Most of the time there is nothing to do, and reading costs nobody anything.
        let reader = State::open_read_only(&config.data)?;
        let known: BTreeMap<String, AlertChannel> =
            reader.alert_channels()?.into_iter().map(|known| (known.channel.clone(), known)).collect();
        for channel in channels {
            let due = match known.get(channel.name()) {
                Some(known) => self.due(&reader, known, settings, now())?,
                None => Due { is_new: true, ..Due::default() },
            };
            if due.is_any() {
                let mut state = State::open_existing(&config.data)?;
                self.serve(&mut state, *channel, settings, now)?;
            }
        }
        Ok(())
    }

    /// What is to be done for a channel, as far as reading tells.
    fn due(
        &self,
        state: &State,
        known: &AlertChannel,
        settings: &Settings,
        now: UnixMs,
    ) -> Result<Due, StoreError> {
        let waiting = state.alerts_waiting(known.done_id)?;
        self.stats.update(&known.channel, |stats| {
            stats.waiting = waiting.map_or(0, |(_, events)| events);
            stats.is_failing = known.failures > 0;
            stats.lost = known.lost;
        });
        let oldest = waiting.map(|(oldest, _)| oldest);
        let queue = Queue {
            oldest,
            sent: state.alert_sends(&known.channel, now.minus(HOUR))?,
            next_try: known.next_try_at,
        };
        let is_quiet = next_step(
            &Queue { oldest: Some(UnixMs(i64::MIN)), sent: Vec::new(), next_try: known.next_try_at },
            settings.gather,
            1,
            now,
        ) != Step::Send;
        Ok(Due {
            is_new: false,
            is_old: oldest.is_some_and(|oldest| now.since(oldest) > GIVE_UP_AFTER),
            alerts: next_step(&queue, settings.gather, settings.max_per_hour, now) == Step::Send,
            outbox: !is_quiet && state.next_in_outbox(&known.channel)?.is_some(),
        })
    }

    fn serve(
        &mut self,
        state: &mut State,
        channel: Channel<'_>,
        settings: &Settings,
        now: &dyn Fn() -> UnixMs,
    ) -> Result<(), StoreError> {
        let known = state.alert_channel(channel.name())?;
        if self.due(state, &known, settings, now())?.is_old {
            let lost = state.give_up_alerts(channel.name(), now().minus(GIVE_UP_AFTER))?;
            if lost > 0 {
                let days = GIVE_UP_AFTER.as_secs() / 86_400;
                tracing::error!(
                    "alerts by {}: {lost} events are given up, nobody could be told of them for {days} days",
                    channel.name()
                );
            }
        }
        let known = state.alert_channel(channel.name())?;
        if self.due(state, &known, settings, now())?.alerts {
            self.send_alerts(state, channel, &known, settings, now)?;
        }
        let known = state.alert_channel(channel.name())?;
        if self.due(state, &known, settings, now())?.outbox {
            self.send_from_outbox(state, channel, &known, settings, now)?;
        }
        Ok(())
    }

    fn send_alerts(
        &mut self,
        state: &mut State,
        channel: Channel<'_>,
        known: &AlertChannel,
        settings: &Settings,
        now: &dyn Fn() -> UnixMs,
    ) -> Result<(), StoreError> {
        let Some((up_to, digest)) = gathered(state, known.done_id)? else {
            // Nothing of it can be read: somebody edited the database.
            return state.give_up_alerts(channel.name(), UnixMs(i64::MAX)).map(drop);
        };
        let refusals = self.refusals.get(channel.name()).copied().unwrap_or(0);
        let detail = if refusals > MAX_REFUSALS { Detail::CountsOnly } else { Detail::Full };
        let name = name(settings);
        let scene = Scene { name: &name, zone: &self.zone };
        let message = alert(&format!("alert-{}-{up_to}", digest.first_at.0), &digest, detail, &scene);
        let tried = state.begin_alert(channel.name(), up_to, digest.events, now())?;
        let outcome = send(channel, &message, Some((&digest, detail)), &scene, now());
        let failure = self.judge(channel, known, &outcome, now());
        state.finish_alert(channel.name(), tried, failure.as_ref(), now())
    }

    fn send_from_outbox(
        &mut self,
        state: &mut State,
        channel: Channel<'_>,
        known: &AlertChannel,
        settings: &Settings,
        now: &dyn Fn() -> UnixMs,
    ) -> Result<(), StoreError> {
        let Some(waiting) = state.next_in_outbox(channel.name())? else { return Ok(()) };
        let lines: Option<Lines> = serde_json::from_str(&waiting.message).ok();
        let is_old = now().since(waiting.created_at) > GIVE_UP_AFTER;
        let Some(lines) = lines.filter(|_| !is_old) else {
            tracing::error!("{} is given up: it could not be sent by {}", waiting.name, channel.name());
            return state.drop_from_outbox(waiting.id);
        };
        let Lines { subject, text, html, data } = lines;
        let id = format!("{}-{}", waiting.name, waiting.created_at.0);
        let message = Message { id, subject, text, html, data };
        let name = name(settings);
        let scene = Scene { name: &name, zone: &self.zone };
        let outcome = send(channel, &message, None, &scene, now());
        if let Err(error) = &outcome
            && error.is_about_the_message()
        {
            // It would be refused again, and keep what comes after it from being sent.
            tracing::error!("{} is not sent: {error}", waiting.name);
            self.stats.update(channel.name(), |stats| stats.failed += 1);
            return state.drop_from_outbox(waiting.id);
        }
        let failure = self.judge(channel, known, &outcome, now());
        state.finish_outbox(channel.name(), waiting.id, failure.as_ref(), now())
    }

    /// Says what happened where that is news, and when to try again.
    fn judge(
        &mut self,
        channel: Channel<'_>,
        known: &AlertChannel,
        outcome: &Result<(), NotifyError>,
        now: UnixMs,
    ) -> Option<AlertFailure> {
        let name = channel.name();
        let Err(error) = outcome else {
            self.refusals.remove(name);
            self.stats.update(name, |stats| {
                stats.sent += 1;
                stats.is_failing = false;
            });
            if known.failures > 0 {
                tracing::info!("alerts by {name} arrive again");
            }
            return None;
        };
        let refusals = self.refusals.entry(name.to_owned()).or_default();
        *refusals = if error.is_about_the_message() { refusals.saturating_add(1) } else { 0 };
        self.stats.update(name, |stats| {
            stats.failed += 1;
            stats.is_failing = true;
        });
        let text = error.to_string();
        if known.last_error.as_ref() != Some(&text) {
            tracing::error!("alerts by {name} do not arrive, they are kept and tried again: {text}");
        }
        Some(AlertFailure {
            next_try_at: now.plus(backoff(known.failures.saturating_add(1), error.retry_after())),
            may_have_arrived: error.may_have_arrived(),
            error: text,
        })
    }
}

/// What is to be done for a channel.
#[derive(Clone, Copy, Debug, Default)]
struct Due {
    is_new: bool,
    is_old: bool,
    alerts: bool,
    outbox: bool,
}

impl Due {
    fn is_any(self) -> bool {
        self.is_new || self.is_old || self.alerts || self.outbox
    }
}

/// Everything that waits after a number as one digest, and the number that it goes up to.
fn gathered(state: &State, after: i64) -> Result<Option<(i64, Digest)>, StoreError> {
    let mut all: Option<(i64, Digest)> = None;
    for stored in state.alerts_after(after)? {
        let Ok(digest) = serde_json::from_str::<Digest>(&stored.alert.body) else {
            tracing::error!("alert {} in the database cannot be read and is left out", stored.id);
            continue;
        };
        match &mut all {
            Some((up_to, sum)) => {
                *up_to = stored.id;
                sum.add(digest);
            }
            None => all = Some((stored.id, digest)),
        }
    }
    Ok(all)
}
