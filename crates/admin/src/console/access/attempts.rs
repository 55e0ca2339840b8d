//! Wrong passwords and tokens, counted by account and by address.
//!
//! Owns how many are allowed. Must not know passwords; what is counted ends with the process.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use parking_lot::Mutex;
use portcullis_model::UnixMs;

/// In which the wrong ones are counted.
const WINDOW: Duration = Duration::from_secs(15 * 60);
const PER_ACCOUNT: usize = 5;
const PER_ADDRESS: usize = 20;
const TOKENS_PER_ADDRESS: usize = 100;
/// Names that no user has, and networks, that are remembered. The accounts that there are have their own places, so that
/// nobody is forgotten by trying many names.
const MAX_KEYS: usize = 4_096;
const IPV6_PREFIX: u8 = 64;

/// Who is signing in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Account {
    Known(i64),
    /// A hash of a name that no user has. It may be a password in the wrong field.
    Unknown(u64),
}

/// What there were too many wrong ones of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Locked {
    Account,
    Address,
}

/// One that has been let through, wrong until it is said to be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attempt {
    number: u64,
    at: UnixMs,
    account: Account,
    network: IpNet,
}

/// What a wrong one led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) locked: Locked,
    pub(super) until: UnixMs,
}

#[derive(Debug)]
pub(super) struct Attempts {
    names: RandomState,
    counted: Mutex<Counted>,
}

#[derive(Debug)]
struct Counted {
    next: u64,
    known: Windows<Account>,
    unknown: Windows<Account>,
    addresses: Windows<IpNet>,
    /// Of wrong API tokens.
    tokens: Windows<IpNet>,
}

impl Attempts {
    pub(super) fn new() -> Self {
        let counted = Counted {
            next: 0,
            known: Windows::new(PER_ACCOUNT, usize::MAX),
            unknown: Windows::new(PER_ACCOUNT, MAX_KEYS),
            addresses: Windows::new(PER_ADDRESS, MAX_KEYS),
            tokens: Windows::new(TOKENS_PER_ADDRESS, MAX_KEYS),
        };
        Self { names: RandomState::new(), counted: Mutex::new(counted) }
    }

    /// A name that no user has.
    pub(super) fn unknown(&self, name: &str) -> Account {
        Account::Unknown(self.names.hash_one(name.to_ascii_lowercase()))
    }

    /// Lets somebody try. It counts as wrong from now on, so that many at once are no more than one after another.
    /// Those of the account up to `forgotten` are none any more.
    pub(super) fn begin(
        &self,
        account: Account,
        from: IpAddr,
        forgotten: Option<UnixMs>,
        now: UnixMs,
    ) -> Result<Attempt, Refused> {
        let network = network(from);
        let mut counted = self.counted.lock();
        if let Some(until) = forgotten {
            let is_kept = |attempt: &Attempt| attempt.account != account || attempt.at > until;
            counted.of(account).retain(&account, is_kept);
            counted.addresses.retain(&network, is_kept);
        }
        if let Some(until) = counted.of(account).locked_until(&account, now) {
            return Err(Refused { locked: Locked::Account, until });
        }
        if let Some(until) = counted.addresses.locked_until(&network, now) {
            return Err(Refused { locked: Locked::Address, until });
        }
        let attempt = counted.number(account, network, now);
        counted.of(account).add(account, attempt);
        counted.addresses.add(network, attempt);
        Ok(attempt)
    }

    /// It was right: the account starts anew. What else the address did stays.
    pub(super) fn was_right(&self, attempt: &Attempt) {
        let mut counted = self.counted.lock();
        counted.of(attempt.account).retain(&attempt.account, |_| false);
        counted.addresses.retain(&attempt.network, |other| other.number != attempt.number);
    }

    /// It was neither right nor wrong: nobody had time to look.
    pub(super) fn was_none(&self, attempt: &Attempt) {
        let mut counted = self.counted.lock();
        let is_other = |other: &Attempt| other.number != attempt.number;
        counted.of(attempt.account).retain(&attempt.account, is_other);
        counted.addresses.retain(&attempt.network, is_other);
    }

