//! Patterns that rules and routes match paths, hosts and user agents with.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use memchr::memchr2_iter;
use portcullis_model::normalise_path;

/// A path pattern against the normalised path. Without `*` it matches that path alone; `/api/*` matches
/// `/api` and everything below; elsewhere `*` stands for any characters, slashes included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPattern {
    source: Box<str>,
    kind: PathKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum PathKind {
    Any,
    Exact(Box<str>),
    /// The path itself and all below; without the final slash.
    Tree(Box<str>),
    /// The literal parts between the stars.
    Glob(Vec<Box<str>>),
}

/// The text is not a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatternError(pub String);

impl PathPattern {
    /// `path` must come from [`normalise_path`].
    pub fn matches(&self, path: &str) -> bool {
        match &self.kind {
            PathKind::Any => true,
            PathKind::Exact(exact) => **exact == *path,
            PathKind::Tree(root) => {
                path.strip_prefix(&**root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            PathKind::Glob(parts) => glob_matches(parts, path),
        }
    }

    /// How many literal bytes it has: the longer, the more specific.
    pub fn specificity(&self) -> usize {
        match &self.kind {
            PathKind::Any => 0,
            // An exact path beats the tree of the same length.
            PathKind::Exact(exact) => exact.len() + 1,
            PathKind::Tree(root) => root.len(),
            PathKind::Glob(parts) => parts.iter().map(|p| p.len()).sum(),
        }
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.source
    }
}

fn glob_matches(parts: &[Box<str>], path: &str) -> bool {
    let [first, middle @ .., last] = parts else { return false };
    let Some(mut rest) = path.strip_prefix(&**first) else { return false };
    for part in middle {
        match rest.find(&**part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.len() >= last.len() && rest.ends_with(&**last)
}

impl FromStr for PathPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if !(text.starts_with('/') || text.starts_with('*')) || text.contains(['?', '#']) {
            return Err(PatternError(format!(
                "expected a path such as \"/login\", \"/api/*\" or \"*.php\", got {text:?}"
            )));
        }
        let lower = text.to_ascii_lowercase();
        let kind = if lower == "*" || lower == "/*" {
            PathKind::Any
        } else if !lower.contains('*') {
            PathKind::Exact(normalise_path(lower.as_bytes()).into_owned().into_boxed_str())
        } else if let Some(root) = lower.strip_suffix("/*").filter(|root| !root.contains('*')) {
            match normalise_path(root.as_bytes()) {
                Cow::Borrowed("/") => PathKind::Any,
                root => PathKind::Tree(root.into_owned().into_boxed_str()),
            }
        } else {
            PathKind::Glob(lower.split('*').map(Into::into).collect())
        };
        Ok(Self { source: text.into(), kind })
    }
}

/// A host pattern: a name, or `*.example.com` for all names below it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPattern {
    source: Box<str>,
}

impl HostPattern {
    /// `host` is lower case, without port and trailing dot.
    pub fn matches(&self, host: &str) -> bool {
        match self.source.strip_prefix('*') {
            Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
            None => *self.source == *host,
        }
    }

    /// Whether it is a single name.
    pub fn is_exact(&self) -> bool {
        !self.source.starts_with('*')
    }

    /// The pattern in lower case.
    pub fn as_str(&self) -> &str {
        &self.source
    }
}

impl FromStr for HostPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let lower = text.trim_end_matches('.').to_ascii_lowercase();
        let name = lower.strip_prefix("*.").unwrap_or(&lower);
        let is_v6 = name.starts_with('[') && name.ends_with(']');
        let valid = !name.is_empty()
            && (is_v6 || name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_')));
        if !valid {
            return Err(PatternError(format!(
                "expected a host name such as \"example.com\" or \"*.example.com\", without a port, got {text:?}"
            )));
        }
        Ok(Self { source: lower.into_boxed_str() })
    }
}

/// A pattern against a whole text, in which `*` stands for any characters; ASCII letters match in either case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextPattern {
    source: Box<str>,
    /// The literal parts between the stars, at least one; lower case.
    parts: Box<[Box<str>]>,
}

impl TextPattern {
    /// The longest pattern, in bytes.
    const MAX_LENGTH: usize = 256;

