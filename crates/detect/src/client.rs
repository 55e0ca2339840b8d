//! What a window remembers of one client: counters, small sets and a few samples, all bounded.
//! Must not judge; the rules do.

use std::net::IpAddr;
use std::time::Duration;

use portcullis_model::{ClientIp, UnixMs};

use crate::activity::{Burst, BusiestHour, Gaps};
use crate::distinct::Distinct;
use crate::scenarios::{Buckets, Overflows};
use crate::signatures::{MAX_SIGNATURES, Strength};

const HOUR: Duration = Duration::from_secs(3_600);
/// User agents beyond this many are not told apart.
pub(crate) const MAX_AGENTS: usize = 16;
/// Addresses of one IPv6 /64 that are told apart.
const MAX_ADDRESSES: usize = 4;
/// Samples that one client keeps of each kind of evidence.
pub(crate) const MAX_SAMPLES_PER_KIND: usize = 5;

/// Characters of a false name that are kept.
const MAX_FALSE_NAME: usize = 120;
/// User agents whose evidence is counted apart.
const MAX_MARKS: usize = 8;

/// One verified user of an address, or those of an address that are none; of IPv6 the address is a /64: one
/// subscriber commonly owns all of it and may use any of it.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) key: IpAddr,
    /// Of an IPv6 /64; an IPv4 client is its key.
    addresses: Vec<(ClientIp, u32)>,
    pub(crate) first: UnixMs,
    pub(crate) last: UnixMs,
    /// All requests, refused ones too.
    pub(crate) requests: u32,
    /// Answered by the upstream 2xx or 304.
    pub(crate) served: u32,
    /// Answered by the upstream, without those whose failure says nothing (missing icons and assets).
    pub(crate) judged: u32,
    /// Of `judged`, the client's errors.
    pub(crate) errors: u32,
    pub(crate) assets: u32,
    pub(crate) without_referer: u32,
    pub(crate) posts: u32,
    /// Paths other than assets that were not there.
    pub(crate) missing: Distinct,
    /// What was sent that is no HTTP request.
    pub(crate) garbage: Distinct,
    /// Of `missing`, the ones that name a program: `.php` and the like.
    pub(crate) missing_scripts: Distinct,
    /// Hashes of user agents, and the latest one apart, so that it is found without a look at the heap.
    agents: Vec<u32>,
    latest_agent: Option<u32>,
    /// Of pages, not of assets.
    pub(crate) page_burst: Burst,
    /// What only windows keep.
    pub(crate) shape: Option<Box<Shape>>,
    pub(crate) sensitive: Sensitive,
    pub(crate) login: Option<Box<Login>>,
    pub(crate) signatures: Option<Box<SignatureHits>>,
    /// `None`: nothing was poured into any.
    pub(crate) buckets: Option<Box<Buckets>>,
    pub(crate) overflows: Overflows,
    samples: Vec<(SampleKind, Sample)>,
    /// An allow covered a request: never scored.
    pub(crate) is_allowed: bool,
    /// As the log has it; `None`: no verified user.
    pub(crate) user: Option<Box<str>>,
    /// Which user agents the evidence came with.
    marks: Vec<Mark>,
    /// Every user agent called itself a crawler, a feed reader or a monitor.
    pub(crate) declares_bot: bool,
    pub(crate) false_bot: Option<Box<FalseBot>>,
}

/// Requests in the name of a crawler that the client is certainly not.
#[derive(Clone, Debug)]
pub(crate) struct FalseBot {
    pub(crate) requests: u32,
    /// The first such user agent, cut.
    pub(crate) user_agent: Box<str>,
}

/// What the forest sees besides, and what tells a monitor.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shape {
    pub(crate) paths: Distinct,
    pub(crate) gaps: Gaps,
    pub(crate) burst: Burst,
    pub(crate) depth_sum: u32,
    pub(crate) bytes_out: u64,
    /// Kept only when the window is longer than an hour.
    hour: Option<Box<BusiestHour>>,
}

/// The evidence that came with one user agent.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mark {
    /// See [`Client::use_agent`].
    pub(crate) agent: u32,
    /// The user agent itself, where verified users share the address and it is not too long.
    pub(crate) name: Option<Box<str>>,
    /// Logins that failed or met a limit.
    pub(crate) logins: u32,
    /// Missing pages and requests that match signatures.
    pub(crate) others: u32,
}

