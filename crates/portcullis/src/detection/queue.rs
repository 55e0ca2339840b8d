//! Alarms on their way from the request path to the thread that writes them down: bounded, never waits, and those that
//! lead to a block first.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::live::Raised;

/// Alarms of one kind that can wait; an alarm holds some kilobytes.
const MAX_WAITING: usize = 2_048;

#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    arrival: Condvar,
}

#[derive(Default)]
struct Waiting {
    to_block: VecDeque<Raised>,
    to_note: VecDeque<Raised>,
}

impl Waiting {
    fn of(&mut self, is_to_be_blocked: bool) -> &mut VecDeque<Raised> {
        if is_to_be_blocked { &mut self.to_block } else { &mut self.to_note }
    }

    fn is_empty(&self) -> bool {
        self.to_block.is_empty() && self.to_note.is_empty()
    }

    fn next(&mut self) -> Option<Raised> {
        self.to_block.pop_front().or_else(|| self.to_note.pop_front())
    }
}

impl Queue {
    /// False: it is full, and the alarm is gone.
    pub(super) fn offer(&self, raised: Raised, is_to_be_blocked: bool) -> bool {
        let mut waiting = self.waiting.lock();
        let places = waiting.of(is_to_be_blocked);
        if places.len() >= MAX_WAITING {
            return false;
        }
        places.push_back(raised);
        drop(waiting);
        self.arrival.notify_one();
        true
    }

    /// Puts alarms back that could not be written, in their order.
    pub(super) fn put_back(&self, batch: Vec<Raised>) {
        let mut waiting = self.waiting.lock();
        batch.into_iter().rev().for_each(|raised| waiting.to_block.push_front(raised));
    }

    /// The next alarms, at most so many; waits for so long if there is none.
    pub(super) fn take(&self, most: usize, patience: Duration) -> Vec<Raised> {
        let mut waiting = self.waiting.lock();
        if waiting.is_empty() {
            self.arrival.wait_for(&mut waiting, patience);
        }
        std::iter::from_fn(|| waiting.next()).take(most).collect()
    }

    /// Forgets alarms.
    pub(super) fn forget(&self, is_meant: impl Fn(&Raised) -> bool) {
        let mut waiting = self.waiting.lock();
        waiting.to_block.retain(|raised| !is_meant(raised));
        waiting.to_note.retain(|raised| !is_meant(raised));
    }
}
