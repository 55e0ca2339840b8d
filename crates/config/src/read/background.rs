//! `[log]`, `[detection]` and `[metrics]`: what happens beside the requests.
//! Their defaults belong to the crates that do the work.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use portcullis_model::Severity;
use portcullis_store::LogSettings;

use crate::units::parse_duration;

use super::detection_actions::actions;
use super::fields::{Origin, Place, Section, Value, quoted};
use super::listeners::Listeners;
use super::{DAY, HOUR, MILLISECOND, SECOND};

const MAX_QUEUE: usize = 4 << 20;
const MAX_PATHS: usize = 1_000;
const MAX_PATH: usize = 2_048;
const MAX_BLOCK_STEPS: usize = 16;
/// The longest window of the detector: a run reads all of it.
const MAX_WINDOW: Duration = Duration::from_secs(7 * 86_400);

const DEFAULT_METRICS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9611);

pub(super) fn log(root: &mut Section<'_>) -> LogSettings {
    let default = LogSettings::default();
    let mut log = root.section("log");
    let settings = LogSettings {
        retention: log.read("retention", default.retention, |value| value.duration(HOUR..=3_650 * DAY)),
        max_bytes: log.read("max_size", default.max_bytes, |value| value.size(32 << 20..=1 << 50)),
        queue: log.read("queue", default.queue, |value| value.count(1_024..=MAX_QUEUE)),
        // Of [privacy], which comes later.
        fields: default.fields,
        flush_interval: log.read("flush_interval", default.flush_interval, |value| {
            value.duration(10 * MILLISECOND..=60 * SECOND)
        }),
    };
    log.finish();
    settings
}

pub(super) fn detection(root: &mut Section<'_>, log: &LogSettings) -> portcullis_detect::Settings {
    let default = portcullis_detect::Settings::default();
    let mut detection = root.section("detection");
    let window = detection.read("window", default.window, |value| detection_window(value, log.retention));
    let least = detection.read("block_severity", default.block_severity, block_severity);
    let (actions, block_severity) = actions(&mut detection, least);
    let settings = portcullis_detect::Settings {
        enabled: detection.read("enabled", default.enabled, Value::boolean),
        live: detection.read("live", default.live, Value::boolean),
        interval: detection
            .read("interval", default.interval.min(window), |value| detection_interval(value, window)),
        window,
        requests_per_hour: detection.read("requests_per_hour", default.requests_per_hour, Value::positive),
        error_rate: detection.read("error_rate", default.error_rate, Value::share),
        error_min_requests: detection.read("error_min_requests", default.error_min_requests, Value::positive),
        login_failures: detection.read("login_failures", default.login_failures, Value::positive),
        sensitive_paths: detection.read("sensitive_paths", default.sensitive_paths, paths),
        login_paths: detection.read("login_paths", default.login_paths, paths),
        block_severity,
        actions,
        block_for: detection.read("block_for", default.block_for, block_steps),
        block_memory: detection
            .read("block_memory", default.block_memory, |value| value.duration(HOUR..=90 * DAY)),
        forest: detection.read("forest", default.forest, Value::boolean),
        max_clients: default.max_clients,
    };
    detection.finish();
    settings
}

fn detection_window(value: &Value<'_>, retention: Duration) -> Option<Duration> {
    let window = value.duration(60 * SECOND..=MAX_WINDOW)?;
    if window > retention {
        value.fail("is longer than log.retention, so that a part of the window would be deleted already");
        return None;
    }
    Some(window)
}

fn detection_interval(value: &Value<'_>, window: Duration) -> Option<Duration> {
    let interval = value.duration(SECOND..=MAX_WINDOW)?;
    if interval > window {
        value.fail(
            "is longer than detection.window, so that the requests in between would never be looked at",
        );
        return None;
    }
    Some(interval)
}

/// Paths as the detector compares them: normalised, each standing for itself and all below it.
fn paths(value: &Value<'_>) -> Option<Vec<String>> {
    const WHAT: &str = "a path such as \"/admin\", which also means everything below it";
    value.list(MAX_PATHS, |item| {
        let text = item.text(WHAT)?;
        let path = portcullis_model::normalise_path(text.as_bytes());
        let valid = text.starts_with('/') && text.len() <= MAX_PATH && !text.contains(['*', '?', '#']);
        if !valid || path == "/" {
            item.fail(format!("expected {WHAT}, got {}", quoted(text)));
            return None;
        }
        Some(path.into_owned())
    })
}

fn block_severity(value: &Value<'_>) -> Option<Option<Severity>> {
    let choices: Vec<_> = Severity::ALL.into_iter().map(Some).chain([None]).collect();
    value.choice(&choices, |severity| severity.map_or("never", Severity::as_str))
}

/// One duration, or one for each block of a repeat offender.
fn block_steps(value: &Value<'_>) -> Option<Vec<Option<Duration>>> {
    if value.is_text() {
        return block_for(value).map(|step| vec![step]);
    }
    if value.is_empty_list() {
        value.fail("expected at least one duration");
        return None;
    }
    let mut is_wrong = false;
    let steps = value.list(MAX_BLOCK_STEPS, |item| {
        let step = block_for(item);
        is_wrong |= step.is_none();
        step
    })?;
    (!is_wrong).then_some(steps)
}

fn block_for(value: &Value<'_>) -> Option<Option<Duration>> {
    const WHAT: &str = "a duration such as \"24h\", or \"forever\"";
    match value.text(WHAT)? {
        "forever" => Some(None),
        text if parse_duration(text).is_none() => value.expected(WHAT),
        _ => value.duration(SECOND..=3_650 * DAY).map(Some),
    }
}

/// Where the metrics are served; `None` is off.
pub(super) fn metrics(root: &mut Section<'_>, listeners: &mut Listeners) -> Option<SocketAddr> {
    let mut metrics = root.section("metrics");
    let listen = match metrics.get("listen") {
        None => {
            let place = Place { origin: Origin::File, key: "metrics.listen".to_owned() };
            listeners.add(DEFAULT_METRICS, place);
            Some(DEFAULT_METRICS)
        }
        Some(value) => match value.text("ADDRESS:PORT such as \"127.0.0.1:9611\", or \"off\"") {
            None | Some("" | "off") => None,
            Some(_) => listeners.read(&value),
        },
    };
    metrics.finish();
    listen
}
