//! Paths: the normal form is normal, and a path with one reading has the same segments however it is read.

use portcullis_model::normalise_path;
use portcullis_wire::check_path;

/// A path without its query, as a client sends it.
pub fn path(data: &[u8]) {
    let normal = normalise_path(data);
    assert!(normal.starts_with('/'));
    assert!(normal == "/" || !normal.ends_with('/'));
    assert!(!normal.contains("//") && !normal.contains(['\\', ';']));
    assert!(!normal.bytes().any(|b| b.is_ascii_uppercase()));
    assert!(normal.split('/').all(|segment| segment != "." && segment != ".."));
    if !normal.contains('%') {
        assert_eq!(normalise_path(normal.as_bytes()), normal, "the normal form is a fixed point");
    }
    if check_path(data, false).is_ok() {
        assert!(data.starts_with(b"/"));
        assert!(!normal.chars().any(|c| c.is_ascii_control()));
        assert_eq!(split_then_decode(data), normal, "decoding first or splitting first");
    }
}

/// The normal form as a server makes it that splits a path before it decodes the parts.
fn split_then_decode(path: &[u8]) -> String {
    let mut segments: Vec<String> = Vec::new();
    for raw in path.split(|&b| b == b'/') {
        let decoded = decode(raw);
        let segment = decoded.split(';').next().unwrap_or_default();
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            name => segments.push(name.to_ascii_lowercase()),
        }
    }
    format!("/{}", segments.join("/"))
}

fn decode(segment: &[u8]) -> String {
    let mut out = Vec::new();
    let mut at = 0;
    while at < segment.len() {
        let escape = segment.get(at + 1..at + 3).filter(|_| segment[at] == b'%');
        let value = escape.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        out.push(value.unwrap_or(segment[at]));
        at += if value.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}
