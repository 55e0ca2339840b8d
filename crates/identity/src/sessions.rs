//! The sessions that the upstream was seen to issue at a login, under keyed hashes of their cookies.
//! Must not keep a cookie's value. Idle and absolute expiry are judged at each look-up.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use parking_lot::Mutex;
use portcullis_model::{Identity, UnixMs};

use crate::{HashKey, Who};

/// Sessions that are kept; beyond that the least recently used are forgotten, and their users anonymous.
pub const MAX_SESSIONS: usize = 100_000;
/// How long a value that was replaced by a new one still counts: requests with it may be on their way.
const ROTATION_GRACE: Duration = Duration::from_secs(30);
/// How exactly the last use of a session is known.
const TOUCH_INTERVAL: Duration = Duration::from_secs(1);

/// How long sessions count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionRules {
    /// Without a request.
    pub idle: Duration,
    /// Since the login.
    pub absolute: Duration,
}

#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) identity: Arc<Identity>,
    /// When the login was.
    pub(crate) began: UnixMs,
    /// In milliseconds since 1970.
    pub(crate) last_seen: AtomicI64,
    /// When another value took its place; `i64::MAX` is not yet.
    pub(crate) replaced: AtomicI64,
}

/// A session that counts at present.
#[derive(Clone, Debug)]
pub struct Known {
    pub(crate) hash: u128,
    session: Arc<Session>,
}

impl Known {
    pub fn identity(&self) -> &Arc<Identity> {
        &self.session.identity
    }
}

/// All of them. One for the life of a gateway.
pub struct Sessions {
    pub(crate) table: Cache<u128, Arc<Session>>,
    key: HashKey,
    /// Counts what a copy on disk would have to learn.
    changes: AtomicU64,
    /// What has changed since somebody began to ask for it.
    noted: Mutex<Option<Noted>>,
}

/// Hashes of sessions, each kind at most [`MAX_SESSIONS`]; later ones are left out.
#[derive(Debug, Default)]
pub(crate) struct Noted {
    /// Those whose value was replaced too: they have yet to end.
    pub(crate) begun: Vec<u128>,
    pub(crate) ended: Vec<u128>,
}

impl Sessions {
    pub fn new(key: HashKey) -> Self {
        let table =
            Cache::builder().max_capacity(MAX_SESSIONS as u64).eviction_policy(EvictionPolicy::lru()).build();
        Self { table, key, changes: AtomicU64::new(0), noted: Mutex::new(None) }
    }

