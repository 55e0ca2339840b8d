//! Measures what the engine costs: nanoseconds of CPU per request for an ordinary mix, for one scan among it, and for
//! clients that come once each, and memory per client. `engine_cost [REQUESTS]`: 2,000,000 unless told.

use std::error::Error;
use std::net::Ipv4Addr;
use std::sync::Arc;

use portcullis_detect::{BotStatus, Engine, Observation, Settings, Signatures};
use portcullis_model::{ClientIp, UnixMs, VerdictKind};

const AGENTS: [&str; 2] = [
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36",
    "Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0",
];

/// One kind of traffic: who asks for what.
struct Mix {
    name: &'static str,
    /// Clients that are around at a time, of so many in all.
    visiting: u32,
    clients: u32,
    /// Of a hundred requests, those of one client that scans.
    scanning: u32,
}

fn main() -> Result<(), Box<dyn Error>> {
    let requests: u64 = std::env::args().nth(1).map_or(Ok(2_000_000), |n| n.parse())?;
    let mixes = [
        Mix { name: "200,000 clients in any order", visiting: 200_000, clients: 200_000, scanning: 0 },
        Mix { name: "ordinary, 500 clients around", visiting: 500, clients: 50_000, scanning: 0 },
        Mix { name: "half of it one scan", visiting: 500, clients: 50_000, scanning: 50 },
        Mix { name: "nothing but one scan", visiting: 1, clients: 1, scanning: 100 },
        Mix { name: "1,000,000 clients once each", visiting: 1, clients: 1_000_000, scanning: 0 },
    ];
    for (n, mix) in mixes.iter().enumerate() {
        // Later ones use memory again that earlier ones have given back.
        measure(mix, requests, n == 0);
    }
    Ok(())
}

fn measure(mix: &Mix, requests: u64, weighs: bool) {
    let mut rng = fastrand::Rng::with_seed(1);
    let pages: Vec<(String, String)> = (0..500)
        .map(|n| match n % 3 {
            0 => (format!("/assets/build/chunk-{n}.min.js"), String::new()),
            1 => (format!("/products/category-{}/item-{n}", n % 17), format!("page={n}&sort=price")),
            _ => (format!("/articles/2024/some-longer-title-of-an-article-{n}.html"), String::new()),
        })
        .collect();
    let scanned: Vec<String> = (0..5_000)
        .map(|n| match n % 5 {
            0 => format!("/old/.env.{n}"),
            1 => format!("/wp-content/plugins/plugin-{n}/readme.txt"),
            _ => format!("/admin-{n}/index.php"),
        })
        .collect();
    let signatures = Arc::new(Signatures::builtin());
    let before = resident_kib();
    let engine = Engine::new(&Settings::default(), signatures);
    let mut alarms = 0_u32;
    let started = cpu_ns();
    for n in 0..requests {
        let arrived = (n * u64::from(mix.clients.saturating_sub(mix.visiting)) / requests) as u32;
        let scans = rng.u32(..100) < mix.scanning;
        let client = if scans { 1 } else { 0x0A00_0000 + arrived + rng.u32(..mix.visiting) };
        let (path, query) = &pages[rng.usize(..pages.len())];
        let (path, query, status) = match scans {
            true => (scanned[n as usize % scanned.len()].as_str(), "", 404),
            false => (path.as_str(), query.as_str(), if rng.u32(..50) == 0 { 404 } else { 200 }),
        };
        let alarm = engine.observe(&Observation {
            time: UnixMs((n * 3_600_000 / requests) as i64),
            client: ClientIp::new(Ipv4Addr::from_bits(client).into()),
            status,
            verdict: VerdictKind::Admitted,
            bytes_out: 5_000,
            method: "GET",
            host: "example.com",
            path,
            query,
            user_agent: AGENTS[rng.usize(..AGENTS.len())],
            referer: if scans { "" } else { "https://example.com/" },
            user: "",
            login: None,
            bot: BotStatus::None,
        });
        alarms += u32::from(alarm.is_some());
    }
    let took = (cpu_ns() - started) as f64 / requests as f64;
    let grown = resident_kib().zip(before).map(|(after, before)| after.saturating_sub(before));
    let clients = engine.clients();
    print!("{:32} {took:5.0} ns per request, {alarms} alarms, {clients} clients", mix.name);
    match grown.filter(|_| weighs) {
        Some(kib) => println!(", {:.0} bytes per client", kib as f64 * 1_024.0 / clients as f64),
        None => println!(),
    }
}

/// Time on a processor so far, where the system tells: other programs' work does not count.
fn cpu_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    text.split_whitespace().next().and_then(|ns| ns.parse().ok()).unwrap_or(0)
}

/// Resident memory, where the system tells.
fn resident_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
