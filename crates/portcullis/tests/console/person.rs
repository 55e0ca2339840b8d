//! Somebody at a browser: follows links, fills in forms, keeps a cookie.
//!
//! Owns what a browser does by itself. Must not run scripts: pages work without.

use std::net::SocketAddr;
use std::sync::Arc;

use portcullis_testkit::{Client, Gateway, Request, Response};
use rustls::ClientConfig;

pub(crate) const PASSWORD: &str = "four old lamps";

/// One browser with its cookie jar.
#[derive(Clone)]
pub(crate) struct Person {
    console: SocketAddr,
    /// What stands in the address bar: scheme, host and port.
    site: String,
    tls: Option<Arc<ClientConfig>>,
    /// `name=value`
    pub(crate) cookie: Option<String>,
    /// The token that the forms of the session carry.
    form_token: Option<String>,
    from: Option<String>,
}

impl Person {
    /// Somebody who has not signed in.
    pub(crate) fn stranger(gateway: &Gateway) -> Self {
        let console = gateway.console();
        Self::at_site(console, &format!("http://{console}"))
    }

    /// The same of a console that has this name for people.
    pub(crate) fn at_site(console: SocketAddr, site: &str) -> Self {
        let (site, from) = (site.to_owned(), None);
        Self { console, site, tls: None, cookie: None, form_token: None, from }
    }

    /// The same over TLS.
    pub(crate) fn over_tls(self, config: &Arc<ClientConfig>) -> Self {
        Self { tls: Some(Arc::clone(config)), ..self }
    }

    /// The same from another address of this machine.
    pub(crate) fn at(self, address: &str) -> Self {
        Self { from: Some(address.to_owned()), ..self }
    }

    /// Makes the first account, `alice`, by the link of the terminal.
    pub(crate) fn operator(gateway: &Gateway) -> Self {
        let mut alice = Self::stranger(gateway);
        alice.set_up(gateway.console_url(), "alice");
        alice
    }

    /// A viewer, `bob`, whom an operator has added.
    pub(crate) fn viewer(gateway: &Gateway, operator: &mut Self) -> Self {
        let page = operator.post("/settings/users", &[("name", "bob"), ("role", "viewer")]);
        assert_eq!(page.status(), 200, "{}", page.text());
        let mut bob = Self::stranger(gateway);
        bob.use_link(&link_in(&page.text()));
        bob
    }

    /// Follows a link of the terminal, and makes the first account.
    pub(crate) fn set_up(&mut self, link: &str, name: &str) {
        let token = token_of(link);
        let fields = [("token", &*token), ("name", name), ("password", PASSWORD), ("again", PASSWORD)];
        let answer = self.send_form("/setup", &fields);
        assert_eq!((answer.status(), answer.header("location")), (303, Some("/")), "{}", answer.text());
    }

    /// Follows a link for somebody whose account there is already.
    pub(crate) fn use_link(&mut self, link: &str) {
        let token = token_of(link);
        let answer =
            self.send_form("/setup", &[("token", &*token), ("password", PASSWORD), ("again", PASSWORD)]);
        assert_eq!((answer.status(), answer.header("location")), (303, Some("/")), "{}", answer.text());
    }

    /// Signs in; the answer is the console's.
    pub(crate) fn sign_in(&mut self, name: &str, password: &str) -> Response {
        self.send_form("/login", &[("name", name), ("password", password)])
    }

    pub(crate) fn get(&mut self, path: &str) -> Response {
        self.send(&Request::get(path))
    }

    /// A page that there is.
    pub(crate) fn page(&mut self, path: &str) -> String {
        let answer = self.get(path);
        assert_eq!(answer.status(), 200, "{path}: {:?} {}", answer.head, answer.text());
        answer.text()
    }

    /// Submits a form of a page, with the token that its session has.
    pub(crate) fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Response {
        let token = self.form_token();
        self.send_form(path, &[fields, &[("form_token", &*token)]].concat())
    }

    /// Submits a form that must change something; returns the page that it leads to.
    pub(crate) fn change(&mut self, path: &str, fields: &[(&str, &str)]) -> String {
        let answer = self.post(path, fields);
        assert_eq!(answer.status(), 303, "{path} {fields:?}: {:?} {}", answer.head, answer.text());
        let location = answer.header("location").unwrap().to_owned();
        self.page(&location)
    }

    /// Submits a form exactly as it is, from a page of the console.
    pub(crate) fn send_form(&mut self, path: &str, fields: &[(&str, &str)]) -> Response {
        let request = Request::post(path, encoded(fields))
            .header("Content-Type", "application/x-www-form-urlencoded")
            .header("Origin", &self.site.clone());
        self.send(&request)
    }

    /// Sends a request with the cookie, and keeps the one that the answer sets.
    pub(crate) fn send(&mut self, request: &Request) -> Response {
        let request = match &self.cookie {
            Some(cookie) => request.clone().header("Cookie", cookie),
            None => request.clone(),
        };
        let host = self.site.split_once("://").unwrap().1;
        let mut client = match (&self.tls, &self.from) {
            (Some(config), _) => Client::connect_tls(self.console, host.split(':').next().unwrap(), config),
            (None, Some(from)) => Client::connect_from(from, self.console),
            (None, None) => Client::connect(self.console),
        };
        client = client.host(host);
        let answer = client.send(&request);
        if let Some(set) = answer.header("set-cookie") {
            let pair = set.split(';').next().unwrap();
            self.cookie = (!pair.ends_with('=')).then(|| pair.to_owned());
            self.form_token = None;
        }
        answer
    }

    /// The token of the session's forms, as the pages have it.
    pub(crate) fn form_token(&mut self) -> String {
        if self.form_token.is_none() {
            self.form_token = Some(field(&self.page("/account"), "form_token"));
        }
        self.form_token.clone().unwrap()
    }
}

/// The value of the first field of this name.
pub(crate) fn field(page: &str, name: &str) -> String {
    let (_, rest) =
        page.split_once(&format!("name=\"{name}\" value=\"")).expect("the page has no such field");
    rest.split('"').next().unwrap().to_owned()
}

/// The one-time link that a page or a terminal shows.
pub(crate) fn link_in(text: &str) -> String {
    let (before, after) = text.split_once("/setup?token=").expect("there is no link");
    let start = before.rfind("http").unwrap();
    let is_token = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    let token: String = after.chars().take_while(|c| is_token(*c)).collect();
    format!("{}/setup?token={token}", &before[start..])
}

pub(crate) fn token_of(link: &str) -> String {
    link.split_once("?token=").expect("the link has no token").1.to_owned()
}

/// Fields as browsers send them.
pub(crate) fn encoded(fields: &[(&str, &str)]) -> String {
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish()
}
