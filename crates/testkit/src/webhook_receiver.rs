//! What webhooks are posted to in tests: keeps each request, and answers as it is told to.
//! Must not follow HTTP further than one POST per connection needs.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// The largest body that is read.
const MAX_BODY: usize = 1 << 20;
const IDLE: Duration = Duration::from_secs(20);

/// A request that came.
#[derive(Clone, Debug)]
pub struct Posted {
    pub path: String,
    /// Names in lower case.
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Posted {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

#[derive(Default)]
struct Shared {
    posted: Vec<Posted>,
    /// Status lines and headers of the answers to come; then all is well.
    answers: VecDeque<String>,
}

/// A receiver that listens until it is dropped.
pub struct WebhookReceiver {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl WebhookReceiver {
    /// On a free port of 127.0.0.1. The first answers are these, such as `429 Busy\r\nRetry-After: 1`.
    pub fn start(answers: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let answers = answers.iter().map(|&answer| answer.to_owned()).collect();
        let shared = Arc::new(Mutex::new(Shared { posted: Vec::new(), answers }));
        let end = Arc::new(AtomicBool::new(false));
        let (state, is_over) = (Arc::clone(&shared), Arc::clone(&end));
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                if is_over.load(Ordering::SeqCst) {
                    return;
                }
                // A client that goes away is its own affair.
                let _ = stream.and_then(|stream| answer(stream, &state));
            }
        });
        Self { address, shared, end, thread: Some(thread) }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// What came so far, the oldest first.
    pub fn posted(&self) -> Vec<Posted> {
        self.shared.lock().unwrap().posted.clone()
    }
}

impl Drop for WebhookReceiver {
    fn drop(&mut self) {
        self.end.store(true, Ordering::SeqCst);
        // Wakes it up.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn answer(stream: TcpStream, shared: &Mutex<Shared>) -> std::io::Result<()> {
    stream.set_read_timeout(Some(IDLE))?;
    let mut reader = BufReader::new(&stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if line.trim_end().is_empty() {
            break;
        }
        lines.push(line.trim_end().to_owned());
    }
    let Some(first) = lines.first() else { return Ok(()) };
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let headers: Vec<(String, String)> = lines[1..]
        .iter()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length: usize = length.and_then(|(_, value)| value.parse().ok()).unwrap_or(0).min(MAX_BODY);
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let head = {
        let mut shared = shared.lock().unwrap();
        shared.posted.push(Posted { path, headers, body });
        shared.answers.pop_front().unwrap_or_else(|| "204 No Content".to_owned())
    };
    (&stream)
        .write_all(format!("HTTP/1.1 {head}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").as_bytes())
}
