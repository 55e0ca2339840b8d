//! Who is behind the addresses that the log holds instead of the true ones, for as long as the detector may ask.
//!
//! Owns a bounded map in memory, which is never written anywhere: so a finding about a pseudonym becomes a block
//! of the client, and nothing else can be told from the log. Must not guess.

use std::time::Duration;

use moka::sync::Cache;
use portcullis_model::{ClientIp, UnixMs};
use portcullis_privacy::{Anonymise, is_pseudonym, truncate};

/// Clients that are known at once; those that came least are forgotten first, and are not blocked then.
const MAX_CLIENTS: u64 = 262_144;
/// Beyond the detector's window: until its run comes, and has read.
const MORE_TIME: Duration = Duration::from_secs(600);

/// The true client behind a logged address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behind {
    /// The address is a true one.
    Itself,
    One(ClientIp),
    /// More than one, or nobody knows.
    Unknown,
}

pub(crate) struct Addresses {
    known: Cache<ClientIp, Known>,
    /// Who came before is not known.
    since: UnixMs,
}

#[derive(Clone, Copy)]
struct Known {
    client: ClientIp,
    /// Nobody else has come under the same address.
    is_alone: bool,
}

impl Addresses {
    /// `window` is how far back the detector looks, `interval` how often it does.
    pub(crate) fn new(window: Duration, interval: Duration, now: UnixMs) -> Self {
        let known =
            Cache::builder().max_capacity(MAX_CLIENTS).time_to_idle(window + interval + MORE_TIME).build();
        Self { known, since: now }
    }

    /// Takes note that `logged` stands for `client`.
    pub(crate) fn learn(&self, logged: ClientIp, client: ClientIp) {
        match self.known.get(&logged) {
            Some(known) if known.client == client || !known.is_alone => {}
            Some(known) => self.known.insert(logged, Known { is_alone: false, ..known }),
            None => self.known.insert(logged, Known { client, is_alone: true }),
        }
    }

    /// The client of a finding about the logged address, whose first request was at `first_seen`. A truncated
    /// address may have been others' before anybody took note.
    pub(crate) fn behind(&self, logged: ClientIp, mode: Anonymise, first_seen: UnixMs) -> Behind {
        if is_pseudonym(logged) {
            return self.one(logged);
        }
        match (truncate(logged) == logged, self.known.get(&logged)) {
            (true, Some(_)) if first_seen < self.since => Behind::Unknown,
            (true, Some(_)) => self.one(logged),
            (true, None) if mode == Anonymise::Truncate => Behind::Unknown,
            (true | false, _) => Behind::Itself,
        }
    }

    /// Of whom the place is looked up.
    pub(crate) fn one_of(&self, logged: ClientIp) -> Option<ClientIp> {
        self.known.get(&logged).map(|known| known.client)
    }

    /// Forgets a client, under whatever address it was logged.
    pub(crate) fn forget(&self, client: ClientIp) {
        let gone: Vec<ClientIp> = self
            .known
            .iter()
            .filter(|(_, known)| known.client == client)
            .map(|(logged, _)| *logged)
            .collect();
        gone.iter().for_each(|logged| self.known.invalidate(logged));
    }

    fn one(&self, logged: ClientIp) -> Behind {
        match self.known.get(&logged) {
            Some(Known { client, is_alone: true }) => Behind::One(client),
            Some(_) | None => Behind::Unknown,
        }
    }
}

/// The same for a process that is not the gateway and knows nobody.
pub(crate) fn behind_for_strangers(logged: ClientIp, mode: Anonymise) -> Behind {
    match is_pseudonym(logged) || (mode == Anonymise::Truncate && truncate(logged) == logged) {
        true => Behind::Unknown,
        false => Behind::Itself,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> ClientIp {
        text.parse().unwrap()
    }

    fn addresses() -> Addresses {
        let hour = Duration::from_secs(3_600);
        Addresses::new(hour, hour, UnixMs(1_000))
    }

    #[test]
    fn a_pseudonym_leads_to_its_client_and_an_unknown_one_to_nobody() {
        let addresses = addresses();
        addresses.learn(ip("3fff::1"), ip("203.0.113.9"));
        let behind = |text| addresses.behind(ip(text), Anonymise::Hash, UnixMs(0));
        assert_eq!(behind("3fff::1"), Behind::One(ip("203.0.113.9")));
        assert_eq!(behind("3fff::2"), Behind::Unknown);
        assert_eq!(behind("203.0.113.0"), Behind::Itself);
        addresses.forget(ip("203.0.113.9"));
        assert_eq!(behind("3fff::1"), Behind::Unknown);
    }

    #[test]
    fn a_truncated_address_leads_to_a_client_only_if_that_is_certainly_the_only_one() {
        let addresses = addresses();
        let behind = |text, first| addresses.behind(ip(text), Anonymise::Truncate, UnixMs(first));
        assert_eq!(behind("203.0.113.0", 2_000), Behind::Unknown);
        addresses.learn(ip("203.0.113.0"), ip("203.0.113.9"));
        assert_eq!(behind("203.0.113.0", 2_000), Behind::One(ip("203.0.113.9")));
        assert_eq!(behind("203.0.113.0", 999), Behind::Unknown, "from before a restart");
        addresses.learn(ip("203.0.113.0"), ip("203.0.113.10"));
        assert_eq!(behind("203.0.113.0", 2_000), Behind::Unknown);
        addresses.learn(ip("203.0.113.0"), ip("203.0.113.9"));
        assert_eq!(behind("203.0.113.0", 2_000), Behind::Unknown, "it stays so");
        // Rows from before the mode was changed.
        assert_eq!(behind("203.0.113.77", 0), Behind::Itself);
    }
}
