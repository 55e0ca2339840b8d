//! The sample shop's server: HTTP/1.1 with keep-alive on its own thread, as an application of its own.
//! Owns routing, sessions and status codes; must not know the gateway, only the headers that it forwards.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::{Semaphore, oneshot};

use super::pages::{self, PRODUCTS, Product, Visit};

/// Connections served at once; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 512;
/// The login form is the only body that anybody sends.
const MAX_BODY_BYTES: usize = 16 * 1024;
/// People who are logged in at once; the one who has been longest has to log in again.
const MAX_SESSIONS: usize = 1_000;
/// Of a search, what is looked for and echoed.
const MAX_QUERY_CHARS: usize = 100;
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
const SLOW_PAGE_DELAY: Duration = Duration::from_secs(2);
/// After a failed `accept`, for example when the process has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

const USER: &str = "ada";
const PASSWORD: &str = "lovelace";

const ROBOTS: &str = "User-agent: *\nDisallow: /admin\nDisallow: /account\nDisallow: /login\n";
const SECURITY_POLICY: &str = "default-src 'self'; frame-ancestors 'none'; base-uri 'none'";
const HTML: &str = "text/html; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// The running site; dropping it ends its thread and closes its connections.
pub(crate) struct SiteHandle {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl SiteHandle {
    /// Where it listens; with the real port when port 0 was asked for.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for SiteHandle {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of that thread has been printed by the panic hook already.
            let _ = thread.join();
        }
    }
}

/// Starts the site on `listen`; port 0 takes any free port.
///
/// # Errors
/// The address cannot be bound, or no thread can be started.
pub(crate) fn start(listen: SocketAddr) -> io::Result<SiteHandle> {
    let listener = std::net::TcpListener::bind(listen)?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let listener = {
        let _entered = runtime.enter();
        tokio::net::TcpListener::from_std(listener)?
    };
    let (stop, stopped) = oneshot::channel();
    let thread = std::thread::Builder::new().name("demo-site".into()).spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                () = serve(listener) => {}
                _ = stopped => {}
            }
        });
    })?;
    Ok(SiteHandle { address, stop: Some(stop), thread: Some(thread) })
}

async fn serve(listener: tokio::net::TcpListener) {
    let sessions = Arc::new(Sessions::default());
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        // Small answers leave at once; without it the page is as good, only later.
        let _ = stream.set_nodelay(true);
        let sessions = Arc::clone(&sessions);
        tokio::spawn(async move {
            let service = service_fn(|request| answer(request, Arc::clone(&sessions)));
            // A client that breaks the protocol or goes away concerns nobody else.
            let _ = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            drop(permit);
        });
    }
}

/// The tokens of those who are logged in, oldest first.
#[derive(Default)]
struct Sessions(Mutex<VecDeque<String>>);

impl Sessions {
    fn begin(&self) -> String {
        // Good enough for a shop whose only password is printed on its login page.
        let token = format!("{:032x}", fastrand::u128(..));
        let mut tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if tokens.len() >= MAX_SESSIONS {
            tokens.pop_front();
        }
        tokens.push_back(token.clone());
        token
    }

    fn knows(&self, headers: &HeaderMap) -> bool {
        let cookies = headers.get_all(header::COOKIE);
        let mut tokens = cookies
            .iter()
            .filter_map(|line| line.to_str().ok())
            .flat_map(|line| line.split(';'))
            .filter_map(|pair| pair.trim().strip_prefix("session="));
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.any(|token| known.iter().any(|k| k == token))
    }
}

