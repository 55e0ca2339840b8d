//! The extended isolation forest over a site's presumed-good clients: training, scoring, explaining.
//! A second opinion: it never blocks anybody by itself. Must not see unrounded or non-finite numbers.
//!
//! Method: Hariri, Carrasco Kind, Brunner, "Extended Isolation Forest", IEEE TKDE 2019.

use extended_isolation_forest::{Forest, ForestOptions};
use serde::{Deserialize, Serialize};

use crate::features::{FEATURES, Features, LEAST_RANGE, plain_value};

/// Fewer presumed-good rows than this make no model.
pub const MIN_TRAINING_ROWS: usize = 200;
/// Rows beyond this are not used; the caller chooses which to keep.
pub const MAX_TRAINING_ROWS: usize = 20_000;

/// Fewer rows than this say nothing of a drift.
pub const MIN_DRIFT_ROWS: usize = 30;

const TREES: usize = 100;
const SAMPLES_PER_TREE: usize = 256;
const CLIP: f64 = 6.0;
/// Two values that differ by a few last bits make the forest's random range search forever, so no two
/// distinct values may be closer than this.
const GRAIN: f64 = 1e6;
/// The share of presumed-good rows that may lie above the threshold.
const QUANTILE: f64 = 0.995;
const STRONGEST: usize = 3;
const FORMAT: u32 = 1;

/// Why there is no model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForestError {
    #[error(
        "{rows} client-hours of presumed-good traffic are too few to train on, {needed} are needed; more will \
         come with time"
    )]
    TooFewRows { rows: usize, needed: usize },
    #[error("the forest could not be built: {0}")]
    Build(String),
    #[error("the stored model cannot be used ({0}); train a new one")]
    Stored(String),
}

/// A fitted forest with its scaling and threshold. The forest's random numbers cannot be seeded, so two
/// fits of the same rows score a little differently: keep the model, and say by its id which one scored.
#[derive(Serialize, Deserialize)]
pub struct ForestModel {
    format: u32,
    id: String,
    rows: usize,
    #[serde(default)]
    origin: Origin,
    scaling: [Scaling; FEATURES],
    threshold: f64,
    highest: f64,
    forest: Forest<f64, FEATURES>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Scaling {
    median: f64,
    range: f64,
}

/// Whose ordinary clients a model knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The site's own.
    #[default]
    Site,
    /// Made-up ones, until the site has shown enough.
    Reference,
}

/// How far today's ordinary clients are from those that the model was trained on, in the feature that moved most.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Drift {
    pub feature: String,
    /// The median now, and at training.
    pub now: f64,
    pub typical: f64,
    /// The distance, in ranges of the middle 90 % at training: with more than 1 the model knows another site.
    pub by: f64,
}

/// How odd a row is, and by which features.
#[derive(Clone, Debug, PartialEq)]
pub struct Opinion {
    /// 0 to 1; about 0.5 is ordinary.
    pub score: f64,
    /// At most three features whose replacement by the typical value lowers the score, the strongest first.
    pub strongest: Vec<Strange>,
}

/// One feature's part in a score.
#[derive(Clone, Debug, PartialEq)]
pub struct Strange {
    pub feature: &'static str,
    pub value: f64,
    /// The median of the rows that the model was trained on.
    pub typical: f64,
    /// Its part of all drops, 0 to 1.
    pub share: f64,
}

/// Fits a model to rows of presumed-good clients, as reports of earlier windows hand them out
/// (`Report::presumed_good`); the windows must be as long as those that will be scored. Rows that are not
/// finite are left out; so is what exceeds [`MAX_TRAINING_ROWS`].
///
/// # Errors
/// With fewer than [`MIN_TRAINING_ROWS`] usable rows.
pub fn train(rows: &[Features]) -> Result<ForestModel, ForestError> {
    train_as(rows, Origin::Site)
}

