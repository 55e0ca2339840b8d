//! A case, and running a table of them: each on a connection of its own, all differences reported at once.
//!
//! Rows are found by the client's address, requests at the upstream by the X-Forwarded-For that the gateway
//! wrote: every case has addresses that no other case has.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use portcullis_model::RequestId;
use portcullis_store::LogRow;
use portcullis_testkit::{RawConnection, Received, SeenRequest, eventually};
use rustls::ClientConfig;

use crate::ground::{Addresses, Ground, NAME, Over};

/// Connections at once.
const WORKERS: usize = 24;
/// How long an answer, or the end of a connection, may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// After the last row that is waited for, how long more rows would be noticed.
const SETTLE: Duration = Duration::from_millis(600);

/// Which address the row must name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    Peer,
    Stranger,
    Client,
    Client6,
    Blocked,
    Hop,
}

/// One thing that a case does with its connection.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// `@CLIENT@`, `@CLIENT6@`, `@BLOCKED@`, `@HOP@` and `@PEER@` stand for the case's addresses as text,
    /// `@4@` and `@6@` for the client's in 4 and 16 bytes, `@HEX@` for what the client's IPv6 address has of its
    /// own.
    Send(Vec<u8>),
    Pause(Duration),
    /// Waits until this many answers have come, interim ones included.
    Await(usize),
    /// No more bytes will come.
    Finish,
    /// Resets the connection.
    Reset,
}

/// What the upstream must have seen.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    line: String,
    headers: Vec<(String, Vec<String>)>,
    body: Vec<u8>,
    /// How often, at least and at most.
    times: (usize, usize),
    /// Whether all of it arrives; when not, the body is not compared.
    complete: bool,
}

/// Who ends the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The gateway, without waiting for the client.
    Gateway,
    /// The client: the gateway leaves it open.
    Client,
    Either,
}

/// A case. Without a word about the answer, it must be refused with 400.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) name: String,
    over: Over,
    steps: Vec<Step>,
    from_stranger: bool,
    /// Statuses in order, one of these lists; an empty one is an end without a word.
    answers: Vec<Vec<u16>>,
    end: End,
    verdict: &'static str,
    /// One of these; one that ends in `*` stands for all that begin so.
    reasons: Vec<String>,
    who: Who,
    path: Option<String>,
    sent: Option<Sent>,
    method: String,
    /// What comes back through the tunnel after a 101.
    tunnelled: Vec<u8>,
    /// Goes out before anything else, over TLS before the handshake.
    preamble: Vec<u8>,
    any_verdict: bool,
    any_client: bool,
}

impl Case {
    /// A case that must be refused with 400 and closed, and has `malformed:KIND` in its row.
    pub(crate) fn refused(name: impl Into<String>, bytes: impl AsRef<[u8]>, kind: &str) -> Self {
        Self::new(name, bytes).answers(&[400]).reason(&format!("malformed:{kind}"))
    }

    /// A case that must be answered with 200 by the upstream, which sees this request line.
    pub(crate) fn served(name: impl Into<String>, bytes: impl AsRef<[u8]>, line: &str) -> Self {
        let sent = Sent::once(line);
        let method = line.split(' ').next().unwrap_or_default().to_owned();
        Self { end: End::Client, verdict: "admitted", sent: Some(sent), method, ..Self::new(name, bytes) }
            .answers(&[200])
    }

    fn new(name: impl Into<String>, bytes: impl AsRef<[u8]>) -> Self {
        Self {
            name: name.into(),
            over: Over::Plain,
            steps: vec![Step::Send(bytes.as_ref().to_vec())],
            from_stranger: false,
            answers: Vec::new(),
            end: End::Gateway,
            verdict: "malformed",
            reasons: vec![String::new()],
            who: Who::Peer,
            path: None,
            sent: None,
            method: "GET".to_owned(),
            tunnelled: Vec::new(),
            preamble: Vec::new(),
            any_verdict: false,
            any_client: false,
        }
    }

    pub(crate) fn over(mut self, over: Over) -> Self {
        self.over = over;
        self
    }

    /// The same case over TLS.
    pub(crate) fn and_over_tls(self) -> [Self; 2] {
        let mut tls = self.clone().over(Over::Tls);
        tls.name += ", TLS";
        [self, tls]
    }

