//! How fast logs are read on one core: half a million lines of each kind, made up in memory.
//! `cargo run --release -p portcullis-accesslog --example parse_rate [FILE]`; with FILE it only writes the combined log
//! there, gzip, for `portcullis replay`.

use std::error::Error;
use std::fmt::Write as _;
use std::io::{Cursor, Write as _};
use std::time::Instant;

use portcullis_accesslog::{Batch, Choice, Log};

const LINES: u64 = 500_000;
const AGENT: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0";

fn main() -> Result<(), Box<dyn Error>> {
    let combined = |n: u64| {
        format!(
            "192.0.{}.{} - - [17/Oct/2022:{:02}:{:02}:{:02} +0200] \"GET /shop/item/{n}?ref=list&page={} HTTP/1.1\" 200 {n} \
             \"https://shop.example/list\" \"{AGENT}\"",
            n / 250 % 250,
            n % 250,
            n / 36_000,
            n / 600 % 60,
            n / 10 % 60,
            n % 7
        )
    };
    let caddy = |n: u64| {
        format!(
            "{{\"level\":\"info\",\"ts\":1666016061.{:03},\"request\":{{\"client_ip\":\"192.0.2.{}\",\"method\":\"GET\",\
             \"host\":\"shop.example\",\"uri\":\"/shop/item/{n}\",\"headers\":{{\"User-Agent\":[\"{AGENT}\"]}}}},\
             \"size\":{n},\"status\":200}}",
            n % 1_000,
            n % 250
        )
    };
    let packed = || -> std::io::Result<Vec<u8>> {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        packed.write_all(text(combined).as_bytes())?;
        packed.finish()
    };
    if let Some(file) = std::env::args_os().nth(1) {
        return Ok(std::fs::write(file, packed()?)?);
    }
    measure("combined", text(combined).into_bytes())?;
    measure("combined, gzip", packed()?)?;
    measure("combined, zstd", zstd::encode_all(text(combined).as_bytes(), 3)?)?;
    measure("caddy", text(caddy).into_bytes())
}

fn text(line: impl Fn(u64) -> String) -> String {
    (0..LINES).fold(String::new(), |mut text, n| {
        // Writing to a text cannot fail.
        let _ = writeln!(text, "{}", line(n));
        text
    })
}

fn measure(name: &str, bytes: Vec<u8>) -> Result<(), Box<dyn Error>> {
    let started = Instant::now();
    let mut log = Log::open(Box::new(Cursor::new(bytes)), Choice::Auto, None)?;
    let mut batch = Batch::default();
    while log.fill(&mut batch)? {
        batch.clear();
    }
    let seconds = started.elapsed().as_secs_f64();
    let records = log.counts().records;
    println!("{name:15} {records} lines in {seconds:.2} s, {:.0} per second", records as f64 / seconds);
    Ok(())
}
