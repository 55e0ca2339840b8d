//! The crowd of the demo: who comes, from which address, and how visitors, the search bot and the
//! monitor behave. Owns the thread that they run on; must not know what the gateway decided except
//! from its answers.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fastrand::Rng;
use portcullis_model::ClientIp;
use tokio::sync::oneshot;

use super::attackers;
use super::http_client::{Answer, Connection, Errand};
use super::ledger::{Ledger, Outcome, Role, RowId, Snapshot};

/// Over all clients together. The usual rate is about a quarter of it.
const MAX_REQUESTS_PER_SECOND: u32 = 200;
/// How long the crowd waits for the gateway to listen.
const GATEWAY_WAIT: Duration = Duration::from_secs(10);

/// Reading a page.
const READING_MS: (u64, u64) = (300, 2_000);
/// Between two visits of the same person. With at most `PAGES_PER_VISIT` pages in a visit it keeps
/// everybody far below 60 product pages a minute, whatever the dice say.
const AWAY_MS: (u64, u64) = (6_000, 15_000);
const PAGES_PER_VISIT: (usize, usize) = (4, 8);
/// Visitors come one after the other over about this time.
const ARRIVALS_MS: u64 = 6_000;
/// Ada needs three attempts, which is all that the demo's login limit allows in five minutes.
const LOGIN_AGAIN_AFTER: Duration = Duration::from_secs(6 * 60);

const BOT_GAP_MS: (u64, u64) = (1_500, 3_000);
const BOT_REST: Duration = Duration::from_secs(45);
/// Pages that the bot remembers, and so visits, in one crawl.
const BOT_MAX_PAGES: usize = 64;
const MONITOR_GAP: Duration = Duration::from_secs(3);

const SEARCH_BOT: &str = "Mozilla/5.0 (compatible; LanternBot/1.4; +https://lanternbot.example/about)";
const MONITOR: &str = "SteadyWatch/3.1 (+https://steadywatch.example)";

const VISITORS: [(&str, &str); 12] = [
    ("Ada", "browses, mistypes her password twice"),
    ("Bruno", "browses the shop"),
    ("Chiara", "browses the shop"),
    ("Dmitri", "browses the shop"),
    ("Emeka", "browses the shop"),
    ("Freya", "browses the shop"),
    ("Gita", "browses the shop"),
    ("Hiro", "browses the shop"),
    ("Ines", "browses the shop"),
    ("Jonas", "browses the shop"),
    ("Kemal", "browses the shop"),
    ("Lin", "browses the shop"),
];

const BROWSERS: [&str; 5] = [
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
    "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.1 Safari/605.1.15",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_7 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.1 Mobile/15E148 Safari/604.1",
    "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Mobile Safari/537.36",
];

const SEARCHES: [&str; 5] = ["lantern", "key", "door", "brass", "oil+for+hinges"];
/// Old links and typos.
const MISSING_PAGES: [&str; 3] = ["/product/4", "/products/21", "/opening-hours"];

