//! Secrets in queries, paths and referrers.
//!
//! Owns which names mean a secret and how far its value goes. Must leave everything else byte for byte as it
//! was: the detector and people read it. Allocates only when there is something to hide.

use std::borrow::Cow;

use aho_corasick::{AhoCorasick, MatchKind};

/// What stands for a secret.
pub const REDACTED: &str = "[redacted]";
/// The most names that can be configured.
pub const MAX_NAMES: usize = 200;
/// The longest configured name. A parameter's name that is longer than [`MAX_RAW_NAME`] is taken for a secret's:
/// no site has such names, and nobody may hide one behind its length.
const MAX_NAME: usize = 64;
const MAX_RAW_NAME: usize = 256;
/// How often a name may be percent-encoded over: applications in front of others do it twice.
const MAX_DECODINGS: usize = 3;

/// What is hidden unless the configuration says otherwise. `*` stands for anything.
pub const DEFAULT_NAMES: &[&str] = &[
    "*token*",
    "*passw*",
    "*passphrase*",
    "*pwd*",
    "pass",
    "pin",
    "otp",
    "*secret*",
    "key",
    "*apikey*",
    "*accesskey*",
    "*privatekey*",
    "auth",
    "*authorization*",
    "*credential*",
    "session",
    "*sessionid*",
    "*sessid*",
    "sid",
    "code",
    "sig",
    "*signature*",
    "jwt",
    "*assertion*",
    "samlresponse",
    "ticket",
];

/// Which part of a name has to match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Anchor {
    Whole,
    Start,
    End,
    Anywhere,
}

/// The names of parameters that hold secrets.
#[derive(Clone, Debug)]
pub struct SecretNames {
    /// As they were configured.
    names: Vec<String>,
    search: AhoCorasick,
    anchors: Vec<Anchor>,
}

impl PartialEq for SecretNames {
    fn eq(&self, other: &Self) -> bool {
        self.names == other.names
    }
}

impl Eq for SecretNames {}

impl Default for SecretNames {
    fn default() -> Self {
        // A test reads each of them.
        Self::new(DEFAULT_NAMES.iter().map(|&name| name.to_owned()).collect())
            .expect("the default names keep to their form")
    }
}

impl SecretNames {
    /// Case, `_` and `-` do not matter; a `*` at the beginning or the end stands for anything. Each part of a
    /// name such as `user[token]` is looked at by itself.
    ///
    /// # Errors
    /// A sentence about the first name that is none, or that there are more than [`MAX_NAMES`].
    pub fn new(names: Vec<String>) -> Result<Self, String> {
        if names.len() > MAX_NAMES {
            return Err(format!("at most {MAX_NAMES} names are possible, got {}", names.len()));
        }
        let parsed = names.iter().map(|name| parse(name)).collect::<Result<Vec<_>, _>>()?;
        let (texts, anchors): (Vec<String>, Vec<Anchor>) = parsed.into_iter().unzip();
        let search = AhoCorasick::builder()
            .match_kind(MatchKind::Standard)
            .build(&texts)
            .map_err(|error| format!("the names do not fit into one automaton ({error}); remove some"))?;
        Ok(Self { names, search, anchors })
    }

