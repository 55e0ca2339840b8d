//! An upstream that trusts nobody: it reads HTTP/1 by the letter, keeps all that it was sent, and counts.
//!
//! Owns its own reading of requests, on purpose: it must not share a parser with the gateway, or both would be
//! wrong in the same way. Whatever it cannot read in exactly one way is a violation, and the tests fail on it.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::wait::DEADLINE;

/// Before 101: when that comes within microseconds, Pingora 0.9.1 may see it before it has noted the end of
/// the request's empty body, takes that for the end of the WebSocket then, and closes it.
const UPGRADE_PAUSE: Duration = Duration::from_millis(20);
/// Before the answer to `/later`: long enough for the client to have gone.
const LATER: Duration = Duration::from_millis(400);
/// The largest head and the largest body that are kept.
const MAX_HEAD: usize = 256 << 10;
const MAX_BODY: usize = 16 << 20;
/// Requests that are kept; more are a violation.
const MAX_REQUESTS: usize = 100_000;

/// A request as it came.
#[derive(Clone, Debug)]
pub struct SeenRequest {
    /// `GET /path HTTP/1.1`
    pub line: String,
    /// Names in lower case, in order.
    pub headers: Vec<(String, String)>,
    /// Without its framing.
    pub body: Vec<u8>,
    /// Whether all of it came.
    pub complete: bool,
    /// Which connection it came on.
    pub connection: u64,
}

impl SeenRequest {
    /// All values of a header, in order.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(given, _)| given == name).map(|(_, value)| &**value).collect()
    }

    fn target(&self) -> &str {
        self.line.split(' ').nth(1).unwrap_or_default()
    }

    fn method(&self) -> &str {
        self.line.split(' ').next().unwrap_or_default()
    }
}

#[derive(Default)]
struct Shared {
    requests: Mutex<Vec<SeenRequest>>,
    violations: Mutex<Vec<String>>,
    bytes: AtomicU64,
    connections: AtomicU64,
    stopping: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Answers 200 with a short body. `/drop` is read and then closed on, `/later` takes a while; a WebSocket upgrade gets 101 and an echo.
/// Ends when it is dropped.
pub struct StrictUpstream {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl StrictUpstream {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let accepting = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if accepting.stopping.load(Ordering::SeqCst) {
                    return;
                }
                let shared = Arc::clone(&accepting);
                let number = shared.connections.fetch_add(1, Ordering::SeqCst);
                thread::spawn(move || {
                    Serving { stream, shared, buffer: Vec::new(), number, latest: None }.run();
                });
            }
        });
        Self { address, shared, thread: Some(thread) }
    }

    /// `http://ADDRESS`
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every request so far.
    pub fn requests(&self) -> Vec<SeenRequest> {
        lock(&self.shared.requests).clone()
    }

    /// What came and could not be read in exactly one way.
    pub fn violations(&self) -> Vec<String> {
        lock(&self.shared.violations).clone()
    }

    /// Bytes that came, of whatever kind.
    pub fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::SeqCst)
    }

    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

impl Drop for StrictUpstream {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        // Wakes the thread that waits for a connection.
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            // A panic of that thread was printed by the panic hook.
            let _ = thread.join();
        }
    }
}

/// Why a connection ends.
enum End {
    /// The other side closed or broke it.
    Gone,
    /// It sent what must not be sent.
    Violation(String),
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

struct Serving {
    stream: TcpStream,
    shared: Arc<Shared>,
    /// Bytes that came and have not been read as anything yet.
    buffer: Vec<u8>,
    number: u64,
    /// The latest request, to blame.
    latest: Option<SeenRequest>,
}

impl Serving {
    fn run(mut self) {
        // Fails only on a socket that is closed already.
        let _ = self.stream.set_nodelay(true);
        let _ = self.stream.set_write_timeout(Some(DEADLINE));
        loop {
            match self.serve_one() {
                Ok(true) => {}
                Ok(false) | Err(End::Gone) => return,
                Err(End::Violation(what)) => {
                    let rest = self.buffer.escape_ascii().to_string();
                    lock(&self.shared.violations).push(format!(
                        "connection {}: {what}; unread: {rest}; after {:?}",
                        self.number, self.latest
                    ));
                    return;
                }
            }
        }
    }

