//! A DNS server over UDP for the tests: names of addresses, addresses of names, silence. It understands queries as
//! resolvers send them (one question), and nothing else.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

const A: u16 = 1;
const PTR: u16 = 12;
const AAAA: u16 = 28;

/// A server that runs until it is dropped. What it does not know does not exist.
#[derive(Debug)]
pub struct Dns {
    address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    asked: Arc<AtomicUsize>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Zone {
    /// The data of records, by name in lower case and type.
    records: HashMap<(String, u16), Vec<Vec<u8>>>,
    is_silent: bool,
}

impl Dns {
    pub fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let (zone, asked, is_over) = (Arc::default(), Arc::default(), Arc::default());
        let address = socket.local_addr().unwrap();
        let served = (Arc::clone(&zone), Arc::clone(&asked), Arc::clone(&is_over));
        let thread = std::thread::spawn(move || serve(&socket, &served.0, &served.1, &served.2));
        Self { address, zone, asked, is_over, thread: Some(thread) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Gives an address a name; dots part its labels, which may hold any other bytes.
    pub fn name(&self, address: &str, name: &str) -> &Self {
        let address: IpAddr = address.parse().unwrap();
        self.add((reverse_name(address), PTR), labels(name))
    }

    /// Gives a name an address.
    pub fn host(&self, name: &str, address: &str) -> &Self {
        let (kind, data) = match address.parse::<IpAddr>().unwrap() {
            IpAddr::V4(address) => (A, address.octets().to_vec()),
            IpAddr::V6(address) => (AAAA, address.octets().to_vec()),
        };
        self.add((name.to_ascii_lowercase(), kind), data)
    }

    /// From now on it answers nobody, or everybody again.
    pub fn be_silent(&self, is: bool) -> &Self {
        self.zone.lock().unwrap().is_silent = is;
        self
    }

    /// Questions that have come.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn add(&self, key: (String, u16), data: Vec<u8>) -> &Self {
        self.zone.lock().unwrap().records.entry(key).or_default().push(data);
        self
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(socket: &UdpSocket, zone: &Mutex<Zone>, asked: &AtomicUsize, is_over: &AtomicBool) {
    let mut buffer = [0; 4_096];
    while !is_over.load(Ordering::SeqCst) {
        let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
        asked.fetch_add(1, Ordering::SeqCst);
        let zone = zone.lock().unwrap();
        if let Some(answer) = answer(&buffer[..length], &zone).filter(|_| !zone.is_silent) {
            let _ = socket.send_to(&answer, from);
        }
    }
}

/// The header, the question as it came, and the records (RFC 1035, section 4).
fn answer(query: &[u8], zone: &Zone) -> Option<Vec<u8>> {
    let mut at = 12;
    let mut name = Vec::new();
    loop {
        let length = usize::from(*query.get(at)?);
        let label = query.get(at + 1..at + 1 + length)?;
        at += 1 + length;
        if length == 0 {
            break;
        }
        name.push(String::from_utf8_lossy(label).to_ascii_lowercase());
    }
    let kind = u16::from_be_bytes([*query.get(at)?, *query.get(at + 1)?]);
    let question = query.get(12..at + 4)?;
    let name = name.join(".");
    let found = zone.records.get(&(name.clone(), kind));
    let exists = zone.records.keys().any(|(known, _)| *known == name);
    let code = if exists { 0 } else { 3 };
    let records = found.map_or(&[][..], Vec::as_slice);
    let mut out = query.get(..2)?.to_vec();
    // A response, recursion desired and available.
    out.extend([0x81, 0x80 | code, 0, 1]);
    out.extend(u16::try_from(records.len()).ok()?.to_be_bytes());
    out.extend([0, 0, 0, 0]);
    out.extend(question);
    for data in records {
        // The name is the question's, at byte 12; class IN, a minute to live.
        out.extend([0xc0, 12]);
        out.extend(kind.to_be_bytes());
        out.extend([0, 1, 0, 0, 0, 60]);
        out.extend(u16::try_from(data.len()).ok()?.to_be_bytes());
        out.extend(data);
    }
    Some(out)
}

fn labels(name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for label in name.split('.') {
        out.push(u8::try_from(label.len()).unwrap());
        out.extend(label.bytes());
    }
    out.push(0);
    out
}

fn reverse_name(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(address) => {
            let nibbles = address.octets().into_iter().rev().flat_map(|byte| [byte & 15, byte >> 4]);
            let digits: Vec<String> = nibbles.map(|nibble| format!("{nibble:x}")).collect();
            format!("{}.ip6.arpa", digits.join("."))
        }
    }
}
