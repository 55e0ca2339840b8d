//! What writing down the counts of limits costs at a constant load: the share of a core of the thread that writes,
//! bytes per second, and how long requests are counted meanwhile.
//!
//! cargo run --release -p portcullis-policy --example journal_cost

#![allow(clippy::unwrap_used, reason = "a program for people who measure")]

use std::fs::File;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use portcullis_policy::{Extent, LimitRule, Limiter, Rate, Subject};
use rustix::time::{ClockId, clock_gettime};

/// As the gateway does it.
const INTERVAL: Duration = Duration::from_millis(800);
const SECONDS: u64 = 10;
/// Requests come in bursts of this length, so that the load does not need a clock for each.
const BURST: Duration = Duration::from_millis(5);

struct Load {
    name: &'static str,
    per_second: u64,
    /// Different clients; `None` is a new one each time.
    clients: Option<u32>,
}

fn main() {
    let loads = [
        Load { name: "an ordinary site", per_second: 2_000, clients: Some(2_000) },
        Load { name: "a busy site", per_second: 20_000, clients: Some(100_000) },
        Load { name: "few busy clients", per_second: 20_000, clients: Some(100) },
        Load { name: "a flood of addresses", per_second: 20_000, clients: None },
    ];
    println!("{SECONDS} s each, two limits per request (1200/1m and 10/5m of each client)");
    for load in loads {
        for is_written in [false, true] {
            println!("{}", measure(&load, is_written));
        }
    }
}

fn measure(load: &Load, is_written: bool) -> String {
    let limiter = Limiter::default();
    let start = Instant::now();
    let is_over = AtomicBool::new(false);
    let (mut admissions, written) = std::thread::scope(|scope| {
        let writer = is_written.then(|| scope.spawn(|| write(&limiter, start, &is_over)));
        let admissions = requests(load, &limiter, start);
        is_over.store(true, Ordering::Relaxed);
        (admissions, writer.map(|writer| writer.join().unwrap()))
    });
    admissions.sort_unstable();
    let at = |share: f64| admissions[((admissions.len() - 1) as f64 * share) as usize];
    let counting =
        format!("counting p50 {} ns, p99.9 {} ns, p99.999 {} ns", at(0.5), at(0.999), at(0.999_99));
    let cost = written.map_or("not written".to_owned(), |(cpu, bytes)| {
        let elapsed = start.elapsed().as_secs_f64();
        format!("{:.3} % of a core, {:.0} KB/s", cpu / elapsed * 100.0, bytes as f64 / elapsed / 1e3)
    });
    format!("{:22} {:6}/s: {cost}; {counting}", load.name, load.per_second)
}

/// Nanoseconds of each request.
fn requests(load: &Load, limiter: &Limiter, start: Instant) -> Vec<u64> {
    let rules = [rule("everything", 1_200, 60), rule("login", 10, 300)];
    let mut took = Vec::with_capacity((load.per_second * SECONDS) as usize);
    let mut random: u64 = 1;
    let per_burst = load.per_second * BURST.as_millis() as u64 / 1_000;
    for burst in 0..SECONDS * 1_000 / BURST.as_millis() as u64 {
        std::thread::sleep((start + BURST * burst as u32).saturating_duration_since(Instant::now()));
        for n in 0..per_burst {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let client = match load.clients {
                Some(clients) => (random >> 33) as u32 % clients,
                None => (burst * per_burst + n) as u32,
            };
            let began = Instant::now();
            let now_ms = began.duration_since(start).as_millis() as u64;
            let subject = Subject::Client(IpAddr::V4(Ipv4Addr::from_bits(client)));
            for rule in &rules {
                limiter.admit(rule, &subject, now_ms);
            }
            took.push(began.elapsed().as_nanos() as u64);
        }
    }
    took
}

/// Seconds of CPU, and bytes.
fn write(limiter: &Limiter, start: Instant, is_over: &AtomicBool) -> (f64, u64) {
    let mut file: File = tempfile::tempfile().unwrap();
    let (mut bytes, mut buffer) = (0, Vec::new());
    while !is_over.load(Ordering::Relaxed) {
        std::thread::sleep(INTERVAL);
        let now_ms = start.elapsed().as_millis() as u64;
        limiter.write_down(Extent::Changed, now_ms, &mut |numbers| {
            buffer.clear();
            buffer.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
            bytes += buffer.len() as u64;
            file.write_all(&buffer).is_ok()
        });
    }
    let cpu = clock_gettime(ClockId::ThreadCPUTime);
    (cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9, bytes)
}

fn rule(name: &str, count: u32, seconds: u64) -> LimitRule {
    LimitRule::per_client(name, Rate::new(count, Duration::from_secs(seconds)).unwrap())
}
