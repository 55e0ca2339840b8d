//! Measures what a timeline costs: processor time per record and memory for logs in combined format, plain or .gz.
//! `timeline_cost FILE...`; reading and parsing are not counted.

use std::error::Error;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use flate2::read::MultiGzDecoder;
use portcullis_detect::{BotStatus, Observation, Settings, Signatures, Timeline};
use portcullis_model::{ClientIp, Severity, UnixMs, VerdictKind};

/// Records that are parsed before they are judged, so that parsing can be left out of the time.
const BATCH: usize = 10_000;

fn main() -> Result<(), Box<dyn Error>> {
    let mut all = (0_u64, 0_u64);
    for file in std::env::args().skip(1) {
        let mut timeline = Timeline::new(&Settings::default(), Arc::new(Signatures::builtin()), None);
        let (mut records, mut took, mut flagged, mut scores) = (0_u64, 0_u64, 0_usize, 0_usize);
        let mut lines = open(Path::new(&file))?.split(b'\n');
        loop {
            let batch: Vec<Line> =
                lines.by_ref().take(BATCH).filter_map(|line| Line::parse(&line.ok()?)).collect();
            let is_last = batch.is_empty();
            let started = cpu_ns();
            batch.iter().for_each(|line| timeline.observe(&line.observation()));
            if is_last {
                timeline.finish();
            }
            took += cpu_ns() - started;
            records += batch.len() as u64;
            let findings = timeline.take_findings();
            flagged += findings.iter().filter(|finding| finding.severity >= Severity::Medium).count();
            scores += timeline.take_scores().len();
            if is_last {
                break;
            }
        }
        let per_record = took as f64 / records.max(1) as f64;
        println!(
            "{file}: {records} records in {:.2} s ({per_record:.0} ns each), {flagged} findings of medium and above, \
             {scores} scores",
            took as f64 / 1e9
        );
        all = (all.0 + records, all.1 + took);
    }
    println!(
        "all: {} records in {:.2} s; half a million in {:.2} s; {} MiB at most",
        all.0,
        all.1 as f64 / 1e9,
        all.1 as f64 / all.0.max(1) as f64 * 500_000.0 / 1e9,
        peak_kib() / 1_024
    );
    Ok(())
}

fn open(path: &Path) -> Result<BufReader<Box<dyn Read>>, Box<dyn Error>> {
    let file = File::open(path)?;
    let is_packed = path.extension().is_some_and(|extension| extension == "gz");
    let reader: Box<dyn Read> = if is_packed { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
    Ok(BufReader::new(reader))
}

struct Line {
    time: i64,
    client: ClientIp,
    status: u16,
    bytes: u64,
    /// Request line, referer, user agent.
    quoted: [String; 3],
}

impl Line {
    fn parse(line: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(line);
        let (client, rest) = text.split_once(' ')?;
        let (_, rest) = rest.split_once('[')?;
        let (stamp, rest) = rest.split_once("] \"")?;
        let mut parts = rest.split('"');
        let request = parts.next()?.to_owned();
        let mut numbers = parts.next()?.split_whitespace();
        let status = numbers.next()?.parse().ok()?;
        let bytes = numbers.next().and_then(|number| number.parse().ok()).unwrap_or(0);
        let mut text = |n| parts.nth(n).filter(|text| *text != "-").unwrap_or_default().to_owned();
        let (referer, agent) = (text(0), text(1));
        Some(Self {
            time: time_of(stamp)?,
            client: client.parse().ok()?,
            status,
            bytes,
            quoted: [request, referer, agent],
        })
    }

    fn observation(&self) -> Observation<'_> {
        let [request, referer, user_agent] = &self.quoted;
        let (method, rest) = request.split_once(' ').unwrap_or((request, ""));
        let target = rest.rsplit_once(" HTTP/").map_or(rest, |(target, _)| target);
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        Observation {
            time: UnixMs(self.time),
            client: self.client,
            status: self.status,
            verdict: if rest.is_empty() { VerdictKind::Malformed } else { VerdictKind::Admitted },
            bytes_out: self.bytes,
            method,
            host: "",
            path,
            query,
            user_agent,
            referer,
            user: "",
            login: None,
            bot: BotStatus::None,
        }
    }
}

/// `26/Jan/2024:19:00:02 +0000` as Unix milliseconds; the zone is taken for UTC.
fn time_of(stamp: &str) -> Option<i64> {
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let number = |range: std::ops::Range<usize>| stamp.get(range)?.parse::<i64>().ok();
    let (day, year) = (number(0..2)?, number(7..11)?);
    let month = MONTHS.find(stamp.get(3..6)?)? as i64 / 3 + 1;
    // Days from civil, with years that begin in March.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719_468;
    Some((days * 86_400 + number(12..14)? * 3_600 + number(15..17)? * 60 + number(18..20)?) * 1_000)
}

/// Time on a processor so far, where the system tells: other programs' work does not count.
fn cpu_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    text.split_whitespace().next().and_then(|ns| ns.parse().ok()).unwrap_or(0)
}

/// The most resident memory so far, where the system tells.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap_or(0)
}
