//! Guessing passwords: how often, and that nobody is kept out for ever by somebody else who guesses.

use crate::alone;
use crate::person::{PASSWORD, Person, link_in};

#[test]
fn after_five_wrong_passwords_even_the_right_one_waits_until_the_server_unlocks_the_name() {
    let gateway = alone();
    drop(Person::operator(&gateway));
    let mut stranger = Person::stranger(&gateway);
    for _ in 0..5 {
        assert_eq!(stranger.sign_in("alice", "four new lamps").status(), 422);
    }
    let locked = stranger.sign_in("alice", PASSWORD);
    assert_eq!(locked.status(), 429);
    let wait: u64 = locked.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=900).contains(&wait), "{wait}");
    assert!(locked.text().contains("portcullis console unlock alice"), "{}", locked.text());
    // Whatever the case, and from wherever.
    assert_eq!(stranger.clone().at("127.0.0.9").sign_in("ALICE", PASSWORD).status(), 429);

    gateway.cli_ok(&["console", "unlock", "alice"]);
    assert_eq!(stranger.sign_in("alice", PASSWORD).status(), 303);
    let audit = Person::page(&mut stranger, "/settings/audit");
    for action in ["login-failed", "login-locked", "user-unlock", "127.0.0.1"] {
        assert!(audit.contains(action), "{action}");
    }
}

#[test]
fn names_that_nobody_has_are_locked_as_those_that_somebody_has() {
    let gateway = alone();
    drop(Person::operator(&gateway));
    let mut stranger = Person::stranger(&gateway);
    for _ in 0..5 {
        assert_eq!(stranger.sign_in("nobody", "four new lamps").status(), 422);
    }
    let locked = stranger.sign_in("nobody", PASSWORD);
    assert_eq!(locked.status(), 429);
    assert!(locked.text().contains("portcullis console unlock nobody"));
}

#[test]
fn an_address_that_tries_many_names_is_locked_and_others_are_not() {
    let gateway = alone();
    drop(Person::operator(&gateway));
    let mut guesser = Person::stranger(&gateway).at("127.0.0.7");
    for number in 0..20 {
        assert_eq!(guesser.sign_in(&format!("name{number}"), "four new lamps").status(), 422, "{number}");
    }
    let locked = guesser.sign_in("alice", PASSWORD);
    assert_eq!(locked.status(), 429);
    assert!(locked.text().contains("from your address"), "{}", locked.text());
    assert_eq!(Person::stranger(&gateway).at("127.0.0.8").sign_in("alice", PASSWORD).status(), 303);
}

#[test]
fn many_at_once_are_no_more_than_one_after_another() {
    let gateway = alone();
    drop(Person::operator(&gateway));
    let stranger = Person::stranger(&gateway);
    let guesses: Vec<_> = (0..12)
        .map(|_| {
            let mut stranger = stranger.clone();
            std::thread::spawn(move || stranger.sign_in("alice", "four new lamps").status())
        })
        .collect();
    let answers: Vec<u16> = guesses.into_iter().map(|guess| guess.join().unwrap()).collect();
    assert_eq!(answers.iter().filter(|status| **status == 422).count(), 5, "{answers:?}");
    assert_eq!(answers.iter().filter(|status| **status == 429).count(), 7, "{answers:?}");
}

#[test]
fn a_link_of_the_server_lets_a_locked_operator_in_without_a_new_password() {
    let gateway = alone();
    drop(Person::operator(&gateway));
    let mut guesser = Person::stranger(&gateway);
    for _ in 0..6 {
        guesser.sign_in("alice", "four new lamps");
    }
    let link = link_in(&gateway.cli_ok(&["console", "link"]));
    let mut alice = Person::stranger(&gateway);
    let page = alice.page(&link[link.find("/setup").unwrap()..]);
    assert!(page.contains("keep the password"), "{page}");
    let token = crate::person::token_of(&link);
    let fields = [("token", &*token), ("password", ""), ("again", "")];
    assert_eq!(alice.send_form("/setup", &fields).status(), 303);
    assert!(alice.page("/account").contains("alice"));
    // Once.
    assert_eq!(Person::stranger(&gateway).send_form("/setup", &fields).status(), 403);
    gateway.cli_ok(&["console", "unlock", "alice"]);
    assert_eq!(Person::stranger(&gateway).sign_in("alice", PASSWORD).status(), 303);
}
