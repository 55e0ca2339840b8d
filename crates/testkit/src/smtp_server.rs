//! A mail server for tests: STARTTLS or TLS from the first byte, PLAIN and LOGIN, and the ways in which one fails.
//! Keeps what it was sent. Must not deliver anything.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::certificates::{Issued, server_config};

/// The longest line and the largest mail.
const MAX_LINE: usize = 8 << 10;
const MAX_MAIL: usize = 4 << 20;
const IDLE: Duration = Duration::from_secs(20);

/// How a server behaves.
#[derive(Clone, Debug, Default)]
pub struct SmtpOptions {
    /// With a certificate STARTTLS is offered, and nothing else is taken before it.
    pub certificate: Option<Issued>,
    /// TLS begins with the first byte.
    pub implicit_tls: bool,
    /// Who may send: user name and password.
    pub login: Option<(String, String)>,
    /// Only LOGIN is offered, not PLAIN.
    pub only_login: bool,
    /// The answer to every mail, such as `554 5.7.1 spam`; then it is not kept.
    pub refuse_mails: Option<String>,
    /// An address that is not known here any more.
    pub unknown_receiver: Option<String>,
}

/// A mail that the server took.
#[derive(Clone, Debug)]
pub struct Mail {
    pub from: String,
    pub to: Vec<String>,
    /// Head and body as they came, without the dots that SMTP adds.
    pub data: String,
    pub was_encrypted: bool,
    /// Who had logged in.
    pub user: Option<String>,
}

impl Mail {
    /// The value of a header, with its folded lines joined.
    pub fn header(&self, name: &str) -> Option<String> {
        let head = self.data.split("\r\n\r\n").next()?.replace("\r\n ", " ");
        let line = head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))?;
        Some(line.to_owned())
    }

    pub fn subject(&self) -> String {
        self.header("Subject").unwrap_or_default()
    }

    /// The part of a media type, decoded.
    pub fn part(&self, media_type: &str) -> String {
        let marker = format!("Content-Type: {media_type}");
        let (_, rest) =
            self.data.split_once(&marker).unwrap_or_else(|| panic!("no {media_type}: {}", self.data));
        let (head, body) = rest.split_once("\r\n\r\n").unwrap();
        let body = body.split("\r\n--").next().unwrap();
        let bytes = match head.to_ascii_lowercase() {
            head if head.contains("quoted-printable") => quoted_printable(body),
            head if head.contains("base64") => BASE64_STANDARD.decode(body.replace("\r\n", "")).unwrap(),
            _ => body.as_bytes().to_vec(),
        };
        String::from_utf8(bytes).unwrap().replace("\r\n", "\n")
    }

    pub fn text(&self) -> String {
        self.part("text/plain")
    }

    pub fn html(&self) -> String {
        self.part("text/html")
    }
}

