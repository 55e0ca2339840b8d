//! Writes the rows that the reference forest is trained on, `crates/detect/src/reference.csv`, to standard output:
//! client-hours of synthetic visitors of six kinds of sites, made by the same counting as real ones. The same at
//! each run.

use std::error::Error;
use std::io::Write as _;

use fastrand::Rng;
use portcullis_detect::{BotStatus, Features, Observation, Settings, Window};
use portcullis_model::{ClientIp, UnixMs, VerdictKind};

const HOUR_MS: i64 = 3_600_000;
const VISITORS_PER_SITE: usize = 130;
const SEED: u64 = 20_240_229;

/// What visitors of one kind of site do.
struct Site {
    /// Different pages and how deep they lie.
    pages: u32,
    depth: std::ops::Range<usize>,
    /// Assets that a first page view brings, and a later one.
    first_assets: std::ops::Range<usize>,
    later_assets: std::ops::Range<usize>,
    /// Pages of one visit; most visits are at the short end.
    visit: std::ops::Range<usize>,
    /// Seconds on a page.
    reading: std::ops::Range<i64>,
    page_bytes: std::ops::Range<u64>,
    asset_bytes: std::ops::Range<u64>,
    /// Requests of a thousand that are forms, calls of scripts, and links that lead nowhere.
    forms: u32,
    calls: u32,
    broken: u32,
}

fn sites() -> [Site; 6] {
    let blog = || Site {
        pages: 200,
        depth: 1..4,
        first_assets: 4..16,
        later_assets: 0..5,
        visit: 1..6,
        reading: 8..240,
        page_bytes: 6_000..40_000,
        asset_bytes: 2_000..90_000,
        forms: 5,
        calls: 10,
        broken: 10,
    };
    [
        blog(),
        // A shop.
        Site {
            pages: 2_000,
            depth: 2..5,
            first_assets: 12..40,
            later_assets: 3..25,
            visit: 1..25,
            reading: 4..90,
            forms: 60,
            calls: 120,
            ..blog()
        },
        // A forum.
        Site {
            pages: 5_000,
            depth: 1..3,
            first_assets: 6..18,
            later_assets: 1..8,
            visit: 1..40,
            reading: 3..180,
            forms: 50,
            calls: 30,
            broken: 20,
            ..blog()
        },
        // Documentation.
        Site {
            pages: 400,
            depth: 1..6,
            first_assets: 5..12,
            later_assets: 0..3,
            visit: 1..20,
            reading: 5..300,
            forms: 2,
            calls: 20,
            broken: 15,
            ..blog()
        },
        // An application that calls its own API from the browser.
        Site {
            pages: 30,
            depth: 1..4,
            first_assets: 3..10,
            later_assets: 0..3,
            visit: 1..12,
            reading: 5..300,
            page_bytes: 500..8_000,
            asset_bytes: 20_000..600_000,
            forms: 40,
            calls: 450,
            ..blog()
        },
        // A plain page of a person or a club, with pictures.
        Site {
            pages: 25,
            depth: 0..3,
            first_assets: 1..12,
            later_assets: 1..10,
            visit: 1..8,
            reading: 4..120,
            page_bytes: 1_000..12_000,
            asset_bytes: 5_000..400_000,
            forms: 1,
            calls: 0,
            broken: 30,
        },
    ]
}

struct Visit<'a> {
    window: &'a mut Window,
    rng: &'a mut Rng,
    client: ClientIp,
    ms: i64,
}

impl Visit<'_> {
    fn request(&mut self, method: &str, path: &str, status: u16, bytes: u64, has_referer: bool) {
        self.window.observe(&Observation {
            time: UnixMs(self.ms.min(HOUR_MS - 1)),
            client: self.client,
            status,
            verdict: VerdictKind::Admitted,
            bytes_out: bytes,
            method,
            host: "example.com",
            path,
            query: "",
            user_agent: "Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0",
            referer: if has_referer { "https://example.com/" } else { "" },
            user: "",
            login: None,
            bot: BotStatus::None,
        });
    }

    fn one_in(&mut self, per_thousand: u32) -> bool {
        self.rng.u32(0..1_000) < per_thousand
    }

    fn page(&mut self, site: &Site, is_first: bool) {
        let number = self.rng.u32(0..site.pages);
        let depth = self.rng.usize(site.depth.clone());
        let folders: String =
            (0..depth).map(|level| format!("/part{}", number % (level as u32 + 3))).collect();
        let path =
            if is_first && self.rng.bool() { "/".to_owned() } else { format!("{folders}/page{number}") };
        // Privacy settings of some browsers send no referer.
        let has_referer = !is_first || self.one_in(500);
        let bytes = self.rng.u64(site.page_bytes.clone());
        match self.one_in(site.broken) {
            true => self.request("GET", &format!("{path}-old"), 404, 500, has_referer),
            false => self.request("GET", &path, 200, bytes, has_referer),
        }
        let assets = if is_first { site.first_assets.clone() } else { site.later_assets.clone() };
        for _ in 0..self.rng.usize(assets) {
            self.ms += self.rng.i64(5..400);
            let asset = format!(
                "/assets/{}.{}",
                self.rng.u32(0..60),
                ["css", "js", "png", "jpg", "woff2"][self.rng.usize(0..5)]
            );
            let is_cached = !is_first && self.one_in(300);
            let bytes = if is_cached { 0 } else { self.rng.u64(site.asset_bytes.clone()) };
            self.request("GET", &asset, if is_cached { 304 } else { 200 }, bytes, true);
        }
        while self.one_in(site.calls) {
            self.ms += self.rng.i64(50..4_000);
            let (method, path) =
                if self.one_in(700) { ("GET", "/api/items") } else { ("POST", "/api/events") };
            let bytes = self.rng.u64(50..5_000);
            self.request(method, path, 200, bytes, true);
        }
        if self.one_in(site.forms) {
            self.ms += self.rng.i64(4_000..60_000);
            self.request("POST", &path, 302, 0, true);
        }
    }
}

fn rows(site: &Site, rng: &mut Rng) -> Vec<Features> {
    let mut window = Window::new(&Settings::default(), UnixMs(0), UnixMs(HOUR_MS));
    for n in 0..VISITORS_PER_SITE {
        let client = ClientIp::new(std::net::Ipv4Addr::new(10, 0, (n / 250) as u8, (n % 250) as u8).into());
        // Some addresses are those of several people.
        let people = if rng.u32(0..20) == 0 { rng.usize(2..6) } else { 1 };
        for _ in 0..people {
            let mut visit = Visit { ms: rng.i64(0..HOUR_MS * 3 / 4), window: &mut window, rng, client };
            let span = site.visit.end - site.visit.start;
            // The smallest of two: short visits are more frequent.
            let pages = site.visit.start + visit.rng.usize(0..span).min(visit.rng.usize(0..span));
            for page in 0..pages {
                visit.page(site, page == 0);
                visit.ms += visit.rng.i64(site.reading.clone()) * 1_000;
            }
        }
    }
    window.finish(None, UnixMs(HOUR_MS)).presumed_good
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut rng = Rng::with_seed(SEED);
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", Features::NAMES.join(","))?;
    for site in sites() {
        for row in rows(&site, &mut rng) {
            let values: Vec<String> = row.0.iter().map(|value| format!("{:.3}", value + 0.0)).collect();
            writeln!(out, "{}", values.join(","))?;
        }
    }
    Ok(())
}
