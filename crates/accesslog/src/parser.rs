//! One line in whatever format to one record; which format a log is in.
//! Must not read or count lines.

use crate::json::Layout;
use crate::map::FieldMap;
use crate::{Format, Reason, Record, clf, haproxy, proxy_manager};

/// Which formats may be tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The one that most of the first lines are in; a line that is in none of it may be in another one.
    #[default]
    Auto,
    /// This one only.
    Only(Format),
}

/// Reads lines. Keeps no more than one line.
#[derive(Debug)]
pub struct Parser {
    formats: Formats,
    /// The line as UTF-8, where it was none.
    lossy: String,
    /// The line as JSON, where it had escapes that JSON does not know.
    repaired: String,
}

#[derive(Debug)]
struct Formats {
    choice: Choice,
    /// Tried first.
    likely: Format,
    caddy: Layout,
    traefik: Layout,
    json: Layout,
}

impl Parser {
    /// `map` says where JSON lines have their fields; without it they are looked for under their usual names.
    pub fn new(choice: Choice, map: Option<&FieldMap>) -> Self {
        let likely = match choice {
            Choice::Only(format) => format,
            Choice::Auto if map.is_some() => Format::Json,
            Choice::Auto => Format::Combined,
        };
        let usual = FieldMap::default();
        let json = Layout::mapped(map.unwrap_or(&usual));
        let formats = Formats { choice, likely, caddy: Layout::caddy(), traefik: Layout::traefik(), json };
        Self { formats, lossy: String::new(), repaired: String::new() }
    }

    /// The format that most of these lines are in, which is tried first from now on; `None` if they are in none.
    pub fn detect<'l>(&mut self, lines: impl IntoIterator<Item = &'l [u8]>) -> Option<Format> {
        let mut hits = [0_u32; Format::ALL.len()];
        for line in lines {
            if let Ok((_, format)) = self.parse(line) {
                hits[format.index()] += 1;
            }
        }
        let most = hits.into_iter().max().filter(|most| *most > 0)?;
        let found = Format::ALL.into_iter().find(|format| hits[format.index()] == most)?;
        if self.formats.choice == Choice::Auto {
            self.formats.likely = found;
        }
        Some(found)
    }

    /// The record of a line without its end, and the format that it is in.
    ///
    /// # Errors
    /// The line is no request in a format that may be tried.
    pub fn parse<'a>(&'a mut self, line: &'a [u8]) -> Result<(Record<'a>, Format), Reason> {
        let Self { formats, lossy, repaired } = self;
        let text: &'a str = match std::str::from_utf8(line) {
            Ok(text) => text,
            Err(_) => {
                lossy.clear();
                lossy.push_str(&String::from_utf8_lossy(line));
                lossy
            }
        };
        let text = text.trim_matches(|c: char| c.is_ascii_whitespace() || matches!(c, '\u{feff}' | '\0'));
        match formats.parse(text) {
            // nginx without `escape=json` writes \x22 into what is to be JSON.
            Err(Reason::Json) if text.contains("\\x") => {
                repaired.clear();
                repaired.push_str(&text.replace("\\x", "\\u00"));
                formats.parse(repaired)
            }
            result => result,
        }
    }
}

