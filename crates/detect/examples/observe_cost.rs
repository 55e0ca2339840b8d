//! Measures what a window costs: time per observed request and per judged client, and memory per client.
//! `observe_cost [REQUESTS] [CLIENTS] [VISITING]`: 2,000,000 requests of 50,000 clients unless told, of whom 500
//! visit at any time. With VISITING equal to CLIENTS nothing is ever in the processor's cache: the worst case.

use std::error::Error;
use std::net::Ipv4Addr;
use std::time::Instant;

use portcullis_detect::{BotStatus, Observation, Settings, Window};
use portcullis_model::{ClientIp, UnixMs, VerdictKind};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let requests: u64 = arguments.next().map_or(Ok(2_000_000), |n| n.parse())?;
    let clients: u32 = arguments.next().map_or(Ok(50_000), |n| n.parse())?;
    let visiting: u32 = arguments.next().map_or(Ok(500), |n| n.parse())?;
    let mut rng = fastrand::Rng::with_seed(1);
    let targets: Vec<(String, String)> = (0..500)
        .map(|n| match n % 3 {
            0 => (format!("/assets/build/chunk-{n}.min.js"), String::new()),
            1 => (format!("/products/category-{}/item-{n}", n % 17), format!("page={n}&sort=price")),
            _ => (format!("/articles/2024/some-longer-title-of-an-article-{n}.html"), String::new()),
        })
        .collect();
    let agents = [
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36",
        "Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0",
    ];
    let before = resident_kib();
    let started = Instant::now();
    let mut window = Window::new(&Settings::default(), UnixMs(0), UnixMs(3_600_000));
    let made = started.elapsed();
    let started = Instant::now();
    for n in 0..requests {
        let arrived = (n * u64::from(clients.saturating_sub(visiting)) / requests) as u32;
        let client = 0x0A00_0000 + arrived + rng.u32(..visiting);
        let (path, query) = &targets[rng.usize(..targets.len())];
        window.observe(&Observation {
            time: UnixMs((n * 3_600_000 / requests) as i64),
            client: ClientIp::new(Ipv4Addr::from_bits(client).into()),
            status: if rng.u32(..50) == 0 { 404 } else { 200 },
            verdict: VerdictKind::Admitted,
            bytes_out: 5_000,
            method: "GET",
            host: "example.com",
            path,
            query,
            user_agent: agents[rng.usize(..agents.len())],
            referer: "https://example.com/",
            user: "",
            login: None,
            bot: BotStatus::None,
        });
    }
    let observed = started.elapsed();
    let grown = resident_kib().zip(before).map(|(after, before)| after.saturating_sub(before));
    let started = Instant::now();
    let report = window.finish(None, UnixMs(3_600_000));
    let judged = started.elapsed();
    println!("new: {:.2} ms", made.as_secs_f64() * 1e3);
    println!("observe: {:.0} ns per request", observed.as_nanos() as f64 / requests as f64);
    println!("finish: {:.2} us per client", judged.as_secs_f64() * 1e6 / report.clients as f64);
    if let Some(kib) = grown {
        println!(
            "memory: {:.0} bytes per client ({} clients)",
            kib as f64 * 1_024.0 / report.clients as f64,
            report.clients
        );
    }
    Ok(())
}

/// Resident memory, where the system tells.
fn resident_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
