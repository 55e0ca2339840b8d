//! One person's requests.
//!
//! Owns which rows are whose. Must not hold them in memory: there may be millions.

use std::ops::ControlFlow;

use super::filter::{SliceFilter, client_in};
use super::{LogReader, LogRow, Order, Window};
use crate::error::StoreError;
use crate::subject::Subject;

/// Everything.
const ALWAYS: Window = Window { from: i64::MIN, to: i64::MAX };

impl LogReader {
    /// Calls `each` with every request of the subject, oldest first, until it breaks off.
    ///
    /// # Errors
    /// SQLite fails, or the database was edited.
    pub fn visit_subject(
        &self,
        subject: &Subject,
        each: &mut dyn FnMut(LogRow) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let mut flow = ControlFlow::Continue(());
        for slice in self.slices_in(ALWAYS)? {
            if flow.is_break() {
                break;
            }
            let mut filter = SliceFilter::window_only(ALWAYS);
            if let Subject::Address(clients) = subject {
                let mut numbers = Vec::new();
                for client in clients {
                    let found = client_in(&self.connection, &slice, &client.to_string());
                    let found = found.map_err(|source| self.error("looking for a client")(source));
                    numbers.extend(self.unless_dropped(&slice, found)?.flatten());
                }
                if numbers.is_empty() {
                    continue;
                }
                filter.first_row = numbers.iter().map(|(_, row)| *row).min().unwrap_or(1);
                let numbers: Vec<String> = numbers.iter().map(|(client, _)| client.to_string()).collect();
                filter.sql = format!("AND client IN ({})", numbers.join(","));
            }
            self.walk(&slice, &filter, 1..=i64::MAX, Order::OldestFirst, &mut |_, row| {
                let [.., user] = row.texts;
                if subject.user().is_none_or(|name| name == user) {
                    flow = each(row.to_row());
                }
                flow
            })?;
        }
        Ok(())
    }
}
