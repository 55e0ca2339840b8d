//! A past as the gateway would have lived it: the engine at each request, a window for each hour, a forest trained on
//! what looked good so far. Must not read clocks or files: time comes with the records.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use portcullis_model::{ClientIp, Finding, Severity, UnixMs};

use crate::{
    Engine, Features, ForestModel, Knowledge, MAX_TRAINING_ROWS, Observation, Past, Settings, Signatures,
    Site, Window, train,
};

const HOUR_MS: i64 = 3_600_000;
/// How far back the forest looks for presumed-good clients.
const TRAINING_MS: i64 = 7 * 24 * HOUR_MS;
/// How old a model becomes before the next one is trained.
const MODEL_AGE_MS: i64 = 24 * HOUR_MS;
/// An hour is judged when a record comes that is so much later than its end: logs are written when requests end, and
/// are a little out of order.
const GRACE_MS: i64 = 60_000;
/// Records that are so much earlier than the latest ones begin a past of their own.
const JUMP_MS: i64 = 2 * HOUR_MS;
/// What is learned of the site is told to the engine when paths have become its own, and after so long in any case.
const LESSON_MS: i64 = 24 * HOUR_MS;
/// The most rows that are kept for training.
const MAX_ROWS: usize = 4 * MAX_TRAINING_ROWS;

/// How odd the forest found a client in an hour of the clock, which begins at `hour`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HourScore {
    pub client: ClientIp,
    pub hour: UnixMs,
    /// 0 to 1; see [`ForestModel::score`].
    pub score: f64,
}

/// Feeds the past to an [`Engine`] and, hour by hour of the clock, to a [`Window`], and hands out what they find.
///
/// Memory: that of an engine and two windows, and what has been found and not been taken yet.
#[derive(Debug)]
pub struct Timeline {
    settings: Settings,
    signatures: Arc<Signatures>,
    engine: Engine,
    /// The hours that are not over yet, the earlier one first; at most two.
    hours: VecDeque<Hour>,
    /// Learns from each request.
    site: Site,
    /// What it has learned so far, and what people dismissed; without the past, which windows alone ask for.
    knowledge: Knowledge,
    past: Arc<Past>,
    told_at: Option<i64>,
    model: Option<Arc<ForestModel>>,
    /// Whether models are trained; otherwise the given one stays.
    trains: bool,
    trained_at: Option<i64>,
    /// Presumed-good clients of the last days, by their hour.
    rows: VecDeque<(i64, Features)>,
    findings: Vec<Finding>,
    scores: Vec<HourScore>,
    late: u64,
}

#[derive(Debug)]
struct Hour {
    begins: i64,
    window: Window,
    /// How bad the engine found whom.
    told: HashMap<(IpAddr, Option<String>), Severity>,
}

impl Timeline {
    /// Nothing has happened yet. `model` scores until there are enough rows to train one on the records themselves.
    pub fn new(settings: &Settings, signatures: Arc<Signatures>, model: Option<ForestModel>) -> Self {
        Self {
            engine: Engine::new(settings, Arc::clone(&signatures)),
            settings: settings.clone(),
            signatures,
            hours: VecDeque::new(),
            site: Site::default(),
            knowledge: Knowledge::default(),
            past: Arc::default(),
            told_at: None,
            model: model.map(Arc::new),
            trains: true,
            trained_at: None,
            rows: VecDeque::new(),
            findings: Vec::new(),
            scores: Vec::new(),
            late: 0,
        }
    }

    /// Never trains: all is scored by the given model, so that two runs score the same.
    #[must_use]
    pub fn with_fixed_model(self) -> Self {
        Self { trains: false, ..self }
    }

    /// Begins with what is known already; to be said before the first record.
    #[must_use]
    pub fn knowing(mut self, knowledge: &Knowledge) -> Self {
        self.site = Site::clone(&knowledge.site);
        self.past = Arc::clone(&knowledge.past);
        self.knowledge = Knowledge { past: Arc::default(), ..knowledge.clone() };
        self.engine.know(self.knowledge.clone());
        self
    }

    /// Takes one record. Records come in the order of time, or nearly so: one of an hour that is judged already is
    /// still seen by the engine. A jump back by hours begins anew.
    pub fn observe(&mut self, seen: &Observation<'_>) {
        self.turn(seen.time);
        if self.settings.enabled
            && self.settings.live
            && let Some(alarm) = self.engine.observe(seen)
        {
            let finding = alarm.finding;
            if let Some(hour) = self.hours.iter_mut().rev().find(|hour| hour.holds(seen.time)) {
                hour.told.insert(who(&finding), finding.severity);
            }
            self.findings.push(finding);
        }
        self.site.observe(&self.settings, seen);
        match self.hours.iter_mut().rev().find(|hour| hour.holds(seen.time)) {
            Some(hour) => hour.window.observe(seen),
            None => self.late += 1,
        }
    }

    /// Judges what is not judged yet. Further records would begin new hours.
    pub fn finish(&mut self) {
        while let Some(hour) = self.hours.pop_front() {
            self.judge(hour);
        }
    }

