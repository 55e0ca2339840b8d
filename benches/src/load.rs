//! The built-in load generator: HTTP/1.1 over kept connections, bounded by a count or a time.
//!
//! Owns its requests and the counting of their answers. Exact where wrk is not: it waits for the answer
//! of every request that it has sent.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The most connections of one load.
pub const MAX_CONNECTIONS: usize = 4_096;
/// The most requests of one load; each keeps four bytes for its latency.
pub const MAX_REQUESTS: u64 = 50_000_000;
/// How long one answer may take.
pub(crate) const ANSWER_TIME: Duration = Duration::from_secs(30);
const MAX_HEAD: usize = 64 << 10;
/// Different paths, each with a query.
pub const PATHS: u64 = 500;
pub const HOST: &str = "example.com";
pub const USER_AGENTS: [&str; 2] = [
    "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0 portcullis-bench-user-agent",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/150.0.0.0",
];

/// When a load ends.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    Requests(u64),
    Elapsed(Duration),
}

/// What is sent.
#[derive(Clone, Debug)]
pub struct Load {
    pub target: SocketAddr,
    pub connections: usize,
    /// Sent in X-Forwarded-For, one after another in random order.
    pub clients: Arc<[Ipv4Addr]>,
    pub until: Until,
    pub seed: u64,
}

/// What came back.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    /// Answers by class: `[1xx, 2xx, 3xx, 4xx, 5xx]`.
    pub by_class: [u64; 5],
    /// Requests without a complete answer.
    pub failed: u64,
    pub took: Duration,
    /// Of every answer, in microseconds, ascending.
    pub latencies_us: Vec<u32>,
}

impl Answers {
    /// Requests that were answered, whatever the answer.
    pub fn answered(&self) -> u64 {
        self.by_class.iter().sum()
    }

    /// Answers of 4xx and 5xx.
    pub fn refused(&self) -> u64 {
        self.by_class[3] + self.by_class[4]
    }

    /// The latency that `share` (0 to 1) of the answers did not exceed, by nearest rank.
    pub fn percentile(&self, share: f64) -> Duration {
        let rank = (self.latencies_us.len() as f64 * share).ceil() as usize;
        let micros = self.latencies_us.get(rank.saturating_sub(1)).copied().unwrap_or(0);
        Duration::from_micros(u64::from(micros))
    }

    fn add(&mut self, other: Self) {
        for (sum, more) in self.by_class.iter_mut().zip(other.by_class) {
            *sum += more;
        }
        self.failed += other.failed;
        self.latencies_us.extend(other.latencies_us);
    }
}

/// Sends the load from one thread and waits for all answers.
///
/// # Errors
/// When the load is out of bounds or no thread can be made.
pub fn run(load: &Load) -> io::Result<Answers> {
    let too_many_requests = matches!(load.until, Until::Requests(n) if n > MAX_REQUESTS);
    if load.connections == 0 || load.connections > MAX_CONNECTIONS || too_many_requests {
        let bounds = format!("at most {MAX_CONNECTIONS} connections and {MAX_REQUESTS} requests");
        return Err(io::Error::new(ErrorKind::InvalidInput, bounds));
    }
    if load.clients.is_empty() {
        return Err(io::Error::new(ErrorKind::InvalidInput, "a load needs a client address"));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let began = Instant::now();
        let deadline = match load.until {
            Until::Requests(_) => None,
            Until::Elapsed(span) => Some(began + span),
        };
        let left = Arc::new(AtomicU64::new(match load.until {
            Until::Requests(n) => n,
            Until::Elapsed(_) => MAX_REQUESTS,
        }));
        let connections: Vec<_> = (0..load.connections as u64)
            .map(|n| tokio::spawn(drive(load.clone(), load.seed + n, Arc::clone(&left), deadline)))
            .collect();
        let mut sum = Answers::default();
        for connection in connections {
            sum.add(connection.await.map_err(io::Error::other)?);
        }
        sum.took = began.elapsed();
        sum.latencies_us.sort_unstable();
        Ok(sum)
    })
}

/// One connection; a new one is made when the gateway closes it.
async fn drive(load: Load, seed: u64, left: Arc<AtomicU64>, deadline: Option<Instant>) -> Answers {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut answers = Answers::default();
    let mut connection = None;
    let take_one = |n: u64| n.checked_sub(1);
    while deadline.is_none_or(|at| Instant::now() < at)
        && left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take_one).is_ok()
    {
        let request = request(&mut rng, &load.clients);
        let began = Instant::now();
        match tokio::time::timeout(ANSWER_TIME, ask(&mut connection, load.target, &request)).await {
            Ok(Ok(status)) => {
                let class = usize::from(status / 100).clamp(1, 5) - 1;
                answers.by_class[class] += 1;
                answers.latencies_us.push(u32::try_from(began.elapsed().as_micros()).unwrap_or(u32::MAX));
            }
            Ok(Err(_)) | Err(_) => {
                answers.failed += 1;
                connection = None;
            }
        }
    }
    answers
}

