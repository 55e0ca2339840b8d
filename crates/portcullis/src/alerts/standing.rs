//! How it is with each channel, what people were told, and one message through each. Must not touch what waits.

use jiff::tz::TimeZone;
use portcullis_config::Config;
use portcullis_model::UnixMs;
use portcullis_notify::{Detail, Digest, Event, HOUR, Queue, Scene, Settings, Step, alert, next_step};
use portcullis_store::{AlertChannel, State, StoreError};

use super::{Channel, channels, name, send};

/// How it is with a channel of the configuration.
pub(crate) struct Status<'a> {
    pub(crate) channel: Channel<'a>,
    pub(crate) known: Option<AlertChannel>,
    pub(crate) waiting: u64,
    pub(crate) sent_in_the_last_hour: usize,
    pub(crate) next: Option<UnixMs>,
}

/// All channels, mail first.
///
/// # Errors
/// The state database cannot be read.
pub(crate) fn statuses<'a>(
    config: &'a Config,
    state: Option<&State>,
    now: UnixMs,
) -> Result<Vec<Status<'a>>, StoreError> {
    let known = state.map(State::alert_channels).transpose()?.unwrap_or_default();
    let status = |channel: Channel<'a>| {
        let known = known.iter().find(|known| known.channel == channel.name());
        Status::of(channel, known, state, config, now)
    };
    channels(&config.alerts).into_iter().map(status).collect()
}

impl<'a> Status<'a> {
    fn of(
        channel: Channel<'a>,
        known: Option<&AlertChannel>,
        state: Option<&State>,
        config: &Config,
        now: UnixMs,
    ) -> Result<Self, StoreError> {
        let none = Self { channel, known: known.cloned(), waiting: 0, sent_in_the_last_hour: 0, next: None };
        let (Some(known), Some(state)) = (known, state) else { return Ok(none) };
        let waiting = state.alerts_waiting(known.done_id)?;
        let sent = state.alert_sends(&known.channel, now.minus(HOUR))?;
        let sent_in_the_last_hour = sent.len();
        let queue = Queue { oldest: waiting.map(|(oldest, _)| oldest), sent, next_try: known.next_try_at };
        let next = match next_step(&queue, config.alerts.gather, config.alerts.max_per_hour, now) {
            Step::Nothing => None,
            Step::Wait(at) => Some(at),
            Step::Send => Some(now),
        };
        Ok(Self { waiting: waiting.map_or(0, |(_, events)| events), sent_in_the_last_hour, next, ..none })
    }
}

/// The worst event, and how many more there are of each kind.
pub(crate) fn in_words(digest: &Digest) -> String {
    let kinds = || {
        let kinds: Vec<String> = digest.kinds.iter().map(|(kind, n)| kind.counted(*n)).collect();
        kinds.join(", ")
    };
    match digest.samples.first() {
        Some(sample) if digest.events == 1 => sample.title.clone(),
        Some(sample) => format!("{}, the worst: {}", kinds(), sample.title),
        None => kinds(),
    }
}

/// Sends one message through each channel, and says of each what became of it.
pub(crate) fn test<'a>(
    settings: &'a Settings,
    zone: &TimeZone,
    now: UnixMs,
) -> Vec<(Channel<'a>, Result<(), String>)> {
    let name = name(settings);
    let scene = Scene { name: &name, zone };
    let digest = Digest::of(&Event::Test, now);
    let message = alert(&format!("test-{}", now.0), &digest, Detail::Full, &scene);
    let send = |channel: Channel<'a>| {
        let outcome = send(channel, &message, Some((&digest, Detail::Full)), &scene, now);
        (channel, outcome.map_err(|error| error.to_string()))
    };
    channels(settings).into_iter().map(send).collect()
}