fn quoted_printable(text: &str) -> Vec<u8> {
    let text = text.replace("=\r\n", "");
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == b'=' && at + 2 < bytes.len() {
            out.push(u8::from_str_radix(&text[at + 1..at + 3], 16).unwrap());
            at += 3;
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    out
}

#[derive(Debug, Default)]
struct Seen {
    mails: Vec<Mail>,
    connections: usize,
    wrong_logins: usize,
}

/// A server that listens until it is stopped or dropped.
pub struct SmtpServer {
    address: SocketAddr,
    options: Arc<Mutex<SmtpOptions>>,
    seen: Arc<Mutex<Seen>>,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl SmtpServer {
    /// On a free port of 127.0.0.1.
    pub fn start(options: SmtpOptions) -> Self {
        let options = Arc::new(Mutex::new(options));
        let mut server = Self {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            options,
            seen: Arc::default(),
            end: Arc::default(),
            thread: None,
        };
        server.listen();
        server
    }

    /// Listens again, at the same address as before.
    pub fn listen(&mut self) {
        let listener = TcpListener::bind(self.address).unwrap();
        self.address = listener.local_addr().unwrap();
        self.end = Arc::default();
        let (options, seen, end) = (Arc::clone(&self.options), Arc::clone(&self.seen), Arc::clone(&self.end));
        self.thread = Some(thread::spawn(move || accept(&listener, &options, &seen, &end)));
    }

    /// From now on connections are refused.
    pub fn stop(&mut self) {
        self.end.store(true, Ordering::SeqCst);
        // Wakes it up.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Behaves differently for connections from now on.
    pub fn change(&self, change: impl FnOnce(&mut SmtpOptions)) {
        change(&mut self.options.lock().unwrap());
    }

    /// All mails that it took, the oldest first.
    pub fn mails(&self) -> Vec<Mail> {
        self.seen.lock().unwrap().mails.clone()
    }

    pub fn connections(&self) -> usize {
        self.seen.lock().unwrap().connections
    }

    /// Logins with a wrong name or password.
    pub fn wrong_logins(&self) -> usize {
        self.seen.lock().unwrap().wrong_logins
    }
}

impl Drop for SmtpServer {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.stop();
        }
    }
}

fn accept(listener: &TcpListener, options: &Mutex<SmtpOptions>, seen: &Arc<Mutex<Seen>>, end: &AtomicBool) {
    for stream in listener.incoming() {
        if end.load(Ordering::SeqCst) {
            return;
        }
        let Ok(stream) = stream else { continue };
        seen.lock().unwrap().connections += 1;
        let (options, seen) = (options.lock().unwrap().clone(), Arc::clone(seen));
        thread::spawn(move || {
            stream.set_read_timeout(Some(IDLE)).unwrap();
            // A client that goes away, or does not like the certificate, ends its session.
            let _ = Session::new(stream, options, seen).and_then(|mut session| session.run());
        });
    }
}

enum Wire {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ServerConnection, TcpStream>>),
    /// Only while one becomes the other.
    Gone,
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
            Self::Gone => Ok(0),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
            Self::Gone => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
            Self::Gone => Ok(()),
        }
    }
}

struct Session {
    wire: Wire,
    options: SmtpOptions,
    tls: Option<Arc<ServerConfig>>,
    seen: Arc<Mutex<Seen>>,
    user: Option<String>,
    from: String,
    to: Vec<String>,
}

impl Session {
    fn new(stream: TcpStream, options: SmtpOptions, seen: Arc<Mutex<Seen>>) -> io::Result<Self> {
        let tls = options.certificate.as_ref().map(server_config);
        let mut session = Self {
            wire: Wire::Plain(stream),
            options,
            tls,
            seen,
            user: None,
            from: String::new(),
            to: Vec::new(),
        };
        if session.options.implicit_tls {
            session.encrypt()?;
        }
        Ok(session)
    }

    fn encrypt(&mut self) -> io::Result<()> {
        let config = self.tls.clone().ok_or(io::ErrorKind::InvalidInput)?;
        let Wire::Plain(stream) = std::mem::replace(&mut self.wire, Wire::Gone) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let connection = ServerConnection::new(config).map_err(io::Error::other)?;
        self.wire = Wire::Tls(Box::new(StreamOwned::new(connection, stream)));
        Ok(())
    }

    fn is_encrypted(&self) -> bool {
        matches!(self.wire, Wire::Tls(_))
    }

    fn say(&mut self, line: &str) -> io::Result<()> {
        self.wire.write_all(format!("{line}\r\n").as_bytes())?;
        self.wire.flush()
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        let mut byte = [0];
        while !line.ends_with(b"\r\n") {
            if line.len() > MAX_LINE || self.wire.read(&mut byte)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            line.push(byte[0]);
        }
        line.truncate(line.len() - 2);
        String::from_utf8(line).map_err(io::Error::other)
    }

