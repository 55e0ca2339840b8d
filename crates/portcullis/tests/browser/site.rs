//! A small site with pages for people: assets, a login with a cookie and a redirect, a download.
//!
//! Owns these pages and their server. WebSocket, events and uploads come from the testkit's upstream.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_DISPOSITION, CONTENT_TYPE, COOKIE, HeaderValue, LOCATION, SET_COOKIE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

const COOKIE_OF_ADA: &str = "session=ada-lovelace";
/// Bytes of the download: many times what fits into one buffer.
const REPORT: usize = 3_000_000;

/// Starts the site on a free port; it ends with the test's process.
pub(crate) fn start() -> SocketAddr {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        runtime.block_on(async {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                tokio::spawn(async {
                    let service = service_fn(|request| async { Ok::<_, Infallible>(answer(request).await) });
                    // A browser drops connections when it likes.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(socket), service)
                        .await;
                });
            }
        });
    });
    address
}

/// What the download holds: every byte tells where it stands, so that a missing part shows.
pub(crate) fn report() -> Vec<u8> {
    (0..REPORT).map(|n| (n % 251) as u8).collect()
}

async fn answer(request: Request<Incoming>) -> Response<Full<Bytes>> {
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/") => file("text/html", include_str!("site/home.html")),
        (&Method::GET, "/style.css") => file("text/css", include_str!("site/style.css")),
        (&Method::GET, "/app.js") => file("text/javascript", include_str!("site/app.js")),
        (&Method::GET, "/logo.svg" | "/favicon.ico") => file("image/svg+xml", include_str!("site/logo.svg")),
        (&Method::GET, "/login") => login_page(StatusCode::OK, "Please log in."),
        (&Method::POST, "/login") => login(request).await,
        (&Method::GET, "/account") => account(&request),
        (&Method::GET, "/report.bin") => {
            let mut answer = Response::new(Full::from(report()));
            let headers = answer.headers_mut();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
            headers
                .insert(CONTENT_DISPOSITION, HeaderValue::from_static("attachment; filename=\"report.bin\""));
            answer
        }
        _ => with_status(file("text/plain", "no such page"), StatusCode::NOT_FOUND),
    }
}

fn file(content_type: &'static str, text: &str) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::from(text.to_owned()));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

fn with_status(mut answer: Response<Full<Bytes>>, status: StatusCode) -> Response<Full<Bytes>> {
    *answer.status_mut() = status;
    answer
}

fn login_page(status: StatusCode, message: &str) -> Response<Full<Bytes>> {
    with_status(file("text/html", &include_str!("site/login.html").replace("{{message}}", message)), status)
}

async fn login(request: Request<Incoming>) -> Response<Full<Bytes>> {
    let body = request.into_body().collect().await.unwrap().to_bytes();
    if body.as_ref() != b"name=ada&password=lovelace" {
        return login_page(StatusCode::UNAUTHORIZED, "That is not the password.");
    }
    let mut answer = with_status(Response::default(), StatusCode::SEE_OTHER);
    let cookie = format!("{COOKIE_OF_ADA}; Path=/; HttpOnly");
    answer.headers_mut().insert(LOCATION, HeaderValue::from_static("/account"));
    answer.headers_mut().insert(SET_COOKIE, HeaderValue::from_str(&cookie).unwrap());
    answer
}

fn account(request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let is_ada = request.headers().get(COOKIE).is_some_and(|cookie| cookie == COOKIE_OF_ADA);
    let text = if is_ada { "Welcome, Ada." } else { "Who are you?" };
    file("text/html", &format!("<!doctype html><title>Account</title><h1 id=\"welcome\">{text}</h1>"))
}
