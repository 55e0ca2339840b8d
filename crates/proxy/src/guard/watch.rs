//! Looks after all open connections a few times a second: ends those that are over their time, that wait
//! too long for their clients when too many do, and those whose client has been blocked meanwhile.
//!
//! One task for all, so that a connection needs no timer of its own. Must not read or write sockets: it
//! wakes the connection's task, which does the rest.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use portcullis_model::{ClientIp, Identity, MalformedKind};
use portcullis_policy::Now;

use crate::edge::Edge;

use super::Connection;
use super::lobby::{Lobby, Seat};

/// How often all connections are looked at. Every deadline is kept to within this.
const TICK: Duration = Duration::from_millis(100);
/// The same while too many connections stall: what is opened between two looks can hold memory until the next.
const BUSY_TICK: Duration = Duration::from_millis(40);
/// How often it is looked whether the clients of long requests have been blocked.
const BLOCK_INTERVAL_MS: u64 = 400;
/// Requests that are younger have just been judged.
const JUDGED_LATELY_MS: u64 = 500;
/// A pause that is no stall yet: what lies between two packets on a slow line.
const STALL: Patience = Patience { most_ms: 250, least_ms: 50 };
/// The same for a socket that all streams of an HTTP/2 connection share. A page that loads over a slow line has
/// dozens of small answers open meanwhile, and must not count like as many large ones at once.
const SHARED_STALL: Patience = Patience { most_ms: 5_000, least_ms: 250 };
/// A look that comes so much later than it should shows that the gateway has more to do than it can.
const LATE_MS: u64 = 30;
const SHARDS: usize = 16;
/// A shard keeps room for at least this many connections.
const LEAST_CAPACITY: usize = 64;

/// Why the watch ended a connection, or what it waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// What was waited for did not come in time.
    Overdue,
    /// Too many connections waited for their clients, and this one the longest.
    Stalled,
    /// The client is blocked since, by the block with this ID.
    Blocked(i64),
    /// What the client does, or does not, on HTTP/2.
    Frames(MalformedKind),
}

const NEVER: u64 = u64::MAX;

/// What the watch knows of one connection.
pub(super) struct Watched {
    waker: Option<Waker>,
    /// Times are milliseconds of [`Watch::now_ms`]; `NEVER` is off.
    deadline: u64,
    /// Since when the connection waits for its client in the middle of a body.
    stalled_since: u64,
    /// Since when it serves a client that was let in, and whom.
    serving: Option<(u64, ClientIp)>,
    /// Who that is, if it is verified; the latest, where requests of several users come on one connection.
    identity: Option<Arc<Identity>>,
    /// Nothing has come of the next request.
    is_idle: bool,
    /// When to wake the connection's task, which has something else to do then.
    wake_at: u64,
    pub(super) seat: Seat,
    ending: Option<Ending>,
}

impl Default for Watched {
    fn default() -> Self {
        Self {
            waker: None,
            deadline: NEVER,
            stalled_since: NEVER,
            serving: None,
            identity: None,
            is_idle: false,
            wake_at: NEVER,
            seat: Seat::None,
            ending: None,
        }
    }
}

impl Watched {
    pub(super) fn ending(&self) -> Option<Ending> {
        self.ending
    }

    /// Whom to wake when the connection is to end.
    pub(super) fn wake_with(&mut self, cx: &Context<'_>) {
        match &mut self.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
    }

    /// Ends the connection unless it goes on before `deadline`.
    pub(super) fn until(&mut self, deadline: u64) {
        self.deadline = deadline;
        self.is_idle = false;
    }

    /// Waits for a request: the connection may end at any time.
    pub(super) fn idle(&mut self, deadline: u64) {
        self.deadline = deadline;
        self.is_idle = true;
    }

    /// Waits for the client in the middle of a body.
    pub(super) fn stall(&mut self, since: u64, deadline: u64) {
        self.stalled_since = since;
        self.deadline = deadline;
    }

    /// Nothing is waited for.
    pub(super) fn go_on(&mut self) {
        self.deadline = NEVER;
        self.stalled_since = NEVER;
    }

    /// Who is served on several streams is served since the first: asking on must not keep the others open.
    pub(super) fn serve(&mut self, since: u64, client: ClientIp) {
        if self.serving.is_none_or(|(_, served)| served != client) {
            self.serving = Some((since, client));
            self.identity = None;
        }
    }

    /// The client that is served is a verified user.
    pub(super) fn identify(&mut self, client: ClientIp, identity: &Arc<Identity>) {
        if self.serving.is_some_and(|(_, served)| served == client) {
            self.identity = Some(Arc::clone(identity));
        }
    }

