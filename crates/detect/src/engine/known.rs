//! What the engine knows of one client: two generations of counts, so that the past fades, and the case against it.
//! Must not evaluate rules.

use std::borrow::Cow;

use portcullis_model::{Severity, UnixMs};

use crate::client::Client;

use super::score::Score;

/// A generation lasts so long; the one before it is remembered too, so that evidence lasts for half an hour to an
/// hour, and no count spans more than an hour.
const GENERATION_MS: i64 = 30 * 60_000;
/// After so long without a request nothing is left of a client: forgetting it then changes nothing.
pub(super) const FADED_MS: i64 = 2 * GENERATION_MS;
/// Others' requests make a client forgotten only so much later, since records are a little out of order.
const SLACK_MS: i64 = 10 * 60_000;
/// Evidence up to this many requests is looked at each time; then each time when it has grown by an eighth.
const LOOK_EACH_TIME: u32 = 16;

#[derive(Debug)]
pub(super) struct Known {
    pub(super) now: Client,
    before: Option<Box<Client>>,
    /// When the generation began.
    began: UnixMs,
    /// `None`: nothing is held against it.
    pub(super) case: Option<Box<Case>>,
}

/// What is held against a client.
#[derive(Debug, Default)]
pub(super) struct Case {
    pub(super) score: Score,
    /// When each severity was told, the least first.
    told: [Option<UnixMs>; Severity::ALL.len()],
    /// Of the latest evidence.
    last: UnixMs,
    evidence: u32,
    next_look: u32,
}

impl Known {
    pub(super) fn new(client: Client, at: UnixMs) -> Self {
        Self { now: client, before: None, began: at, case: None }
    }

    /// Lets pass what is older than it may be at this time. Returns how many samples are gone.
    pub(super) fn turn(&mut self, at: UnixMs) -> usize {
        let age = at.0.saturating_sub(self.began.0);
        if (-FADED_MS..GENERATION_MS).contains(&age) {
            return 0;
        }
        let fresh = Client::new(self.now.key, self.now.user.as_deref().unwrap_or_default(), at);
        let mut old = std::mem::replace(&mut self.now, fresh);
        self.began = at;
        let mut gone = self.before.take().map_or(0, |before| before.sample_count());
        if (0..FADED_MS).contains(&age) {
            self.now.buckets = old.buckets.take();
            self.before = Some(Box::new(old));
        } else {
            gone += old.sample_count();
        }
        let is_over = |case: &Case| !(-FADED_MS..FADED_MS).contains(&at.0.saturating_sub(case.last.0));
        if self.case.as_deref().is_some_and(is_over) {
            self.case = None;
        }
        gone
    }

    /// Both generations as one.
    pub(super) fn whole(&self) -> Cow<'_, Client> {
        match &self.before {
            None => Cow::Borrowed(&self.now),
            Some(before) => Cow::Owned(self.now.joined_with(before)),
        }
    }

    pub(super) fn before(&self) -> Option<&Client> {
        self.before.as_deref()
    }

    pub(super) fn is_allowed(&self) -> bool {
        self.now.is_allowed || self.before.as_ref().is_some_and(|before| before.is_allowed)
    }

    pub(super) fn is_faded(&self, at: UnixMs) -> bool {
        at.0.saturating_sub(self.now.last.0) >= FADED_MS
    }

    /// Whether it can be forgotten.
    pub(super) fn is_long_faded(&self, at: UnixMs) -> bool {
        at.0.saturating_sub(self.now.last.0) >= FADED_MS + SLACK_MS
    }

    /// The severest of what was told within the time that evidence lasts.
    pub(super) fn told(&self, at: UnixMs) -> Option<Severity> {
        self.case.as_ref().and_then(|case| case.told(at))
    }

    pub(super) fn sample_count(&self) -> usize {
        self.now.sample_count() + self.before.as_ref().map_or(0, |before| before.sample_count())
    }
}

impl Case {
    /// Notes evidence; true if it is worth evaluating the rules.
    pub(super) fn add(&mut self, at: UnixMs, is_new: bool) -> bool {
        self.last = at;
        self.evidence = self.evidence.saturating_add(1);
        let looks = is_new || self.evidence >= self.next_look;
        if looks {
            let pause = if self.evidence < LOOK_EACH_TIME { 1 } else { self.evidence / 8 };
            self.next_look = self.evidence.saturating_add(pause);
        }
        looks && self.told(at) < Some(Severity::Critical)
    }

    /// True if this severity is news.
    pub(super) fn tell(&mut self, severity: Severity, at: UnixMs) -> bool {
        let is_news = self.told(at) < Some(severity);
        if is_news {
            self.told[severity as usize] = Some(at);
        }
        is_news
    }

    fn told(&self, at: UnixMs) -> Option<Severity> {
        let lasts = |told: &Option<UnixMs>| told.is_some_and(|told| at.0.saturating_sub(told.0) < FADED_MS);
        Severity::ALL.into_iter().rev().find(|&severity| lasts(&self.told[severity as usize]))
    }
}
