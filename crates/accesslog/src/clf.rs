//! The common log format and its heirs: Apache, nginx, lighttpd, Traefik as text.
//!
//! Owns where in a line what stands. Must not trust a quote or a bracket that a client could have written.

use std::borrow::Cow;

use memchr::{memchr, memrchr};

use crate::clock;
use crate::request::Request;
use crate::text::{address, behind_prefix, host, or_empty, quoted, unescape};
use crate::{Format, Reason, Record};

/// Reads a line, and says which of the formats it is in.
pub(crate) fn parse(line: &str) -> Result<(Record<'_>, Format), Reason> {
    let bytes = line.as_bytes();
    let quote = memchr(b'"', bytes).ok_or(Reason::NoRequest)?;
    // A user's name may hold brackets and blanks, but no quote: the time is what stands last before the request.
    let before = line[..quote].trim_end();
    let inner = before.strip_suffix(']').ok_or(Reason::Time)?;
    let bracket = memrchr(b'[', inner.as_bytes()).ok_or(Reason::Time)?;
    let time = clock::any(&inner[bracket + 1..]).ok_or(Reason::Time)?;
    let (client, vhost) = who(&inner[..bracket]).ok_or(Reason::Client)?;
    let (request, after) = quoted(line, quote + 1).ok_or(Reason::Quote)?;
    let request = Request::of_line(unescape(request));
    let (status, bytes_out, after) = numbers(line, after)?;
    let agents = agents(line, after)?;
    let format = match (&agents, vhost) {
        (Some((.., end)), None) if is_traefik(&line[*end..]) => Format::TraefikClf,
        (_, Some(_)) => Format::VhostCombined,
        (Some(_), None) => Format::Combined,
        (None, None) => Format::Common,
    };
    let (referer, user_agent) = agents.map_or(("", ""), |(referer, agent, _)| (referer, agent));
    let record = Record {
        time,
        client,
        status,
        bytes_out,
        is_malformed: request.is_malformed,
        method: request.method,
        host: vhost.map_or(Cow::Borrowed(""), host),
        path: request.path,
        query: request.query,
        user_agent: or_empty(unescape(user_agent)),
        referer: or_empty(unescape(referer)),
    };
    Ok((record, format))
}

/// The client and the virtual host of `[vhost] client ident user`, with or without what syslog puts before it.
fn who(head: &str) -> Option<(portcullis_model::ClientIp, Option<&str>)> {
    let mut words = head.split_ascii_whitespace();
    let first = words.next()?;
    if let Some(client) = address(first) {
        return Some((client, None));
    }
    // A name that ends in a colon is a program's.
    if let Some(client) = words.next().filter(|_| !first.ends_with(':')).and_then(address) {
        return Some((client, Some(first)));
    }
    let rest = behind_prefix(head)?;
    let mut words = rest.split_ascii_whitespace();
    let first = words.next()?;
    match address(first) {
        Some(client) => Some((client, None)),
        None => words.next().and_then(address).map(|client| (client, Some(first))),
    }
}

/// Status and bytes, and where the rest begins.
fn numbers(line: &str, after: usize) -> Result<(u16, u64, usize), Reason> {
    let rest = &line[after..];
    let trimmed = rest.trim_start();
    let (word, tail) = trimmed.split_once(' ').ok_or(Reason::Status)?;
    let status = status(word).ok_or(Reason::Status)?;
    let tail = tail.trim_start();
    let word = tail.split(' ').next().unwrap_or_default();
    let bytes = if word == "-" { Some(0) } else { word.parse().ok() };
    // Some formats have no size: what follows then is the referrer's quote.
    let (bytes, used) = match bytes {
        Some(bytes) => (bytes, word.len()),
        None if word.starts_with('"') => (0, 0),
        None => return Err(Reason::Status),
    };
    Ok((status, bytes, line.len() - tail.len() + used))
}

/// Three digits; `-` is none.
pub(crate) fn status(word: &str) -> Option<u16> {
    match word {
        "-" => Some(0),
        _ => word.parse().ok().filter(|status| *status < 1_000 && word.len() == 3),
    }
}

/// Referrer, user agent and where the rest begins: the first two quoted texts.
fn agents(line: &str, after: usize) -> Result<Option<(&str, &str, usize)>, Reason> {
    let Some((referer, after)) = next_quoted(line, after)? else { return Ok(None) };
    Ok(next_quoted(line, after)?.map(|(agent, after)| (referer, agent, after)))
}

