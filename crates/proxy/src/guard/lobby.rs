//! How many connections that have not taken an answer yet are served at once.
//!
//! Pingora holds up to ten pieces of an answer for a client that does not take it, and tens of kilobytes for each
//! request whatever it is. Somebody who opens thousands of connections and then does nothing would have all of that
//! for each, until the watch has ended those that are too many. So a newcomer takes a seat while nobody knows yet what
//! it will do; when all seats are taken the next ones wait, here, where a connection costs little. Those that came last
//! go first: in a flood the others have most likely given up. Must not read or write sockets.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::Poll;

use parking_lot::Mutex;

use super::Connection;
use super::connection::Failure;

/// The seats are this part of the bodies that may wait for their clients: together with these they are what slow
/// clients can make the gateway hold.
const SEATS_PART: usize = 4;
/// How long a newcomer that waits for the site holds a seat.
const ASKING_MS: u64 = 250;
/// How long any newcomer does: streams may go on for ever, and handshakes take long over some lines.
const YOUNG_MS: u64 = 2_000;
/// Unless clients make the gateway wait, or it has more to do than it can, who has waited so long is let in without a free seat: a site may be slow with
/// all of its visitors.
const MOST_WAIT_MS: u64 = 500;
/// Which part of those that have waited so long are let in at each look of the watch, but at least as many as there are
/// seats: however many come, each waits about a second at the most, and a flood is not let in before it is known for one.
const LET_IN_PART: usize = 8;
/// Which part of the bodies that may stall must do so for newcomers to wait longer.
const CROWD_PART: usize = 8;
/// How long after a crowd nobody is let in without a free seat: while a flood lasts, those that made it a crowd are gone
/// in some looks of the watch, and what waits is more of the same.
const CALM_MS: u64 = 1_000;
/// So many newcomers at once are nothing unusual; for more of them little is read ahead.
const UNRESTRAINED: usize = 16;

/// Where a newcomer is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Seat {
    /// It needs none, or no longer.
    #[default]
    None,
    /// It waits for one since.
    Wanted(u64),
    /// It holds one since.
    Held(u64),
}

/// The seats of all newcomers. Times are milliseconds of the watch.
#[derive(Default)]
pub(crate) struct Lobby {
    /// Also read without the lock, where a little too late is good enough.
    taken: AtomicUsize,
    /// Bodies that wait for their clients, as of the last look at all connections.
    stalled: AtomicUsize,
    waiting: Mutex<Vec<Arc<Connection>>>,
    /// When the watch last saw a crowd.
    crowded_ms: AtomicU64,
}

/// What a newcomer has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// It makes the gateway wait: the watch counts it.
    Stalled,
    /// The site has been asked and has not answered.
    Asking,
    /// Anything else.
    Served,
}

impl Seat {
    pub(super) fn is_held(self) -> bool {
        matches!(self, Self::Held(_))
    }

    /// Whether it is given back at `now_ms`. While the gateway itself is late nobody can say that the site is.
    pub(super) fn lapses(self, progress: Progress, now_ms: u64, is_late: bool) -> bool {
        let Self::Held(since) = self else { return false };
        match progress {
            Progress::Stalled => true,
            Progress::Asking => !is_late && since + ASKING_MS <= now_ms,
            Progress::Served => since + YOUNG_MS <= now_ms,
        }
    }
}

impl Lobby {
    /// Whether so many newcomers are served that little should be read ahead for each.
    pub(crate) fn is_busy(&self) -> bool {
        self.taken.load(Ordering::Relaxed) > UNRESTRAINED
    }

    fn has_room(&self, max_stalled: usize) -> bool {
        self.taken.load(Ordering::Relaxed) < seats(max_stalled)
            && self.stalled.load(Ordering::Relaxed) <= max_stalled
    }

    /// Takes a seat or a place among those that wait.
    fn ask(&self, connection: &Arc<Connection>, now_ms: u64) {
        let mut waiting = self.waiting.lock();
        if self.has_room(connection.bounds().max_stalled) {
            self.taken.fetch_add(1, Ordering::Relaxed);
            connection.watched.lock().seat = Seat::Held(now_ms);
        } else {
            connection.watched.lock().seat = Seat::Wanted(now_ms);
            waiting.push(Arc::clone(connection));
        }
    }

    /// Takes the seat of a connection that has taken an answer, or that has ended.
    pub(super) fn leave(&self, connection: &Connection) {
        let seat = std::mem::take(&mut connection.watched.lock().seat);
        if seat.is_held() {
            self.free(connection.edge.watch.now_ms(), connection.bounds().max_stalled);
        }
    }

