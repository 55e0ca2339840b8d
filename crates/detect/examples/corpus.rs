//! Measures the detector on labelled logs: `corpus FOLDER [human|bot|missed]`.
//! FOLDER holds NAME.log.gz (combined log format, UTC, sorted) and labels/NAME.csv (ip,label,why,requests,
//! requests_in_busiest_hour). The second argument lists the humans or bots that reach medium, or the attackers missed.

use std::collections::HashMap;
use std::error::Error;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flate2::read::MultiGzDecoder;
use portcullis_detect::{BotStatus, Features, ForestModel, Observation, Settings, Signatures, Window, train};
use portcullis_model::{ClientIp, Finding, Severity, UnixMs, VerdictKind};

const HOUR_MS: i64 = 3_600_000;
const TRAINING_MS: i64 = 7 * 24 * HOUR_MS;
const RETRAIN_MS: i64 = 24 * HOUR_MS;
/// Kinds of malice that are scored; the rest are scanners of the whole Internet and noise.
const ATTACKS: [&str; 11] =
    ["trav", "rce", "sqli", "xss", "sens", "pma", "php404", "wp", "dirscan", "brute", "probe"];

type Fallible<T> = Result<T, Box<dyn Error>>;

#[derive(Clone, Copy, PartialEq)]
enum Label {
    Attack { is_busy: bool },
    OtherMalice,
    Human,
    Bot,
    Unclear,
}

#[derive(Default)]
struct Site {
    labels: HashMap<ClientIp, Label>,
    worst: HashMap<ClientIp, Finding>,
    /// The highest forest score of each client, with the last model that could score it.
    scores: HashMap<ClientIp, f64>,
    requests: u64,
    seconds: f64,
}

#[derive(Default)]
struct Counts {
    attacks: [usize; 2],
    caught: [[usize; 3]; 2],
    malicious_flagged: [usize; 3],
    humans: usize,
    human_flags: [usize; 3],
    bots: usize,
    bot_flags: [usize; 3],
    auc: Option<f64>,
}

const LEVELS: [Severity; 3] = [Severity::Low, Severity::Medium, Severity::High];

fn main() -> Fallible<()> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("usage: corpus FOLDER [human|bot|missed]")?;
    let listed = arguments.next();
    let mut names: Vec<String> = fs::read_dir(&folder)?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_suffix(".log.gz").map(str::to_owned))
        .collect();
    names.sort();
    heading();
    let mut pooled = Counts::default();
    let (mut requests, mut seconds) = (0, 0.0);
    for name in names {
        let site = run(Path::new(&folder), &name)?;
        let counts = count(&site);
        line(&name, &counts);
        if let Some(which) = &listed {
            list(&site, which);
        }
        pooled.add(&counts);
        requests += site.requests;
        seconds += site.seconds;
    }
    line("pooled", &pooled);
    println!("{requests} requests observed and judged in {seconds:.2} s, reading not counted");
    Ok(())
}

fn run(folder: &Path, name: &str) -> Fallible<Site> {
    let mut site = Site { labels: labels(&folder.join(format!("labels/{name}.csv")))?, ..Site::default() };
    let log = BufReader::new(MultiGzDecoder::new(File::open(folder.join(format!("{name}.log.gz")))?));
    let settings = Settings::default();
    let signatures = match std::env::var("CORPUS_SIGNATURES") {
        Ok(file) => Arc::new(Signatures::parse(&fs::read_to_string(file)?)?),
        Err(_) => Arc::new(Signatures::builtin()),
    };
    let mut rows: Vec<(i64, Features)> = Vec::new();
    let mut model: Option<ForestModel> = None;
    let mut trained_at = i64::MIN;
    let mut hour: Vec<Line> = Vec::new();
    let mut judge = |hour: &[Line], site: &mut Site| {
        let Some(first) = hour.first() else { return };
        let from = first.time.div_euclid(HOUR_MS) * HOUR_MS;
        let started = Instant::now();
        if from.saturating_sub(trained_at) >= RETRAIN_MS {
            rows.retain(|(at, _)| *at >= from - TRAINING_MS);
            let recent: Vec<Features> = rows.iter().map(|(_, row)| *row).collect();
            if let Ok(fresh) = train(&recent) {
                model = Some(fresh);
                trained_at = from;
            }
        }
        let (start, end) = (UnixMs(from), UnixMs(from + HOUR_MS));
        let mut window = Window::with_signatures(&settings, start, end, Arc::clone(&signatures));
        for line in hour {
            window.observe(&line.observation());
        }
        if let Some(model) = &model {
            for (client, row) in window.rows() {
                let score = model.score(&row).unwrap_or(0.0);
                let best = site.scores.entry(client).or_default();
                *best = best.max(score);
            }
        }
        let report = window.finish(model.as_ref(), UnixMs(from + HOUR_MS));
        site.seconds += started.elapsed().as_secs_f64();
        site.requests += report.requests;
        rows.extend(report.presumed_good.into_iter().map(|row| (from, row)));
        for finding in report.findings {
            match site.worst.get(&finding.client) {
                Some(known) if known.severity >= finding.severity => {}
                _ => {
                    site.worst.insert(finding.client, finding);
                }
            }
        }
    };
    for raw in log.split(b'\n') {
        let Some(line) = Line::parse(&String::from_utf8_lossy(&raw?)) else { continue };
        if hour.first().is_some_and(|f| f.time.div_euclid(HOUR_MS) != line.time.div_euclid(HOUR_MS)) {
            judge(&hour, &mut site);
            hour.clear();
        }
        hour.push(line);
    }
    judge(&hour, &mut site);
    Ok(site)
}

