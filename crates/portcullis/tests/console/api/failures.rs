//! Who is let in, and what everybody else is told.

use std::time::Duration;

use portcullis_model::Scope;
use portcullis_testkit::{Client, Request, eventually};
use serde_json::{Value, json};

use super::{Program, problem, writable};
use crate::alone;

fn document(program: &Program) -> Value {
    program.read("/openapi.json")
}

/// Every operation of the document, with something in the place of each parameter of its path.
fn operations(document: &Value) -> Vec<(String, String)> {
    let paths = document["paths"].as_object().unwrap().iter();
    let each = paths.flat_map(|(path, methods)| {
        let path = path
            .split('/')
            .map(|part| if part.starts_with('{') { "7" } else { part })
            .collect::<Vec<_>>()
            .join("/");
        methods.as_object().unwrap().keys().map(move |method| (method.to_uppercase(), path.clone()))
    });
    each.collect()
}

#[test]
fn nothing_but_the_document_is_told_to_whoever_has_no_valid_token() {
    let gateway = alone();
    let reader = Program::reader(&gateway);
    let all = operations(&document(&reader));
    assert!(all.len() > 20, "{all:?}");
    let mut client = Client::connect(gateway.console());
    for (method, path) in &all {
        let answer = client.send(&Request::new(method, path));
        if path == "/api/v1/openapi.json" {
            assert_eq!(answer.status(), 200);
            continue;
        }
        problem(&answer, 401);
        assert!(answer.header("www-authenticate").unwrap().starts_with("Bearer"), "{method} {path}");
    }
    // A session is for people's pages, and never counts here.
    let mut person = crate::person::Person::operator(&gateway);
    problem(&person.get("/api/v1/blocks"), 401);
    let other = Request::get("/api/v1/blocks").header("Authorization", &format!("Basic {}", reader.token));
    problem(&client.send(&other), 401);
}

#[test]
fn a_token_to_read_changes_nothing() {
    let gateway = alone();
    let reader = Program::reader(&gateway);
    let mut seen = 0;
    for (method, path) in operations(&document(&reader)) {
        if method == "GET" {
            continue;
        }
        seen += 1;
        let request = Request::new(&method, &path).header("Content-Type", "application/json").body("{}");
        problem(&reader.send(request), 403);
    }
    assert!(seen > 8, "{seen}");
}

#[test]
fn a_token_ends_with_its_time_and_with_its_revocation() {
    let gateway = alone();
    let short = Program::with(&gateway, "short", Scope::Read, Duration::from_secs(2));
    assert_eq!(short.get("/blocks").status(), 200);
    eventually("the token runs out", || (short.get("/blocks").status() == 401).then_some(()));
    let revoked = Program::with(&gateway, "revoked", Scope::Read, Duration::from_secs(600));
    assert_eq!(revoked.get("/blocks").status(), 200);
    let now = portcullis_model::UnixMs(0);
    assert!(writable(&gateway).revoke_api_token("revoked", "cli:test", now).unwrap());
    problem(&revoked.get("/blocks"), 401);
}

#[test]
fn whoever_guesses_tokens_has_to_wait_and_is_told_how_long() {
    let gateway = alone();
    let guesser =
        Program { token: "pk_no-such-token-in-the-whole-world".to_owned(), ..Program::reader(&gateway) };
    let answer = (0..200).map(|_| guesser.get("/blocks")).find(|answer| answer.status() != 401);
    let answer = answer.expect("nobody stopped the guessing");
    problem(&answer, 429);
    assert!(answer.header("retry-after").unwrap().parse::<u64>().unwrap() > 0);
}

