//! `portcullis upgrade`: a running gateway puts another process in its place, without a refused connection.
//!
//! Owns the conversation of the two processes and of the command with the gateway; docs/decisions/007-upgrade.md
//! tells the whole story. Must not know how a gateway is made: `app` does.

mod control;
mod link;
mod predecessor;
mod program;
mod record;
mod successor;

pub(crate) use control::{Answer, Asker, EraseOrder, Order, UpgradeOrder, bind, connect, listen};
pub(crate) use predecessor::{Predecessor, Records};
pub(crate) use program::Program;
pub(crate) use successor::{Cancel, Forwarder, Successor, hand_over};
