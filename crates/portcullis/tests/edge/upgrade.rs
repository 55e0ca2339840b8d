//! Changing the protocol (RFC 9110, 7.8; RFC 6455, 4.1): a WebSocket with all that belongs to it, or nothing.

use crate::ground::{Ground, Over};
use crate::suite::{Case, Step, run};

const LINE: &str = "GET /upgrade HTTP/1.1";
const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const VERSION: &str = "Sec-WebSocket-Version: 13\r\n";
const ASKS: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\n";

fn request(lines: &[&str]) -> String {
    format!("{LINE}\r\nHost: a\r\n{}\r\n", lines.concat())
}

/// An upgrade that lacks something, or has too much.
fn bad() -> Vec<(&'static str, String)> {
    let key = |key: &str| request(&[ASKS, &format!("Sec-WebSocket-Key: {key}\r\n"), VERSION]);
    let version = |version: &str| request(&[ASKS, KEY, &format!("Sec-WebSocket-Version: {version}\r\n")]);
    let start = |start: &str| request(&[ASKS, KEY, VERSION]).replace(LINE, start);
    vec![
        ("no key", request(&[ASKS, VERSION])),
        ("no version", request(&[ASKS, KEY])),
        ("neither key nor version", request(&[ASKS])),
        ("an empty key", key("")),
        ("a short key", key("dGhlIHNhbXBsZQ==")),
        ("a long key", key("dGhlIHNhbXBsZSBub25jZSBhbmQgbW9yZQ==")),
        ("a key without padding", key("dGhlIHNhbXBsZSBub25jZQab")),
        ("a key that is no base64", key("dGhlIHNhbXBs*SBub25jZQ==")),
        ("a key of words", key("this is no key at all!==")),
        ("two keys", request(&[ASKS, KEY, KEY, VERSION])),
        ("two versions", request(&[ASKS, KEY, VERSION, VERSION])),
        ("version 8", version("8")),
        ("version 0", version("0")),
        ("an empty version", version("")),
        ("a version of words", version("thirteen")),
        ("versions in a list", version("13, 8")),
        ("POST", start("POST /upgrade HTTP/1.1")),
        ("PUT", start("PUT /upgrade HTTP/1.1")),
        ("HTTP/1.0", start("GET /upgrade HTTP/1.0")),
        ("a body", request(&[ASKS, KEY, VERSION, "Content-Length: 5\r\n"]) + "hello"),
        ("chunks", request(&[ASKS, KEY, VERSION, "Transfer-Encoding: chunked\r\n"]) + "0\r\n\r\n"),
        ("two protocols", request(&["Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n", KEY, VERSION])),
        ("two Upgrade lines", request(&[ASKS, "Upgrade: websocket\r\n", KEY, VERSION])),
    ]
}

/// What asks for no protocol that is spoken here: served as the plain request that it also is.
fn ignored() -> Vec<(&'static str, String)> {
    vec![
        (
            "h2c",
            request(&[
                "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
            ]),
        ),
        ("h2c without Connection", request(&["Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"])),
        ("HTTP2-Settings alone", request(&["HTTP2-Settings: AAMAAABkAAQAAP__\r\n"])),
        ("TLS", request(&["Connection: Upgrade\r\nUpgrade: TLS/1.2\r\n"])),
        ("an unknown protocol", request(&["Connection: Upgrade\r\nUpgrade: x/1\r\n"])),
        ("a WebSocket without Connection", request(&["Upgrade: websocket\r\n"])),
        ("Connection without Upgrade", request(&["Connection: Upgrade\r\n"])),
        ("an empty Upgrade", request(&["Connection: Upgrade\r\nUpgrade:\r\n"])),
    ]
}

fn good() -> Vec<(&'static str, String)> {
    vec![
        ("a WebSocket", request(&[ASKS, KEY, VERSION])),
        ("in other cases", request(&["connection: UPGRADE\r\nupgrade: WebSocket\r\n", KEY, VERSION])),
        (
            "keep-alive too",
            request(&["Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n", KEY, VERSION]),
        ),
        ("with an origin", request(&["Origin: http://a\r\n", ASKS, KEY, VERSION])),
        (
            "with extensions",
            request(&[ASKS, KEY, VERSION, "Sec-WebSocket-Extensions: permessage-deflate\r\n"]),
        ),
        ("with a length of 0", request(&[ASKS, KEY, VERSION, "Content-Length: 0\r\n"])),
    ]
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, bytes) in bad() {
        cases.extend(Case::refused(name, bytes, "upgrade").and_over_tls());
    }
    for (name, bytes) in ignored() {
        cases.extend(Case::served(name, bytes, LINE).either_end().and_over_tls());
    }
    let post = "POST /upgrade HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n";
    for (name, lines) in [
        ("a body with h2c", "Connection: Upgrade\r\nUpgrade: h2c\r\n"),
        ("a body with a WebSocket that Connection does not name", "Upgrade: websocket\r\n"),
    ] {
        let case =
            Case::served(name, format!("{post}{lines}\r\nhello"), "POST /upgrade HTTP/1.1").body("hello");
        cases.extend(case.either_end().and_over_tls());
    }
    for (name, bytes) in good() {
        let case = Case::served(name, bytes, LINE).header("upgrade", &["websocket"]).upgrading();
        // Over TLS an end without a farewell is a client that went.
        let case = case.or_reason("upstream:client_gone");
        for (over, suffix) in [(Over::Plain, ""), (Over::Tls, ", TLS")] {
            let mut case = case.clone().over(over);
            case.name += suffix;
            cases.push(case.then(Step::Await(1)).then(Step::Send(b"ping".to_vec())).tunnelled("ping"));
        }
    }
    cases
}

#[test]
fn a_protocol_is_changed_by_a_whole_request_for_it_alone() {
    run("upgrade", &Ground::direct(), &cases());
}