pub(crate) fn train_as(rows: &[Features], origin: Origin) -> Result<ForestModel, ForestError> {
    let usable: Vec<Features> = rows
        .iter()
        .filter(|row| row.0.iter().all(|value| value.is_finite()))
        .take(MAX_TRAINING_ROWS)
        .copied()
        .collect();
    if usable.len() < MIN_TRAINING_ROWS {
        return Err(ForestError::TooFewRows { rows: usable.len(), needed: MIN_TRAINING_ROWS });
    }
    let scaling: [Scaling; FEATURES] = std::array::from_fn(|n| scaling_of(&usable, n));
    let scaled: Vec<[f64; FEATURES]> = usable.iter().map(|row| scale(&scaling, row)).collect();
    let options = ForestOptions {
        n_trees: TREES,
        sample_size: SAMPLES_PER_TREE.min(scaled.len()),
        max_tree_depth: None,
        extension_level: FEATURES - 1,
    };
    let forest = Forest::from_slice(&scaled, &options).map_err(|e| ForestError::Build(e.to_string()))?;
    let mut scores: Vec<f64> = scaled.iter().map(|row| forest.score(row)).collect();
    scores.sort_by(f64::total_cmp);
    let mut model = ForestModel {
        format: FORMAT,
        id: String::new(),
        rows: scaled.len(),
        origin,
        scaling,
        threshold: quantile(&scores, QUANTILE),
        highest: quantile(&scores, 1.0),
        forest,
    };
    model.id = format!("{:016x}", fnv1a(&model.to_bytes()));
    Ok(model)
}

impl ForestModel {
    /// A hash of the model's content.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whose ordinary clients it knows.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// How far ordinary clients have moved since the training; `None` with fewer than [`MIN_DRIFT_ROWS`] of them.
    pub fn drift(&self, rows: &[Features]) -> Option<Drift> {
        if rows.len() < MIN_DRIFT_ROWS {
            return None;
        }
        let of = |n: usize| {
            let mut column: Vec<f64> =
                rows.iter().map(|row| row.0[n]).filter(|value| value.is_finite()).collect();
            column.sort_by(f64::total_cmp);
            let (now, then) = (quantile(&column, 0.5), self.scaling[n]);
            Drift {
                feature: Features::NAMES[n].to_owned(),
                now: plain_value(n, now),
                typical: plain_value(n, then.median),
                by: ((now - then.median).abs() / then.range * 1_000.0).round() / 1_000.0,
            }
        };
        (0..FEATURES).map(of).max_by(|a, b| a.by.total_cmp(&b.by))
    }

    /// How many rows it was trained on.
    pub fn training_rows(&self) -> usize {
        self.rows
    }

    /// Scores above this are odd: 99.5 % of the presumed-good rows lie below.
    pub fn threshold(&self) -> f64 {
        self.threshold
    }

    /// The highest score of a presumed-good row.
    pub fn highest(&self) -> f64 {
        self.highest
    }

    /// 0 to 1, higher is odder; `None` for a row that is not finite.
    pub fn score(&self, row: &Features) -> Option<f64> {
        row.0.iter().all(|value| value.is_finite()).then(|| self.forest.score(&scale(&self.scaling, row)))
    }

    /// The score and what it comes from: each feature in turn takes its typical value, and the drop of the
    /// score is that feature's part. `None` for a row that is not finite.
    pub fn explain(&self, row: &Features) -> Option<Opinion> {
        let score = self.score(row)?;
        let scaled = scale(&self.scaling, row);
        let drops: [f64; FEATURES] = std::array::from_fn(|n| {
            let mut typical = scaled;
            typical[n] = 0.0;
            (score - self.forest.score(&typical)).max(0.0)
        });
        let total: f64 = drops.iter().sum();
        let mut order: Vec<usize> = (0..FEATURES).filter(|&n| drops[n] > 0.0).collect();
        order.sort_by(|&a, &b| drops[b].total_cmp(&drops[a]));
        let strongest = order.into_iter().take(STRONGEST).map(|n| Strange {
            feature: Features::NAMES[n],
            value: plain_value(n, row.0[n]),
            typical: plain_value(n, self.scaling[n].median),
            share: (drops[n] / total * 1_000.0).round() / 1_000.0,
        });
        Some(Opinion { score, strongest: strongest.collect() })
    }

    /// The form in which a model is stored.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Numbers, strings and arrays of a fixed shape always serialise.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads a stored model.
    ///
    /// # Errors
    /// When the bytes are no model, or one of another version.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ForestError> {
        let model: Self = serde_json::from_slice(bytes).map_err(|e| ForestError::Stored(e.to_string()))?;
        if model.format != FORMAT {
            return Err(ForestError::Stored(format!("format {}, expected {FORMAT}", model.format)));
        }
        let is_sound = |s: &Scaling| s.median.is_finite() && s.range.is_finite() && s.range > 0.0;
        if !model.scaling.iter().all(is_sound) || !model.threshold.is_finite() {
            return Err(ForestError::Stored("its scaling is not finite".to_owned()));
        }
        Ok(model)
    }
}

