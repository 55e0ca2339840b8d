//! Lists that others publish: fetched by the task `feeds`, kept in `DATA/feeds`, in force in the gateway.
//!
//! Whoever fetches (the gateway or `portcullis feeds update`) replaces the last good copy; the gateway notices
//! that by itself. Must not put anything into the table of blocks: a list has up to millions of networks.

mod files;
mod live;
mod update;

pub(crate) use files::{Files, Status, list_of};
pub(crate) use live::{FeedState, LiveFeeds};
pub(crate) use update::{Change, Shelf, TASK_NAME, Updated, judge, next_due, update, update_shelf};
