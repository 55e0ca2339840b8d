//! One row of the log, as stored, as borrowed, and as owned.
//!
//! Owns the order of columns and the JSON names. Must not run statements.

use std::str::FromStr;

use rusqlite::Row;
use rusqlite::types::ValueRef;
use serde::{Serialize, Serializer};

use portcullis_model::{ClientIp, Location, RequestId, UnixMs, VerdictKind};

/// A request as the detector reads it; its time is `id.time()`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoggedRequest<'a> {
    pub id: RequestId,
    pub client: ClientIp,
    /// The status that the client was sent; 0 when nothing could be sent.
    pub status: u16,
    /// Body bytes from the client.
    pub bytes_in: u64,
    /// Body bytes to the client.
    pub bytes_out: u64,
    pub latency_us: u64,
    pub verdict: VerdictKind,
    pub method: &'a str,
    pub host: &'a str,
    pub path: &'a str,
    pub query: &'a str,
    pub user_agent: &'a str,
    pub referer: &'a str,
    pub user: &'a str,
    pub protocol: &'a str,
    /// The text form of `portcullis_model::Reason`.
    pub reason: &'a str,
}

/// A request with everything that the view `request_log` shows. Serialises with the view's names.
#[derive(Clone, Debug, PartialEq)]
pub struct LogRow {
    pub id: RequestId,
    pub client: ClientIp,
    pub status: u16,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub latency_us: u64,
    pub verdict: VerdictKind,
    pub method: String,
    pub host: String,
    pub path: String,
    pub query: String,
    pub user_agent: String,
    pub referer: String,
    pub user: String,
    pub protocol: String,
    pub reason: String,
    pub location: Location,
    pub is_suspicious: bool,
}

impl LogRow {
    /// When the request began.
    pub fn time(&self) -> UnixMs {
        self.id.time()
    }

    /// When the request began, as `2026-09-01T12:34:56.789Z`.
    pub fn time_text(&self) -> String {
        iso_8601(self.id.time())
    }
}

/// UTC with milliseconds; years beyond 9999 are shown as the last instant of that year.
fn iso_8601(at: UnixMs) -> String {
    let at = jiff::Timestamp::from_millisecond(at.0).unwrap_or(jiff::Timestamp::MAX);
    format!("{at:.3}")
}

impl Serialize for LogRow {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct View<'a> {
            id: String,
            time: String,
            time_ms: i64,
            ip: ClientIp,
            method: &'a str,
            host: &'a str,
            path: &'a str,
            query: &'a str,
            status: u16,
            bytes_in: u64,
            bytes_out: u64,
            latency_us: u64,
            user_agent: &'a str,
            referer: &'a str,
            protocol: &'a str,
            user: &'a str,
            country: &'a Option<String>,
            city: &'a Option<String>,
            region: &'a Option<String>,
            latitude: Option<f64>,
            longitude: Option<f64>,
            isp: &'a Option<String>,
            asn: Option<u32>,
            verdict: VerdictKind,
            reason: &'a str,
            is_suspicious: bool,
        }
        View {
            id: self.id.to_string(),
            time: self.time_text(),
            time_ms: self.time().0,
            ip: self.client,
            method: &self.method,
            host: &self.host,
            path: &self.path,
            query: &self.query,
            status: self.status,
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            latency_us: self.latency_us,
            user_agent: &self.user_agent,
            referer: &self.referer,
            protocol: &self.protocol,
            user: &self.user,
            country: &self.location.country,
            city: &self.location.city,
            region: &self.location.region,
            latitude: self.location.latitude,
            longitude: self.location.longitude,
            isp: &self.location.isp,
            asn: self.location.asn,
            verdict: self.verdict,
            reason: &self.reason,
            is_suspicious: self.is_suspicious,
        }
        .serialize(serializer)
    }
}

/// The text columns of a stored row, in their order.
pub(super) const TEXTS: usize = 5;

/// A stored row: numbers of dictionaries, or texts in place.
pub(super) struct Columns<'r> {
    pub(super) t: i64,
    pub(super) random: i64,
    pub(super) client: i64,
    pub(super) shape: i64,
    /// path, query, user agent, referer, user
    pub(super) texts: [ValueRef<'r>; TEXTS],
    pub(super) bytes_in: i64,
    pub(super) bytes_out: i64,
    pub(super) latency_us: i64,
}