impl std::fmt::Debug for ForestModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ForestModel")
            .field("id", &self.id)
            .field("rows", &self.rows)
            .field("threshold", &self.threshold)
            .finish_non_exhaustive()
    }
}

fn scaling_of(rows: &[Features], feature: usize) -> Scaling {
    let mut column: Vec<f64> = rows.iter().map(|row| row.0[feature]).collect();
    column.sort_by(f64::total_cmp);
    let range = quantile(&column, 0.95) - quantile(&column, 0.05);
    // A range that overflows would be infinite and could not be stored.
    let range = range.clamp(LEAST_RANGE[feature], f64::MAX);
    Scaling { median: quantile(&column, 0.5), range }
}

/// Centred by the median, divided by the 5 % to 95 % range, clipped, rounded.
fn scale(scaling: &[Scaling; FEATURES], row: &Features) -> [f64; FEATURES] {
    std::array::from_fn(|n| {
        let value = (row.0[n] - scaling[n].median) / scaling[n].range;
        let clipped = if value.is_nan() { 0.0 } else { value.clamp(-CLIP, CLIP) };
        // Adding zero turns -0.0 into 0.0.
        (clipped * GRAIN).round() / GRAIN + 0.0
    })
}

/// The value below which the share `q` of the sorted, non-empty values lies (the nearest rank).
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).or(sorted.last()).copied().unwrap_or_default()
}

