//! The first line of a request: method, target, version.

use crate::head::{HeadLimits, MAX_METHOD};
use crate::path::check_path;
use crate::{HeadError, PathError};

/// A request line that has one reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RequestLine<'a> {
    pub(crate) method: &'a [u8],
    pub(crate) version_minor: u8,
    /// Of an absolute-form target.
    pub(crate) absolute: Option<Absolute<'a>>,
}

/// Scheme and authority of an absolute-form target; the authority is not judged yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Absolute<'a> {
    pub(crate) default_port: u16,
    pub(crate) authority: &'a [u8],
}

/// Whether a method that was read elsewhere is one that would be taken here.
pub fn is_method(method: &[u8]) -> bool {
    let is_inner = |byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || b"-_".contains(byte);
    method.len() <= MAX_METHOD
        && method
            .split_first()
            .is_some_and(|(first, rest)| first.is_ascii_uppercase() && rest.iter().all(is_inner))
}

/// The method at the start of `line`; `None` while its end has not arrived.
///
/// Methods are case-sensitive, and some servers forget that, so only capitals, digits, `-` and `_` are taken,
/// beginning with a capital: enough for every registered method.
pub(crate) fn check_method(line: &[u8]) -> Result<Option<&[u8]>, HeadError> {
    for (n, &byte) in line.iter().take(MAX_METHOD + 1).enumerate() {
        match byte {
            b'A'..=b'Z' => {}
            b'0'..=b'9' | b'-' | b'_' if n > 0 => {}
            b' ' if n > 0 => {
                return match &line[..n] {
                    b"CONNECT" => Err(HeadError::Connect),
                    // The first bytes of HTTP/2.
                    b"PRI" => Err(HeadError::Version),
                    method => Ok(Some(method)),
                };
            }
            b'\n' | 0 => return Err(HeadError::LineEnding),
            _ => return Err(HeadError::RequestLine),
        }
    }
    if line.len() > MAX_METHOD { Err(HeadError::RequestLine) } else { Ok(None) }
}

impl<'a> RequestLine<'a> {
    /// `line` begins with `method` and a blank, and has no control characters.
    pub(crate) fn parse(line: &'a [u8], method: &'a [u8], limits: &HeadLimits) -> Result<Self, HeadError> {
        let rest = &line[method.len() + 1..];
        let mut parts = rest.split(|&b| b == b' ');
        let (target, version) = match (parts.next(), parts.next(), parts.next()) {
            (Some(target), Some(version), None) => (target, version),
            (_, None, _) => return Err(HeadError::RequestLine),
            _ => return Err(HeadError::TargetByte),
        };
        if target.len() > limits.max_target {
            return Err(HeadError::TargetTooLong);
        }
        let version_minor = match version {
            b"HTTP/1.1" => 1,
            b"HTTP/1.0" => 0,
            [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => return Err(HeadError::Version),
            _ => return Err(HeadError::RequestLine),
        };
        let absolute = check_target(target, method, limits.escaped_slashes)?;
        Ok(Self { method, version_minor, absolute })
    }
}

fn check_target<'a>(
    target: &'a [u8],
    method: &[u8],
    escaped_slashes: bool,
) -> Result<Option<Absolute<'a>>, HeadError> {
    if target == b"*" {
        return if method == b"OPTIONS" { Ok(None) } else { Err(HeadError::TargetForm) };
    }
    // What is behind the number sign is for the browser alone; some servers cut it, some do not.
    if target.contains(&b'#') {
        return Err(HeadError::TargetByte);
    }
    // Not in the query either: parsers that keep the target as text refuse it there, others do not.
    if std::str::from_utf8(target).is_err() {
        return Err(PathError::Utf8.into());
    }
    if target.first() == Some(&b'/') {
        check_path(without_query(target), escaped_slashes)?;
        return Ok(None);
    }
    let (default_port, rest) = if let Some(rest) = strip_scheme(target, b"http://") {
        (80, rest)
    } else if let Some(rest) = strip_scheme(target, b"https://") {
        (443, rest)
    } else {
        return Err(HeadError::TargetForm);
    };
    let end = rest.iter().position(|b| matches!(b, b'/' | b'?' | b'\\')).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    let path = without_query(rest);
    if !path.is_empty() {
        check_path(path, escaped_slashes)?;
    }
    Ok(Some(Absolute { default_port, authority }))
}

fn without_query(target: &[u8]) -> &[u8] {
    target.split(|&b| b == b'?').next().unwrap_or(target)
}

fn strip_scheme<'a>(target: &'a [u8], scheme: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = target.split_at_checked(scheme.len())?;
    start.eq_ignore_ascii_case(scheme).then_some(rest)
}
