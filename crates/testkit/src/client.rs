//! A small HTTP/1.1 client that sends exactly what it is told to, over TCP or TLS.
//!
//! Owns framing of answers. Must not correct requests: tests send wrong ones on purpose.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use socket2::{Domain, Socket, Type};

use crate::wait::DEADLINE;

const READ_CHUNK: usize = 64 << 10;
/// The largest head of an answer that is read.
const MAX_HEAD: usize = 1 << 20;

/// A request to send.
#[derive(Clone, Debug)]
pub struct Request {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    pub fn new(method: &str, target: &str) -> Self {
        Self { method: method.to_owned(), target: target.to_owned(), headers: Vec::new(), body: Vec::new() }
    }

    pub fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    pub fn post(target: &str, body: impl Into<Vec<u8>>) -> Self {
        Self::new("POST", target).body(body)
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sent with its length.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    fn has(&self, name: &str) -> bool {
        self.headers.iter().any(|(given, _)| given.eq_ignore_ascii_case(name))
    }
}

/// The head of an answer.
#[derive(Clone, Debug)]
pub struct Head {
    pub status: u16,
    /// `HTTP/1.1`
    pub version: String,
    pub headers: Vec<(String, String)>,
}

impl Head {
    /// The first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| &**value)
    }

    /// All headers of this name, in order.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let named = self.headers.iter().filter(|(given, _)| given.eq_ignore_ascii_case(name));
        named.map(|(_, value)| &**value).collect()
    }
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Response {
    pub head: Head,
    pub body: Vec<u8>,
}

impl Response {
    pub fn status(&self) -> u16 {
        self.head.status
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.text()))
    }

    /// The decision ID that a refusal carries, in its header and on its page.
    pub fn decision_id(&self) -> String {
        let id = self.header("x-portcullis-decision").expect("a refusal carries a decision ID").to_owned();
        assert!(self.body.is_empty() || self.text().contains(&id), "the page does not show the decision ID");
        id
    }
}

trait Stream: Read + Write + Send {
    fn socket(&self) -> &TcpStream;
}

impl Stream for TcpStream {
    fn socket(&self) -> &TcpStream {
        self
    }
}

impl Stream for StreamOwned<ClientConnection, TcpStream> {
    fn socket(&self) -> &TcpStream {
        &self.sock
    }
}

/// One connection to a server. Every wait ends after [`DEADLINE`] with a panic.
pub struct Client {
    stream: Box<dyn Stream>,
    /// Bytes that came and belong to the next part.
    buffer: Vec<u8>,
    host: String,
    forwarded_for: Option<String>,
}

/// A connection from one of this machine's own addresses: all of 127.0.0.0/8 on Linux. It waits for nothing longer than
/// [`DEADLINE`].
pub fn connect(source: Option<IpAddr>, to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
    if let Some(source) = source {
        socket.bind(&SocketAddr::new(source, 0).into()).expect("this address cannot be a client's");
    }
    socket
        .connect_timeout(&to.into(), DEADLINE)
        .unwrap_or_else(|error| panic!("no connection to {to}: {error}"));
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    stream
}

impl Client {
    pub fn connect(to: SocketAddr) -> Self {
        Self::over(connect(None, to), to.to_string())
    }

    /// From one of this machine's own addresses: all of 127.0.0.0/8 on Linux.
    pub fn connect_from(source: &str, to: SocketAddr) -> Self {
        Self::over(connect(Some(source.parse().unwrap()), to), to.to_string())
    }

    /// TLS; the handshake happens with the first bytes that are sent.
    pub fn connect_tls(to: SocketAddr, name: &str, config: &Arc<ClientConfig>) -> Self {
        let server = ServerName::try_from(name.to_owned()).unwrap();
        let connection = ClientConnection::new(Arc::clone(config), server).unwrap();
        Self::over(StreamOwned::new(connection, connect(None, to)), name.to_owned())
    }

    fn over(stream: impl Stream + 'static, host: String) -> Self {
        Self { stream: Box::new(stream), buffer: Vec::new(), host, forwarded_for: None }
    }

    /// Adds `X-Forwarded-For` to every request.
    pub fn forwarded_for(mut self, client: &str) -> Self {
        self.forwarded_for = Some(client.to_owned());
        self
    }

    pub fn host(mut self, host: &str) -> Self {
        host.clone_into(&mut self.host);
        self
    }