#[test]
fn what_is_wrong_with_a_call_is_a_problem_with_its_remedy() {
    let gateway = alone();
    let program = Program::writer(&gateway);
    let mut client = Client::connect(gateway.console());

    for path in ["/api/v1/nothing", "/api/v2/blocks", "/api/", "/api/v1", "/api/v1/blocks/1/2"] {
        problem(&client.send(&Request::get(path)), 404);
    }
    let answer = program.send(Request::new("PATCH", "/api/v1/blocks"));
    problem(&answer, 405);
    let allow = answer.header("allow").unwrap();
    assert!(allow.contains("GET") && allow.contains("POST") && !allow.contains("PATCH"), "{allow}");

    let post = |content_type: &str, body: &str| {
        let request = Request::post("/api/v1/blocks", body);
        program.send(request.header("Content-Type", content_type))
    };
    problem(&post("text/plain", "{}"), 415);
    problem(&post("application/json", "{\"network\""), 400);
    problem(&post("application/json", &format!("{{\"reason\": \"{}\"}}", "x".repeat(3 << 20))), 413);
    let elsewhere = Request::get("/api/v1/blocks").header("Host", "rebound.example");
    problem(&program.send(elsewhere), 421);
    let foreign = Request::post("/api/v1/blocks", "{}").header("Origin", "https://evil.example");
    problem(&program.send(foreign), 403);
}

#[test]
fn a_value_that_cannot_be_is_named_with_what_was_expected() {
    let gateway = alone();
    let program = Program::writer(&gateway);
    let named = |answer: &portcullis_testkit::Response| {
        let problem = problem(answer, 422);
        let error = &problem["errors"][0];
        (error["field"].as_str().unwrap().to_owned(), error["message"].as_str().unwrap().to_owned())
    };
    for (path, field, message) in [
        ("/requests?ip=nobody", "ip", "192.0.2.1"),
        ("/requests?status=99x", "status", "4xx"),
        ("/requests?verdict=maybe", "verdict", "admitted"),
        ("/requests?country=Germany", "country", "two letters"),
        ("/requests?since=yesterday", "since", "RFC 3339"),
        ("/requests?limit=0", "limit", "1 to 1000"),
        ("/requests?limit=1001", "limit", "1 to 1000"),
        ("/requests?cursor=here", "cursor", "cursor"),
        ("/requests?pth=/", "pth", "unknown field"),
        ("/requests?ip=192.0.2.1&ip=192.0.2.2", "(the whole)", "duplicate field `ip`"),
        ("/overview?range=year", "range", "month"),
        ("/overview?top=0", "top", "1 to 100"),
        ("/clients/nobody", "ip", "address"),
        ("/clients/192.0.2.1?hours=0", "hours", "1 to 8784"),
        ("/decisions/short", "id", "decision ID"),
        ("/blocks/seven", "id", "i64"),
    ] {
        let (at, says) = named(&program.get(path));
        assert_eq!(at, field, "{path}: {says}");
        assert!(says.contains(message), "{path}: {says}");
    }
    for (body, field, message) in [
        (json!({}), "(the whole)", "network"),
        (json!({ "network": 7 }), "network", "string"),
        (json!({ "network": "192.0.2.0/33" }), "network", "a prefix"),
        (json!({ "network": "192.0.2.1", "reason": "x".repeat(501) }), "reason", "at most 500"),
        (json!({ "network": "192.0.2.1", "until": "now" }), "until", "unknown field"),
        (
            json!({ "network": "192.0.2.1", "expires_at": "2020-01-01T00:00:00Z" }),
            "expires_at",
            "not in the future",
        ),
        (json!({ "network": "192.0.2.1", "expires_in": 0 }), "expires_in", "seconds"),
        (
            json!({ "network": "192.0.2.1", "expires_in": 1, "expires_at": "2030-01-01T00:00:00Z" }),
            "expires_in",
            "one of",
        ),
    ] {
        let (at, says) = named(&program.post("/blocks", &body));
        assert_eq!(at, field, "{body}: {says}");
        assert!(says.contains(message), "{body}: {says}");
    }
    let (at, _) = named(
        &program
            .post("/blocks/import", &json!({ "blocks": [{ "network": "192.0.2.1" }, { "network": "x" }] })),
    );
    assert_eq!(at, "blocks[1].network");
}