fn labels(path: &Path) -> Fallible<HashMap<ClientIp, Label>> {
    let mut all = HashMap::new();
    for row in fs::read_to_string(path)?.lines().skip(1) {
        let fields: Vec<&str> = row.split(',').collect();
        let [ip, label, why, .., busiest] = fields[..] else { continue };
        let Ok(client) = ip.parse() else { continue };
        let is_busy = busiest.trim().parse::<u32>().is_ok_and(|n| n >= 5);
        let label = match label {
            "malicious" if why.split('+').any(|w| ATTACKS.contains(&w)) => Label::Attack { is_busy },
            "malicious" => Label::OtherMalice,
            "benign_human" => Label::Human,
            "benign_bot" => Label::Bot,
            _ => Label::Unclear,
        };
        all.insert(client, label);
    }
    Ok(all)
}

struct Line {
    time: i64,
    client: ClientIp,
    status: u16,
    bytes: u64,
    verdict: VerdictKind,
    method: String,
    path: String,
    query: String,
    referer: String,
    user_agent: String,
}

impl Line {
    fn parse(text: &str) -> Option<Self> {
        let (client, rest) = text.split_once(' ')?;
        let (_, rest) = rest.split_once('[')?;
        let (stamp, rest) = rest.split_once("] \"")?;
        let (request, rest) = quoted(rest)?;
        let mut numbers = rest.trim_start().splitn(3, ' ');
        let status = numbers.next()?.parse().ok()?;
        let bytes = numbers.next()?.parse().unwrap_or(0);
        let (referer, rest) = quoted(numbers.next().unwrap_or_default().strip_prefix('"').unwrap_or("\""))?;
        let (user_agent, _) = quoted(rest.trim_start().strip_prefix('"').unwrap_or("\""))?;
        let mut words = request.splitn(2, ' ');
        let method = words.next().unwrap_or_default().to_owned();
        let target = words.next().and_then(|rest| rest.rsplit_once(" HTTP/")).map(|(target, _)| target);
        // The gateway itself refuses what is not HTTP.
        let verdict = if target.is_some() { VerdictKind::Admitted } else { VerdictKind::Malformed };
        let target = target.unwrap_or(&request);
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let (path, query) = (path.to_owned(), query.to_owned());
        let time = time_of(stamp)?;
        let dash = |text: String| if text == "-" { String::new() } else { text };
        Some(Self {
            time,
            client: client.parse().ok()?,
            status,
            bytes,
            verdict,
            method,
            path,
            query,
            referer: dash(referer),
            user_agent: dash(user_agent),
        })
    }

    fn observation(&self) -> Observation<'_> {
        Observation {
            time: UnixMs(self.time),
            client: self.client,
            status: self.status,
            verdict: self.verdict,
            bytes_out: self.bytes,
            method: &self.method,
            host: "",
            path: &self.path,
            query: &self.query,
            user_agent: &self.user_agent,
            referer: &self.referer,
            user: "",
            login: None,
            bot: BotStatus::None,
        }
    }
}

/// The text up to the next plain quote, with `\"` undone, and what follows the quote.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut out = String::new();
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            '"' if !escaped => return Some((out, &text[at + 1..])),
            '\\' if !escaped => escaped = true,
            _ => {
                if escaped && c != '"' && c != '\\' {
                    out.push('\\');
                }
                out.push(c);
                escaped = false;
            }
        }
    }
    None
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
    let seconds = number(12..14)? * 3_600 + number(15..17)? * 60 + number(18..20)?;
    Some(Duration::from_secs(u64::try_from(days * 86_400 + seconds).ok()?).as_millis() as i64)
}