enum Page {
    Home,
    Products,
    Product(&'static Product),
    Picture(&'static Product),
    Style,
    Logo,
    Script,
    Robots,
    Feed,
    Api,
    Login,
    Account,
    Admin,
    RateLimitTest,
    Search,
    Slow,
    Error,
}

impl Page {
    fn of(path: &str) -> Option<Self> {
        Some(match path {
            "/" => Self::Home,
            "/products" => Self::Products,
            "/assets/style.css" => Self::Style,
            "/assets/logo.svg" | "/favicon.ico" => Self::Logo,
            "/assets/rate-limit-test.js" => Self::Script,
            "/robots.txt" => Self::Robots,
            "/feed.xml" => Self::Feed,
            "/api/products" => Self::Api,
            "/login" => Self::Login,
            "/account" => Self::Account,
            "/admin" => Self::Admin,
            "/rate-limit-test" => Self::RateLimitTest,
            "/search" => Self::Search,
            "/slow" => Self::Slow,
            "/error" => Self::Error,
            _ => {
                if let Some(number) = path.strip_prefix("/products/") {
                    Self::Product(find_product(number)?)
                } else {
                    let number = path.strip_prefix("/assets/products/")?.strip_suffix(".svg")?;
                    Self::Picture(find_product(number)?)
                }
            }
        })
    }
}

fn find_product(number: &str) -> Option<&'static Product> {
    PRODUCTS.iter().find(|p| p.id.to_string() == number)
}

type Answer = Response<Full<Bytes>>;

async fn answer(request: Request<Incoming>, sessions: Arc<Sessions>) -> Result<Answer, Infallible> {
    let (head, body) = request.into_parts();
    let visit = Visit {
        request_id: text_of(&head.headers, "x-request-id"),
        forwarded_for: text_of(&head.headers, "x-forwarded-for"),
        signed_in: sessions.knows(&head.headers),
    };
    let Some(page) = Page::of(head.uri.path()) else {
        let text = "There is no such page in this shop.";
        return Ok(html(StatusCode::NOT_FOUND, pages::plain("Not found", text, &visit)));
    };
    Ok(match (head.method, page) {
        (Method::POST, Page::Login) => log_in(body, &sessions, &visit).await,
        (Method::GET | Method::HEAD, page) => show(page, head.uri.query().unwrap_or_default(), &visit).await,
        (_, Page::Login) => wrong_method("GET, HEAD, POST", &visit),
        _ => wrong_method("GET, HEAD", &visit),
    })
}

async fn show(page: Page, query: &str, visit: &Visit<'_>) -> Answer {
    match page {
        Page::Home => html(StatusCode::OK, pages::home(visit)),
        Page::Products => html(StatusCode::OK, pages::products(visit)),
        Page::Product(product) => html(StatusCode::OK, pages::product_page(product, visit)),
        Page::Picture(product) => asset(SVG, pages::picture(product)),
        Page::Style => asset("text/css; charset=utf-8", include_str!("assets/style.css")),
        Page::Logo => asset(SVG, include_str!("assets/logo.svg")),
        Page::Script => asset("text/javascript; charset=utf-8", include_str!("assets/rate-limit-test.js")),
        Page::Robots => asset("text/plain; charset=utf-8", ROBOTS),
        Page::Feed => asset("application/atom+xml; charset=utf-8", pages::feed()),
        Page::Api => asset("application/json", pages::catalogue()),
        Page::Login => html(StatusCode::OK, pages::login(None, visit)),
        Page::Account if visit.signed_in => html(StatusCode::OK, pages::account(visit)),
        Page::Account => redirect("/login"),
        Page::Admin => {
            let text = "This part of the shop is for its keepers.";
            html(StatusCode::FORBIDDEN, pages::plain("Not for visitors", text, visit))
        }
        Page::RateLimitTest => html(StatusCode::OK, pages::rate_limit_test(visit)),
        Page::Search => {
            let wanted: String =
                field(query, "q").unwrap_or_default().chars().take(MAX_QUERY_CHARS).collect();
            html(StatusCode::OK, pages::search(&wanted, visit))
        }
        Page::Slow => {
            tokio::time::sleep(SLOW_PAGE_DELAY).await;
            html(StatusCode::OK, pages::plain("Slow page", "This took two seconds, on purpose.", visit))
        }
        Page::Error => {
            let text = "The shop fell over, on purpose.";
            html(StatusCode::INTERNAL_SERVER_ERROR, pages::plain("Something broke", text, visit))
        }
    }
}

async fn log_in(body: Incoming, sessions: &Sessions, visit: &Visit<'_>) -> Answer {
    let Ok(collected) = Limited::new(body, MAX_BODY_BYTES).collect().await else {
        let text = "A login form is not that long.";
        return html(StatusCode::PAYLOAD_TOO_LARGE, pages::plain("Too much", text, visit));
    };
    let form = String::from_utf8_lossy(&collected.to_bytes()).into_owned();
    let right = field(&form, "username").as_deref() == Some(USER)
        && field(&form, "password").as_deref() == Some(PASSWORD);
    if !right {
        let problem = Some("That name and password do not belong together.");
        return html(StatusCode::UNAUTHORIZED, pages::login(problem, visit));
    }
    let mut answer = redirect("/account");
    let cookie = format!("session={}; Path=/; HttpOnly; SameSite=Lax", sessions.begin());
    if let Ok(cookie) = HeaderValue::try_from(cookie) {
        answer.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    answer
}

fn html(status: StatusCode, page: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(page)));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(HTML));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(SECURITY_POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

fn asset(kind: &'static str, content: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(content.into()));
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=300"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

fn redirect(to: &'static str) -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = StatusCode::SEE_OTHER;
    answer.headers_mut().insert(header::LOCATION, HeaderValue::from_static(to));
    answer
}

fn wrong_method(allowed: &'static str, visit: &Visit<'_>) -> Answer {
    let text = "This page cannot be asked for in that way.";
    let mut answer = html(StatusCode::METHOD_NOT_ALLOWED, pages::plain("Wrong method", text, visit));
    answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    answer
}

fn text_of<'a>(headers: &'a HeaderMap, name: &'static str) -> &'a str {
    headers.get(HeaderName::from_static(name)).and_then(|v| v.to_str().ok()).unwrap_or_default()
}

/// The first value of `name` in a query or a form body (`application/x-www-form-urlencoded`).
fn field(form: &str, name: &str) -> Option<String> {
    form.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (form_decode(key) == name).then(|| form_decode(value))
    })
}

