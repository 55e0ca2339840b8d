//! The search field of every page: an address, a decision ID, a prefix or a path leads to its page.
//! Must not read the log.

use axum::extract::RawQuery;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};
use maud::html;
use portcullis_model::{ClientIp, RequestId, network_of};

use super::pairs;
use crate::console::layout::{Tab, page};
use crate::console::visitor::Visitor;
use crate::console::words::{address, encoded, visible};

pub(super) async fn find(visitor: Visitor, RawQuery(query): RawQuery) -> Response {
    let pairs = pairs(query);
    let wanted = pairs.iter().find(|(name, _)| name == "q").map_or("", |(_, value)| value.trim());
    match place(wanted) {
        Some(place) => Redirect::to(&place).into_response(),
        None => nothing(&visitor, wanted),
    }
}

/// Where that is shown.
fn place(wanted: &str) -> Option<String> {
    if let Ok(client) = wanted.parse::<ClientIp>() {
        return Some(format!("/clients/{}", encoded(&client.to_string())));
    }
    if let Ok(id) = wanted.parse::<RequestId>() {
        return Some(format!("/decision/{}", encoded(&id.to_string())));
    }
    if let Ok(network) = network_of(wanted) {
        return Some(address("/requests", &[("ip", &network.to_string())]));
    }
    let is_path = wanted.starts_with(['/', '*']);
    is_path.then(|| address("/requests", &[("path", wanted)]))
}

fn nothing(visitor: &Visitor, wanted: &str) -> Response {
    let body = html! {
        @if !wanted.is_empty() { p { "Nothing is known by " code { (visible(wanted)) } "." } }
        p { "The field in the head of every page finds:" }
        ul {
            li { "an address such as " code { "192.0.2.1" } " or " code { "2001:db8::1" } ": the page of that client" }
            li { "a decision ID, as the refusal page and the log show it: its whole story" }
            li { "a prefix such as " code { "192.0.2.0/24" } ": the requests from it" }
            li { "a path such as " code { "/login" } " or " code { "*.php" } ": the requests for it" }
        }
        p { "For anything else, " a href="/requests" { "filter the requests" } "." }
    };
    (StatusCode::NOT_FOUND, page(visitor, Tab::None, "Nothing found", body)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_leads_to_its_page() {
        let id = RequestId::new(portcullis_model::UnixMs(1_795_157_485_000), 7).to_string();
        for (wanted, to) in [
            ("192.0.2.1", "/clients/192.0.2.1".to_owned()),
            ("2001:DB8::1", "/clients/2001%3Adb8%3A%3A1".to_owned()),
            ("::ffff:192.0.2.1", "/clients/192.0.2.1".to_owned()),
            (&id, format!("/decision/{id}")),
            ("192.0.2.7/24", "/requests?ip=192.0.2.0%2F24".to_owned()),
            ("/a?b=\"<", "/requests?path=%2Fa%3Fb%3D%22%3C".to_owned()),
            ("*.php", "/requests?path=%2A.php".to_owned()),
        ] {
            assert_eq!(place(wanted), Some(to), "{wanted}");
        }
        assert_eq!((place(""), place("hello"), place("<script>")), (None, None, None));
    }
}
