//! People and programs that do their ordinary work while the tools are at it: none of them may ever be refused.

use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use portcullis_testkit::{Client, Request};

use crate::front::Front;

const PAGES: [&str; 6] = ["/", "/products", "/products/3", "/search?q=lantern", "/login", "/products/7"];
const CHROMIUM: &str = "chromium";

/// Each on a thread of its own, until [`Visitors::leave`].
pub(crate) struct Visitors {
    stop: Arc<AtomicBool>,
    threads: Vec<(&'static str, Ipv4Addr, JoinHandle<()>)>,
}

impl Visitors {
    /// `front` opens a door for the visitor of this number.
    pub(crate) fn come(front: impl Fn(u8) -> Front) -> Self {
        let mut visitors = Self { stop: Arc::default(), threads: Vec::new() };
        if crate::has(CHROMIUM, "chromium") {
            visitors.one("headless browser", front(1), browser);
        }
        if crate::has("curl", "curl") {
            visitors.one("curl", front(2), curl);
        }
        visitors.one("feed reader", front(3), feed_reader);
        visitors.one("crawler", front(4), crawler);
        visitors.one("API client", front(5), api_client);
        visitors
    }

    fn one(&mut self, name: &'static str, front: Front, work: fn(&Front, &Stay)) {
        let (client, stay) = (front.client(), Stay { stop: Arc::clone(&self.stop) });
        let thread = std::thread::spawn(move || work(&front, &stay));
        self.threads.push((name, client, thread));
    }

    /// Ends the visits; who was there, under which address.
    pub(crate) fn leave(self) -> Vec<(&'static str, Ipv4Addr)> {
        self.stop.store(true, Ordering::Relaxed);
        let end = |(name, client, thread): (_, _, JoinHandle<()>)| {
            thread.join().unwrap();
            (name, client)
        };
        self.threads.into_iter().map(end).collect()
    }
}

struct Stay {
    stop: Arc<AtomicBool>,
}

impl Stay {
    /// Waits as a visitor does between two requests; false at the end.
    fn goes_on_after(&self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        while Instant::now() < until && !self.stop.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(20));
        }
        !self.stop.load(Ordering::Relaxed)
    }
}

/// With pictures, styles and scripts.
fn browser(front: &Front, stay: &Stay) {
    let profile = tempfile::tempdir().unwrap();
    let mut pages = PAGES.iter().cycle();
    loop {
        let _ = Command::new("timeout")
            .args(["30", CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg(front.url(pages.next().unwrap()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        if !stay.goes_on_after(Duration::from_secs(2)) {
            return;
        }
    }
}

fn curl(front: &Front, stay: &Stay) {
    for page in PAGES.iter().cycle() {
        Command::new("curl").args(["-s", "-o", "/dev/null", &front.url(page)]).status().unwrap();
        if !stay.goes_on_after(Duration::from_millis(1_500)) {
            return;
        }
    }
}

fn feed_reader(front: &Front, stay: &Stay) {
    while stay.goes_on_after(Duration::from_secs(2)) {
        let request = Request::get("/feed.xml")
            .header("User-Agent", "Liferea/1.14.0 (Linux; https://lzone.de/liferea/)")
            .header("Accept", "application/atom+xml,application/xml;q=0.9,*/*;q=0.1");
        Client::connect(front.address()).send(&request);
    }
}

/// Reads robots.txt, then every page that it finds a link to, once, and begins anew.
fn crawler(front: &Front, stay: &Stay) {
    let ask = |path: &str| {
        let agent = "ExampleBot/1.0 (+https://bot.example/about)";
        let request = Request::get(path).header("User-Agent", agent);
        Client::connect(front.address()).send(&request).text()
    };
    loop {
        let robots = ask("/robots.txt");
        let hidden: Vec<&str> = robots.lines().filter_map(|line| line.strip_prefix("Disallow: ")).collect();
        let mut pages = vec!["/".to_owned()];
        let mut next = 0;
        while let Some(page) = pages.get(next).cloned() {
            next += 1;
            if !stay.goes_on_after(Duration::from_millis(700)) {
                return;
            }
            let text = ask(&page);
            for link in text.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next()) {
                let is_ours = link.starts_with('/') && !hidden.iter().any(|path| link.starts_with(path));
                if is_ours && !pages.iter().any(|page| page == link) {
                    pages.push(link.to_owned());
                }
            }
        }
    }
}

fn api_client(front: &Front, stay: &Stay) {
    let mut connection = Client::connect(front.address());
    while stay.goes_on_after(Duration::from_millis(400)) {
        let request = Request::get("/api/products")
            .header("User-Agent", "python-requests/2.32.3")
            .header("Accept", "application/json");
        connection.send(&request);
    }
}
