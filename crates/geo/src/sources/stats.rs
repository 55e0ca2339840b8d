//! What came of the questions to each source, for the metrics.
//!
//! Owns the counters. Must not take locks.

use std::sync::atomic::{AtomicU64, Ordering};

use super::SourceKind;

/// What became of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerKind {
    /// A location.
    Located,
    /// The source does not know the address.
    Unknown,
    /// No answer: limited, refused or broken.
    Failed,
}

impl AnswerKind {
    pub const ALL: [Self; 3] = [Self::Located, Self::Unknown, Self::Failed];

    /// The label in the metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Located => "located",
            Self::Unknown => "unknown",
            Self::Failed => "failed",
        }
    }
}

/// Counts since the start of the gateway, or since the settings of its geo part changed.
#[derive(Debug, Default)]
pub struct SourceStats {
    answers: [[AtomicU64; AnswerKind::ALL.len()]; SourceKind::ALL.len()],
    dropped: AtomicU64,
}

impl SourceStats {
    pub(crate) fn count(&self, source: SourceKind, kind: AnswerKind) {
        self.answers[source as usize][kind as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_dropped(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    pub fn answers(&self, source: SourceKind, kind: AnswerKind) -> u64 {
        self.answers[source as usize][kind as usize].load(Ordering::Relaxed)
    }

    /// Addresses that were given up: too many waited, or no source answered in the end.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}
