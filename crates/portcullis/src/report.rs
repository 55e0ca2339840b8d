//! Makes the report of a day from the databases. Must not change them, nor send anything.

use jiff::civil::{Date, Weekday};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use portcullis_config::{Config, ScheduleZone};
use portcullis_model::{Severity, UnixMs, VerdictKind};
use portcullis_notify::report::{Cell, Figure, Report, Section};
use portcullis_store::{
    FindingFilter, LogReader, LogSummary, LogTotals, State, StateSummary, StoreError, StoredFinding, TopRow,
};

use crate::alerts;

/// Rows of each table.
const ROWS: usize = 10;

/// In whose hours days begin and end: those of the tasks.
pub(crate) fn zone(config: &Config) -> TimeZone {
    match config.tasks.time_zone {
        ScheduleZone::Local => TimeZone::system(),
        ScheduleZone::Utc => TimeZone::UTC,
    }
}

/// The day that `now` is in.
pub(crate) fn today(now: UnixMs, zone: &TimeZone) -> Date {
    let at = Timestamp::from_millisecond(now.0).unwrap_or(Timestamp::UNIX_EPOCH);
    at.to_zoned(zone.clone()).date()
}

/// The day before.
pub(crate) fn yesterday(now: UnixMs, zone: &TimeZone) -> Date {
    let today = today(now, zone);
    today.yesterday().unwrap_or(today)
}

/// From the first instant of a day to the first of the next; days may have 23 or 25 hours.
fn bounds(day: Date, zone: &TimeZone) -> anyhow::Result<(UnixMs, UnixMs)> {
    let start = |day: Date| -> anyhow::Result<UnixMs> {
        Ok(UnixMs(day.to_zoned(zone.clone())?.start_of_day()?.timestamp().as_millisecond()))
    };
    Ok((start(day)?, start(day.tomorrow()?)?))
}

/// Makes the report of a day. A day that is not over ends at `now`.
///
/// # Errors
/// There is no log yet, or a database cannot be read.
pub(crate) fn make(config: &Config, day: Date, now: UnixMs) -> anyhow::Result<Report> {
    let zone = zone(config);
    let (from, end) = bounds(day, &zone)?;
    let until = end.min(now).max(from);
    let log = LogReader::open(&config.data)?;
    let state = match State::open_read_only(&config.data) {
        Ok(state) => Some(state),
        Err(StoreError::NoState(_)) => None,
        Err(error) => return Err(error.into()),
    };
    let first = log.span()?.map_or(now, |(first, _)| first);
    let before = Before::read(&log, state.as_ref(), day, &zone, first)?;
    let summary = log.summary(from, until, ROWS)?;
    let decided =
        state.as_ref().map(|state| state.summary(from, until, ROWS)).transpose()?.unwrap_or_default();
    let findings =
        state.as_ref().map(|state| worst_findings(state, from, until)).transpose()?.unwrap_or_default();
    Ok(Report {
        name: alerts::name(&config.alerts),
        day: day.to_string(),
        weekday: name_of(day.weekday()).to_owned(),
        from,
        until,
        is_over: end <= now,
        figures: figures(&summary.totals, &decided, &before),
        sections: sections(&summary, &decided, &findings),
        notes: notes(config, &before, &summary, first, from),
    })
}

/// The same figures of the days to compare with; `None` where the log does not go back that far.
struct Before {
    day: Option<(LogTotals, StateSummary)>,
    week: Option<(LogTotals, StateSummary)>,
}

impl Before {
    fn read(
        log: &LogReader,
        state: Option<&State>,
        day: Date,
        zone: &TimeZone,
        first: UnixMs,
    ) -> anyhow::Result<Self> {
        let of = |days: i64| -> anyhow::Result<Option<(LogTotals, StateSummary)>> {
            let Ok(day) = day.checked_sub(Span::new().days(days)) else { return Ok(None) };
            let (from, until) = bounds(day, zone)?;
            if first >= until {
                return Ok(None);
            }
            let decided = state.map(|state| state.summary(from, until, 0)).transpose()?.unwrap_or_default();
            Ok(Some((log.totals(from, until)?, decided)))
        };
        Ok(Self { day: of(1)?, week: of(7)? })
    }
}

