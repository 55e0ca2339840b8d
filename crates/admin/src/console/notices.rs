//! What a change has done, kept for the page that is shown next, with what takes it back.
//!
//! Nothing of it travels in an address: a link from a stranger could otherwise show a sentence, or a button, of theirs.

use std::sync::Arc;
use std::time::Duration;

use axum::response::Redirect;
use maud::{Markup, html};
use moka::sync::Cache;
use ring::rand::{SecureRandom as _, SystemRandom};

use super::actions::{Done, Undo};
use super::forms::Fields;
use super::layout::{done, form_token};
use super::visitor::Visitor;

/// Notices that are kept; the oldest go first.
const MAX_KEPT: u64 = 256;
/// For how long a change can be taken back by its button.
const KEPT_FOR: Duration = Duration::from_secs(3_600);
const KEY_BYTES: usize = 16;

/// What was done.
#[derive(Clone, Debug)]
pub(super) struct Notice {
    pub(super) text: String,
    pub(super) undo: Option<Undo>,
    /// The page that it was done on.
    pub(super) page: String,
    by: Arc<str>,
}

pub(super) struct Notices {
    kept: Cache<String, Arc<Notice>>,
    random: SystemRandom,
}

impl Notices {
    pub(super) fn new() -> Self {
        let kept = Cache::builder().max_capacity(MAX_KEPT).time_to_live(KEPT_FOR).build();
        Self { kept, random: SystemRandom::new() }
    }

    /// Keeps what was done, and returns the address of the page that says so.
    pub(super) fn keep(&self, visitor: &Visitor, page: &str, text: String, undo: Option<Undo>) -> String {
        let page = local(page);
        let mut key = [0; KEY_BYTES];
        // Without randomness the change is done all the same, and only not told of.
        if self.random.fill(&mut key).is_err() {
            return page;
        }
        let key = key.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let notice = Notice { text, undo, page: page.clone(), by: Arc::clone(&visitor.name) };
        self.kept.insert(key.clone(), Arc::new(notice));
        format!("{page}{}done={key}", if page.contains('?') { '&' } else { '?' })
    }

    /// To the page that the form names, or else to the usual one, which says what was done.
    pub(super) fn answer(&self, visitor: &Visitor, fields: &Fields, usual: &str, done: Done) -> Redirect {
        let page = Some(fields.text("back")).filter(|page| !page.is_empty()).unwrap_or(usual);
        Redirect::to(&self.keep(visitor, page, done.text, done.undo))
    }

    fn of(&self, visitor: &Visitor, key: &str) -> Option<Arc<Notice>> {
        self.kept.get(key).filter(|notice| notice.by == visitor.name)
    }

    /// The notice, for the one time that it may be taken back.
    pub(super) fn take(&self, visitor: &Visitor, key: &str) -> Option<Arc<Notice>> {
        let notice = self.of(visitor, key)?;
        self.kept.invalidate(key);
        Some(notice)
    }

    /// For the top of a page.
    pub(super) fn show(&self, visitor: &Visitor, key: &str) -> Markup {
        let Some(notice) = self.of(visitor, key) else { return html! {} };
        let undo = notice.undo.is_some().then(|| {
            html! {
                form action="/undo" method="post" {
                    (form_token(visitor))
                    input type="hidden" name="key" value=(key);
                    button.quiet { "Undo" }
                }
            }
        });
        done(&notice.text, undo)
    }
}

/// A path of the console without a notice; whatever else is asked for becomes the overview.
fn local(page: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'\\' | b'#');
    let is_local = page.starts_with('/') && !page.starts_with("//") && page.bytes().all(is_plain);
    if !is_local {
        return "/".to_owned();
    }
    let (path, query) = page.split_once('?').unwrap_or((page, ""));
    let kept: Vec<&str> =
        query.split('&').filter(|pair| !pair.is_empty() && !pair.starts_with("done=")).collect();
    if kept.is_empty() { path.to_owned() } else { format!("{path}?{}", kept.join("&")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_back_stays_in_the_console() {
        for (page, want) in [
            ("/blocks", "/blocks"),
            ("/blocks?q=a&done=77&before=3", "/blocks?q=a&before=3"),
            ("/blocks?done=77", "/blocks"),
            ("//evil.example/", "/"),
            ("https://evil.example/", "/"),
            ("/\\evil.example", "/"),
            ("/blocks\r\nSet-Cookie: a=b", "/"),
            ("/blöcke", "/"),
            ("", "/"),
        ] {
            assert_eq!(local(page), want, "{page}");
        }
    }
}