    /// Nobody is served.
    pub(super) fn serve_nobody(&mut self) {
        self.serving = None;
        self.identity = None;
    }

    /// The request has been answered.
    pub(super) fn rest(&mut self) {
        self.go_on();
        self.serve_nobody();
        self.is_idle = false;
    }

    /// Whatever was waited for, and why it was to end, is over; a seat is not.
    pub(super) fn begin_anew(&mut self) {
        *self = Self { seat: self.seat, ..Self::default() };
    }

    /// The first reason stays.
    pub(super) fn end(&mut self, ending: Ending) {
        self.ending.get_or_insert(ending);
        self.deadline = NEVER;
        self.wake();
    }

    pub(super) fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Wakes the connection's task then.
    pub(super) fn wake_at(&mut self, then: u64) {
        self.wake_at = then;
    }

    /// Ends the connection if it is over its time; else says since when it stalls.
    fn look(
        &mut self,
        now_ms: u64,
        is_closing: bool,
        is_blocked: &mut dyn FnMut(ClientIp, Option<&Identity>) -> Option<i64>,
    ) -> Option<u64> {
        if self.ending.is_some() {
            return None;
        }
        if self.deadline <= now_ms || (is_closing && self.is_idle) {
            self.end(Ending::Overdue);
            return None;
        }
        if self.wake_at <= now_ms {
            self.wake_at = NEVER;
            self.wake();
        }
        if let Some((since, client)) = self.serving
            && since.saturating_add(JUDGED_LATELY_MS) <= now_ms
            && let Some(block) = is_blocked(client, self.identity.as_deref())
        {
            self.end(Ending::Blocked(block));
            return None;
        }
        (self.stalled_since != NEVER).then_some(self.stalled_since)
    }
}

/// All open connections, and a clock that is cheap to read.
pub(crate) struct Watch {
    now_ms: AtomicU64,
    is_closing: AtomicBool,
    next_id: AtomicU64,
    shards: [Mutex<HashMap<u64, Arc<Connection>>>; SHARDS],
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            now_ms: AtomicU64::new(0),
            is_closing: AtomicBool::new(false),
            next_id: AtomicU64::new(0),
            shards: std::array::from_fn(|_| Mutex::default()),
        }
    }
}

/// Keeps a connection under watch until it is dropped.
pub(super) struct Held {
    id: u64,
    connection: Arc<Connection>,
}

impl Watch {
    /// The monotonic milliseconds of the last tick: late by at most about one tick.
    pub(super) fn now_ms(&self) -> u64 {
        self.now_ms.load(Ordering::Relaxed)
    }

    /// From now on connections end that wait for a request.
    pub(crate) fn close_idle(&self) {
        self.is_closing.store(true, Ordering::Relaxed);
    }

    /// The instant `span` from now: not before, and at most two ticks later.
    pub(super) fn after(&self, span: Duration) -> u64 {
        let span = u64::try_from((span + TICK).as_millis()).unwrap_or(NEVER);
        self.now_ms().saturating_add(span)
    }

    fn shard(&self, id: u64) -> &Mutex<HashMap<u64, Arc<Connection>>> {
        &self.shards[usize::try_from(id).unwrap_or(0) % SHARDS]
    }

    pub(super) fn hold(&self, connection: &Arc<Connection>) -> Held {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        self.shard(id).lock().insert(id, Arc::clone(connection));
        Held { id, connection: Arc::clone(connection) }
    }

    fn release(&self, id: u64) {
        let mut shard = self.shard(id).lock();
        shard.remove(&id);
        if shard.capacity() > LEAST_CAPACITY && shard.len() < shard.capacity() / 4 {
            shard.shrink_to(LEAST_CAPACITY);
        }
    }

