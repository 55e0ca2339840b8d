//! Times, numbers and addresses as pages show them, and addresses of pages with values in them.
//! Must not decide what is shown.

use maud::{Markup, html};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use portcullis_model::UnixMs;

pub(super) use portcullis_notify::visible;
pub(super) use portcullis_notify::words::{bytes, count, number};

/// What stands for itself in a query or a path segment (RFC 3986, unreserved).
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A value inside an address of a page.
pub(super) fn encoded(value: &str) -> String {
    utf8_percent_encode(value, ENCODED).to_string()
}

/// `path?name=value&...`, without the pairs that are empty.
pub(super) fn address(path: &str, pairs: &[(&str, &str)]) -> String {
    let mut text = path.to_owned();
    let mut separator = '?';
    for (name, value) in pairs.iter().filter(|(_, value)| !value.is_empty()) {
        text.push(separator);
        text.push_str(name);
        text.push('=');
        text.push_str(&encoded(value));
        separator = '&';
    }
    text
}

/// The beginning of a text, at most `max` bytes of it.
pub(super) fn beginning(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

/// [`visible`], and cut where it is longer than `max` bytes.
pub(super) fn short(text: &str, max: usize) -> String {
    let dots = if text.len() > max { "…" } else { "" };
    format!("{}{dots}", visible(beginning(text, max)))
}

/// A moment: in UTC, and in the reader's own time where script runs.
pub(super) fn time(at: UnixMs) -> Markup {
    match jiff::Timestamp::from_millisecond(at.0) {
        Ok(stamp) => html! {
            time datetime=(stamp.to_string()) { (stamp.strftime("%Y-%m-%d %H:%M:%S")) " UTC" }
        },
        Err(_) => html! { "never" },
    }
}

/// How long ago, or until when: `3 min ago`, `in 2 d`. The moment itself is in the title.
pub(super) fn relative(at: UnixMs, now: UnixMs) -> Markup {
    let text = match at.0 <= now.0 {
        true => format!("{} ago", span(now.0 - at.0)),
        false => format!("in {}", span(at.0 - now.0)),
    };
    match jiff::Timestamp::from_millisecond(at.0) {
        Ok(stamp) => html! {
            time.relative datetime=(stamp.to_string()) title=(stamp.strftime("%Y-%m-%d %H:%M:%S UTC")) { (text) }
        },
        Err(_) => html! { "never" },
    }
}

/// The largest unit that fits: `45 s`, `3 min`, `7 h`, `2 d`.
pub(super) fn span(milliseconds: i64) -> String {
    match milliseconds / 1_000 {
        seconds @ ..60 => format!("{seconds} s"),
        seconds @ 60..3_600 => format!("{} min", seconds / 60),
        seconds @ 3_600..86_400 => format!("{} h", seconds / 3_600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_cannot_leave_their_place_in_an_address() {
        let link = address("/requests", &[("path", "/a?b=c&d#e\"<"), ("ip", ""), ("host", "x")]);
        assert_eq!(link, "/requests?path=%2Fa%3Fb%3Dc%26d%23e%22%3C&host=x");
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(short("ab\u{1b}", 9), "ab\\u{1b}");
        assert_eq!(
            (short("abc", 3), short("abcd", 3), short("éé", 3)),
            ("abc".into(), "abc…".into(), "é…".into())
        );
    }

    #[test]
    fn spans_use_the_largest_unit_that_fits() {
        for (milliseconds, text) in [(0, "0 s"), (59_999, "59 s"), (60_000, "1 min"), (3_600_000, "1 h")] {
            assert_eq!(span(milliseconds), text);
        }
        assert_eq!(span(172_800_000), "2 d");
    }
}
