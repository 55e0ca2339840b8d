//! What the upstream answers, by path. The table is the match in [`answer`].

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, LOCATION, SET_COOKIE, UPGRADE};
use http::{HeaderName, HeaderValue, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::upstream::{Shared, header_list};

/// So that parts are read one by one.
const PART_PAUSE: Duration = Duration::from_millis(20);
const PART: usize = 64 << 10;
/// Parts of a body that wait for the connection.
const QUEUED_PARTS: usize = 4;

type Answer = Response<UnsyncBoxBody<Bytes, io::Error>>;

/// An error closes the connection without an answer.
pub(crate) async fn answer(request: Request<Incoming>, shared: &Arc<Shared>) -> io::Result<Answer> {
    let path = request.uri().path().to_owned();
    let words: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let scripted = request.headers().get("x-answer").cloned();
    let mut answer = match *words {
        // Whatever the path, the answer that the request asks for.
        _ if scripted.is_some() => scripted_answer(scripted.unwrap().as_bytes(), request).await?,
        // The request as it came, as JSON.
        ["echo", ..] => echo(request).await?,
        ["status", status] => empty(status.parse().unwrap()),
        // An answer after so many milliseconds.
        ["slow", milliseconds] => {
            tokio::time::sleep(Duration::from_millis(milliseconds.parse().unwrap())).await;
            text("slow")
        }
        ["silent"] => std::future::pending().await,
        // A body of so many bytes, sent with its length or in chunks.
        ["bytes", length] => download(length.parse().unwrap(), true),
        ["chunked", length] => download(length.parse().unwrap(), false),
        // Counts what is uploaded.
        ["upload"] => text(&drain(request.into_body()).await?.to_string()),
        // An answer before the body has been read.
        ["early"] => text("early"),
        ["events"] => events(shared),
        // The head at once, and as its body of so many bytes the next event.
        ["event", length] => next_event(shared, length.parse().unwrap()),
        ["websocket"] => websocket(request),
        ["cookies"] => with(text("cookies"), &[(SET_COOKIE, "a=1; Path=/"), (SET_COOKIE, "b=2; HttpOnly")]),
        ["redirect"] => with(empty(302), &[(LOCATION, "/elsewhere?x=1&y=%2F")]),
        ["page"] => with(text("<!doctype html>"), &[(CONTENT_TYPE, "text/html")]),
        ["large-headers"] => {
            let large = "v".repeat(8 << 10);
            with(text("large"), &[(HeaderName::from_static("x-large"), &large)])
        }
        // Reads the request, then closes without an answer.
        ["close"] => {
            drain(request.into_body()).await?;
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        // Promises more than it sends.
        ["half"] => half(),
        ["healthz"] => empty(if shared.healthy.load(Ordering::SeqCst) { 200 } else { 503 }),
        ["missing", ..] => with(empty(404), &[]),
        _ => {
            drain(request.into_body()).await?;
            text(&format!("hello from {}", shared.name))
        }
    };
    let name = HeaderValue::from_str(&shared.name).unwrap();
    answer.headers_mut().insert("x-upstream", name);
    Ok(answer)
}

/// `{"status": 302, "headers": [["Set-Cookie", "a=1"]], "parts": ["a body", " in parts"]}`
async fn scripted_answer(script: &[u8], request: Request<Incoming>) -> io::Result<Answer> {
    drain(request.into_body()).await?;
    let script: serde_json::Value = serde_json::from_slice(script).unwrap();
    let (feed, mut answer) = fed();
    *answer.status_mut() = StatusCode::from_u16(script["status"].as_u64().unwrap_or(200) as u16).unwrap();
    for line in script["headers"].as_array().into_iter().flatten() {
        let name: HeaderName = line[0].as_str().unwrap().parse().unwrap();
        answer.headers_mut().append(name, HeaderValue::from_str(line[1].as_str().unwrap()).unwrap());
    }
    let parts: Vec<String> = script["parts"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|part| part.as_str().unwrap().to_owned())
        .collect();
    tokio::spawn(async move {
        for part in parts {
            // Whoever reads may have gone.
            let _ = feed.send(Ok(Bytes::from(part))).await;
            tokio::time::sleep(PART_PAUSE).await;
        }
    });
    Ok(answer)
}

fn text(body: &str) -> Answer {
    let body = Full::new(Bytes::copy_from_slice(body.as_bytes())).map_err(|never| match never {});
    with(Response::new(body.boxed_unsync()), &[(CONTENT_TYPE, "text/plain")])
}

fn empty(status: u16) -> Answer {
    let mut answer = Response::new(Empty::new().map_err(|never| match never {}).boxed_unsync());
    *answer.status_mut() = StatusCode::from_u16(status).unwrap();
    answer
}

fn with(mut answer: Answer, headers: &[(HeaderName, &str)]) -> Answer {
    for (name, value) in headers {
        let value = HeaderValue::from_str(value).unwrap();
        if name == SET_COOKIE {
            answer.headers_mut().append(name, value);
        } else {
            answer.headers_mut().insert(name, value);
        }
    }
    answer
}

async fn echo(request: Request<Incoming>) -> io::Result<Answer> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let said = json!({
        "method": head.method.as_str(),
        "target": head.uri.to_string(),
        "version": format!("{:?}", head.version),
        "headers": header_list(&head.headers),
        "body": String::from_utf8_lossy(&body),
    });
    Ok(with(text(&said.to_string()), &[(CONTENT_TYPE, "application/json")]))
}

async fn drain(mut body: Incoming) -> io::Result<u64> {
    let mut total = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(io::Error::other)?;
        total += frame.data_ref().map_or(0, |part| part.len() as u64);
    }
    Ok(total)
}

