//! Which texts may hold what is sought, from eight bytes each.
//!
//! Owns how three letters become a bit. Must not decide anything for good: a mark that fits says "perhaps".

/// Before the first and after the last letter, so that a search for a beginning finds beginnings.
const START: u8 = 2;
const END: u8 = 3;
const LETTERS: usize = 3;

/// The mark of a text: a bit for each three letters in a row, in any case.
pub(crate) fn mark(text: &str) -> u64 {
    bits([START].into_iter().chain(text.bytes()).chain([END]))
}

fn bits(letters: impl Iterator<Item = u8>) -> u64 {
    let (mut mark, mut run, mut length) = (0, 0_u32, 0);
    for letter in letters {
        run = (run << 8 | u32::from(letter.to_ascii_lowercase())) & 0x00FF_FFFF;
        length += 1;
        if length >= LETTERS {
            // Multiplicative hashing (Knuth, The Art of Computer Programming 3, 6.4); the upper six bits.
            mark |= 1 << (run.wrapping_mul(0x9E37_79B1) >> 26);
        }
    }
    mark
}

/// The bits that a text must have to hold all that is sought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Needle(u64);

impl Needle {
    /// Also `part`, anywhere.
    pub(crate) fn part(self, part: &str) -> Self {
        Self(self.0 | bits(part.bytes()))
    }

    /// Also `part`, at the beginning.
    pub(crate) fn start(self, part: &str) -> Self {
        Self(self.0 | bits([START].into_iter().chain(part.bytes())))
    }

    /// Also `part`, at the end.
    pub(crate) fn end(self, part: &str) -> Self {
        Self(self.0 | bits(part.bytes().chain([END])))
    }

    /// Nothing but `text`.
    pub(crate) fn whole(text: &str) -> Self {
        Self(mark(text))
    }

    pub(crate) fn fits(self, mark: u64) -> bool {
        mark & self.0 == self.0
    }
}

/// The marks in a row of `string_marks`.
pub(crate) fn marks(data: &[u8]) -> impl Iterator<Item = u64> + '_ {
    data.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_a_text_fits_its_mark() {
        let text = "/Shop/Article?é";
        let none = Needle::default();
        for needle in [
            none,
            none.start("/shop"),
            none.end("?é"),
            none.part("ARTICLE"),
            none.part("a"),
            none.start("/").part("op/").end("é"),
            Needle::whole(text),
        ] {
            assert!(needle.fits(mark(text)));
        }
        assert!(!none.start("shop").fits(mark(text)) && !none.part("basket").fits(mark(text)));
    }

    #[test]
    fn most_texts_without_it_do_not_fit() {
        let needle = Needle::default().part("sqlmap");
        let fitting = (0..1_000).filter(|n| needle.fits(mark(&format!("/catalogue/item-{n}.html")))).count();
        assert!(fitting < 100, "{fitting}");
    }
}