    pub fn get(&mut self, target: &str) -> Response {
        self.send(&Request::get(target))
    }

    pub fn post(&mut self, target: &str, body: &str) -> Response {
        self.send(&Request::post(target, body))
    }

    /// Sends a request and reads the answer. The connection can be used again unless the server closed it.
    pub fn send(&mut self, request: &Request) -> Response {
        self.write_request(request);
        self.read_response(&request.method)
    }

    pub fn write_request(&mut self, request: &Request) {
        let mut bytes = format!("{} {} HTTP/1.1\r\n", request.method, request.target);
        if !request.has("host") {
            bytes += &format!("Host: {}\r\n", self.host);
        }
        if let Some(client) = &self.forwarded_for {
            bytes += &format!("X-Forwarded-For: {client}\r\n");
        }
        for (name, value) in &request.headers {
            bytes += &format!("{name}: {value}\r\n");
        }
        let sized = request.has("content-length") || request.has("transfer-encoding");
        if !sized && (!request.body.is_empty() || request.method == "POST") {
            bytes += &format!("Content-Length: {}\r\n", request.body.len());
        }
        bytes += "\r\n";
        let mut bytes = bytes.into_bytes();
        bytes.extend_from_slice(&request.body);
        self.write(&bytes);
    }

    pub fn write(&mut self, bytes: &[u8]) {
        self.try_write(bytes).unwrap();
    }

    /// Fails when the server has closed the connection.
    pub fn try_write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    /// Reads a head and its whole body; `method` is that of the request.
    pub fn read_response(&mut self, method: &str) -> Response {
        let head = self.read_head();
        let mut body = Vec::new();
        self.read_body(&head, method, |part| body.extend_from_slice(part));
        Response { head, body }
    }

    /// Reads a head; interim answers (1xx but 101) are skipped.
    pub fn read_head(&mut self) -> Head {
        loop {
            let head = self.next_head().expect("the connection was closed before an answer");
            if !(100..200).contains(&head.status) || head.status == 101 {
                return head;
            }
        }
    }

