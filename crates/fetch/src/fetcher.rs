//! Sends a request and reads its answer, hop by hop. Must not follow a redirect to where only this machine
//! or its neighbours can go, nor tell another origin what was meant for the first.

use std::fmt;
use std::io::{self, Read as _};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use percent_encoding::percent_decode_str;
use ureq::config::Config;
use ureq::tls::{Certificate, TlsConfig};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::DefaultConnector;
use ureq::{Agent, Body};
use url::Url;

use crate::error::{masked_url, one_line};
use crate::message::{Method, Request, Response};
use crate::resolver::{Guarded, LocalHosts, NotPublic, Open};
use crate::{FetchError, trust};

/// Redirects that are followed for one request.
pub const MAX_REDIRECTS: usize = 5;
/// The largest head of an answer, in bytes.
const MAX_HEAD: usize = 32 << 10;
/// What is reserved for a body before it has come, in bytes.
const MAX_RESERVED: u64 = 1 << 20;
const MAX_IDLE_CONNECTIONS: usize = 8;

/// Headers that say nothing secret, so that any origin may get them.
const FOR_ANY_ORIGIN: [HeaderName; 3] = [header::ACCEPT, header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE];

/// How a [`Fetcher`] works.
#[derive(Clone, Debug)]
pub struct Settings {
    /// For a whole exchange: name look-up, connection, TLS, redirects, body.
    pub timeout: Duration,
    pub user_agent: String,
    /// PEM certificates of authorities that are trusted besides the system's.
    pub ca: Option<PathBuf>,
}

/// A client with a small pool of connections. Cloning shares it. Proxies of the environment are not used,
/// since behind a proxy nobody could tell where a redirect leads.
#[derive(Clone)]
pub struct Fetcher(Arc<Inner>);

struct Inner {
    timeout: Duration,
    user_agent: String,
    extra_roots: Vec<Certificate<'static>>,
    /// Made at the first request: reading the system's certificates takes a while.
    agents: OnceLock<Agents>,
}

struct Agents {
    open: Agent,
    guarded: Agent,
    local: LocalHosts,
}

/// One request of an exchange.
struct Hop {
    url: Url,
    method: Method,
    headers: HeaderMap,
    /// Whether its address may be any: the operator wrote it, or might as well have.
    is_open: bool,
}

enum Step {
    Done(Response),
    Redirect(Url, u16),
}

impl Fetcher {
    /// # Errors
    /// When the file of certificates cannot be used.
    pub fn new(settings: Settings) -> Result<Self, FetchError> {
        let extra_roots = settings.ca.as_deref().map(trust::from_file).transpose()?.unwrap_or_default();
        Ok(Self(Arc::new(Inner {
            timeout: settings.timeout,
            user_agent: settings.user_agent,
            extra_roots,
            agents: OnceLock::new(),
        })))
    }

