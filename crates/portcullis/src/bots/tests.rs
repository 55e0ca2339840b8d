//! Clients that call themselves crawlers, with a real DNS server on loopback.

use std::time::{Duration, Instant};

use portcullis_config::{Config, Overrides, parse};
use portcullis_detect::BotStatus;
use portcullis_detect::bots::{How, Refusal};
use portcullis_model::{ClientIp, UnixMs};
use portcullis_testkit::{Dns, eventually};

use super::names::{MAX_AT_ONCE, MAX_WAITING};
use super::*;

const GOOGLE: &str = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)";
const REAL: &str = "203.0.113.7";
const FAKE: &str = "198.51.100.9";

fn config(dns: &Dns, more: &str) -> Config {
    let text = format!(
        "data = \"data\"\n[[upstream]]\nname = \"a\"\nservers = [\"http://127.0.0.1:1\"]\n\
         [bots]\nresolver = \"{}\"\ntimeout = \"2s\"\n{more}",
        dns.address()
    );
    parse(&text, "test", std::path::Path::new(""), &Overrides::default()).unwrap_or_else(|e| panic!("{e}"))
}

fn ip(text: &str) -> ClientIp {
    text.parse().unwrap()
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

/// A server that knows the real crawler, and that somebody else has a name too.
fn dns() -> Dns {
    let dns = Dns::start();
    dns.name(REAL, "crawl-203-0-113-7.googlebot.com").host("crawl-203-0-113-7.googlebot.com", REAL);
    dns.name(FAKE, "dsl-9.example.net").host("dsl-9.example.net", FAKE);
    dns
}

#[test]
fn the_name_of_the_address_tells_the_real_crawler_from_a_false_one() {
    let dns = dns();
    let bots = Bots::start(&config(&dns, ""), UnixMs(0));
    assert_eq!(bots.settle(ip(REAL), GOOGLE, soon()), BotStatus::Verified);
    assert_eq!(bots.settle(ip(FAKE), GOOGLE, soon()), BotStatus::False);
    // What was asked once is known.
    let asked = dns.asked();
    assert_eq!(bots.status(ip(REAL), GOOGLE), BotStatus::Verified);
    assert_eq!(bots.status(ip(FAKE), GOOGLE), BotStatus::False);
    assert_eq!(bots.status(ip(FAKE), "Mozilla/5.0 Firefox/140.0"), BotStatus::None);
    assert_eq!(bots.owner(ip(REAL)).as_deref(), Some("Googlebot"));
    assert_eq!(bots.owner(ip(FAKE)), None);
    assert_eq!(dns.asked(), asked);
    // By its networks, nobody asked.
    assert_eq!(bots.status(ip("66.249.66.1"), GOOGLE), BotStatus::Verified);
    assert_eq!(dns.asked(), asked);
}

#[test]
fn an_ipv6_crawler_is_told_by_its_name_too() {
    let (dns, address) = (dns(), "2001:db8::7");
    dns.name(address, "crawl-7.googlebot.com").host("crawl-7.googlebot.com", address);
    let bots = Bots::start(&config(&dns, ""), UnixMs(0));
    assert_eq!(bots.settle(ip(address), GOOGLE, soon()), BotStatus::Verified);
}

#[test]
fn a_name_that_does_not_point_back_is_false() {
    let dns = dns();
    dns.name("192.0.2.66", "crawl-203-0-113-7.googlebot.com");
    dns.name("192.0.2.67", "crawl-nowhere.googlebot.com");
    let bots = Bots::start(&config(&dns, ""), UnixMs(0));
    for address in ["192.0.2.66", "192.0.2.67"] {
        let explained = bots.explain(ip(address), GOOGLE, soon()).unwrap();
        assert_eq!(explained.judgement.status, BotStatus::False, "{address}");
        assert!(matches!(explained.judgement.how, How::Refuted(Refusal::NotConfirmed(_))), "{address}");
    }
}

#[test]
fn what_a_resolver_denies_that_never_knew_a_name_is_not_believed() {
    let nothing = Dns::start();
    let bots = Bots::start(&config(&nothing, ""), UnixMs(0));
    assert_eq!(bots.settle(ip(FAKE), GOOGLE, soon()), BotStatus::Claimed);
    let dns = dns();
    let bots = Bots::start(&config(&dns, ""), UnixMs(0));
    assert_eq!(bots.settle(ip(REAL), GOOGLE, soon()), BotStatus::Verified);
    assert_eq!(bots.settle(ip("192.0.2.200"), GOOGLE, soon()), BotStatus::False, "it has no name");
}

#[test]
fn a_resolver_that_hides_a_name_from_its_users_makes_nobody_false() {
    let dns = dns();
    dns.name("192.0.2.70", "msnbot-1.search.msn.com").host("msnbot-1.search.msn.com", "0.0.0.0");
    let bots = Bots::start(&config(&dns, ""), UnixMs(0));
    assert_eq!(bots.settle(ip("192.0.2.70"), "bingbot/2.0", soon()), BotStatus::Claimed);
}

#[test]
fn a_silent_resolver_keeps_nobody_waiting_and_its_queue_is_bounded() {
    let dns = dns();
    dns.be_silent(true);
    let stats = Arc::new(LookupStats::default());
    let config = config(&dns, "").tap(|config| config.bots.timeout = Duration::from_secs(30));
    let bots = Bots::counting(&config, UnixMs(0), Arc::clone(&stats));
    let most = MAX_WAITING + MAX_AT_ONCE;
    // All of them answer while no question can have been answered.
    for n in 0..most + 500 {
        let client = ClientIp::new(std::net::Ipv4Addr::from_bits(0xCB00_7100 + n as u32).into());
        assert_eq!(bots.status(client, GOOGLE), BotStatus::Claimed);
    }
    let read = |counter: &std::sync::atomic::AtomicU64| counter.load(std::sync::atomic::Ordering::Relaxed);
    // One more may be on its way from the queue.
    assert!(read(&stats.dropped) >= 499, "{stats:?}");
    assert_eq!(read(&stats.confirmed) + read(&stats.refuted), 0);
}

#[test]
fn a_resolver_that_does_not_answer_settles_nothing_and_is_asked_no_second_time() {
    let dns = dns();
    dns.be_silent(true);
    let bots = Bots::start(
        &config(&dns, "").tap(|config| config.bots.timeout = Duration::from_millis(100)),
        UnixMs(0),
    );
    assert_eq!(bots.settle(ip(FAKE), GOOGLE, soon()), BotStatus::Claimed);
    dns.be_silent(false);
    let asked = dns.asked();
    assert_eq!(bots.status(ip(FAKE), GOOGLE), BotStatus::Claimed);
    assert_eq!(dns.asked(), asked, "five minutes are not over");
}

#[test]
fn without_dns_networks_alone_tell_and_new_settings_are_taken_over() {
    let dns = dns();
    let own = "[[bot]]\nname = \"ours\"\nuser_agents = [\"OurMonitor\"]\nnetworks = [\"203.0.113.0/28\"]\n";
    let bots = Bots::start(&config(&dns, &format!("dns = false\n{own}")), UnixMs(0));
    assert_eq!(bots.settle(ip(FAKE), GOOGLE, soon()), BotStatus::Claimed);
    assert_eq!(bots.status(ip(REAL), "OurMonitor/1"), BotStatus::Verified);
    assert_eq!(bots.status(ip(FAKE), "OurMonitor/1"), BotStatus::False, "there are no other networks");
    assert_eq!(dns.asked(), 0);
    bots.refresh(&config(&dns, ""), UnixMs(0));
    assert_eq!(bots.status(ip(FAKE), "OurMonitor/1"), BotStatus::None);
    eventually("DNS is asked now", || (bots.status(ip(FAKE), GOOGLE) == BotStatus::False).then_some(()));
    bots.refresh(&config(&dns, "enabled = false\n"), UnixMs(0));
    assert_eq!(bots.status(ip(FAKE), GOOGLE), BotStatus::None);
}

#[test]
fn fetched_networks_tell_the_real_one_and_only_fresh_ones_refute() {
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("networks.txt");
    std::fs::write(&list, "203.0.113.0/28\n0.0.0.0/0\n127.0.0.0/8\n").unwrap();
    let dns = dns();
    let mut config = config(
        &dns,
        &format!("[[bot]]\nname = \"listed\"\nuser_agents = [\"ListedBot\"]\nfile = {list:?}\n"),
    );
    config.data = folder.path().join("data");
    drop(portcullis_store::State::open(&config.data).unwrap());
    let day = |n: u64| UnixMs(0).plus(Duration::from_secs(n * 86_400));
    let bots = Bots::start(&config, day(1));
    assert_eq!(bots.status(ip(FAKE), "ListedBot/1"), BotStatus::Claimed, "nothing is known yet");
    let updated = update(&config, day(1), &|| false).unwrap();
    assert!(updated[0].outcome.is_ok());
    bots.refresh(&config, day(1));
    assert_eq!(bots.status(ip(REAL), "ListedBot/1"), BotStatus::Verified);
    assert_eq!(bots.status(ip(FAKE), "ListedBot/1"), BotStatus::False, "a list of everybody is not taken");
    // The copy is there still, but its operator may have others by now.
    bots.refresh(&config, day(30));
    assert_eq!(bots.status(ip(REAL), "ListedBot/1"), BotStatus::Verified);
    assert_eq!(bots.status(ip(FAKE), "ListedBot/1"), BotStatus::Claimed);
}

trait Tap: Sized {
    fn tap(self, change: impl FnOnce(&mut Self)) -> Self;
}

impl Tap for Config {
    fn tap(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}
