//! What went on before the gateway of a test was started: a day of a small site.
//!
//! Owns who came and what they asked for. Written by the store itself, as the gateway would have.

use std::path::Path;
use std::time::{Duration, SystemTime};

use portcullis_model::{
    ClientIp, Location, Protocol, Reason, RecordText, RequestId, RequestRecord, TextFields, UnixMs,
    VerdictKind,
};
use portcullis_store::{Enrich, Log, LogSettings};

/// What scanners ask for; nothing of it is on the site.
pub(super) const SECRETS: [&str; 12] = [
    "/.env",
    "/.git/config",
    "/.aws/credentials",
    "/wp-config.php.bak",
    "/id_rsa",
    "/backup.sql",
    "/.ssh/id_rsa",
    "/vendor/phpunit/phpunit/src/Util/PHP/eval-stdin.php",
    "/phpinfo.php",
    "/.svn/entries",
    "/server-status",
    "/actuator/env",
];

/// Network, country, city, number and name of its operator.
const PLACES: [(&str, &str, &str, u32, &str); 10] = [
    ("198.51.100.", "DE", "Bremen", 64_496, "Weser Net"),
    ("203.0.113.", "US", "Portland", 64_497, "Cascade Broadband"),
    ("192.0.2.", "FR", "Lyon", 64_498, "Rhône Télécom"),
    ("198.18.4.", "BR", "Recife", 64_499, "Capibaribe Internet"),
    ("198.18.5.", "IN", "Pune", 64_500, "Deccan Fibre"),
    ("198.18.6.", "JP", "札幌市", 64_501, "Ishikari Networks"),
    ("198.18.7.", "ZA", "Durban", 64_502, "Umgeni Online"),
    ("198.18.8.", "AU", "Hobart", 64_503, "Derwent Wireless"),
    ("198.18.9.", "SG", "Singapore", 64_504, "Straits Hosting"),
    ("198.18.10.", "NL", "Zwolle", 64_505, "IJssel Hosting"),
];

const PAGES: [&str; 10] = [
    "/",
    "/shop",
    "/shop/lamps?colour=brass&sort=price",
    "/shop/lamps/storm-lantern",
    "/basket",
    "/about",
    "/api/stock?ids=17,18,19",
    "/assets/site.css",
    "/assets/site.js",
    "/search?q=wick%20holder",
];

const AGENTS: [&str; 4] = [
    super::FIREFOX,
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_7 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.1 Mobile/15E148 Safari/604.1",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
    "python-requests/2.32.4",
];

/// Requests of the day.
const REQUESTS: u32 = 3_000;
const DAY: Duration = Duration::from_secs(86_400);

/// Where the visitors come from.
struct Atlas;

impl Enrich for Atlas {
    fn location(&mut self, client: ClientIp) -> Location {
        let text = client.to_string();
        let place = PLACES.iter().find(|place| text.starts_with(place.0));
        place.map_or_else(Location::default, |(_, country, city, asn, isp)| Location {
            country: Some((*country).to_owned()),
            city: Some((*city).to_owned()),
            asn: Some(*asn),
            isp: Some((*isp).to_owned()),
            ..Location::default()
        })
    }

    fn is_suspicious(&mut self, record: &RequestRecord) -> bool {
        record.status == 404
    }
}

pub(super) fn now() -> UnixMs {
    UnixMs::from_system(SystemTime::now())
}

/// Writes rows into the log of a data folder.
pub(super) fn write(data: &Path, rows: impl Iterator<Item = RequestRecord>, places: impl Enrich + 'static) {
    std::fs::create_dir_all(data).unwrap();
    let log = Log::start(data, LogSettings::default(), Box::new(places)).unwrap();
    for row in rows {
        assert!(log.recorder().offer(row), "the log takes no more");
    }
    log.flusher().flush().unwrap();
    log.shutdown();
}

/// A day of visits, busier in the evening, with a scanner at night.
pub(super) fn a_day(data: &Path) {
    let mut dice = fastrand::Rng::with_seed(1);
    let started = now().minus(DAY);
    let mut minutes: Vec<u32> =
        (0..REQUESTS).map(|_| (0..3).map(|_| dice.u32(0..1_435)).max().unwrap_or(0)).collect();
    minutes.sort_unstable();
    let rows = minutes.into_iter().enumerate().map(move |(number, minute)| {
        let at = started.plus(Duration::from_secs(u64::from(minute) * 60 + dice.u64(0..60)));
        visit(&mut dice, at, number as u32)
    });
    let mut rows: Vec<RequestRecord> = rows.collect();
    rows.sort_by_key(|row| row.id);
    write(data, rows.into_iter(), Atlas);
}

fn visit(dice: &mut fastrand::Rng, at: UnixMs, number: u32) -> RequestRecord {
    let weight = dice.usize(0..PLACES.len()).min(dice.usize(0..PLACES.len()));
    let client = format!("{}{}", PLACES[weight].0, 10 + dice.u32(0..6));
    let kind = dice.u32(0..100);
    let (path, status, verdict) = match kind {
        0..80 => {
            (PAGES[dice.usize(0..PAGES.len()).min(dice.usize(0..PAGES.len()))], 200, VerdictKind::Admitted)
        }
        80..86 => (PAGES[dice.usize(0..4)], 304, VerdictKind::Admitted),
        86..93 => (SECRETS[dice.usize(0..SECRETS.len())], 404, VerdictKind::Admitted),
        93..96 => ("/api/stock", 500, VerdictKind::Admitted),
        96..98 => (SECRETS[dice.usize(0..SECRETS.len())], 403, VerdictKind::WouldBlock),
        _ => ("/shop", 200, VerdictKind::Allowed),
    };
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    RequestRecord {
        id: RequestId::new(at, number),
        client: client.parse().unwrap(),
        protocol: if dice.bool() { Protocol::Http2 } else { Protocol::Http11 },
        status,
        bytes_in: dice.u64(200..900),
        bytes_out: dice.u64(500..90_000),
        latency_us: dice.u64(300..40_000),
        verdict,
        reason: Reason::None,
        login: None,
        text: RecordText::new(TextFields {
            method: b"GET",
            host: b"lamps.example",
            path: path.as_bytes(),
            query: query.as_bytes(),
            user_agent: AGENTS[dice.usize(0..AGENTS.len())].as_bytes(),
            referer: if dice.bool() { b"https://lamps.example/shop" } else { b"" },
            user: if dice.u32(0..5) == 0 { b"ada@lamps.example" } else { b"" },
        }),
    }
}
