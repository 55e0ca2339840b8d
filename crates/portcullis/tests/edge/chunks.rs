//! Chunked bodies (RFC 9112, 7.1).
//!
//! The rule: `SIZE[;extension] CRLF data CRLF`, one to sixteen hexadecimal digits, at last `0 CRLF CRLF`.
//! Trailers are refused, since servers do not agree on what they may change. The upstream may have seen the
//! head when a later chunk turns out to be bad, but never a whole request.

use std::time::Duration;

use crate::ground::Ground;
use crate::suite::{Case, Step, run};

const HEAD: &str = "POST /chunks HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
const LINE: &str = "POST /chunks HTTP/1.1";

/// A name, the body on the wire, and what it says.
const GOOD: &[(&str, &str, &str)] = &[
    ("one chunk", "5\r\nhello\r\n0\r\n\r\n", "hello"),
    ("no data", "0\r\n\r\n", ""),
    ("two chunks", "2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", "hello"),
    ("a chunk for each byte", "1\r\nh\r\n1\r\ne\r\n1\r\nl\r\n1\r\nl\r\n1\r\no\r\n0\r\n\r\n", "hello"),
    ("an upper-case size", "A\r\n0123456789\r\n0\r\n\r\n", "0123456789"),
    ("a lower-case size", "a\r\n0123456789\r\n0\r\n\r\n", "0123456789"),
    ("leading zeros", "0005\r\nhello\r\n0\r\n\r\n", "hello"),
    ("sixteen digits", "0000000000000005\r\nhello\r\n0\r\n\r\n", "hello"),
    ("a long last chunk", "5\r\nhello\r\n0000\r\n\r\n", "hello"),
    ("line ends as data", "4\r\n\r\n\r\n\r\n0\r\n\r\n", "\r\n\r\n"),
    ("a last chunk as data", "5\r\n0\r\n\r\n\r\n0\r\n\r\n", "0\r\n\r\n"),
    ("an extension", "5;a\r\nhello\r\n0\r\n\r\n", "hello"),
    ("an extension with a value", "5;a=b\r\nhello\r\n0\r\n\r\n", "hello"),
    ("a quoted extension", "5;a=\"b c;d\"\r\nhello\r\n0\r\n\r\n", "hello"),
    ("extensions", "5;a;b;c=d\r\nhello\r\n0;last\r\n\r\n", "hello"),
];

/// Bad from the first byte on, so that nothing of the body can be passed on.
const BAD: &[(&str, &str)] = &[
    ("no size", "\r\nhello\r\n0\r\n\r\n"),
    ("an extension without a size", ";a\r\nhello\r\n0\r\n\r\n"),
    ("a sign", "+5\r\nhello\r\n0\r\n\r\n"),
    ("a negative size", "-5\r\nhello\r\n0\r\n\r\n"),
    ("0x", "0x5\r\nhello\r\n0\r\n\r\n"),
    ("a blank before the size", " 5\r\nhello\r\n0\r\n\r\n"),
    ("a blank after the size", "5 \r\nhello\r\n0\r\n\r\n"),
    ("a blank before the extension", "5 ;a\r\nhello\r\n0\r\n\r\n"),
    ("a tab after the size", "5\t\r\nhello\r\n0\r\n\r\n"),
    ("an underscore", "0_5\r\nhello\r\n0\r\n\r\n"),
    ("a comma", "5,5\r\nhello\r\n0\r\n\r\n"),
    ("no hexadecimal digit", "g\r\nhello\r\n0\r\n\r\n"),
    ("seventeen digits", "00000000000000005\r\nhello\r\n0\r\n\r\n"),
    ("more than 64 bits", "10000000000000005\r\nhello\r\n0\r\n\r\n"),
    ("more than 63 bits", "ffffffffffffffff\r\nhello\r\n0\r\n\r\n"),
    ("LF after the size", "5\nhello\r\n0\r\n\r\n"),
    ("CR after the size", "5\rhello\r\n0\r\n\r\n"),
    ("CR CR LF after the size", "5\r\r\nhello\r\n0\r\n\r\n"),
    ("NUL in the size", "5\0\r\nhello\r\n0\r\n\r\n"),
    ("LF in an extension", "5;a\nhello\r\n0\r\n\r\n"),
    ("CR in an extension", "5;a\rb\r\nhello\r\n0\r\n\r\n"),
    ("NUL in an extension", "5;a\0\r\nhello\r\n0\r\n\r\n"),
    ("a control in an extension", "5;a\x07\r\nhello\r\n0\r\n\r\n"),
    ("DEL in an extension", "5;\x7f\r\nhello\r\n0\r\n\r\n"),
    ("a byte beyond ASCII in an extension", "5;\u{e9}\r\nhello\r\n0\r\n\r\n"),
    ("a vertical tab", "5\x0b\r\nhello\r\n0\r\n\r\n"),
    ("text", "hello"),
    ("a request", "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"),
];