    /// The names as they were configured.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// A query, without its `?`. A value goes to the next `&`, whatever else it holds. Queries inside of values
    /// (`next=%2Fa%3Ftoken%3D...`), JSON, and values that are JSON web tokens by their looks are found too.
    pub fn query<'t>(&self, query: &'t str) -> Cow<'t, str> {
        self.parts(query, '&')
    }

    /// A path: parameters such as `;jsessionid=...`, each up to the next `/`.
    pub fn path<'t>(&self, path: &'t str) -> Cow<'t, str> {
        self.parts(path, '/')
    }

    /// A whole URL, such as a referrer: user and password in front of the host, path and query.
    pub fn url<'t>(&self, url: &'t str) -> Cow<'t, str> {
        let (address, query) = match url.split_once('?') {
            Some((address, query)) => (address, Some(query)),
            None => (url, None),
        };
        let (origin, path) = split_origin(address);
        let hidden = (without_user(origin), self.path(path), query.map(|query| self.query(query)));
        match &hidden {
            (Cow::Borrowed(_), Cow::Borrowed(_), None | Some(Cow::Borrowed(_))) => Cow::Borrowed(url),
            (origin, path, None) => Cow::Owned(format!("{origin}{path}")),
            (origin, path, Some(query)) => Cow::Owned(format!("{origin}{path}?{query}")),
        }
    }

    fn parts<'t>(&self, text: &'t str, separator: char) -> Cow<'t, str> {
        if self.anchors.is_empty() || !text.bytes().any(|byte| matches!(byte, b'=' | b'%' | b':')) {
            return Cow::Borrowed(text);
        }
        let mut hidden: Option<String> = None;
        let mut at = 0;
        for part in text.split(separator) {
            if let Some(value) = self.secret_in(part.as_bytes()) {
                // What is before this part, its separator included, is already there from the second time on.
                let out = hidden.get_or_insert_with(|| text[..at].to_owned());
                out.push_str(&part[..value]);
                out.push_str(REDACTED);
            } else if let Some(out) = &mut hidden {
                out.push_str(part);
            }
            at += part.len();
            if at < text.len() {
                if let Some(out) = &mut hidden {
                    out.push(separator);
                }
                at += separator.len_utf8();
            }
        }
        hidden.map_or(Cow::Borrowed(text), Cow::Owned)
    }

    /// Where the first secret value of a part begins; it goes to the end.
    fn secret_in(&self, part: &[u8]) -> Option<usize> {
        let (mut at, mut name) = (0, 0);
        while at < part.len() {
            match sign_at(part, at) {
                Sign::Assigns(length) => {
                    let value = &part[at + length..];
                    if self.is_secret(&part[name..at]) || looks_like_a_token(value) {
                        return is_worth_hiding(value).then_some(at + length);
                    }
                    at += length;
                    name = at;
                }
                Sign::Begins(length) => {
                    at += length;
                    name = at;
                }
                Sign::Other => at += 1,
            }
        }
        None
    }

    fn is_secret(&self, raw: &[u8]) -> bool {
        if raw.len() > MAX_RAW_NAME {
            return true;
        }
        let mut buffer = [0; MAX_RAW_NAME];
        let name = decode(raw, &mut buffer);
        let mut word = [0; MAX_RAW_NAME];
        let mut length = 0;
        for &byte in name.iter().chain([&b'.']) {
            match byte {
                b'_' | b'-' => {}
                byte if byte.is_ascii_alphanumeric() || !byte.is_ascii() => {
                    word[length] = byte.to_ascii_lowercase();
                    length += 1;
                }
                _ => {
                    if self.matches(&word[..length]) {
                        return true;
                    }
                    length = 0;
                }
            }
        }
        false
    }

    fn matches(&self, word: &[u8]) -> bool {
        self.search.find_overlapping_iter(word).any(|found| {
            let (starts, ends) = (found.start() == 0, found.end() == word.len());
            match self.anchors[found.pattern().as_usize()] {
                Anchor::Whole => starts && ends,
                Anchor::Start => starts,
                Anchor::End => ends,
                Anchor::Anywhere => true,
            }
        })
    }
}

fn parse(name: &str) -> Result<(String, Anchor), String> {
    let (open_start, rest) = name.strip_prefix('*').map_or((false, name), |rest| (true, rest));
    let (open_end, rest) = rest.strip_suffix('*').map_or((false, rest), |rest| (true, rest));
    let is_plain = rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    let text: String = rest.chars().filter(char::is_ascii_alphanumeric).collect();
    if !is_plain || text.is_empty() || text.len() > MAX_NAME {
        return Err(format!(
            "expected the name of a parameter, of at most {MAX_NAME} letters, digits, \"_\" and \"-\", with \
             \"*\" at its beginning or end for anything, such as \"token\" or \"*token*\"; got {name:?}"
        ));
    }
    let anchor = match (open_start, open_end) {
        (false, false) => Anchor::Whole,
        (false, true) => Anchor::Start,
        (true, false) => Anchor::End,
        (true, true) => Anchor::Anywhere,
    };
    Ok((text.to_ascii_lowercase(), anchor))
}