    pub(crate) fn answers(mut self, statuses: &[u16]) -> Self {
        self.answers = vec![statuses.to_vec()];
        self
    }

    /// Another list of answers is as good.
    pub(crate) fn or_answers(mut self, statuses: &[u16]) -> Self {
        self.answers.push(statuses.to_vec());
        self
    }

    pub(crate) fn reason(mut self, reason: &str) -> Self {
        self.reasons = vec![reason.to_owned()];
        self
    }

    /// Another reason is as good.
    pub(crate) fn or_reason(mut self, reason: &str) -> Self {
        self.reasons.push(reason.to_owned());
        self
    }

    /// Whether it counts as the client's fault depends on who noticed first.
    pub(crate) fn any_verdict(mut self) -> Self {
        self.any_verdict = true;
        self
    }

    /// Nothing says which of several clients it was.
    pub(crate) fn any_client(mut self) -> Self {
        self.any_client = true;
        self
    }

    /// Refused with 403 because of a block; the connection can be used again.
    pub(crate) fn blocked(mut self) -> Self {
        self.verdict = "blocked";
        self.sent = None;
        self.answers(&[403]).reason("block:*")
    }

    /// Answered with 101.
    pub(crate) fn upgrading(self) -> Self {
        self.answers(&[101]).either_end()
    }

    /// What comes back after that.
    pub(crate) fn tunnelled(mut self, bytes: &str) -> Self {
        self.tunnelled = bytes.as_bytes().to_vec();
        self
    }

    pub(crate) fn who(mut self, who: Who) -> Self {
        self.who = who;
        self
    }

    /// Connects from an address that nobody trusts.
    pub(crate) fn by_stranger(mut self) -> Self {
        self.from_stranger = true;
        self.who(Who::Stranger)
    }

    /// The path in the row.
    pub(crate) fn path(mut self, path: &str) -> Self {
        self.path = Some(path.to_owned());
        self
    }

    /// The gateway must close after the answer.
    pub(crate) fn closing(mut self) -> Self {
        self.end = End::Gateway;
        self
    }

    /// Who closes after the answer does not matter.
    pub(crate) fn either_end(mut self) -> Self {
        self.end = End::Either;
        self
    }

    /// The upstream sees exactly these values of a header.
    pub(crate) fn header(mut self, name: &str, values: &[&str]) -> Self {
        let values = values.iter().map(|&value| value.to_owned()).collect();
        if let Some(sent) = &mut self.sent {
            sent.headers.push((name.to_owned(), values));
        }
        self
    }

    /// How often the upstream sees it.
    pub(crate) fn times(mut self, least: usize, most: usize) -> Self {
        if let Some(sent) = &mut self.sent {
            sent.times = (least, most);
        }
        self
    }

    /// Answered with our page and 502, since the upstream fails.
    pub(crate) fn failing(self, reason: &str) -> Self {
        self.answers(&[502]).reason(reason).either_end()
    }

    pub(crate) fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        if let Some(sent) = &mut self.sent {
            sent.body = body.as_ref().to_vec();
        }
        self
    }

    /// The upstream may have seen the beginning of it, and never the end.
    pub(crate) fn perhaps_begun(mut self, line: &str) -> Self {
        self.sent = Some(Sent { times: (0, 1), complete: false, ..Sent::once(line) });
        self
    }

    /// Sends these bytes before anything else, over TLS before the handshake.
    pub(crate) fn behind(mut self, preamble: impl AsRef<[u8]>) -> Self {
        self.preamble = preamble.as_ref().to_vec();
        self
    }

    pub(crate) fn then(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    pub(crate) fn steps(mut self, steps: Vec<Step>) -> Self {
        self.steps = steps;
        self
    }

    fn sends_bytes(&self) -> bool {
        let sends = self.steps.iter().any(|step| matches!(step, Step::Send(_)));
        self.over != Over::Plain || !self.preamble.is_empty() || sends
    }

    fn source(&self, addresses: Addresses) -> IpAddr {
        if self.from_stranger { addresses.stranger() } else { addresses.peer() }.into()
    }

    fn client(&self, addresses: Addresses) -> IpAddr {
        match self.who {
            Who::Peer => addresses.peer().into(),
            Who::Stranger => addresses.stranger().into(),
            Who::Client => addresses.client().into(),
            Who::Client6 => addresses.client6().into(),
            Who::Blocked => addresses.blocked().into(),
            Who::Hop => addresses.hop().into(),
        }
    }
}