/// Bad after a good chunk, or at the end: the upstream may have begun.
const BAD_LATER: &[(&str, &str)] = &[
    ("data longer than its size", "4\r\nhello\r\n0\r\n\r\n"),
    ("data shorter than its size", "6\r\nhello\r\n0\r\n\r\n"),
    ("LF after the data", "5\r\nhello\n0\r\n\r\n"),
    ("CR after the data", "5\r\nhello\r0\r\n\r\n"),
    ("nothing after the data", "5\r\nhello0\r\n\r\n"),
    ("two line ends after the data", "5\r\nhello\r\n\r\n0\r\n\r\n"),
    ("LF after the last size", "5\r\nhello\r\n0\n\r\n"),
    ("LF at the end", "5\r\nhello\r\n0\r\n\n"),
    ("CR at the end", "5\r\nhello\r\n0\r\n\rX"),
    ("LF LF at the end", "5\r\nhello\r\n0\n\n"),
    ("a bad second size", "5\r\nhello\r\nzz\r\n\r\n"),
    ("a trailer", "5\r\nhello\r\n0\r\nX-Trailer: 1\r\n\r\n"),
    ("a trailer that frames", "5\r\nhello\r\n0\r\nContent-Length: 5\r\n\r\n"),
    ("a trailer that names a client", "5\r\nhello\r\n0\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n"),
    ("a request as a trailer", "5\r\nhello\r\n0\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("a trailer without a colon", "5\r\nhello\r\n0\r\nbroken\r\n\r\n"),
];

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for &(name, body, says) in GOOD {
        let good = |name: String, steps: Vec<Step>| {
            Case::served(name, "", LINE).steps(steps).body(says).header("content-length", &[])
        };
        cases.push(good(name.to_owned(), vec![Step::Send([HEAD, body].concat().into_bytes())]));
        cases.push(good(
            format!("{name}, after the head"),
            vec![
                Step::Send(HEAD.as_bytes().to_vec()),
                Step::Pause(Duration::from_millis(20)),
                Step::Send(body.as_bytes().to_vec()),
            ],
        ));
        let bytes =
            body.bytes().flat_map(|byte| [Step::Send(vec![byte]), Step::Pause(Duration::from_millis(1))]);
        let head = [Step::Send(HEAD.as_bytes().to_vec())];
        cases.push(good(format!("{name}, byte by byte"), head.into_iter().chain(bytes).collect()));
    }
    for &(name, body) in BAD.iter().chain(BAD_LATER) {
        let bytes = [HEAD, body].concat();
        cases.extend(Case::refused(name, bytes, "framing").perhaps_begun(LINE).and_over_tls());
    }
    let long = format!("{HEAD}5;{}\r\nhello\r\n0\r\n\r\n", "e".repeat(300));
    cases.push(Case::refused("an extension of 300 bytes", long, "framing").perhaps_begun(LINE));
    cases
}

#[test]
fn chunks_are_read_in_one_way() {
    run("chunks", &Ground::direct(), &cases());
}
