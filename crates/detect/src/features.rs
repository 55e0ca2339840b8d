//! The twelve numbers that the forest sees of a client's window, and their plain values for people.

use serde::{Deserialize, Serialize};

use crate::client::{Client, Shape, share};

/// How many features there are.
pub const FEATURES: usize = 12;

/// A client's window as a row of numbers, in the order of [`Features::NAMES`], counts as logarithms.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Features(pub [f64; FEATURES]);

/// The smallest 5 % to 95 % range by which a feature is divided. Sites whose good clients agree in
/// something (nobody ever gets an error) would otherwise lose the very feature that tells the bad ones.
pub(crate) const LEAST_RANGE: [f64; FEATURES] = [1.0, 1.0, 0.2, 0.1, 0.5, 0.2, 0.2, 0.1, 0.5, 0.5, 0.5, 1.0];

impl Features {
    /// What each number is, as evidence calls it.
    pub const NAMES: [&'static str; FEATURES] = [
        "requests",
        "distinct_paths",
        "paths_per_request",
        "error_share",
        "distinct_missing_pages",
        "asset_share",
        "no_referer_share",
        "post_share",
        "median_gap_seconds",
        "largest_10s_burst",
        "mean_path_depth",
        "bytes_out",
    ];

    /// `None`: not all that it takes was kept of the client.
    pub(crate) fn of(client: &Client) -> Option<Self> {
        let plain = plain(client, client.shape.as_deref()?);
        Some(Self(std::array::from_fn(|n| to_scale(n, plain[n]))))
    }

    /// The row as people read it: counts as counts, shares as 0 to 1, rounded to three decimals.
    pub fn plain_values(&self) -> [f64; FEATURES] {
        std::array::from_fn(|n| plain_value(n, self.0[n]))
    }
}

fn plain(client: &Client, shape: &Shape) -> [f64; FEATURES] {
    let requests = f64::from(client.requests.max(1));
    let paths = f64::from(shape.paths.count());
    [
        requests,
        paths,
        // Above 64 paths the count is an estimate.
        (paths / requests).min(1.0),
        client.error_share(),
        f64::from(client.missing.count()),
        client.asset_share(),
        client.no_referer_share(),
        share(client.posts, client.requests),
        shape.gaps.median_seconds(),
        f64::from(shape.burst.largest()),
        f64::from(shape.depth_sum) / requests,
        shape.bytes_out as f64,
    ]
}

/// Whether the feature is a count, which enters as ln(1 + count).
fn is_logarithmic(feature: usize) -> bool {
    matches!(feature, 0 | 1 | 4 | 8 | 9 | 11)
}

fn to_scale(feature: usize, value: f64) -> f64 {
    if is_logarithmic(feature) { value.ln_1p() } else { value }
}

pub(crate) fn plain_value(feature: usize, scaled: f64) -> f64 {
    let value = if is_logarithmic(feature) { scaled.exp_m1() } else { scaled };
    (value * 1_000.0).round() / 1_000.0
}

#[cfg(test)]
mod tests {
    use portcullis_model::UnixMs;

    use super::*;

    #[test]
    fn plain_values_survive_the_logarithms() {
        let mut client = Client::new("192.0.2.1".parse().unwrap(), "", UnixMs(0)).with_shape(false);
        for n in 0..50 {
            client.arrive(UnixMs(n * 4_000), false);
            client.shape.as_mut().unwrap().paths.insert(n as u64);
        }
        client.shape.as_mut().unwrap().bytes_out = 123_456;
        let values = Features::of(&client).unwrap().plain_values();
        assert_eq!((values[0], values[1], values[2]), (50.0, 50.0, 1.0));
        assert_eq!((values[9], values[11]), (3.0, 123_456.0));
        assert!((2.0..=4.1).contains(&values[8]));
    }
}
