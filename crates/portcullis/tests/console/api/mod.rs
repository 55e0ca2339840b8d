//! The JSON API as programs use it.

mod changes;
mod failures;
mod reading;
mod schema;

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use portcullis_admin::{digest_of, new_api_token};
use portcullis_model::{Scope, UnixMs};
use portcullis_store::{NewApiToken, State};
use portcullis_testkit::{Client, Gateway, Request, Response};
use serde_json::Value;

/// A program with a token.
#[derive(Clone)]
struct Program {
    console: SocketAddr,
    token: String,
}

impl Program {
    /// One that may do everything.
    fn writer(gateway: &Gateway) -> Self {
        Self::with(gateway, "writer", Scope::Write, Duration::from_secs(3_600))
    }

    /// One that may look.
    fn reader(gateway: &Gateway) -> Self {
        Self::with(gateway, "reader", Scope::Read, Duration::from_secs(3_600))
    }

    fn with(gateway: &Gateway, name: &str, scope: Scope, lasts: Duration) -> Self {
        let (token, now) = (new_api_token(), UnixMs::from_system(SystemTime::now()));
        let new = NewApiToken {
            digest: digest_of(&token),
            name,
            scope,
            user_id: None,
            expires_at: now.plus(lasts),
        };
        writable(gateway).add_api_token(&new, "cli:test", now).unwrap().unwrap();
        Self { console: gateway.console(), token: token.expose().to_owned() }
    }

    fn send(&self, request: Request) -> Response {
        let request = request.header("Authorization", &format!("Bearer {}", self.token));
        Client::connect(self.console).send(&request)
    }

    fn get(&self, path: &str) -> Response {
        self.send(Request::get(&format!("/api/v1{path}")))
    }

    /// What there is.
    fn read(&self, path: &str) -> Value {
        let answer = self.get(path);
        assert_eq!(answer.status(), 200, "{path}: {}", answer.text());
        answer.json()
    }

    fn post(&self, path: &str, body: &Value) -> Response {
        let request = Request::post(&format!("/api/v1{path}"), body.to_string());
        self.send(request.header("Content-Type", "application/json"))
    }

    /// What was changed.
    fn change(&self, path: &str, body: &Value) -> Value {
        let answer = self.post(path, body);
        assert!(matches!(answer.status(), 200 | 201), "{path} {body}: {}", answer.text());
        answer.json()
    }

    fn delete(&self, path: &str) -> Response {
        self.send(Request::new("DELETE", &format!("/api/v1{path}")))
    }

    /// All items of a list, page by page; no page is longer than `limit`.
    fn all(&self, path: &str, limit: usize) -> Vec<Value> {
        let separator = if path.contains('?') { '&' } else { '?' };
        let (mut items, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = self.read(&format!("{path}{separator}limit={limit}{cursor}"));
            let of_page = page["items"].as_array().unwrap();
            assert!(of_page.len() <= limit, "{path}: {}", of_page.len());
            items.extend(of_page.iter().cloned());
            match page["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return items,
            }
        }
    }
}

/// The state, as a command beside the gateway opens it.
fn writable(gateway: &Gateway) -> State {
    State::open_existing(gateway.data().folder()).unwrap()
}

/// The number of something.
fn id(value: &Value) -> i64 {
    value["id"].as_i64().unwrap_or_else(|| panic!("{value} has no number"))
}

/// A refusal as the API tells every one of them.
fn problem(answer: &Response, status: u16) -> Value {
    assert_eq!(answer.status(), status, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{}", answer.text());
    let problem = answer.json();
    assert_eq!(problem["status"], status);
    assert!(problem["type"].as_str().unwrap().starts_with("/api#"), "{problem}");
    assert!(problem["title"].is_string() && problem["detail"].as_str().unwrap().len() > 10, "{problem}");
    problem
}
