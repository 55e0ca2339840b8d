//! The log and what is derived of it.

use std::collections::BTreeSet;

use portcullis_testkit::{Client, Request, Upstream};
use serde_json::{Value, json};

use super::{Program, problem};
use crate::{alone, config, in_front_of};

fn ids(items: &[Value]) -> Vec<&str> {
    items.iter().map(|item| item["id"].as_str().unwrap()).collect()
}

#[test]
fn pages_of_the_log_show_each_request_once_while_more_come() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    let program = Program::reader(&gateway);
    let visit = |from: usize, to: usize| {
        for n in from..to {
            gateway.client_of(&format!("203.0.113.{}", n % 5)).get(&format!("/page/{n}"));
        }
        gateway.data().wait_for_count(to as u64);
    };
    visit(0, 40);
    let first = program.read("/requests?limit=7");
    visit(40, 60);
    let mut seen = first["items"].as_array().unwrap().clone();
    let mut next = first["next"].as_str().map(str::to_owned);
    while let Some(cursor) = next {
        let page = program.read(&format!("/requests?limit=7&cursor={cursor}"));
        seen.extend(page["items"].as_array().unwrap().iter().cloned());
        next = page["next"].as_str().map(str::to_owned);
    }
    assert_eq!(seen.len(), 40);
    assert_eq!(ids(&seen).into_iter().collect::<BTreeSet<_>>().len(), 40);

    let all = program.all("/requests", 9);
    assert_eq!(all.len(), 60);
    let of_one = program.all("/requests?ip=203.0.113.3", 5);
    assert_eq!(of_one.len(), 12);
    assert!(of_one.iter().all(|row| row["ip"] == "203.0.113.3"));
    assert_eq!(program.all("/requests?path=/page/1*&status=2xx&verdict=admitted", 100).len(), 11);
    assert_eq!(
        program.all("/requests?since=2001-01-01T00:00:00Z&until=2002-01-01T00:00:00Z", 100),
        [] as [Value; 0]
    );

    let row = &all[0];
    let id = row["id"].as_str().unwrap();
    assert_eq!(program.read(&format!("/requests/{id}")), *row);
    let decision = program.read(&format!("/decisions/{id}"));
    assert_eq!(decision["request"], *row);
    assert!(decision["outcome"].is_string() && decision["now"].is_string(), "{decision}");
    problem(&program.get("/decisions/0000000000000000"), 404);
    problem(&program.get("/requests/0000000000000000"), 404);
}

#[test]
fn sums_over_the_log_agree_with_it() {
    let upstream = Upstream::start();
    let gateway = portcullis_testkit::Gateway::start(
        config()
            .upstream(&upstream)
            .behind_local_proxy()
            .limit("login", "rate = \"2/5m\"\npaths = [\"/login\"]"),
    );
    let program = Program::reader(&gateway);
    for n in 0..6 {
        gateway.client_of("203.0.113.9").get("/login");
        gateway.client_of("2001:db8:1:2::7").get(&format!("/page/{n}"));
    }
    gateway.data().wait_for_count(12);

    let overview = program.read("/overview?range=hour&top=3");
    assert_eq!(overview["totals"]["requests"], 12);
    assert_eq!(overview["totals"]["verdicts"]["limited"], 4);
    assert_eq!(overview["totals"]["statuses"]["client_error"], 4);
    assert_eq!(overview["clients"][0]["requests"], 6);
    let buckets = overview["series"].as_array().unwrap().iter();
    assert_eq!(buckets.map(|bucket| bucket["requests"].as_u64().unwrap()).sum::<u64>(), 12);
    assert_eq!(program.read("/overview/countries")["items"][0]["requests"], 12);

    let client = program.read("/clients/203.0.113.9?hours=1");
    assert_eq!((&client["requests"], &client["answered"]), (&6.into(), &2.into()));
    assert_eq!(client["top_paths"][0]["path"], "/login");

    let limits = portcullis_testkit::eventually("the limit's events are counted", || {
        let limits = program.read("/limits");
        (limits["items"][0]["events"]["refused"] == 4).then_some(limits)
    });
    assert_eq!(
        (&limits["items"][0]["name"], &limits["items"][0]["admits"]),
        (&"login".into(), &"2/5m".into())
    );
    let events = program.all("/limits/events?client=203.0.113.9&rule=login", 1);
    assert_eq!(events.iter().map(|event| event["count"].as_u64().unwrap()).sum::<u64>(), 4);
    assert_eq!(program.all("/limits/events?client=203.0.113.8", 10), [] as [Value; 0]);
    let health = program.read("/health");
    assert!(health["parts"].as_array().unwrap().iter().any(|part| part["part"] == "Log"), "{health}");
    assert_eq!(program.read("/counters")["connections"].as_u64().map(|n| n < 100), Some(true));
}

#[test]
fn what_is_known_of_an_address_is_told_with_who_says_so() {
    let gateway = alone();
    let program = Program::reader(&gateway);
    let place = program.read("/geo/203.0.113.9");
    assert_eq!(
        (&place["ip"], &place["place"]["country"], &place["says"]),
        (&"203.0.113.9".into(), &Value::Null, &json!([]))
    );
    let crawler = program.read("/bots/203.0.113.9?user_agent=curl/8.5.0");
    assert_eq!((&crawler["status"], &crawler["bot"]), (&"none".into(), &Value::Null));
    // Nobody's address on the Internet: no DNS can say that it is Google's.
    let crawler = program.read("/bots/127.0.0.1?user_agent=Googlebot");
    assert_eq!(crawler["bot"], "Googlebot", "{crawler}");
    assert!(crawler["why"].as_str().unwrap().contains("private"), "{crawler}");
    assert!(program.read("/bots/127.0.0.1")["why"].as_str().unwrap().contains("no crawler's networks"));
}

#[test]
fn the_document_is_that_of_the_repository_and_the_page_for_people_tells_every_operation() {
    let gateway = alone();
    let mut client = Client::connect(gateway.console());
    let served = client.send(&Request::get("/api/v1/openapi.json"));
    assert_eq!(served.header("content-type"), Some("application/json"));
    let kept = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json"));
    assert!(
        served.text() == kept.unwrap(),
        "docs/openapi.json is of another version; make openapi writes it"
    );
    let page = client.send(&Request::get("/api"));
    assert_eq!(page.status(), 200);
    let text = page.text();
    for path in served.json()["paths"].as_object().unwrap().keys() {
        assert!(text.contains(path.as_str()), "{path}");
    }
}
