//! A service of locations that speaks the formats of ipapi.co and ipinfo.io, and misbehaves as it is told to.
//! It also gives away files. Must not know what the gateway makes of its answers.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Header lines of a request that are read at most.
const MAX_LINES: usize = 100;

/// How it answers questions about addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum GeoMood {
    /// In its own format: everybody is in Lisbon, Portugal.
    #[default]
    Lisbon,
    /// It knows no address.
    Unknown,
    /// Right, but only after so long.
    Slow(Duration),
    /// 429, with so many seconds in `Retry-After`.
    Limits(u64),
    /// 500.
    Fails,
    /// 200 with a page of HTML.
    Garbage,
    /// 200 with so many bytes.
    Huge(usize),
    /// 403, as for a wrong token.
    Refuses,
}

/// A question that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GeoQuestion {
    /// Path and query.
    pub target: String,
    pub authorization: Option<String>,
}

#[derive(Default)]
struct Shared {
    mood: Mutex<GeoMood>,
    seen: Mutex<Vec<GeoQuestion>>,
    files: Mutex<HashMap<String, Vec<u8>>>,
    is_over: AtomicBool,
}

/// The running service; ends when it is dropped.
pub struct GeoService {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl GeoService {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let state = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if state.is_over.load(Ordering::SeqCst) {
                    return;
                }
                let (stream, state) = (stream.unwrap(), Arc::clone(&state));
                // Whoever hangs up in the middle does so.
                std::thread::spawn(move || serve(stream, &state).ok());
            }
        });
        Self { address, shared, thread: Some(thread) }
    }

    /// `http://ADDRESS`
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How it answers from now on.
    pub fn set_mood(&self, mood: GeoMood) {
        *self.shared.mood.lock().unwrap_or_else(PoisonError::into_inner) = mood;
    }

    /// What is at `/files/NAME`.
    pub fn set_file(&self, name: &str, bytes: Vec<u8>) {
        let path = format!("/files/{name}");
        self.shared.files.lock().unwrap_or_else(PoisonError::into_inner).insert(path, bytes);
    }

    /// Everything that was asked, in order.
    pub fn seen(&self) -> Vec<GeoQuestion> {
        self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How often it was asked about an address.
    pub fn asked_about(&self, ip: &str) -> usize {
        let path = format!("/{ip}/json");
        self.seen().iter().filter(|question| question.target.starts_with(&path)).count()
    }
}

impl Drop for GeoService {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            // A panic of that thread was printed by the panic hook.
            let _ = thread.join();
        }
    }
}

fn serve(mut stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    let mut headers = HashMap::new();
    for line in lines.take(MAX_LINES) {
        let line = line?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let target = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let authorization = headers.remove("authorization");
    let question = GeoQuestion { target: target.clone(), authorization };
    shared.seen.lock().unwrap_or_else(PoisonError::into_inner).push(question);
    if target.starts_with("/files/") {
        let file = shared.files.lock().unwrap_or_else(PoisonError::into_inner).get(&target).cloned();
        return match file {
            Some(_) if headers.contains_key("if-modified-since") => answer(&mut stream, 304, "", b""),
            Some(bytes) => answer(&mut stream, 200, "", &bytes),
            None => answer(&mut stream, 404, "", b"<html>no such file</html>"),
        };
    }
    let ip = target.split('/').nth(1).unwrap_or_default();
    // ipapi.co ends its paths with a slash, ipinfo.io does not.
    let is_ipapi = target.contains("/json/");
    let mood = shared.mood.lock().unwrap_or_else(PoisonError::into_inner).clone();
    match mood {
        GeoMood::Lisbon => answer(&mut stream, 200, "", lisbon(is_ipapi, ip).as_bytes()),
        GeoMood::Slow(time) => {
            std::thread::sleep(time);
            answer(&mut stream, 200, "", lisbon(is_ipapi, ip).as_bytes())
        }
        GeoMood::Unknown => answer(&mut stream, 200, "", unknown(is_ipapi, ip).as_bytes()),
        GeoMood::Limits(seconds) => {
            let body = if is_ipapi {
                r#"{"error": true, "reason": "RateLimited", "message": "Visit https://ipapi.co/ratelimited/ for details"}"#
            } else {
                r#"{"status": 429, "error": {"title": "Rate limit exceeded", "message": "Upgrade to increase your usage limits"}}"#
            };
            answer(&mut stream, 429, &format!("Retry-After: {seconds}\r\n"), body.as_bytes())
        }
        GeoMood::Fails => answer(&mut stream, 500, "", b"<html>Internal Server Error</html>"),
        GeoMood::Garbage => answer(&mut stream, 200, "", b"<html>Welcome to the hotel's network</html>"),
        GeoMood::Huge(bytes) => answer(&mut stream, 200, "", &vec![b'['; bytes]),
        GeoMood::Refuses => {
            let body =
                br#"{"status": 403, "error": {"title": "Unknown token", "message": "Check your token"}}"#;
            answer(&mut stream, 403, "", body)
        }
    }
}

fn answer(stream: &mut TcpStream, status: u16, headers: &str, body: &[u8]) -> std::io::Result<()> {
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status} x\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{headers}Connection: close\r\n\r\n"
    )?;
    stream.write_all(body)
}

fn lisbon(is_ipapi: bool, ip: &str) -> String {
    if is_ipapi {
        format!(
            r#"{{"ip": "{ip}", "version": "IPv4", "city": "Lisbon", "region": "Lisboa", "region_code": "11",
            "country": "PT", "country_name": "Portugal", "country_code": "PT", "continent_code": "EU",
            "in_eu": true, "postal": "1000-001", "latitude": 38.7167, "longitude": -9.1333,
            "timezone": "Europe/Lisbon", "utc_offset": "+0000", "asn": "AS64500", "org": "Tejo Net"}}"#
        )
    } else {
        format!(
            r#"{{"ip": "{ip}", "hostname": "a.example", "city": "Lisbon", "region": "Lisboa", "country": "PT",
            "loc": "38.7167,-9.1333", "org": "AS64500 Tejo Net", "postal": "1000-001",
            "timezone": "Europe/Lisbon", "readme": "https://ipinfo.io/missingauth"}}"#
        )
    }
}

fn unknown(is_ipapi: bool, ip: &str) -> String {
    if is_ipapi {
        format!(
            r#"{{"ip": "{ip}", "error": true, "reason": "Reserved IP Address", "reserved": true, "version": "IPv4"}}"#
        )
    } else {
        format!(r#"{{"ip": "{ip}", "bogon": true}}"#)
    }
}
