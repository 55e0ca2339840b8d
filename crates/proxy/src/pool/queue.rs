//! The requests of one pool that wait because all of its servers are full.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use tokio::sync::Notify;

#[derive(Default)]
pub(super) struct Queue {
    waiting: AtomicUsize,
    room: Notify,
}

/// One that waits, until it is dropped.
pub(super) struct Place<'a>(&'a Queue);

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// A server has room again: the first one who waits should look.
    pub(super) fn freed(&self) {
        self.room.notify_one();
    }

    /// `None` when `most` are waiting already.
    pub(super) fn enter(&self, most: usize) -> Option<Place<'_>> {
        self.waiting
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |waiting| {
                (waiting < most).then_some(waiting + 1)
            })
            .ok()
            .map(|_| Place(self))
    }
}

impl Place<'_> {
    /// Returns true when there may be room, false at the deadline.
    pub(super) async fn wait(&self, deadline: Instant) -> bool {
        tokio::time::timeout_at(deadline.into(), self.0.room.notified()).await.is_ok()
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}