impl Mark {
    pub(crate) fn all(&self) -> u32 {
        self.logins.saturating_add(self.others)
    }

    fn join(&mut self, other: &Self) {
        self.logins = self.logins.saturating_add(other.logins);
        self.others = self.others.saturating_add(other.others);
        self.name = self.name.take().or_else(|| other.name.clone());
    }
}

impl Login {
    fn join(&mut self, other: &Self) {
        let counts = [
            (&mut self.attempts, other.attempts),
            (&mut self.failures, other.failures),
            (&mut self.limited, other.limited),
            (&mut self.redirected, other.redirected),
            (&mut self.quiet, other.quiet),
            (&mut self.quiet_api, other.quiet_api),
            (&mut self.quiet_programs, other.quiet_programs),
            (&mut self.masked_calls, other.masked_calls),
        ];
        counts.into_iter().for_each(|(count, more)| *count = count.saturating_add(more));
    }
}

/// Touches of sensitive paths; each configured path has a bit, those beyond the 64th share the last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sensitive {
    pub(crate) hits: u32,
    pub(crate) touched: u64,
    /// Answered 401, 403 or 404 by the upstream.
    pub(crate) denied: u64,
}

/// What was sent to login paths; requests that only read are not counted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Login {
    pub(crate) attempts: u32,
    /// Answered 400, 401, 403, 422 or 429 by the upstream, or with a page that says so.
    pub(crate) failures: u32,
    /// Refused by a limit of the gateway.
    pub(crate) limited: u32,
    /// Answered by a redirect, as most forms do when the password was right, or seen to begin a session.
    pub(crate) redirected: u32,
    /// Answered 2xx: a form shown again, or an API's success.
    pub(crate) quiet: u32,
    /// Of `quiet`, those where 2xx is the ordinary answer to a program: XML-RPC, tokens, sessions, APIs.
    pub(crate) quiet_api: u32,
    /// Of `quiet`, what programs sent that do not claim to be browsers, to paths that need not be forms.
    pub(crate) quiet_programs: u32,
    /// Of `quiet`, the XML-RPC of somebody who claims to be a browser.
    pub(crate) masked_calls: u32,
}

/// Which signatures matched, as sets.
#[derive(Clone, Debug, Default)]
pub(crate) struct SignatureHits {
    full: [u64; MAX_SIGNATURES / 64],
    half: [u64; MAX_SIGNATURES / 64],
    /// Matched by what the site may own, as its answer says.
    touched: [u64; MAX_SIGNATURES / 64],
    pub(crate) requests: u32,
}

impl SignatureHits {
    /// True if this signature had not been seen at this strength or a greater one.
    pub(crate) fn add(&mut self, signature: usize, strength: Strength) -> bool {
        let (word, bit) = (signature / 64, 1 << (signature % 64));
        let known = match strength {
            Strength::None => return false,
            Strength::Half => (self.full[word] | self.half[word]) & bit != 0,
            Strength::Full => self.full[word] & bit != 0,
        };
        match strength {
            Strength::None => {}
            Strength::Half => self.half[word] |= bit,
            Strength::Full => self.full[word] |= bit,
        }
        !known
    }

    /// Notes a match of what the site may own; true if it had not been seen.
    pub(crate) fn touch(&mut self, signature: usize) -> bool {
        let (word, bit) = (signature / 64, 1 << (signature % 64));
        let is_new = (self.full[word] | self.half[word] | self.touched[word]) & bit == 0;
        self.touched[word] |= bit;
        is_new
    }

    /// Whether it matched at all.
    pub(crate) fn is_touched(&self, signature: usize) -> bool {
        let (word, bit) = (signature / 64, 1 << (signature % 64));
        (self.full[word] | self.half[word] | self.touched[word]) & bit != 0
    }

    /// Whether anything counts by itself.
    pub(crate) fn is_evidence(&self) -> bool {
        self.full.iter().chain(&self.half).any(|word| *word != 0)
    }

    pub(crate) fn is_empty(&self) -> bool {
        !self.is_evidence() && self.touched.iter().all(|word| *word == 0)
    }

