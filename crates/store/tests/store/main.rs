//! The store against real files: what is written must be there, once, whatever happens in between.

mod failures;
mod log;
mod readers;
mod retention;
mod state;
mod support;
mod watcher;