    pub fn matches(&self, text: &str) -> bool {
        let text = text.as_bytes();
        match &*self.parts {
            [] => false,
            [whole] => text.eq_ignore_ascii_case(whole.as_bytes()),
            [first, middle @ .., last] => {
                let (first, last) = (first.as_bytes(), last.as_bytes());
                if !starts_with(text, first) {
                    return false;
                }
                let mut rest = &text[first.len()..];
                for part in middle {
                    match find(rest, part.as_bytes()) {
                        Some(at) => rest = &rest[at + part.len()..],
                        None => return false,
                    }
                }
                rest.len() >= last.len() && starts_with(&rest[rest.len() - last.len()..], last)
            }
        }
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.source
    }
}

/// Without regard to ASCII case; `start` is in lower case.
fn starts_with(text: &[u8], start: &[u8]) -> bool {
    text.get(..start.len()).is_some_and(|head| head.eq_ignore_ascii_case(start))
}

/// Where `needle`, in lower case, begins.
fn find(text: &[u8], needle: &[u8]) -> Option<usize> {
    let Some(&first) = needle.first() else { return Some(0) };
    let starts = text.len().checked_sub(needle.len())? + 1;
    memchr2_iter(first, first.to_ascii_uppercase(), &text[..starts])
        .find(|&at| starts_with(&text[at..], needle))
}

impl FromStr for TextPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > Self::MAX_LENGTH || text.chars().any(char::is_control) {
            return Err(PatternError(format!(
                "expected a pattern such as \"*bot*\" or \"curl/*\" of at most {} bytes without control characters",
                Self::MAX_LENGTH
            )));
        }
        let parts = text.to_ascii_lowercase().split('*').map(Into::into).collect();
        Ok(Self { source: text.into(), parts })
    }
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for PatternError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(pattern: &str, path: &str) -> bool {
        pattern.parse::<PathPattern>().unwrap().matches(path)
    }

    #[test]
    fn path_patterns_match_what_they_say() {
        for (pattern, yes, no) in [
            ("/login", "/login", "/login/x"),
            ("/Login/", "/login", "/logi"),
            ("/api/*", "/api", "/apis"),
            ("/api/*", "/api/v1/x", "/"),
            ("*.php", "/a/b.php", "/a/b.phps"),
            ("/wp-*", "/wp-login.php", "/wordpress"),
            ("/a/*/c*e", "/a/b/cde", "/a/b/cd"),
            ("/*", "/anything", "no"),
            ("//*", "/anything", "no"),
        ] {
            assert!(path(pattern, yes), "{pattern} should match {yes}");
            if no != "no" {
                assert!(!path(pattern, no), "{pattern} should not match {no}");
            }
        }
        assert!(!path("/ab*ba", "/aba"), "the parts of a pattern must not overlap");
        for bad in ["login", "", "/a?b", "/a#b"] {
            assert!(bad.parse::<PathPattern>().is_err());
        }
    }

    #[test]
    fn an_exact_path_is_more_specific_than_its_tree() {
        let of = |p: &str| p.parse::<PathPattern>().unwrap().specificity();
        assert!(of("/api") > of("/api/*") && of("/api/*") > of("/*"));
    }

    #[test]
    fn text_patterns_match_the_whole_text_in_either_case() {
        let matches = |pattern: &str, text: &str| pattern.parse::<TextPattern>().unwrap().matches(text);
        for (pattern, yes, no) in [
            ("*bot*", "GoogleBOT/2.1", "Mozilla/5.0"),
            ("Curl/*", "curl/8.1", "libcurl/8.1"),
            ("*Headless*Chrome*", "x HEADLESSchrome y", "Chrome Headless"),
            ("sqlmap", "SQLMap", "sqlmap/1"),
            ("", "", "x"),
            ("*b*ob", "bob", "bo"),
            ("*é*", "né", "nE"),
        ] {
            assert!(matches(pattern, yes), "{pattern} should match {yes}");
            assert!(!matches(pattern, no), "{pattern} should not match {no}");
        }
        assert!(matches("*", "") && matches("**", "anything"));
        assert!(!matches("ab*ba", "aba"), "the parts of a pattern must not overlap");
        assert!("x".repeat(257).parse::<TextPattern>().is_err());
        assert!("a\u{1b}".parse::<TextPattern>().is_err());
    }

    #[test]
    fn host_patterns_match_names_and_subdomains() {
        let wild: HostPattern = "*.Example.com".parse().unwrap();
        assert!(wild.matches("a.example.com") && wild.matches("a.b.example.com"));
        assert!(!wild.matches("example.com") && !wild.matches("badexample.com"));
        assert!("example.com".parse::<HostPattern>().unwrap().matches("example.com"));
        for bad in ["", "exa mple", "a:80", "*", "a/*"] {
            assert!(bad.parse::<HostPattern>().is_err(), "{bad} must be refused");
        }
    }
}
