//! What holds for redaction whatever the query is.

use portcullis_privacy::{REDACTED, SecretNames};
use proptest::prelude::*;

proptest! {
    #[test]
    fn a_secret_never_survives_and_nothing_else_changes(
        before in "[a-f0-9=&;%?#\\[\\]{}\":,é]{0,40}",
        name in prop::sample::select(vec!["token", "API_Key", "user[password]", "%70assword", "session-id"]),
        secret in "[G-Z]{6,30}",
        after in "[a-f0-9=;%]{0,40}",
    ) {
        let names = SecretNames::default();
        let query = format!("{before}&{name}={secret}{after}&last=1");
        let hidden = names.query(&query);
        prop_assert!(!hidden.contains(&secret), "{query} -> {hidden}");
        let ends_as_before = hidden.ends_with(&format!("{name}={REDACTED}&last=1"));
        prop_assert!(ends_as_before, "{query} -> {hidden}");
        prop_assert_eq!(names.query(&hidden), hidden.as_ref());
    }

    #[test]
    fn whatever_is_left_was_there_before(query in "\\PC{0,80}") {
        let names = SecretNames::default();
        for hidden in [names.query(&query), names.path(&query)] {
            let mut rest = query.as_str();
            for piece in hidden.split(REDACTED) {
                let at = rest.find(piece);
                prop_assert!(at.is_some(), "{query} -> {hidden}");
                rest = &rest[at.unwrap_or(0) + piece.len()..];
            }
        }
    }
}
