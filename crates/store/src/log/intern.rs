//! Dictionaries of the live slice: what has been stored before is stored as its number.
//!
//! Owns the numbers and their bounds. Must not touch the database: `batch.rs` writes what is new here.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

/// The most strings that one slice interns; later ones are stored in the row itself.
pub(crate) const MAX_STRINGS: usize = 65_536;
/// The most bytes of text that one slice interns.
pub(crate) const MAX_STRING_BYTES: usize = 16 << 20;
/// Strings that have been seen once are remembered by their hash alone, in a table of this size.
const SEEN_SLOTS: usize = 65_536;

/// How a text is to be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    /// By the number that it already has.
    Known(i64),
    /// By a number that it has just been given; the dictionary in the database needs a row.
    New(i64),
    /// As it is.
    Inline,
}

/// The strings of a slice. A string gets a number when it is seen a second time: a scanner's random
/// paths must not push the site's own paths out of the dictionary.
#[derive(Debug)]
pub(crate) struct Strings {
    numbers: HashMap<Box<str>, i64>,
    bytes: usize,
    seen: Box<[u64]>,
    hasher: RandomState,
}

impl Strings {
    pub(crate) fn new() -> Self {
        Self {
            numbers: HashMap::new(),
            bytes: 0,
            seen: vec![0; SEEN_SLOTS].into_boxed_slice(),
            hasher: RandomState::new(),
        }
    }

    /// Takes over a string that the database already has.
    pub(crate) fn load(&mut self, number: i64, text: String) {
        self.bytes += text.len();
        self.numbers.insert(text.into_boxed_str(), number);
    }

    /// Decides how `text` is stored, and remembers it.
    pub(crate) fn store(&mut self, text: &str) -> Stored {
        if text.is_empty() {
            return Stored::Known(0);
        }
        if let Some(&number) = self.numbers.get(text) {
            return Stored::Known(number);
        }
        if self.numbers.len() >= MAX_STRINGS || self.bytes + text.len() > MAX_STRING_BYTES {
            return Stored::Inline;
        }
        // Never 0, the mark of an empty slot.
        let hash = self.hasher.hash_one(text) | 1;
        let slot = &mut self.seen[(hash >> 32) as usize % SEEN_SLOTS];
        if *slot != hash {
            *slot = hash;
            return Stored::Inline;
        }
        let number = i64::try_from(self.numbers.len() + 1).unwrap_or(i64::MAX);
        self.load(number, text.to_owned());
        Stored::New(number)
    }
}

/// A bounded map to numbers in the database. What falls out of it is looked up or stored again, which
/// costs time or a second row and never a wrong answer.
#[derive(Debug)]
pub(crate) struct Numbers<K> {
    known: HashMap<K, i64>,
    capacity: usize,
    next: i64,
}

impl<K: std::hash::Hash + Eq> Numbers<K> {
    /// `next` is the first number that the database does not have.
    pub(crate) fn new(capacity: usize, next: i64) -> Self {
        Self { known: HashMap::new(), capacity, next }
    }

    pub(crate) fn get<Q>(&self, key: &Q) -> Option<i64>
    where
        K: std::borrow::Borrow<Q>,
        Q: std::hash::Hash + Eq + ?Sized,
    {
        self.known.get(key).copied()
    }

    /// Remembers a number that the database has.
    pub(crate) fn remember(&mut self, key: K, number: i64) {
        if self.known.len() >= self.capacity {
            self.known.clear();
        }
        self.known.insert(key, number);
    }

    /// Gives the key the next free number.
    pub(crate) fn add(&mut self, key: K) -> i64 {
        let number = self.next;
        self.next += 1;
        self.remember(key, number);
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_gets_a_number_when_it_comes_a_second_time() {
        let mut strings = Strings::new();
        assert_eq!(strings.store(""), Stored::Known(0));
        assert_eq!(strings.store("/a"), Stored::Inline);
        assert_eq!(strings.store("/a"), Stored::New(1));
        assert_eq!(strings.store("/a"), Stored::Known(1));
    }

    #[test]
    fn the_dictionary_stops_at_its_bound() {
        let mut strings = Strings::new();
        for n in 0..MAX_STRINGS {
            strings.load(n as i64 + 1, n.to_string());
        }
        for _ in 0..3 {
            assert_eq!(strings.store("one too many"), Stored::Inline);
        }
        assert_eq!(strings.store("7"), Stored::Known(8));

        let mut long = Strings::new();
        long.load(1, "x".repeat(MAX_STRING_BYTES - 3));
        for _ in 0..3 {
            assert_eq!(long.store("four"), Stored::Inline);
        }
    }

    #[test]
    fn a_full_map_forgets_and_never_reuses_a_number() {
        let mut numbers = Numbers::new(2, 10);
        assert_eq!([numbers.add("a"), numbers.add("b"), numbers.add("c")], [10, 11, 12]);
        assert_eq!(numbers.get("a"), None);
        assert_eq!(numbers.get("c"), Some(12));
        assert_eq!(numbers.add("a"), 13);
    }
}