    fn join(&mut self, other: &Self) {
        self.full.iter_mut().zip(&other.full).for_each(|(word, more)| *word |= more);
        self.half.iter_mut().zip(&other.half).for_each(|(word, more)| *word |= more);
        self.touched.iter_mut().zip(&other.touched).for_each(|(word, more)| *word |= more);
        self.requests = self.requests.saturating_add(other.requests);
    }

    /// The numbers of all that matched.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = u32> {
        let is_in = |n: &u32| self.strength(*n as usize) != Strength::None;
        (0..MAX_SIGNATURES as u32).filter(is_in)
    }

    pub(crate) fn strength(&self, signature: usize) -> Strength {
        let (word, bit) = (signature / 64, 1 << (signature % 64));
        if self.full[word] & bit != 0 {
            Strength::Full
        } else if self.half[word] & bit != 0 {
            Strength::Half
        } else {
            Strength::None
        }
    }
}

/// The kind of evidence that a sample stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SampleKind {
    Signature,
    Agent,
    Login,
    Missing,
    Error,
    Sensitive,
}

/// One request, kept to be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sample {
    pub(crate) time: UnixMs,
    pub(crate) method: Box<str>,
    /// Path and query as sent, cut.
    pub(crate) target: Box<str>,
    pub(crate) status: u16,
}

impl Client {
    pub(crate) fn new(key: IpAddr, user: &str, at: UnixMs) -> Self {
        Self {
            key,
            user: (!user.is_empty()).then(|| user.into()),
            marks: Vec::new(),
            addresses: Vec::new(),
            first: at,
            last: at,
            requests: 0,
            served: 0,
            judged: 0,
            errors: 0,
            assets: 0,
            without_referer: 0,
            posts: 0,
            missing: Distinct::default(),
            missing_scripts: Distinct::default(),
            garbage: Distinct::default(),
            agents: Vec::new(),
            latest_agent: None,
            page_burst: Burst::default(),
            shape: None,
            sensitive: Sensitive::default(),
            login: None,
            signatures: None,
            buckets: None,
            overflows: Overflows::default(),
            samples: Vec::new(),
            is_allowed: false,
            declares_bot: true,
            false_bot: None,
        }
    }

    /// With all that a window keeps.
    pub(crate) fn with_shape(mut self, is_long_window: bool) -> Self {
        let hour = is_long_window.then(Box::default);
        self.shape = Some(Box::new(Shape { hour, ..Shape::default() }));
        self
    }

    /// What this and an earlier stretch of the same client are together, but for the shape and the buckets.
    pub(crate) fn joined_with(&self, earlier: &Self) -> Self {
        let mut both = Self { shape: None, buckets: None, ..self.clone() };
        for &(address, count) in &earlier.addresses {
            if let Some((_, known)) = both.addresses.iter_mut().find(|(known, _)| *known == address) {
                *known = known.saturating_add(count);
            } else if both.addresses.len() < MAX_ADDRESSES {
                both.addresses.push((address, count));
            }
        }
        both.first = both.first.min(earlier.first);
        both.last = both.last.max(earlier.last);
        let counts = [
            (&mut both.requests, earlier.requests),
            (&mut both.served, earlier.served),
            (&mut both.judged, earlier.judged),
            (&mut both.errors, earlier.errors),
            (&mut both.assets, earlier.assets),
            (&mut both.without_referer, earlier.without_referer),
            (&mut both.posts, earlier.posts),
            (&mut both.sensitive.hits, earlier.sensitive.hits),
        ];
        counts.into_iter().for_each(|(count, more)| *count = count.saturating_add(more));
        both.sensitive.touched |= earlier.sensitive.touched;
        both.sensitive.denied |= earlier.sensitive.denied;
        both.missing.join(&earlier.missing);
        both.missing_scripts.join(&earlier.missing_scripts);
        both.garbage.join(&earlier.garbage);
        for &agent in &earlier.agents {
            if !both.agents.contains(&agent) && both.agents.len() < MAX_AGENTS {
                both.agents.push(agent);
            }
        }
        both.page_burst.join(&earlier.page_burst);
        if let Some(login) = &earlier.login {
            both.login.get_or_insert_default().join(login);
        }
        if let Some(hits) = &earlier.signatures {
            both.signatures.get_or_insert_default().join(hits);
        }
        both.overflows.join(&earlier.overflows);
        for (kind, sample) in &earlier.samples {
            if both.wants_sample(*kind) {
                both.samples.push((*kind, sample.clone()));
            }
        }
        for mark in &earlier.marks {
            both.mark(mark.agent).join(mark);
        }
        both.declares_bot &= earlier.declares_bot;
        match (&mut both.false_bot, &earlier.false_bot) {
            (Some(known), Some(more)) => known.requests = known.requests.saturating_add(more.requests),
            (known, more) => *known = known.take().or_else(|| more.clone()),
        }
        both.is_allowed |= earlier.is_allowed;
        both
    }

