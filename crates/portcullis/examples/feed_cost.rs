//! Measures how long a large feed takes to read and to put in force, the memory that it takes, and a look-up.
//! Owns the list; must not fetch anything.
//!
//! `cargo run --release -p portcullis --example feed_cost [-- NETWORKS]`

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use portcullis_lists::{Format, Limits, Screen, read};
use portcullis_policy::AddressRanges;

/// A step that is prime to 2^32 scatters addresses over all of IPv4.
const STEP: u32 = 2_654_435_761;
const LOOKUPS: u32 = 10_000_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let networks: u32 = std::env::args().nth(1).map_or(Ok(1_000_000), |text| text.parse())?;
    let mut text = String::new();
    for n in 0..networks {
        writeln!(text, "{}", Ipv4Addr::from_bits(n.wrapping_mul(STEP)))?;
    }
    let screen = Screen::new(std::iter::empty(), std::iter::empty(), std::iter::empty());
    let start = Instant::now();
    let limits = Limits { max_entries: networks as usize, max_bad: 0.0 };
    let mut all = Vec::new();
    read(Format::Plain, text.as_bytes(), limits, &mut |entry| {
        if screen.refuses(&entry.network).is_none() {
            all.push(entry.network);
        }
    })?;
    let parsed = start.elapsed();
    let kept = all.len();
    let set: AddressRanges = all.into_iter().collect();
    println!("networks     {networks:>12}, {kept} of them no private or reserved ones");
    println!("read         {:>12.3} s", parsed.as_secs_f64());
    println!("in force     {:>12.3} s after the first byte", start.elapsed().as_secs_f64());
    println!("memory       {:>12.2} MiB", set.memory() as f64 / f64::from(1 << 20));
    let start = Instant::now();
    let mut hits = 0_u32;
    for n in 0..LOOKUPS {
        hits += u32::from(set.contains(IpAddr::V4(n.wrapping_mul(2_246_822_519).into())));
    }
    println!("a look-up    {:>12.1} ns, {hits} hits", start.elapsed().as_nanos() as f64 / f64::from(LOOKUPS));
    Ok(())
}
