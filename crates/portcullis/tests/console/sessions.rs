//! Sessions: their cookie, and their end.

use std::net::SocketAddr;

use portcullis_testkit::{Authority, Gateway, GatewayConfig, Request, client_config, free_port};
use tempfile::TempDir;

use crate::person::{PASSWORD, Person, field};
use crate::{alone, with_console};

fn set_cookie(person: &mut Person) -> String {
    let answer = person.sign_in("alice", PASSWORD);
    assert_eq!(answer.status(), 303, "{}", answer.text());
    answer.header("set-cookie").unwrap().to_owned()
}

#[test]
fn over_plain_http_the_cookie_is_http_only_and_strict() {
    let gateway = alone();
    drop(Person::operator(&gateway));
    let cookie = set_cookie(&mut Person::stranger(&gateway));
    let (pair, flags) = cookie.split_once(';').unwrap();
    assert!(pair.starts_with("portcullis=") && pair.len() > 50, "{pair}");
    assert_eq!(flags.trim(), "Path=/; HttpOnly; SameSite=Strict");
}

#[test]
fn over_tls_the_cookie_is_secure_and_for_this_host_alone() {
    let (authority, folder) = (Authority::new(), TempDir::new().unwrap());
    let (cert, key) = authority.issue(&["localhost"]).write(folder.path(), "console");
    let pair = format!("{{ cert = \"{}\", key = \"{}\" }}", cert.display(), key.display());
    let gateway = Gateway::start(with_console(&format!("certificate = {pair}")));
    let (console, trust) = (gateway.console(), client_config(&authority, &["http/1.1"]));
    let site = format!("https://localhost:{}", console.port());
    let mut alice = Person::at_site(console, &site).over_tls(&trust);
    alice.set_up(gateway.console_url(), "alice");
    let cookie = set_cookie(&mut alice);
    assert!(cookie.starts_with("__Host-portcullis="), "{cookie}");
    assert!(cookie.ends_with("; Path=/; HttpOnly; SameSite=Strict; Secure"), "{cookie}");
    assert!(alice.page("/account").contains("alice"));
    // Without the prefix anybody could have set it.
    alice.cookie = alice.cookie.map(|cookie| cookie.replace("__Host-", ""));
    assert_eq!(alice.get("/account").status(), 303);
}

#[test]
fn behind_a_proxy_that_speaks_tls_the_cookie_is_secure_too() {
    let console = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let section = format!("[console]\nlisten = \"{console}\"\nurl = \"https://console.example.com\"");
    let gateway = Gateway::start(GatewayConfig::new(env!("CARGO_BIN_EXE_portcullis")).section(&section));
    let link = gateway.console_url();
    assert!(link.starts_with("https://console.example.com/setup?token="), "{link}");
    let mut alice = Person::at_site(console, "https://console.example.com");
    alice.set_up(link, "alice");
    let cookie = set_cookie(&mut alice);
    assert!(cookie.starts_with("__Host-portcullis=") && cookie.ends_with("; Secure"), "{cookie}");
}

#[test]
fn signing_out_ends_the_session_on_the_server() {
    let gateway = alone();
    let mut alice = Person::operator(&gateway);
    let thief = alice.clone();
    let answer = alice.post("/logout", &[]);
    assert_eq!((answer.status(), answer.header("location")), (303, Some("/login")));
    assert!(answer.header("set-cookie").unwrap().contains("Max-Age=0"));
    assert!(alice.cookie.is_none());
    assert_eq!(thief.clone().get("/account").status(), 303);
}

#[test]
fn each_sign_in_is_a_new_session_and_ends_the_one_before() {
    let gateway = alone();
    drop(Person::operator(&gateway));
    let mut alice = Person::stranger(&gateway);
    // A cookie that somebody else has put there is never taken on.
    alice.cookie = Some("portcullis=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".to_owned());
    assert_eq!(alice.get("/account").status(), 303);
    set_cookie(&mut alice);
    let first = alice.clone();
    assert!(!first.cookie.as_ref().unwrap().contains("AAAA"));
    set_cookie(&mut alice);
    assert_ne!(first.cookie, alice.cookie);
    assert_eq!(first.clone().get("/account").status(), 303);
    assert_eq!(alice.get("/account").status(), 200);
}

#[test]
fn a_session_that_nobody_uses_ends_and_one_in_use_ends_too_at_last() {
    let gateway = Gateway::start(with_console("idle_timeout = \"10m\"\nsession_timeout = \"1h\""));
    let mut alice = Person::operator(&gateway);
    let minutes = |minutes: u64| {
        let ms = minutes * 60_000;
        let sql = format!(
            "UPDATE console_sessions SET last_used = last_used - {ms}, expires_at = expires_at - {ms}"
        );
        gateway.data().execute("state.db", &sql);
    };
    for _ in 0..6 {
        minutes(9);
        assert_eq!(alice.get("/account").status(), 200);
    }
    minutes(9);
    assert_eq!(alice.get("/account").status(), 303, "63 minutes are over");
    alice.sign_in("alice", PASSWORD);
    minutes(9);
    // What a page listens to by itself is no use.
    let listening = Request::get("/account").header("Accept", "text/event-stream");
    assert_eq!(alice.send(&listening).status(), 200);
    minutes(2);
    assert_eq!(alice.get("/account").status(), 303);
}

#[test]
fn own_sessions_are_listed_and_ended_and_nobody_elses() {
    let gateway = alone();
    let mut alice = Person::operator(&gateway);
    let mut bob = Person::viewer(&gateway, &mut alice);
    let mut elsewhere = Person::stranger(&gateway);
    elsewhere.sign_in("alice", PASSWORD);
    let page = alice.page("/account");
    let session = field(&page, "session");
    let answer = bob.post("/account/sessions/end", &[("session", &session)]);
    assert_eq!(answer.status(), 404);
    assert_eq!(elsewhere.get("/account").status(), 200);
    alice.change("/account/sessions/end", &[("session", &session)]);
    assert_eq!(elsewhere.get("/account").status(), 303);
    assert_eq!(alice.get("/account").status(), 200);
}

#[test]
fn a_new_password_ends_all_other_sessions() {
    let gateway = alone();
    let mut alice = Person::operator(&gateway);
    let mut elsewhere = Person::stranger(&gateway);
    elsewhere.sign_in("alice", PASSWORD);
    let new = "five new lamps";
    for (old, one, again) in
        [("not this one", new, new), (PASSWORD, new, "other"), (PASSWORD, "short", "short")]
    {
        let answer = alice.post("/account/password", &[("old", old), ("new", one), ("again", again)]);
        assert_eq!(answer.status(), 422);
    }
    assert_eq!(elsewhere.get("/account").status(), 200);
    alice.change("/account/password", &[("old", PASSWORD), ("new", new), ("again", new)]);
    assert_eq!(elsewhere.get("/account").status(), 303);
    assert_eq!(Person::stranger(&gateway).sign_in("alice", PASSWORD).status(), 422);
    assert_eq!(Person::stranger(&gateway).sign_in("alice", new).status(), 303);
}
