//! The pages of refusals and errors: what they say, in HTML or JSON.

use bytes::Bytes;
use portcullis_config::Pages;
use portcullis_model::RequestId;

const BUILT_IN: &str = include_str!("page.html");

/// What a page is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) status: u16,
    pub(crate) title: &'static str,
    pub(crate) text: &'static str,
}

/// The texts by status. Sent to whoever asks, so they tell nothing about the rules.
pub(crate) fn message(status: u16) -> Message {
    let (title, text) = match status {
        400 => ("Bad request", "The request could not be understood."),
        // True of a blocked address, a blocked user and a rule that asks for neither.
        403 => ("Access denied", "This request is not accepted here."),
        405 => ("Method not allowed", "This method is not forwarded."),
        408 => ("Request timeout", "The request did not arrive in time."),
        413 => ("Request too large", "The body of the request is larger than this site accepts."),
        414 => ("Address too long", "The address of the request is longer than this site accepts."),
        417 => ("Expectation failed", "The request expects something that is not supported."),
        429 => ("Too many requests", "You have sent too many requests. Please wait a moment and try again."),
        431 => (
            "Headers too large",
            "The headers of the request are larger than this site accepts. Deleting its cookies may help.",
        ),
        505 => ("Version not supported", "This version of HTTP is not spoken here."),
        502 => ("Site unavailable", "The site behind this gateway does not answer. Please try again soon."),
        503 => ("Site busy", "The site behind this gateway is busy. Please try again in a moment."),
        504 => {
            ("Site too slow", "The site behind this gateway took too long to answer. Please try again soon.")
        }
        _ => ("Something went wrong", "The request could not be served."),
    };
    Message { status, title, text }
}

/// For plain HTTP on a port that speaks TLS.
pub(crate) const SPEAK_HTTPS: Message = Message {
    status: 400,
    title: "Please use https",
    text: "This port speaks https. Please put https:// in front of the address.",
};

/// The site's own words around the messages.
pub(crate) struct PageTemplate {
    html: String,
    brand: String,
    contact: Option<String>,
}

impl PageTemplate {
    /// The brand and the contact are filled in once.
    pub(crate) fn new(pages: &Pages) -> Self {
        let template = pages.template.as_deref().unwrap_or(BUILT_IN);
        let contact = pages.contact.as_deref().map(escape).unwrap_or_default();
        let html = template.replace("{{brand}}", &escape(&pages.brand)).replace("{{contact}}", &contact);
        Self { html, brand: pages.brand.clone(), contact: pages.contact.clone() }
    }

    pub(crate) fn html(&self, message: Message, id: RequestId) -> Bytes {
        let page = self
            .html
            .replace("{{status}}", &message.status.to_string())
            .replace("{{title}}", message.title)
            .replace("{{message}}", message.text)
            .replace("{{decision_id}}", &id.to_string());
        Bytes::from(page)
    }

    pub(crate) fn json(&self, message: Message, id: RequestId) -> Bytes {
        let mut page = serde_json::json!({
            "status": message.status,
            "error": message.title,
            "message": message.text,
            "decision_id": id.to_string(),
            "gateway": self.brand,
        });
        if let Some(contact) = &self.contact {
            page["contact"] = contact.as_str().into();
        }
        Bytes::from(format!("{page}\n"))
    }
}

/// Whether a client that sends this `Accept` would rather read JSON than HTML.
pub(crate) fn prefers_json(accept: &[u8]) -> bool {
    let Ok(accept) = std::str::from_utf8(accept) else { return false };
    let accept = accept.to_ascii_lowercase();
    let html = accept.find("text/html");
    let json = accept.find("application/json").or_else(|| accept.find("+json"));
    match (json, html) {
        (Some(json), Some(html)) => json < html,
        (Some(_), None) => true,
        (None, _) => false,
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_model::UnixMs;

    fn template(template: Option<&str>) -> PageTemplate {
        PageTemplate::new(&Pages {
            brand: "A&B <shop>".to_owned(),
            contact: Some("help@example.com \"desk\"".to_owned()),
            template: template.map(str::to_owned),
        })
    }

    #[test]
    fn every_page_carries_the_decision_id_and_escapes_the_brand() {
        let id = RequestId::new(UnixMs(1_795_000_000_000), 7);
        for status in [400, 403, 405, 408, 413, 414, 429, 431, 500, 502, 503, 504] {
            let html = String::from_utf8(template(None).html(message(status), id).to_vec()).unwrap();
            assert!(html.contains(&id.to_string()) && html.contains("A&amp;B &lt;shop&gt;"), "{html}");
            assert!(!html.contains("{{"), "a placeholder was left in the page for {status}");
            let json = String::from_utf8(template(None).json(message(status), id).to_vec()).unwrap();
            assert!(json.contains(&format!(r#""decision_id":"{id}""#)), "{json}");
            assert!(json.contains(r#""contact":"help@example.com \"desk\"""#), "{json}");
        }
    }

    #[test]
    fn a_template_of_the_site_is_used() {
        let id = RequestId::new(UnixMs(1), 2);
        let page = template(Some("<p>{{brand}}: {{title}} {{decision_id}}</p>")).html(message(403), id);
        assert_eq!(page, format!("<p>A&amp;B &lt;shop&gt;: Access denied {id}</p>"));
    }

    #[test]
    fn json_is_for_those_who_ask_for_it() {
        assert!(prefers_json(b"application/json"));
        assert!(prefers_json(b"application/problem+json, */*"));
        assert!(!prefers_json(b"text/html,application/xhtml+xml,application/json;q=0.9"));
        assert!(!prefers_json(b"*/*"));
        assert!(!prefers_json(b""));
    }
}