fn figures(totals: &LogTotals, decided: &StateSummary, before: &Before) -> Vec<Figure> {
    type Of = fn(&LogTotals, &StateSummary) -> u64;
    let all: [(&'static str, &'static str, Of); 17] = [
        ("requests", "Requests", |log, _| log.requests),
        ("blocked", "Blocked", |log, _| log.blocked),
        ("limited", "Limited", |log, _| log.limited),
        ("malformed", "Malformed", |log, _| log.malformed),
        ("would_refuse", "Refused if not for dry-run", |log, _| log.would_refuse),
        ("clients", "Clients", |log, _| log.clients),
        ("suspicious", "Suspicious requests", |log, _| log.suspicious),
        ("client_errors", "4xx of the site", |log, _| log.client_errors),
        ("server_errors", "5xx of the site", |log, _| log.server_errors),
        ("upstream_failures", "Failures of the upstream", |log, _| log.upstream_failures),
        ("bytes_in", "Received", |log, _| log.bytes_in),
        ("bytes_out", "Sent", |log, _| log.bytes_out),
        ("findings", "Findings", |_, state| state.findings.iter().sum()),
        ("severe_findings", "Findings, high or critical", |_, state| {
            state.findings[Severity::High as usize..].iter().sum()
        }),
        ("blocks_added", "Blocks added", |_, state| state.blocks_added.iter().map(|(_, n)| n).sum()),
        ("blocks_ended", "Blocks ended", |_, state| state.blocks_ended),
        ("blocks_in_force", "Blocks in force at the end", |_, state| state.blocks_in_force),
    ];
    all.into_iter()
        .map(|(key, title, of)| Figure {
            key,
            title,
            value: of(totals, decided),
            is_bytes: key.starts_with("bytes_"),
            day_before: before.day.as_ref().map(|(log, state)| of(log, state)),
            week_before: before.week.as_ref().map(|(log, state)| of(log, state)),
        })
        .collect()
}

fn sections(summary: &LogSummary, decided: &StateSummary, findings: &[StoredFinding]) -> Vec<Section> {
    let text = |text: &str| Cell::Text(text.to_owned());
    let finding = |stored: &StoredFinding| {
        let finding = &stored.finding;
        vec![
            Cell::Text(format!("{} {}", finding.client, finding.reason)),
            text(finding.severity.as_str()),
            Cell::Count(finding.request_count),
        ]
    };
    let limits = decided.limits.iter().map(|limit| {
        let rule = match limit.action {
            VerdictKind::WouldLimit => format!("{} (dry-run)", limit.rule),
            _ => limit.rule.clone(),
        };
        vec![Cell::Text(rule), Cell::Count(limit.requests), Cell::Count(limit.clients)]
    });
    let added = decided.blocks_added.iter().map(|(source, n)| vec![text(source), Cell::Count(*n)]);
    let failures = summary.failures.iter().map(|(why, n)| vec![text(why), Cell::Count(*n)]);
    vec![
        Section {
            key: "worst_findings",
            title: "The worst findings",
            columns: vec![("finding", "client and rule"), ("severity", "severity"), ("requests", "requests")],
            rows: findings.iter().map(finding).collect(),
        },
        Section {
            key: "blocks",
            title: "Blocks added, by whom",
            columns: vec![("source", "by"), ("blocks", "blocks")],
            rows: added.collect(),
        },
        Section {
            key: "limits",
            title: "Limits that were met",
            columns: vec![("rule", "limit"), ("requests", "requests"), ("clients", "clients")],
            rows: limits.collect(),
        },
        top("top_clients", "Clients", "client", &summary.clients),
        top("top_paths", "Paths", "path", &summary.paths),
        top("countries", "Countries", "country", &known(&summary.countries)),
        top("networks", "Networks", "network", &known(&summary.networks)),
        top("user_agents", "Programs", "user agent", &summary.user_agents),
        Section {
            key: "failures",
            title: "Why the upstream failed",
            columns: vec![("why", "why"), ("requests", "requests")],
            rows: failures.collect(),
        },
    ]
}