    fn next_head(&mut self) -> Option<Head> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                let head = parse_head(&self.buffer[..end]);
                self.buffer.drain(..end + 4);
                return Some(head);
            }
            assert!(self.buffer.len() < MAX_HEAD, "the head of the answer does not end");
            if self.fill() == 0 {
                let rest = String::from_utf8_lossy(&self.buffer).into_owned();
                assert!(rest.is_empty(), "the connection was closed inside of a head: {rest}");
                return None;
            }
        }
    }

    /// Hands over the body in parts, so that a large one need not be held. Returns its length.
    ///
    /// # Panics
    /// When it ends early; see [`Self::try_read_body`].
    pub fn read_body(&mut self, head: &Head, method: &str, each: impl FnMut(&[u8])) -> u64 {
        self.try_read_body(head, method, each).expect("the body ends early")
    }

    /// As [`Self::read_body`]; fails with the length that came when the connection ends before the body.
    pub fn try_read_body(
        &mut self,
        head: &Head,
        method: &str,
        mut each: impl FnMut(&[u8]),
    ) -> Result<u64, u64> {
        if method == "HEAD" || matches!(head.status, 101 | 204 | 304) {
            return Ok(0);
        }
        if head.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
            return self.read_chunks(&mut each);
        }
        match head.header("content-length") {
            Some(length) => {
                let length = length.parse().unwrap();
                self.read_exactly(length, &mut each).map(|()| length)
            }
            None => {
                let mut total = 0;
                loop {
                    total += self.buffer.len() as u64;
                    each(&std::mem::take(&mut self.buffer));
                    if self.fill() == 0 {
                        return Ok(total);
                    }
                }
            }
        }
    }

    fn read_exactly(&mut self, length: u64, each: &mut dyn FnMut(&[u8])) -> Result<(), u64> {
        let mut left = length;
        while left > 0 {
            if self.buffer.is_empty() && self.fill() == 0 {
                return Err(length - left);
            }
            let take = self.buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            each(&self.buffer[..take]);
            self.buffer.drain(..take);
            left -= take as u64;
        }
        Ok(())
    }

    fn read_chunks(&mut self, each: &mut dyn FnMut(&[u8])) -> Result<u64, u64> {
        let mut total = 0;
        loop {
            let line = self.read_line().ok_or(total)?;
            let digits = line.split(';').next().unwrap_or_default().trim();
            let size = u64::from_str_radix(digits, 16).unwrap_or_else(|_| panic!("no chunk size: {line:?}"));
            self.read_exactly(size, each).map_err(|part| total + part)?;
            total += size;
            // The line end of the chunk; after the last one, that of the (empty) trailer.
            self.read_line().ok_or(total)?;
            if size == 0 {
                return Ok(total);
            }
        }
    }

    fn read_line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n") {
                let line = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
                self.buffer.drain(..end + 2);
                return Some(line);
            }
            if self.fill() == 0 {
                return None;
            }
        }
    }

    /// Reads what has come of a chunked body until it holds `wanted`. For streams that do not end.
    pub fn read_until(&mut self, wanted: &str) -> String {
        loop {
            if let Some(at) = find(&self.buffer, wanted.as_bytes()) {
                let text = String::from_utf8_lossy(&self.buffer[..at + wanted.len()]).into_owned();
                self.buffer.drain(..at + wanted.len());
                return text;
            }
            assert!(self.fill() > 0, "the connection was closed before {wanted:?}");
        }
    }

    /// What comes first; nothing when the server has closed or ended TLS with an alert.
    pub fn try_read(&mut self) -> Vec<u8> {
        let mut chunk = vec![0; READ_CHUNK];
        let length = self.stream.read(&mut chunk).unwrap_or(0);
        chunk.truncate(length);
        chunk
    }

    /// Everything until the server closes.
    pub fn read_to_end(&mut self) -> Vec<u8> {
        while self.fill() > 0 {}
        std::mem::take(&mut self.buffer)
    }

    /// Says that no more bytes will come.
    pub fn finish_writing(&mut self) {
        self.stream.socket().shutdown(Shutdown::Write).unwrap();
    }

    /// Closes the connection with a reset, as programs do that end in the middle of something.
    pub fn reset(self) {
        socket2::SockRef::from(&self.socket()).set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// How long one read may take before it counts as a failure.
    pub fn patience(&mut self, span: Duration) {
        self.stream.socket().set_read_timeout(Some(span)).unwrap();
    }

    /// A second handle of the socket, for reading while another thread writes.
    pub fn socket(&self) -> TcpStream {
        self.stream.socket().try_clone().unwrap()
    }

    /// Reads more; 0 when the server has closed. A reset is an end too: a server that refuses a body that
    /// it has not read cannot end in another way.
    fn fill(&mut self) -> usize {
        let mut chunk = vec![0; READ_CHUNK];
        match self.stream.read(&mut chunk) {
            Ok(n) => {
                self.buffer.extend_from_slice(&chunk[..n]);
                n
            }
            Err(error) => match error.kind() {
                io::ErrorKind::ConnectionReset
                | io::ErrorKind::UnexpectedEof
                | io::ErrorKind::BrokenPipe
                | io::ErrorKind::ConnectionAborted => 0,
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                    panic!("no answer in time; so far: {:?}", String::from_utf8_lossy(&self.buffer))
                }
                _ => panic!("reading failed: {error}"),
            },
        }
    }
}

/// Sends bytes on a connection of their own and returns everything until the server closes.
pub fn exchange(to: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut client = Client::connect(to);
    // A server may refuse what it has read of a long message and close.
    let _ = client.try_write(bytes);
    client.read_to_end()
}

/// Takes bytes apart that are one whole answer.
pub fn parse_response(bytes: &[u8]) -> Response {
    let end =
        find(bytes, b"\r\n\r\n").unwrap_or_else(|| panic!("no answer: {:?}", String::from_utf8_lossy(bytes)));
    Response { head: parse_head(&bytes[..end]), body: bytes[end + 4..].to_vec() }
}

fn parse_head(bytes: &[u8]) -> Head {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.split("\r\n");
    let start = lines.next().unwrap_or_default();
    let mut words = start.splitn(3, ' ');
    let version = words.next().unwrap_or_default().to_owned();
    let status = words.next().and_then(|word| word.parse().ok());
    let status = status.unwrap_or_else(|| panic!("no status line: {start:?}"));
    let headers = lines.filter_map(|line| line.split_once(':'));
    let headers = headers.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect();
    Head { status, version, headers }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
