//! Which requests a person asks for: the fields of the form, read from an address and written into one.
//!
//! Owns the names of the fields and what is wrong with their values. Must not read the log.

use jiff::tz::TimeZone;
use portcullis_config::Moment;
use portcullis_model::{UnixMs, network_of};
use portcullis_store::LogFilter;

use super::columns::Column;
use crate::console::words;

/// Bytes of one value: longer than any path that the gateway takes.
const MAX_VALUE: usize = 8_192;
/// Pairs of an address that are read.
const MAX_PAIRS: usize = 200;
const NAME: &str = "column";

/// A field of the form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Ip,
    Path,
    Status,
    Verdict,
    Country,
    Asn,
    Host,
    Method,
    User,
    UserAgent,
    Reason,
    Query,
    Since,
    Until,
    Suspicious,
}

impl Field {
    /// In the order of the form.
    pub(super) const ALL: [Self; 15] = [
        Self::Ip,
        Self::Path,
        Self::Status,
        Self::Verdict,
        Self::Country,
        Self::Asn,
        Self::Host,
        Self::Method,
        Self::User,
        Self::UserAgent,
        Self::Reason,
        Self::Query,
        Self::Since,
        Self::Until,
        Self::Suspicious,
    ];

    /// In addresses.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Ip => "ip",
            Self::Path => "path",
            Self::Status => "status",
            Self::Verdict => "verdict",
            Self::Country => "country",
            Self::Asn => "asn",
            Self::Host => "host",
            Self::Method => "method",
            Self::User => "user",
            Self::UserAgent => "agent",
            Self::Reason => "reason",
            Self::Query => "query",
            Self::Since => "since",
            Self::Until => "until",
            Self::Suspicious => "suspicious",
        }
    }

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Ip => "Client",
            Self::Path => "Path",
            Self::Status => "Status",
            Self::Verdict => "Verdict",
            Self::Country => "Country",
            Self::Asn => "Network (ASN)",
            Self::Host => "Host",
            Self::Method => "Method",
            Self::User => "User",
            Self::UserAgent => "User agent",
            Self::Reason => "Reason",
            Self::Query => "Query",
            Self::Since => "Since (UTC)",
            Self::Until => "Until (UTC)",
            Self::Suspicious => "Suspicious",
        }
    }

    /// What may be typed.
    pub(super) fn example(self) -> &'static str {
        match self {
            Self::Ip => "192.0.2.1 or 192.0.2.0/24",
            Self::Path => "/login or *.php",
            Self::Status => "404 or 4xx",
            Self::Verdict | Self::Suspicious => "",
            Self::Country => "DE",
            Self::Asn => "64496",
            Self::Host => "www.example.com",
            Self::Method => "POST",
            Self::User => "alice",
            Self::UserAgent => "part of it",
            Self::Reason => "limit:login",
            Self::Query => "part of it",
            Self::Since => "1h, 7d, 2026-11-20T18:00",
            Self::Until => "now, 2026-11-20T19:00",
        }
    }
}

/// What is wrong with a field, for the place beside it.
pub(super) type Fault = (Field, String);

/// The form as it was filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    /// In the order of [`Field::ALL`]; empty is anything.
    values: [String; Field::ALL.len()],
    pub(super) columns: Vec<Column>,
}

impl Asked {
    /// Reads names and values, whatever else is among them.
    pub(super) fn of(pairs: &[(String, String)]) -> Self {
        let mut values: [String; Field::ALL.len()] = Default::default();
        let mut columns = Vec::new();
        for (name, value) in pairs.iter().take(MAX_PAIRS) {
            if let Some(at) = Field::ALL.iter().position(|field| field.as_str() == name) {
                value.trim().clone_into(&mut values[at]);
            } else if name == NAME {
                columns.extend(value.parse::<Column>().ok());
            }
        }
        let columns = if columns.is_empty() { Column::USUAL.to_vec() } else { Column::in_order(&columns) };
        Self { values, columns }
    }

    pub(super) fn value(&self, field: Field) -> &str {
        &self.values[field as usize]
    }

    /// Whether anything is asked for.
    pub(super) fn is_everything(&self) -> bool {
        self.values.iter().all(String::is_empty)
    }

    /// The same with another value in one field.
    pub(super) fn with(&self, field: Field, value: &str) -> Self {
        let mut other = self.clone();
        value.clone_into(&mut other.values[field as usize]);
        other
    }

    /// The address of these requests at `path`, and `more` of it.
    pub(super) fn address(&self, path: &str, more: &[(&str, &str)]) -> String {
        let fields = Field::ALL.iter().map(|field| (field.as_str(), self.value(*field)));
        let columns: &[Column] = if self.columns == Column::USUAL { &[] } else { &self.columns };
        let columns = columns.iter().map(|column| (NAME, column.as_str()));
        let pairs: Vec<(&str, &str)> = fields.chain(columns).chain(more.iter().copied()).collect();
        words::address(path, &pairs)
    }

