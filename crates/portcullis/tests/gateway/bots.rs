//! Clients that call themselves crawlers, end to end: a real DNS server, requests, the detector, the commands.

use portcullis_model::Severity;
use portcullis_store::{FindingFilter, StoredFinding};
use portcullis_testkit::{Dns, Gateway, GatewayConfig, Request, Upstream};

use crate::behind_proxy;

const GOOGLE: &str = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)";
const REAL: &str = "203.0.113.7";
const FAKE: &str = "198.51.100.9";

fn dns() -> Dns {
    let dns = Dns::start();
    dns.name(REAL, "crawl-203-0-113-7.googlebot.com").host("crawl-203-0-113-7.googlebot.com", REAL);
    dns.name(FAKE, "dsl-9.example.net").host("dsl-9.example.net", FAKE);
    dns
}

fn asking(dns: &Dns, upstream: &Upstream) -> GatewayConfig {
    behind_proxy(upstream).section(&format!("[bots]\nresolver = \"{}\"\n", dns.address()))
}

/// Asks for pages that are not there, as crawlers with old links and scanners do.
fn crawl(gateway: &Gateway, client: &str, pages: usize) -> Vec<u16> {
    let mut connection = gateway.client_of(client);
    let ask = |n: usize| {
        let request = Request::get(&format!("/old/{n}"))
            .header("User-Agent", GOOGLE)
            .header("X-Answer", "{\"status\": 404}");
        connection.send(&request).status()
    };
    (0..pages).map(ask).collect()
}

fn finding_of(gateway: &Gateway, client: &str) -> Option<StoredFinding> {
    let filter = FindingFilter { client: Some(client.parse().unwrap()), ..FindingFilter::default() };
    gateway.data().state().findings(&filter).unwrap().pop()
}

#[test]
fn the_real_crawler_may_ask_for_what_is_gone_and_the_false_one_is_blocked_for_it() {
    let (dns, upstream) = (dns(), Upstream::start());
    let gateway = Gateway::start(asking(&dns, &upstream));
    assert_eq!(crawl(&gateway, REAL, 60), [404; 60], "it is never refused");
    crawl(&gateway, FAKE, 60);
    gateway.data().wait_for_count(120);
    gateway.cli_ok(&["detect"]);
    assert!(finding_of(&gateway, REAL).is_none_or(|found| found.block_id.is_none()));
    let found = finding_of(&gateway, FAKE).expect("the false crawler is found");
    assert!(found.finding.details.to_string().contains("false_bot"), "{found:?}");
    assert!(found.finding.severity >= Severity::High, "{found:?}");
    assert!(found.block_id.is_some(), "{found:?}");
}

#[test]
fn a_resolver_that_is_silent_costs_no_request_anything_and_holds_nothing_against_anybody() {
    let (dns, upstream) = (dns(), Upstream::start());
    dns.be_silent(true);
    let gateway = Gateway::start(asking(&dns, &upstream));
    // A status each, though no question is ever answered.
    for n in 0..40 {
        let request = Request::get("/").header("User-Agent", GOOGLE);
        assert_eq!(gateway.client_of(&format!("198.51.100.{n}")).send(&request).status(), 200);
    }
    gateway.data().wait_for_count(40);
    let findings = gateway.data().state().findings(&FindingFilter::default()).unwrap();
    assert!(findings.iter().all(|found| !found.finding.details.to_string().contains("false_bot")));
}

#[test]
fn the_command_says_what_a_client_is_and_shows_hostile_names_harmlessly() {
    let (dns, upstream) = (dns(), Upstream::start());
    dns.name("192.0.2.66", "\u{1b}[31mevil\u{7}.example.net");
    dns.name("192.0.2.67", "crawl-1.googlebot.com");
    let gateway = Gateway::start(asking(&dns, &upstream));
    let check = |address: &str| gateway.cli(&["bots", "check", address, "--user-agent", GOOGLE]);
    let real = check(REAL);
    assert!(real.stdout.contains("verified") && real.stdout.contains("googlebot.com"), "{real:?}");
    assert_eq!(real.code, Some(0));
    let hostile = check("192.0.2.66");
    assert!(hostile.stdout.contains("false") && hostile.stdout.contains("evil"), "{hostile:?}");
    assert!(!hostile.stdout.contains(['\u{1b}', '\u{7}']), "{hostile:?}");
    assert_eq!(hostile.code, Some(1));
    let poisoned = check("192.0.2.67");
    assert!(poisoned.stdout.contains("does not have the address"), "{poisoned:?}");
    let networks = gateway.cli(&["bots", "check", "66.249.66.1"]);
    assert!(networks.stdout.contains("Googlebot"), "{networks:?}");
    let json: serde_json::Value = serde_json::from_str(&gateway.cli_ok(&["bots", "--json"])).unwrap();
    let google = json.as_array().unwrap().iter().find(|bot| bot["name"] == "Googlebot").unwrap();
    assert!(google["networks"].as_u64().unwrap() > 50 && google["strict"] == true, "{google}");
}