    /// Whether the connection goes on.
    fn serve_one(&mut self) -> Result<bool, End> {
        if self.buffer.is_empty() && self.fill()? == 0 {
            return Ok(false);
        }
        let Some(mut request) = self.read_head()? else { return Ok(false) };
        if request.all("expect").iter().any(|value| value.eq_ignore_ascii_case("100-continue")) {
            self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        // Kept before the body is complete: a request that breaks off was seen all the same.
        let at = {
            let mut requests = lock(&self.shared.requests);
            if requests.len() >= MAX_REQUESTS {
                return Err(End::Violation("too many requests".to_owned()));
            }
            requests.push(request.clone());
            requests.len() - 1
        };
        request.body = self.read_body(&request)?;
        request.complete = true;
        lock(&self.shared.requests)[at].clone_from(&request);
        self.latest = Some(request.clone());
        self.answer(&request)
    }

    fn answer(&mut self, request: &SeenRequest) -> Result<bool, End> {
        if let Some(key) = request.all("sec-websocket-key").first()
            && !request.all("upgrade").is_empty()
        {
            let accept = derive_accept_key(key.as_bytes());
            let head = format!(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
            );
            thread::sleep(UPGRADE_PAUSE);
            self.stream.write_all(head.as_bytes())?;
            return self.echo();
        }
        if request.target() == "/drop" {
            return Ok(false);
        }
        if request.target() == "/later" {
            thread::sleep(LATER);
        }
        let body: &[u8] = if request.method() == "HEAD" { b"" } else { b"ok\n" };
        self.stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\r\n")?;
        self.stream.write_all(body)?;
        Ok(request.line.ends_with("HTTP/1.1"))
    }

    fn echo(&mut self) -> Result<bool, End> {
        loop {
            let bytes = std::mem::take(&mut self.buffer);
            self.stream.write_all(&bytes)?;
            if self.fill()? == 0 {
                return Ok(false);
            }
        }
    }

    fn fill(&mut self) -> Result<usize, End> {
        let mut chunk = [0; 16 << 10];
        let n = self.stream.read(&mut chunk)?;
        self.shared.bytes.fetch_add(n as u64, Ordering::SeqCst);
        self.buffer.extend_from_slice(&chunk[..n]);
        Ok(n)
    }

    fn read_line(&mut self) -> Result<String, End> {
        loop {
            if let Some(end) = self.buffer.iter().position(|&b| b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                let Some(text) = line.strip_suffix(b"\r\n") else {
                    return Err(End::Violation(format!(
                        "a bare LF ends {:?}",
                        line.escape_ascii().to_string()
                    )));
                };
                if text.iter().any(|&b| b < b' ' && b != b'\t' || b == 0x7f) {
                    return Err(End::Violation(format!(
                        "a control in {:?}",
                        text.escape_ascii().to_string()
                    )));
                }
                return Ok(String::from_utf8_lossy(text).into_owned());
            }
            if self.buffer.len() > MAX_HEAD {
                return Err(End::Violation("an endless line".to_owned()));
            }
            if self.fill()? == 0 {
                return Err(End::Gone);
            }
        }
    }

    fn read_head(&mut self) -> Result<Option<SeenRequest>, End> {
        let line = self.read_line()?;
        let words: Vec<&str> = line.split(' ').collect();
        let is_request_line = matches!(&words[..], [method, target, "HTTP/1.1" | "HTTP/1.0"]
            if !method.is_empty() && method.bytes().all(|b| b.is_ascii_graphic())
                && (target.starts_with('/') || *target == "*"));
        if !is_request_line {
            return Err(End::Violation(format!("no request line: {line:?}")));
        }
        let mut headers = Vec::new();
        loop {
            let line = self.read_line()?;
            if line.is_empty() {
                return Ok(Some(SeenRequest {
                    line: words.join(" "),
                    headers,
                    body: Vec::new(),
                    complete: false,
                    connection: self.number,
                }));
            }
            let Some((name, value)) = line.split_once(':') else {
                return Err(End::Violation(format!("no header: {line:?}")));
            };
            let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
            if name.is_empty() || !name.bytes().all(is_token) {
                return Err(End::Violation(format!("no header name: {line:?}")));
            }
            headers.push((name.to_ascii_lowercase(), value.trim_matches([' ', '\t']).to_owned()));
        }
    }

    fn read_body(&mut self, request: &SeenRequest) -> Result<Vec<u8>, End> {
        match (&request.all("content-length")[..], &request.all("transfer-encoding")[..]) {
            ([], []) => Ok(Vec::new()),
            ([length], []) => {
                let is_number = !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit());
                match length.parse() {
                    Ok(length) if is_number && length <= MAX_BODY => self.read_exactly(length),
                    _ => Err(End::Violation(format!("Content-Length: {length:?}"))),
                }
            }
            ([], [coding]) if coding.eq_ignore_ascii_case("chunked") => self.read_chunks(),
            (lengths, codings) => Err(End::Violation(format!("lengths {lengths:?} and codings {codings:?}"))),
        }
    }

    fn read_exactly(&mut self, length: usize) -> Result<Vec<u8>, End> {
        while self.buffer.len() < length {
            if self.fill()? == 0 {
                return Err(End::Gone);
            }
        }
        Ok(self.buffer.drain(..length).collect())
    }

    fn read_chunks(&mut self) -> Result<Vec<u8>, End> {
        let mut body = Vec::new();
        loop {
            let line = self.read_line()?;
            let is_size = (1..=8).contains(&line.len()) && line.bytes().all(|b| b.is_ascii_hexdigit());
            let size = match usize::from_str_radix(&line, 16) {
                Ok(size) if is_size && body.len() + size <= MAX_BODY => size,
                _ => return Err(End::Violation(format!("a chunk of the size {line:?}"))),
            };
            body.extend(self.read_exactly(size)?);
            let end = self.read_line()?;
            if !end.is_empty() {
                return Err(End::Violation(format!("after a chunk of {size} bytes: {end:?}")));
            }
            if size == 0 {
                return Ok(body);
            }
        }
    }
}
