//! Privacy where it has to happen: between the request path and the log's queue.
//!
//! Owns what becomes of a record before it is written, and who is behind the addresses that are written instead.
//! Everything before it (rules, limits, blocks) sees the true client; everything after it does not.

mod addresses;
mod erasure;
mod findings;
mod keys;
pub(crate) mod lasting;
mod opt_outs;
mod recording;

pub(crate) use addresses::{Behind, behind_for_strangers};
pub(crate) use erasure::Erasure;
pub(crate) use keys::current_key;
pub(crate) use lasting::KeptBlocks;
pub(crate) use opt_outs::{digest_of_client, digest_of_user};
pub(crate) use recording::Recording;
