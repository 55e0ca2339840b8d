//! Where the body of a request ends (RFC 9112, 6): Content-Length and Transfer-Encoding, alone and together.
//!
//! The rule: no line of either, or one Content-Length of digits, or one `Transfer-Encoding: chunked` in
//! HTTP/1.1. Everything else can be read in two ways, and is refused before the upstream sees a byte.

use crate::ground::Ground;
use crate::suite::{Case, run};

/// What would be smuggled, if two servers disagreed about the end of the body.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

/// How a header block frames the body.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Is {
    Absent,
    /// Says the length of `hello`.
    Good,
    Bad,
}

/// Lines of Content-Length.
const LENGTHS: &[(&str, &str, Is)] = &[
    ("no length", "", Is::Absent),
    ("5", "Content-Length: 5\r\n", Is::Good),
    ("5 without a blank", "Content-Length:5\r\n", Is::Good),
    ("5 between blanks", "Content-Length: \t 5 \t\r\n", Is::Good),
    ("in other letters", "cOnTeNt-LeNgTh: 5\r\n", Is::Good),
    ("005", "Content-Length: 005\r\n", Is::Bad),
    ("+5", "Content-Length: +5\r\n", Is::Bad),
    ("-5", "Content-Length: -5\r\n", Is::Bad),
    ("0x5", "Content-Length: 0x5\r\n", Is::Bad),
    ("5.0", "Content-Length: 5.0\r\n", Is::Bad),
    ("5e0", "Content-Length: 5e0\r\n", Is::Bad),
    ("5;", "Content-Length: 5;\r\n", Is::Bad),
    ("5 5", "Content-Length: 5 5\r\n", Is::Bad),
    ("a list of the same", "Content-Length: 5, 5\r\n", Is::Bad),
    ("a list of two", "Content-Length: 5, 6\r\n", Is::Bad),
    ("a list with a hole", "Content-Length: 5,\r\n", Is::Bad),
    ("nothing", "Content-Length:\r\n", Is::Bad),
    ("blanks", "Content-Length:   \r\n", Is::Bad),
    ("a word", "Content-Length: five\r\n", Is::Bad),
    ("quoted", "Content-Length: \"5\"\r\n", Is::Bad),
    ("twice the same", "Content-Length: 5\r\nContent-Length: 5\r\n", Is::Bad),
    ("twice, different", "Content-Length: 5\r\nContent-Length: 0\r\n", Is::Bad),
    ("more than 64 bits", "Content-Length: 18446744073709551621\r\n", Is::Bad),
    ("Arabic digits", "Content-Length: \u{665}\r\n", Is::Bad),
];

/// Lines of Transfer-Encoding.
const CODINGS: &[(&str, &str, Is)] = &[
    ("no coding", "", Is::Absent),
    ("chunked", "Transfer-Encoding: chunked\r\n", Is::Good),
    ("Chunked", "transfer-encoding: Chunked\r\n", Is::Good),
    ("chunked between blanks", "Transfer-Encoding: \t chunked \t\r\n", Is::Good),
    ("xchunked", "Transfer-Encoding: xchunked\r\n", Is::Bad),
    ("chunkedx", "Transfer-Encoding: chunkedx\r\n", Is::Bad),
    ("chunked with a comma", "Transfer-Encoding: chunked,\r\n", Is::Bad),
    ("a comma and chunked", "Transfer-Encoding: ,chunked\r\n", Is::Bad),
    ("chunked with a parameter", "Transfer-Encoding: chunked;q=1\r\n", Is::Bad),
    ("quoted", "Transfer-Encoding: \"chunked\"\r\n", Is::Bad),
    ("identity", "Transfer-Encoding: identity\r\n", Is::Bad),
    ("identity, chunked", "Transfer-Encoding: identity, chunked\r\n", Is::Bad),
    ("chunked, identity", "Transfer-Encoding: chunked, identity\r\n", Is::Bad),
    ("gzip, chunked", "Transfer-Encoding: gzip, chunked\r\n", Is::Bad),
    ("chunked, chunked", "Transfer-Encoding: chunked, chunked\r\n", Is::Bad),
    ("twice", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", Is::Bad),
    ("twice, one unknown", "Transfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n", Is::Bad),
    ("twice, the second unknown", "Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n", Is::Bad),
    ("nothing", "Transfer-Encoding:\r\n", Is::Bad),
];

/// The oracle for one message.
fn framed(name: String, head: String, length: Is, coding: Is, is_1_1: bool) -> Case {
    let bytes = format!("{head}\r\n");
    match (length, coding) {
        (Is::Absent, Is::Absent) => {
            let line = head.lines().next().unwrap_or_default().replace("HTTP/1.0", "HTTP/1.1");
            Case::served(name, bytes, &line).header("content-length", &[]).header("transfer-encoding", &[])
        }
        (Is::Good, Is::Absent) => {
            let sent = Case::served(name, format!("{bytes}hello"), "POST /framing HTTP/1.1").body("hello");
            sent.header("transfer-encoding", &[])
        }
        (Is::Absent, Is::Good) if is_1_1 => {
            let sent =
                Case::served(name, format!("{bytes}5\r\nhello\r\n0\r\n\r\n"), "POST /framing HTTP/1.1");
            sent.body("hello").header("content-length", &[])
        }
        // A length that would end before, at, or after the chunks; whoever is believed, there is something left.
        _ => Case::refused(name, format!("{bytes}5\r\nhello\r\n0\r\n\r\n{SMUGGLED}"), "framing"),
    }
}

/// Every kind of length with every kind of coding.
fn permutations() -> Vec<Case> {
    let mut cases = Vec::new();
    for &(length_name, length, length_is) in LENGTHS {
        for &(coding_name, coding, coding_is) in CODINGS {
            // Two that are bad each for itself say no more together than one of them.
            if length_is == Is::Bad && coding_is == Is::Bad {
                continue;
            }
            let name = format!("length {length_name}; coding {coding_name}");
            let start = "POST /framing HTTP/1.1\r\nHost: a\r\n";
            cases.push(framed(name.clone(), format!("{start}{length}{coding}"), length_is, coding_is, true));
            if length_is != Is::Absent
                && coding_is != Is::Absent
                && (length_is, coding_is) != (Is::Bad, Is::Good)
            {
                let head = format!("{start}{coding}X-Between: 1\r\n{length}");
                cases.push(framed(format!("{name}, the coding first"), head, length_is, coding_is, true));
            }
        }
    }
    cases
}

/// HTTP/1.0 knows no chunks.
fn old_version() -> Vec<Case> {
    let start = "POST /framing HTTP/1.0\r\nHost: a\r\n";
    let lengths = LENGTHS.iter().map(|&(name, length, is)| {
        framed(format!("1.0, length {name}"), format!("{start}{length}"), is, Is::Absent, false).closing()
    });
    let codings = CODINGS.iter().filter(|(_, _, is)| *is != Is::Absent).map(|&(name, coding, is)| {
        framed(format!("1.0, coding {name}"), format!("{start}{coding}"), Is::Absent, is, false)
    });
    lengths.chain(codings).collect()
}

#[test]
fn a_body_has_one_end_or_the_request_is_refused() {
    let ground = Ground::direct();
    let cases: Vec<Case> = permutations().into_iter().chain(old_version()).collect();
    run("framing", &ground, &cases);
}