impl Sent {
    fn once(line: &str) -> Self {
        Self { line: line.to_owned(), headers: Vec::new(), body: Vec::new(), times: (1, 1), complete: true }
    }
}

/// Replaces the placeholders.
pub(crate) fn fill_in(bytes: &[u8], addresses: Addresses) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if !bytes.contains(&b'@') {
        return bytes;
    }
    for (placeholder, address) in [
        ("@CLIENT@", addresses.client().to_string().into_bytes()),
        ("@CLIENT6@", addresses.client6().to_string().into_bytes()),
        ("@BLOCKED@", addresses.blocked().to_string().into_bytes()),
        ("@HOP@", addresses.hop().to_string().into_bytes()),
        ("@PEER@", addresses.peer().to_string().into_bytes()),
        ("@HEX@", format!("{:04X}", addresses.number).into_bytes()),
        ("@4@", addresses.client().octets().to_vec()),
        ("@6@", addresses.client6().octets().to_vec()),
    ] {
        while let Some(at) = find(&bytes, placeholder.as_bytes()) {
            bytes.splice(at..at + placeholder.len(), address.iter().copied());
        }
    }
    bytes
}

/// An answer as far as it matters.
#[derive(Clone, Debug)]
struct Answer {
    status: u16,
    says_close: bool,
    decision: Option<String>,
}

/// What happened on the connection.
#[derive(Debug)]
struct Outcome {
    answers: Vec<Answer>,
    /// Bytes after the last whole answer.
    rest: Vec<u8>,
    closed_by_gateway: bool,
    trouble: Option<String>,
}

struct Exchange<'a> {
    connection: RawConnection,
    method: &'a str,
    answers: Vec<Answer>,
    buffer: Vec<u8>,
    ended: bool,
    deadline: Instant,
}

impl Exchange<'_> {
    /// Reads once; false at the end or when there is nothing.
    fn read(&mut self, patience: Duration) -> bool {
        if self.ended {
            return false;
        }
        match self.connection.receive(patience) {
            Received::Bytes(bytes) => {
                self.buffer.extend_from_slice(&bytes);
                while let Some((answer, length)) = parse_answer(&self.buffer, self.method) {
                    self.buffer.drain(..length);
                    self.answers.push(answer);
                }
                true
            }
            Received::Closed | Received::Reset => {
                self.ended = true;
                false
            }
            Received::Silence => false,
        }
    }

    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
    }

    fn until_answers(&mut self, count: usize) {
        while self.answers.len() < count && self.read(self.left()) {}
    }

    fn until_end(&mut self) {
        while self.read(self.left()) {}
    }
}

