//! A part of the engine's clients behind one lock: all of an address are in the same one. Owns who is remembered and
//! who is forgotten; must not know of other shards.

use std::collections::HashMap;
use std::net::IpAddr;

use portcullis_model::{Severity, UnixMs, VerdictKind};

use crate::client::Client;
use crate::counting::{Evidence, Request, SampleRoom, Tools};
use crate::finding::{self, Found, Judged};
use crate::hash;
use crate::rules::Context;
use crate::shared::{Other, Others};
use crate::signatures::Scratch;

use super::Alarm;
use super::known::Known;

/// Verified users of one address that are told apart; more raise no threshold any further.
const MAX_USERS: usize = 128;
/// Places that are looked at to make room for a new client.
const EVICTION_LOOKS: usize = 4;
/// The longest user agent that an anonymous culprit on a shared address is known by, in bytes.
const MAX_AGENT_BYTES: usize = 1_024;

#[derive(Debug)]
pub(super) struct Shard {
    /// By address, and by the hash of the verified user; zero: none.
    slots: HashMap<(IpAddr, u64), u32>,
    known: Vec<Option<Box<Known>>>,
    free: Vec<u32>,
    /// The places of the verified users of each address.
    users: HashMap<IpAddr, Vec<u32>>,
    most: usize,
    /// Where the search for a client to forget goes on.
    hand: usize,
    scratch: Scratch,
    samples: SampleRoom,
    overflowed: u64,
}

impl Shard {
    pub(super) fn new(most_clients: usize, most_samples: usize) -> Self {
        Self {
            slots: HashMap::new(),
            known: Vec::new(),
            free: Vec::new(),
            users: HashMap::new(),
            most: most_clients,
            hand: 0,
            scratch: Scratch::default(),
            samples: SampleRoom::new(most_samples),
            overflowed: 0,
        }
    }

    pub(super) fn clients(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn overflowed(&self) -> u64 {
        self.overflowed
    }

    pub(super) fn observe(&mut self, request: &Request<'_>, tools: Tools<'_>) -> Option<Alarm> {
        let (key, at) = (key(request), request.seen.time);
        let slot = self.slot(key, request);
        let known = self.known[slot as usize].as_deref_mut()?;
        self.samples.give_back(known.turn(at));
        known.now.is_allowed |= request.seen.verdict == VerdictKind::Allowed;
        if known.is_allowed() {
            return None;
        }
        let evidence = request.count(&mut known.now, tools, &mut self.scratch, &mut self.samples);
        if !evidence.is_some() {
            return None;
        }
        let is_worth_a_look =
            known.case.get_or_insert_default().add(at, evidence.is_step || evidence.is_new_touch);
        if evidence.marks() {
            self.mark(slot, request, evidence);
        }
        if is_worth_a_look { self.judge(slot, key.0, tools, at) } else { None }
    }

    /// Notes with which user agent evidence came, by name where users share the address.
    fn mark(&mut self, slot: u32, request: &Request<'_>, evidence: Evidence) {
        let is_shared = self.users.contains_key(&request.seen.client.limit_key());
        let Some(known) = self.known[slot as usize].as_deref_mut() else { return };
        let mark = known.now.mark(request.agent);
        let count = if evidence.is_failed_login { &mut mark.logins } else { &mut mark.others };
        *count = count.saturating_add(1);
        if is_shared && mark.name.is_none() && request.seen.user_agent.len() <= MAX_AGENT_BYTES {
            mark.name = Some(request.seen.user_agent.into());
        }
    }

    /// Evaluates the rules; an alarm if the client is worse than was known.
    fn judge(&mut self, slot: u32, address: IpAddr, tools: Tools<'_>, at: UnixMs) -> Option<Alarm> {
        let known = self.known[slot as usize].as_deref()?;
        let client = known.whole();
        let others = self.others(slot, address, tools.settings.block_severity, at);
        let context = Context {
            settings: tools.settings,
            signatures: tools.signatures,
            knowledge: tools.knowledge,
            neighbours: others.neighbours_of(&client),
            around: None,
        };
        let mut judged = Judged::new(&client, &context, None, None);
        let mut score = known.case.as_ref()?.score.clone();
        score.add(&judged, at);
        judged.at_least(&client, &context, score.severity());
        let severity = judged.severity;
        let alarm = severity.filter(|&severity| known.told(at) < Some(severity)).and_then(|_| {
            let shared = others.shared_with(&client, |mark| mark.name.clone());
            let finding = finding::write(&client, judged, None, Found::Request(&score), shared.as_ref(), at)?;
            Some(Alarm { finding, shared })
        });
        let case = self.known[slot as usize].as_deref_mut()?.case.as_deref_mut()?;
        case.score = score;
        if let Some(alarm) = &alarm {
            case.tell(alarm.finding.severity, at);
        }
        alarm
    }

    /// The verified users of the address who are around, but for the client itself and those who are bad.
    fn others(&self, slot: u32, address: IpAddr, bad: Option<Severity>, at: UnixMs) -> Others<'_> {
        let users = self.users.get(&address).map_or(&[][..], Vec::as_slice);
        let others = users.iter().filter(|&&user| user != slot).filter_map(|&user| {
            let known = self.known[user as usize].as_deref()?;
            let is_bad = bad.is_some_and(|least| known.told(at) >= Some(least));
            let is_around = !known.is_faded(at) && !known.is_allowed() && !is_bad;
            is_around.then(|| Other { now: &known.now, before: known.before() })
        });
        Others(others.collect())
    }

