//! Prints what a look-up costs with the MMDB files given as arguments:
//! `cargo run --release -p portcullis-geo --example lookup_cost -- city.mmdb asn.mmdb`.
//!
//! Measures only; asserts nothing.

use std::env;
use std::error::Error;
use std::fs;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use portcullis_geo::{Geo, Settings};
use portcullis_model::ClientIp;

const ADDRESSES: u32 = 50_000;
const CACHED_ROUNDS: u32 = 20;

fn main() -> Result<(), Box<dyn Error>> {
    let databases: Vec<PathBuf> = env::args_os().skip(1).map(PathBuf::from).collect();
    let begun = Instant::now();
    let geo = Geo::open(&Settings { databases, ..Settings::default() })?;
    println!("open and verify   {:>9.1} ms", begun.elapsed().as_secs_f64() * 1e3);
    for database in geo.status() {
        println!("  {} {} nodes, {} bytes", database.kind.escape_debug(), database.nodes, database.bytes);
    }

    // Spread over the address space by a multiplier that visits each address once (Knuth's 2^32/φ).
    let clients: Vec<ClientIp> = (1..=ADDRESSES)
        .map(|n| ClientIp::new(IpAddr::V4(Ipv4Addr::from_bits(n.wrapping_mul(2_654_435_769)))))
        .collect();
    let before = resident_kib().unwrap_or_default();
    let uncached = time(&geo, &clients);
    let after = resident_kib().unwrap_or_default();
    let known = geo.stats().misses;
    time(&geo, &clients);
    let cached: Duration = (0..CACHED_ROUNDS).map(|_| time(&geo, &clients)).sum();
    println!("uncached look-up  {:>9.0} ns", nanoseconds(uncached, ADDRESSES));
    println!("cached look-up    {:>9.0} ns", nanoseconds(cached, ADDRESSES * CACHED_ROUNDS));
    println!("known             {:>9.1} %", 100.0 * known as f64 / f64::from(ADDRESSES));
    println!("cache entry       {:>9} bytes", after.saturating_sub(before) * 1_024 / u64::from(ADDRESSES));
    println!("resident memory   {after:>9} KiB");
    println!("8.8.8.8 is {:?}", geo.lookup(ClientIp::new(Ipv4Addr::new(8, 8, 8, 8).into())));
    Ok(())
}

fn time(geo: &Geo, clients: &[ClientIp]) -> Duration {
    let begun = Instant::now();
    for client in clients {
        black_box(geo.lookup(*client));
    }
    begun.elapsed()
}

fn nanoseconds(total: Duration, count: u32) -> f64 {
    total.as_secs_f64() * 1e9 / f64::from(count)
}

/// Linux only; elsewhere nothing.
fn resident_kib() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok())
}
