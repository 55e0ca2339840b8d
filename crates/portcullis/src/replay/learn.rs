//! The forest of a replay: a given one, one that is trained on the clients of the whole past that look good, or where
//! these are too few the one that ships.
//! One model scores everything, so that with the same model a second replay says the same.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use portcullis_detect::bots::KnownBots;
use portcullis_detect::{
    Features, ForestModel, MAX_TRAINING_ROWS, Observation, Settings, Signatures, Window, reference_model,
    train,
};
use portcullis_model::UnixMs;

use super::past::{Past, Progress};
use super::simulation::bot;
use crate::detection::{Control, fit_with_deadline};

const HOUR_MS: i64 = 3_600_000;
/// Rows that are kept while the past is read; then every second one goes.
const MAX_ROWS: usize = MAX_TRAINING_ROWS;

/// The bytes of a model, by which several runs can have it.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) bytes: Option<Vec<u8>>,
    pub(crate) origin: Origin,
    /// Of the past, if it was read for this.
    pub(crate) requests: Option<u64>,
}

/// Where a model comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// `--model`, which was there.
    Given,
    /// Trained on the past as a whole.
    Trained,
    /// The one that ships with the program, and why the past could train none.
    Reference(String),
    /// The past can be read once only: it is trained as it goes, as in the gateway.
    AsItGoes,
    /// `detection.forest = false`, or why there is none.
    Off(String),
}

impl Model {
    fn off(why: impl Into<String>) -> Self {
        Self { bytes: None, origin: Origin::Off(why.into()), requests: None }
    }
}

/// The model of the file, or a new one that is stored there.
///
/// # Errors
/// The file is no model or cannot be written, or the past cannot be read.
pub(crate) fn model(
    settings: &Settings,
    past: &Past,
    file: Option<&Path>,
    signatures: &Arc<Signatures>,
    bots: Option<&KnownBots>,
    progress: &mut Progress<'_>,
) -> anyhow::Result<Model> {
    if !settings.forest {
        return Ok(Model::off("detection.forest is false"));
    }
    if let Some(file) = file.filter(|file| file.exists()) {
        let bytes = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        ForestModel::from_bytes(&bytes).with_context(|| format!("{} is of no use", file.display()))?;
        return Ok(Model { bytes: Some(bytes), origin: Origin::Given, requests: None });
    }
    if !past.is_repeatable() {
        if let Some(file) = file {
            bail!(
                "there is no model {}, and none can be trained on what can be read once only: name files",
                file.display()
            );
        }
        return Ok(Model { bytes: None, origin: Origin::AsItGoes, requests: None });
    }
    let (rows, requests) = good_rows(settings, past, signatures, bots, progress)?;
    let control = Arc::new(Control::default());
    let fitted = match fit_with_deadline(move || train(&rows), &control) {
        Ok(model) => Ok((model, Origin::Trained)),
        Err(why) => fit_with_deadline(reference_model, &control).map(|model| (model, Origin::Reference(why))),
    };
    let (bytes, origin) = match fitted {
        Ok((model, origin)) => (model.to_bytes(), origin),
        Err(why) => return Ok(Model { requests: Some(requests), ..Model::off(why) }),
    };
    if let Some(file) = file {
        std::fs::write(file, &bytes).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(Model { bytes: Some(bytes), origin, requests: Some(requests) })
}

/// Client-hours that look good, spread evenly over the past, and how many requests that has.
fn good_rows(
    settings: &Settings,
    past: &Past,
    signatures: &Arc<Signatures>,
    bots: Option<&KnownBots>,
    progress: &mut Progress<'_>,
) -> anyhow::Result<(Vec<Features>, u64)> {
    let mut rows = Rows::default();
    let mut hour: Option<(i64, Window)> = None;
    let pass = past.visit(progress, &mut |seen| {
        let begins = seen.time.0.div_euclid(HOUR_MS).saturating_mul(HOUR_MS);
        // What comes a little late is left out: a few requests more or less teach nothing.
        if hour
            .as_ref()
            .is_none_or(|(current, _)| *current < begins || begins < current.saturating_sub(HOUR_MS))
        {
            rows.take(hour.take());
            let (from, to) = (UnixMs(begins), UnixMs(begins.saturating_add(HOUR_MS)));
            hour = Some((begins, Window::with_signatures(settings, from, to, Arc::clone(signatures))));
        }
        if let Some((_, window)) = &mut hour {
            window.observe(&Observation { bot: bot(bots, seen), ..*seen });
        }
    })?;
    rows.take(hour);
    Ok((rows.kept, pass.requests))
}

/// A bounded, even sample: of every `step` rows one.
#[derive(Default)]
struct Rows {
    kept: Vec<Features>,
    seen: usize,
    step: usize,
}

impl Rows {
    fn take(&mut self, hour: Option<(i64, Window)>) {
        let Some((begins, window)) = hour else { return };
        let report = window.finish(None, UnixMs(begins.saturating_add(HOUR_MS)));
        for row in report.presumed_good {
            self.step = self.step.max(1);
            if self.seen.is_multiple_of(self.step) {
                self.kept.push(row);
            }
            self.seen += 1;
            if self.kept.len() >= MAX_ROWS {
                let mut n = 0;
                self.kept.retain(|_| {
                    n += 1;
                    n % 2 == 1
                });
                self.step *= 2;
            }
        }
    }
}
