//! Evidence that adds up: points per kind of evidence, halved with time, and the record of how they came together.
//! Owns points and thresholds; must not evaluate rules.

use std::time::Duration;

use portcullis_model::{Severity, UnixMs};
use serde_json::{Value, json};

use crate::finding::Judged;
use crate::rules::Evidence;

/// After so long a score is worth half.
pub const SCORE_HALF_LIFE: Duration = Duration::from_secs(20 * 60);
/// Points of a kind of evidence are given once in so long.
const LASTS_MS: i64 = 3_600_000;
/// The most entries of the history; the oldest go.
const MAX_HISTORY: usize = 12;

/// From so many points on, the severest first.
pub const SCORE_THRESHOLDS: [(f64, Severity); 3] =
    [(30.0, Severity::Critical), (12.0, Severity::High), (6.0, Severity::Medium)];

/// What evidence of this kind and severity is worth. How much somebody asks for proves nothing, however often.
fn points(evidence: Evidence, severity: Severity) -> f64 {
    match evidence {
        Evidence::Volume | Evidence::Statistics => return 0.0,
        Evidence::Errors
        | Evidence::Paths
        | Evidence::Signatures
        | Evidence::Logins
        | Evidence::Agent
        | Evidence::Identity
        | Evidence::Company => {}
    }
    match severity {
        Severity::Low => 2.0,
        Severity::Medium => 5.0,
        Severity::High => 10.0,
        Severity::Critical => 24.0,
    }
}

/// The score of one client.
#[derive(Clone, Debug, Default)]
pub(crate) struct Score {
    value: f64,
    at: UnixMs,
    given: Vec<Given>,
    history: Vec<Entry>,
}

/// What was given for one kind of evidence.
#[derive(Clone, Copy, Debug)]
struct Given {
    evidence: Evidence,
    points: f64,
    at: UnixMs,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    at: UnixMs,
    rule: &'static str,
    points: f64,
    score: f64,
}

impl Score {
    /// Adds what is new in a judgement: of each kind of evidence what its severest rule is worth beyond what was given
    /// for that kind already, since two rules of one kind look at the same thing.
    pub(crate) fn add(&mut self, judged: &Judged, at: UnixMs) {
        self.decay(at);
        self.given.retain(|given| (0..LASTS_MS).contains(&at.0.saturating_sub(given.at.0).max(0)));
        for (rule, evidence, severity) in judged.rules() {
            let worth = points(evidence, severity);
            let known = self.given.iter().position(|given| given.evidence == evidence);
            let more = worth - known.map_or(0.0, |n| self.given[n].points);
            if more <= 0.0 {
                continue;
            }
            let given = Given { evidence, points: worth, at };
            match known {
                Some(n) => self.given[n] = given,
                None => self.given.push(given),
            }
            self.value += more;
            if self.history.len() == MAX_HISTORY {
                self.history.remove(0);
            }
            self.history.push(Entry { at, rule, points: more, score: self.value });
        }
    }

    pub(crate) fn severity(&self) -> Option<Severity> {
        SCORE_THRESHOLDS.into_iter().find(|(least, _)| self.value >= *least).map(|(_, severity)| severity)
    }

    pub(crate) fn value(&self) -> f64 {
        round(self.value)
    }

    /// The growth of the score, as a finding's details have it.
    pub(crate) fn history(&self) -> Value {
        let entries = self.history.iter().map(|entry| {
            json!({
                "time": entry.at, "rule": entry.rule, "points": round(entry.points), "score": round(entry.score),
            })
        });
        Value::Array(entries.collect())
    }

    fn decay(&mut self, at: UnixMs) {
        let passed = at.0.saturating_sub(self.at.0);
        if passed > 0 {
            self.value *= 0.5_f64.powf(passed as f64 / (SCORE_HALF_LIFE.as_secs_f64() * 1_000.0));
            self.at = at;
        }
    }
}

fn round(points: f64) -> f64 {
    (points * 10.0).round() / 10.0
}
