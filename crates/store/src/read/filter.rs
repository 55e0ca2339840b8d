//! Which rows a person asked for.
//!
//! Owns the filter and what of it SQLite can judge by numbers alone. Must not put a client's text into
//! a statement.

use std::str::FromStr;

use ipnet::IpNet;
use rusqlite::{Connection, OptionalExtension};

use portcullis_model::{Location, UnixMs, VerdictKind};

use super::Window;
use super::row::{Decoded, Shape};
use crate::log::slice::Slice;
use crate::log::sums::{Needle, TEXT_KINDS};

/// What to show. Everything that is set must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogFilter {
    /// A single address is a /32 or a /128.
    pub network: Option<IpNet>,
    /// In any case.
    pub method: Option<String>,
    /// In any case.
    pub host: Option<String>,
    /// With `*` for any text, the whole path must match; without, the path must begin with it.
    pub path: Option<String>,
    /// A part of it; ASCII letters in any case.
    pub query: Option<String>,
    /// A part of it; ASCII letters in any case.
    pub user_agent: Option<String>,
    /// The whole name.
    pub user: Option<String>,
    pub status: Option<StatusFilter>,
    pub verdict: Option<VerdictKind>,
    /// What the reason begins with, such as `limit:login`.
    pub reason: Option<String>,
    pub is_suspicious: Option<bool>,
    /// ISO 3166-1 alpha-2, in any case.
    pub country: Option<String>,
    pub asn: Option<u32>,
    /// Requests that started then or later.
    pub since: Option<UnixMs>,
    /// Requests that started before.
    pub until: Option<UnixMs>,
}

/// One status or all of a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusFilter {
    /// 404
    Exact(u16),
    /// 4 for 4xx
    Class(u8),
}

impl StatusFilter {
    fn accepts(self, status: u16) -> bool {
        match self {
            Self::Exact(wanted) => status == wanted,
            Self::Class(class) => status / 100 == u16::from(class),
        }
    }
}

impl FromStr for StatusFilter {
    type Err = String;

    /// Reads `404` and `4xx`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unknown = || format!("expected a status such as 404 or 4xx, got {text:?}");
        match text.as_bytes() {
            [class @ b'1'..=b'5', b'x' | b'X', b'x' | b'X'] => Ok(Self::Class(class - b'0')),
            [b'0'..=b'9', ..] => text.parse().map(Self::Exact).map_err(|_| unknown()),
            _ => Err(unknown()),
        }
    }
}

/// A filter as far as one slice's numbers go.
pub(super) struct SliceFilter {
    pub(super) window: Window,
    /// No row before this one can match.
    pub(super) first_row: i64,
    /// Conditions on numbers of this slice.
    pub(super) sql: String,
}

impl SliceFilter {
    pub(super) fn window_only(window: Window) -> Self {
        Self { window, first_row: 1, sql: String::new() }
    }
}

impl LogFilter {
    pub(super) fn window(&self) -> Window {
        Window { from: self.since.map_or(i64::MIN, |at| at.0), to: self.until.map_or(i64::MAX, |at| at.0) }
    }

    /// Whether anything is asked that a shape answers.
    pub(super) fn asks_of_shape(&self) -> bool {
        self.status.is_some()
            || self.verdict.is_some()
            || self.is_suspicious.is_some()
            || [&self.method, &self.host, &self.reason].into_iter().any(Option::is_some)
    }

    pub(super) fn accepts_shape(&self, shape: &Shape) -> bool {
        let same = |wanted: &Option<String>, got: &str| {
            wanted.as_deref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(got))
        };
        self.status.is_none_or(|wanted| wanted.accepts(shape.status))
            && self.verdict.is_none_or(|wanted| wanted == shape.verdict)
            && self.is_suspicious.is_none_or(|wanted| wanted == shape.is_suspicious)
            && self.reason.as_deref().is_none_or(|wanted| shape.reason.starts_with(wanted))
            && same(&self.method, &shape.method)
            && same(&self.host, &shape.host)
    }

    /// Judges everything but time, which the statement has.
    pub(super) fn accepts(&self, row: &Decoded<'_>) -> bool {
        let [path, query, user_agent, _, user] = row.texts;
        let texts = [path, query, user_agent, user];
        self.accepts_shape(row.shape)
            && self.network.is_none_or(|network| network.contains(&row.client.ip()))
            && self.texts().iter().zip(texts).all(|(test, text)| test.is_none_or(|test| test.accepts(text)))
            && self.accepts_location(row.location)
    }

    /// What is asked of path, query, user agent and user.
    pub(super) fn texts(&self) -> [Option<TextTest<'_>>; TEXT_KINDS.len()] {
        let some = |text: &&str| !text.is_empty();
        [
            self.path.as_deref().filter(some).map(TextTest::Path),
            self.query.as_deref().filter(some).map(TextTest::Part),
            self.user_agent.as_deref().filter(some).map(TextTest::Part),
            self.user.as_deref().map(TextTest::Whole),
        ]
    }

    fn accepts_location(&self, location: &Location) -> bool {
        let country = location.country.as_deref();
        self.country
            .as_deref()
            .is_none_or(|wanted| country.is_some_and(|country| country.eq_ignore_ascii_case(wanted)))
            && self.asn.is_none_or(|wanted| location.asn == Some(wanted))
    }
}

