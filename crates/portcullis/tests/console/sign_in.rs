//! Who gets in, and who does not.

use portcullis_testkit::{Client, Gateway, Request};

use crate::person::{PASSWORD, Person, encoded, token_of};
use crate::{alone, config};

#[test]
fn the_link_of_the_terminal_makes_the_first_account_once() {
    let gateway = alone();
    let link = gateway.console_url().to_owned();
    let mut stranger = Person::stranger(&gateway);
    assert!(stranger.page("/login").contains("Nobody can sign in yet"));
    let wrong = [("token", "x"), ("name", "mallory"), ("password", PASSWORD), ("again", PASSWORD)];
    assert_eq!(stranger.send_form("/setup", &wrong).status(), 403);
    // Looking does not use it up.
    let path = format!("/setup?token={}", token_of(&link));
    assert!(stranger.page(&path).contains("Make the first account"));

    let mut alice = Person::operator(&gateway);
    assert!(alice.page("/account").contains("alice"));
    assert!(alice.page("/").contains("Overview"));
    assert_eq!(stranger.get(&path).status(), 403);
    let fields =
        [("token", &*token_of(&link)), ("name", "mallory"), ("password", PASSWORD), ("again", PASSWORD)];
    assert_eq!(stranger.send_form("/setup", &fields).status(), 403);
}

#[test]
fn a_weak_password_does_not_use_up_the_link() {
    let gateway = alone();
    let mut alice = Person::stranger(&gateway);
    let token = token_of(gateway.console_url());
    for (name, password, again) in [
        ("alice", "short", "short"),
        ("alice", "alice-alice-1", "alice-alice-1"),
        ("alice", "password1234", "password1234"),
        ("alice", PASSWORD, "four new lamps"),
        ("al ice", PASSWORD, PASSWORD),
        ("", PASSWORD, PASSWORD),
    ] {
        let fields = [("token", &*token), ("name", name), ("password", password), ("again", again)];
        let answer = alice.send_form("/setup", &fields);
        assert_eq!(answer.status(), 422, "{name} {password}");
        assert!(answer.text().contains("role=\"alert\""));
    }
    alice.set_up(gateway.console_url(), "alice");
}

#[test]
fn whoever_has_not_signed_in_sees_no_page_and_is_led_back_afterwards() {
    let gateway = alone();
    drop(Person::operator(&gateway));
    let mut stranger = Person::stranger(&gateway);
    for path in
        ["/", "/requests?path=%2Fa", "/blocks", "/settings", "/settings/users", "/settings/audit", "/account"]
    {
        let answer = stranger.get(path);
        assert_eq!(answer.status(), 303, "{path}");
        assert!(answer.header("location").unwrap().starts_with("/login"), "{path}");
    }
    let answer = stranger.get("/requests?path=%2Fa");
    assert_eq!(answer.header("location"), Some("/login?next=%2Frequests%3Fpath%3D%252Fa"));
    let fields = [("name", "alice"), ("password", PASSWORD), ("next", "/requests?path=%2Fa")];
    let answer = stranger.send_form("/login", &fields);
    assert_eq!((answer.status(), answer.header("location")), (303, Some("/requests?path=%2Fa")));
    let request = Request::get("/").header("Sec-Fetch-Mode", "cors");
    assert_eq!(Person::stranger(&gateway).send(&request).status(), 401);
}

#[test]
fn the_sign_in_leads_to_no_other_site() {
    let gateway = alone();
    drop(Person::operator(&gateway));
    for next in
        ["https://evil.example/", "//evil.example", "/\\evil.example", "\\evil", "javascript:alert(1)"]
    {
        let fields = [("name", "alice"), ("password", PASSWORD), ("next", next)];
        let answer = Person::stranger(&gateway).send_form("/login", &fields);
        assert_eq!((answer.status(), answer.header("location")), (303, Some("/")), "{next}");
    }
}

#[test]
fn a_wrong_password_and_an_unknown_name_get_the_same_answer() {
    let gateway = alone();
    drop(Person::operator(&gateway));
    let mut stranger = Person::stranger(&gateway);
    let known = stranger.sign_in("alice", "not her password");
    let unknown = stranger.sign_in("aline", "not her password");
    assert_eq!((known.status(), unknown.status()), (422, 422));
    assert_eq!(known.text().replace("alice", "aline"), unknown.text());
    assert!(known.header("set-cookie").is_none());
    // Names are the same in whatever case, passwords are not.
    assert_eq!(stranger.sign_in("alice", &PASSWORD.to_uppercase()).status(), 422);
    assert_eq!(stranger.sign_in("ALICE", PASSWORD).status(), 303);
}

#[test]
fn the_console_is_not_reachable_through_the_proxy() {
    let gateway = Gateway::start(config());
    let console = gateway.console().to_string();
    for path in ["/login", "/setup", "/account", "/settings/users"] {
        let answer = Client::connect(gateway.address()).host(&console).get(path);
        assert!(!answer.text().contains("Portcullis</span>"), "{path}: {}", answer.text());
        assert_ne!(answer.status(), 200, "{path}");
    }
    let answer = Client::connect(gateway.console()).host(&gateway.address().to_string()).get("/login");
    assert_eq!(answer.status(), 421);
}

#[test]
fn a_form_that_is_too_large_is_not_read() {
    let gateway = alone();
    let big = "x".repeat(64 << 10);
    let answer = Person::stranger(&gateway).send_form("/login", &[("name", "alice"), ("password", &big)]);
    assert_eq!(answer.status(), 413);
    assert!(encoded(&[("a b", "ä&=")]).starts_with("a+b="));
}
