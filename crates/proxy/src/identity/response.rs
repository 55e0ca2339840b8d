//! Learns from the upstream's answers: sessions that begin and end, users, logins that fail. Takes the user header
//! out of every answer. Must not hold an answer up or change its body.

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, LOCATION, SET_COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use pingora::http::{RequestHeader, ResponseHeader};
use portcullis_identity::{Answer, Named, Step, cookie_change};
use portcullis_model::{LoginOutcome, UnixMs, normalise_path};
use url::Url;

use crate::facts::Target;

use super::{Identities, IdentityRules, Visit};

/// How much of an answer to a login is looked through for the text of a failure.
const MAX_SCAN: usize = 256 << 10;

impl IdentityRules {
    /// The head of an answer to `request` has come.
    pub(crate) fn answered(
        &self,
        live: &Identities,
        visit: &mut Visit,
        request: &RequestHeader,
        response: &mut ResponseHeader,
        now: impl FnOnce() -> UnixMs,
    ) {
        let is_final =
            !response.status.is_informational() || response.status == StatusCode::SWITCHING_PROTOCOLS;
        if is_final {
            self.learn(live, visit, request, response, now);
        }
        for name in [&self.user_header, &self.roles_header].into_iter().flatten() {
            response.remove_header(name);
        }
    }

    /// The lines after a body are headers too.
    pub(crate) fn clean_trailers(&self, trailers: &mut HeaderMap) {
        for name in [&self.user_header, &self.roles_header].into_iter().flatten() {
            trailers.remove(name);
        }
    }

    fn learn(
        &self,
        live: &Identities,
        visit: &mut Visit,
        request: &RequestHeader,
        response: &ResponseHeader,
        now: impl FnOnce() -> UnixMs,
    ) {
        let status = response.status.as_u16();
        let (step, headers) = (visit.step(), &response.headers);
        let named = self.named(headers);
        let is_visit_without_news =
            step == Step::Visit && named == Named::Unsaid && !headers.contains_key(SET_COOKIE);
        if is_visit_without_news {
            return;
        }
        let is_in =
            |ranges: &[std::ops::RangeInclusive<u16>]| ranges.iter().any(|range| range.contains(&status));
        let looks_failed = is_in(&self.logins.failure);
        let now = now();
        if let (Some(settings), Some(sessions)) = (&self.sessions, live.sessions()) {
            let lines = headers.get_all(SET_COOKIE).iter().map(HeaderValue::as_bytes);
            let answer = Answer {
                step,
                cookie: cookie_change(lines, settings.cookie.as_bytes(), now),
                named,
                looks_successful: is_in(&self.logins.success) && !self.leads_to_a_login(request, headers),
                looks_failed,
                is_done: status < 400,
            };
            visit.learned = sessions.learn(visit.known.as_ref(), answer, now);
        }
        if step != Step::Login {
            return;
        }
        if looks_failed {
            visit.end_login(live, LoginOutcome::Failed);
        } else {
            if visit.learned.opened.is_some() {
                visit.login = Some(LoginOutcome::Succeeded);
            }
            match &self.logins.failure_text {
                None => visit.settle(live),
                Some(text) => match Scan::of(text, headers) {
                    Some(scan) => visit.scan = Some(scan),
                    None => visit.doubt(live),
                },
            }
        }
    }

    fn named(&self, headers: &HeaderMap) -> Named {
        Named::read(only(headers, self.user_header.as_ref()), only(headers, self.roles_header.as_ref()))
    }

    /// Many sites answer a wrong password with a redirect back to the form.
    fn leads_to_a_login(&self, request: &RequestHeader, headers: &HeaderMap) -> bool {
        let Some(location) = headers.get(LOCATION) else { return false };
        let path = path_of(location.as_bytes(), Target::of(request).path);
        path.is_none_or(|path| self.is_login_path(&path))
    }
}

/// The value of a header that is there once: two names are no name.
fn only<'a>(headers: &'a HeaderMap, name: Option<&HeaderName>) -> Option<&'a [u8]> {
    let mut lines = headers.get_all(name?).iter();
    let first = lines.next().map(HeaderValue::as_bytes);
    first.filter(|_| lines.next().is_none())
}

/// The normal path of a `Location`, which may be relative to the path that was asked for (RFC 9110, 10.2.2), as
/// browsers read it; `None` when they could not.
fn path_of(location: &[u8], asked: &[u8]) -> Option<String> {
    let base = Url::parse("http://site.invalid/").ok()?;
    let base = base.join(&format!("./{}", String::from_utf8_lossy(asked).trim_start_matches('/'))).ok()?;
    let target = base.join(&String::from_utf8_lossy(location)).ok()?;
    Some(normalise_path(target.path().as_bytes()).into_owned())
}

impl Visit {
    /// A part of the answer's body goes to the client.
    pub(crate) fn body_passes(&mut self, live: &Identities, part: Option<&Bytes>, is_last: bool) {
        let Some(scan) = &mut self.scan else { return };
        match part.map_or(Looked::OnAndOn, |part| scan.look(part)) {
            Looked::Found => {
                self.take_back(live);
                self.end_login(live, LoginOutcome::Failed);
            }
            Looked::Enough => self.doubt(live),
            Looked::OnAndOn if is_last => self.settle(live),
            Looked::OnAndOn => {}
        }
    }