    /// Counts the time of a request.
    pub(crate) fn arrive(&mut self, time: UnixMs, is_asset: bool) {
        if let Some(shape) = &mut self.shape {
            if self.requests > 0 {
                shape.gaps.add(time.0.saturating_sub(self.last.0));
            }
            shape.burst.add(time.0);
            if let Some(hour) = &mut shape.hour {
                hour.add(time.0);
            }
        }
        self.requests = self.requests.saturating_add(1);
        self.first = self.first.min(time);
        self.last = self.last.max(time);
        if !is_asset {
            self.page_burst.add(time.0);
        }
    }

    /// Counts the address, forgetting the least active one when there are too many.
    pub(crate) fn come_from(&mut self, address: ClientIp) {
        if self.key.is_ipv4() {
            return;
        }
        if let Some((_, count)) = self.addresses.iter_mut().find(|(known, _)| *known == address) {
            *count = count.saturating_add(1);
        } else if self.addresses.len() < MAX_ADDRESSES {
            self.addresses.push((address, 1));
        } else if let Some(least) = self.addresses.iter_mut().min_by_key(|(_, count)| *count) {
            // The newcomer inherits the count, as in the space-saving algorithm, so that a really busy
            // address always ends up in the table.
            *least = (address, least.1.saturating_add(1));
        }
    }

    /// The most active address.
    pub(crate) fn address(&self) -> ClientIp {
        let most = self.addresses.iter().max_by_key(|(_, count)| *count);
        most.map_or_else(|| ClientIp::new(self.key), |(address, _)| *address)
    }

    /// Notes a user agent by its hash; true if it is not among those noted.
    pub(crate) fn use_agent(&mut self, short: u32) -> bool {
        if self.latest_agent == Some(short) {
            return false;
        }
        self.latest_agent = Some(short);
        if self.agents.contains(&short) {
            return false;
        }
        if self.agents.len() < MAX_AGENTS {
            self.agents.push(short);
        }
        true
    }

    /// Notes a request in a false name; true if it is the first.
    pub(crate) fn borrow_name(&mut self, user_agent: &str) -> bool {
        // Crawlers are treated kindly, and this is none.
        self.declares_bot = false;
        if let Some(known) = &mut self.false_bot {
            known.requests = known.requests.saturating_add(1);
            return false;
        }
        let user_agent: String = user_agent.chars().take(MAX_FALSE_NAME).collect();
        self.false_bot = Some(Box::new(FalseBot { requests: 1, user_agent: user_agent.into() }));
        true
    }

    /// Whether the user agent is among those noted.
    pub(crate) fn uses_agent(&self, short: u32) -> bool {
        self.agents.contains(&short)
    }

    /// The user agent of the latest request, by its hash.
    pub(crate) fn latest_agent(&self) -> Option<u32> {
        self.latest_agent
    }

    /// The evidence that came with this user agent. When there are too many, the one with the least is forgotten.
    pub(crate) fn mark(&mut self, agent: u32) -> &mut Mark {
        let known = self.marks.iter().position(|mark| mark.agent == agent);
        let place = known.unwrap_or_else(|| {
            if self.marks.len() < MAX_MARKS {
                self.marks.push(Mark { agent, ..Mark::default() });
                return self.marks.len() - 1;
            }
            let least = (0..MAX_MARKS).min_by_key(|&n| self.marks[n].all()).unwrap_or(0);
            self.marks[least] = Mark { agent, ..Mark::default() };
            least
        });
        &mut self.marks[place]
    }

    pub(crate) fn marks(&self) -> &[Mark] {
        &self.marks
    }

