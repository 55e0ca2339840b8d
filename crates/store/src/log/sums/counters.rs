//! Counts by the numbers of a slice.
//!
//! Owns their memory. Must not count numbers that the slice cannot have given out.

use super::Tally;

/// Requests, and those of them that were refused, by number.
#[derive(Debug)]
pub(crate) struct Counters {
    counts: Vec<(u64, u64)>,
    most: u64,
}

impl Counters {
    /// Numbers above `most` are not counted: a database may have been edited.
    pub(crate) fn new(most: u64) -> Self {
        Self { counts: Vec::new(), most }
    }

    pub(crate) fn add(&mut self, tally: Tally) {
        if tally.number > self.most {
            return;
        }
        let index = tally.number as usize;
        if index >= self.counts.len() {
            self.counts.resize((index + 1).next_power_of_two(), (0, 0));
        }
        let (requests, refused) = &mut self.counts[index];
        *requests = requests.saturating_add(tally.requests);
        *refused = refused.saturating_add(tally.refused);
    }

    pub(crate) fn get(&self, number: i64) -> Option<(u64, u64)> {
        let count = self.counts.get(usize::try_from(number).ok()?)?;
        (count.0 > 0).then_some(*count)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// In the order of their numbers.
    pub(crate) fn most_frequent(&self, top: usize) -> Vec<Tally> {
        let counted = self.counts.iter().enumerate().filter(|(_, (requests, _))| *requests > 0);
        let mut found: Vec<Tally> = counted
            .map(|(number, &(requests, refused))| Tally { number: number as u64, requests, refused })
            .collect();
        if found.len() > top {
            found.select_nth_unstable_by(top, |a, b| {
                b.requests.cmp(&a.requests).then_with(|| a.number.cmp(&b.number))
            });
            found.truncate(top);
            found.sort_unstable_by_key(|tally| tally.number);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_frequent_are_kept_in_the_order_of_their_numbers() {
        let mut counters = Counters::new(9);
        for (number, requests) in [(3, 5), (1, 7), (9, 1), (3, 1), (10, 99), (u64::MAX, 99)] {
            counters.add(Tally { number, requests, refused: 1 });
        }
        let found: Vec<_> =
            counters.most_frequent(2).iter().map(|t| (t.number, t.requests, t.refused)).collect();
        assert_eq!(found, [(1, 7, 1), (3, 6, 2)]);
        assert_eq!([counters.get(9), counters.get(2), counters.get(-1)], [Some((1, 1)), None, None]);
    }
}