    /// What was found since the last call, in the order in which it was: the engine's alarms, and at the end of each
    /// hour those of its clients that are worse than any alarm of that hour said.
    pub fn take_findings(&mut self) -> Vec<Finding> {
        std::mem::take(&mut self.findings)
    }

    /// The forest's scores since the last call.
    pub fn take_scores(&mut self) -> Vec<HourScore> {
        std::mem::take(&mut self.scores)
    }

    /// The model that scores at present.
    pub fn model(&self) -> Option<&ForestModel> {
        self.model.as_deref()
    }

    /// Records that came too late for their hour's window.
    pub fn late_records(&self) -> u64 {
        self.late
    }

    /// Judges the hours that are over, and opens the one that holds this time.
    fn turn(&mut self, at: UnixMs) {
        let begins = hour_of(at);
        match self.hours.back() {
            // Nearly always.
            Some(newest) if newest.begins == begins && self.hours.len() == 1 => return,
            Some(newest) if at.0 < newest.begins.saturating_sub(JUMP_MS) => self.finish(),
            Some(_) | None => {}
        }
        while self.hours.front().is_some_and(|oldest| oldest.is_over(at)) {
            if let Some(hour) = self.hours.pop_front() {
                self.judge(hour);
            }
        }
        if self.hours.back().is_none_or(|newest| newest.begins < begins) {
            self.hours.push_back(Hour {
                begins,
                window: Window::with_signatures(
                    &self.settings,
                    UnixMs(begins),
                    UnixMs(begins.saturating_add(HOUR_MS)),
                    Arc::clone(&self.signatures),
                )
                .knowing(&self.knowledge),
                told: HashMap::new(),
            });
        }
    }

    fn judge(&mut self, hour: Hour) {
        let end = UnixMs(hour.begins.saturating_add(HOUR_MS));
        let knowledge = Knowledge { past: Arc::clone(&self.past), ..self.knowledge.clone() };
        let report = hour.window.knowing(&knowledge).finish(self.model.as_deref(), end);
        drop(knowledge);
        Arc::make_mut(&mut self.past).remember(&report.weak, end);
        let begins = UnixMs(hour.begins);
        let scores = report.scores.iter();
        self.scores.extend(scores.map(|&(client, score)| HourScore { client, hour: begins, score }));
        self.learn(&report.findings, &hour.told, end);
        let is_news = |finding: &Finding| hour.told.get(&who(finding)) < Some(&finding.severity);
        if self.settings.enabled {
            self.findings.extend(report.findings.into_iter().filter(is_news));
        }
        if self.trains && self.settings.forest {
            self.rows.extend(report.presumed_good.into_iter().map(|row| (hour.begins, row)));
            self.rows.drain(..self.rows.len().saturating_sub(MAX_ROWS));
            self.retrain(end.0);
        }
    }

    /// Ends an hour of learning: who was flagged in it teaches nothing.
    fn learn(
        &mut self,
        findings: &[Finding],
        told: &HashMap<(IpAddr, Option<String>), Severity>,
        end: UnixMs,
    ) {
        let found = findings.iter().map(|finding| (finding.client.limit_key(), finding.severity));
        let told = told.iter().map(|((address, _), severity)| (*address, *severity));
        let flagged: HashSet<IpAddr> = found
            .chain(told)
            .filter(|(_, severity)| *severity >= Severity::Medium)
            .map(|(address, _)| address)
            .collect();
        self.site.settle(end, |address| flagged.contains(&address));
        let is_old = self.told_at.is_none_or(|at| !(0..LESSON_MS).contains(&end.0.saturating_sub(at)));
        let has_more = self.site.path_counts().0 != self.knowledge.site.path_counts().0;
        if is_old || has_more {
            self.told_at = Some(end.0);
            self.knowledge.site = Arc::new(self.site.clone());
            self.engine.know(self.knowledge.clone());
        }
    }

    /// Trains a model if the last one has become too old, or there is none.
    fn retrain(&mut self, now: i64) {
        let age = self.trained_at.map(|at| now.saturating_sub(at));
        if age.is_some_and(|age| (0..MODEL_AGE_MS).contains(&age)) {
            return;
        }
        let first = now.saturating_sub(TRAINING_MS);
        self.rows.retain(|(hour, _)| (first..now).contains(hour));
        // The newest ones, where there are too many.
        let rows: Vec<Features> =
            self.rows.iter().rev().take(MAX_TRAINING_ROWS).map(|(_, row)| *row).collect();
        if let Ok(model) = train(&rows) {
            self.model = Some(Arc::new(model));
            self.trained_at = Some(now);
        }
    }
}

impl Hour {
    fn holds(&self, at: UnixMs) -> bool {
        at.0 >= self.begins && at.0 - self.begins < HOUR_MS
    }

    /// Whether nobody waits for records of this hour any more when one of this time comes.
    fn is_over(&self, at: UnixMs) -> bool {
        at.0 >= self.begins.saturating_add(HOUR_MS + GRACE_MS)
    }
}

fn hour_of(at: UnixMs) -> i64 {
    at.0.div_euclid(HOUR_MS).saturating_mul(HOUR_MS)
}

/// Whom a finding is about.
fn who(finding: &Finding) -> (IpAddr, Option<String>) {
    (finding.client.limit_key(), finding.user.clone())
}
