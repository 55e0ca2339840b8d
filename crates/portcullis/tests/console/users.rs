//! Users: added, changed and kept out, in the console and at the command line.

use portcullis_testkit::Gateway;

use crate::alone;
use crate::person::{PASSWORD, Person, link_in};

fn in_and_elsewhere(gateway: &Gateway) -> (Person, Person) {
    let mut alice = Person::operator(gateway);
    let bob = Person::viewer(gateway, &mut alice);
    (alice, bob)
}

#[test]
fn disabling_ends_sessions_and_keeps_the_right_password_out() {
    let gateway = alone();
    let (mut alice, mut bob) = in_and_elsewhere(&gateway);
    assert_eq!(bob.get("/").status(), 200);
    let page = alice.change("/settings/users/access", &[("name", "bob"), ("disabled", "true")]);
    assert!(page.contains("bob is disabled"), "{page}");
    assert_eq!(bob.get("/").status(), 303);
    assert_eq!(Person::stranger(&gateway).sign_in("bob", PASSWORD).status(), 422);
    alice.change("/settings/users/access", &[("name", "bob"), ("disabled", "false")]);
    assert_eq!(Person::stranger(&gateway).sign_in("bob", PASSWORD).status(), 303);
}

#[test]
fn a_new_role_holds_from_the_next_sign_in_and_ends_the_sessions_of_the_old_one() {
    let gateway = alone();
    let (mut alice, mut bob) = in_and_elsewhere(&gateway);
    alice.change("/settings/users/role", &[("name", "bob"), ("role", "operator")]);
    assert_eq!(bob.get("/").status(), 303);
    bob.sign_in("bob", PASSWORD);
    assert!(bob.page("/account").contains("operator"));
}

#[test]
fn the_last_operator_stays_one() {
    let gateway = alone();
    let (mut alice, _) = in_and_elsewhere(&gateway);
    for (form, fields) in [
        ("/settings/users/role", [("name", "alice"), ("role", "viewer")]),
        ("/settings/users/access", [("name", "alice"), ("disabled", "true")]),
    ] {
        let answer = alice.post(form, &fields);
        assert_eq!(answer.status(), 409);
        assert!(answer.text().contains("another user an operator first"), "{}", answer.text());
    }
    assert_eq!(gateway.cli(&["console", "role", "alice", "viewer"]).code, Some(2));
    assert_eq!(gateway.cli(&["console", "disable", "alice"]).code, Some(2));
    gateway.cli_ok(&["console", "role", "bob", "operator"]);
    gateway.cli_ok(&["console", "disable", "alice"]);
    assert_eq!(alice.get("/").status(), 303);
}

#[test]
fn a_reset_takes_the_password_and_gives_a_link() {
    let gateway = alone();
    let (mut alice, mut bob) = in_and_elsewhere(&gateway);
    let page = alice.post("/settings/users/link", &[("name", "bob")]);
    assert_eq!(page.status(), 200, "{}", page.text());
    assert_eq!(bob.get("/").status(), 303);
    assert_eq!(Person::stranger(&gateway).sign_in("bob", PASSWORD).status(), 422);
    let link = link_in(&page.text());
    // Without a password there is none to keep.
    let token = crate::person::token_of(&link);
    let fields = [("token", &*token), ("password", ""), ("again", "")];
    assert_eq!(Person::stranger(&gateway).send_form("/setup", &fields).status(), 422);
    bob.use_link(&link);
    assert_eq!(Person::stranger(&gateway).sign_in("bob", PASSWORD).status(), 303);
    assert!(!alice.page("/settings/users").contains(&token));
}

#[test]
fn names_are_taken_in_any_case_and_have_no_odd_characters() {
    let gateway = alone();
    let mut alice = Person::operator(&gateway);
    for (name, status) in [("ALICE", 409), ("<b>", 422), ("a b", 422), ("", 422), ("192.0.2.1", 422)] {
        let answer = alice.post("/settings/users", &[("name", name), ("role", "viewer")]);
        assert_eq!(answer.status(), status, "{name}");
        assert!(!answer.text().contains("<b>"));
    }
    for path in ["/settings/users?done=role&name=%3Cscript%3E", "/login?next=%22%3E%3Cscript%3E"] {
        assert!(!alice.page(path).contains("<script>"), "{path}");
    }
}

#[test]
fn the_command_line_does_all_of_it() {
    let gateway = alone();
    let shown = gateway.cli_ok(&["console"]);
    assert!(shown.contains("0 users") && shown.contains("console link"), "{shown}");
    let link = link_in(&gateway.cli_ok(&["console", "add", "dora", "--role", "viewer", "--link"]));
    let mut dora = Person::stranger(&gateway);
    dora.use_link(&link);
    assert_eq!(dora.get("/account").status(), 200);
    let users = gateway.cli_ok(&["console", "users"]);
    assert!(users.contains("dora") && users.contains("viewer"), "{users}");
    assert!(gateway.cli_ok(&["console", "users", "--json"]).contains("\"has_password\": true"));
    assert_eq!(gateway.cli(&["console", "add", "Dora", "--link"]).code, Some(2));
    assert_eq!(gateway.cli(&["console", "unlock", "nobody"]).code, Some(2));
    // Standard input is no terminal here, and there is nothing on it.
    let asked = gateway.cli(&["console", "add", "eve"]);
    assert!(asked.code == Some(2) && asked.stderr.contains("--password-stdin"), "{asked:?}");
    gateway.cli_ok(&["console", "disable", "dora"]);
    gateway.cli_ok(&["console", "enable", "dora"]);
    assert_eq!(dora.get("/account").status(), 303);
    gateway.cli_ok(&["console", "role", "dora", "operator"]);
    let token = gateway.cli_ok(&["console", "token", "add", "t1", "--scope", "write", "--json"]);
    assert!(token.contains("\"token\": \"pk_"), "{token}");
    assert!(gateway.cli_ok(&["console", "tokens"]).contains("t1"));
    gateway.cli_ok(&["console", "token", "revoke", "t1"]);
    assert_eq!(gateway.cli(&["console", "token", "revoke", "t1"]).code, Some(3));
}