fn count(site: &Site) -> Counts {
    let mut counts = Counts::default();
    let (mut bad, mut good) = (Vec::new(), Vec::new());
    for (client, label) in &site.labels {
        let severity = site.worst.get(client).map(|finding| finding.severity);
        let reached = LEVELS.map(|level| usize::from(severity.is_some_and(|s| s >= level)));
        let add = |to: &mut [usize; 3]| to.iter_mut().zip(reached).for_each(|(sum, n)| *sum += n);
        let score = site.scores.get(client);
        match label {
            Label::Attack { is_busy } => {
                for (n, _) in [true, *is_busy].into_iter().enumerate().filter(|(_, is)| *is) {
                    counts.attacks[n] += 1;
                    add(&mut counts.caught[n]);
                }
                add(&mut counts.malicious_flagged);
                bad.extend(score);
            }
            Label::OtherMalice => add(&mut counts.malicious_flagged),
            Label::Human => {
                counts.humans += 1;
                add(&mut counts.human_flags);
                good.extend(score);
            }
            Label::Bot => {
                counts.bots += 1;
                add(&mut counts.bot_flags);
            }
            Label::Unclear => {}
        }
    }
    counts.auc = auc(&bad, &good);
    counts
}

/// The chance that an attacker scores above a human; `None` with fewer than ten of either.
fn auc(bad: &[f64], good: &[f64]) -> Option<f64> {
    if bad.len() < 10 || good.len() < 10 {
        return None;
    }
    let wins: f64 = bad
        .iter()
        .flat_map(|b| good.iter().map(move |g| if b > g { 1.0 } else { f64::from(b == g) / 2.0 }))
        .sum();
    Some(wins / (bad.len() * good.len()) as f64)
}

impl Counts {
    fn add(&mut self, other: &Self) {
        let sum = |to: &mut [usize], from: &[usize]| to.iter_mut().zip(from).for_each(|(a, b)| *a += b);
        sum(&mut self.attacks, &other.attacks);
        sum(&mut self.caught[0], &other.caught[0]);
        sum(&mut self.caught[1], &other.caught[1]);
        sum(&mut self.malicious_flagged, &other.malicious_flagged);
        sum(&mut self.human_flags, &other.human_flags);
        sum(&mut self.bot_flags, &other.bot_flags);
        self.humans += other.humans;
        self.bots += other.bots;
    }
}

fn heading() {
    println!("three figures: any finding / medium and above / high and above (would be blocked)");
    println!(
        "{:12} {:>7} {:>17} {:>17} {:>17} {:>6} {:>19} {:>6} {:>19} {:>5}",
        "site",
        "attacks",
        "recall %",
        "recall >=5/h %",
        "precision %",
        "humans",
        "flagged per 1,000",
        "bots",
        "flagged per 1,000",
        "AUC"
    );
}

fn line(name: &str, counts: &Counts) {
    let ratio = |part: [usize; 3], whole: [usize; 3], scale: f64| {
        std::array::from_fn::<String, 3, _>(|n| match whole[n] {
            0 => "-".to_owned(),
            whole => format!("{:.1}", scale * part[n] as f64 / whole as f64),
        })
        .join("/")
    };
    let flagged =
        std::array::from_fn(|n| counts.malicious_flagged[n] + counts.human_flags[n] + counts.bot_flags[n]);
    println!(
        "{name:12} {:>7} {:>17} {:>17} {:>17} {:>6} {:>19} {:>6} {:>19} {:>5}",
        counts.attacks[0],
        ratio(counts.caught[0], [counts.attacks[0]; 3], 100.0),
        ratio(counts.caught[1], [counts.attacks[1]; 3], 100.0),
        ratio(counts.malicious_flagged, flagged, 100.0),
        counts.humans,
        ratio(counts.human_flags, [counts.humans; 3], 1_000.0),
        counts.bots,
        ratio(counts.bot_flags, [counts.bots; 3], 1_000.0),
        counts.auc.map_or("-".to_owned(), |auc| format!("{auc:.2}")),
    );
}

fn list(site: &Site, which: &str) {
    for (client, label) in &site.labels {
        let finding = site.worst.get(client);
        let severity = finding.map(|finding| finding.severity);
        let wanted = match (which, label) {
            ("human", Label::Human) | ("bot", Label::Bot) => severity >= Some(Severity::Medium),
            ("missed", Label::Attack { .. }) => severity < Some(Severity::Medium),
            _ => false,
        };
        if wanted {
            let what = finding.map_or("nothing", |f| f.details["summary"].as_str().unwrap_or_default());
            let level = severity.map_or("none", Severity::as_str);
            println!("  {client} {level}: {}", what.escape_debug());
            if let Some(rules) = finding.and_then(|f| f.details["rules"].as_array()) {
                for sample in rules.iter().flat_map(|rule| rule["samples"].as_array().into_iter().flatten()) {
                    println!("      {} {} {}", sample["method"], sample["path"], sample["status"]);
                }
            }
        }
    }
}