    /// Looks at every connection once. Returns whether too many stalled.
    fn tick(&self, edge: &Edge, now: Now, with_blocks: bool, is_late: bool) -> bool {
        self.now_ms.store(now.monotonic_ms, Ordering::Relaxed);
        let rules = edge.rules.load();
        let enforces = rules.policy.mode == portcullis_policy::Mode::Enforce;
        let mut is_blocked = |client: ClientIp, identity: Option<&Identity>| {
            if !(with_blocks && enforces) || edge.state.allows.load().lookup(client.ip()).is_some() {
                return None;
            }
            edge.state.blocked(client, identity, now)
        };
        let is_closing = self.is_closing.load(Ordering::Relaxed);
        let (mut lapsed, mut newly_stalled) = (0, 0);
        let mut stalled = Vec::new();
        let mut sharing = Vec::new();
        for shard in &self.shards {
            for connection in shard.lock().values() {
                let now_ms = now.monotonic_ms;
                let (waiting, seat) = {
                    let mut watched = connection.watched.lock();
                    (watched.look(now_ms, is_closing, &mut is_blocked), watched.seat)
                };
                let (frames, streams) = connection.look_at_frames(now_ms, &rules.bounds, is_closing);
                let stall = |list: &mut Vec<Stalled>, since: u64, bodies| {
                    if since.saturating_add(STALL.least_ms) <= now_ms {
                        list.push(Stalled { since, bodies, connection: Arc::clone(connection) });
                    }
                };
                match (frames, waiting) {
                    (Some(since), _) => stall(&mut stalled, since, streams),
                    (None, Some(since)) => stall(&mut stalled, since, 1),
                    (None, None) => {}
                }
                let is_stalled = frames.or(waiting).is_some();
                if seat.is_held() && connection.gives_back_its_seat(is_stalled, now_ms, is_late) {
                    lapsed += 1;
                    newly_stalled += usize::from(is_stalled);
                }
                // A socket that takes nothing holds up all streams, however wide their windows are.
                if let Some(since) = waiting.filter(|_| streams > 1) {
                    stall(&mut sharing, since, streams);
                }
            }
        }
        let max = rules.bounds.max_stalled;
        let bodies = stalled.iter().map(|one| one.bodies).sum();
        let is_crowd = Lobby::is_crowd(bodies + newly_stalled, max);
        let waiting = edge.lobby.settle(bodies, is_crowd, is_late, now.monotonic_ms, max);
        (0..lapsed).for_each(|_| edge.lobby.free(now.monotonic_ms, max));
        let is_crowded = shed_stalled(stalled, waiting, max, STALL, now.monotonic_ms);
        shed_stalled(sharing, 0, max, SHARED_STALL, now.monotonic_ms);
        is_crowded
    }
}

/// How long a connection may wait when more than there may be do: the less the more of them there are, since what
/// each holds is most of the memory that a connection can cost.
#[derive(Clone, Copy, Debug)]
struct Patience {
    most_ms: u64,
    /// However many there are.
    least_ms: u64,
}

impl Patience {
    fn among(self, held: usize, max: usize) -> u64 {
        (self.most_ms * max as u64 / held as u64).max(self.least_ms)
    }
}

/// A connection that waits for its client in the middle of a body.
struct Stalled {
    since: u64,
    /// How many it may hold: one on HTTP/1.
    bodies: usize,
    connection: Arc<Connection>,
}

/// Ends the connections that have waited the longest for their clients when more than `max` bodies do, together with
/// the `waiting` ones that they keep from being served. Returns whether they did.
fn shed_stalled(
    mut stalled: Vec<Stalled>,
    waiting: usize,
    max: usize,
    patience: Patience,
    now_ms: u64,
) -> bool {
    let mut held: usize = waiting + stalled.iter().map(|one| one.bodies).sum::<usize>();
    if held <= max {
        return false;
    }
    let patience = patience.among(held, max);
    stalled.sort_unstable_by_key(|one| one.since);
    for one in stalled {
        if held <= max || one.since + patience > now_ms {
            break;
        }
        held -= one.bodies;
        one.connection.watched.lock().end(Ending::Stalled);
    }
    true
}

impl Drop for Held {
    fn drop(&mut self) {
        self.connection.edge.watch.release(self.id);
        self.connection.edge.lobby.leave(&self.connection);
    }
}

/// Whole milliseconds, saturating.
pub(super) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Ticks until the gateway is gone.
pub(crate) async fn watch(edge: Weak<Edge>) {
    let mut blocks_due_ms = 0;
    let mut due_ms = u64::MAX;
    loop {
        let pause = {
            let Some(edge) = edge.upgrade() else { return };
            let now = edge.clock.now();
            let with_blocks = blocks_due_ms <= now.monotonic_ms;
            if with_blocks {
                blocks_due_ms = now.monotonic_ms + BLOCK_INTERVAL_MS;
            }
            let is_late = now.monotonic_ms > due_ms.saturating_add(LATE_MS);
            let pause = if edge.watch.tick(&edge, now, with_blocks, is_late) { BUSY_TICK } else { TICK };
            due_ms = edge.clock.now().monotonic_ms.saturating_add(millis(pause));
            pause
        };
        tokio::time::sleep(pause).await;
    }
}