impl Formats {
    fn parse<'a>(&self, text: &'a str) -> Result<(Record<'a>, Format), Reason> {
        let first = self.parse_as(self.likely, text);
        let (Err(reason), Choice::Auto) = (&first, self.choice) else { return first };
        // The last one is the one whose complaint is told if what was tried first is of another kind.
        let others = match text.starts_with('{') {
            true => [Format::Caddy, Format::Traefik, Format::Json],
            false => [Format::Haproxy, Format::ProxyManager, Format::Combined],
        };
        let mut reason = *reason;
        for format in others.into_iter().filter(|format| *format != self.likely) {
            match self.parse_as(format, text) {
                Ok(read) => return Ok(read),
                Err(other) if !others.contains(&self.likely) => reason = other,
                Err(_) => {}
            }
        }
        Err(reason)
    }

    fn parse_as<'a>(&self, format: Format, text: &'a str) -> Result<(Record<'a>, Format), Reason> {
        let by = |layout: &Layout| {
            // Numbers and lists are JSON, and no lines of a log.
            if !text.starts_with('{') {
                return Err(Reason::Json);
            }
            layout.parse(text).map(|record| (record, layout.format()))
        };
        match format {
            Format::Combined | Format::Common | Format::VhostCombined | Format::TraefikClf => {
                let (record, found) = clf::parse(text)?;
                self.fits(format, found).then_some((record, found)).ok_or(Reason::Shape)
            }
            Format::Caddy => by(&self.caddy),
            Format::Traefik => by(&self.traefik),
            Format::Json => by(&self.json),
            Format::Haproxy => haproxy::parse(text).map(|record| (record, format)),
            Format::ProxyManager => proxy_manager::parse(text).map(|record| (record, format)),
        }
    }

    /// Whether a line may have the shape `found` where `asked` was asked for. More fields do no harm.
    fn fits(&self, asked: Format, found: Format) -> bool {
        self.choice == Choice::Auto
            || asked == found
            || match asked {
                Format::Common => matches!(found, Format::Combined | Format::TraefikClf),
                Format::Combined => found == Format::TraefikClf,
                Format::TraefikClf => found == Format::Combined,
                Format::VhostCombined
                | Format::Traefik
                | Format::Caddy
                | Format::Json
                | Format::Haproxy
                | Format::ProxyManager => false,
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMBINED: &[u8] =
        br#"192.0.2.1 - - [17/Oct/2022:14:14:21 +0000] "GET /a HTTP/1.1" 200 1 "-" "curl""#;
    const COMMON: &[u8] = br#"192.0.2.1 - - [17/Oct/2022:14:14:21 +0000] "GET /a HTTP/1.1" 200 1"#;
    const JSON: &[u8] = br#"{"ip":"192.0.2.1","uri":"/a","time":1666016061,"status":200}"#;

    #[test]
    fn the_format_of_most_lines_is_named_and_others_are_read_all_the_same() {
        let mut parser = Parser::new(Choice::Auto, None);
        assert_eq!(parser.detect([COMMON, COMBINED, COMBINED, b"x"]), Some(Format::Combined));
        assert_eq!(parser.parse(JSON).unwrap().1, Format::Json);
        assert_eq!(parser.detect([JSON, JSON, COMBINED]), Some(Format::Json));
        assert_eq!(parser.parse(COMMON).unwrap().1, Format::Common);
        assert_eq!(parser.detect([&b"x"[..], b""]), None);
        assert_eq!(parser.parse(b"x").unwrap_err(), Reason::NoRequest);
    }

    #[test]
    fn a_format_that_was_asked_for_is_the_only_one() {
        let mut parser = Parser::new(Choice::Only(Format::Combined), None);
        assert!(parser.parse(COMBINED).is_ok());
        assert_eq!(parser.parse(COMMON).unwrap_err(), Reason::Shape);
        assert_eq!(parser.parse(JSON).unwrap_err(), Reason::Time);
        assert!(Parser::new(Choice::Only(Format::Common), None).parse(COMBINED).is_ok());
    }

    #[test]
    fn bytes_that_are_no_text_and_escapes_that_are_no_json_are_read() {
        let mut parser = Parser::new(Choice::Auto, None);
        let line = [b"\xef\xbb\xbf", COMBINED, b"\xff\"\r\n"].concat();
        assert!(parser.parse(&line).is_ok());
        let line = br#"{"ip":"192.0.2.1","uri":"/a\x22","time":1666016061,"status":200}"#;
        assert_eq!(parser.parse(line).unwrap().0.path, "/a\"");
    }
}
