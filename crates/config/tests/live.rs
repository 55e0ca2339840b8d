//! Values in the place of the file's: read as the file's are, all or nothing, and taken back without a trace.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::path::Path;
use std::time::Duration;

use portcullis_config::{Config, LiveSetting, Overrides, parse, setting_value};
use portcullis_model::Severity;

fn config(detection: &str) -> Config {
    let overrides = Overrides { upstream: Some("http://127.0.0.1:8000".to_owned()), ..Overrides::default() };
    parse(detection, "portcullis.toml", Path::new(""), &overrides).unwrap()
}

fn values(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn every_setting_is_read_back_as_it_is_written() {
    let original = config("[detection]\nrequests_per_hour = 7\nblock_for = [\"1h\", \"forever\"]\n");
    let mut config = original.clone();
    let all: Vec<(String, String)> = LiveSetting::ALL
        .iter()
        .map(|setting| (setting.as_str().to_owned(), setting.written(&original.detection)))
        .collect();
    config.override_with(&all).unwrap();
    assert_eq!(config.detection, original.detection);
    for setting in LiveSetting::ALL {
        assert_eq!(setting.as_str().parse(), Ok(setting));
    }
}

#[test]
fn a_value_wins_over_the_file_and_is_taken_back() {
    let mut config = config("[detection]\nrequests_per_hour = 500\n");
    let in_file = config.detection.clone();
    config
        .override_with(&values(&[
            ("detection.requests_per_hour", "200"),
            ("detection.block_severity", "\"critical\""),
            ("detection.sensitive_paths", "[\"/private\"]"),
        ]))
        .unwrap();
    assert_eq!(config.detection.requests_per_hour, 200);
    assert_eq!(config.detection.block_severity, Some(Severity::Critical));
    assert_eq!(config.detection.sensitive_paths, ["/private"]);
    assert_eq!(config.detection.login_failures, in_file.login_failures);
    let overridden = config.overridden();
    assert_eq!(overridden.len(), 3);
    assert_eq!((overridden[0].value.as_str(), overridden[0].in_file.as_str()), ("200", "500"));
    config.override_with(&[]).unwrap();
    assert_eq!(config.detection, in_file);
    assert!(config.overridden().is_empty());
}

#[test]
fn a_wrong_value_is_refused_with_the_words_of_the_file_and_changes_nothing() {
    let mut config = config("");
    let before = config.clone();
    for (key, value, words) in [
        ("detection.requests_per_hour", "0", "expected a whole number from 1"),
        ("detection.error_rate", "1.5", "expected a share from 0.0 to 1.0"),
        ("detection.sensitive_paths", "[\"admin\"]", "expected a path such as"),
        ("detection.block_severity", "\"always\"", "\"never\""),
        ("detection.interval", "\"2h\"", "is longer than detection.window"),
        ("detection.window", "\"6d\"", ""),
        ("detection.window", "\"8d\"", "expected a duration from"),
        ("detection.requests_per_hour", "5\nenabled = false", "expected"),
        ("detection.requests_per_hour", "", "expected a value"),
        ("server.listen", "\"0.0.0.0:1\"", "cannot be changed while running"),
    ] {
        match config.override_with(&values(&[(key, value)])) {
            Ok(()) => assert!(words.is_empty(), "{key} = {value}"),
            Err(problems) => {
                assert_eq!(problems[0].key, key);
                assert!(problems[0].message.contains(words), "{key} = {value}: {}", problems[0]);
                assert!(!words.is_empty());
            }
        }
        config.override_with(&[]).unwrap();
    }
    assert_eq!(config, before);
}

#[test]
fn what_no_longer_fits_the_file_is_left_out_and_said() {
    let mut config = config("[log]\nretention = \"2h\"\n");
    let left_out = config.override_with_the_good_of(&values(&[
        ("detection.window", "\"1d\""),
        ("detection.requests_per_hour", "7"),
        ("detection.of_a_newer_version", "1"),
    ]));
    assert_eq!(left_out.len(), 2, "{left_out:?}");
    assert_eq!(config.detection.requests_per_hour, 7);
    assert_eq!(config.detection.window, Duration::from_secs(3_600));
}

#[test]
fn a_table_of_actions_in_the_file_is_not_undone_by_one_severity() {
    let mut config = config("[detection.actions]\ncritical = \"block 2h\"\n");
    let problems = config.override_with(&values(&[("detection.block_severity", "\"never\"")])).unwrap_err();
    assert!(problems[0].message.contains("[detection.actions]"), "{}", problems[0]);
    config.override_with(&values(&[("detection.login_failures", "3")])).unwrap();
    assert_eq!(config.detection.actions, config.detection_in_file.actions);
}

#[test]
fn text_may_be_typed_without_its_quotes() {
    for (typed, value) in [
        (" 200 ", "200"),
        ("24h", "\"24h\""),
        ("high", "\"high\""),
        ("\"high\"", "\"high\""),
        ("[\"/a\"]", "[\"/a\"]"),
        ("true", "true"),
    ] {
        assert_eq!(setting_value(typed), value);
    }
}
