//! Clients that send requests without a pause in between, or with one, and count exactly what becomes of each.
//!
//! Owns the counting: a connection that the server ends without having said so is a failure, as it is to a
//! program that does not try again. Must not try again itself.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::ops::AddAssign;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// A request that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// One kind of client.
#[derive(Clone, Copy, Debug)]
pub struct Visitors {
    /// How many there are, each with a thread and one connection at a time.
    pub count: usize,
    /// Whether a connection is used for more than one request.
    pub keep_alive: bool,
    /// Between an answer and the next request.
    pub pause: Duration,
}

/// What became of the requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Whole answers with 2xx.
    pub good: u64,
    /// Whole answers with another status.
    pub other: u64,
    /// Connections that were refused, one for each request that could not be sent.
    pub refused: u64,
    /// Connections that were reset.
    pub reset: u64,
    /// Connections that ended before the answer was complete.
    pub cut: u64,
    /// Neither answered nor ended in time.
    pub late: u64,
    /// Connections that were made.
    pub connections: u64,
    /// The longest time from a request to its answer, making the connection included.
    pub slowest: Duration,
}

impl Counts {
    /// Requests without a whole answer, and answers that are no success.
    pub fn failed(&self) -> u64 {
        self.other + self.refused + self.reset + self.cut + self.late
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, more: Self) {
        self.good += more.good;
        self.other += more.other;
        self.refused += more.refused;
        self.reset += more.reset;
        self.cut += more.cut;
        self.late += more.late;
        self.connections += more.connections;
        self.slowest = self.slowest.max(more.slowest);
    }
}

/// Clients at work. They go on until [`Load::stop`].
pub struct Load {
    is_ending: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Counts>>,
}

impl Load {
    /// Sends `GET /` to `to` from all of them.
    pub fn start(to: SocketAddr, visitors: &[Visitors]) -> Self {
        let (is_ending, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let all = visitors.iter().flat_map(|kind| std::iter::repeat_n(*kind, kind.count));
        let threads = all
            .map(|kind| {
                let (is_ending, answered) = (Arc::clone(&is_ending), Arc::clone(&answered));
                thread::spawn(move || visit(to, kind, &is_ending, &answered))
            })
            .collect();
        Self { is_ending, answered, threads }
    }

    /// Answers so far.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Lets each client finish its request; returns the sum.
    pub fn stop(self) -> Counts {
        self.is_ending.store(true, Ordering::Relaxed);
        let mut sum = Counts::default();
        for thread in self.threads {
            sum += thread.join().expect("a client panicked");
        }
        sum
    }
}

fn visit(to: SocketAddr, kind: Visitors, is_ending: &AtomicBool, answered: &AtomicU64) -> Counts {
    let mut counts = Counts::default();
    let mut kept: Option<TcpStream> = None;
    while !is_ending.load(Ordering::Relaxed) {
        let began = Instant::now();
        let result = match kept.take() {
            Some(stream) => Ok(stream),
            None => connect(to).inspect(|_| counts.connections += 1),
        };
        match result.and_then(|mut stream| Ok((ask(&mut stream, kind.keep_alive)?, stream))) {
            Ok((answer, stream)) => {
                answered.fetch_add(1, Ordering::Relaxed);
                match answer.status {
                    200..=299 => counts.good += 1,
                    _ => counts.other += 1,
                }
                kept = (kind.keep_alive && !answer.is_last).then_some(stream);
            }
            Err(error) => match error.kind() {
                ErrorKind::ConnectionRefused => counts.refused += 1,
                ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted => {
                    counts.reset += 1;
                }
                ErrorKind::WouldBlock | ErrorKind::TimedOut => counts.late += 1,
                _ => counts.cut += 1,
            },
        }
        counts.slowest = counts.slowest.max(began.elapsed());
        thread::sleep(kind.pause);
    }
    counts
}

fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

struct Answer {
    status: u16,
    /// Whether the server said that it is the connection's last.
    is_last: bool,
}

fn ask(stream: &mut TcpStream, keep_alive: bool) -> io::Result<Answer> {
    let connection = if keep_alive { "" } else { "Connection: close\r\n" };
    stream.write_all(format!("GET / HTTP/1.1\r\nHost: load.example\r\n{connection}\r\n").as_bytes())?;
    let mut bytes = Vec::with_capacity(1_024);
    let mut part = [0; 4_096];
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
            let value = |name: &str| {
                let lines = head.lines().filter_map(|line| line.split_once(':'));
                lines.filter(|(n, _)| *n == name).map(|(_, value)| value.trim().to_owned()).next()
            };
            let invalid = || io::Error::from(ErrorKind::InvalidData);
            let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(invalid)?;
            // The upstream of these tests always says how long its answers are.
            let length: usize = value("content-length").and_then(|n| n.parse().ok()).ok_or_else(invalid)?;
            if bytes.len() >= end + 4 + length {
                return Ok(Answer { status, is_last: value("connection").as_deref() == Some("close") });
            }
        }
        match stream.read(&mut part)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            n => bytes.extend_from_slice(&part[..n]),
        }
    }
}