/// One whole answer at the beginning of the bytes, and its length. What follows a 101 is none of HTTP's.
fn parse_answer(bytes: &[u8], method: &str) -> Option<(Answer, usize)> {
    let end = find(bytes, b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let status: u16 = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let header = |name: &str| {
        let lines = head.split("\r\n").filter_map(|line| line.split_once(':'));
        lines.filter(|(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
    };
    let answer = Answer {
        status,
        says_close: header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")),
        decision: header("x-portcullis-decision").map(str::to_owned),
    };
    let has_body = method != "HEAD" && !(100..200).contains(&status) && !matches!(status, 204 | 304);
    let length = match header("content-length") {
        Some(length) if has_body => length.parse().ok()?,
        _ => 0,
    };
    (bytes.len() >= end + length).then_some((answer, end + length))
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// Plays a case against its ground.
fn play(case: &Case, ground: &Ground, tls: Option<&Arc<ClientConfig>>, addresses: Addresses) -> Outcome {
    let trouble = |what: String| Outcome {
        answers: Vec::new(),
        rest: Vec::new(),
        closed_by_gateway: false,
        trouble: Some(what),
    };
    let opened = RawConnection::open(case.source(addresses), ground.address(case.over));
    let opened = opened.and_then(|mut connection| {
        connection.send(&fill_in(&case.preamble, addresses))?;
        match tls {
            Some(config) => connection.into_tls(NAME, config),
            None => Ok(connection),
        }
    });
    let connection = match opened {
        Ok(connection) => connection,
        // Refused for what came before the handshake.
        Err(_) if !case.preamble.is_empty() => {
            return Outcome { answers: Vec::new(), rest: Vec::new(), closed_by_gateway: true, trouble: None };
        }
        Err(error) => return trouble(format!("no connection: {error}")),
    };
    let mut exchange = Exchange {
        connection,
        method: &case.method,
        answers: Vec::new(),
        buffer: Vec::new(),
        ended: false,
        deadline: Instant::now() + PATIENCE,
    };
    for step in &case.steps {
        match step {
            // A refusal may come before all was sent; then the rest cannot be.
            Step::Send(bytes) => drop(exchange.connection.send(&fill_in(bytes, addresses))),
            Step::Pause(span) => thread::sleep(*span),
            Step::Await(count) => exchange.until_answers(*count),
            Step::Finish => drop(exchange.connection.finish_writing()),
            Step::Reset => {
                let answers = std::mem::take(&mut exchange.answers);
                drop(exchange.connection.reset());
                return Outcome { answers, rest: Vec::new(), closed_by_gateway: true, trouble: None };
            }
        }
    }
    if case.end != End::Gateway {
        exchange.until_answers(case.answers.iter().map(Vec::len).max().unwrap_or(0));
        while exchange.buffer.len() < case.tunnelled.len() && exchange.read(exchange.left()) {}
        let closed_by_gateway = exchange.ended;
        drop(exchange.connection.finish_writing());
        exchange.until_end();
        let Exchange { answers, buffer: rest, ended, .. } = exchange;
        let trouble = (!ended).then(|| "still open after the client's end".to_owned());
        return Outcome { answers, rest, closed_by_gateway, trouble };
    }
    exchange.until_end();
    Outcome {
        answers: exchange.answers,
        rest: exchange.buffer,
        closed_by_gateway: exchange.ended,
        trouble: None,
    }
}

/// Everything that is known of a case after it was played.
struct Evidence<'a> {
    case: &'a Case,
    addresses: Addresses,
    outcome: &'a Outcome,
    rows: Vec<&'a LogRow>,
    seen: Vec<&'a SeenRequest>,
}

impl Evidence<'_> {
    /// What is wrong, in words.
    fn complaints(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        self.answer(&mut complaints);
        self.row(&mut complaints);
        self.upstream(&mut complaints);
        complaints
    }

    fn answer(&self, complaints: &mut Vec<String>) {
        let Self { case, outcome, .. } = self;
        complaints.extend(outcome.trouble.clone());
        let statuses: Vec<u16> = outcome.answers.iter().map(|answer| answer.status).collect();
        if !case.answers.contains(&statuses) {
            complaints.push(format!("answered {statuses:?}, expected {:?}", case.answers));
        }
        if outcome.rest != case.tunnelled {
            complaints.push(format!("then came {:?}", outcome.rest.escape_ascii().to_string()));
        }
        let ended = outcome.closed_by_gateway;
        match case.end {
            End::Gateway if !ended => complaints.push("was left open".to_owned()),
            End::Client if ended => complaints.push("was closed by the gateway".to_owned()),
            End::Gateway | End::Client | End::Either => {}
        }
        if case.end == End::Gateway && outcome.answers.last().is_some_and(|last| !last.says_close) {
            complaints.push("the answer does not say Connection: close".to_owned());
        }
    }

    fn row(&self, complaints: &mut Vec<String>) {
        let Self { case, addresses, outcome, .. } = self;
        let wanted_rows = usize::from(case.sends_bytes());
        if self.rows.len() != wanted_rows {
            let rows: Vec<String> = self.rows.iter().map(|row| describe(row)).collect();
            complaints.push(format!("{} rows instead of {wanted_rows}: {rows:?}", self.rows.len()));
        }
        let Some(row) = self.rows.first() else { return };
        let is_verdict = case.any_verdict || row.verdict.as_str() == case.verdict;
        let is_reason = case.reasons.iter().any(|reason| match reason.strip_suffix('*') {
            Some(start) => row.reason.starts_with(start),
            None => row.reason == *reason,
        });
        if !is_verdict || !is_reason {
            complaints.push(format!(
                "row says {}, expected {} {:?}",
                describe(row),
                case.verdict,
                case.reasons
            ));
        }
        let client = case.client(*addresses);
        if row.client.ip() != client && !case.any_client {
            complaints.push(format!("row names {}, expected {client}", row.client));
        }
        let last = outcome.answers.last();
        let status = last.map_or(0, |answer| answer.status);
        if row.status != status {
            complaints.push(format!("row has status {}, the answer {status}", row.status));
        }
        if let Some(id) = last.and_then(|answer| answer.decision.as_ref())
            && id.parse::<RequestId>().ok() != Some(row.id)
        {
            complaints.push(format!("the answer's decision {id} is not the row's {}", row.id));
        }
        if case.path.as_ref().is_some_and(|path| *path != row.path) {
            complaints.push(format!("row has path {:?}, expected {:?}", row.path, case.path));
        }
    }

    fn upstream(&self, complaints: &mut Vec<String>) {
        let Some(sent) = &self.case.sent else {
            if !self.seen.is_empty() {
                complaints.push(format!("the upstream saw {:?}", self.seen));
            }
            return;
        };
        let (least, most) = sent.times;
        if !(least..=most).contains(&self.seen.len()) {
            complaints.push(format!("the upstream saw {} requests: {:?}", self.seen.len(), self.seen));
        }
        for seen in &self.seen {
            self.one_request(sent, seen, complaints);
        }
    }

    fn one_request(&self, sent: &Sent, seen: &SeenRequest, complaints: &mut Vec<String>) {
        if seen.line != sent.line {
            complaints.push(format!("the upstream saw {:?}, expected {:?}", seen.line, sent.line));
        }
        if seen.complete != sent.complete {
            complaints.push(format!("the upstream saw all of it: {}", seen.complete));
        }
        if sent.complete && seen.body != sent.body {
            complaints.push(format!(
                "the upstream saw the body {:?}, expected {:?}",
                seen.body.escape_ascii().to_string(),
                sent.body.escape_ascii().to_string()
            ));
        }
        let proto = if self.case.over == Over::Plain { "http" } else { "https" };
        let client = self.case.client(self.addresses).to_string();
        let of_all = [
            ("x-forwarded-for", vec![client.clone()]),
            ("x-real-ip", vec![client]),
            ("x-forwarded-proto", vec![proto.to_owned()]),
        ];
        let of_case = sent.headers.iter().map(|(name, values)| (&**name, values.clone()));
        let named: Vec<&str> = sent.headers.iter().map(|(name, _)| &**name).collect();
        let of_all = of_all.into_iter().filter(|(name, _)| !named.contains(name));
        for (name, mut values) in of_all.chain(of_case) {
            for value in &mut values {
                *value = String::from_utf8_lossy(&fill_in(value.as_bytes(), self.addresses)).into_owned();
            }
            if seen.all(name) != values {
                complaints
                    .push(format!("the upstream saw {name}: {:?}, expected {values:?}", seen.all(name)));
            }
        }
        if seen.all("x-request-id").len() != 1 {
            complaints.push(format!("the upstream saw x-request-id {:?}", seen.all("x-request-id")));
        }
        for (name, _) in &seen.headers {
            if NEVER_FORWARDED.contains(&&*name.replace('_', "-")) && !named.contains(&&**name) {
                complaints.push(format!("the upstream saw {name}: {:?}", seen.all(name)));
            }
        }
    }
}

/// Names that no upstream may see unless a case says so: what only gateways write, and what belongs to one hop.
const NEVER_FORWARDED: &[&str] = &[
    "cf-connecting-ip",
    "fastly-client-ip",
    "forwarded",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "true-client-ip",
    "upgrade",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-server",
];

fn describe(row: &LogRow) -> String {
    format!("{} {:?} {} {} {:?}", row.verdict, row.reason, row.status, row.method, row.path)
}

/// In what the cases of a table came out otherwise than expected.
#[derive(Default)]
pub(crate) struct Differences {
    pub(crate) failed: usize,
    report: String,
}

impl Differences {
    pub(crate) fn note(&mut self, case: &str, complaints: &[String]) {
        if !complaints.is_empty() {
            self.failed += 1;
            let _ = writeln!(self.report, "  {case}:\n    {}", complaints.join("\n    "));
        }
    }

    /// # Panics
    /// With all of them, and with what is wrong of the table as a whole.
    pub(crate) fn assert_none(&self, table: &str, general: &[String]) {
        let Self { failed, report } = self;
        assert!(
            *failed == 0 && general.is_empty(),
            "{failed} cases of {table} differ:\n{report}{general:#?}"
        );
    }
}

/// Plays all cases of a table and compares all there is.
///
/// # Panics
/// With every difference, when there is one.
pub(crate) fn run(table: &str, ground: &Ground, cases: &[Case]) {
    let began = Instant::now();
    let outcomes = play_all(ground, cases);
    let wanted: u64 = cases.iter().filter(|case| case.sends_bytes()).count() as u64;
    let data = ground.gateway.data();
    // Too few are a difference like any other, so the wait for them must not fail.
    let patience = Instant::now() + Duration::from_secs(15);
    eventually("the rows", || (data.count() >= wanted || Instant::now() > patience).then_some(()));
    thread::sleep(SETTLE);
    let rows = data.rows();
    let seen = ground.upstream.requests();
    let mut rows_of: BTreeMap<u16, Vec<&LogRow>> = BTreeMap::new();
    let mut seen_of: BTreeMap<u16, Vec<&SeenRequest>> = BTreeMap::new();
    let mut general: Vec<String> = ground.upstream.violations();
    for row in &rows {
        match Addresses::owner(row.client.ip()) {
            Some(owner) => rows_of.entry(owner.number).or_default().push(row),
            None => general.push(format!("a row of nobody's: {} {}", row.client, describe(row))),
        }
    }
    for request in &seen {
        let client = request.all("x-forwarded-for").first().and_then(|value| value.parse().ok());
        match client.and_then(Addresses::owner) {
            Some(owner) => seen_of.entry(owner.number).or_default().push(request),
            None => general.push(format!("a request of nobody's: {request:?}")),
        }
    }
    let mut differences = Differences::default();
    for (case, (addresses, outcome)) in cases.iter().zip(&outcomes) {
        let evidence = Evidence {
            case,
            addresses: *addresses,
            outcome,
            rows: rows_of.remove(&addresses.number).unwrap_or_default(),
            seen: seen_of.remove(&addresses.number).unwrap_or_default(),
        };
        differences.note(&case.name, &evidence.complaints());
    }
    println!(
        "edge/{table}: {} cases, {} as expected; {wanted} connections with bytes, {} rows; {} requests and {} bytes at the upstream; {:.1} s",
        cases.len(),
        cases.len() - differences.failed,
        rows.len(),
        seen.len(),
        ground.upstream.bytes(),
        began.elapsed().as_secs_f32()
    );
    // The same once more, as anybody can ask it: one row for each connection with bytes, and for each client.
    let once = "SELECT count(*) FROM (SELECT ip FROM request_log GROUP BY ip HAVING count(*) = 1)";
    let counted = [data.count(), data.sql::<i64>(once).unsigned_abs()];
    if counted != [wanted; 2] {
        general.push(format!("{wanted} connections with bytes; rows, and clients with one row: {counted:?}"));
    }
    differences.assert_none(table, &general);
}

fn play_all(ground: &Ground, cases: &[Case]) -> Vec<(Addresses, Outcome)> {
    let configs = [Over::Plain, Over::Tls, Over::H2].map(|over| (over, ground.tls_client(over)));
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut played = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::SeqCst);
            let Some(case) = cases.get(at) else { return played };
            let addresses = Addresses { number: u16::try_from(at + 1).unwrap() };
            let tls = configs.iter().find(|(over, _)| *over == case.over).and_then(|(_, tls)| tls.as_ref());
            played.push((at, addresses, play(case, ground, tls, addresses)));
        }
    };
    let mut played: Vec<_> = thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    played.sort_by_key(|(at, ..)| *at);
    played.into_iter().map(|(_, addresses, outcome)| (addresses, outcome)).collect()
}