fn top(key: &'static str, title: &'static str, what: &'static str, rows: &[TopRow]) -> Section {
    let row = |row: &TopRow| {
        let name = if row.key.is_empty() { "(none)".to_owned() } else { row.key.clone() };
        let TopRow { requests, refused, errors, bytes_out, .. } = *row;
        vec![
            Cell::Text(name),
            Cell::Count(requests),
            Cell::Count(refused),
            Cell::Count(errors),
            Cell::Bytes(bytes_out),
        ]
    };
    Section {
        key,
        title,
        columns: vec![
            ("name", what),
            ("requests", "requests"),
            ("refused", "refused"),
            ("errors", "errors"),
            ("bytes_out", "sent"),
        ],
        rows: rows.iter().map(row).collect(),
    }
}

/// Nothing, where nothing is known about anybody's location.
fn known(rows: &[TopRow]) -> Vec<TopRow> {
    if rows.iter().all(|row| row.key.is_empty()) { Vec::new() } else { rows.to_vec() }
}

/// The most severe first.
fn worst_findings(state: &State, from: UnixMs, until: UnixMs) -> Result<Vec<StoredFinding>, StoreError> {
    /// From which the worst are chosen.
    const NEWEST: usize = 10_000;
    let filter = FindingFilter { since: Some(from), limit: NEWEST, ..FindingFilter::default() };
    let mut findings = state.findings(&filter)?;
    findings.retain(|stored| stored.finding.detected_at < until);
    findings.sort_by_key(|stored| {
        (std::cmp::Reverse(stored.finding.severity), std::cmp::Reverse(stored.finding.request_count))
    });
    findings.truncate(ROWS);
    Ok(findings)
}

fn notes(config: &Config, before: &Before, summary: &LogSummary, first: UnixMs, from: UnixMs) -> Vec<String> {
    let mut notes = Vec::new();
    if first > from {
        notes.push("The log begins later than this day.".to_owned());
    }
    if before.day.is_none() || before.week.is_none() {
        notes.push("\"?\" is what the log does not go back to.".to_owned());
    }
    if config.geo.databases.is_empty() && known(&summary.countries).is_empty() {
        notes.push("There are no countries: no geo database is configured.".to_owned());
    }
    notes
}

fn name_of(day: Weekday) -> &'static str {
    match day {
        Weekday::Monday => "Monday",
        Weekday::Tuesday => "Tuesday",
        Weekday::Wednesday => "Wednesday",
        Weekday::Thursday => "Thursday",
        Weekday::Friday => "Friday",
        Weekday::Saturday => "Saturday",
        Weekday::Sunday => "Sunday",
    }
}

#[cfg(test)]
mod tests {
    use portcullis_config::Overrides;
    use portcullis_model::{
        ClientIp, Location, Protocol, Reason, RecordText, RequestId, RequestRecord, TextFields,
        UpstreamFailure,
    };
    use portcullis_store::{Enrich, Log, LogSettings};

    use super::*;

    struct Portugal;

    impl Enrich for Portugal {
        fn location(&mut self, client: ClientIp) -> Location {
            match client.to_string().starts_with("198.51.100.") {
                true => Location { country: Some("PT".to_owned()), ..Location::default() },
                false => Location::default(),
            }
        }

        fn is_suspicious(&mut self, record: &RequestRecord) -> bool {
            record.text.path() == "/admin"
        }
    }

    fn request(
        n: u32,
        at: UnixMs,
        client: &str,
        path: &str,
        status: u16,
        verdict: VerdictKind,
    ) -> RequestRecord {
        let reason = match status {
            502 => Reason::Upstream(UpstreamFailure::Connect),
            _ => Reason::None,
        };
        RequestRecord {
            id: RequestId::new(at, n),
            client: client.parse().unwrap(),
            protocol: Protocol::Http11,
            status,
            bytes_in: 10,
            bytes_out: 1_000,
            latency_us: 1_000,
            verdict,
            reason,
            login: None,
            text: RecordText::new(TextFields {
                method: b"GET",
                host: b"example.com",
                path: path.as_bytes(),
                user_agent: b"curl/8",
                ..TextFields::default()
            }),
        }
    }

