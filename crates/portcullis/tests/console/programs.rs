//! Tokens of programs: made, shown once, and no longer good than they should be.

use portcullis_testkit::{Client, Gateway, Request, Response};

use crate::alone;
use crate::person::{Person, link_in};

fn call(gateway: &Gateway, method: &str, path: &str, token: &str) -> Response {
    let authorization = format!("Bearer {token}");
    let request = Request::new(method, path)
        .header("Authorization", &authorization)
        .header("Content-Type", "application/json")
        .body("{}");
    Client::connect(gateway.console()).send(&request)
}

fn may_read(gateway: &Gateway, token: &str) -> bool {
    match call(gateway, "GET", "/api/v1/requests", token).status() {
        200 => true,
        401 => false,
        status => panic!("{status}"),
    }
}

fn token_in(text: &str) -> String {
    let (_, rest) = text.split_once("pk_").expect("there is no token");
    let is_token = |c: &char| c.is_ascii_alphanumeric() || "-_".contains(*c);
    format!("pk_{}", rest.chars().take_while(is_token).collect::<String>())
}

#[test]
fn a_token_is_shown_once_and_lasts_until_it_is_revoked() {
    let gateway = alone();
    let mut alice = Person::operator(&gateway);
    let made = alice.post("/settings/tokens", &[("name", "grafana"), ("scope", "read"), ("days", "7")]);
    assert_eq!(made.status(), 200, "{}", made.text());
    let token = token_in(&made.text());
    assert!(may_read(&gateway, &token));
    let list = alice.page("/settings/tokens");
    assert!(list.contains("grafana") && !list.contains("pk_A") && !list.contains(&token));
    for (fields, status) in [
        ([("name", "grafana"), ("scope", "read"), ("days", "7")], 409),
        ([("name", "a b"), ("scope", "read"), ("days", "7")], 422),
        ([("name", "x"), ("scope", "read"), ("days", "10000")], 422),
        ([("name", "x"), ("scope", "all"), ("days", "7")], 422),
    ] {
        assert_eq!(alice.post("/settings/tokens", &fields).status(), status, "{fields:?}");
    }
    alice.change("/settings/tokens/revoke", &[("name", "grafana")]);
    assert!(!may_read(&gateway, &token));
}

#[test]
fn a_token_to_read_changes_nothing() {
    let gateway = alone();
    let token = gateway.cli_ok(&["console", "token", "add", "reader", "--expires", "+1h"]);
    let answer = call(&gateway, "POST", "/api/v1/blocks", token.trim());
    assert_eq!(answer.status(), 403, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    assert!(may_read(&gateway, token.trim()));
    let audit = gateway.data().state().audit(portcullis_model::UnixMs(0), 10).unwrap();
    assert!(audit.iter().any(|entry| entry.action == "token-add" && entry.origin.is_none()), "{audit:?}");
}

#[test]
fn a_token_that_has_run_out_or_is_none_is_refused() {
    let gateway = alone();
    let token = gateway.cli_ok(&["console", "token", "add", "short"]);
    assert!(may_read(&gateway, token.trim()));
    gateway.data().execute("state.db", "UPDATE api_tokens SET expires_at = 1");
    assert!(!may_read(&gateway, token.trim()));
    for wrong in ["", "pk_", "pk_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", &"x".repeat(5_000)] {
        assert!(!may_read(&gateway, wrong), "{wrong}");
    }
    let too_long = gateway.cli(&["console", "token", "add", "long", "--expires", "+400d"]);
    assert_eq!(too_long.code, Some(2), "{too_long:?}");
    assert_eq!(gateway.cli(&["console", "token", "add", "ever", "--expires", "never"]).code, Some(2));
}

#[test]
fn who_guesses_tokens_is_not_listened_to_any_more() {
    let gateway = alone();
    let good = gateway.cli_ok(&["console", "token", "add", "good"]);
    for _ in 0..100 {
        assert!(!may_read(&gateway, "pk_guess"));
    }
    let answer = call(&gateway, "GET", "/api/v1/requests", good.trim());
    assert_eq!(answer.status(), 429, "{}", answer.text());
    assert!(answer.header("retry-after").is_some());
}

#[test]
fn sessions_are_for_pages_and_tokens_for_the_api() {
    let gateway = alone();
    let mut alice = Person::operator(&gateway);
    assert_eq!(alice.get("/api/v1/requests").status(), 401);
    let token = gateway.cli_ok(&["console", "token", "add", "writer", "--scope", "write"]);
    for path in ["/", "/requests", "/settings/users", "/account"] {
        assert_eq!(call(&gateway, "GET", path, token.trim()).status(), 303, "{path}");
    }
    // Nor is one the other: the token of a session is none of a program, and the other way round.
    let session = alice.cookie.clone().unwrap();
    assert!(!may_read(&gateway, session.split_once('=').unwrap().1));
    alice.cookie = Some(format!("portcullis={}", token.trim()));
    assert_eq!(alice.get("/account").status(), 303);
}

#[test]
fn a_token_ends_with_what_its_maker_may_do() {
    let gateway = alone();
    let mut alice = Person::operator(&gateway);
    let added = alice.post("/settings/users", &[("name", "carol"), ("role", "operator")]);
    let mut carol = Person::stranger(&gateway);
    carol.use_link(&link_in(&added.text()));
    let make = |carol: &mut Person, name: &str, scope: &str| {
        let fields = [("name", name), ("scope", scope), ("days", "30")];
        token_in(&carol.post("/settings/tokens", &fields).text())
    };
    let (reads, writes) = (make(&mut carol, "reads", "read"), make(&mut carol, "writes", "write"));
    assert!(may_read(&gateway, &reads) && may_read(&gateway, &writes));
    alice.change("/settings/users/role", &[("name", "carol"), ("role", "viewer")]);
    assert!(may_read(&gateway, &reads) && !may_read(&gateway, &writes));
    alice.change("/settings/users/access", &[("name", "carol"), ("disabled", "true")]);
    assert!(!may_read(&gateway, &reads));
}
