//! Bytes that a stranger sent, as text that is safe to store and to print.

/// Printable ASCII as it is; everything else, and the backslash itself, as `\xNN`. Cut at the last whole
/// character that keeps the text within `max` bytes.
pub fn escaped(bytes: &[u8], max: usize) -> String {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut out = String::with_capacity(bytes.len().min(max));
    for &byte in bytes {
        let is_plain = matches!(byte, b' '..=b'~') && byte != b'\\';
        if out.len() + if is_plain { 1 } else { 4 } > max {
            break;
        }
        if is_plain {
            out.push(char::from(byte));
        } else {
            out.push_str("\\x");
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_printable_ascii_stays_as_it_is() {
        assert_eq!(escaped(b"GET / HTTP/1.1\r\n", 256), "GET / HTTP/1.1\\x0d\\x0a");
        assert_eq!(escaped(b"\x16\x03\x01\\\x7f\xc3\xa9~", 256), "\\x16\\x03\\x01\\x5c\\x7f\\xc3\\xa9~");
        assert_eq!(escaped(b"a\x00b", 4), "a");
        assert_eq!(escaped(b"abcdef", 4), "abcd");
        assert_eq!(escaped(b"", 0), "");
    }

    proptest! {
        #[test]
        fn the_text_is_bounded_and_printable(bytes: Vec<u8>, max in 0usize..64) {
            let text = escaped(&bytes, max);
            prop_assert!(text.len() <= max);
            prop_assert!(text.bytes().all(|b| (b' '..=b'~').contains(&b)));
        }
    }
}
