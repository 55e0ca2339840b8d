//! The meter between a real HTTP/2 client and server: busy and honest is no flood and no stall, and a client
//! that stops in the middle is one.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::{RecvStream, SendStream, client, server};
use http::{Request, Response};
use portcullis_wire::frames::{Meter, Preface, Stall, StallKind};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::task::JoinSet;

/// The server's end of a connection, with the meter on it as the gateway has it.
struct Metered {
    inner: DuplexStream,
    meter: Arc<Mutex<Meter>>,
    began: Instant,
}

impl Metered {
    fn now_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }
}

impl AsyncRead for Metered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        let flooded = self.meter.lock().unwrap().inbound(&buf.filled()[before..], self.now_ms());
        assert_eq!(flooded, Ok(()));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Metered {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.inner).poll_write(cx, buf))?;
        self.meter.lock().unwrap().outbound(&buf[..written], self.now_ms());
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// A server that reads each request to its end and answers with as many bytes, behind a meter.
async fn connect() -> (client::SendRequest<Bytes>, Arc<Mutex<Meter>>) {
    let (near, far) = tokio::io::duplex(16 * 1024);
    let meter = Arc::new(Mutex::new(Meter::new(1000, 0)));
    let metered = Metered { inner: far, meter: meter.clone(), began: Instant::now() };
    tokio::spawn(async move {
        let mut connection = server::handshake(metered).await.unwrap();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            tokio::spawn(async move {
                let length = drain(request.into_body()).await;
                let body = respond.send_response(Response::new(()), false).unwrap();
                send(body, length).await;
            });
        }
    });
    let (client, connection) = client::handshake(near).await.unwrap();
    tokio::spawn(async move {
        let _ = connection.await;
    });
    (client, meter)
}

async fn drain(mut body: RecvStream) -> usize {
    let mut length = 0;
    while let Some(Ok(data)) = body.data().await {
        length += data.len();
        let _ = body.flow_control().release_capacity(data.len());
    }
    length
}

/// Sends as fast as the peer lets it; ends early when the stream does.
async fn send(mut body: SendStream<Bytes>, length: usize) {
    let mut left = length;
    while left > 0 {
        body.reserve_capacity(left);
        let Some(Ok(room)) = poll_fn(|cx| body.poll_capacity(cx)).await else { return };
        let part = room.min(left);
        if body.send_data(Bytes::from(vec![b'x'; part]), false).is_err() {
            return;
        }
        left -= part;
    }
    let _ = body.send_data(Bytes::new(), true);
}

async fn until<T>(meter: &Mutex<Meter>, seen: impl Fn(&Meter) -> Option<T>) -> T {
    for _ in 0..1000 {
        if let Some(found) = seen(&meter.lock().unwrap()) {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never seen: {:?}", meter.lock().unwrap());
}

#[tokio::test]
async fn honest_traffic_leaves_nothing_behind() {
    let (client, meter) = connect().await;
    let mut calls = JoinSet::new();
    for n in 0..200usize {
        let mut client = client.clone().ready().await.unwrap();
        calls.spawn(async move {
            let length = n % 7 * 40_000;
            let (response, body) = client.send_request(Request::new(()), length == 0).unwrap();
            if length > 0 {
                send(body, length).await;
            }
            assert_eq!(drain(response.await.unwrap().into_body()).await, length);
        });
        if calls.len() >= 50 {
            calls.join_next().await.unwrap().unwrap();
        }
    }
    while let Some(call) = calls.join_next().await {
        call.unwrap();
    }
    until(&meter, |meter| (meter.streams_open() == 0).then_some(())).await;
    let meter = meter.lock().unwrap();
    assert_eq!(meter.preface(), Preface::Complete);
    assert_eq!((meter.streams_opened(), meter.streams_refused(), meter.last_error()), (200, 0, None));
    assert_eq!((meter.stalled(), meter.unfinished_since()), (None, None));
}

#[tokio::test]
async fn a_client_that_does_not_read_is_seen() {
    let (client, meter) = connect().await;
    let mut client = client.ready().await.unwrap();
    let (response, body) = client.send_request(Request::new(()), false).unwrap();
    send(body, 300_000).await;
    let unread = response.await.unwrap();
    let stall = until(&meter, |meter| meter.stalled().filter(|stall| stall.kind == StallKind::Read)).await;
    assert!([0, 1].contains(&stall.stream), "{stall:?}");

    drain(unread.into_body()).await;
    until(&meter, |meter| (meter.stalled().is_none() && meter.streams_open() == 0).then_some(())).await;
}

#[tokio::test]
async fn a_client_that_stops_sending_is_seen() {
    let (client, meter) = connect().await;
    let mut client = client.ready().await.unwrap();
    let (_response, mut body) = client.send_request(Request::new(()), false).unwrap();
    body.send_data(Bytes::from_static(b"half of"), false).unwrap();
    let stall = until(&meter, |meter| meter.stalled()).await;
    assert!(matches!(stall, Stall { stream: 1, kind: StallKind::Upload, .. }), "{stall:?}");

    body.send_data(Bytes::from_static(b" it"), true).unwrap();
    until(&meter, |meter| (meter.stalled().is_none() && meter.streams_open() == 0).then_some(())).await;
}
