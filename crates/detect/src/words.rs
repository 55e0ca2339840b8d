//! The forest's numbers in plain words. Owns what each feature is called; must not judge.

/// A feature beside what it is for ordinary clients: `41 distinct missing pages; typical here: 0`.
pub fn feature_in_words(feature: &str, value: f64, typical: f64) -> String {
    let (value, typical) = (Plain(value), Plain(typical));
    let (says, usual) = match feature {
        "requests" => (format!("{} requests", value.count()), typical.count()),
        "distinct_paths" => (format!("{} distinct pages and files", value.count()), typical.count()),
        "paths_per_request" => {
            (format!("{} of its requests asked for something new", value.share()), typical.share())
        }
        "error_share" => {
            (format!("{} of its requests were answered with 4xx", value.share()), typical.share())
        }
        "distinct_missing_pages" => (format!("{} distinct missing pages", value.count()), typical.count()),
        "asset_share" => (
            format!("{} of its requests were for images, styles and scripts", value.share()),
            typical.share(),
        ),
        "no_referer_share" => {
            (format!("{} of its requests came from no page", value.share()), typical.share())
        }
        "post_share" => (format!("{} of its requests were POST", value.share()), typical.share()),
        "median_gap_seconds" => (format!("{} s between two requests", value.small()), typical.small()),
        "largest_10s_burst" => (format!("{} requests within 10 seconds", value.count()), typical.count()),
        "mean_path_depth" => (format!("paths {} levels deep", value.small()), typical.small()),
        "bytes_out" => (format!("{} bytes sent to it", value.count()), typical.count()),
        // Of another version.
        other => (format!("{} {}", value.small(), other.replace('_', " ")), typical.small()),
    };
    format!("{says}; typical here: {usual}")
}

/// What counts nothing that there is.
const MOST: f64 = 1e15;

/// A number as people write it; one that is none is a question mark.
struct Plain(f64);

impl Plain {
    fn or_unknown(&self, words: impl FnOnce(f64) -> String) -> String {
        if (-MOST..MOST).contains(&self.0) { words(self.0.max(0.0) + 0.0) } else { "?".to_owned() }
    }

    fn count(&self) -> String {
        self.or_unknown(|value| {
            let digits = format!("{value:.0}");
            let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
            for (at, digit) in digits.chars().enumerate() {
                if at > 0 && (digits.len() - at).is_multiple_of(3) {
                    grouped.push(',');
                }
                grouped.push(digit);
            }
            grouped
        })
    }

    fn share(&self) -> String {
        self.or_unknown(|value| format!("{:.0} %", value.min(1.0) * 100.0))
    }

    fn small(&self) -> String {
        // Adding zero turns -0.0 into 0.0.
        self.or_unknown(|value| format!("{}", (value * 10.0).round() / 10.0 + 0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Features;

    #[test]
    fn every_feature_has_words_of_its_own_and_any_number_can_be_told() {
        let words = |feature| feature_in_words(feature, 41.0, 0.0);
        assert_eq!(words("distinct_missing_pages"), "41 distinct missing pages; typical here: 0");
        assert_eq!(
            feature_in_words("error_share", 0.984, 0.01),
            "98 % of its requests were answered with 4xx; typical here: 1 %"
        );
        assert_eq!(
            feature_in_words("bytes_out", 1_234_567.0, 512.4),
            "1,234,567 bytes sent to it; typical here: 512"
        );
        for feature in Features::NAMES {
            assert!(!words(feature).contains('_'), "{}", words(feature));
            for odd in [f64::NAN, f64::INFINITY, f64::MAX, -1.0, -0.0] {
                let told = feature_in_words(feature, odd, odd);
                assert!(!told.contains("NaN") && !told.contains("inf") && !told.contains('-'), "{told}");
            }
        }
        assert_eq!(feature_in_words("of_tomorrow", 1.25, 1.0), "1.3 of tomorrow; typical here: 1");
    }
}
