//! What the measuring programs share: the load, the contestants, and the reading of their cost.
//!
//! Owns how a figure is taken; the programs in `bin/` own which questions are asked. Everything listens
//! on loopback, and every load is bounded by a count or a time.

pub mod contestants;
pub mod lists;
pub mod load;
pub mod measure;
pub mod metrics;
pub mod process;
pub mod random;
pub mod report;
pub mod slow;
pub mod upstream;
