//! A case on an HTTP/2 connection, and running a table of them.
//!
//! The rule about rows: one for each request that began, one for a connection on which none did, and one for an
//! error that ended the connection.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use portcullis_store::LogRow;
use portcullis_testkit::{RawConnection, Received, SeenRequest, eventually};
use rustls::ClientConfig;

use super::wire::{ACK, Event, NO_ERROR, PING, PREFACE, SETTINGS, block, event, frame, settings};
use crate::ground::{Addresses, Ground, NAME, Over};
use crate::suite::Differences;

const WORKERS: usize = 24;
const PATIENCE: Duration = Duration::from_secs(10);
/// How long to look for events that must not come.
const QUIET: Duration = Duration::from_millis(150);
const SETTLE: Duration = Duration::from_millis(600);
/// The PING by which a connection shows that it lives.
const ALIVE: [u8; 8] = *b"portcull";

/// An outcome that is right.
#[derive(Clone, Debug)]
pub(crate) enum Accept {
    /// GOAWAY with one of these codes, and the end of the connection.
    Connection(&'static [u32]),
    /// The end of the connection, without a word.
    Closed,
    /// RST_STREAM for this stream with one of these codes.
    Stream(u32, &'static [u32]),
    /// An answer on this stream with its end, or with RST_STREAM(NO_ERROR) after it.
    Answer(u32, u16),
    /// This many bytes on this stream, and no more.
    Bytes(u32, usize),
    Ping([u8; 8]),
    /// So many acknowledgements of SETTINGS.
    Acknowledged(usize),
    /// Nothing but that the connection lives.
    Lives,
}

impl Accept {
    fn matches(&self, events: &[Event]) -> bool {
        let has = |wanted: &Event| events.contains(wanted);
        match self {
            Self::Connection(codes) => {
                let told = |event: &Event| matches!(event, Event::GoAway { code } if codes.contains(code));
                events.iter().any(told) && has(&Event::Closed)
            }
            Self::Closed => has(&Event::Closed) && !events.iter().any(|event| matches!(event, Event::GoAway { .. })),
            Self::Stream(on, codes) => events
                .iter()
                .any(|event| matches!(event, Event::Reset { stream, code } if stream == on && codes.contains(code))),
            Self::Answer(on, wanted) => {
                let begins = |event: &Event| {
                    matches!(event, Event::Headers { stream, status, .. } if stream == on && status == wanted)
                };
                let ends = |event: &Event| match event {
                    Event::Headers { stream, end, .. } | Event::Data { stream, end, .. } => *end && stream == on,
                    _ => false,
                };
                events.iter().any(begins) && events.iter().any(ends)
            }
            Self::Bytes(on, wanted) => {
                let lengths = events.iter().map(|event| match event {
                    Event::Data { stream, length, .. } if stream == on => *length,
                    _ => 0,
                });
                lengths.sum::<usize>() == *wanted
            }
            Self::Ping(data) => has(&Event::PingAck(*data)),
            Self::Acknowledged(count) => {
                events.iter().filter(|event| **event == Event::SettingsAck).count() >= *count
            }
            Self::Lives => has(&Event::PingAck(ALIVE)),
        }
    }

    /// Whether more could follow that would make it wrong.
    fn is_final(&self) -> bool {
        !matches!(self, Self::Bytes(..))
    }
}

#[derive(Clone, Debug)]
enum Step {
    Send(Vec<u8>),
    Pause(Duration),
    /// Until this has happened.
    Await(Accept),
}

/// A case; the preface and SETTINGS were exchanged before its first step.
#[derive(Clone, Debug)]
pub(crate) struct H2Case {
    name: String,
    handshakes: bool,
    steps: Vec<Step>,
    accept: Vec<Accept>,
    /// Requests that become rows, at least and at most; without any, the connection has a row.
    requests: (usize, usize),
    /// Reasons that rows may have.
    reasons: Vec<String>,
    /// What the upstream sees.
    line: Option<String>,
    /// Values of headers there.
    headers: Vec<(String, Vec<String>)>,
}

impl H2Case {
    /// One of these outcomes, and a row of the connection.
    pub(crate) fn new(name: impl Into<String>, steps: Vec<Vec<u8>>, accept: &[Accept]) -> Self {
        Self {
            name: name.into(),
            handshakes: true,
            steps: steps.into_iter().map(Step::Send).collect(),
            accept: accept.to_vec(),
            requests: (0, 0),
            reasons: vec!["malformed:http2".to_owned()],
            line: None,
            headers: Vec::new(),
        }
    }

    /// The connection brings so many requests, all served, or broken off when the connection fails.
    pub(crate) fn with_requests(mut self, least: usize, most: usize) -> Self {
        self.requests = (least, most);
        let reasons = ["", "upstream:client_gone", "upstream:interrupted", "malformed:incomplete_body"];
        self.reasons.extend(reasons.map(str::to_owned));
        self
    }

    /// Nothing was wrong: there was just no request.
    pub(crate) fn idle(mut self) -> Self {
        self.reasons = vec!["malformed:incomplete_head".to_owned()];
        self
    }

    pub(crate) fn reason(mut self, reason: &str) -> Self {
        self.reasons.push(reason.to_owned());
        self
    }

    /// The request line that the upstream sees.
    pub(crate) fn forwarded_as(mut self, line: &str) -> Self {
        self.line = Some(line.to_owned());
        self
    }

    /// The upstream sees exactly these values of a header.
    pub(crate) fn header(mut self, name: &str, values: &[&str]) -> Self {
        let values = values.iter().map(|&value| value.to_owned()).collect();
        self.headers.push((name.to_owned(), values));
        self
    }

    /// Sends nothing by itself before the first step.
    pub(crate) fn without_handshake(mut self) -> Self {
        self.handshakes = false;
        self
    }

    pub(crate) fn waiting(mut self, accept: Accept) -> Self {
        self.steps.push(Step::Await(accept));
        self
    }

    pub(crate) fn pausing(mut self) -> Self {
        self.steps.push(Step::Pause(Duration::from_millis(100)));
        self
    }

    pub(crate) fn sending(mut self, bytes: Vec<u8>) -> Self {
        self.steps.push(Step::Send(bytes));
        self
    }
}

/// The header block of a GET.
pub(crate) fn get(path: &str) -> Vec<u8> {
    request("GET", path, &[])
}

pub(crate) fn request(method: &str, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let fields = [(":method", method), (":scheme", "https"), (":path", path), (":authority", NAME)];
    block(&[&fields[..], more].concat())
}

struct Conversation {
    connection: RawConnection,
    buffer: Vec<u8>,
    events: Vec<Event>,
    deadline: Instant,
}

impl Conversation {
    /// Reads once; false when there was nothing, or the end has come.
    fn read(&mut self, patience: Duration) -> bool {
        if self.events.last() == Some(&Event::Closed) {
            return false;
        }
        match self.connection.receive(patience) {
            Received::Bytes(bytes) => {
                self.buffer.extend_from_slice(&bytes);
                while let Some((event, length)) = event(&self.buffer) {
                    self.buffer.drain(..length);
                    self.events.push(event);
                }
                true
            }
            Received::Closed | Received::Reset => {
                self.events.push(Event::Closed);
                true
            }
            Received::Silence => false,
        }
    }

    fn until(&mut self, accept: &[Accept]) {
        while !accept.iter().any(|accept| accept.matches(&self.events)) {
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || !self.read(left) {
                return;
            }
        }
    }
}

/// What came back, or why there was no connection.
fn play(
    case: &H2Case,
    ground: &Ground,
    tls: &Arc<ClientConfig>,
    addresses: Addresses,
) -> Result<Vec<Event>, String> {
    let connection = RawConnection::open(addresses.peer().into(), ground.address(Over::H2))
        .and_then(|connection| connection.into_tls(NAME, tls))
        .map_err(|error| format!("no connection: {error}"))?;
    let deadline = Instant::now() + PATIENCE;
    let mut talk = Conversation { connection, buffer: Vec::new(), events: Vec::new(), deadline };
    if case.handshakes {
        drop(talk.connection.send(&[PREFACE, &settings(&[])].concat()));
        talk.until(&[Accept::Acknowledged(1)]);
        drop(talk.connection.send(&frame(SETTINGS, ACK, 0, &[])));
        talk.events.retain(|event| *event == Event::Closed);
    }
    for step in &case.steps {
        match step {
            // The gateway may have had enough already.
            Step::Send(bytes) => drop(talk.connection.send(bytes)),
            Step::Pause(span) => thread::sleep(*span),
            Step::Await(accept) => talk.until(std::slice::from_ref(accept)),
        }
    }
    if case.accept.iter().any(|accept| matches!(accept, Accept::Lives)) {
        drop(talk.connection.send(&frame(PING, 0, 0, &ALIVE)));
    }
    talk.until(&case.accept);
    if case.accept.iter().any(|accept| !accept.is_final()) {
        while talk.read(QUIET) {}
    }
    drop(talk.connection.finish_writing());
    Ok(talk.events)
}

fn complaints(
    case: &H2Case,
    events: &Result<Vec<Event>, String>,
    rows: &[&LogRow],
    seen: &[&SeenRequest],
) -> Vec<String> {
    let mut complaints = Vec::new();
    match events {
        Err(trouble) => complaints.push(trouble.clone()),
        Ok(events) if case.accept.iter().any(|accept| accept.matches(events)) => {}
        Ok(events) => complaints.push(format!("got {events:?}, expected one of {:?}", case.accept)),
    }
    let (least, most) = case.requests;
    // An error of the connection has a row of its own beside those of requests that had begun.
    let is_error = |event: &Event| matches!(event, Event::GoAway { code } if *code != NO_ERROR);
    let ends_in_error = events.as_ref().is_ok_and(|events| events.iter().any(is_error));
    let allowed = least.max(1)..=most.max(1) + usize::from(most > 0 && ends_in_error);
    if !allowed.contains(&rows.len()) || rows.iter().any(|row| !case.reasons.contains(&row.reason)) {
        let rows: Vec<String> = rows
            .iter()
            .map(|row| format!("{} {:?} {} {:?}", row.verdict, row.reason, row.status, row.path))
            .collect();
        complaints.push(format!("rows {rows:?}, expected {allowed:?} of {:?}", case.reasons));
    }
    if seen.len() > most {
        complaints.push(format!("the upstream saw {} requests", seen.len()));
    }
    let lines: Vec<&str> = seen.iter().map(|request| &*request.line).collect();
    if case.line.as_ref().is_some_and(|line| lines != [line]) {
        complaints.push(format!("the upstream saw {lines:?}, expected {:?}", case.line));
    }
    for request in seen {
        for (name, values) in &case.headers {
            if request.all(name) != *values {
                complaints
                    .push(format!("the upstream saw {name}: {:?}, expected {values:?}", request.all(name)));
            }
        }
    }
    complaints
}

/// Plays all cases of a table and compares all there is.
///
/// # Panics
/// With every difference, when there is one.
pub(crate) fn run(table: &str, ground: &Ground, cases: &[H2Case]) {
    let began = Instant::now();
    let tls = ground.tls_client(Over::H2).unwrap();
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut played = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::SeqCst);
            let Some(case) = cases.get(at) else { return played };
            let addresses = Addresses { number: u16::try_from(at + 1).unwrap() };
            played.push((at, play(case, ground, &tls, addresses)));
        }
    };
    let outcomes: BTreeMap<usize, _> = thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    let data = ground.gateway.data();
    let wanted: usize = cases.iter().map(|case| case.requests.0.max(1)).sum();
    let patience = Instant::now() + Duration::from_secs(15);
    eventually("the rows", || (data.count() >= wanted as u64 || Instant::now() > patience).then_some(()));
    thread::sleep(SETTLE);
    let rows = data.rows();
    let requests = ground.upstream.requests();
    let mut attributed = 0;
    let mut differences = Differences::default();
    for (at, case) in cases.iter().enumerate() {
        let address = Addresses { number: u16::try_from(at + 1).unwrap() }.peer();
        let rows: Vec<&LogRow> = rows.iter().filter(|row| row.client.ip() == address).collect();
        attributed += rows.len();
        let text = address.to_string();
        let is_its_own = |request: &&SeenRequest| request.all("x-forwarded-for") == [&text[..]];
        let seen: Vec<&SeenRequest> = requests.iter().filter(is_its_own).collect();
        differences.note(&case.name, &complaints(case, &outcomes[&at], &rows, &seen));
    }
    println!(
        "edge/{table}: {} cases, {} as expected; {} connections with bytes, {} rows; {} requests at the upstream; {:.1} s",
        cases.len(),
        cases.len() - differences.failed,
        cases.len(),
        rows.len(),
        requests.len(),
        began.elapsed().as_secs_f32()
    );
    let mut violations = ground.upstream.violations();
    if attributed != rows.len() {
        violations.push(format!("{} rows, of which {attributed} are a case's", rows.len()));
    }
    differences.assert_none(table, &violations);
}
