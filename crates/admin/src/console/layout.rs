//! The frame around every page, and the parts that pages share.
//! Must not read anything: what it shows is handed in.

use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};
use maud::{DOCTYPE, Markup, html};
use portcullis_model::{Severity, VerdictKind};

use super::assets;
use super::forms::TOKEN_FIELD;
use super::visitor::Visitor;
use super::words::visible;

/// The pages of the navigation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tab {
    Overview,
    Requests,
    Findings,
    Blocks,
    Limits,
    Decision,
    Settings,
    /// Not in the navigation.
    None,
}

const TABS: [(Tab, &str, &str); 7] = [
    (Tab::Overview, "/", "Overview"),
    (Tab::Requests, "/requests", "Requests"),
    (Tab::Findings, "/findings", "Findings"),
    (Tab::Blocks, "/blocks", "Blocks"),
    (Tab::Limits, "/limits", "Limits"),
    (Tab::Decision, "/decision", "Decision"),
    (Tab::Settings, "/settings", "Settings"),
];

/// A page for somebody who has signed in. `title` is its heading too.
pub(super) fn page(visitor: &Visitor, tab: Tab, title: &str, body: Markup) -> Html<String> {
    page_with(visitor, tab, title, &[], body)
}

/// The same with scripts of its own, by their names in [`assets`].
pub(super) fn page_with(
    visitor: &Visitor,
    tab: Tab,
    title: &str,
    scripts: &[&str],
    body: Markup,
) -> Html<String> {
    let navigation = html! {
        header.top {
            a.brand href="/" { (mark()) span { "Portcullis" } }
            nav aria-label="Pages" {
                ul {
                    @for (this, address, name) in TABS {
                        li { a href=(address) aria-current=[(this == tab).then_some("page")] { (name) } }
                    }
                }
            }
            form.find action="/find" method="get" role="search" {
                label.hidden for="find" { "An address, a decision ID or a path" }
                input #find name="q" type="search" placeholder="IP, decision ID or path" maxlength="500" autocomplete="off";
            }
            div.who {
                button.quiet.theme.scripted type="button" data-theme-switch { "Theme: auto" }
                a href="/account" { (visitor.name) }
                form action="/logout" method="post" { (form_token(visitor)) button.quiet { "Sign out" } }
            }
        }
    };
    document(
        title,
        scripts,
        html! {
            a.skip href="#main" { "To the content" }
            (navigation)
            main #main { h1 { (title) } (body) }
        },
    )
}

/// A page for somebody who has not signed in.
pub(super) fn bare_page(title: &str, body: Markup) -> Html<String> {
    document(
        title,
        &[],
        html! {
            main #main .bare { p.brand { (mark()) span { "Portcullis" } } h1 { (title) } (body) }
        },
    )
}

/// A page with a lot to read, for whoever comes by.
pub(super) fn open_page(title: &str, body: Markup) -> Html<String> {
    let frame = html! {
        header.top { a.brand href="/" { (mark()) span { "Portcullis" } } }
        main #main { h1 { (title) } (body) }
    };
    document(title, &[], frame)
}

/// What went wrong, and what to do about it.
pub(super) fn failure(status: StatusCode, sentence: &str) -> Response {
    let title = status.canonical_reason().unwrap_or("Error");
    let body = html! { p { (visible(sentence)) } p { a href="/" { "To the overview" } } };
    (status, bare_page(title, body)).into_response()
}

fn document(title: &str, scripts: &[&str], body: Markup) -> Html<String> {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · Portcullis" }
                link rel="icon" href=(assets::address("mark.svg"));
                link rel="stylesheet" href=(assets::address("console.css"));
                script src=(assets::address("console.js")) {}
                @for script in scripts { script src=(assets::address(script)) defer {} }
            }
            body { (body) }
        }
    };
    Html(page.into_string())
}

fn mark() -> Markup {
    html! { img src=(assets::address("mark.svg")) alt="" width="24" height="24"; }
}

/// The hidden field that every form with a change needs.
pub(super) fn form_token(visitor: &Visitor) -> Markup {
    html! { input type="hidden" name=(TOKEN_FIELD) value=(visitor.form_token); }
}

/// What was just done, with its undo where there is one.
pub(super) fn done(text: &str, undo: Option<Markup>) -> Markup {
    html! { div.notice role="status" { p { (text) } @if let Some(undo) = undo { (undo) } } }
}

/// Something to know before going on.
pub(super) fn warning(text: &str) -> Markup {
    html! { div.notice.warning role="note" { p { (text) } } }
}

/// What kept a form from doing what it should.
pub(super) fn problem(text: &str) -> Markup {
    html! { div.notice.error role="alert" { p { (text) } } }
}

/// Nothing to show, and why.
pub(super) fn empty(text: &str) -> Markup {
    html! { p.empty { (text) } }
}

/// A table that may be wider than the screen. `label` says what it holds.
pub(super) fn table(label: &str, rows: Markup) -> Markup {
    html! { div.table-wrap tabindex="0" role="region" aria-label=(label) { table { (rows) } } }
}

/// The small coloured word of a severity.
pub(super) fn severity(severity: Severity) -> Markup {
    let class = match severity {
        Severity::Low => "badge calm",
        Severity::Medium => "badge warn",
        Severity::High | Severity::Critical => "badge bad",
    };
    html! { span class=(class) { (severity) } }
}

/// The small coloured word of a verdict.
pub(super) fn verdict(verdict: VerdictKind) -> Markup {
    let class = match verdict {
        VerdictKind::Admitted | VerdictKind::Allowed => "badge good",
        VerdictKind::WouldBlock | VerdictKind::WouldLimit => "badge warn",
        VerdictKind::Blocked | VerdictKind::Limited | VerdictKind::Malformed => "badge bad",
    };
    html! { span class=(class) { (verdict.as_str()) } }
}
