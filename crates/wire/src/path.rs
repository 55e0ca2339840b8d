//! Which paths every server reads in the same way.
//!
//! Owns the judgement only; the form that rules compare is `model::normalise_path`.

/// Why a path could be read in two ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    #[error("the path does not begin with a slash")]
    Form,
    #[error("a control character, a blank or a number sign in the path")]
    Byte,
    /// Windows servers and browsers take it for a slash.
    #[error("a backslash in the path")]
    Backslash,
    #[error("a percent sign without two hexadecimal digits")]
    Escape,
    /// A server that decodes before it splits sees other segments than one that splits first.
    #[error("an escaped slash or backslash in the path")]
    EscapedSlash,
    /// C programs end the path at `%00`, logs and headers break at `%0d%0a`.
    #[error("an escaped control character in the path")]
    EscapedControl,
    /// Decoders that replace, drop or keep such bytes make different names of them.
    #[error("the path is not valid UTF-8")]
    Utf8,
}

/// Judges a path without its query: it begins with a slash, has no control, blank, `#` or backslash, neither
/// plain nor escaped, no escaped slash unless `escaped_slashes`, only whole escapes, and is valid UTF-8 before
/// and after decoding.
///
/// Everything else is for the upstream to judge: dot segments, empty segments, `;parameters`, and signs that
/// RFC 3986 would have escaped (`"<>[]^{|}`), because no server finds another path in them.
pub fn check_path(path: &[u8], escaped_slashes: bool) -> Result<(), PathError> {
    if path.first() != Some(&b'/') {
        return Err(PathError::Form);
    }
    // One pass without branches for the common path; only what it finds odd is looked at byte by byte.
    let is_plain = path.iter().fold(true, |plain, &b| plain & PLAIN[usize::from(b)]);
    if is_plain { Ok(()) } else { check_bytes(path, escaped_slashes) }
}

const PLAIN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = b'!';
    while byte <= b'~' {
        table[byte as usize] = !matches!(byte, b'#' | b'%' | b'\\');
        byte += 1;
    }
    table
};

fn check_bytes(path: &[u8], escaped_slashes: bool) -> Result<(), PathError> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match byte {
            b'%' => {
                let (byte, tail) = unescape(tail).ok_or(PathError::Escape)?;
                match byte {
                    b'/' if escaped_slashes => decoded.push(b'/'),
                    b'/' | b'\\' => return Err(PathError::EscapedSlash),
                    0..=0x1f | 0x7f => return Err(PathError::EscapedControl),
                    byte => decoded.push(byte),
                }
                rest = tail;
            }
            0..=b' ' | b'#' | 0x7f => return Err(PathError::Byte),
            b'\\' => return Err(PathError::Backslash),
            byte => decoded.push(byte),
        }
    }
    let is_text = std::str::from_utf8(path).is_ok() && std::str::from_utf8(&decoded).is_ok();
    if is_text { Ok(()) } else { Err(PathError::Utf8) }
}

fn unescape(after: &[u8]) -> Option<(u8, &[u8])> {
    let (&[high, low], rest) = after.split_first_chunk()?;
    Some(((hex(high)? << 4) | hex(low)?, rest))
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_path_with_one_reading_passes() {
        for path in [
            "/",
            "//login",
            "/./a/../b",
            "/%6cogin",
            "/login;a=1",
            "/%252e%2525",
            "/a%20b%23c%3f",
            "/caf%C3%A9",
            "/café",
            "/a\"<>[]^`{|}~!$&'()*+,:=@",
        ] {
            assert_eq!(check_path(path.as_bytes(), false), Ok(()), "{path}");
        }
    }

    #[test]
    fn a_path_with_two_readings_is_refused() {
        for (path, error) in [
            (&b""[..], PathError::Form),
            (b"login", PathError::Form),
            (b"*", PathError::Form),
            (b"\\login", PathError::Form),
            (b"/a b", PathError::Byte),
            (b"/a\tb", PathError::Byte),
            (b"/a\0", PathError::Byte),
            (b"/a\x7f", PathError::Byte),
            (b"/a#b", PathError::Byte),
            (b"/a\\b", PathError::Backslash),
            (b"/a%", PathError::Escape),
            (b"/a%2", PathError::Escape),
            (b"/a%zz", PathError::Escape),
            (b"/a%u002f", PathError::Escape),
            (b"/a%2fb", PathError::EscapedSlash),
            (b"/a%2F", PathError::EscapedSlash),
            (b"/%5Clogin", PathError::EscapedSlash),
            (b"/login%00", PathError::EscapedControl),
            (b"/login%0d%0a", PathError::EscapedControl),
            (b"/login%7f", PathError::EscapedControl),
            (b"/%ff", PathError::Utf8),
            (b"/%c0%af", PathError::Utf8),
            (b"/%ed%a0%80", PathError::Utf8),
            (b"/\xff", PathError::Utf8),
            (b"/\xc3%a9", PathError::Utf8),
        ] {
            assert_eq!(check_path(path, false), Err(error), "{}", path.escape_ascii());
        }
    }

    #[test]
    fn an_escaped_slash_passes_where_the_site_needs_it_and_nothing_else_with_it() {
        assert_eq!(check_path(b"/@scope%2fname%2F", true), Ok(()));
        assert_eq!(check_path(b"/a%5cb", true), Err(PathError::EscapedSlash));
        assert_eq!(check_path(b"/a%2f%00", true), Err(PathError::EscapedControl));
    }

    proptest! {
        #[test]
        fn what_passes_is_text_and_keeps_its_segments(path in "/[a-z/%0-9fcF\\\\ é]{0,24}") {
            if check_path(path.as_bytes(), false).is_ok() {
                prop_assert!(!path.contains('\\') && !path.contains(' '));
                prop_assert!(!path.to_ascii_lowercase().contains("%2f"));
            }
        }
    }
}