    /// What a wrong attempt was the last of, if it was.
    pub(super) fn locks_after(&self, attempt: &Attempt, now: UnixMs) -> Option<Locked> {
        let mut counted = self.counted.lock();
        if counted.of(attempt.account).locked_until(&attempt.account, now).is_some() {
            return Some(Locked::Account);
        }
        counted.addresses.locked_until(&attempt.network, now).map(|_| Locked::Address)
    }

    /// Until when no API token of an address is looked at.
    pub(super) fn tokens_locked_until(&self, from: IpAddr, now: UnixMs) -> Option<UnixMs> {
        self.counted.lock().tokens.locked_until(&network(from), now)
    }

    pub(super) fn wrong_token(&self, from: IpAddr, now: UnixMs) {
        let network = network(from);
        let mut counted = self.counted.lock();
        let attempt = counted.number(Account::Unknown(0), network, now);
        counted.tokens.add(network, attempt);
    }
}

impl Counted {
    fn of(&mut self, account: Account) -> &mut Windows<Account> {
        match account {
            Account::Known(_) => &mut self.known,
            Account::Unknown(_) => &mut self.unknown,
        }
    }

    fn number(&mut self, account: Account, network: IpNet, at: UnixMs) -> Attempt {
        self.next += 1;
        Attempt { number: self.next, at, account, network }
    }
}

/// The last wrong ones of each key.
#[derive(Debug)]
struct Windows<K> {
    limit: usize,
    most_keys: usize,
    attempts: HashMap<K, VecDeque<Attempt>>,
}

impl<K: Clone + Eq + Hash> Windows<K> {
    fn new(limit: usize, most_keys: usize) -> Self {
        Self { limit, most_keys, attempts: HashMap::new() }
    }

    fn locked_until(&mut self, key: &K, now: UnixMs) -> Option<UnixMs> {
        self.retain(key, |attempt| is_recent(attempt, now));
        let attempts = self.attempts.get(key)?;
        let oldest = attempts.len().checked_sub(self.limit).and_then(|index| attempts.get(index))?;
        Some(oldest.at.plus(WINDOW))
    }

    fn add(&mut self, key: K, attempt: Attempt) {
        if self.attempts.len() >= self.most_keys && !self.attempts.contains_key(&key) {
            self.make_room(attempt.at);
        }
        self.attempts.entry(key).or_default().push_back(attempt);
    }

    /// Forgets who has not tried lately, or the one whose last attempt is the oldest.
    fn make_room(&mut self, now: UnixMs) {
        self.attempts.retain(|_, attempts| attempts.back().is_some_and(|last| is_recent(last, now)));
        if self.attempts.len() < self.most_keys {
            return;
        }
        let last = |attempts: &VecDeque<Attempt>| attempts.back().map(|last| last.number);
        let oldest = self.attempts.iter().min_by_key(|(_, attempts)| last(attempts));
        if let Some(key) = oldest.map(|(key, _)| key.clone()) {
            self.attempts.remove(&key);
        }
    }

    fn retain(&mut self, key: &K, is_kept: impl FnMut(&Attempt) -> bool) {
        if let Some(attempts) = self.attempts.get_mut(key) {
            attempts.retain(is_kept);
            if attempts.is_empty() {
                self.attempts.remove(key);
            }
        }
    }
}

fn is_recent(attempt: &Attempt, now: UnixMs) -> bool {
    now.since(attempt.at) < WINDOW
}