/// The clients, at work on their own thread.
pub(crate) struct Crowd {
    ledger: Arc<Ledger>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Lets visitors and attackers loose on `gateway`, asking for `host`. The same seed gives the same
/// addresses and the same choices; only their timing depends on the machine.
///
/// # Errors
/// No thread can be started.
pub(crate) fn start(gateway: SocketAddr, host: &str, seed: u64) -> io::Result<Crowd> {
    let started = Instant::now();
    let ledger = Arc::new(Ledger::new(started));
    let mut cast = Cast {
        gateway,
        host: host.to_owned(),
        ledger: Arc::clone(&ledger),
        pacer: Arc::new(Pacer { next: Mutex::new(started) }),
        addresses: Arc::new(Mutex::new(Addresses::new(&mut Rng::with_seed(seed)))),
        rng: Rng::with_seed(seed),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (stop, stopped) = oneshot::channel();
    let thread = std::thread::Builder::new().name("demo-clients".into()).spawn(move || {
        // Leaving block_on ends the clients wherever they are; an unfinished request is not counted.
        runtime.block_on(async {
            let everybody = async {
                wait_for(gateway).await;
                visitors_set_out(&mut cast);
                robots_set_out(&mut cast);
                attackers::set_out(&mut cast);
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = everybody => {}
                _ = stopped => {}
            }
        });
    })?;
    Ok(Crowd { ledger, stop: Some(stop), thread: Some(thread) })
}

impl Crowd {
    /// What everybody sent and got up to now.
    pub(crate) fn snapshot(&self) -> Snapshot {
        self.ledger.snapshot()
    }

    /// Sends everybody home; the tallies no longer change. A second call does nothing.
    pub(crate) fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of that thread has been printed by the panic hook already.
            let _ = thread.join();
        }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Without an answer the clients set out anyway, and their rows show why nothing works.
async fn wait_for(gateway: SocketAddr) {
    let deadline = Instant::now() + GATEWAY_WAIT;
    while Instant::now() < deadline && tokio::net::TcpStream::connect(gateway).await.is_err() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Spaces out the requests of all clients evenly, so that no moment exceeds the rate.
struct Pacer {
    next: Mutex<Instant>,
}

impl Pacer {
    async fn turn(&self) {
        let mine = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let mine = (*next).max(Instant::now());
            *next = mine + Duration::from_secs(1) / MAX_REQUESTS_PER_SECOND;
            mine
        };
        tokio::time::sleep_until(mine.into()).await;
    }
}

/// Unused addresses of the documentation ranges (RFC 5737, RFC 3849), in an order given by the seed.
struct Addresses {
    visitors: VecDeque<IpAddr>,
    robots: VecDeque<IpAddr>,
    attackers: VecDeque<IpAddr>,
    attacker_networks: VecDeque<IpAddr>,
}

impl Addresses {
    fn new(rng: &mut Rng) -> Self {
        let mut shuffled = |address: &dyn Fn(u8) -> IpAddr| {
            let mut hosts: Vec<u8> = (1..255).collect();
            rng.shuffle(&mut hosts);
            hosts.into_iter().map(address).collect::<VecDeque<_>>()
        };
        let v4 = |a, b, c| move |host| IpAddr::V4(Ipv4Addr::new(a, b, c, host));
        let v6 =
            |net, rest| move |host| Ipv6Addr::new(0x2001, 0xdb8, net, u16::from(host), 0, 0, 0, rest).into();
        let mut visitors = shuffled(&v4(198, 51, 100));
        // Every third visitor comes over IPv6.
        for (visitor, other) in visitors.iter_mut().zip(shuffled(&v6(0xa, 0x15))).step_by(3) {
            *visitor = other;
        }
        Self {
            visitors,
            robots: shuffled(&v4(192, 0, 2)),
            attackers: shuffled(&v4(203, 0, 113)),
            attacker_networks: shuffled(&v6(0xbad, 0)),
        }
    }
}

/// Takes the next address and puts it at the end, so that a demo of days begins again with the first.
fn next_of(addresses: &mut VecDeque<IpAddr>) -> ClientIp {
    addresses.rotate_left(1);
    ClientIp::new(addresses.back().copied().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)))
}

/// What the clients have in common, and the dice of one of them.
pub(super) struct Cast {
    gateway: SocketAddr,
    host: String,
    ledger: Arc<Ledger>,
    pacer: Arc<Pacer>,
    addresses: Arc<Mutex<Addresses>>,
    rng: Rng,
}

impl Cast {
    /// The same with dice of its own, so that what one client does changes nothing for the others.
    pub(super) fn part(&mut self) -> Self {
        Self {
            gateway: self.gateway,
            host: self.host.clone(),
            ledger: Arc::clone(&self.ledger),
            pacer: Arc::clone(&self.pacer),
            addresses: Arc::clone(&self.addresses),
            rng: self.rng.fork(),
        }
    }

