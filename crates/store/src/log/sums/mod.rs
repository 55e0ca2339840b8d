//! What the zones of the log hold, for searches and for sums.
//!
//! Owns what is stored about a zone and under which number. Must not hold a text or an address: numbers of the slice's
//! dictionaries alone, so that what is erased there is erased here too.

mod counters;
mod encoding;
mod marks;
mod rebuild;
mod zone;

use portcullis_model::VerdictKind;

use super::slice::{ZONE_ROWS, first_number};

pub(crate) use counters::Counters;
pub(crate) use encoding::{Minute, PlaceSums, Tally, inline_texts, minutes, place_sums, tallies};
#[cfg(test)]
pub(crate) use marks::mark;
pub(crate) use marks::{Needle, marks};
pub(crate) use rebuild::{
    complete, forget_slice_sums, is_complete, places_of, rebuild_all, rebuild_marks, rebuild_zones,
};
pub(crate) use zone::{Facts, TextFact, ZoneSums};

/// Traffic is summed up by the minute.
pub(crate) const MINUTE_MS: i64 = 60_000;
/// Values of one kind that the sums of a whole slice keep, the most frequent.
pub(crate) const SLICE_TOP: usize = 1_000;

/// What is stored about a zone, or about a whole slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Sums by the minute.
    Minutes = 0,
    /// Each shape with its number of requests. Every zone that has sums has these.
    Shapes = 1,
    Clients = 2,
    /// The interned texts by column.
    Paths = 3,
    Queries = 4,
    Agents = 5,
    Users = 6,
    /// Where the rows are whose text is their own, by column.
    InlinePaths = 7,
    InlineQueries = 8,
    InlineAgents = 9,
    InlineUsers = 10,
    /// Countries and ASNs; of a whole slice alone.
    Places = 11,
}

/// The text columns that are summed up, in their order in a row.
pub(crate) const TEXT_KINDS: [(Kind, Kind); 4] = [
    (Kind::Paths, Kind::InlinePaths),
    (Kind::Queries, Kind::InlineQueries),
    (Kind::Agents, Kind::InlineAgents),
    (Kind::Users, Kind::InlineUsers),
];

const KIND_BITS: u32 = 4;
/// The place of a whole slice's sums, where no zone is.
const SLICE_PLACE: i64 = (1 << (32 - KIND_BITS)) - 1;

/// Under which number a zone's sums are stored.
pub(crate) fn zone_id(slice: i64, last_row: i64, kind: Kind) -> i64 {
    id_at(slice, (last_row - 1) / ZONE_ROWS, kind)
}

/// Under which number the sums of a whole slice are stored.
pub(crate) fn slice_id(slice: i64, kind: Kind) -> i64 {
    id_at(slice, SLICE_PLACE, kind)
}

fn id_at(slice: i64, place: i64, kind: Kind) -> i64 {
    first_number(slice) + (place << KIND_BITS) + kind as i64
}

/// Verdict, class of the status and suspicion, as one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Class {
    pub(crate) verdict: VerdictKind,
    /// The first digit; 0 for 1xx, too.
    pub(crate) status: u16,
    pub(crate) is_suspicious: bool,
}

impl Class {
    const STATUSES: u64 = 5;

    pub(crate) fn of(verdict: VerdictKind, status: u16, is_suspicious: bool) -> Self {
        let status = match status / 100 {
            digit @ 2..=4 => digit,
            5.. => 5,
            0 | 1 => 0,
        };
        Self { verdict, status, is_suspicious }
    }

    fn number(self) -> u64 {
        let status = u64::from(self.status.saturating_sub(1));
        (self.verdict.index() as u64 * Self::STATUSES + status) * 2 + u64::from(self.is_suspicious)
    }

    fn from_number(number: u64) -> Option<Self> {
        let status = number / 2 % Self::STATUSES;
        let verdict = usize::try_from(number / 2 / Self::STATUSES).ok()?;
        Some(Self {
            verdict: *VerdictKind::ALL.get(verdict)?,
            status: if status == 0 { 0 } else { status as u16 + 1 },
            is_suspicious: number % 2 == 1,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_is_read_back() {
        for verdict in VerdictKind::ALL {
            for status in [0, 101, 200, 304, 404, 599] {
                for is_suspicious in [false, true] {
                    let class = Class::of(verdict, status, is_suspicious);
                    assert_eq!(Class::from_number(class.number()), Some(class));
                    assert!(class.number() < 256);
                }
            }
        }
        assert_eq!(Class::from_number(1 << 40), None);
    }

    #[test]
    fn zones_and_slices_have_numbers_of_their_own() {
        assert_eq!(zone_id(3, 1, Kind::Minutes), zone_id(3, ZONE_ROWS, Kind::Minutes));
        assert_ne!(zone_id(3, ZONE_ROWS, Kind::Minutes), zone_id(3, ZONE_ROWS + 1, Kind::Minutes));
        assert!(slice_id(3, Kind::Places) < first_number(4));
        assert!(slice_id(3, Kind::Minutes) > zone_id(3, 1 << 38, Kind::Places));
    }
}
