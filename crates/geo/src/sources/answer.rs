//! What each service is asked and what its answers mean, errors included.
//!
//! Owns the formats. Everything in an answer is a stranger's: it is bounded, checked, and never trusted to be
//! about the address that was asked for. Must not do I/O.

use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822;
use portcullis_model::{ClientIp, Location, Secret, UnixMs};
use serde_json::Value as Json;

use super::{Ask, Reply, SourceKind, SourceSettings};
use crate::record::Value;

/// Answers have about one KiB.
const MAX_ANSWER_BYTES: u64 = 64 << 10;
/// Characters of a source's own words that are kept.
const MAX_WORDS: usize = 120;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) kind: FailureKind,
    /// One sentence, without the address that was asked for.
    pub(crate) says: String,
    /// How long the source asks to be left alone.
    pub(crate) retry_after: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FailureKind {
    /// Too many requests, by the source's own count.
    Limited,
    /// The source wants a token, or another one.
    Refused,
    /// Unreachable, slow, out of order, or not speaking its own format.
    Broken,
}

impl Failure {
    pub(crate) fn broken(says: impl Into<String>) -> Self {
        Self { kind: FailureKind::Broken, says: says.into(), retry_after: None }
    }
}

/// The question about an address.
pub(crate) fn question(source: &SourceSettings, client: ClientIp) -> Ask {
    let (url, ip) = (&source.url, client.ip());
    let (url, authorization) = match (source.kind, &source.token) {
        (SourceKind::IpapiCo, None) => (format!("{url}/{ip}/json/"), None),
        (SourceKind::IpapiCo, Some(token)) => (format!("{url}/{ip}/json/?key={}", token.expose()), None),
        (SourceKind::IpinfoIo, token) => {
            let bearer = token.as_ref().map(|token| Secret::new(&format!("Bearer {}", token.expose())));
            (format!("{url}/{ip}/json"), bearer)
        }
    };
    Ask { url, authorization, timeout: source.timeout, max_bytes: MAX_ANSWER_BYTES }
}

/// What a source said. A location that is unknown means that it does not know the address.
pub(crate) fn read(
    kind: SourceKind,
    client: ClientIp,
    reply: &Reply,
    now: UnixMs,
) -> Result<Location, Failure> {
    let json: Option<Json> = serde_json::from_slice(&reply.body).ok();
    let complaint = json.as_ref().and_then(|json| complaint(kind, json));
    let retry_after = reply.retry_after.as_deref().and_then(|text| retry_after(text, now));
    let fail = |failure: FailureKind, what: &str| {
        let words = complaint.as_ref().map_or(String::new(), |words| format!(" ({})", clean(words, client)));
        Err(Failure { kind: failure, says: format!("{what}{words}"), retry_after })
    };
    let is_about_address = complaint.as_deref().is_some_and(is_about_address);
    let is_limit = complaint.as_deref().is_some_and(is_limit);
    match (reply.status, &json) {
        (429, _) => fail(FailureKind::Limited, "too many requests"),
        (200 | 400 | 404, Some(_)) if is_about_address => Ok(Location::default()),
        (_, Some(_)) if is_limit => fail(FailureKind::Limited, "too many requests"),
        (401..=403, _) => fail(FailureKind::Refused, "the token is missing, wrong or has run out"),
        (200, None) => fail(FailureKind::Broken, "the answer is no JSON"),
        (200, Some(_)) if complaint.is_some() => fail(FailureKind::Broken, "the source complains"),
        (200, Some(json)) => location(kind, client, json),
        (status, _) => fail(FailureKind::Broken, &format!("it answered with status {status}")),
    }
}

/// The error that an answer carries: `{"error": true, "reason": ...}` of ipapi.co, `{"error": {"title": ...}}`
/// of ipinfo.io, and the marks of both for addresses that are nowhere.
fn complaint(kind: SourceKind, json: &Json) -> Option<String> {
    let text = |value: &Json| value.as_str().map(str::to_owned);
    match kind {
        SourceKind::IpapiCo if json["error"] == Json::Bool(true) => Some(
            text(&json["reason"]).or_else(|| text(&json["message"])).unwrap_or_else(|| "error".to_owned()),
        ),
        SourceKind::IpinfoIo if json["bogon"] == Json::Bool(true) => Some("bogon".to_owned()),
        SourceKind::IpinfoIo if !json["error"].is_null() => {
            let error = &json["error"];
            Some(text(&error["title"]).or_else(|| text(error)).unwrap_or_else(|| "error".to_owned()))
        }
        SourceKind::IpapiCo | SourceKind::IpinfoIo => None,
    }
}

/// Complaints that say something about the address, and nothing about the source.
fn is_about_address(words: &str) -> bool {
    const KNOWN: [&str; 4] = ["reserved ip address", "invalid ip address", "wrong ip", "bogon"];
    KNOWN.contains(&words.to_ascii_lowercase().as_str())
}