    fn take(&self, of: impl FnOnce(&mut Addresses) -> &mut VecDeque<IpAddr>) -> ClientIp {
        next_of(of(&mut self.addresses.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    pub(super) fn attacker_address(&self) -> ClientIp {
        self.take(|a| &mut a.attackers)
    }

    /// The first address of an IPv6 /64.
    pub(super) fn attacker_network(&self) -> ClientIp {
        self.take(|a| &mut a.attacker_networks)
    }

    /// Somebody arrives.
    pub(super) fn actor(
        &mut self,
        name: String,
        role: Role,
        address: ClientIp,
        doing: &'static str,
        user_agent: &'static str,
    ) -> Actor {
        Actor {
            row: self.ledger.arrive(name, role, address, doing),
            ledger: Arc::clone(&self.ledger),
            pacer: Arc::clone(&self.pacer),
            connection: Connection::new(self.gateway, &self.host),
            origin: format!("http://{}", self.host),
            address: address.ip(),
            user_agent,
            rng: self.rng.fork(),
        }
    }
}

/// One client while it is here.
pub(super) struct Actor {
    row: RowId,
    ledger: Arc<Ledger>,
    pacer: Arc<Pacer>,
    connection: Connection,
    origin: String,
    address: IpAddr,
    user_agent: &'static str,
    rng: Rng,
}

impl Actor {
    /// It is not coming back.
    pub(super) fn leave(self) {
        self.ledger.leave(self.row);
    }

    /// Sends and takes down what came of it; `None` when there was no answer.
    pub(super) async fn send(&mut self, errand: Errand<'_>) -> Option<Answer> {
        self.pacer.turn().await;
        let address = self.address.to_string();
        let errand = errand.with("x-forwarded-for", &address).with("user-agent", self.user_agent);
        match self.connection.send(&errand).await {
            Ok(answer) => {
                let outcome = Outcome::Answered { status: answer.status, decision: answer.decision };
                self.ledger.record(self.row, outcome);
                Some(answer)
            }
            Err(failure) => {
                self.ledger.record(self.row, Outcome::Failed(failure.0));
                None
            }
        }
    }

    pub(super) async fn pause_ms(&mut self, from: u64, to: u64) {
        tokio::time::sleep(Duration::from_millis(self.rng.u64(from..=to))).await;
    }

    /// Closes the connection and stays away for a while.
    pub(super) async fn rest(&mut self, span: Duration) {
        self.connection.close();
        tokio::time::sleep(span).await;
    }

    /// The next request comes from another address of the same subscriber.
    pub(super) fn change_address_within_64(&mut self) {
        if let IpAddr::V6(v6) = self.address {
            let network = v6.to_bits() & (u128::MAX << 64);
            self.address = Ipv6Addr::from_bits(network | u128::from(self.rng.u64(..))).into();
        }
    }

    async fn read_page(&mut self) {
        self.pause_ms(READING_MS.0, READING_MS.1).await;
    }
}

fn visitors_set_out(cast: &mut Cast) {
    for (n, (name, doing)) in VISITORS.into_iter().enumerate() {
        let mut part = cast.part();
        let delay = Duration::from_millis(ARRIVALS_MS * n as u64 / VISITORS.len() as u64);
        let user_agent = BROWSERS[n % BROWSERS.len()];
        let address = part.take(|a| &mut a.visitors);
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            let actor = part.actor(name.to_owned(), Role::Visitor, address, doing, user_agent);
            Visitor { actor, page: String::new(), cached: HashSet::new() }.live(n == 0).await;
        });
    }
}

/// A person with a browser.
struct Visitor {
    actor: Actor,
    /// The address in the browser's location bar; empty before the first page.
    page: String,
    /// Assets that the browser has, for the time of a visit.
    cached: HashSet<String>,
}

impl Visitor {
    async fn live(mut self, has_account: bool) {
        let mut last_login: Option<Instant> = None;
        loop {
            self.open("/").await;
            self.actor.read_page().await;
            if has_account && last_login.is_none_or(|at| at.elapsed() >= LOGIN_AGAIN_AFTER) {
                last_login = Some(Instant::now());
                self.log_in_at_the_third_attempt().await;
            }
            for _ in 0..self.actor.rng.usize(PAGES_PER_VISIT.0..=PAGES_PER_VISIT.1) {
                self.open_something().await;
                self.actor.read_page().await;
            }
            let away = self.actor.rng.u64(AWAY_MS.0..=AWAY_MS.1);
            self.actor.rest(Duration::from_millis(away)).await;
            self.page.clear();
            self.cached.clear();
        }
    }

