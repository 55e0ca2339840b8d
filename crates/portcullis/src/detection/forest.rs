//! How the isolation forest has been doing: a few numbers of each recent run, in `forest.json` of the data folder.
//! Must not train or judge.

use std::path::Path;

use anyhow::Context as _;
use portcullis_detect::{Drift, ForestHealth, Origin};
use portcullis_model::UnixMs;
use serde::{Deserialize, Serialize};

use super::{MODEL_FILE, replace_file};

const HEALTH_FILE: &str = "forest.json";
/// Runs that are kept: a day of them.
const MAX_RUNS: usize = 24;
/// A file that is larger is none of ours.
const MAX_BYTES: u64 = 1 << 20;

/// What the forest said in one run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ForestRun {
    pub(crate) at: UnixMs,
    pub(crate) model: String,
    pub(crate) origin: Origin,
    pub(crate) training_rows: usize,
    pub(crate) threshold: f64,
    pub(crate) scored: usize,
    pub(crate) flagged: usize,
    pub(crate) drift: Option<Drift>,
}

/// The forest over the recent runs.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct ForestState {
    /// The oldest first.
    pub(crate) runs: Vec<ForestRun>,
    /// When the model was fitted.
    pub(crate) fitted_at: Option<UnixMs>,
}

impl ForestState {
    pub(crate) fn latest(&self) -> Option<&ForestRun> {
        self.runs.last()
    }

    /// Clients that were scored and found odd in the recent runs.
    pub(crate) fn totals(&self) -> (usize, usize) {
        (self.runs.iter().map(|run| run.scored).sum(), self.runs.iter().map(|run| run.flagged).sum())
    }

    /// What is wrong with it, in words; `None`: nothing that is known.
    pub(crate) fn problem(&self) -> Option<String> {
        let latest = self.latest()?;
        let (scored, flagged) = self.totals();
        if let Some(drift) = latest.drift.as_ref().filter(|drift| drift.by > MAX_DRIFT) {
            return Some(format!(
                "the site's ordinary clients are no longer those that it was trained on: {} is {}, then {}",
                drift.feature, drift.now, drift.typical
            ));
        }
        let share = flagged as f64 / scored.max(1) as f64;
        (scored >= MIN_SCORED && share > MAX_FLAGGED)
            .then(|| format!("it found {flagged} of {scored} clients odd: too many to tell anything"))
    }
}

/// A median that moved further than the middle 90 % were wide at training.
const MAX_DRIFT: f64 = 1.0;
/// By its threshold one in two hundred ordinary clients is odd; of all clients more are, but not most.
const MAX_FLAGGED: f64 = 0.5;
const MIN_SCORED: usize = 200;

/// Notes what the forest said in a run.
///
/// # Errors
/// The file cannot be written.
pub(super) fn note(data: &Path, health: &ForestHealth, now: UnixMs) -> anyhow::Result<()> {
    let ForestHealth::Scored { model_id, origin, training_rows, threshold, scored, flagged, drift } = health
    else {
        return Ok(());
    };
    let mut runs = runs(data);
    runs.push(ForestRun {
        at: now,
        model: model_id.clone(),
        origin: *origin,
        training_rows: *training_rows,
        threshold: *threshold,
        scored: *scored,
        flagged: *flagged,
        drift: drift.clone(),
    });
    let first = runs.len().saturating_sub(MAX_RUNS);
    let bytes = serde_json::to_vec(&runs[first..]).context("the forest's health")?;
    replace_file(&data.join(HEALTH_FILE), &bytes)
}

/// What is known of the recent runs; nothing where there is no file, or none of ours.
pub(crate) fn state(data: &Path) -> ForestState {
    let fitted = std::fs::metadata(data.join(MODEL_FILE)).and_then(|file| file.modified());
    ForestState { runs: runs(data), fitted_at: fitted.ok().map(UnixMs::from_system) }
}

fn runs(data: &Path) -> Vec<ForestRun> {
    let path = data.join(HEALTH_FILE);
    let is_small = std::fs::metadata(&path).is_ok_and(|file| file.len() <= MAX_BYTES);
    let bytes = if is_small { std::fs::read(&path).unwrap_or_default() } else { Vec::new() };
    serde_json::from_slice(&bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health(flagged: usize, by: f64) -> ForestHealth {
        ForestHealth::Scored {
            model_id: "abc".to_owned(),
            origin: Origin::Site,
            training_rows: 300,
            threshold: 0.6,
            scored: 100,
            flagged,
            drift: Some(Drift { feature: "asset_share".to_owned(), now: 0.1, typical: 0.7, by }),
        }
    }

    #[test]
    fn recent_runs_are_kept_and_say_what_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path();
        assert!(state(data).latest().is_none() && state(data).problem().is_none());
        for n in 0..30 {
            note(data, &health(1, 0.2), UnixMs(n)).unwrap();
        }
        let known = state(data);
        assert_eq!((known.runs.len(), known.latest().unwrap().at), (MAX_RUNS, UnixMs(29)));
        assert_eq!((known.totals(), known.problem()), ((2_400, 24), None));
        note(data, &health(1, 1.5), UnixMs(30)).unwrap();
        assert!(state(data).problem().unwrap().contains("asset_share is 0.1, then 0.7"));
        for n in 31..60 {
            note(data, &health(60, 0.1), UnixMs(n)).unwrap();
        }
        assert!(state(data).problem().unwrap().contains("1440 of 2400"));
        note(data, &ForestHealth::Off { why: String::new() }, UnixMs(61)).unwrap();
        assert_eq!(state(data).latest().unwrap().at, UnixMs(59));
        std::fs::write(data.join(HEALTH_FILE), "[").unwrap();
        assert!(state(data).runs.is_empty());
    }
}
