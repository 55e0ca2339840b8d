//! The engine at request time, and the timeline that feeds it with a past.

mod alarms;
mod hostile;
#[path = "../support/mod.rs"]
mod support;
mod timeline;
