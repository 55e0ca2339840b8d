//! The blocks that the detector would have made, while the past goes on. Owns when they end and how long the next one
//! lasts; must not decide whom to block.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use portcullis_detect::{Observation, Settings};
use portcullis_model::UnixMs;

/// Earlier blocks of one client that are remembered: more steps than anybody configures.
const MAX_EARLIER: usize = 32;

/// Whom a block means.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Whom {
    /// An IPv4 address or an IPv6 /64, by [`portcullis_model::ClientIp::limit_key`].
    Address(IpAddr),
    /// A verified user, from wherever.
    User(Box<str>),
}

/// What stands against somebody, and what stood.
#[derive(Debug, Default)]
struct Record {
    /// When the latest block ends; `None` never does.
    until: Option<UnixMs>,
    starts: VecDeque<UnixMs>,
    /// Only anonymous clients with one of these user agents are meant; `None` is everybody.
    agents: Option<Vec<Box<str>>>,
}

/// Blocks by whom they mean; grows with the findings that are acted on, which are bounded.
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    records: HashMap<Whom, Record>,
    has_users: bool,
}

/// How long a block lasts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lasts<'a> {
    pub(crate) settings: &'a Settings,
    /// What the table of actions says; `None`: the steps of `block_for`.
    pub(crate) span: Option<Duration>,
}

/// A block that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Made {
    /// From 1.
    pub(crate) step: usize,
    /// `None` never ends.
    pub(crate) until: Option<UnixMs>,
}

impl Blocks {
    /// Whether a request comes from somebody under a block.
    pub(crate) fn stands(&self, seen: &Observation<'_>) -> bool {
        let is_active = |record: &Record| record.until.is_none_or(|until| seen.time < until);
        if seen.user.is_empty() {
            let address = Whom::Address(seen.client.limit_key());
            return self.records.get(&address).is_some_and(|record| {
                let means = |agents: &Vec<Box<str>>| agents.iter().any(|agent| **agent == *seen.user_agent);
                is_active(record) && record.agents.as_ref().is_none_or(means)
            });
        }
        self.has_users && self.records.get(&Whom::User(seen.user.into())).is_some_and(is_active)
    }

    /// Blocks from `at` on, for evidence of which the latest is of `last_seen`; `None` when a block stands, or nothing
    /// new has come since the last one.
    pub(crate) fn add(
        &mut self,
        whom: Whom,
        agents: Option<Vec<Box<str>>>,
        lasts: &Lasts<'_>,
        at: UnixMs,
        last_seen: UnixMs,
    ) -> Option<Made> {
        self.has_users |= matches!(whom, Whom::User(_));
        let record = self.records.entry(whom).or_default();
        if !record.starts.is_empty() && record.until.is_none_or(|until| at < until || last_seen < until) {
            return None;
        }
        let since = at.minus(lasts.settings.block_memory);
        record.starts.retain(|start| *start >= since);
        let (step, span) = lasts.settings.block_step(record.starts.len());
        let span = lasts.span.or(span);
        record.starts.push_back(at);
        if record.starts.len() > MAX_EARLIER {
            record.starts.pop_front();
        }
        record.until = span.map(|span| at.plus(span));
        record.agents = agents;
        Some(Made { step, until: record.until })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_end_and_the_next_one_is_longer_until_that_is_forgotten() {
        let settings = Settings::default();
        let lasts = Lasts { settings: &settings, span: None };
        let whom = || Whom::Address("192.0.2.1".parse().unwrap());
        let mut blocks = Blocks::default();
        let hours = |n: u64| UnixMs(1_666_016_061_000).plus(Duration::from_secs(n * 3_600));
        let mut add = |at: u64, last: u64| {
            blocks.add(whom(), None, &lasts, hours(at), hours(last)).map(|made| (made.step, made.until))
        };
        assert_eq!(add(0, 0), Some((1, Some(hours(1)))));
        assert_eq!(add(0, 0), None, "it stands");
        assert_eq!(add(2, 0), None, "nothing new");
        assert_eq!(add(2, 2), Some((2, Some(hours(6)))));
        assert_eq!(add(7, 7), Some((3, Some(hours(31)))));
        assert_eq!(add(2_000, 2_000), Some((1, Some(hours(2_001)))));
    }
}
