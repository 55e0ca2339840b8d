//! `[pages]`: what the pages of refusals and errors say. Must not render them.

use crate::Pages;

use super::fields::{Section, Value};
use super::files;

/// The largest page template, in bytes: pages are sent to attackers too.
const MAX_TEMPLATE: u64 = 64 << 10;
const MAX_BRAND: usize = 60;
const MAX_CONTACT: usize = 200;

const PLACEHOLDERS: [&str; 5] = ["title", "message", "decision_id", "brand", "contact"];

pub(super) fn read(root: &mut Section<'_>) -> Pages {
    let mut pages = root.section("pages");
    let settings = Pages {
        brand: pages.read("name", "Portcullis".to_owned(), |value| value.label(1..=MAX_BRAND)),
        contact: pages.read("contact", None, |value| {
            value.label(0..=MAX_CONTACT).filter(|contact| !contact.is_empty()).map(Some)
        }),
        template: pages.read("template", None, |value| match value.text("a path in quotes")? {
            "" => None,
            _ => template(value).map(Some),
        }),
    };
    pages.finish();
    settings
}

fn template(value: &Value<'_>) -> Option<String> {
    let html = files::text(value, MAX_TEMPLATE)?;
    for name in placeholders(&html) {
        if !PLACEHOLDERS.contains(&name) {
            let known = PLACEHOLDERS.map(|known| format!("{{{{{known}}}}}")).join(", ");
            value.fail(format!("the template has {{{{{}}}}}; known are {known}", name.escape_debug()));
        }
    }
    if !placeholders(&html).any(|name| name == "decision_id") {
        value.fail("the template lacks {{decision_id}}, without which nobody can explain the refusal");
        return None;
    }
    Some(html)
}

/// What stands between `{{` and `}}`, shortened.
fn placeholders(html: &str) -> impl Iterator<Item = &str> {
    html.split("{{").skip(1).map(|rest| {
        let name = rest.split("}}").next().unwrap_or(rest).trim();
        name.char_indices().nth(40).map_or(name, |(cut, _)| &name[..cut])
    })
}
