//! What the files of the data folder hold: no password and no token, whatever was done.

use std::fs;

use crate::alone;
use crate::person::{PASSWORD, Person, link_in, token_of};

#[test]
fn no_password_and_no_token_is_in_any_file() {
    let gateway = alone();
    let first = token_of(gateway.console_url());
    let mut alice = Person::operator(&gateway);
    let session = alice.cookie.clone().unwrap().split_once('=').unwrap().1.to_owned();
    let form = alice.form_token();
    let page = alice.post("/settings/users", &[("name", "bob"), ("role", "viewer")]);
    let link = token_of(&link_in(&page.text()));
    let program = gateway.cli_ok(&["console", "token", "add", "reader"]).trim().to_owned();
    // Typed into the wrong field.
    Person::stranger(&gateway).sign_in("seven-blue-doors", "x");
    Person::stranger(&gateway).sign_in("alice", "seven green doors");

    let secrets =
        [&first, &session, &form, &link, &program, PASSWORD, "seven-blue-doors", "seven green doors"];
    let mut files = 0;
    for entry in fs::read_dir(gateway.data().folder()).unwrap() {
        let path = entry.unwrap().path();
        if !path.is_file() {
            continue;
        }
        files += 1;
        let bytes = fs::read(&path).unwrap();
        for secret in &secrets {
            let is_there = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!is_there, "{secret} is in {}", path.display());
        }
    }
    assert!(files >= 2, "there are only {files} files");
    let said = gateway.stderr();
    for secret in &secrets {
        assert!(!said.contains(*secret), "{secret} is in the log");
    }
}
