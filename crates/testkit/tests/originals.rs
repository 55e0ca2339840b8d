//! docs/ORIGINALS.md is whole: it has everything that the original projects had, and each row names tests that exist.
//! Reads sources only; must not build anything.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// What the three projects name in their descriptions: model fields, settings, tasks, commands, pages.
const THEIRS: &[&str] = &[
    "RequestLog.ip_address",
    "RequestLog.timestamp",
    "RequestLog.path",
    "RequestLog.country",
    "RequestLog.city",
    "RequestLog.region",
    "RequestLog.latitude",
    "RequestLog.longitude",
    "RequestLog.isp",
    "RequestLog.is_suspicious",
    "BlockedIP.ip_address",
    "BlockedIP.reason",
    "BlockedIP.expires_at",
    "BlockedIP.created_at",
    "SuspiciousIP.ip_address",
    "SuspiciousIP.reason",
    "SuspiciousIP.severity",
    "SuspiciousIP.request_count",
    "SuspiciousIP.details",
    "RateLimitLog.ip_address",
    "RateLimitLog.endpoint",
    "RateLimitLog.timestamp",
    "RateLimitLog.limit",
    "RateLimitLog.action",
    "GeolocationCache.ip_address",
    "GeolocationCache.data",
    "GeolocationCache.last_updated",
    "AnomalyDetectionConfig.threshold",
    "AnomalyDetectionConfig.sensitive_paths",
    "AnomalyDetectionConfig.auto_block",
    "AnomalyDetectionConfig.severity_level",
    "RATELIMIT_CONFIG anonymous",
    "RATELIMIT_CONFIG authenticated",
    "RATELIMIT_CONFIG login",
    "RATELIMIT_CONFIG block",
    "CELERY_BROKER_URL",
    "CELERY_BEAT_SCHEDULE",
    "detect-anomalies-hourly",
    "CACHES",
    "DATABASES",
    "SECRET_KEY",
    "EMAIL_HOST",
    "EMAIL_PORT",
    "EMAIL_HOST_USER",
    "EMAIL_HOST_PASSWORD",
    "EMAIL_USE_TLS",
    "EMAIL_USE_SSL",
    "DEFAULT_FROM_EMAIL",
    ".env.example",
    "detect_anomalies",
    "flag_suspicious_ips",
    "celery worker",
    "celery beat",
    "redis-server",
    "block_ip",
    "unblock_ip",
    "list_blocked_ips",
    "analyze_ip IP --hours 24",
    "detect_anomalies_now",
    "manage.py check",
    "manage.py migrate",
    "manage.py runserver",
    "manage.py createsuperuser",
    "manage.py shell",
    "manage.py test",
    "get_geolocation_data",
    "Home: /",
    "/admin/",
    "/login/",
    "/rate-limit-test/",
    "5 requests per minute",
    "10 requests per minute",
    "3 attempts / 5 minutes",
    "403 Forbidden",
    "100 requests per hour",
    "sensitive paths",
    "50 % error rate",
    "spikes",
    "Isolation Forest",
    "ipapi.co, ipinfo.io",
    "24-hour caching",
    "anonymization",
    "retention",
    "export",
    "Opt-out per user",
    "Opt-out per region",
    "Transparency",
    "Daily reports",
    "Email alerts",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The cells of each row of each table, without the heads.
fn rows(document: &str) -> Vec<Vec<&str>> {
    let lines = document.lines().filter(|line| line.starts_with('|'));
    let rows = lines.map(|line| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>());
    rows.filter(|cells| cells[0] != "original" && !cells[0].starts_with("---")).collect()
}

/// What is wrong with a row; `functions` are the tests that there are, as `FILE::FUNCTION`.
fn faults(row: &[&str], functions: &BTreeSet<String>) -> Vec<String> {
    let [_, _, tests] = row else {
        return vec![format!("{} cells instead of 3: {row:?}", row.len())];
    };
    let mut faults = Vec::new();
    if row.iter().any(|cell| cell.is_empty()) {
        faults.push(format!("an empty cell: {row:?}"));
    }
    let named: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
    if named.is_empty() {
        faults.push(format!("no test: {row:?}"));
    }
    let missing = named.iter().filter(|name| !functions.contains(**name));
    faults.extend(missing.map(|name| format!("there is no test {name}")));
    faults
}

/// The tests of a file that begin with `#[test]`, as `FILE::FUNCTION`.
fn tests_of(file: &str, source: &str) -> Vec<String> {
    let after_marker = source.split("#[test]").skip(1);
    let names = after_marker.filter_map(|rest| rest.split_once("fn ")?.1.split('(').next());
    names.map(|name| format!("{file}::{name}")).collect()
}

/// Those of the real program: the command line's, and those of the gateway's and the console's modules that are compiled.
fn all_tests() -> BTreeSet<String> {
    let folder = root().join("crates/portcullis/tests");
    let read = |file: &str| fs::read_to_string(folder.join(file)).unwrap();
    let modules = |of: &str| -> Vec<String> {
        let main = read(&format!("{of}/main.rs"));
        let modules = main.lines().filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';'));
        modules.map(|module| format!("{of}/{module}.rs")).collect()
    };
    let files = ["gateway", "console"].into_iter().flat_map(modules).chain(["cli.rs".to_owned()]);
    let there = files.filter(|file| folder.join(file).is_file());
    there.flat_map(|file| tests_of(&file, &read(&file))).collect()
}

#[test]
fn every_row_names_tests_that_exist() {
    let document = fs::read_to_string(root().join("docs/ORIGINALS.md")).unwrap();
    let (rows, functions) = (rows(&document), all_tests());
    assert!(rows.len() > 80 && functions.len() > 300, "{} rows, {} tests", rows.len(), functions.len());
    let faults: Vec<String> = rows.iter().flat_map(|row| faults(row, &functions)).collect();
    assert!(faults.is_empty(), "docs/ORIGINALS.md:\n{}", faults.join("\n"));
}

#[test]
fn everything_that_the_originals_had_is_in_a_first_cell() {
    let document = fs::read_to_string(root().join("docs/ORIGINALS.md")).unwrap();
    let firsts: Vec<&str> = rows(&document).into_iter().map(|cells| cells[0]).collect();
    let is_there = |theirs: &str| {
        firsts.iter().any(|cell| cell.replace('`', "").to_lowercase().contains(&theirs.to_lowercase()))
    };
    let missing: Vec<&&str> = THEIRS.iter().filter(|theirs| !is_there(theirs)).collect();
    assert!(missing.is_empty(), "docs/ORIGINALS.md has no row for {missing:?}");
}

#[test]
fn a_row_without_a_test_or_with_a_wrong_one_is_found() {
    let functions = BTreeSet::from(["cli.rs::a".to_owned()]);
    let table = "| original | here | test |\n|---|---|---|\n| x | y | `cli.rs::a` |\n| x | | `cli.rs::b` |\n| x | y | |";
    let found: Vec<usize> = rows(table).iter().map(|row| faults(row, &functions).len()).collect();
    assert_eq!(found, [0, 2, 2]);
    assert_eq!(tests_of("cli.rs", "#[test]\nfn a() {}\nfn b() {}\n"), ["cli.rs::a"]);
}