/// An escape that is not two hexadecimal digits stays as it is; broken UTF-8 becomes U+FFFD.
fn form_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'+' => out.push(b' '),
            b'%' => match bytes.get(at..at + 2).and_then(hex_pair) {
                Some(value) => {
                    out.push(value);
                    at += 2;
                }
                None => out.push(b'%'),
            },
            _ => out.push(byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn hex_pair(digits: &[u8]) -> Option<u8> {
    digits.iter().try_fold(0, |value, &digit| {
        let digit = char::from(digit).to_digit(16)?;
        u8::try_from(u32::from(value) * 16 + digit).ok()
    })
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::super::http_client::{Answer, Connection, Errand};
    use super::*;

    fn on_the_site<T>(visit: impl AsyncFnOnce(&mut Connection) -> T) -> T {
        let site = start(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { visit(&mut Connection::new(site.address(), "shop.example")).await })
    }

    async fn get(connection: &mut Connection, path: &str) -> Answer {
        connection.send(&Errand::get(path)).await.unwrap()
    }

    async fn post(connection: &mut Connection, path: &str, form: &str) -> Answer {
        connection.send(&Errand::post(path, form)).await.unwrap()
    }

    #[test]
    fn every_page_answers_with_its_status_type_and_length() {
        on_the_site(async |connection| {
            for (path, status, kind) in [
                ("/", 200, "text/html"),
                ("/products", 200, "text/html"),
                ("/products/1", 200, "text/html"),
                ("/products/12", 200, "text/html"),
                ("/products/0", 404, "text/html"),
                ("/products/13", 404, "text/html"),
                ("/products/01", 404, "text/html"),
                ("/login", 200, "text/html"),
                ("/account", 303, ""),
                ("/admin", 403, "text/html"),
                ("/rate-limit-test", 200, "text/html"),
                ("/search?q=lamp", 200, "text/html"),
                ("/error", 500, "text/html"),
                ("/.env", 404, "text/html"),
                ("/robots.txt", 200, "text/plain"),
                ("/favicon.ico", 200, "image/svg+xml"),
                ("/assets/style.css", 200, "text/css"),
                ("/assets/logo.svg", 200, "image/svg+xml"),
                ("/assets/rate-limit-test.js", 200, "text/javascript"),
                ("/assets/products/7.svg", 200, "image/svg+xml"),
                ("/assets/products/70.svg", 404, "text/html"),
            ] {
                let answer = get(connection, path).await;
                assert_eq!(answer.status, status, "{path}");
                assert!(answer.header("content-type").starts_with(kind), "{path}");
                let length: usize = answer.header("content-length").parse().unwrap();
                assert_eq!(length, answer.body.len(), "{path}");
            }
        });
    }

    #[test]
    fn a_connection_is_kept_until_the_client_wants_it_closed() {
        let site = start(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let mut stream = std::net::TcpStream::connect(site.address()).unwrap();
        for (close, path) in [("", "/"), ("", "/nowhere"), ("connection: close\r\n", "/products")] {
            write!(stream, "GET {path} HTTP/1.1\r\nhost: shop.example\r\n{close}\r\n").unwrap();
        }
        let mut answers = String::new();
        stream.read_to_string(&mut answers).unwrap();
        let statuses: Vec<_> =
            answers.match_indices("HTTP/1.1 ").map(|(at, _)| &answers[at + 9..at + 12]).collect();
        assert_eq!(statuses, ["200", "404", "200"]);
    }

    #[test]
    fn a_wrong_password_is_401_and_the_right_one_opens_the_account() {
        on_the_site(async |connection| {
            let wrong = post(connection, "/login", "username=ada&password=byron").await;
            assert_eq!(wrong.status, 401);
            assert!(wrong.text().contains("do not belong together"));
            assert_eq!(wrong.header("set-cookie"), "");

            let right = post(connection, "/login", "password=%6Covelace&username=ada").await;
            assert_eq!((right.status, right.header("location")), (303, "/account"));
            let cookie = right.header("set-cookie").split(';').next().unwrap().to_owned();

            let account = connection.send(&Errand::get("/account").with("cookie", &cookie)).await.unwrap();
            assert_eq!(account.status, 200);
            assert!(account.text().contains("Welcome back, Ada"));
            let forged = Errand::get("/account").with("cookie", "session=0");
            assert_eq!(connection.send(&forged).await.unwrap().status, 303);
        });
    }

    #[test]
    fn the_footer_shows_escaped_what_the_gateway_forwarded() {
        on_the_site(async |connection| {
            let errand =
                Errand::get("/").with("x-request-id", "06A<b>").with("x-forwarded-for", "203.0.113.9");
            let page = connection.send(&errand).await.unwrap().text();
            assert!(page.contains("<code>06A&lt;b&gt;</code>, forwarded for <code>203.0.113.9</code>"));
        });
    }

    #[test]
    fn a_search_is_decoded_once_escaped_and_cut() {
        on_the_site(async |connection| {
            let page = get(connection, "/search?q=%3Cscript%3E+%2526").await.text();
            assert!(page.contains("&lt;script&gt; %26”"));
            let long = get(connection, &format!("/search?q={}", "a".repeat(5_000))).await.text();
            assert!(!long.contains(&"a".repeat(MAX_QUERY_CHARS + 1)));
        });
    }

    #[test]
    fn head_gets_the_length_without_the_body() {
        on_the_site(async |connection| {
            let full = get(connection, "/products").await;
            let head = connection.send(&Errand::head("/products")).await.unwrap();
            assert_eq!((head.status, head.body.len()), (200, 0));
            assert_eq!(head.header("content-length"), full.body.len().to_string());
        });
    }

    #[test]
    fn other_methods_are_405_on_pages_and_404_elsewhere() {
        on_the_site(async |connection| {
            let answer = post(connection, "/products", "a=b").await;
            assert_eq!((answer.status, answer.header("allow")), (405, "GET, HEAD"));
            assert_eq!(post(connection, "/xmlrpc.php", "").await.status, 404);
        });
    }

    #[test]
    fn a_login_form_above_the_bound_is_413() {
        on_the_site(async |connection| {
            let form = format!("username=ada&password={}", "x".repeat(MAX_BODY_BYTES));
            assert_eq!(post(connection, "/login", &form).await.status, 413);
        });
    }

    #[test]
    fn the_slow_page_takes_its_time() {
        on_the_site(async |connection| {
            let asked = std::time::Instant::now();
            assert_eq!(get(connection, "/slow").await.status, 200);
            assert!(asked.elapsed() >= SLOW_PAGE_DELAY);
        });
    }

    #[test]
    fn a_port_in_use_is_an_error_at_start() {
        let first = start(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        assert_eq!(start(first.address()).err().map(|e| e.kind()), Some(io::ErrorKind::AddrInUse));
    }

    #[test]
    fn the_oldest_session_ends_when_there_are_too_many() {
        let sessions = Sessions::default();
        let cookie = |token: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::COOKIE, format!("theme=dark; session={token}").parse().unwrap());
            headers
        };
        let first = cookie(&sessions.begin());
        assert!(sessions.knows(&first));
        for _ in 0..MAX_SESSIONS {
            sessions.begin();
        }
        assert!(!sessions.knows(&first));
    }

    #[test]
    fn broken_escapes_stay_as_they_are() {
        for (text, want) in
            [("a+b", "a b"), ("%41%zz%", "A%zz%"), ("%4", "%4"), ("%ff", "\u{fffd}"), ("", "")]
        {
            assert_eq!(form_decode(text), want);
        }
        assert_eq!(field("a=1&b&c=3&a=2", "a").as_deref(), Some("1"));
        assert_eq!(field("a=1&b", "b").as_deref(), Some(""));
        assert_eq!(field("a=1", "z"), None);
    }
}
