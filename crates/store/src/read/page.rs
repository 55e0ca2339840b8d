//! The log a page at a time, newest first, for whoever looks through it.
//!
//! Owns the cursors and how far one look goes. Must not look on past its deadline, or skip rows by counting them.

use std::fmt;
use std::ops::ControlFlow;
use std::str::FromStr;
use std::time::Instant;

use portcullis_model::UnixMs;

use super::search::Stopped;
use super::{Each, LogCursor, LogFilter, LogReader, LogRow, Order};
use crate::error::StoreError;

/// One look into the log.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// Newest first.
    pub rows: Vec<LogRow>,
    /// Where to go on; `None` when nothing older can match.
    pub next: Option<LogCursor>,
    /// Nothing else that ended since then matches: the start of the oldest row that was looked at. The time
    /// asked for when the end was reached.
    pub searched_to: UnixMs,
    /// False when the deadline came before the page was full: `next` goes on searching.
    pub is_complete: bool,
}

impl LogReader {
    /// The newest requests that pass the filter and came before a place, newest first, by the time at which they
    /// ended. The look ends at `deadline`, full or not.
    ///
    /// # Errors
    /// SQLite fails, or the database was edited.
    pub fn page(
        &self,
        filter: &LogFilter,
        before: Option<LogCursor>,
        limit: usize,
        deadline: Instant,
    ) -> Result<Page, StoreError> {
        let window = filter.window();
        let mut page =
            Page { rows: Vec::new(), next: None, searched_to: UnixMs(window.from), is_complete: true };
        for slice in self.slices_in(window)?.into_iter().rev() {
            let last = match before {
                Some(before) if before.slice < slice.id => continue,
                Some(before) if before.slice == slice.id => before.row - 1,
                Some(_) | None => i64::MAX,
            };
            if last < 1 {
                continue;
            }
            let mut full = None;
            let each: &mut Each<'_> = &mut |row, decoded| {
                page.rows.push(decoded.to_row());
                if page.rows.len() < limit {
                    return ControlFlow::Continue(());
                }
                full = Some(Stopped { row, time: decoded.id.time().0 });
                ControlFlow::Break(())
            };
            let stopped = self.search(&slice, filter, 1..=last, Order::NewestFirst, Some(deadline), each)?;
            // What is in the slices before had ended when this one was opened.
            let time = slice.span.map_or(slice.base_ms, |(_, newest)| newest.min(slice.base_ms));
            let late = || (Instant::now() >= deadline).then_some(Stopped { row: 1, time });
            let is_full = full.is_some();
            if let Some(Stopped { row, time }) = full.or(stopped).or_else(late) {
                page.next = Some(LogCursor { slice: slice.id, row });
                page.searched_to = UnixMs(time);
                page.is_complete = is_full;
                break;
            }
        }
        Ok(page)
    }
}

impl fmt::Display for LogCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.slice, self.row)
    }
}

/// The text is no place in a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadCursor;

impl fmt::Display for BadCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected a cursor as an earlier page gave it")
    }
}

impl std::error::Error for BadCursor {}

impl FromStr for LogCursor {
    type Err = BadCursor;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (slice, row) = text.split_once('-').ok_or(BadCursor)?;
        let number = |text: &str| match text.bytes().all(|byte| byte.is_ascii_digit()) {
            true => text.parse::<i64>().map_err(|_| BadCursor),
            false => Err(BadCursor),
        };
        Ok(Self { slice: number(slice)?, row: number(row)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_back_and_nothing_else_is() {
        let cursor = LogCursor { slice: 12, row: 3_456 };
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        for text in ["", "-", "1", "1-", "-1", "1--2", "+1-2", "1-2-3", "1-99999999999999999999", "é-1"] {
            assert_eq!(text.parse::<LogCursor>(), Err(BadCursor), "{text}");
        }
    }
}
