//! The store against real files: what is written must be there, once, whatever happens in between.

#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

mod console;
mod erase;
mod failures;
mod handover;
mod log;
mod readers;
mod retention;
mod searches;
mod state;
mod support;
mod watcher;