fn request(rng: &mut fastrand::Rng, clients: &[Ipv4Addr]) -> String {
    let client = clients[rng.usize(..clients.len())];
    let path = rng.u64(..PATHS);
    let agent = USER_AGENTS[rng.usize(..USER_AGENTS.len())];
    format!(
        "GET /p/{path}?q={path} HTTP/1.1\r\nHost: {HOST}\r\nX-Forwarded-For: {client}\r\nUser-Agent: {agent}\r\n\r\n"
    )
}

pub(crate) struct Connection {
    socket: tokio::net::TcpStream,
    buffer: Vec<u8>,
}

/// Sends one request and reads its answer to the end. Returns the status.
pub(crate) async fn ask(
    connection: &mut Option<Connection>,
    target: SocketAddr,
    request: &str,
) -> io::Result<u16> {
    let mut open = match connection.take() {
        Some(open) => open,
        None => {
            let socket = tokio::net::TcpStream::connect(target).await?;
            socket.set_nodelay(true)?;
            Connection { socket, buffer: Vec::with_capacity(4_096) }
        }
    };
    open.socket.write_all(request.as_bytes()).await?;
    open.buffer.clear();
    let head = loop {
        if let Some(head) = Head::parse(&open.buffer)? {
            break head;
        }
        if open.buffer.len() > MAX_HEAD {
            return Err(io::Error::new(ErrorKind::InvalidData, "the answer's head is too large"));
        }
        fill(&mut open).await?;
    };
    while open.buffer.len() < head.end + head.body {
        fill(&mut open).await?;
    }
    if !head.closes {
        *connection = Some(open);
    }
    Ok(head.status)
}

async fn fill(open: &mut Connection) -> io::Result<()> {
    match open.socket.read_buf(&mut open.buffer).await? {
        0 => Err(ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

/// What must be known of an answer's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    /// Where the body begins.
    end: usize,
    body: usize,
    closes: bool,
}

impl Head {
    /// `None` while it is not complete.
    fn parse(bytes: &[u8]) -> io::Result<Option<Self>> {
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
        let bad = |what: &str| io::Error::new(ErrorKind::InvalidData, what.to_owned());
        let text = std::str::from_utf8(&bytes[..end]).map_err(|_| bad("the answer's head is no text"))?;
        let mut lines = text.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
        let status = status.ok_or_else(|| bad("the answer has no status"))?;
        let mut length = None;
        let mut closes = false;
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().ok();
            } else if name.eq_ignore_ascii_case("connection") {
                closes = value.trim().eq_ignore_ascii_case("close");
            }
        }
        let body =
            length.ok_or_else(|| bad("the load generator reads answers with a Content-Length only"))?;
        Ok(Some(Self { status, end: end + 4, body, closes }))
    }
}

/// Whether anything at `address` speaks HTTP now.
pub fn answers(address: SocketAddr) -> bool {
    let ask = || -> io::Result<bool> {
        let mut socket = TcpStream::connect_timeout(&address, Duration::from_millis(500))?;
        socket.set_read_timeout(Some(Duration::from_secs(2)))?;
        socket.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut start = [0; 5];
        socket.read_exact(&mut start)?;
        // Ended in order, or the gateway would log a client that went away.
        io::copy(&mut socket, &mut io::sink())?;
        Ok(&start == b"HTTP/")
    };
    ask().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::Upstream;

    #[test]
    fn a_counted_load_is_answered_to_the_last_request() {
        let upstream = Upstream::built_in().unwrap();
        let load = Load {
            target: upstream.address(),
            connections: 8,
            clients: crate::lists::clients(10).into(),
            until: Until::Requests(1_000),
            seed: 1,
        };
        let answers = run(&load).unwrap();
        assert_eq!((answers.answered(), answers.failed), (1_000, 0));
        assert_eq!(answers.by_class[1], 1_000);
        assert!(answers.percentile(0.5) <= answers.percentile(0.99));
    }

    #[test]
    fn a_load_without_bounds_is_refused() {
        let load = Load {
            target: ([127, 0, 0, 1], 9).into(),
            connections: MAX_CONNECTIONS + 1,
            clients: crate::lists::clients(1).into(),
            until: Until::Requests(1),
            seed: 1,
        };
        assert!(run(&load).is_err());
        assert!(run(&Load { connections: 1, until: Until::Requests(MAX_REQUESTS + 1), ..load }).is_err());
    }

    #[test]
    fn heads_are_read_whole_or_not_at_all() {
        assert_eq!(Head::parse(b"HTTP/1.1 200 OK\r\nContent-Le").unwrap(), None);
        let answer = b"HTTP/1.1 403 No\r\ncontent-length: 7\r\nConnection: Close\r\n\r\n1234567";
        let expected = Head { status: 403, end: answer.len() - 7, body: 7, closes: true };
        assert_eq!(Head::parse(answer).unwrap(), Some(expected));
        assert!(Head::parse(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }

    #[test]
    fn percentiles_are_nearest_ranks() {
        let answers = Answers { latencies_us: (1..=100).collect(), ..Answers::default() };
        assert_eq!(answers.percentile(0.5), Duration::from_micros(50));
        assert_eq!(answers.percentile(0.99), Duration::from_micros(99));
        assert_eq!(Answers::default().percentile(0.5), Duration::ZERO);
    }
}