    /// Distinct user agents, at most [`MAX_AGENTS`].
    pub(crate) fn agents(&self) -> usize {
        self.agents.len()
    }

    /// Whether another sample of this kind is wanted.
    pub(crate) fn wants_sample(&self, kind: SampleKind) -> bool {
        self.samples.iter().filter(|(k, _)| *k == kind).count() < MAX_SAMPLES_PER_KIND
    }

    pub(crate) fn keep_sample(&mut self, kind: SampleKind, sample: Sample) {
        self.samples.push((kind, sample));
    }

    pub(crate) fn samples(&self, kind: SampleKind) -> impl Iterator<Item = &Sample> {
        self.samples.iter().filter(move |(k, _)| *k == kind).map(|(_, sample)| sample)
    }

    pub(crate) fn sample_count(&self) -> usize {
        self.samples.len()
    }

    /// Requests in the busiest hour.
    pub(crate) fn requests_in_busiest_hour(&self) -> u32 {
        match self.shape.as_ref().and_then(|shape| shape.hour.as_ref()) {
            // When all lies within one hour the plain count is exact.
            Some(hour) if self.last.since(self.first) >= HOUR => hour.largest(),
            Some(_) | None => self.requests,
        }
    }

    /// Requests that are not for assets.
    pub(crate) fn pages(&self) -> u32 {
        self.requests - self.assets
    }

    pub(crate) fn asset_share(&self) -> f64 {
        share(self.assets, self.requests)
    }

    pub(crate) fn no_referer_share(&self) -> f64 {
        share(self.without_referer, self.requests)
    }

    /// The client's errors among its judged requests.
    pub(crate) fn error_share(&self) -> f64 {
        share(self.errors, self.judged)
    }

    /// How much would be lost by forgetting this client.
    pub(crate) fn worth(&self) -> u64 {
        let evidence = self.signatures.is_some() || self.login.is_some();
        u64::from(self.requests) + if evidence { 1_000 } else { 0 } + u64::from(self.missing.count())
    }
}

/// `part` of `whole`; 0 of nothing.
pub(crate) fn share(part: u32, whole: u32) -> f64 {
    if whole == 0 { 0.0 } else { f64::from(part) / f64::from(whole) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_active_address_of_a_64_stands_for_it() {
        let key: IpAddr = "2001:db8::".parse().unwrap();
        let mut client = Client::new(key, "", UnixMs(0));
        assert_eq!(client.address().ip(), key);
        for n in 0..400 {
            let address = if n % 2 == 0 { "2001:db8::7".to_owned() } else { format!("2001:db8::{n:x}:1") };
            client.come_from(address.parse().unwrap());
        }
        assert_eq!(client.address().to_string(), "2001:db8::7");
    }

    #[test]
    fn sets_of_agents_and_samples_are_bounded() {
        let mut client = Client::new("192.0.2.1".parse().unwrap(), "", UnixMs(0));
        for n in 0..100 {
            client.use_agent(n);
        }
        assert_eq!(client.agents(), MAX_AGENTS);
        assert!(!client.use_agent(3) && !client.use_agent(3) && client.use_agent(99 << 20));
        for n in 0..100 {
            client.mark(7).others += 1;
            client.mark(n + 8).logins += 1;
        }
        assert_eq!((client.marks().len(), client.mark(7).all()), (MAX_MARKS, 100), "the busiest stays");
        for _ in 0..MAX_SAMPLES_PER_KIND {
            assert!(client.wants_sample(SampleKind::Error));
            let sample = Sample { time: UnixMs(0), method: "GET".into(), target: "/".into(), status: 404 };
            client.keep_sample(SampleKind::Error, sample);
        }
        assert!(!client.wants_sample(SampleKind::Error) && client.wants_sample(SampleKind::Login));
    }

    #[test]
    fn a_signature_counts_once_at_its_greatest_strength() {
        let mut hits = SignatureHits::default();
        assert!(hits.add(300, Strength::Half) && !hits.add(300, Strength::Half));
        assert!(hits.add(300, Strength::Full) && !hits.add(300, Strength::Half));
        assert_eq!((hits.strength(300), hits.strength(0)), (Strength::Full, Strength::None));
        assert!(!hits.add(1, Strength::None));
    }
}