/// What a place of a query means, and how many bytes it takes.
enum Sign {
    /// A name has ended, its value begins.
    Assigns(usize),
    /// A name may begin after it.
    Begins(usize),
    Other,
}

fn sign_at(part: &[u8], at: usize) -> Sign {
    let (byte, length) = char_at(part, at);
    match byte {
        b'=' => Sign::Assigns(length),
        b':' if ends_in_quote(&part[..at]) => Sign::Assigns(length),
        b'&' | b';' | b'?' | b'#' | b'{' | b',' => Sign::Begins(length),
        _ => Sign::Other,
    }
}

/// The character at a place, decoded however often it was encoded, and the bytes that it takes.
fn char_at(part: &[u8], at: usize) -> (u8, usize) {
    if part[at] != b'%' {
        return (part[at], 1);
    }
    let mut digits = at + 1;
    for _ in 1..MAX_DECODINGS {
        if part.get(digits..digits + 2) == Some(b"25") {
            digits += 2;
        }
    }
    match hex_at(part, digits) {
        Some(byte) => (byte, digits + 2 - at),
        None => (b'%', 1),
    }
}

fn hex_at(text: &[u8], at: usize) -> Option<u8> {
    let digit = |at: usize| char::from(*text.get(at)?).to_digit(16);
    u8::try_from(digit(at)? << 4 | digit(at + 1)?).ok()
}

/// Whether a JSON name has just ended.
fn ends_in_quote(before: &[u8]) -> bool {
    before.ends_with(b"\"") || before.ends_with(b"%22") || before.ends_with(b"%2522")
}

/// Decodes a name as often as it may have been encoded.
fn decode<'b>(raw: &[u8], buffer: &'b mut [u8; MAX_RAW_NAME]) -> &'b [u8] {
    let mut length = raw.len();
    buffer[..length].copy_from_slice(raw);
    for _ in 0..MAX_DECODINGS {
        let (mut read, mut write) = (0, 0);
        while read < length {
            let decoded = hex_at(&buffer[..length], read + 1).filter(|_| buffer[read] == b'%');
            buffer[write] = decoded.unwrap_or(buffer[read]);
            read += if decoded.is_some() { 3 } else { 1 };
            write += 1;
        }
        if write == length {
            break;
        }
        length = write;
    }
    &buffer[..length]
}

/// A JSON web token: `{"` in base64url, and its dots.
fn looks_like_a_token(value: &[u8]) -> bool {
    value.starts_with(b"eyJ") && value.iter().filter(|&&byte| byte == b'.').count() >= 2
}

fn is_worth_hiding(value: &[u8]) -> bool {
    !value.is_empty() && value != REDACTED.as_bytes()
}

/// Scheme and authority, and the rest.
fn split_origin(address: &str) -> (&str, &str) {
    let authority = address.find("//").map_or(0, |at| at + 2);
    let end = address[authority..].find('/').map_or(address.len(), |at| authority + at);
    address.split_at(end)
}