    /// The answer is over; `is_whole`: nothing of it was left out.
    pub(crate) fn ended(&mut self, live: &Identities, is_whole: bool) {
        match (&self.scan, is_whole) {
            (None, _) => {}
            (Some(_), true) => self.settle(live),
            (Some(_), false) => self.doubt(live),
        }
    }

    /// Nobody can tell whether the page says that the login failed: it is none.
    fn doubt(&mut self, live: &Identities) {
        self.take_back(live);
        self.login = None;
    }

    fn take_back(&mut self, live: &Identities) {
        self.scan = None;
        if let Some(sessions) = live.sessions() {
            sessions.take_back(std::mem::take(&mut self.learned));
        }
    }

    /// Nothing can change the outcome any more.
    fn settle(&mut self, live: &Identities) {
        self.scan = None;
        if let Some(outcome) = self.login {
            live.login_ended(outcome);
        }
    }

    fn end_login(&mut self, live: &Identities, outcome: LoginOutcome) {
        self.login = Some(outcome);
        live.login_ended(outcome);
    }
}

/// Looks for a text in a body that comes in parts.
pub(crate) struct Scan {
    text: Box<[u8]>,
    /// The end of what has passed, one byte shorter than the text.
    tail: Vec<u8>,
    left: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Looked {
    Found,
    Enough,
    OnAndOn,
}

impl Scan {
    /// `None` for a body that cannot be read as it is.
    fn of(text: &str, headers: &HeaderMap) -> Option<Self> {
        let is_plain = headers
            .get_all(CONTENT_ENCODING)
            .iter()
            .all(|coding| coding.as_bytes().eq_ignore_ascii_case(b"identity"));
        is_plain.then(|| Self { text: text.as_bytes().into(), tail: Vec::new(), left: MAX_SCAN })
    }

    fn look(&mut self, part: &[u8]) -> Looked {
        let part = &part[..part.len().min(self.left)];
        self.left -= part.len();
        let overlap = self.text.len() - 1;
        let mut border = std::mem::take(&mut self.tail);
        border.extend_from_slice(&part[..part.len().min(overlap)]);
        if contains(&border, &self.text) || contains(part, &self.text) {
            return Looked::Found;
        }
        if self.left == 0 {
            return Looked::Enough;
        }
        if part.len() >= overlap {
            border.clear();
            border.extend_from_slice(&part[part.len() - overlap..]);
        } else {
            border.drain(..border.len().saturating_sub(overlap));
        }
        self.tail = border;
        Looked::OnAndOn
    }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    memchr::memmem::find(haystack, needle).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_found_however_the_body_is_cut() {
        let body = b"<p>Please enter a correct name</p>";
        for size in 1..=body.len() {
            let mut scan = Scan::of("correct name", &HeaderMap::new()).unwrap();
            assert!(body.chunks(size).any(|part| scan.look(part) == Looked::Found), "{size}");
            let mut scan = Scan::of("correct  name", &HeaderMap::new()).unwrap();
            assert!(body.chunks(size).all(|part| scan.look(part) == Looked::OnAndOn), "{size}");
        }
    }

    #[test]
    fn no_more_is_looked_through_than_a_login_page_has() {
        let mut scan = Scan::of("wrong", &HeaderMap::new()).unwrap();
        assert_eq!(scan.look(&vec![b'x'; MAX_SCAN - 3]), Looked::OnAndOn);
        assert_eq!(scan.look(b"wrong"), Looked::Enough);
        let mut compressed = HeaderMap::new();
        compressed.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        assert!(Scan::of("wrong", &compressed).is_none());
    }

    #[test]
    fn a_location_is_read_as_browsers_read_it() {
        for (location, path) in [
            ("/login?error=1", "/login"),
            ("/Login/#top", "/login"),
            ("https://example.com/login", "/login"),
            ("//example.com/login?x", "/login"),
            ("https://example.com", "/"),
            ("/accounts/login/?next=http://example.com/home", "/accounts/login"),
            ("?error=1", "/accounts/login"),
            ("#wrong", "/accounts/login"),
            ("", "/accounts/login"),
            (".", "/accounts/login"),
            ("../login/", "/accounts/login"),
            ("../../home", "/home"),
            ("welcome", "/accounts/login/welcome"),
            ("\\\\example.com\\login", "/login"),
        ] {
            let read = path_of(location.as_bytes(), b"/accounts/login/");
            assert_eq!(read.as_deref(), Some(path), "{location}");
        }
        assert_eq!(path_of(b"login.php?error", b"/app/login.php").as_deref(), Some("/app/login.php"));
        assert_eq!(path_of(b"x", b"//other/login").as_deref(), Some("/other/x"), "a path is no host");
        assert_eq!(path_of(b"http://[", b"/login"), None);
    }
}
