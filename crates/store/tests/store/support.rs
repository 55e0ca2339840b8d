//! Requests to log, and a plain SQLite client to look at what became of them.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use portcullis_model::{
    ClientIp, Location, Protocol, Reason, RecordText, RequestId, RequestRecord, TextFields, UnixMs,
    VerdictKind,
};
use portcullis_store::{Enrich, Log, LogSettings, NoEnrichment};
use rusqlite::{Connection, OpenFlags};

/// The time of day: the log's retention goes by it.
pub(crate) fn now() -> UnixMs {
    UnixMs(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64)
}

pub(crate) fn ip(text: &str) -> ClientIp {
    text.parse().unwrap()
}

/// An ordinary request, number `n` of its test, at `at`.
pub(crate) fn request(n: u32, at: UnixMs) -> RequestRecord {
    request_to(n, at, "192.0.2.1", "/", 200)
}

pub(crate) fn request_to(n: u32, at: UnixMs, client: &str, path: &str, status: u16) -> RequestRecord {
    RequestRecord {
        id: RequestId::new(at, n),
        client: ip(client),
        protocol: Protocol::Http11,
        status,
        bytes_in: 0,
        bytes_out: 100,
        latency_us: 1_000,
        verdict: VerdictKind::Admitted,
        reason: Reason::None,
        login: None,
        text: text(path, "", "curl/8"),
    }
}

pub(crate) fn text(path: &str, query: &str, user_agent: &str) -> RecordText {
    RecordText::new(TextFields {
        method: b"GET",
        host: b"example.com",
        path: path.as_bytes(),
        query: query.as_bytes(),
        user_agent: user_agent.as_bytes(),
        ..TextFields::default()
    })
}

/// Puts 198.51.100.0/24 into Lisbon and suspects whoever asks for /suspicious.
pub(crate) struct Lisbon;

pub(crate) fn lisbon() -> Location {
    Location {
        country: Some("PT".to_owned()),
        city: Some("Lisbon".to_owned()),
        region: Some("Lisboa".to_owned()),
        latitude: Some(38.72),
        longitude: Some(-9.14),
        asn: Some(64_500),
        isp: Some("Tejo \"Net\"".to_owned()),
    }
}

impl Enrich for Lisbon {
    fn location(&mut self, client: ClientIp) -> Location {
        if client.to_string().starts_with("198.51.100.") { lisbon() } else { Location::default() }
    }

    fn is_suspicious(&mut self, record: &RequestRecord) -> bool {
        record.text.path() == "/suspicious"
    }
}

pub(crate) fn start(dir: &Path) -> Log {
    Log::start(dir, LogSettings::default(), Box::new(NoEnrichment)).unwrap()
}

/// Logs all of them and waits until they are committed.
pub(crate) fn write(log: &Log, records: impl IntoIterator<Item = RequestRecord>) {
    let recorder = log.recorder();
    for record in records {
        // The queue may be smaller than the test.
        while !recorder.offer(record.clone()) {
            log.flusher().flush().unwrap();
        }
    }
    log.flusher().flush().unwrap();
}

/// What any SQLite client sees.
pub(crate) fn plain(dir: &Path) -> Connection {
    Connection::open_with_flags(dir.join("log.db"), OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap()
}

pub(crate) fn count(dir: &Path) -> u64 {
    let count: i64 = plain(dir).query_row("SELECT count(*) FROM request_log", [], |row| row.get(0)).unwrap();
    count as u64
}

pub(crate) fn assert_sound(dir: &Path, database: &str) {
    let connection = Connection::open(dir.join(database)).unwrap();
    let verdict: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(verdict, "ok");
}