impl<'r> Columns<'r> {
    /// The statement that reads rows ?1 to ?2 with a time offset in ?3 to ?4; `more` is a further
    /// condition, empty or beginning with AND.
    pub(super) fn select(slice: i64, more: &str, is_descending: bool) -> String {
        let order = if is_descending { "DESC" } else { "ASC" };
        format!(
            "SELECT rowid, t, random, client, shape, path, query, user_agent, referer, user, bytes_in, \
             bytes_out, latency_us FROM requests_{slice} \
             WHERE rowid BETWEEN ?1 AND ?2 AND t >= ?3 AND t < ?4 {more} ORDER BY rowid {order}"
        )
    }

    pub(super) fn of(row: &'r Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            t: row.get(1)?,
            random: row.get(2)?,
            client: row.get(3)?,
            shape: row.get(4)?,
            texts: [row.get_ref(5)?, row.get_ref(6)?, row.get_ref(7)?, row.get_ref(8)?, row.get_ref(9)?],
            bytes_in: row.get(10)?,
            bytes_out: row.get(11)?,
            latency_us: row.get(12)?,
        })
    }
}

/// What the rows of one shape have in common.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) method: String,
    pub(super) host: String,
    pub(super) status: u16,
    pub(super) protocol: String,
    pub(super) verdict: VerdictKind,
    pub(super) reason: String,
    pub(super) is_suspicious: bool,
}

impl Shape {
    pub(super) fn of(row: &Row<'_>) -> rusqlite::Result<Self> {
        let verdict: String = row.get(4)?;
        let verdict = VerdictKind::from_str(&verdict).map_err(|error| {
            rusqlite::Error::FromSqlConversionFailure(4, rusqlite::types::Type::Text, Box::new(error))
        })?;
        Ok(Self {
            method: row.get(0)?,
            host: row.get(1)?,
            status: row.get(2)?,
            protocol: row.get(3)?,
            verdict,
            reason: row.get(5)?,
            is_suspicious: row.get(6)?,
        })
    }
}

/// A row with everything looked up.
pub(super) struct Decoded<'a> {
    pub(super) id: RequestId,
    pub(super) client: ClientIp,
    pub(super) location: &'a Location,
    pub(super) shape: &'a Shape,
    pub(super) texts: [&'a str; TEXTS],
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    pub(super) latency_us: u64,
}

impl<'a> Decoded<'a> {
    pub(super) fn request(&self) -> LoggedRequest<'a> {
        let [path, query, user_agent, referer, user] = self.texts;
        LoggedRequest {
            id: self.id,
            client: self.client,
            status: self.shape.status,
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            latency_us: self.latency_us,
            verdict: self.shape.verdict,
            method: &self.shape.method,
            host: &self.shape.host,
            path,
            query,
            user_agent,
            referer,
            user,
            protocol: &self.shape.protocol,
            reason: &self.shape.reason,
        }
    }

    pub(super) fn to_row(&self) -> LogRow {
        let request = self.request();
        LogRow {
            id: request.id,
            client: request.client,
            status: request.status,
            bytes_in: request.bytes_in,
            bytes_out: request.bytes_out,
            latency_us: request.latency_us,
            verdict: request.verdict,
            method: request.method.to_owned(),
            host: request.host.to_owned(),
            path: request.path.to_owned(),
            query: request.query.to_owned(),
            user_agent: request.user_agent.to_owned(),
            referer: request.referer.to_owned(),
            user: request.user.to_owned(),
            protocol: request.protocol.to_owned(),
            reason: request.reason.to_owned(),
            location: self.location.clone(),
            is_suspicious: self.shape.is_suspicious,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_with_all_their_milliseconds() {
        assert_eq!(iso_8601(UnixMs(0)), "1970-01-01T00:00:00.000Z");
        assert_eq!(iso_8601(UnixMs(1_767_225_599_120)), "2025-12-31T23:59:59.120Z");
    }
}
