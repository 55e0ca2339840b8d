//! What limits count and refuse, and what other limits would have refused.

use portcullis_testkit::{Gateway, Upstream, eventually};

use crate::config;
use crate::person::Person;

/// How many requests each client makes.
const VISITS: [(&str, u32); 3] = [("203.0.113.1", 10), ("203.0.113.2", 7), ("203.0.113.3", 3)];

fn limited(upstream: &Upstream, rate: &str) -> Gateway {
    let limit = format!("rate = \"{rate}\"\npaths = [\"/shop\"]");
    // Nobody is to be blocked for being refused.
    let config = config().upstream(upstream).behind_local_proxy().section("[detection]\nlive = false");
    Gateway::start(config.limit("shop", &limit))
}

/// The requests of all clients, turn by turn; returns how many were refused.
fn visit(gateway: &Gateway) -> u64 {
    let mut refused = 0;
    let mut clients: Vec<_> = VISITS.iter().map(|(client, n)| (gateway.client_of(client), *n)).collect();
    for turn in 0..10 {
        for (client, most) in &mut clients {
            if turn < *most {
                refused += u64::from(client.get("/shop").status() == 429);
                client.get("/other");
            }
        }
    }
    gateway.data().wait_for_count(40);
    refused
}

fn ask(person: &mut Person, rate: &str) -> String {
    person.change("/limits/what-if", &[("rule", "shop"), ("rate", rate), ("span", "1 h")]);
    eventually("the answer", || {
        Some(person.page("/limits")).filter(|page| page.contains("would have been refused"))
    })
}

#[test]
fn what_if_is_what_the_limiter_really_does() {
    let upstream = Upstream::start();
    let gateway = limited(&upstream, "5/1h");
    let mut alice = Person::operator(&gateway);
    let refused = visit(&gateway);
    assert_eq!(refused, 7);
    for rate in ["5/1h", "3/1h", "8/1h", "100/1h"] {
        let other = limited(&upstream, rate);
        let really = visit(&other);
        let page = ask(&mut alice, rate);
        let says = format!("{really} of 20 requests would have been refused");
        assert!(page.contains(&says), "{says:?} is not in\n{page}");
        assert!(page.contains(&format!("as it was refused {refused}")), "{page}");
    }
}

#[test]
fn the_page_shows_what_was_refused_where_and_who_is_near() {
    let upstream = Upstream::start();
    let gateway = limited(&upstream, "5/1h");
    let mut alice = Person::operator(&gateway);
    visit(&gateway);
    let page = eventually("the events", || {
        Some(alice.page("/limits")).filter(|page| page.contains("/requests?path=%2Fshop"))
    });
    for part in ["5/1h", "203.0.113.1", "5 of 5", "3 of 5", "full"] {
        assert!(page.contains(part), "{part:?} is not in\n{page}");
    }
}

#[test]
fn a_question_that_makes_no_sense_is_answered_beside_its_field() {
    let upstream = Upstream::start();
    let gateway = limited(&upstream, "5/1h");
    let mut alice = Person::operator(&gateway);
    let answer = alice.post("/limits/what-if", &[("rule", "shop"), ("rate", "5-m"), ("span", "1 h")]);
    assert_eq!(answer.status(), 422);
    assert!(answer.text().contains("expected N/PERIOD such as"), "{}", answer.text());
    let answer = alice.post("/limits/what-if", &[("rule", "shop"), ("rate", "5/m"), ("span", "9 y")]);
    assert_eq!(answer.status(), 422);
    alice.change("/limits/what-if", &[("rule", "no such"), ("rate", "5/m"), ("span", "1 h")]);
    eventually("the failure", || {
        Some(alice.page("/limits")).filter(|page| page.contains("there is no limit")).map(drop)
    });
    let mut bob = Person::viewer(&gateway, &mut alice);
    assert!(!bob.page("/limits").contains("Compute"));
}