/// What is asked of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TextTest<'f> {
    /// It begins so, or matches with stars.
    Path(&'f str),
    /// It contains this, in any case.
    Part(&'f str),
    Whole(&'f str),
}

impl TextTest<'_> {
    pub(super) fn accepts(self, text: &str) -> bool {
        match self {
            Self::Path(pattern) => path_matches(pattern, text),
            Self::Part(part) => has_part(text, part),
            Self::Whole(whole) => text == whole,
        }
    }

    /// What the mark of a text that is accepted must have.
    pub(super) fn needle(self) -> Needle {
        let none = Needle::default();
        match self {
            Self::Part(part) => none.part(part),
            Self::Whole(whole) => Needle::whole(whole),
            Self::Path(pattern) => {
                let Some((head, rest)) = pattern.split_once('*') else { return none.start(pattern) };
                let (middle, tail) = rest.rsplit_once('*').unwrap_or(("", rest));
                let ends = none.start(head).end(tail);
                middle.split('*').fold(ends, Needle::part)
            }
        }
    }
}

/// Whether `text` contains `part`; ASCII letters in any case.
fn has_part(text: &str, part: &str) -> bool {
    let (text, part) = (text.as_bytes(), part.as_bytes());
    part.is_empty() || text.windows(part.len()).any(|window| window.eq_ignore_ascii_case(part))
}

/// The number of a client in a slice, and its first row there.
pub(super) fn client_in(
    connection: &Connection,
    slice: &Slice,
    ip: &str,
) -> rusqlite::Result<Option<(i64, i64)>> {
    connection
        .prepare_cached(&format!("SELECT id, first_row FROM clients_{} WHERE ip = ?1", slice.id))?
        .query_row([ip], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()
}

fn path_matches(pattern: &str, path: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return path.starts_with(pattern) };
    let Some(mut left) = path.strip_prefix(head) else { return false };
    let mut parts = rest.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return left.ends_with(part);
        }
        // The earliest place leaves the most for the parts to come.
        match left.find(part) {
            Some(at) => left = &left[at + part.len()..],
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::sums::mark;

    #[test]
    fn a_path_pattern_is_a_prefix_or_has_stars() {
        for (pattern, path, is_match) in [
            ("/admin", "/admin/users", true),
            ("/admin", "/user/admin", false),
            ("*.php", "/a/b.php", true),
            ("*.php", "/a/b.php5", false),
            ("/a*b*c", "/axxbyyc", true),
            ("/a*b*c", "/axxcyyb", false),
            ("/a*a", "/a", false),
            ("*", "", true),
            ("/é*", "/éa", true),
        ] {
            assert_eq!(path_matches(pattern, path), is_match, "{pattern} {path}");
        }
    }

    #[test]
    fn what_is_accepted_has_the_mark_that_is_looked_for() {
        let texts = ["", "/", "/a", "/ab", "/axbyyc", "/wp-login.php", "/A/b.PHP", "/é/ü"];
        let patterns = ["/", "/a", "/a*b*c", "*.php", "*", "**", "/wp*n*p", "/é*ü", "/ab*"];
        let tests = patterns
            .into_iter()
            .flat_map(|text| [TextTest::Path, TextTest::Part, TextTest::Whole].map(|test| test(text)));
        for test in tests.chain(texts.map(TextTest::Whole)) {
            for text in texts.into_iter().filter(|text| test.accepts(text)) {
                assert!(test.needle().fits(mark(text)), "{test:?} {text}");
            }
        }
    }

    #[test]
    fn a_status_is_a_number_or_a_class() {
        assert_eq!("404".parse(), Ok(StatusFilter::Exact(404)));
        assert_eq!("5xx".parse(), Ok(StatusFilter::Class(5)));
        assert!("xx".parse::<StatusFilter>().unwrap_err().contains("404 or 4xx"));
        assert!(StatusFilter::Class(4).accepts(499) && !StatusFilter::Class(4).accepts(500));
    }
}