    async fn open_something(&mut self) {
        let dice = &mut self.actor.rng;
        let target = match dice.u32(0..100) {
            0..25 => "/products".to_owned(),
            25..70 => format!("/products/{}", dice.u32(1..=12)),
            70..85 => format!("/search?q={}", SEARCHES[dice.usize(..SEARCHES.len())]),
            85..95 => "/".to_owned(),
            95..98 => "/login".to_owned(),
            _ => MISSING_PAGES[dice.usize(..MISSING_PAGES.len())].to_owned(),
        };
        self.open(&target).await;
    }

    async fn log_in_at_the_third_attempt(&mut self) {
        self.open("/login").await;
        for password in ["lovelave", "Lovelace", "lovelace"] {
            self.actor.read_page().await;
            let form = format!("username=ada&password={password}");
            let referer = self.page.clone();
            let errand = Errand::post("/login", &form).with("referer", &referer);
            let Some(answer) = self.actor.send(errand).await else { return };
            if answer.status == 303 {
                let session = answer.header("set-cookie").split(';').next().unwrap_or_default().to_owned();
                let errand = Errand::get("/account").with("cookie", &session).with("referer", &referer);
                self.actor.send(errand).await;
                return;
            }
        }
    }

    /// Loads a page and whatever of its assets the browser does not have yet.
    async fn open(&mut self, target: &str) {
        let referer = std::mem::take(&mut self.page);
        let answer = self.actor.send(Errand::get(target).with("referer", &referer)).await;
        self.page = format!("{}{target}", self.actor.origin);
        let Some(answer) = answer else { return };
        let page = answer.text();
        let assets =
            links(&page, "src=\"").chain(links(&page, "href=\"")).filter(|l| l.starts_with("/assets/"));
        let mut wanted: Vec<&str> = assets.filter(|asset| !self.cached.contains(*asset)).collect();
        wanted.sort_unstable();
        wanted.dedup();
        for asset in wanted {
            let errand = Errand::get(asset).with("referer", &self.page);
            if self.actor.send(errand).await.is_some() {
                self.cached.insert(asset.to_owned());
            }
        }
    }
}

/// The values of an attribute, as they stand in the page.
fn links<'a>(page: &'a str, attribute: &'a str) -> impl Iterator<Item = &'a str> {
    page.split(attribute).skip(1).filter_map(|rest| rest.split('"').next())
}

fn robots_set_out(cast: &mut Cast) {
    let mut part = cast.part();
    tokio::spawn(async move {
        let address = part.take(|a| &mut a.robots);
        let doing = "asks for one page at even intervals";
        let mut actor = part.actor("monitor".into(), Role::Monitor, address, doing, MONITOR);
        let mut beat = tokio::time::interval(MONITOR_GAP);
        loop {
            beat.tick().await;
            actor.send(Errand::head("/")).await;
        }
    });
    let mut part = cast.part();
    tokio::spawn(async move {
        let address = part.take(|a| &mut a.robots);
        let doing = "reads robots.txt, follows links slowly";
        let mut actor = part.actor("search bot".into(), Role::SearchBot, address, doing, SEARCH_BOT);
        loop {
            crawl(&mut actor).await;
            actor.rest(BOT_REST).await;
        }
    });
}

/// Follows every link once, breadth first, except where robots.txt forbids it.
async fn crawl(actor: &mut Actor) {
    let rules = actor.send(Errand::get("/robots.txt")).await.map_or(String::new(), |a| a.text());
    let forbidden: Vec<&str> = rules.lines().filter_map(|l| l.strip_prefix("Disallow: ")).collect();
    let mut seen = HashSet::from(["/".to_owned()]);
    let mut queue = VecDeque::from(["/".to_owned()]);
    while let Some(target) = queue.pop_front() {
        actor.pause_ms(BOT_GAP_MS.0, BOT_GAP_MS.1).await;
        let Some(answer) = actor.send(Errand::get(&target)).await else { continue };
        for link in links(&answer.text(), "<a href=\"") {
            let is_welcome = link.starts_with('/') && !forbidden.iter().any(|path| link.starts_with(path));
            if is_welcome && seen.len() < BOT_MAX_PAGES && seen.insert(link.to_owned()) {
                queue.push_back(link.to_owned());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::site;
    use super::*;

    /// More than anything here should ever need; waiting ends as soon as the condition holds.
    const PATIENCE: Duration = Duration::from_secs(60);

    fn wait_until(crowd: &Crowd, holds: impl Fn(&Snapshot) -> bool) -> Snapshot {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let snapshot = crowd.snapshot();
            if holds(&snapshot) {
                return snapshot;
            }
            assert!(Instant::now() < deadline, "after {PATIENCE:?}: {snapshot:#?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    #[test]
    fn everybody_comes_and_visitors_get_what_they_ask_for() {
        let site = site::start(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let mut crowd = start(site.address(), "shop.example", 1).unwrap();
        wait_until(&crowd, |snapshot| {
            let came = |role| snapshot.rows.iter().any(|row| row.role == role && row.tally.requests() > 1);
            let ada_is_in =
                snapshot.rows.iter().any(|r| r.name == "Ada" && r.tally.other == 2 && r.tally.ok > 9);
            let guessed = snapshot.rows.iter().any(|r| r.role == Role::BruteForcer && r.tally.other > 1);
            let probed = snapshot.rows.iter().any(|r| r.role == Role::Scanner && r.tally.not_found > 10);
            let visitors = snapshot.rows.iter().filter(|r| r.role == Role::Visitor && r.tally.ok > 3).count();
            let others = [Role::SearchBot, Role::Monitor, Role::Scraper];
            ada_is_in && guessed && probed && visitors == VISITORS.len() && others.into_iter().all(came)
        });
        crowd.stop();
        let last = crowd.snapshot();
        for row in &last.rows {
            assert_eq!((row.tally.failed, row.tally.refused()), (0, 0), "{row:?}");
        }
        let ada = last.rows.iter().find(|row| row.name == "Ada").unwrap();
        assert_eq!(ada.tally.other, 2, "two wrong passwords and nothing else: {ada:?}");
        assert_eq!(crowd.snapshot().total(), last.total(), "nothing is counted after the end");
    }

    #[test]
    fn addresses_are_from_the_documentation_ranges_all_different_and_given_by_the_seed() {
        let all = |seed| {
            let Addresses { visitors, robots, attackers, attacker_networks } =
                Addresses::new(&mut Rng::with_seed(seed));
            [visitors, robots, attackers, attacker_networks].into_iter().flatten().collect::<Vec<_>>()
        };
        let addresses = all(1);
        let mut keys: Vec<IpAddr> = addresses.iter().map(|&ip| ClientIp::new(ip).limit_key()).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), addresses.len());
        for ip in &addresses {
            assert!(match ip {
                IpAddr::V4(v4) => v4.is_documentation(),
                IpAddr::V6(v6) => v6.segments()[..2] == [0x2001, 0xdb8],
            });
        }
        assert_eq!(addresses, all(1));
        assert_ne!(addresses, all(2));
    }

    #[test]
    fn a_gateway_that_is_gone_shows_as_failures() {
        let nobody = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = nobody.local_addr().unwrap();
        // Connections are taken and closed at once, without an answer.
        std::thread::spawn(move || nobody.incoming().take(1_000).for_each(drop));
        let crowd = start(address, "shop.example", 1).unwrap();
        let snapshot = wait_until(&crowd, |snapshot| snapshot.total().failed > 3);
        assert_eq!(snapshot.total().ok, 0);
    }

    #[test]
    fn all_clients_together_stay_below_the_rate() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let began = Instant::now();
        let pacer = Arc::new(Pacer { next: Mutex::new(began) });
        let turns = MAX_REQUESTS_PER_SECOND / 4;
        runtime.block_on(async {
            let clients: Vec<_> = (0..turns)
                .map(|_| {
                    let pacer = Arc::clone(&pacer);
                    tokio::spawn(async move { pacer.turn().await })
                })
                .collect();
            for client in clients {
                client.await.unwrap();
            }
        });
        // The first turn is at once, so one gap less than turns.
        let least = Duration::from_secs(1) / MAX_REQUESTS_PER_SECOND * (turns - 1);
        assert!(began.elapsed() >= least, "{:?}", began.elapsed());
    }

    #[test]
    fn links_are_read_from_a_page() {
        let page = r#"<a href="/a">x</a><img src="/b.svg"><a href="/c"#;
        assert_eq!(links(page, "href=\"").collect::<Vec<_>>(), ["/a", "/c"]);
        assert_eq!(links(page, "src=\"").collect::<Vec<_>>(), ["/b.svg"]);
    }
}
