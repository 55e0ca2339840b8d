//! Who may change something, and what a change must come with: every form that there is.
//!
//! Owns the list of forms, which it reads in the pages' source, so that none is forgotten.

use std::fs;
use std::path::Path;

use portcullis_testkit::{Client, Request};

use crate::alone;
use crate::person::{PASSWORD, Person, encoded};

const PAGES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../admin/src/console/pages");
/// Pages that are for everybody, or for whoever has signed in.
const OWN: [&str; 3] = ["account.rs", "login.rs", "setup.rs"];

/// The addresses of all forms that change something for everybody.
fn forms() -> Vec<String> {
    let mut found = Vec::new();
    read(Path::new(PAGES), &mut found);
    assert!(found.len() >= 20, "{found:?}");
    for known in ["/blocks", "/settings/users/role", "/settings/tokens/revoke"] {
        assert!(found.iter().any(|form| form == known), "{known} is not in {found:?}");
    }
    found
}

fn read(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read(&path, found);
        } else if !OWN.iter().any(|own| path.ends_with(own)) {
            let source = fs::read_to_string(&path).unwrap();
            let here =
                source.split_once("const HERE: &str = \"").and_then(|(_, rest)| rest.split('"').next());
            for route in source.split(".route(").skip(1) {
                let route = &route[..end(route)];
                let (address, handlers) = route.split_once(',').unwrap();
                if handlers.contains("post(") {
                    let address = match address.trim().strip_prefix('"') {
                        Some(address) => address.trim_end_matches('"'),
                        None => here.expect("the address of a route is written out, or HERE"),
                    };
                    found.push(address.replace("{id}", "1").replace("{address}", "192.0.2.1"));
                }
            }
        }
    }
}

/// Where the bracket that is open at the beginning closes.
fn end(source: &str) -> usize {
    let mut depth = 1;
    let closing = source.char_indices().find(|(_, c)| {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        depth == 0
    });
    closing.expect("a bracket is not closed").0
}

#[test]
fn a_viewer_can_change_nothing() {
    let gateway = alone();
    let mut alice = Person::operator(&gateway);
    let mut bob = Person::viewer(&gateway, &mut alice);
    let before = gateway.data().state().audit(portcullis_model::UnixMs(0), 1_000).unwrap();
    for form in forms() {
        let answer = bob.post(&form, &[]);
        assert_eq!(answer.status(), 403, "{form}: {}", answer.text());
        assert!(answer.text().contains("Viewers look"), "{form}: {}", answer.text());
    }
    assert_eq!(gateway.data().state().audit(portcullis_model::UnixMs(0), 1_000).unwrap(), before);
    // What is their own they may change.
    let new = "five new lamps";
    bob.change("/account/password", &[("old", PASSWORD), ("new", new), ("again", new)]);
}

#[test]
fn nothing_is_changed_without_a_session() {
    let gateway = alone();
    drop(Person::operator(&gateway));
    for form in forms() {
        let answer = Person::stranger(&gateway).send_form(&form, &[]);
        assert_eq!((answer.status(), answer.header("location")), (303, Some("/login")), "{form}");
    }
}

#[test]
fn a_form_without_the_token_of_its_session_changes_nothing() {
    let gateway = alone();
    let mut alice = Person::operator(&gateway);
    let mut bob = Person::viewer(&gateway, &mut alice);
    let wrong = bob.form_token();
    let mut all = forms();
    all.extend(["/logout", "/account/password", "/account/sessions/end"].map(str::to_owned));
    for form in all {
        for fields in [vec![], vec![("form_token", "")], vec![("form_token", &*wrong)]] {
            let answer = alice.send_form(&form, &fields);
            assert_eq!(answer.status(), 403, "{form} {fields:?}: {}", answer.text());
        }
    }
    assert!(alice.page("/account").contains("alice"));
}

#[test]
fn other_sites_and_other_names_change_nothing() {
    let gateway = alone();
    let mut alice = Person::operator(&gateway);
    let (token, own) = (alice.form_token(), gateway.console().to_string());
    let body = encoded(&[("form_token", &token), ("name", "eve"), ("role", "viewer")]);
    let form = || {
        Request::post("/settings/users", body.clone())
            .header("Content-Type", "application/x-www-form-urlencoded")
            .header("Cookie", alice.cookie.as_ref().unwrap())
    };
    let origins = [
        "https://evil.example".to_owned(),
        "null".to_owned(),
        format!("https://{own}"),
        format!("http://{own}.evil.example"),
        "http://localhost".to_owned(),
    ];
    for origin in origins {
        let answer = Client::connect(gateway.console()).send(&form().header("Origin", &origin));
        assert_eq!(answer.status(), 403, "{origin}");
        assert!(answer.text().contains("another site"), "{origin}");
    }
    for site in ["cross-site", "same-site"] {
        let answer = Client::connect(gateway.console()).send(&form().header("Sec-Fetch-Site", site));
        assert_eq!(answer.status(), 403, "{site}");
    }
    // A stranger's name that leads here (DNS rebinding).
    for host in ["evil.example", "localhost:1", "127.0.0.1"] {
        for request in [form(), Request::get("/login"), Request::get("/api/v1/openapi.json")] {
            let answer = Client::connect(gateway.console()).host(host).send(&request);
            assert_eq!(answer.status(), 421, "{host}");
        }
    }
    let users = gateway.cli_ok(&["console", "users", "--json"]);
    assert!(!users.contains("eve"), "{users}");
    let good = form().header("Origin", &format!("http://{own}")).header("Sec-Fetch-Site", "same-origin");
    assert_eq!(Client::connect(gateway.console()).send(&good).status(), 200);
}