    /// Sends the request, follows redirects, and reads the answer. An answer of any status is an answer.
    ///
    /// # Errors
    /// One sentence that says what failed and at which host.
    pub fn send(&self, request: &Request) -> Result<Response, FetchError> {
        let start = Instant::now();
        let timeout = request.timeout.unwrap_or(self.0.timeout);
        let mut hop = first_hop(request)?;
        let origin = hop.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let left = timeout.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Err(FetchError::Timeout { at: masked_url(&hop.url), after: timeout });
            }
            match self.step(&hop, request, left, timeout)? {
                Step::Done(response) => return Ok(response),
                Step::Redirect(to, status) => hop = self.next_hop(&origin, hop, to, status)?,
            }
        }
        let at = masked_url(&origin);
        Err(FetchError::Redirect {
            at,
            to: masked_url(&hop.url),
            problem: "there were five redirects before",
        })
    }

    fn agents(&self) -> &Agents {
        self.0.agents.get_or_init(|| {
            let tls = TlsConfig::builder()
                .root_certs(trust::roots(&self.0.extra_roots))
                .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .build();
            let config = Config::builder()
                .http_status_as_error(false)
                .max_redirects(0)
                .max_redirects_will_error(false)
                .max_response_header_size(MAX_HEAD)
                .max_idle_connections(MAX_IDLE_CONNECTIONS)
                .proxy(None)
                .timeout_global(Some(self.0.timeout))
                .tls_config(tls)
                .user_agent(self.0.user_agent.as_str())
                .build();
            let local = LocalHosts::default();
            let open = Open { local: local.clone(), inner: DefaultResolver::default() };
            let guarded = Guarded { inner: DefaultResolver::default() };
            Agents {
                open: Agent::with_parts(config.clone(), DefaultConnector::default(), open),
                guarded: Agent::with_parts(config, DefaultConnector::default(), guarded),
                local,
            }
        })
    }

    fn step(
        &self,
        hop: &Hop,
        request: &Request,
        left: Duration,
        timeout: Duration,
    ) -> Result<Step, FetchError> {
        let agents = self.agents();
        let agent = if hop.is_open { &agents.open } else { &agents.guarded };
        let failed = |error| failure(&hop.url, error, timeout);
        let answer = match hop.method {
            Method::Get => {
                let request = message(hop, http::Method::GET, ())?;
                agent.run(agent.configure_request(request).timeout_global(Some(left)).build())
            }
            Method::Post => {
                let request = message(hop, http::Method::POST, request.body.as_slice())?;
                agent.run(agent.configure_request(request).timeout_global(Some(left)).build())
            }
        };
        let answer = answer.map_err(failed)?;
        let status = answer.status().as_u16();
        if let (301 | 302 | 303 | 307 | 308, Some(to)) = (status, answer.headers().get(header::LOCATION)) {
            return Ok(Step::Redirect(location(&hop.url, to)?, status));
        }
        let (parts, body) = answer.into_parts();
        let body = read(body, request.max_bytes).map_err(|error| match error {
            Unread::TooLarge => {
                FetchError::TooLarge { at: masked_url(&hop.url), max: request.max_bytes, status }
            }
            Unread::Failed(error) => failed(ureq::Error::from(error)),
        })?;
        Ok(Step::Done(Response::new(status, parts.headers, body)))
    }

    /// Where a redirect leads, if it may.
    fn next_hop(&self, origin: &Url, from: Hop, to: Url, status: u16) -> Result<Hop, FetchError> {
        let refuse =
            |problem| FetchError::Redirect { at: masked_url(&from.url), to: masked_url(&to), problem };
        if !matches!(to.scheme(), "http" | "https") {
            return Err(refuse("only http and https are fetched"));
        }
        if from.url.scheme() == "https" && to.scheme() == "http" {
            return Err(refuse("it would leave TLS"));
        }
        let is_same_origin = to.origin() == from.url.origin();
        if from.method == Method::Post && !(is_same_origin && matches!(status, 307 | 308)) {
            return Err(refuse("what is posted goes to no other place; configure the final URL"));
        }
        // A server of the local network may send to itself. One of the internet may not become local by a
        // change of its name's address.
        let is_same_host = to.host() == origin.host();
        let is_open = is_same_host && to.host_str().is_some_and(|host| self.agents().local.contains(host));
        let mut headers = from.headers;
        if !is_same_origin {
            let kept =
                FOR_ANY_ORIGIN.iter().filter_map(|name| Some((name.clone(), headers.get(name)?.clone())));
            headers = kept.collect();
        }
        Ok(Hop { url: to, method: from.method, headers, is_open })
    }
}