    /// Logs requests: how many hours before `now`, from whom, for what, with which outcome.
    fn log(data: &std::path::Path, now: UnixMs, rows: &[(i64, &str, &str, u16, VerdictKind)]) {
        let log = Log::start(data, LogSettings::default(), Box::new(Portugal)).unwrap();
        let recorder = log.recorder();
        for (n, (hours, client, path, status, verdict)) in rows.iter().enumerate() {
            let at = UnixMs(now.0 - hours * 3_600_000);
            assert!(recorder.offer(request(n as u32, at, client, path, *status, *verdict)));
        }
        log.flusher().flush().unwrap();
    }

    #[test]
    fn a_day_is_summed_up_and_compared_with_the_day_before_and_the_week_before() {
        let folder = tempfile::tempdir().unwrap();
        let text = "data = \"data\"\n[tasks]\ntime_zone = \"utc\"\n[[upstream]]\nname = \"a\"\n\
                    servers = [\"http://127.0.0.1:1\"]\n";
        let config = portcullis_config::parse(text, "test", folder.path(), &Overrides::default()).unwrap();
        let now = UnixMs::from_system(std::time::SystemTime::now());
        let day = yesterday(now, &TimeZone::UTC);
        let (from, _) = bounds(day, &TimeZone::UTC).unwrap();
        let noon = UnixMs(from.0 + 12 * 3_600_000);
        let (visitor, attacker) = ("198.51.100.1", "203.0.113.9");
        let ok = |hours, client, path| (hours, client, path, 200, VerdictKind::Admitted);
        let mut rows = vec![
            // The day itself.
            ok(0, visitor, "/"),
            ok(1, visitor, "/"),
            ok(-11, visitor, "/<b>"),
            (2, attacker, "/admin", 404, VerdictKind::Admitted),
            (2, attacker, "/admin", 403, VerdictKind::Blocked),
            (2, attacker, "/login", 429, VerdictKind::Limited),
            (3, visitor, "/", 502, VerdictKind::Admitted),
            // The first and the last instant belong to other days.
            ok(13, visitor, "/"),
            ok(-12, visitor, "/"),
        ];
        rows.extend((0..2).map(|_| ok(24, visitor, "/")));
        rows.extend((0..14).map(|_| ok(7 * 24, visitor, "/")));
        log(&config.data, noon, &rows);

        let report = make(&config, day, now).unwrap();
        let json = report.as_json();
        let figure = |key: &str| {
            let figure = &json["totals"][key];
            let of = |name: &str| figure[name].as_u64().unwrap_or_else(|| panic!("{key}: {figure}"));
            (of("value"), of("day_before"), of("week_before"))
        };
        // One of the day before is in its last hour.
        assert_eq!(figure("requests"), (7, 3, 14));
        assert_eq!((figure("clients").0, figure("suspicious").0), (2, 2));
        assert_eq!((figure("blocked").0, figure("limited").0), (1, 1));
        assert_eq!(
            (figure("client_errors").0, figure("server_errors").0),
            (1, 1),
            "refusals are none of the site"
        );
        assert_eq!((figure("upstream_failures").0, figure("bytes_out").0), (1, 7_000));
        assert_eq!(json["top_clients"][0]["name"], visitor);
        assert_eq!(
            (&json["top_clients"][1]["requests"], &json["top_clients"][1]["refused"]),
            (&3.into(), &2.into())
        );
        assert_eq!(json["countries"][0]["name"], "PT");
        assert_eq!(json["failures"][0], serde_json::json!({ "why": "connect", "requests": 1 }));
        assert!(report.is_over);

        let text = report.text(&TimeZone::UTC);
        for part in ["+133 %", "-50 %", "198.51.100.1", "/<b>", "PT", "00:00:00 UTC"] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
        let html = report.html(&TimeZone::UTC);
        assert!(html.contains("/&lt;b&gt;") && !html.contains("/<b>"), "{html}");
    }

    #[test]
    fn days_have_as_many_hours_as_their_zone_gives_them() {
        let zone = TimeZone::get("Europe/Berlin").unwrap_or(TimeZone::UTC);
        let hours = |day: &str| {
            let (from, until) = bounds(day.parse().unwrap(), &zone).unwrap();
            (until.0 - from.0) / 3_600_000
        };
        let expected = if zone == TimeZone::UTC { [24, 24, 24] } else { [23, 24, 25] };
        assert_eq!(["2026-03-29", "2026-03-30", "2026-10-25"].map(hours), expected);
    }
}