    fn run(&mut self) -> io::Result<()> {
        self.say("220 mail.test ESMTP")?;
        loop {
            let line = self.line()?;
            let upper = line.to_ascii_uppercase();
            let must_encrypt = self.tls.is_some() && !self.is_encrypted();
            let must_log_in = self.options.login.is_some() && self.user.is_none();
            match upper.split([' ', ':']).next().unwrap_or_default() {
                "EHLO" | "HELO" => self.greet()?,
                "STARTTLS" if must_encrypt => {
                    self.say("220 go ahead")?;
                    self.encrypt()?;
                }
                "QUIT" => return self.say("221 bye"),
                _ if must_encrypt => self.say("530 5.7.0 Must issue a STARTTLS command first")?,
                "AUTH" => self.log_in(&line)?,
                _ if must_log_in => self.say("530 5.7.0 Authentication required")?,
                "MAIL" => {
                    self.from = line;
                    self.to.clear();
                    self.say("250 ok")?;
                }
                "RCPT" if self.options.unknown_receiver.as_ref().is_some_and(|gone| line.contains(gone)) => {
                    self.say("550 5.1.1 no such user here")?;
                }
                "RCPT" => {
                    self.to.push(line);
                    self.say("250 ok")?;
                }
                "DATA" => self.take_mail()?,
                "NOOP" | "RSET" => self.say("250 ok")?,
                _ => self.say("502 not known")?,
            }
        }
    }

    fn greet(&mut self) -> io::Result<()> {
        self.say("250-mail.test")?;
        if self.tls.is_some() && !self.is_encrypted() {
            self.say("250-STARTTLS")?;
        }
        if self.options.login.is_some() {
            let line = if self.options.only_login { "250-AUTH LOGIN" } else { "250-AUTH PLAIN LOGIN" };
            self.say(line)?;
        }
        self.say("250 8BITMIME")
    }

    fn log_in(&mut self, line: &str) -> io::Result<()> {
        let mut words = line.split(' ').skip(1);
        let decoded = |text: &str| {
            let bytes = BASE64_STANDARD.decode(text).map_err(io::Error::other)?;
            String::from_utf8(bytes).map_err(io::Error::other)
        };
        let given = match words.next() {
            Some("PLAIN") => {
                let text = decoded(words.next().unwrap_or_default())?;
                let mut parts = text.split('\0').skip(1);
                (parts.next().unwrap_or_default().to_owned(), parts.next().unwrap_or_default().to_owned())
            }
            Some("LOGIN") => {
                self.say(&format!("334 {}", BASE64_STANDARD.encode("Username:")))?;
                let user = decoded(&self.line()?)?;
                self.say(&format!("334 {}", BASE64_STANDARD.encode("Password:")))?;
                (user, decoded(&self.line()?)?)
            }
            _ => return self.say("504 5.5.4 not known"),
        };
        if self.options.login.as_ref() == Some(&given) {
            self.user = Some(given.0);
            return self.say("235 2.7.0 welcome");
        }
        self.seen.lock().unwrap().wrong_logins += 1;
        self.say("535 5.7.8 Authentication credentials invalid")
    }

    fn take_mail(&mut self) -> io::Result<()> {
        self.say("354 go ahead")?;
        let mut data = String::new();
        loop {
            let line = self.line()?;
            if line == "." {
                break;
            }
            if data.len() > MAX_MAIL {
                return Err(io::ErrorKind::InvalidData.into());
            }
            data += line.strip_prefix('.').unwrap_or(&line);
            data += "\r\n";
        }
        if let Some(answer) = self.options.refuse_mails.clone() {
            return self.say(&answer);
        }
        let address = |line: &String| {
            let address = line.split(['<', '>']).nth(1).unwrap_or_default();
            address.to_owned()
        };
        let mail = Mail {
            from: address(&self.from),
            to: self.to.iter().map(address).collect(),
            data,
            was_encrypted: self.is_encrypted(),
            user: self.user.clone(),
        };
        self.seen.lock().unwrap().mails.push(mail);
        self.say("250 2.0.0 taken")
    }
}