    /// How many there are, those that have ended since the last sweep included. Not for the request path.
    pub fn len(&self) -> usize {
        // Until then new ones are not counted.
        self.table.run_pending_tasks();
        usize::try_from(self.table.entry_count()).unwrap_or(usize::MAX)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Grows with each session that begins, ends or changes; not with their use.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    /// The session of a cookie that a client sent.
    pub fn find(&self, cookie: &[u8], rules: &SessionRules, now: UnixMs) -> Option<Known> {
        let hash = self.key.hash(cookie);
        let session = self.table.get(&hash)?;
        if session.has_ended(rules, now) {
            self.table.invalidate(&hash);
            self.changed();
            return None;
        }
        session.touch(now);
        Some(Known { hash, session })
    }

    /// A login. The session is known by this cookie from now on.
    pub(crate) fn open(&self, cookie: &[u8], who: Who, now: UnixMs) -> u128 {
        let hash = self.key.hash(cookie);
        // Enough of it to tell sessions apart, too little to find the value by.
        let number = (hash >> 64) as u64;
        let identity = Identity { user: who.user, roles: who.roles, session: Some(number) };
        self.insert(hash, Session::new(Arc::new(identity), now, now));
        hash
    }

    /// The upstream has given a known session a new value. Who it is, and its number in limits, stay.
    pub(crate) fn rotate(&self, known: &Known, cookie: &[u8], who: Option<Who>, now: UnixMs) {
        if !self.is_held(known) {
            return;
        }
        let hash = self.key.hash(cookie);
        let identity = match who {
            Some(who) => Arc::new(who.with_session(known.identity().session)),
            None => Arc::clone(known.identity()),
        };
        if hash != known.hash {
            // The first replacement counts: a client that keeps to its old value gains no time.
            let replaced = &known.session.replaced;
            let _ = replaced.compare_exchange(i64::MAX, now.0, Ordering::Relaxed, Ordering::Relaxed);
            // The next process has to learn that the old value ends, too.
            self.note(|noted| &mut noted.begun, known.hash);
        } else if identity == *known.identity() {
            return;
        }
        self.insert(hash, Session::new(identity, known.session.began, now));
    }

    /// The upstream says who the user of a known session is.
    pub(crate) fn rename(&self, known: &Known, who: Who) {
        let identity = who.with_session(known.identity().session);
        if identity == **known.identity() || !self.is_held(known) {
            return;
        }
        let old = &known.session;
        let session = Session {
            identity: Arc::new(identity),
            began: old.began,
            last_seen: AtomicI64::new(old.last_seen.load(Ordering::Relaxed)),
            replaced: AtomicI64::new(old.replaced.load(Ordering::Relaxed)),
        };
        self.insert(known.hash, session);
    }

    /// Whether it was not closed while the answer to a request of it was on its way: that must not open it again.
    fn is_held(&self, known: &Known) -> bool {
        self.table.contains_key(&known.hash)
    }

    pub(crate) fn close(&self, hash: u128) {
        self.table.invalidate(&hash);
        self.note(|noted| &mut noted.ended, hash);
        self.changed();
    }

    /// Keeps account from now on of what begins and ends, for the process that takes this one's place.
    pub fn note_changes(&self) {
        *self.noted.lock() = Some(Noted::default());
    }

    pub(crate) fn take_noted(&self) -> Option<Noted> {
        let mut noted = self.noted.lock();
        let noted = noted.as_mut().filter(|noted| !noted.begun.is_empty() || !noted.ended.is_empty())?;
        Some(std::mem::take(noted))
    }

    fn note(&self, list: impl FnOnce(&mut Noted) -> &mut Vec<u128>, hash: u128) {
        if let Some(noted) = self.noted.lock().as_mut() {
            let list = list(noted);
            if list.len() < MAX_SESSIONS {
                list.push(hash);
            }
        }
    }

    /// Ends all sessions that go by this name in the log; returns how many there were. Not for the request path.
    pub fn close_user(&self, name: &str) -> usize {
        let is_theirs = |session: &Session| session.identity.name() == name;
        let theirs: Vec<u128> =
            self.table.iter().filter(|(_, session)| is_theirs(session)).map(|(hash, _)| *hash).collect();
        theirs.iter().for_each(|hash| self.close(*hash));
        theirs.len()
    }

    /// Forgets what has ended. Takes milliseconds when there are many: not for the request path.
    pub fn sweep(&self, rules: &SessionRules, now: UnixMs) {
        let ended: Vec<u128> = self
            .table
            .iter()
            .filter(|(_, session)| session.has_ended(rules, now))
            .map(|(hash, _)| *hash)
            .collect();
        if !ended.is_empty() {
            ended.iter().for_each(|hash| self.table.invalidate(hash));
            self.changed();
        }
        self.table.run_pending_tasks();
    }

    pub(crate) fn insert(&self, hash: u128, session: Session) {
        self.table.insert(hash, Arc::new(session));
        self.note(|noted| &mut noted.begun, hash);
        self.changed();
    }

    fn changed(&self) {
        self.changes.fetch_add(1, Ordering::Relaxed);
    }
}

impl Session {
    pub(crate) fn new(identity: Arc<Identity>, began: UnixMs, now: UnixMs) -> Self {
        let (last_seen, replaced) = (AtomicI64::new(now.0), AtomicI64::new(i64::MAX));
        Self { identity, began, last_seen, replaced }
    }

    /// Takes over that another process saw a new value take this one's place.
    pub(crate) fn end_like(&self, other: &Self) {
        self.replaced.fetch_min(other.replaced.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    pub(crate) fn has_ended(&self, rules: &SessionRules, now: UnixMs) -> bool {
        let at = |instant: &AtomicI64| UnixMs(instant.load(Ordering::Relaxed));
        now >= self.began.plus(rules.absolute)
            || now >= at(&self.last_seen).plus(rules.idle)
            || now >= at(&self.replaced).plus(ROTATION_GRACE)
    }

    fn touch(&self, now: UnixMs) {
        let last = UnixMs(self.last_seen.load(Ordering::Relaxed));
        if now.since(last) >= TOUCH_INTERVAL {
            self.last_seen.store(now.0, Ordering::Relaxed);
        }
    }
}