fn next_quoted(line: &str, after: usize) -> Result<Option<(&str, usize)>, Reason> {
    match memchr(b'"', &line.as_bytes()[after..]) {
        None => Ok(None),
        Some(at) => quoted(line, after + at + 1).map(Some).ok_or(Reason::Quote),
    }
}

/// ` 500 "router@docker" "http://172.17.0.3:80" 0ms`
fn is_traefik(rest: &str) -> bool {
    let rest = rest.trim();
    rest.ends_with("ms")
        && rest.starts_with(|c: char| c.is_ascii_digit())
        && rest.bytes().filter(|&b| b == b'"').count() == 4
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> (Record<'_>, Format) {
        parse(line).unwrap_or_else(|reason| panic!("{line}: {reason:?}"))
    }

    #[test]
    fn each_shape_is_read_and_named() {
        let tail = r#"[17/Oct/2022:16:14:21 +0200] "GET /a?b=1 HTTP/1.1" 404 492"#;
        let agents = r#""https://example.com/" "curl/8.5.0""#;
        for (line, format, host) in [
            (format!("192.0.2.1 - - {tail}"), Format::Common, ""),
            (format!("192.0.2.1 - - {tail} {agents}"), Format::Combined, ""),
            (format!("192.0.2.1 - - {tail} {agents} \"-\" 0.003"), Format::Combined, ""),
            (
                format!("Www.example.com:80 192.0.2.1 - - {tail} {agents}"),
                Format::VhostCombined,
                "www.example.com",
            ),
            (
                format!("192.0.2.1 - - {tail} {agents} 5 \"r@docker\" \"http://10.0.0.2:80\" 0ms"),
                Format::TraefikClf,
                "",
            ),
            (format!("Jul  8 11:07:07 web nginx[2869]: 192.0.2.1 - - {tail} {agents}"), Format::Combined, ""),
            (format!("web_1  | 192.0.2.1 - - {tail} {agents}"), Format::Combined, ""),
        ] {
            let (record, found) = read(&line);
            assert_eq!((found, &*record.host), (format, host), "{line}");
            assert_eq!(record.time.0, 1_666_016_061_000);
            assert_eq!(record.client.to_string(), "192.0.2.1");
            assert_eq!((&*record.method, &*record.path, &*record.query), ("GET", "/a", "b=1"));
            assert_eq!((record.status, record.bytes_out, record.is_malformed), (404, 492, false));
            let has_agents = line.contains("curl");
            assert_eq!(
                record.user_agent == "curl/8.5.0" && record.referer == "https://example.com/",
                has_agents
            );
        }
    }

    #[test]
    fn a_user_who_looks_like_a_line_changes_nothing() {
        let line = r#"192.0.2.1 - a b [01/Jan/2020:00:00:00 +0000] [17/Oct/2022:14:14:21 +0000] "GET / HTTP/1.1" 200 - "-" "\x22\x22 \"x\"""#;
        let (record, _) = read(line);
        assert_eq!((record.time.0, record.bytes_out), (1_666_016_061_000, 0));
        assert_eq!((&*record.referer, &*record.user_agent), ("", "\"\" \"x\""));
    }

    #[test]
    fn garbage_that_a_server_answered_is_a_malformed_request() {
        let line = r#"192.0.2.1 - - [17/Oct/2022:14:14:21 +0000] "\x16\x03\x01\x01 \x02" 400 226 "-" "-""#;
        let (record, format) = read(line);
        assert!(record.is_malformed && format == Format::Combined && record.status == 400);
        assert_eq!(record.path, "\u{16}\u{3}\u{1}\u{1} \u{2}");
    }

    #[test]
    fn each_bad_line_has_its_reason() {
        for (line, reason) in [
            ("", Reason::NoRequest),
            ("nginx: configuration file test is successful", Reason::NoRequest),
            (r#"192.0.2.1 - - "GET / HTTP/1.1" 200 1"#, Reason::Time),
            (r#"192.0.2.1 - - [yesterday] "GET / HTTP/1.1" 200 1"#, Reason::Time),
            (r#"host.example - - [17/Oct/2022:14:14:21 +0000] "GET / HTTP/1.1" 200 1"#, Reason::Client),
            (r#"192.0.2.1 - - [17/Oct/2022:14:14:21 +0000] "GET / HT"#, Reason::Quote),
            (r#"192.0.2.1 - - [17/Oct/2022:14:14:21 +0000] "GET / HTTP/1.1" "#, Reason::Status),
            (r#"192.0.2.1 - - [17/Oct/2022:14:14:21 +0000] "GET / HTTP/1.1" ok 1"#, Reason::Status),
        ] {
            assert_eq!(parse(line).unwrap_err(), reason, "{line}");
        }
    }
}