/// IPv4 addresses stand for themselves, IPv6 addresses for the /64 that one customer has.
fn network(from: IpAddr) -> IpNet {
    let address = IpNet::from(from.to_canonical());
    let length = if address.addr().is_ipv6() { IPV6_PREFIX } else { address.max_prefix_len() };
    IpNet::new(address.addr(), length).map_or(address, |network| network.trunc())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMs = UnixMs(1_000_000_000);

    fn from(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn later(seconds: u64) -> UnixMs {
        NOW.plus(Duration::from_secs(seconds))
    }

    #[test]
    fn the_sixth_wrong_one_of_an_account_waits_until_the_first_is_15_minutes_old() {
        let attempts = Attempts::new();
        let account = Account::Known(1);
        for second in 0..5 {
            let address = from(&format!("192.0.2.{second}"));
            attempts.begin(account, address, None, later(second)).unwrap();
        }
        let refused = attempts.begin(account, from("192.0.2.9"), None, later(10)).unwrap_err();
        assert_eq!(refused, Refused { locked: Locked::Account, until: later(900) });
        assert!(attempts.begin(Account::Known(2), from("192.0.2.9"), None, later(10)).is_ok());
        assert!(attempts.begin(account, from("192.0.2.9"), None, later(899)).is_err());
        assert!(attempts.begin(account, from("192.0.2.9"), None, later(900)).is_ok());
        assert!(attempts.begin(account, from("192.0.2.9"), None, later(900)).is_err());
    }

    #[test]
    fn addresses_are_counted_over_all_accounts_and_ipv6_by_64() {
        let attempts = Attempts::new();
        for number in 0..20 {
            let address = from(&format!("2001:db8::{number:x}"));
            attempts.begin(Account::Known(number), address, None, NOW).unwrap();
        }
        let refused = attempts.begin(Account::Known(99), from("2001:db8::ffff"), None, NOW).unwrap_err();
        assert_eq!(refused.locked, Locked::Address);
        assert!(attempts.begin(Account::Known(99), from("2001:db8:0:1::1"), None, NOW).is_ok());
    }

    #[test]
    fn a_right_one_starts_the_account_anew_and_forgives_the_address_only_itself() {
        let attempts = Attempts::new();
        let address = from("192.0.2.1");
        for round in 0..5 {
            for wrong in 0..4 {
                let begun = attempts.begin(Account::Known(1), address, None, NOW);
                assert!(begun.is_ok(), "{round} {wrong}");
            }
            let right = attempts.begin(Account::Known(1), address, None, NOW);
            if let Ok(right) = right {
                attempts.was_right(&right);
            }
        }
        let refused = attempts.begin(Account::Known(1), address, None, NOW).unwrap_err();
        assert_eq!(refused.locked, Locked::Address);
    }

    #[test]
    fn unlocking_forgets_the_account_at_its_address_too() {
        let attempts = Attempts::new();
        let address = from("192.0.2.1");
        let account = Account::Known(1);
        for _ in 0..5 {
            attempts.begin(account, address, None, NOW).unwrap();
        }
        for _ in 0..15 {
            attempts.begin(Account::Known(2), address, Some(NOW.minus(WINDOW)), NOW).ok();
            attempts.begin(Account::Known(3), address, None, NOW).ok();
            attempts.begin(Account::Known(4), address, None, NOW).ok();
        }
        assert_eq!(attempts.begin(account, address, None, NOW).unwrap_err().locked, Locked::Account);
        assert!(attempts.begin(account, address, Some(NOW), later(1)).is_ok());
    }

    #[test]
    fn trying_many_names_forgets_no_account_that_there_is() {
        let attempts = Attempts::new();
        let account = Account::Known(1);
        for _ in 0..5 {
            attempts.begin(account, from("192.0.2.1"), None, NOW).unwrap();
        }
        for number in 0..(MAX_KEYS as u32 * 2) {
            let address = IpAddr::V4((0x0a00_0000 + number).into());
            attempts.begin(attempts.unknown(&format!("name{number}")), address, None, NOW).unwrap();
        }
        assert!(attempts.begin(account, from("198.51.100.1"), None, NOW).is_err());
        let counted = attempts.counted.lock();
        assert!(counted.unknown.attempts.len() <= MAX_KEYS && counted.addresses.attempts.len() <= MAX_KEYS);
    }

    #[test]
    fn what_nobody_looked_at_does_not_count() {
        let attempts = Attempts::new();
        for _ in 0..50 {
            let begun = attempts.begin(Account::Known(1), from("192.0.2.1"), None, NOW).unwrap();
            assert_eq!(attempts.locks_after(&begun, NOW), None);
            attempts.was_none(&begun);
        }
    }
}
