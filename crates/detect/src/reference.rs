//! The forest for sites that have not shown enough ordinary clients yet: trained on visitors that were made up.
//! Owns reading the rows that ship with the program; `examples/reference_rows.rs` makes them.

use crate::features::FEATURES;
use crate::forest::{Origin, train_as};
use crate::{Features, ForestError, ForestModel};

const ROWS: &str = include_str!("reference.csv");

/// Fits the reference model. Each fit scores a little differently: keep the model.
///
/// # Errors
/// Never with the rows that ship with the program.
pub fn reference_model() -> Result<ForestModel, ForestError> {
    train_as(&rows(), Origin::Reference)
}

fn rows() -> Vec<Features> {
    let row = |line: &str| {
        let values: Vec<f64> = line.split(',').filter_map(|value| value.parse().ok()).collect();
        <[f64; FEATURES]>::try_from(values).ok().map(Features)
    };
    ROWS.lines().skip(1).filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_that_ships_is_one_and_there_are_enough() {
        let rows = rows();
        assert_eq!(rows.len() + 1, ROWS.lines().count());
        assert!(rows.len() >= 2 * crate::forest::MIN_TRAINING_ROWS, "{}", rows.len());
        assert_eq!(
            ROWS.lines().next().unwrap(),
            Features::NAMES.join(","),
            "of other features: make them anew"
        );
        // A file of a binary that is copied to small machines.
        assert!(ROWS.len() < 120_000, "{}", ROWS.len());
    }

    #[test]
    fn a_scanner_is_odd_to_the_reference_and_a_reader_is_not() {
        let model = reference_model().unwrap();
        assert_eq!(model.origin(), Origin::Reference);
        let scanner = Features([5.0, 5.0, 1.0, 0.98, 4.5, 0.0, 1.0, 0.0, 0.1, 4.0, 3.0, 8.0]);
        assert!(model.score(&scanner).unwrap() > model.highest());
        let reader = Features([3.0, 2.9, 0.9, 0.0, 0.0, 0.75, 0.05, 0.0, 0.3, 2.3, 1.9, 12.5]);
        assert!(model.score(&reader).unwrap() < model.threshold());
    }
}