/// FNV-1a, 64 bits: names a model, protects nothing.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xCBF2_9CE4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn visitor(rng: &mut fastrand::Rng) -> Features {
        let mut near = |middle: f64, spread: f64| middle + (rng.f64() - 0.5) * spread;
        Features([
            near(2.5, 2.0),
            near(2.2, 2.0),
            near(0.8, 0.3),
            near(0.02, 0.04),
            near(0.1, 0.2),
            near(0.7, 0.4),
            near(0.1, 0.2),
            near(0.02, 0.04),
            near(1.0, 1.5),
            near(2.0, 1.5),
            near(2.0, 1.0),
            near(12.0, 4.0),
        ])
    }

    fn visitors(count: usize) -> Vec<Features> {
        let mut rng = fastrand::Rng::with_seed(7);
        (0..count).map(|_| visitor(&mut rng)).collect()
    }

    fn scanner() -> Features {
        Features([5.0, 5.0, 1.0, 0.98, 4.5, 0.0, 1.0, 0.0, 0.1, 4.0, 3.0, 8.0])
    }

    #[test]
    fn a_scanner_is_odd_and_the_forest_says_why() {
        let model = train(&visitors(1_000)).unwrap();
        let opinion = model.explain(&scanner()).unwrap();
        assert!(opinion.score > model.highest(), "{opinion:?} {model:?}");
        assert!((1..=3).contains(&opinion.strongest.len()));
        assert!(opinion.strongest.iter().all(|s| s.share > 0.0 && s.share <= 1.0));
        let typical = Features(std::array::from_fn(|n| model.scaling[n].median));
        assert!(model.score(&typical).unwrap() < model.threshold());
        let odd = visitors(1_000).iter().filter(|row| model.score(row).unwrap() > model.threshold()).count();
        assert!(odd <= 5, "{odd}");
    }

    #[test]
    fn a_stored_model_scores_as_before() {
        let model = train(&visitors(300)).unwrap();
        let bytes = model.to_bytes();
        let again = ForestModel::from_bytes(&bytes).unwrap();
        assert_eq!((again.id(), again.training_rows()), (model.id(), 300));
        assert!((again.score(&scanner()).unwrap() - model.score(&scanner()).unwrap()).abs() < 1e-9);
        assert_ne!(train(&visitors(300)).unwrap().id(), model.id());
    }

    #[test]
    fn ordinary_clients_that_change_are_a_drift() {
        let model = train(&visitors(1_000)).unwrap();
        let same = model.drift(&visitors(400)).unwrap();
        assert!(same.by < 0.2, "{same:?}");
        let mut others = visitors(400);
        others.iter_mut().for_each(|row| row.0[5] = 0.05);
        let drift = model.drift(&others).unwrap();
        assert!(drift.feature == "asset_share" && drift.by > 1.0 && drift.now < drift.typical, "{drift:?}");
        assert_eq!(model.drift(&visitors(MIN_DRIFT_ROWS - 1)), None);
    }

    #[test]
    fn broken_bytes_are_no_model() {
        let mut bytes = train(&visitors(200)).unwrap().to_bytes();
        bytes.truncate(bytes.len() / 2);
        assert!(matches!(ForestModel::from_bytes(&bytes), Err(ForestError::Stored(_))));
        assert!(ForestModel::from_bytes(b"").is_err());
        let deep = "[".repeat(100_000);
        assert!(ForestModel::from_bytes(deep.as_bytes()).is_err());
    }

    #[test]
    fn too_few_rows_are_refused_in_words() {
        let error = train(&visitors(MIN_TRAINING_ROWS - 1)).unwrap_err();
        assert_eq!(error, ForestError::TooFewRows { rows: 199, needed: 200 });
        assert!(error.to_string().contains("199 client-hours"));
        assert!(train(&[]).is_err());
        let mut rows = visitors(MIN_TRAINING_ROWS);
        rows[3].0[5] = f64::NAN;
        rows[4].0[0] = f64::INFINITY;
        assert_eq!(train(&rows).unwrap_err(), ForestError::TooFewRows { rows: 198, needed: 200 });
    }

    #[test]
    fn equal_rows_and_constant_columns_train() {
        let model = train(&vec![scanner(); 500]).unwrap();
        assert!(model.score(&scanner()).unwrap().is_finite());
        assert!(model.score(&scanner()).unwrap() <= model.threshold());
        let rows: Vec<Features> = visitors(500)
            .into_iter()
            .map(|mut row| {
                row.0[3] = 0.0;
                row.0[7] = 0.25;
                row
            })
            .collect();
        let model = train(&rows).unwrap();
        assert!(model.score(&scanner()).unwrap() > model.threshold());
        assert!(model.score(&Features([f64::NAN; FEATURES])).is_none());
        assert!(model.score(&Features([f64::MAX; FEATURES])).unwrap().is_finite());
    }

    /// Columns as an attacker might wish for: constants, last-bit differences, huge and tiny numbers.
    fn hostile_column() -> impl Strategy<Value = Vec<f64>> {
        let rows = 200..400_usize;
        prop_oneof![
            (rows.clone(), -1e3..1e3).prop_map(|(n, value)| vec![value; n]),
            (rows.clone(), 0.1..10.0).prop_map(|(n, value)| {
                (0..n).map(|i| f64::from_bits(f64::to_bits(value) + (i % 4) as u64)).collect()
            }),
            rows.clone().prop_map(|n| (0..n).map(|i| if i % 2 == 0 { f64::MAX } else { f64::MIN }).collect()),
            rows.clone().prop_map(|n| (0..n).map(|i| (i as f64) * f64::MIN_POSITIVE).collect()),
            rows.clone().prop_map(|n| (0..n).map(|i| 1e15 + i as f64).collect()),
            rows.clone().prop_map(|n| (0..n).map(|i| if i == 0 { 1.0 } else { -0.0 }).collect()),
            rows.clone().prop_map(|n| {
                (0..n).map(|i| [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.5][i % 4]).collect()
            }),
            rows.prop_flat_map(|n| proptest::collection::vec(-100.0..100.0, n)),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn hostile_training_rows_neither_hang_nor_panic(
            columns in proptest::collection::vec(hostile_column(), FEATURES)
        ) {
            let count = columns.iter().map(Vec::len).min().unwrap();
            let rows: Vec<Features> =
                (0..count).map(|i| Features(std::array::from_fn(|n| columns[n][i]))).collect();
            match train(&rows) {
                Ok(model) => {
                    for row in &rows {
                        if let Some(score) = model.score(row) {
                            prop_assert!((0.0..=1.0).contains(&score), "{score}");
                        }
                    }
                    prop_assert!(ForestModel::from_bytes(&model.to_bytes()).is_ok());
                }
                Err(error) => prop_assert!(
                    matches!(error, ForestError::TooFewRows { .. }),
                    "{error}"
                ),
            }
        }
    }
}