    /// A seat has been given back.
    pub(super) fn free(&self, now_ms: u64, max_stalled: usize) {
        let mut waiting = self.waiting.lock();
        self.taken.fetch_sub(1, Ordering::Relaxed);
        self.seat_newest(&mut waiting, now_ms, max_stalled);
    }

    fn seat_newest(&self, waiting: &mut Vec<Arc<Connection>>, now_ms: u64, max_stalled: usize) {
        while self.has_room(max_stalled)
            && let Some(newest) = waiting.pop()
        {
            self.seat(&newest, now_ms);
        }
    }

    /// Those that have given up waiting get none.
    fn seat(&self, connection: &Connection, now_ms: u64) {
        let mut watched = connection.watched.lock();
        if let Seat::Wanted(_) = watched.seat {
            self.taken.fetch_add(1, Ordering::Relaxed);
            watched.seat = Seat::Held(now_ms);
            watched.wake();
        }
    }

    /// Whether so many stall that newcomers have to wait for them.
    pub(super) fn is_crowd(stalled: usize, max_stalled: usize) -> bool {
        stalled * CROWD_PART >= max_stalled
    }

    /// Called by the watch when it has looked at all connections, of which so many bodies stall. Returns how many
    /// newcomers they keep waiting.
    pub(super) fn settle(
        &self,
        stalled: usize,
        is_crowd: bool,
        is_late: bool,
        now_ms: u64,
        max_stalled: usize,
    ) -> usize {
        let mut waiting = self.waiting.lock();
        self.stalled.store(stalled, Ordering::Relaxed);
        waiting.retain(|connection| match connection.watched.lock().seat {
            Seat::Wanted(_) => true,
            Seat::None | Seat::Held(_) => false,
        });
        if is_crowd {
            self.crowded_ms.store(now_ms, Ordering::Relaxed);
        }
        let is_calm = now_ms.saturating_sub(self.crowded_ms.load(Ordering::Relaxed)) > CALM_MS;
        if is_calm && !is_late {
            // In the order in which they came.
            let patient = |connection: &Arc<Connection>| match connection.watched.lock().seat {
                Seat::Wanted(since) => since + MOST_WAIT_MS > now_ms,
                Seat::None | Seat::Held(_) => false,
            };
            let impatient = waiting.iter().position(patient).unwrap_or(waiting.len());
            let let_in = impatient.min(seats(max_stalled).max(waiting.len() / LET_IN_PART));
            waiting.drain(..let_in).for_each(|connection| self.seat(&connection, now_ms));
        }
        self.seat_newest(&mut waiting, now_ms, max_stalled);
        if is_crowd { waiting.len() } else { 0 }
    }
}

fn seats(max_stalled: usize) -> usize {
    (max_stalled / SEATS_PART).max(1)
}

impl Connection {
    /// Waits for a seat, unless an answer was taken on this connection before. `Err`: it has to end.
    pub(super) async fn enter(self: &Arc<Self>) -> Result<(), Failure> {
        if self.has_taken_an_answer() || self.watched.lock().seat.is_held() {
            return Ok(());
        }
        self.edge.lobby.ask(self, self.edge.watch.now_ms());
        let mut has_waited = false;
        std::future::poll_fn(|cx| {
            let mut watched = self.watched.lock();
            match (watched.seat, watched.ending()) {
                (Seat::Wanted(_), None) => {}
                (Seat::Held(_) | Seat::None, _) => {
                    if has_waited {
                        watched.rest();
                    }
                    return Poll::Ready(Ok(()));
                }
                (Seat::Wanted(_), Some(_)) => {
                    watched.seat = Seat::None;
                    drop(watched);
                    self.fail(Failure::Crowded);
                    return Poll::Ready(Err(Failure::Crowded));
                }
            }
            if !has_waited {
                has_waited = true;
                watched.until(self.edge.watch.after(self.bounds().head_timeout));
            }
            watched.wake_with(cx);
            Poll::Pending
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seat_lapses_when_it_is_known_what_its_holder_does() {
        let seat = Seat::Held(1_000);
        let lapses = |progress, now_ms| seat.lapses(progress, now_ms, false);
        assert!(lapses(Progress::Stalled, 1_000));
        assert!(!lapses(Progress::Asking, 1_249) && lapses(Progress::Asking, 1_250));
        assert!(!lapses(Progress::Served, 2_999) && lapses(Progress::Served, 3_000));
        assert!(!seat.lapses(Progress::Asking, 2_000, true), "the gateway is late, not the site");
        assert!(!Seat::None.lapses(Progress::Stalled, 9_000, false));
        assert!(!Seat::Wanted(0).lapses(Progress::Stalled, 9_000, false));
    }
}
