//! Findings: what the detector says about clients, and what people made of it.
//!
//! Owns the table `findings` and what counts as the same finding. Must not judge clients.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;
use serde_json::Value;

use portcullis_model::{ClientIp, Finding, FindingStatus, Severity, UnixMs};

use super::{State, note, parsed, row_limit};
use crate::error::StoreError;

/// A client seen again within this time of its finding's last request is the same finding.
const SAME_FINDING: Duration = Duration::from_secs(24 * 60 * 60);

/// Findings that are looked through for one IPv6 client.
const MAX_LOOKED_AT: usize = 100_000;

/// A finding as recorded.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StoredFinding {
    pub id: i64,
    pub status: FindingStatus,
    /// The block that it led to.
    pub block_id: Option<i64>,
    #[serde(flatten)]
    pub finding: Finding,
}

/// Which findings to list. Everything that is set must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FindingFilter {
    pub client: Option<ClientIp>,
    pub min_severity: Option<Severity>,
    pub status: Option<FindingStatus>,
    /// Detected then or later.
    pub since: Option<UnixMs>,
    /// The rule that is the reason.
    pub rule: Option<String>,
    /// Only those that come after this one in the list: the time of its detection, and its number.
    pub before: Option<(UnixMs, i64)>,
    pub limit: usize,
}

impl Default for FindingFilter {
    fn default() -> Self {
        Self {
            client: None,
            min_severity: None,
            status: None,
            since: None,
            rule: None,
            before: None,
            limit: 100,
        }
    }
}

const COLUMNS: &str = "id, client, reason, severity, request_count, first_seen, last_seen, detected_at, \
                       details, status, block_id, user";

fn from_row(row: &Row<'_>) -> rusqlite::Result<StoredFinding> {
    let severity: i64 = row.get(3)?;
    let severity = usize::try_from(severity).ok().and_then(|n| Severity::ALL.get(n).copied());
    Ok(StoredFinding {
        id: row.get(0)?,
        status: parsed(row, 9)?,
        block_id: row.get(10)?,
        finding: Finding {
            client: parsed(row, 1)?,
            reason: row.get(2)?,
            severity: severity.ok_or(rusqlite::Error::IntegralValueOutOfRange(3, row.get(3)?))?,
            request_count: u64::try_from(row.get::<_, i64>(4)?).unwrap_or(0),
            first_seen: UnixMs(row.get(5)?),
            last_seen: UnixMs(row.get(6)?),
            detected_at: UnixMs(row.get(7)?),
            details: parsed(row, 8)?,
            user: row.get(11)?,
        },
    })
}

impl State {
    /// Records a finding; returns its number. A finding of the same client and user that is open or confirmed
    /// and at most a day old is brought up to date instead: its severity never falls, and reason and details
    /// are those of the most severe. One that was dismissed for the same reason within a day stays
    /// dismissed and unchanged.
    ///
    /// # Errors
    /// SQLite fails; then nothing has changed.
    pub fn save_finding(&mut self, finding: &Finding) -> Result<i64, StoreError> {
        self.write("recording a finding", |transaction| {
            let Some(known) = same_finding(transaction, finding)? else {
                return insert(transaction, finding);
            };
            if known.status != FindingStatus::Dismissed {
                update(transaction, known.id, &merged(known.finding, finding))?;
            }
            Ok(known.id)
        })
    }

    /// Findings that pass the filter, newest first.
    ///
    /// # Errors
    /// SQLite fails, or the database was edited.
    pub fn findings(&self, filter: &FindingFilter) -> Result<Vec<StoredFinding>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM findings WHERE (?1 IS NULL OR client = ?1) AND severity >= ?2 \
             AND (?3 IS NULL OR status = ?3) AND detected_at >= ?4 AND (?6 IS NULL OR reason = ?6) \
             AND (?7 IS NULL OR (detected_at, id) < (?7, ?8)) ORDER BY detected_at DESC, id DESC LIMIT ?5"
        );
        let parameters = params![
            filter.client.map(|client| client.to_string()),
            filter.min_severity.map_or(0, number),
            filter.status.map(FindingStatus::as_str),
            filter.since.map_or(i64::MIN, |since| since.0),
            row_limit(filter.limit),
            filter.rule,
            filter.before.map(|(at, _)| at.0),
            filter.before.map(|(_, id)| id)
        ];
        self.read("reading the findings", || {
            self.connection.prepare_cached(&sql)?.query_map(parameters, from_row)?.collect()
        })
    }

    /// The findings about a client, newest first. An IPv6 client is its /64, as for the detector.
    ///
    /// # Errors
    /// SQLite fails, or the database was edited.
    pub fn findings_about(&self, client: ClientIp) -> Result<Vec<StoredFinding>, StoreError> {
        if client.ip().is_ipv4() {
            return self.findings(&FindingFilter { client: Some(client), ..FindingFilter::default() });
        }
        let mut findings =
            self.findings(&FindingFilter { limit: MAX_LOOKED_AT, ..FindingFilter::default() })?;
        findings.retain(|stored| stored.finding.client.limit_key() == client.limit_key());
        Ok(findings)
    }

    /// The finding with this number.
    ///
    /// # Errors
    /// SQLite fails, or the database was edited.
    pub fn finding(&self, id: i64) -> Result<Option<StoredFinding>, StoreError> {
        self.read("reading a finding", || by_id(&self.connection, id))
    }

    /// Notes the block that a finding led to.
    ///
    /// # Errors
    /// There is no such finding, or SQLite fails.
    pub fn link_block(&mut self, finding_id: i64, block_id: i64) -> Result<(), StoreError> {
        let changed = self.write("linking a finding to its block", |transaction| {
            transaction
                .execute("UPDATE findings SET block_id = ?2 WHERE id = ?1", params![finding_id, block_id])
        })?;
        found(changed, finding_id)
    }

    /// Confirms, dismisses or reopens a finding.
    ///
    /// # Errors
    /// There is no such finding, or SQLite fails.
    pub fn set_finding_status(
        &mut self,
        id: i64,
        status: FindingStatus,
        actor: &str,
        now: UnixMs,
    ) -> Result<(), StoreError> {
        let changed = self.write("judging a finding", |transaction| {
            let changed = transaction
                .execute("UPDATE findings SET status = ?2 WHERE id = ?1", params![id, status.as_str()])?;
            if changed > 0 {
                note(transaction, now, actor, "finding", &id.to_string(), status.as_str())?;
            }
            Ok(changed)
        })?;
        found(changed, id)
    }
}