/// A body that is fed from a task.
struct Fed(mpsc::Receiver<io::Result<Bytes>>);

impl Body for Fed {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.0.poll_recv(cx).map(|part| part.map(|part| part.map(Frame::data)))
    }
}

fn fed() -> (mpsc::Sender<io::Result<Bytes>>, Answer) {
    let (feed, parts) = mpsc::channel(QUEUED_PARTS);
    (feed, Response::new(Fed(parts).boxed_unsync()))
}

fn download(length: u64, announced: bool) -> Answer {
    let (feed, mut answer) = fed();
    if announced {
        answer.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    tokio::spawn(async move {
        let part = Bytes::from(vec![b'x'; PART]);
        let mut left = length;
        while left > 0 {
            let take = usize::try_from(left).map_or(PART, |left| left.min(PART));
            // Fails when the connection is gone.
            if feed.send(Ok(part.slice(..take))).await.is_err() {
                return;
            }
            left -= take as u64;
        }
    });
    answer
}

fn half() -> Answer {
    let (feed, mut answer) = fed();
    answer.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(2 * PART));
    tokio::spawn(async move {
        let _ = feed.send(Ok(Bytes::from(vec![b'x'; PART]))).await;
        // Lets the first half leave before the connection breaks.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let _ = feed.send(Err(io::ErrorKind::ConnectionAborted.into())).await;
    });
    answer
}

fn events(shared: &Shared) -> Answer {
    let (feed, answer) = fed();
    let mut events = shared.events.subscribe();
    tokio::spawn(async move {
        let _ = feed.send(Ok(Bytes::from_static(b"data: open\n\n"))).await;
        while let Ok(event) = events.recv().await {
            if feed.send(Ok(Bytes::from(format!("data: {event}\n\n")))).await.is_err() {
                return;
            }
        }
    });
    with(answer, &[(CONTENT_TYPE, "text/event-stream")])
}

fn next_event(shared: &Shared, length: u64) -> Answer {
    let (feed, mut answer) = fed();
    answer.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    let mut events = shared.events.subscribe();
    tokio::spawn(async move {
        if let Ok(event) = events.recv().await {
            let _ = feed.send(Ok(Bytes::from(event))).await;
        }
    });
    answer
}

fn websocket(mut request: Request<Incoming>) -> Answer {
    let Some(key) = request.headers().get("sec-websocket-key") else { return empty(400) };
    let accept = derive_accept_key(key.as_bytes());
    tokio::spawn(async move {
        let upgraded = hyper::upgrade::on(&mut request).await.unwrap();
        let mut socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
        // Pings and closes are answered by the library while it reads.
        while let Some(Ok(message)) = socket.next().await {
            if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
                return;
            }
        }
    });
    let name = HeaderName::from_static("sec-websocket-accept");
    with(empty(101), &[(CONNECTION, "Upgrade"), (UPGRADE, "websocket"), (name, &accept)])
}
