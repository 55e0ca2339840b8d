//! Measures how long the state database takes to store and load a large blocklist. Owns the list; must
//! not share code with the tests.
//!
//! `cargo run --release -p portcullis-store --example blocklist_cost [-- BLOCKS]`

use std::net::Ipv4Addr;
use std::time::Instant;

use ipnet::IpNet;
use portcullis_model::{BlockSource, ClientIp, UnixMs};
use portcullis_store::{NewBlock, Seq, State};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let blocks: u32 = std::env::args().nth(1).map_or(Ok(1_000_000), |text| text.parse())?;
    let folder = std::env::temp_dir().join(format!("portcullis-blocklist-cost-{}", std::process::id()));
    let mut state = State::open(&folder)?;
    let list = (0..blocks).map(|n| NewBlock {
        network: IpNet::from(std::net::IpAddr::from(Ipv4Addr::from_bits(0x0A00_0000 + n))),
        reason: "on a public list".to_owned(),
        source: BlockSource::Cli,
        created_at: UnixMs(1),
        expires_at: None,
        finding_id: None,
    });
    let mut start = Instant::now();
    let mut lap = |what: &str, count: usize| {
        println!("{what:<16} {count:>8} blocks {:>8.2} s", start.elapsed().as_secs_f64());
        start = Instant::now();
    };
    lap("add_blocks", state.add_blocks(list, "import")?);
    lap("active_blocks", state.active_blocks(UnixMs(2))?.len());
    lap("changes", state.changes(Seq::default())?.blocks.len());
    let client = ClientIp::new(Ipv4Addr::from_bits(0x0A00_0007).into());
    lap("covering", state.covering(client, UnixMs(2))?.len());
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}
