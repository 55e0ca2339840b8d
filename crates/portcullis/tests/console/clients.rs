//! The page of one client: what it did, what can be done, its data handed out or erased.

use portcullis_testkit::{Gateway, Request, Upstream, eventually};
use serde_json::Value;

use crate::in_front_of;
use crate::person::Person;

const CLIENT: &str = "203.0.113.9";
const HOSTILE: &str = "<script>alert(1)</script>\u{202e}";

fn visit(gateway: &Gateway, client: &str, path: &str) -> u16 {
    gateway.client_of(client).send(&Request::get(path).header("User-Agent", "probe/<b>1</b>")).status()
}

#[test]
fn the_page_of_a_client_says_what_it_did_and_how_it_stands() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    let mut alice = Person::operator(&gateway);
    for path in ["/a", "/a", "/b?x=1"] {
        visit(&gateway, CLIENT, path);
    }
    visit(&gateway, "203.0.113.10", "/a");
    gateway.data().wait_for_count(4);
    let page = alice.page("/clients/203.0.113.9");
    for wanted in [
        "203.0.113.9 is neither blocked nor allowed",
        "Requests over time",
        "probe/&lt;b&gt;1&lt;/b&gt;",
        "/b",
        "GET",
        "Similar clients",
        "/clients/203.0.113.10",
        "All its requests",
    ] {
        assert!(page.contains(wanted), "{wanted} is missing: {page}");
    }
    gateway.cli_ok(&["block", "203.0.113.0/24", "--reason", "a bad street"]);
    let page = alice.page("/clients/203.0.113.9?range=week");
    assert!(page.contains("a bad street") && page.contains("Lift block"), "{page}");
    // One page for one client, however its address is written.
    let answer = alice.get("/clients/%3A%3Affff%3A203.0.113.9");
    assert_eq!((answer.status(), answer.header("location")), (303, Some("/clients/203.0.113.9")));
    assert_eq!(alice.get("/clients/nobody").status(), 404);
    assert!(alice.page("/clients/192.0.2.77").contains("No request in this time"));
}

#[test]
fn an_ipv6_client_is_also_its_64() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    let mut alice = Person::operator(&gateway);
    visit(&gateway, "2001:db8:1:2::7", "/");
    visit(&gateway, "2001:db8:1:2::8", "/");
    gateway.data().wait_for_count(2);
    let page = alice.page("/clients/2001%3Adb8%3A1%3A2%3A%3A7");
    assert!(page.contains("2001:db8:1:2::/64") && page.contains("2 requests in this time"), "{page}");
    let fields = [
        ("network", "2001:db8:1:2::/64"),
        ("expires", "+1h"),
        ("back", "/clients/2001%3Adb8%3A1%3A2%3A%3A7"),
    ];
    let page = alice.change("/blocks", &fields);
    assert!(page.contains("Blocked 2001:db8:1:2::/64") && page.contains("Client 2001:db8:1:2::7"), "{page}");
    eventually("the block has changed", || (visit(&gateway, "2001:db8:1:2::99", "/") == 403).then_some(()));
}

#[test]
fn what_a_client_sent_stays_text() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    let mut alice = Person::operator(&gateway);
    let request = Request::get("/%3Cscript%3Ealert(1)%3C/script%3E")
        .header("User-Agent", HOSTILE)
        .header("Referer", HOSTILE);
    gateway.client_of(CLIENT).send(&request);
    gateway.data().wait_for_count(1);
    let page = alice.page("/clients/203.0.113.9");
    assert!(!page.contains("<script>alert") && !page.contains('\u{202e}'), "{page}");
}

#[test]
fn a_client_s_data_is_handed_out_and_erased_after_it_was_confirmed() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    let mut alice = Person::operator(&gateway);
    for _ in 0..5 {
        visit(&gateway, CLIENT, "/private");
    }
    visit(&gateway, "198.51.100.1", "/other");
    gateway.data().wait_for_count(6);
    alice.change("/blocks", &[("network", CLIENT), ("reason", "x"), ("expires", "never")]);

    let export: Value = serde_json::from_str(&alice.page("/clients/203.0.113.9/export")).unwrap();
    assert_eq!(export["requests"].as_array().unwrap().len(), 5);
    assert!(export["state"]["blocks"].is_array(), "{export}");
    let mut bob = Person::viewer(&gateway, &mut alice);
    assert_eq!(bob.get("/clients/203.0.113.9/export").status(), 403);
    assert_eq!(bob.post("/clients/203.0.113.9/erase", &[("sure", "yes")]).status(), 403);

    let question = alice.post("/clients/203.0.113.9/erase", &[]);
    assert_eq!(question.status(), 200);
    assert!(question.text().contains("5 requests"), "{}", question.text());
    assert_eq!(gateway.data().rows().len(), 6, "nothing has gone yet");

    let done = alice.post("/clients/203.0.113.9/erase", &[("sure", "yes")]);
    assert_eq!(done.status(), 200);
    assert!(done.text().contains("Erased: 5 requests of the log"), "{}", done.text());
    let rows = gateway.data().rows();
    assert!(rows.iter().all(|row| row.client.to_string() != CLIENT));
    assert_eq!(rows.len(), 1);
    eventually("the block has changed", || (visit(&gateway, CLIENT, "/") == 200).then_some(()));
    let audit = gateway.data().state().audit(portcullis_model::UnixMs(0), 10).unwrap();
    assert!(
        audit.iter().any(|entry| entry.actor == "console:alice" && entry.action.contains("eras")),
        "{audit:?}"
    );
}
