//! How the lines of a head end (RFC 9112, 2.2): in CR LF and in nothing else, at every place where a line ends.

use std::time::Duration;

use crate::ground::Ground;
use crate::suite::{Case, Step, run};

/// Lines of a head; each is followed by an ending.
const LINES: [(&str, &str); 5] = [
    ("the request line", "GET /lines HTTP/1.1"),
    ("Host", "Host: a"),
    ("a header", "X-One: 1"),
    ("the last header", "X-Two: 2"),
    ("the empty line", ""),
];

/// What a line ends with in place of CR LF, and as what it is refused at the request line, at a header, and at
/// the empty line.
const ENDINGS: &[(&str, &str, [&str; 3])] = &[
    ("LF", "\n", ["line_ending"; 3]),
    ("CR", "\r", ["line_ending"; 3]),
    ("LF CR", "\n\r", ["line_ending"; 3]),
    ("CR CR LF", "\r\r\n", ["line_ending"; 3]),
    ("NUL", "\0", ["line_ending"; 3]),
    ("NUL CR LF", "\0\r\n", ["line_ending"; 3]),
    ("CR NUL LF", "\r\0\n", ["line_ending"; 3]),
    ("vertical tab CR LF", "\x0b\r\n", ["target", "header_syntax", "header_syntax"]),
    ("form feed CR LF", "\x0c\r\n", ["target", "header_syntax", "header_syntax"]),
    ("NEL", "\u{85}\r\n", ["bad_request", "", "header_syntax"]),
    ("a blank CR LF", " \r\n", ["target", "", "header_syntax"]),
    ("a tab CR LF", "\t\r\n", ["target", "", "header_syntax"]),
];

fn at_every_line() -> Vec<Case> {
    let mut cases = Vec::new();
    for (at, (line_name, _)) in LINES.iter().enumerate() {
        for (ending_name, ending, kinds) in ENDINGS {
            let head: String = LINES
                .iter()
                .enumerate()
                .map(|(n, (_, line))| format!("{line}{}", if n == at { ending } else { "\r\n" }))
                .collect();
            // More than the head, so that a CR at its end cannot wait for its LF.
            let bytes = format!("{head}GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
            let name = format!("{line_name} ends in {ending_name}");
            let kind = kinds[if at == 0 {
                0
            } else if at == 4 {
                2
            } else {
                1
            }];
            // Blanks around a value mean nothing, and NEL is two bytes beyond ASCII: in Host they are no host.
            let case = match kind {
                "" if at == 1 && ending.starts_with('\u{85}') => Case::refused(name, bytes, "host"),
                "" => Case::served(name, bytes, "GET /lines HTTP/1.1").closing(),
                kind => Case::refused(name, bytes, kind),
            };
            cases.extend(case.and_over_tls());
        }
    }
    cases
}

fn before_the_request() -> Vec<Case> {
    let request = "GET /lines HTTP/1.1\r\nHost: a\r\n\r\n";
    let line = "GET /lines HTTP/1.1";
    let of = |before: &str| format!("{before}{request}");
    vec![
        Case::served("CR LF first, as old clients do", of("\r\n"), line),
        Case::served("CR LF first, in pieces", "", line).steps(vec![
            Step::Send(b"\r".to_vec()),
            Step::Pause(Duration::from_millis(20)),
            Step::Send(b"\n".to_vec()),
            Step::Pause(Duration::from_millis(20)),
            Step::Send(request.as_bytes().to_vec()),
        ]),
        Case::refused("two empty lines first", of("\r\n\r\n"), "line_ending")
            .or_reason("malformed:bad_request"),
        Case::refused("LF first", of("\n"), "line_ending"),
        Case::refused("CR first", of("\r"), "line_ending"),
        Case::refused("LF LF first", of("\n\n"), "line_ending"),
        Case::refused("a blank first", of(" "), "bad_request"),
        Case::refused("a tab first", of("\t"), "bad_request"),
        Case::refused("NUL first", of("\0"), "line_ending"),
        Case::refused("a byte order mark first", of("\u{feff}"), "bad_request"),
    ]
}

/// A request that is cut in two at every place is the same request.
fn cut_anywhere() -> Vec<Case> {
    let request = b"POST /cut?x=1 HTTP/1.1\r\nHost: a\r\nX-One:  1\r\nContent-Length: 5\r\n\r\nhello";
    let mut cases: Vec<Case> = (1..request.len())
        .map(|at| {
            Case::served(format!("cut at {at}"), "", "POST /cut?x=1 HTTP/1.1").body("hello").steps(vec![
                Step::Send(request[..at].to_vec()),
                Step::Pause(Duration::from_millis(15)),
                Step::Send(request[at..].to_vec()),
            ])
        })
        .collect();
    let bytes =
        request.iter().flat_map(|&byte| [Step::Send(vec![byte]), Step::Pause(Duration::from_millis(1))]);
    let line = "POST /cut?x=1 HTTP/1.1";
    cases.push(Case::served("byte by byte", "", line).body("hello").steps(bytes.collect()));
    cases
}

#[test]
fn a_line_ends_in_cr_lf_and_in_nothing_else() {
    let cases = [at_every_line(), before_the_request()].concat();
    run("line endings", &Ground::direct(), &cases);
}

#[test]
fn where_a_request_is_cut_makes_no_difference() {
    run("cuts", &Ground::direct(), &cut_anywhere());
}