/// `https://user:password@host` without what is in front of the `@`.
fn without_user(origin: &str) -> Cow<'_, str> {
    let Some(at) = origin.rfind('@') else { return Cow::Borrowed(origin) };
    let start = origin.find("//").map_or(0, |at| at + 2).min(at);
    if !is_worth_hiding(&origin.as_bytes()[start..at]) {
        return Cow::Borrowed(origin);
    }
    Cow::Owned(format!("{}{REDACTED}{}", &origin[..start], &origin[at..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hidden(query: &str) -> String {
        SecretNames::default().query(query).into_owned()
    }

    #[test]
    fn secrets_are_hidden_however_their_names_are_spelt() {
        for (query, want) in [
            ("token=abc", "token=[redacted]"),
            ("a=1&access_token=abc&b=2", "a=1&access_token=[redacted]&b=2"),
            ("AccessToken=abc&PASSWORD=x", "AccessToken=[redacted]&PASSWORD=[redacted]"),
            ("%74oken=abc", "%74oken=[redacted]"),
            ("%2574oken=abc", "%2574oken=[redacted]"),
            ("user[reset-token]=abc", "user[reset-token]=[redacted]"),
            ("user%5Bpassword%5D=abc&x", "user%5Bpassword%5D=[redacted]&x"),
            ("a.api_key=abc", "a.api_key=[redacted]"),
            ("X-Amz-Signature=abc", "X-Amz-Signature=[redacted]"),
            ("PHPSESSID=abc", "PHPSESSID=[redacted]"),
            ("code=abc&state=s", "code=[redacted]&state=s"),
            ("token=a;b?c=d&e=f", "token=[redacted]&e=f"),
            ("x;token=a", "x;token=[redacted]"),
            ("next=/cb%3Ftoken%3Dabc%26x%3D1&y=2", "next=/cb%3Ftoken%3D[redacted]&y=2"),
            ("next=/cb%253Ftoken%253Dabc", "next=/cb%253Ftoken%253D[redacted]"),
            ("data={\"a\":1,\"password\":\"x\"}", "data={\"a\":1,\"password\":[redacted]"),
            ("d=%7B%22password%22%3A%22x%22%7D", "d=%7B%22password%22%3A[redacted]"),
            ("x=eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0.", "x=[redacted]"),
            ("token=é&ü=1", "token=[redacted]&ü=1"),
        ] {
            assert_eq!(hidden(query), want);
        }
    }

    #[test]
    fn what_is_no_secret_stays_as_it_is() {
        for query in [
            "",
            "a",
            "a=1&b=2",
            "page=2&sort=order+by+price",
            "country_code=DE&keyboard=qwerty&sort_key=name",
            "q=token",
            "q=the+password+is+lost",
            "token",
            "token=",
            "token=[redacted]",
            "monkey=1&pinned=1&passage=3",
            "%zz=%",
            "q=a:b&time=12:30",
        ] {
            assert!(matches!(SecretNames::default().query(query), Cow::Borrowed(_)), "{query}");
        }
    }

    #[test]
    fn referrers_and_paths_lose_their_secrets_too() {
        let names = SecretNames::default();
        for (url, want) in [
            ("https://a.example/x?token=1", "https://a.example/x?token=[redacted]"),
            ("https://bob:pw@a.example/x", "https://[redacted]@a.example/x"),
            ("https://a.example/x;jsessionid=1/y?b=2", "https://a.example/x;jsessionid=[redacted]/y?b=2"),
            ("https://a.example/@bob?x=1", "https://a.example/@bob?x=1"),
            ("https://a.example", "https://a.example"),
            ("", ""),
        ] {
            assert_eq!(names.url(url), want);
        }
        assert_eq!(names.path("/a;jsessionid=1/b"), "/a;jsessionid=[redacted]/b");
        assert!(matches!(names.path("/reset/token/abc"), Cow::Borrowed(_)));
    }

    #[test]
    fn a_name_matches_as_a_whole_unless_it_has_stars() {
        let names =
            |name: &str| SecretNames::new(vec![name.to_owned()]).unwrap().query("my_id_card=1").into_owned();
        assert_eq!(names("id"), "my_id_card=1");
        assert_eq!(names("my-*"), "my_id_card=[redacted]");
        assert_eq!(names("*CARD"), "my_id_card=[redacted]");
        assert_eq!(names("*id*"), "my_id_card=[redacted]");
        for bad in ["", "*", "**", "a*b", "a b", "é", &"x".repeat(65)] {
            assert!(
                SecretNames::new(vec![bad.to_owned()]).unwrap_err().contains("expected the name"),
                "{bad}"
            );
        }
        assert!(SecretNames::new(vec!["a".to_owned(); 201]).unwrap_err().contains("at most 200"));
    }

    #[test]
    fn a_name_of_no_sensible_length_is_taken_for_a_secret() {
        assert_eq!(hidden(&format!("{}token=abc", "x[]".repeat(300))).find("abc"), None);
    }

    #[test]
    fn without_names_nothing_is_hidden() {
        let none = SecretNames::new(Vec::new()).unwrap();
        assert_eq!(none.query("token=abc"), "token=abc");
    }
}