    /// What the log is searched for.
    ///
    /// # Errors
    /// Every field whose value cannot be.
    pub(super) fn filter(&self, now: UnixMs) -> Result<LogFilter, Vec<Fault>> {
        let mut faults = Vec::new();
        let mut reading = Reading { asked: self, faults: &mut faults };
        let moment = |text: &str| text.parse::<Moment>().map(|moment| moment.resolve(now, &TimeZone::UTC));
        let filter = LogFilter {
            network: reading.parsed(Field::Ip, network_of),
            method: reading.text(Field::Method),
            host: reading.text(Field::Host),
            path: reading.text(Field::Path),
            query: reading.text(Field::Query),
            user_agent: reading.text(Field::UserAgent),
            user: reading.text(Field::User),
            status: reading.parsed(Field::Status, str::parse),
            verdict: reading.parsed(Field::Verdict, |text| text.parse().map_err(sentence)),
            reason: reading.text(Field::Reason),
            is_suspicious: reading.parsed(Field::Suspicious, yes_or_no),
            country: reading.parsed(Field::Country, country),
            asn: reading.parsed(Field::Asn, asn),
            since: reading.parsed(Field::Since, moment),
            until: reading.parsed(Field::Until, moment),
        };
        if filter.since.zip(filter.until).is_some_and(|(since, until)| since >= until) {
            faults.push((Field::Until, "expected a time after the one in Since".to_owned()));
        }
        if faults.is_empty() { Ok(filter) } else { Err(faults) }
    }
}

/// Values on their way into a filter.
struct Reading<'a> {
    asked: &'a Asked,
    faults: &'a mut Vec<Fault>,
}

impl Reading<'_> {
    fn text(&mut self, field: Field) -> Option<String> {
        self.parsed(field, |text| Ok(text.to_owned()))
    }

    fn parsed<T>(&mut self, field: Field, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let text = self.asked.value(field);
        if text.is_empty() {
            return None;
        }
        let parsed = match text.len() {
            ..=MAX_VALUE => parse(text),
            _ => Err(format!("expected at most {MAX_VALUE} bytes")),
        };
        parsed.map_err(|why| self.faults.push((field, why))).ok()
    }
}

fn sentence(error: impl ToString) -> String {
    error.to_string()
}

fn yes_or_no(text: &str) -> Result<bool, String> {
    match text {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err(format!("expected \"yes\" or \"no\", got {text:?}")),
    }
}

fn country(text: &str) -> Result<String, String> {
    match text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        true => Ok(text.to_ascii_uppercase()),
        false => Err(format!("expected the two letters of a country such as DE, got {text:?}")),
    }
}

/// `64496` or `AS64496`.
fn asn(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix("AS").or_else(|| text.strip_prefix("as")).unwrap_or(text);
    digits.parse().map_err(|_| format!("expected a number such as 64496 or AS64496, got {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMs = UnixMs(1_795_157_485_000);

    fn asked(query: &str) -> Asked {
        Asked::of(&serde_urlencoded::from_str::<Vec<(String, String)>>(query).unwrap())
    }

    #[test]
    fn an_address_is_read_back_as_it_was_asked() {
        let text =
            "/requests?ip=192.0.2.0%2F24&path=%2Fa%26b%3F%22%3C&agent=%3D1%2B1&suspicious=yes&column=id";
        let asked = asked(text.split_once('?').unwrap().1);
        assert_eq!(asked.address("/requests", &[]), text);
        assert_eq!(
            asked.with(Field::Ip, "").with(Field::Path, "").address("/r", &[("before", "1-2")]),
            "/r?agent=%3D1%2B1&suspicious=yes&column=id&before=1-2"
        );
    }

    #[test]
    fn every_field_reaches_the_filter() {
        let query = "ip=192.0.2.9&path=/a&status=4xx&verdict=blocked&country=de&asn=AS64496&host=h&method=get&user=u\
                     &agent=curl&reason=limit:&query=q&since=1h&until=now&suspicious=no";
        let filter = asked(query).filter(NOW).unwrap();
        let debug = format!("{filter:?}");
        assert!(!debug.contains("None"), "{debug}");
        assert_eq!(filter.since, Some(UnixMs(NOW.0 - 3_600_000)));
        assert_eq!((filter.country.as_deref(), filter.asn), (Some("DE"), Some(64_496)));
        assert_eq!(asked("ip=&path=+").filter(NOW), Ok(LogFilter::default()));
    }

    #[test]
    fn every_wrong_field_is_told_of() {
        let faults = asked("ip=x&status=abc&verdict=bad&country=Germany&asn=-1&since=soon&suspicious=maybe")
            .filter(NOW)
            .unwrap_err();
        let fields: Vec<&str> = faults.iter().map(|(field, _)| field.as_str()).collect();
        assert_eq!(fields, ["ip", "status", "verdict", "suspicious", "country", "asn", "since"]);
        let faults = asked("since=1h&until=2h").filter(NOW).unwrap_err();
        assert!(faults[0].1.contains("after the one in Since"));
        assert!(asked(&format!("path={}", "a".repeat(9_000))).filter(NOW).is_err());
    }

    #[test]
    fn fields_are_numbered_in_their_order() {
        for (at, field) in Field::ALL.into_iter().enumerate() {
            assert_eq!(field as usize, at);
        }
    }
}