fn is_limit(words: &str) -> bool {
    const KNOWN: [&str; 3] = ["ratelimited", "rate limit exceeded", "quota exceeded"];
    KNOWN.contains(&words.to_ascii_lowercase().as_str())
}

fn location(kind: SourceKind, client: ClientIp, json: &Json) -> Result<Location, Failure> {
    if !json.is_object() {
        return Err(Failure::broken("the answer is no JSON object"));
    }
    let about = json["ip"].as_str().and_then(|text| text.parse::<ClientIp>().ok());
    if about != Some(client) {
        return Err(Failure::broken("the answer is not about the address that was asked for"));
    }
    let mut location = Value::from_json(json).to_location();
    let Some(org) = json["org"].as_str() else { return Ok(location) };
    let org = match kind {
        SourceKind::IpapiCo => org,
        // "AS15169 Google LLC"
        SourceKind::IpinfoIo => match org.split_once(' ') {
            Some((number, name)) if Value::Text(number).as_asn().is_some() => {
                location.asn = location.asn.or(Value::Text(number).as_asn());
                name
            }
            _ => org,
        },
    };
    location.isp = location.isp.or(Value::Text(org).as_name());
    Ok(location)
}

/// Seconds, or a date (RFC 9110, 10.2.3).
fn retry_after(text: &str, now: UnixMs) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at: Timestamp = rfc2822::parse(text.trim()).ok()?.timestamp();
    Some(UnixMs(at.as_millisecond()).since(now))
}

