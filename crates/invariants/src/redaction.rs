//! Redaction: secrets go, nothing is added but what stands for them, and doing it again changes nothing.

use portcullis_privacy::{REDACTED, SecretNames};

/// A query, a path or a referrer.
pub fn redaction(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let names = SecretNames::default();
    for hidden in [names.query(text), names.path(text), names.url(text)] {
        assert!(hidden.len() <= text.len() + REDACTED.len() * (text.len() + 1));
        let mut rest = text;
        for piece in hidden.split(REDACTED) {
            let at = rest.find(piece).expect("what is left was there before, in this order");
            rest = &rest[at + piece.len()..];
        }
    }
    let once = names.query(text).into_owned();
    assert_eq!(names.query(&once), once, "a fixed point");

    let planted = format!("{}&token=QQQQQQQQ{}&last=1", without(text), without(text));
    let hidden = names.query(&planted);
    assert!(!hidden.contains("QQQQQQQQ") && hidden.ends_with("&last=1"), "{planted} -> {hidden}");
}

/// What would end the planted value, or be it.
fn without(text: &str) -> String {
    text.replace(['&', 'Q'], "")
}
