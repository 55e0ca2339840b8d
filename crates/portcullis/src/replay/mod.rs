//! What a policy would have done to requests of the past: access logs, or the gateway's own log.
//!
//! Owns the order of things: a first pass teaches the forest, a second one runs detection and policy over every record.
//! Time comes from the records, so that the same files give the same answer. Must not print.

mod block;
mod budget;
mod clients;
mod compare;
mod input;
mod learn;
mod merge;
mod outcome;
mod past;
mod simulation;
mod what_if;

pub(crate) use budget::{Budget, Figures};
pub(crate) use clients::{Looks, Refused, Tally};
pub(crate) use compare::{Change, differences};
pub(crate) use input::{Inputs, Source, SourceReport};

pub(crate) use learn::{Model, Origin as ModelOrigin, model};
pub(crate) use outcome::{Flagged, Outcome, memory_peak};
pub(crate) use past::{Pass, Past};
pub(crate) use simulation::Simulation;
pub(crate) use what_if::{MAX_SPAN, Progress, cannot_replay, roles_named_by, what_if};
