//! Finds one request by its decision ID.
//!
//! Owns the use of the time inside the ID. Must not scan rows whose zone cannot hold that time.

use std::ops::ControlFlow;

use portcullis_model::RequestId;

use super::filter::SliceFilter;
use super::{LogReader, LogRow, Order, Window};
use crate::error::StoreError;

impl LogReader {
    /// The request with this ID. Rows are appended when a request ends, and the zones know the starts,
    /// so only zones in which a request of that very time may be are read, the earliest first.
    ///
    /// # Errors
    /// SQLite fails, or the database was edited.
    pub fn find(&self, id: RequestId) -> Result<Option<LogRow>, StoreError> {
        let time = id.time().0;
        let window = Window { from: time, to: time.saturating_add(1) };
        let random = i32::from_ne_bytes(id.random().to_ne_bytes());
        let filter = SliceFilter { window, first_row: 1, sql: format!("AND random = {random}") };
        let mut found = None;
        for slice in self.slices_in(window)? {
            self.walk(&slice, &filter, 1..=i64::MAX, Order::OldestFirst, &mut |_, row| {
                found = Some(row.to_row());
                ControlFlow::Break(())
            })?;
            if found.is_some() {
                break;
            }
        }
        Ok(found)
    }
}