    /// The client's place, made if need be.
    fn slot(&mut self, key: (IpAddr, u64), request: &Request<'_>) -> u32 {
        if let Some(&slot) = self.slots.get(&key) {
            return slot;
        }
        let at = request.seen.time;
        self.sweep(at);
        let known = Some(Box::new(Known::new(Client::new(key.0, request.seen.user, at), at)));
        if self.slots.len() >= self.most {
            let least = self.least_wanted(at);
            self.forget(least);
            self.overflowed += 1;
        }
        let slot = match self.free.pop() {
            Some(slot) => {
                self.known[slot as usize] = known;
                slot
            }
            None => {
                self.known.push(known);
                (self.known.len() - 1) as u32
            }
        };
        self.slots.insert(key, slot);
        if key.1 != 0 {
            self.meet(key.0, slot);
        }
        slot
    }

    /// Notes a verified user of an address; of too many the one that was away longest is not told apart any more.
    fn meet(&mut self, address: IpAddr, slot: u32) {
        let users = self.users.entry(address).or_default();
        if users.len() < MAX_USERS {
            users.push(slot);
            return;
        }
        let last =
            |slot: u32| self.known[slot as usize].as_ref().map_or(UnixMs(i64::MIN), |known| known.now.last);
        if let Some(place) = users.iter_mut().min_by_key(|user| last(**user)) {
            *place = slot;
        }
    }

    /// Forgets the next one if it has faded; nobody's findings change by that. As each new client does so, those who
    /// are gone make room before anybody who is around.
    fn sweep(&mut self, at: UnixMs) {
        self.hand = (self.hand + 1) % self.known.len().max(1);
        let next = self.known.get(self.hand).and_then(Option::as_ref);
        if next.is_some_and(|known| known.is_long_faded(at)) {
            self.forget(self.hand);
        }
    }

    /// Of the next few behind a hand that goes round the one against whom least is held, among equals the one that was
    /// away longest: nearly the least wanted of all, without looking at all.
    fn least_wanted(&mut self, at: UnixMs) -> usize {
        let count = self.known.len();
        let looks = (0..EVICTION_LOOKS.min(count)).map(|n| (self.hand + n) % count);
        let worth = |&slot: &usize| {
            self.known[slot].as_ref().map(|known| {
                let told = known.told(at).map_or(0, |severity| 2 + severity as u8);
                let held = if known.case.is_some() { told.max(1) } else { 0 };
                (!known.is_faded(at), held, known.now.last)
            })
        };
        let held = looks.filter(|&slot| self.known[slot].is_some());
        let least = held.min_by_key(worth).unwrap_or_else(|| self.any());
        self.hand = (self.hand + EVICTION_LOOKS) % count.max(1);
        least
    }

    /// Any place that is taken.
    fn any(&self) -> usize {
        self.known.iter().position(Option::is_some).unwrap_or(0)
    }

    pub(super) fn forget_client(&mut self, address: IpAddr, user: &str) {
        if let Some(&slot) = self.slots.get(&(address, user_hash(user))) {
            self.forget(slot as usize);
        }
    }

    pub(super) fn forget_where(&mut self, is_meant: impl Fn(IpAddr, Option<&str>) -> bool) {
        for slot in 0..self.known.len() {
            let known = self.known[slot].as_deref();
            if known.is_some_and(|known| is_meant(known.now.key, known.now.user.as_deref())) {
                self.forget(slot);
            }
        }
    }

    fn forget(&mut self, slot: usize) {
        let Some(gone) = self.known.get_mut(slot).and_then(Option::take) else { return };
        let user = gone.now.user.as_deref().unwrap_or_default();
        self.slots.remove(&(gone.now.key, user_hash(user)));
        if let Some(users) = self.users.get_mut(&gone.now.key) {
            users.retain(|&user| user as usize != slot);
            if users.is_empty() {
                self.users.remove(&gone.now.key);
            }
        }
        self.samples.give_back(gone.sample_count());
        self.free.push(slot as u32);
    }
}

fn key(request: &Request<'_>) -> (IpAddr, u64) {
    (request.seen.client.limit_key(), user_hash(request.seen.user))
}

fn user_hash(user: &str) -> u64 {
    if user.is_empty() { 0 } else { hash::of(user) | 1 }
}