fn first_hop(request: &Request) -> Result<Hop, FetchError> {
    let wrong = |at: &str, problem: &dyn fmt::Display| FetchError::Url {
        at: at.to_owned(),
        problem: one_line(problem),
    };
    let mut url = Url::parse(&request.url).map_err(|error| wrong("the URL", &error))?;
    let at = masked_url(&url);
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong(&at, &"expected http or https"));
    }
    let mut headers = HeaderMap::new();
    for (name, value) in &request.headers {
        let problem = |what| FetchError::Request {
            at: at.clone(),
            problem: format!("{what} of header {name:?} is not valid"),
        };
        let header = HeaderName::try_from(name.as_str()).map_err(|_| problem("the name"))?;
        headers.append(header, HeaderValue::try_from(value.as_str()).map_err(|_| problem("the value"))?);
    }
    if !url.username().is_empty() || url.password().is_some() {
        let decoded = |text: &str| percent_decode_str(text).collect::<Vec<u8>>();
        let pair = [decoded(url.username()), decoded(url.password().unwrap_or_default())].join(&b':');
        if let Ok(value) = HeaderValue::try_from(format!("Basic {}", BASE64_STANDARD.encode(pair))) {
            headers.entry(header::AUTHORIZATION).or_insert(value);
        }
    }
    strip(&mut url);
    Ok(Hop { url, method: request.method, headers, is_open: true })
}

/// Removes what is not sent in a request line.
fn strip(url: &mut Url) {
    // These fail for URLs without a host only, which http and https always have.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_fragment(None);
}

fn message<B>(hop: &Hop, method: http::Method, body: B) -> Result<http::Request<B>, FetchError> {
    let built = http::Request::builder().method(method).uri(hop.url.as_str()).body(body);
    let mut request =
        built.map_err(|error| FetchError::Request { at: masked_url(&hop.url), problem: one_line(&error) })?;
    *request.headers_mut() = hop.headers.clone();
    Ok(request)
}

fn location(from: &Url, to: &HeaderValue) -> Result<Url, FetchError> {
    let problem = |problem: &str| FetchError::Protocol { at: masked_url(from), problem: problem.to_owned() };
    let text = to.to_str().map_err(|_| problem("its Location is not plain text"))?;
    let mut url = from.join(text).map_err(|_| problem("its Location is no URL"))?;
    strip(&mut url);
    Ok(url)
}

enum Unread {
    TooLarge,
    Failed(io::Error),
}

fn read(body: Body, max: u64) -> Result<Vec<u8>, Unread> {
    let told = body.content_length();
    if told.is_some_and(|bytes| bytes > max) {
        return Err(Unread::TooLarge);
    }
    let reserved = usize::try_from(told.unwrap_or(0).min(MAX_RESERVED)).unwrap_or(0);
    let mut bytes = Vec::with_capacity(reserved);
    let mut reader = body.into_with_config().limit(u64::MAX).reader().take(max.saturating_add(1));
    reader.read_to_end(&mut bytes).map_err(Unread::Failed)?;
    if bytes.len() as u64 > max { Err(Unread::TooLarge) } else { Ok(bytes) }
}

fn failure(url: &Url, error: ureq::Error, after: Duration) -> FetchError {
    let at = masked_url(url);
    match error {
        ureq::Error::Timeout(_) => FetchError::Timeout { at, after },
        ureq::Error::HostNotFound => FetchError::Dns { at },
        ureq::Error::Tls(problem) => FetchError::Tls { at, problem: problem.to_owned() },
        ureq::Error::Rustls(error) => FetchError::Tls { at, problem: one_line(&error) },
        ureq::Error::ConnectionFailed => FetchError::Connect { at, problem: "no address answers".to_owned() },
        ureq::Error::Other(error) if error.is::<NotPublic>() => FetchError::Redirect {
            at: "the server".to_owned(),
            to: at,
            problem: "it is an address of this machine or of a private network",
        },
        ureq::Error::Io(error) => io_failure(at, error, after),
        other => FetchError::Protocol { at, problem: one_line(&other) },
    }
}

fn io_failure(at: String, error: io::Error, after: Duration) -> FetchError {
    if let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        return FetchError::Tls { at, problem: one_line(tls) };
    }
    match error.kind() {
        io::ErrorKind::ConnectionRefused => FetchError::Refused { at },
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => FetchError::Timeout { at, after },
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            FetchError::Connect { at, problem: one_line(&error) }
        }
        _ => FetchError::Broken { at, source: error },
    }
}
