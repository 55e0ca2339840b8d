//! HAProxy's `option httplog`, usually behind syslog's words. Captured headers are not read: nothing in the line says
//! which headers they are.

use std::borrow::Cow;

use memchr::memchr;

use crate::clock;
use crate::request::Request;
use crate::text::{address, behind_prefix, quoted, unescape};
use crate::{Reason, Record, clf};

/// What HAProxy writes for bytes that were no request.
const BAD_REQUEST: &str = "<BADREQ>";

/// `client:port [time] frontend backend/server timers status bytes ... "request"`
pub(crate) fn parse(line: &str) -> Result<Record<'_>, Reason> {
    let quote = memchr(b'"', line.as_bytes()).ok_or(Reason::NoRequest)?;
    let head = &line[..quote];
    let (front, rest) = head.split_once(" [").ok_or(Reason::Time)?;
    let (time, rest) = rest.split_once(']').ok_or(Reason::Time)?;
    let time = clock::clf(time.as_bytes()).ok_or(Reason::Time)?;
    let client = address(front).or_else(|| behind_prefix(front).and_then(address)).ok_or(Reason::Client)?;
    let mut words = rest.split_ascii_whitespace().skip(2);
    let timers = words.next().ok_or(Reason::Shape)?;
    if timers.bytes().filter(|&b| b == b'/').count() != 4 {
        return Err(Reason::Shape);
    }
    let status = words.next().map(|word| if word == "-1" { "-" } else { word });
    let status = status.and_then(clf::status).ok_or(Reason::Status)?;
    let bytes_out = words.next().and_then(|word| word.trim_start_matches('+').parse().ok()).unwrap_or(0);
    let (request, _) = quoted(line, quote + 1).ok_or(Reason::Quote)?;
    let request = if request == BAD_REQUEST { Cow::Borrowed("") } else { unescape(request) };
    let request = Request::of_line(request);
    Ok(Record {
        time,
        client,
        status,
        bytes_out,
        is_malformed: request.is_malformed,
        method: request.method,
        host: Cow::Borrowed(""),
        path: request.path,
        query: request.query,
        user_agent: Cow::Borrowed(""),
        referer: Cow::Borrowed(""),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_haproxy_is_read_behind_syslog_and_alone() {
        let line = "192.0.2.1:55032 [17/Oct/2022:14:14:21.885] front~ back/web 0/0/0/169/169 404 1541 - - ---- \
                    5/6/7/8/0 0/0 {agent} \"PROPFIND /dav/x HTTP/2.0\"";
        for line in [line.to_owned(), format!("Apr  4 14:30:19 hap-1 haproxy[394]: {line}")] {
            let record = parse(&line).unwrap();
            assert_eq!((record.time.0, record.status, record.bytes_out), (1_666_016_061_885, 404, 1_541));
            assert_eq!((&*record.method, &*record.path), ("PROPFIND", "/dav/x"));
            assert_eq!(record.client.to_string(), "192.0.2.1");
        }
        let garbage = line.replace("PROPFIND /dav/x HTTP/2.0", "<BADREQ>");
        let bad = parse(&garbage).unwrap();
        assert!(bad.is_malformed && bad.path.is_empty());
        assert_eq!(
            parse("192.0.2.1 - - [17/Oct/2022:14:14:21 +0000] \"GET / HTTP/1.1\" 200 1"),
            Err(Reason::Client)
        );
    }
}
