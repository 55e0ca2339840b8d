//! What DNS has said about clients, and the queue of what it is to be asked. Both are bounded; what finds no room is
//! asked when the client comes again. Must not ask by itself: the resolver's thread does.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

use moka::Expiry;
use moka::sync::Cache;
use portcullis_config::Bots as Settings;
use portcullis_detect::bots::{Claims, KnownBots, Outcome, Reverse};
use tokio::sync::mpsc;

use super::resolver;

/// Clients of which is remembered what DNS said.
const MAX_KNOWN: u64 = 50_000;
/// Clients that may wait to be asked for.
pub(super) const MAX_WAITING: usize = 1_024;
const CONFIRMED_FOR: Duration = Duration::from_secs(24 * 3_600);
const REFUTED_FOR: Duration = Duration::from_secs(3_600);
const UNSETTLED_FOR: Duration = Duration::from_secs(300);
/// Clients that are asked for at once.
pub(super) const MAX_AT_ONCE: usize = 16;
/// Longer than any question takes: afterwards it is asked again.
const ASKED_FOR: Duration = Duration::from_secs(600);

/// An address, and what it calls itself: another name asks for other domains.
type Key = (IpAddr, Claims);

/// What is known of a client.
#[derive(Clone, Debug)]
enum Answer {
    Asked,
    Said(Arc<Outcome>),
}

/// What became of questions, for the metrics.
#[derive(Debug, Default)]
pub(crate) struct LookupStats {
    pub(crate) confirmed: AtomicU64,
    pub(crate) refuted: AtomicU64,
    pub(crate) unsettled: AtomicU64,
    /// Not asked, since [`MAX_WAITING`] were waiting.
    pub(crate) dropped: AtomicU64,
}

impl LookupStats {
    fn count(&self, outcome: &Outcome) {
        let counter = match outcome {
            Outcome::Confirmed { .. } => &self.confirmed,
            Outcome::Refuted(_) => &self.refuted,
            Outcome::Unsettled => &self.unsettled,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// A question on its way.
pub(super) struct Question {
    pub(super) check: Reverse,
    key: Key,
    /// Who waits for the answer.
    reply: Option<SyncSender<Arc<Outcome>>>,
}

/// Where answers go.
#[derive(Clone)]
pub(super) struct Answers {
    cache: Cache<Key, Answer>,
    /// By which name an address was confirmed last.
    confirmed: Cache<IpAddr, Claims>,
    stats: Arc<LookupStats>,
}

impl Answers {
    pub(super) fn take(&self, question: Question, outcome: Outcome) {
        self.stats.count(&outcome);
        if matches!(outcome, Outcome::Confirmed { .. }) {
            let (client, claims) = question.key;
            self.confirmed.insert(client, claims);
        }
        let outcome = Arc::new(outcome);
        self.cache.insert(question.key, Answer::Said(Arc::clone(&outcome)));
        if let Some(reply) = question.reply {
            // Who has stopped waiting finds it in the cache.
            let _ = reply.try_send(outcome);
        }
    }
}

/// Ends the resolver's thread when it is dropped.
pub(super) struct Names {
    answers: Answers,
    queue: mpsc::Sender<Question>,
}

impl Names {
    /// `None`, and said in the log, when nobody can be asked.
    pub(super) fn start(settings: &Settings, stats: &Arc<LookupStats>) -> Option<Self> {
        let cache = Cache::builder().max_capacity(MAX_KNOWN).expire_after(HowLong).build();
        let confirmed = Cache::builder().max_capacity(MAX_KNOWN).time_to_live(CONFIRMED_FOR).build();
        let answers = Answers { cache, confirmed, stats: Arc::clone(stats) };
        let (queue, questions) = mpsc::channel(MAX_WAITING);
        match resolver::start(settings, questions, answers.clone()) {
            Ok(()) => Some(Self { answers, queue }),
            Err(error) => {
                tracing::warn!("crawlers are told by their networks alone, DNS cannot be asked: {error:#}");
                None
            }
        }
    }

    /// What is known; if nothing is, it is asked for. Never waits.
    pub(super) fn known_or_ask(
        &self,
        known: &KnownBots,
        claims: Claims,
        client: IpAddr,
    ) -> Option<Arc<Outcome>> {
        let key = (client, claims);
        match self.answers.cache.get(&key) {
            Some(Answer::Said(outcome)) => Some(outcome),
            Some(Answer::Asked) => None,
            None => {
                self.ask(known, key, None);
                None
            }
        }
    }

    /// What is known, or comes to be known until then.
    pub(super) fn wait_for(
        &self,
        known: &KnownBots,
        claims: Claims,
        client: IpAddr,
        until: Instant,
    ) -> Option<Arc<Outcome>> {
        let key = (client, claims);
        if let Some(Answer::Said(outcome)) = self.answers.cache.get(&key) {
            return Some(outcome);
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return self.known_or_ask(known, claims, client);
        }
        let (reply, answer) = sync_channel(1);
        if !self.ask(known, key, Some(reply)) {
            return None;
        }
        // Too late, or nobody answers any more.
        answer.recv_timeout(left).ok()
    }

    /// The bot whose name DNS has confirmed for an address.
    pub(super) fn confirmed(&self, known: &KnownBots, client: IpAddr) -> Option<Arc<str>> {
        let claims = self.answers.confirmed.get(&client)?;
        match self.answers.cache.get(&(client, claims))? {
            Answer::Said(outcome) => {
                known.proven_owner(claims, client, &outcome).map(|bot| Arc::clone(&bot.name))
            }
            Answer::Asked => None,
        }
    }

    /// False when there is nothing to ask, or no room.
    fn ask(&self, known: &KnownBots, key: Key, reply: Option<SyncSender<Arc<Outcome>>>) -> bool {
        let (client, claims) = key;
        let patterns = known.names_to_ask(claims, client);
        if patterns.is_empty() {
            return false;
        }
        self.answers.cache.insert(key, Answer::Asked);
        let is_sent =
            self.queue.try_send(Question { check: Reverse::new(client, patterns), key, reply }).is_ok();
        if !is_sent {
            self.answers.cache.invalidate(&key);
            self.answers.stats.dropped.fetch_add(1, Ordering::Relaxed);
        }
        is_sent
    }
}

/// How long answers are believed.
struct HowLong;

impl HowLong {
    fn of(answer: &Answer) -> Duration {
        match answer {
            Answer::Asked => ASKED_FOR,
            Answer::Said(outcome) => match **outcome {
                Outcome::Confirmed { .. } => CONFIRMED_FOR,
                Outcome::Refuted(_) => REFUTED_FOR,
                Outcome::Unsettled => UNSETTLED_FOR,
            },
        }
    }
}

impl Expiry<Key, Answer> for HowLong {
    fn expire_after_create(&self, _: &Key, answer: &Answer, _: Instant) -> Option<Duration> {
        Some(Self::of(answer))
    }

    fn expire_after_update(
        &self,
        _: &Key,
        answer: &Answer,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(Self::of(answer))
    }
}
