//! From byte offsets to lines and columns.

use crate::Position;

/// Where the lines of a text begin.
pub(super) struct LineIndex<'t> {
    text: &'t str,
    starts: Vec<usize>,
}

impl<'t> LineIndex<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        let after_breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(n, _)| n + 1);
        Self { text, starts: std::iter::once(0).chain(after_breaks).collect() }
    }

    /// The line of `offset`, from 1. Offsets behind the end are on the last line.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.starts.partition_point(|&start| start <= offset)
    }

    /// The line and the column of `offset`.
    pub(super) fn position(&self, offset: usize) -> Position {
        let offset = offset.min(self.text.len());
        let line = self.line(offset);
        let start = self.starts[line - 1];
        let before = String::from_utf8_lossy(&self.text.as_bytes()[start..offset]);
        Position { line, column: before.chars().count() + 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters_and_both_count_from_one() {
        let text = "ä = 1\n\nb";
        let index = LineIndex::new(text);
        let at = |offset| {
            let Position { line, column } = index.position(offset);
            (line, column)
        };
        assert_eq!(at(0), (1, 1));
        assert_eq!(at(5), (1, 5));
        assert_eq!(at(text.find('\n').unwrap() + 1), (2, 1));
        assert_eq!(at(text.len() - 1), (3, 1));
        assert_eq!(at(text.len() + 9), (3, 2));
        assert_eq!(LineIndex::new("").position(0), Position { line: 1, column: 1 });
    }
}
