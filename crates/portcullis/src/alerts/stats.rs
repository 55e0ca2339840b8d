//! What became of messages, for the metrics.

use std::collections::BTreeMap;

use parking_lot::Mutex;

/// Of every channel by its name, which comes from the configuration.
#[derive(Default)]
pub(crate) struct AlertStats(Mutex<BTreeMap<String, ChannelStats>>);

/// Of one channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ChannelStats {
    /// Messages that arrived, since the start.
    pub(crate) sent: u64,
    /// Tries that failed, since the start.
    pub(crate) failed: u64,
    /// Events that wait.
    pub(crate) waiting: u64,
    /// The last try failed.
    pub(crate) is_failing: bool,
    /// Events that nobody was told of, ever.
    pub(crate) lost: u64,
}

impl AlertStats {
    pub(crate) fn all(&self) -> BTreeMap<String, ChannelStats> {
        self.0.lock().clone()
    }

    pub(super) fn update(&self, channel: &str, change: impl FnOnce(&mut ChannelStats)) {
        change(self.0.lock().entry(channel.to_owned()).or_default());
    }

    /// Forgets channels that are not in the configuration any more.
    pub(super) fn keep_only(&self, channels: &[&str]) {
        self.0.lock().retain(|name, _| channels.contains(&name.as_str()));
    }
}
