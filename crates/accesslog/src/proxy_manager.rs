//! What Nginx Proxy Manager writes for its hosts: the request comes in pieces, the client behind it.

use memchr::memchr;

use crate::clock;
use crate::request::Request;
use crate::text::{address, host, or_empty, quoted, unescape};
use crate::{Reason, Record, clf};

/// `[time] [cache upstream-status] status - METHOD scheme host "uri" [Client A] [Length N] ... "agent" "referrer"`
pub(crate) fn parse(line: &str) -> Result<Record<'_>, Reason> {
    let rest = line.strip_prefix('[').ok_or(Reason::Shape)?;
    let (time, _) = rest.split_once(']').ok_or(Reason::Time)?;
    let time = clock::clf(time.as_bytes()).ok_or(Reason::Time)?;
    let quote = memchr(b'"', line.as_bytes()).ok_or(Reason::NoRequest)?;
    let words: Vec<&str> = line[..quote].split_ascii_whitespace().collect();
    let [.., status, "-", method, _, site] = words[..] else { return Err(Reason::Shape) };
    let status = clf::status(status).ok_or(Reason::Status)?;
    let (target, after) = quoted(line, quote + 1).ok_or(Reason::Quote)?;
    let request = Request::of(method.into(), unescape(target));
    let client = bracketed(&line[after..], "[Client ").and_then(address).ok_or(Reason::Client)?;
    let bytes_out = bracketed(&line[after..], "[Length ").and_then(|word| word.parse().ok()).unwrap_or(0);
    let mut texts = ["", ""];
    let mut at = after;
    for text in &mut texts {
        let Some(next) = memchr(b'"', &line.as_bytes()[at..]) else { break };
        let (found, end) = quoted(line, at + next + 1).ok_or(Reason::Quote)?;
        (*text, at) = (found, end);
    }
    let [user_agent, referer] = texts;
    Ok(Record {
        time,
        client,
        status,
        bytes_out,
        is_malformed: request.is_malformed,
        method: request.method,
        host: host(site),
        path: request.path,
        query: request.query,
        user_agent: or_empty(unescape(user_agent)),
        referer: or_empty(unescape(referer)),
    })
}

fn bracketed<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(name)?;
    rest.split_once(']').map(|(word, _)| word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        let tail = "404 - GET https shop.example \"/a?b=1\" [Client 192.0.2.1] [Length 192] [Gzip 3.10] [Sent-to web] \
                    \"curl/8\" \"-\"";
        for front in ["- 404 ", "HIT 200 ", ""] {
            let line = format!("[17/Oct/2022:14:14:21 +0000] {front}{tail}");
            let record = parse(&line).unwrap();
            assert_eq!((record.time.0, record.status, record.bytes_out), (1_666_016_061_000, 404, 192));
            assert_eq!((&*record.host, &*record.path, &*record.query), ("shop.example", "/a", "b=1"));
            assert_eq!((&*record.user_agent, &*record.referer), ("curl/8", ""));
        }
        assert_eq!(parse("[17/Oct/2022:14:14:21 +0000] x \"/\""), Err(Reason::Shape));
    }
}
