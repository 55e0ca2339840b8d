//! The request line in a log: method, target, version, or bytes that are none of it. Must not judge more than a
//! gateway does before it looks at its rules.

use std::borrow::Cow;

/// Longer words are no method.
const MAX_METHOD: usize = 32;

/// A request line, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request<'a> {
    pub(crate) method: Cow<'a, str>,
    pub(crate) path: Cow<'a, str>,
    pub(crate) query: Cow<'a, str>,
    pub(crate) is_malformed: bool,
}

impl<'a> Request<'a> {
    /// `GET /a?b HTTP/1.1`, already unescaped. Without a version it was no request of HTTP/1 or later.
    pub(crate) fn of_line(line: Cow<'a, str>) -> Self {
        match line {
            Cow::Borrowed(line) => Self::split(line),
            Cow::Owned(line) => Request::split(&line).into_owned(),
        }
    }

    fn split(line: &'a str) -> Self {
        let parts = line.split_once(' ').and_then(|(method, rest)| {
            let (target, version) = rest.rsplit_once(' ')?;
            (is_method(method) && version.starts_with("HTTP/") && !target.is_empty())
                .then_some((method, target))
        });
        match parts {
            Some((method, target)) => Self::of(Cow::Borrowed(method), Cow::Borrowed(target)),
            None => Self::garbage(Cow::Borrowed(if line == "-" { "" } else { line })),
        }
    }

    /// Of a method and a target that the log has apart.
    pub(crate) fn of(method: Cow<'a, str>, target: Cow<'a, str>) -> Self {
        if !is_method(&method) || target.is_empty() {
            return Self::garbage(target);
        }
        // A tunnel is never forwarded.
        let is_malformed = method == "CONNECT";
        let (path, query) = split_target(target);
        Self { method, path, query, is_malformed }
    }

    /// A path and a query that the log has apart.
    pub(crate) fn of_parts(method: Cow<'a, str>, path: Cow<'a, str>, query: Cow<'a, str>) -> Self {
        let query = match query {
            Cow::Borrowed(query) => Cow::Borrowed(query.strip_prefix('?').unwrap_or(query)),
            Cow::Owned(query) => Cow::Owned(query.strip_prefix('?').unwrap_or(&query).to_owned()),
        };
        Self { query, ..Self::of(method, path) }
    }

    fn garbage(text: Cow<'a, str>) -> Self {
        Self { method: Cow::Borrowed(""), path: text, query: Cow::Borrowed(""), is_malformed: true }
    }

    fn into_owned(self) -> Request<'static> {
        let own = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        Request {
            method: own(self.method),
            path: own(self.path),
            query: own(self.query),
            is_malformed: self.is_malformed,
        }
    }
}

fn split_target(target: Cow<'_, str>) -> (Cow<'_, str>, Cow<'_, str>) {
    match target {
        Cow::Borrowed(target) => {
            let (path, query) = target.split_once('?').unwrap_or((target, ""));
            (Cow::Borrowed(path), Cow::Borrowed(query))
        }
        Cow::Owned(mut target) => match target.find('?') {
            None => (Cow::Owned(target), Cow::Borrowed("")),
            Some(at) => {
                let query = target.split_off(at).split_off(1);
                (Cow::Owned(target), Cow::Owned(query))
            }
        },
    }
}

fn is_method(word: &str) -> bool {
    let bytes = word.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_uppercase)
        && bytes.len() <= MAX_METHOD
        && bytes.iter().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b"-_".contains(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_line_is_taken_apart() {
        for owned in [false, true] {
            let line = "GET /a b?x=1?y HTTP/2.0";
            let line = if owned { Cow::Owned(line.to_owned()) } else { Cow::Borrowed(line) };
            let request = Request::of_line(line);
            assert_eq!((&*request.method, &*request.path, &*request.query), ("GET", "/a b", "x=1?y"));
            assert!(!request.is_malformed);
        }
        assert_eq!(Request::of_parts("GET".into(), "/a".into(), "?b".into()).query, "b");
    }

    #[test]
    fn what_is_no_request_is_kept_as_its_text() {
        for line in ["SSH-2.0-PUTTY", "\u{16}\u{3}\u{1}", "GET /", "get / HTTP/1.1", "GET  HTTP/1.1", "quit"]
        {
            let request = Request::of_line(Cow::Borrowed(line));
            assert!(request.is_malformed && request.path == line && request.method.is_empty(), "{line}");
        }
        assert_eq!(Request::of_line("-".into()).path, "");
        let tunnel = Request::of_line("CONNECT example.com:443 HTTP/1.1".into());
        assert!(tunnel.is_malformed && tunnel.method == "CONNECT");
    }
}
