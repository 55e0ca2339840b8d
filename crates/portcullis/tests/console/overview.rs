//! The overview: what went through the gateway, how its parts are, and the figures of each second.

use std::time::Duration;

use portcullis_testkit::{Client, Gateway, Request, Upstream, eventually};

use crate::in_front_of;
use crate::person::Person;

/// Bytes of the page and everything that it loads: what a slow line can bear.
const BUDGET: usize = 150_000;
/// As many as may listen.
const MAX_STREAMS: usize = 16;

#[test]
fn the_overview_shows_what_went_through_the_gateway() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    let mut person = Person::operator(&gateway);
    assert!(person.page("/").contains("No request in the last hour"), "before the first request");
    (0..7).for_each(|n| drop(gateway.client_of("192.0.2.1").get(&format!("/page/{n}"))));
    gateway.cli_ok(&["block", "203.0.113.5", "--reason", "tries <b>passwords</b>"]);
    eventually("the block is in force", || {
        (gateway.client_of("203.0.113.5").get("/").status() == 403).then_some(())
    });
    let page = eventually("everything is logged", || {
        let page = person.page("/?range=day");
        page.contains("href=\"/clients/203.0.113.5\"").then_some(page)
    });
    for part in [
        "<td class=\"number\">7</td>",
        "href=\"/clients/192.0.2.1\"",
        "href=\"/requests?path=%2Fpage%2F3&amp;since=24h\"",
        "1 address block",
        "tries &lt;b&gt;passwords&lt;/b&gt;",
        "Verdicts over time",
        "Time to answer",
    ] {
        assert!(page.contains(part), "{part}");
    }
    for range in ["hour", "week", "month"] {
        assert!(person.page(&format!("/?range={range}&map=blocks")).contains("192.0.2.1"), "{range}");
    }
    assert_eq!(person.get("/?range=year").status(), 422);
    assert_eq!(person.get("/?map=%3Cb%3E").status(), 422);
}

#[test]
fn the_overview_fits_through_a_slow_line() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    let mut person = Person::operator(&gateway);
    for n in 0..300 {
        let request =
            Request::get(&format!("/{}/{n}", "long".repeat(10))).header("User-Agent", &"x".repeat(300));
        gateway.client_of(&format!("192.0.2.{}", n % 200)).send(&request);
    }
    let page = eventually("everything is logged", || {
        let page = person.page("/");
        page.contains("300").then_some(page)
    });
    let loaded =
        page.split("\"/assets/").skip(1).map(|rest| format!("/assets/{}", rest.split('"').next().unwrap()));
    let mut loaded: Vec<String> = loaded.collect();
    loaded.sort_unstable();
    loaded.dedup();
    assert!(loaded.len() >= 3, "{loaded:?}");
    let assets: usize = loaded.iter().map(|asset| person.page(asset).len()).sum();
    println!("the overview: {} bytes, {assets} bytes of assets", page.len());
    assert!(page.len() + assets < BUDGET, "{} + {assets} bytes", page.len());
}

#[test]
fn the_parts_of_the_gateway_say_how_they_are() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    let mut person = Person::operator(&gateway);
    let page = person.page("/");
    for (part, said) in [
        ("Log", "rows written"),
        ("Upstreams", "1 of 1 server answering"),
        ("Geo", "countries are unknown"),
        ("Feeds", "none configured"),
        ("Alerts", "nobody is told"),
        ("Tasks", "tasks"),
    ] {
        let (_, rest) = page.split_once(&format!("scope=\"row\">{part}</th>")).expect(part);
        assert!(rest.split("</tr>").next().unwrap().contains(said), "{part}: {page}");
    }
}

/// A connection that listens to the figures of each second.
fn listen(gateway: &Gateway, person: &Person) -> Client {
    let mut client = Client::connect(gateway.console()).host(&gateway.console().to_string());
    client.patience(Duration::from_secs(10));
    client.write_request(&Request::get("/live").header("Cookie", person.cookie.as_deref().unwrap()));
    client
}

#[test]
fn live_figures_come_every_second() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    let person = Person::operator(&gateway);
    let mut live = listen(&gateway, &person);
    live.read_until("event: figures");
    (0..20).for_each(|_| drop(gateway.client_of("192.0.2.1").get("/")));
    eventually("the requests are among the figures", || {
        live.read_until("event: figures");
        let figures = live.read_until("}");
        (!figures.contains("\"requests\":0.0")).then_some(())
    });
}

#[test]
fn as_many_pages_listen_as_there_is_room_for() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    let person = Person::operator(&gateway);
    let mut listening: Vec<Client> = (0..MAX_STREAMS).map(|_| listen(&gateway, &person)).collect();
    for client in &mut listening {
        assert_eq!(client.read_head().status, 200);
    }
    assert_eq!(listen(&gateway, &person).read_head().status, 503);
    drop(listening.pop());
    eventually("the place of the one that left is free", || {
        (listen(&gateway, &person).read_head().status == 200).then_some(())
    });
}