fn found(changed: usize, id: i64) -> Result<(), StoreError> {
    if changed == 0 { Err(StoreError::NotFound { what: "finding", id }) } else { Ok(()) }
}

fn by_id(connection: &Connection, id: i64) -> rusqlite::Result<Option<StoredFinding>> {
    let sql = format!("SELECT {COLUMNS} FROM findings WHERE id = ?1");
    connection.prepare_cached(&sql)?.query_row([id], from_row).optional()
}

/// The finding that this one continues, the latest if there are several.
fn same_finding(transaction: &Connection, finding: &Finding) -> rusqlite::Result<Option<StoredFinding>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM findings WHERE client = ?1 AND user IS ?4 AND last_seen >= ?2 \
         AND (status <> 'dismissed' OR reason = ?3) ORDER BY status = 'dismissed', id DESC LIMIT 1"
    );
    let since = finding.last_seen.minus(SAME_FINDING);
    transaction
        .prepare_cached(&sql)?
        .query_row(params![finding.client.to_string(), since.0, finding.reason, finding.user], from_row)
        .optional()
}

/// What only one way of finding knows, the request's or the hourly run's, and what stays true when the other one comes.
const OF_ONE_WAY: [&str; 4] = ["score", "score_history", "features", "forest"];

/// The details of one, with what the other alone knows.
fn joined(mut details: Value, other: &Value) -> Value {
    let (Some(fields), Some(others)) = (details.as_object_mut(), other.as_object()) else { return details };
    for name in OF_ONE_WAY {
        if let Some(known) = others.get(name).filter(|_| fields.get(name).is_none_or(Value::is_null)) {
            fields.insert(name.to_owned(), known.clone());
        }
    }
    // What was found at request time has been found then, whoever finds it again.
    if others.get(FOUND).is_some_and(|found| found == AT_REQUEST) {
        fields.insert(FOUND.to_owned(), AT_REQUEST.into());
    }
    details
}

const FOUND: &str = "found";
const AT_REQUEST: &str = "request";

fn merged(known: Finding, new: &Finding) -> Finding {
    let is_as_severe = new.severity >= known.severity;
    Finding {
        client: known.client,
        user: known.user,
        reason: if is_as_severe { new.reason.clone() } else { known.reason },
        details: match is_as_severe {
            true => joined(new.details.clone(), &known.details),
            false => joined(known.details, &new.details),
        },
        severity: known.severity.max(new.severity),
        request_count: known.request_count.max(new.request_count),
        first_seen: known.first_seen.min(new.first_seen),
        last_seen: known.last_seen.max(new.last_seen),
        detected_at: known.detected_at.max(new.detected_at),
    }
}

fn insert(transaction: &Connection, finding: &Finding) -> rusqlite::Result<i64> {
    transaction
        .prepare_cached(
            "INSERT INTO findings (client, reason, severity, request_count, first_seen, last_seen, \
             detected_at, details, user, status) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, 'open')",
        )?
        .execute(params![
            finding.client.to_string(),
            finding.reason,
            number(finding.severity),
            i64::try_from(finding.request_count).unwrap_or(i64::MAX),
            finding.first_seen.0,
            finding.last_seen.0,
            finding.detected_at.0,
            finding.details.to_string(),
            finding.user
        ])?;
    Ok(transaction.last_insert_rowid())
}

fn update(transaction: &Connection, id: i64, finding: &Finding) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "UPDATE findings SET reason = ?2, severity = ?3, request_count = ?4, first_seen = ?5, \
             last_seen = ?6, detected_at = ?7, details = ?8 WHERE id = ?1",
        )?
        .execute(params![
            id,
            finding.reason,
            number(finding.severity),
            i64::try_from(finding.request_count).unwrap_or(i64::MAX),
            finding.first_seen.0,
            finding.last_seen.0,
            finding.detected_at.0,
            finding.details.to_string()
        ])?;
    Ok(())
}

/// The severity as the database orders it.
pub(super) fn number(severity: Severity) -> i64 {
    match severity {
        Severity::Low => 0,
        Severity::Medium => 1,
        Severity::High => 2,
        Severity::Critical => 3,
    }
}
