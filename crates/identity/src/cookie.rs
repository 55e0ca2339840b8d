//! One cookie, as a client sends it (`Cookie`) and as an upstream sets it (`Set-Cookie`, RFC 6265).
//! Must not decode values: they are compared as they are.

use std::time::SystemTime;

use portcullis_model::UnixMs;

/// The longest value that can be a session, in bytes; RFC 6265, 6.1 asks of browsers to keep 4,096 with the name.
const MAX_VALUE: usize = 4_096;

/// What a request says of one cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CookieValue<'a> {
    None,
    One(&'a [u8]),
    /// Several values: servers differ in which one they take.
    Several,
}

/// The cookie `name` in the lines of a request's `Cookie`, which may be several on HTTP/2.
pub fn cookie_value<'a>(lines: impl Iterator<Item = &'a [u8]>, name: &[u8]) -> CookieValue<'a> {
    let mut found = CookieValue::None;
    for pair in lines.flat_map(|line| line.split(|&byte| byte == b';')) {
        let pair = pair.trim_ascii();
        let Some(value) = pair.strip_prefix(name).and_then(|rest| rest.trim_ascii_start().strip_prefix(b"="))
        else {
            continue;
        };
        let value = value.trim_ascii();
        found = match found {
            CookieValue::None => CookieValue::One(value),
            CookieValue::One(same) if same == value => found,
            CookieValue::One(_) | CookieValue::Several => CookieValue::Several,
        };
    }
    match found {
        CookieValue::One(value) if value.is_empty() || value.len() > MAX_VALUE => CookieValue::None,
        other => other,
    }
}

/// What an answer does to one cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CookieChange<'a> {
    None,
    Set(&'a [u8]),
    /// It is set to nothing, or to end at once.
    Removed,
}

/// What the `Set-Cookie` lines of an answer do to the cookie `name`. Where one removes it and one sets it, it was
/// moved to another path or domain.
pub fn cookie_change<'a>(
    lines: impl Iterator<Item = &'a [u8]>,
    name: &[u8],
    now: UnixMs,
) -> CookieChange<'a> {
    let mut change = CookieChange::None;
    for line in lines {
        let mut parts = line.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
        let Some((given, value)) = parts.next().and_then(split_pair) else { continue };
        if given != name || value.len() > MAX_VALUE {
            continue;
        }
        change = match (change, value.is_empty() || has_ended(parts, now)) {
            (_, false) => CookieChange::Set(value),
            (CookieChange::Set(set), true) => CookieChange::Set(set),
            (CookieChange::None | CookieChange::Removed, true) => CookieChange::Removed,
        };
    }
    change
}

/// Whether the attributes say so: `Max-Age` wins over `Expires` (RFC 6265, 5.3), and of each the last counts.
fn has_ended<'a>(attributes: impl Iterator<Item = &'a [u8]>, now: UnixMs) -> bool {
    let (mut by_age, mut by_date) = (None, None);
    for attribute in attributes {
        let (name, value) = split_pair(attribute).unwrap_or((attribute, b""));
        if name.eq_ignore_ascii_case(b"max-age") {
            by_age = max_age_has_ended(value).or(by_age);
        } else if name.eq_ignore_ascii_case(b"expires") {
            by_date = std::str::from_utf8(value).ok().and_then(date).map(|at| at <= now).or(by_date);
        }
    }
    by_age.or(by_date).unwrap_or(false)
}

/// `None` when it is no number.
fn max_age_has_ended(value: &[u8]) -> Option<bool> {
    let (is_negative, digits) = match value.strip_prefix(b"-") {
        Some(digits) => (true, digits),
        None => (false, value),
    };
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    is_number.then(|| is_negative || digits.iter().all(|&digit| digit == b'0'))
}

/// The form of RFC 9110, and the old one with hyphens between day, month and year that much software still writes.
fn date(text: &str) -> Option<UnixMs> {
    let at: Option<SystemTime> = httpdate::parse_http_date(text).ok().or_else(|| {
        let (day, rest) = text.split_once(", ")?;
        let (date, time) = rest.split_once(' ')?;
        httpdate::parse_http_date(&format!("{day}, {} {time}", date.replace('-', " "))).ok()
    });
    at.map(UnixMs::from_system)
}

fn split_pair(pair: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = pair.iter().position(|&byte| byte == b'=')?;
    Some((pair[..at].trim_ascii(), pair[at + 1..].trim_ascii()))
}