/// A source's own words: short, without control characters, without the client's address.
pub(crate) fn clean(words: &str, client: ClientIp) -> String {
    let words: String = words.chars().filter(|c| !c.is_control()).take(MAX_WORDS).collect();
    words.replace(&client.to_string(), "the address")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMs = UnixMs(1_790_000_000_000);

    fn ip(text: &str) -> ClientIp {
        text.parse().unwrap()
    }

    fn reply(status: u16, body: &str) -> Reply {
        Reply { status, retry_after: None, body: body.as_bytes().to_vec() }
    }

    fn says(kind: SourceKind, status: u16, body: &str) -> Result<Location, Failure> {
        read(kind, ip("8.8.8.8"), &reply(status, body), NOW)
    }

    fn failure(kind: SourceKind, status: u16, body: &str) -> FailureKind {
        says(kind, status, body).unwrap_err().kind
    }

    #[test]
    fn an_answer_of_ipapi_co_is_read() {
        let body = r#"{"ip": "8.8.8.8", "network": "8.8.8.0/24", "version": "IPv4", "city": "Mountain View",
            "region": "California", "region_code": "CA", "country": "US", "country_name": "United States",
            "country_code": "US", "continent_code": "NA", "in_eu": false, "postal": "94043",
            "latitude": 37.42301, "longitude": -122.083352, "timezone": "America/Los_Angeles",
            "utc_offset": "-0700", "asn": "AS15169", "org": "GOOGLE"}"#;
        let found = says(SourceKind::IpapiCo, 200, body).unwrap();
        assert_eq!(
            (found.country.as_deref(), found.city.as_deref(), found.region.as_deref()),
            (Some("US"), Some("Mountain View"), Some("California"))
        );
        assert_eq!((found.latitude, found.longitude), (Some(37.423), Some(-122.0834)));
        assert_eq!((found.asn, found.isp.as_deref()), (Some(15169), Some("GOOGLE")));
    }

    #[test]
    fn an_answer_of_ipinfo_io_is_read() {
        let body = r#"{"ip": "8.8.8.8", "hostname": "dns.google", "anycast": true, "city": "Mountain View",
            "region": "California", "country": "US", "loc": "37.4056,-122.0775",
            "org": "AS15169 Google \u004cLC", "postal": "94043", "timezone": "America/Los_Angeles"}"#;
        let found = says(SourceKind::IpinfoIo, 200, body).unwrap();
        assert_eq!((found.country.as_deref(), found.city.as_deref()), (Some("US"), Some("Mountain View")));
        assert_eq!((found.latitude, found.longitude), (Some(37.4056), Some(-122.0775)));
        assert_eq!((found.asn, found.isp.as_deref()), (Some(15169), Some("Google LLC")));
        let lite = r#"{"ip": "8.8.8.8", "asn": "AS15169", "as_name": "Google LLC", "country_code": "US",
            "country": "United States", "continent": "North America"}"#;
        let found = says(SourceKind::IpinfoIo, 200, lite).unwrap();
        assert_eq!((found.country.as_deref(), found.asn), (Some("US"), Some(15169)));
        assert_eq!(found.isp.as_deref(), Some("Google LLC"));
    }

    #[test]
    fn an_address_that_is_nowhere_is_an_answer_and_no_failure() {
        let reserved =
            r#"{"ip": "8.8.8.8", "error": true, "reason": "Reserved IP Address", "reserved": true}"#;
        let bogon = r#"{"ip": "8.8.8.8", "bogon": true}"#;
        let wrong =
            r#"{"status": 404, "error": {"title": "Wrong ip", "message": "Please provide a valid IP"}}"#;
        for (kind, status, body) in [
            (SourceKind::IpapiCo, 200, reserved),
            (SourceKind::IpinfoIo, 200, bogon),
            (SourceKind::IpinfoIo, 404, wrong),
        ] {
            assert_eq!(says(kind, status, body), Ok(Location::default()), "{body}");
        }
    }

    #[test]
    fn limits_and_refusals_are_told_apart_from_what_is_broken() {
        use FailureKind::{Broken, Limited, Refused};
        let (ipapi, ipinfo) = (SourceKind::IpapiCo, SourceKind::IpinfoIo);
        let limited =
            r#"{"error": true, "reason": "RateLimited", "message": "Visit https://ipapi.co/ratelimited/"}"#;
        let token = r#"{"status": 403, "error": {"title": "Unknown token", "message": "..."}}"#;
        let exceeded = r#"{"status": 429, "error": {"title": "Rate limit exceeded", "message": "Upgrade"}}"#;
        for (kind, status, body, expected) in [
            (ipapi, 429, limited, Limited),
            (ipapi, 200, limited, Limited),
            (ipinfo, 429, exceeded, Limited),
            (ipinfo, 429, "", Limited),
            (ipinfo, 403, token, Refused),
            (ipapi, 403, "<html>", Refused),
            (ipapi, 500, "", Broken),
            (ipapi, 404, "<html>no such page</html>", Broken),
            (ipapi, 200, "<html>", Broken),
            (ipapi, 200, "[]", Broken),
            (ipapi, 200, "{}", Broken),
            (ipapi, 200, r#"{"error": true, "reason": "Something else"}"#, Broken),
            (ipinfo, 200, r#"{"ip": "8.8.4.4", "country": "US"}"#, Broken),
            (ipinfo, 200, r#"{"ip": 8, "country": "US"}"#, Broken),
            (ipinfo, 302, "", Broken),
        ] {
            assert_eq!(failure(kind, status, body), expected, "{status} {body}");
        }
    }

    #[test]
    fn a_source_asks_to_be_left_alone_in_seconds_or_until_a_date() {
        let after = |text: &str| {
            let reply = Reply { retry_after: Some(text.to_owned()), ..reply(429, "") };
            read(SourceKind::IpapiCo, ip("8.8.8.8"), &reply, UnixMs(784_111_777_000)).unwrap_err().retry_after
        };
        assert_eq!(after("120"), Some(Duration::from_secs(120)));
        assert_eq!(after("Sun, 06 Nov 1994 08:50:37 GMT"), Some(Duration::from_secs(60)));
        assert_eq!(after("Sun, 06 Nov 1994 08:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!([after("soon"), after("-1"), after("")], [None; 3]);
    }

    #[test]
    fn a_sources_words_are_short_and_tame_and_never_name_the_client() {
        let reason = format!("8.8.8.8\\u001b[31m\\n{}", "x".repeat(500));
        let body = format!(r#"{{"error": true, "reason": "{reason}"}}"#);
        let says = says(SourceKind::IpapiCo, 200, &body).unwrap_err().says;
        assert!(says.len() < 200 && !says.contains("8.8.8.8"), "{says}");
        assert!(!says.chars().any(char::is_control), "{says:?}");
    }

    #[test]
    fn hostile_fields_are_bounded_or_missing() {
        let body = format!(
            r#"{{"ip": "8.8.8.8", "city": "{}", "country": "USA", "latitude": 1e300, "longitude": [1],
                "asn": {{"asn": {{}}}}, "org": 7}}"#,
            "é".repeat(5_000)
        );
        let found = says(SourceKind::IpinfoIo, 200, &body).unwrap();
        assert!(found.city.is_some_and(|city| city.len() <= 160));
        assert_eq!((found.country, found.latitude, found.asn, found.isp), (None, None, None, None));
    }

    #[test]
    fn the_token_goes_where_the_service_expects_it() {
        let source = |kind: SourceKind| SourceSettings {
            kind,
            url: kind.url().to_owned(),
            token: Some(Secret::new("t0k")),
            daily: None,
            monthly: None,
            timeout: Duration::from_secs(1),
            retry: Duration::from_secs(1),
        };
        let ask = question(&source(SourceKind::IpapiCo), ip("2001:4860:4860::8888"));
        assert_eq!(ask.url, "https://ipapi.co/2001:4860:4860::8888/json/?key=t0k");
        assert!(ask.authorization.is_none());
        let ask = question(&source(SourceKind::IpinfoIo), ip("8.8.8.8"));
        assert_eq!(ask.url, "https://ipinfo.io/8.8.8.8/json");
        assert_eq!(ask.authorization.map(|secret| secret.expose().to_owned()), Some("Bearer t0k".to_owned()));
    }
}
