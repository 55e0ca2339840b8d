//! One client's connection to the gateway: a small HTTP/1.1 client with keep-alive.
//! Owns sending and reading; must not decide what to ask for and keeps no tallies.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use portcullis_model::RequestId;
use tokio::net::TcpStream;

/// The header in which the gateway names the decision behind a refusal.
pub(super) const DECISION_HEADER: &str = "x-portcullis-decision";

const MAX_BODY_BYTES: usize = 1024 * 1024;
/// From connecting to the last byte of the answer.
const TIMEOUT: Duration = Duration::from_secs(15);

/// A request that is yet to be sent.
pub(super) struct Errand<'a> {
    method: Method,
    target: &'a str,
    headers: Vec<(&'static str, &'a str)>,
    form: Option<&'a str>,
}

impl<'a> Errand<'a> {
    /// `target` is a path with an optional query, already escaped.
    pub(super) fn get(target: &'a str) -> Self {
        Self { method: Method::GET, target, headers: Vec::new(), form: None }
    }

    pub(super) fn head(target: &'a str) -> Self {
        Self { method: Method::HEAD, ..Self::get(target) }
    }

    /// `form` is `application/x-www-form-urlencoded`.
    pub(super) fn post(target: &'a str, form: &'a str) -> Self {
        Self { method: Method::POST, form: Some(form), ..Self::get(target) }
    }

    /// `name` is in lower case; an empty value sends no header.
    pub(super) fn with(mut self, name: &'static str, value: &'a str) -> Self {
        if !value.is_empty() {
            self.headers.push((name, value));
        }
        self
    }

    fn request(&self, host: &str) -> Result<Request<Full<Bytes>>, Failure> {
        let mut request = Request::builder().method(&self.method).uri(self.target).header(header::HOST, host);
        for (name, value) in &self.headers {
            request = request.header(*name, *value);
        }
        if self.form.is_some() {
            let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
            request = request.header(header::CONTENT_TYPE, kind);
        }
        let body = self.form.map_or(Bytes::new(), |form| Bytes::copy_from_slice(form.as_bytes()));
        request.body(Full::new(body)).map_err(|e| Failure(format!("bad request for {}: {e}", self.target)))
    }
}

/// No answer, and why, for people.
#[derive(Debug)]
pub(super) struct Failure(pub(super) String);

/// An answer, complete.
pub(super) struct Answer {
    pub(super) status: u16,
    /// Present when the gateway refused the request; the site itself never sends one.
    pub(super) decision: Option<RequestId>,
    pub(super) body: Bytes,
    headers: HeaderMap,
}

impl Answer {
    /// The first value of a header, or nothing.
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A connection that opens itself when it is needed.
pub(super) struct Connection {
    gateway: SocketAddr,
    host: String,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Connection {
    /// `host` goes into the Host header.
    pub(super) fn new(gateway: SocketAddr, host: &str) -> Self {
        Self { gateway, host: host.to_owned(), sender: None }
    }

    /// The next request takes a new connection.
    pub(super) fn close(&mut self) {
        self.sender = None;
    }

    /// Sends and reads the whole answer.
    ///
    /// # Errors
    /// No connection, a broken or over-long answer, or none in time.
    pub(super) async fn send(&mut self, errand: &Errand<'_>) -> Result<Answer, Failure> {
        let sent = tokio::time::timeout(TIMEOUT, self.send_once_or_again(errand)).await;
        let result =
            sent.unwrap_or_else(|_| Err(Failure(format!("no answer within {} s", TIMEOUT.as_secs()))));
        if result.is_err() {
            self.close();
        }
        result
    }

    /// A server may close a kept connection at the moment a request leaves. That is nobody's fault, so
    /// what is safe to repeat is repeated once on a new connection, as browsers do.
    async fn send_once_or_again(&mut self, errand: &Errand<'_>) -> Result<Answer, Failure> {
        let kept = self.sender.as_ref().is_some_and(|sender| !sender.is_closed());
        match self.exchange(errand).await {
            Err(_) if kept && errand.method.is_idempotent() => {
                self.close();
                self.exchange(errand).await
            }
            result => result,
        }
    }

    async fn exchange(&mut self, errand: &Errand<'_>) -> Result<Answer, Failure> {
        let request = errand.request(&self.host)?;
        let sender = self.ready().await?;
        let answer = sender.send_request(request).await.map_err(|e| Failure(chain(&e)))?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, MAX_BODY_BYTES).collect().await;
        let body = body.map_err(|e| Failure(format!("the answer broke off: {e}")))?.to_bytes();
        let decision = head.headers.get(DECISION_HEADER).and_then(|v| v.to_str().ok()?.parse().ok());
        Ok(Answer { status: head.status.as_u16(), decision, body, headers: head.headers })
    }

    async fn ready(&mut self) -> Result<&mut SendRequest<Full<Bytes>>, Failure> {
        if let Some(mut kept) = self.sender.take()
            && kept.ready().await.is_ok()
        {
            return Ok(self.sender.insert(kept));
        }
        let opened = self.connect().await?;
        Ok(self.sender.insert(opened))
    }

    async fn connect(&mut self) -> Result<SendRequest<Full<Bytes>>, Failure> {
        let gateway = self.gateway;
        let stream = TcpStream::connect(gateway)
            .await
            .map_err(|e| Failure(format!("cannot connect to {gateway}: {e}")))?;
        stream.set_nodelay(true).map_err(|e| Failure(e.to_string()))?;
        let (sender, driver) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|e| Failure(chain(&e)))?;
        // Its errors also reach whoever waits for an answer; it ends when the sender is dropped.
        tokio::spawn(driver);
        Ok(sender)
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
