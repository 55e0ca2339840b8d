//! An HTTP/2 client over TLS that sends many requests at once on one connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use h2::client::SendRequest;
use http::Method;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;

use crate::client::{Head, Response};
use crate::wait::DEADLINE;

/// Lets the connection's own task write what there is to write.
const FLUSH_PAUSE: Duration = Duration::from_millis(100);

/// One request of a batch.
#[derive(Clone, Debug)]
pub struct H2Request {
    pub method: Method,
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl H2Request {
    pub fn get(path: &str) -> Self {
        Self { method: Method::GET, path: path.to_owned(), headers: Vec::new(), body: Vec::new() }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn post(path: &str, body: &[u8]) -> Self {
        Self { method: Method::POST, path: path.to_owned(), headers: Vec::new(), body: body.to_vec() }
    }
}

/// One connection.
pub struct H2Client {
    runtime: Runtime,
    send: SendRequest<Bytes>,
    name: String,
}

impl H2Client {
    /// `config` must offer `h2`.
    ///
    /// # Panics
    /// When there is no connection, or the server chooses another protocol.
    pub fn connect(to: SocketAddr, name: &str, config: &Arc<ClientConfig>) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let send = runtime.block_on(async {
            let stream = TcpStream::connect(to).await.unwrap();
            stream.set_nodelay(true).unwrap();
            let server = ServerName::try_from(name.to_owned()).unwrap();
            let tls = TlsConnector::from(Arc::clone(config)).connect(server, stream).await.unwrap();
            assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"h2"[..]), "the server does not speak HTTP/2");
            let (send, connection) = h2::client::handshake(tls).await.unwrap();
            tokio::spawn(async move {
                // Its end shows in the requests.
                let _ = connection.await;
            });
            send
        });
        Self { runtime, send, name: name.to_owned() }
    }

    pub fn send(&self, request: H2Request) -> Result<Response, h2::Error> {
        self.send_all(vec![request]).remove(0)
    }

    /// Sends a request without a body, and takes it back (RST_STREAM) when `has_arrived` returns.
    pub fn send_and_cancel(&self, request: H2Request, has_arrived: impl FnOnce()) {
        self.runtime.block_on(async {
            let mut ready = self.send.clone().ready().await.unwrap();
            let uri = format!("https://{}{}", self.name, request.path);
            let head = http::Request::builder().method(request.method).uri(uri).body(()).unwrap();
            let (answer, mut stream) = ready.send_request(head, true).unwrap();
            tokio::time::sleep(FLUSH_PAUSE).await;
            has_arrived();
            stream.send_reset(Reason::CANCEL);
            drop(answer);
            tokio::time::sleep(FLUSH_PAUSE).await;
        });
    }

    /// Sends all requests before it waits for the first answer, as far as the server lets it.
    pub fn send_all(&self, requests: Vec<H2Request>) -> Vec<Result<Response, h2::Error>> {
        self.runtime.block_on(async {
            let tasks: Vec<_> = requests
                .into_iter()
                .map(|request| tokio::spawn(until_taken(self.send.clone(), self.name.clone(), request)))
                .collect();
            let mut answers = Vec::with_capacity(tasks.len());
            for task in tasks {
                answers.push(tokio::time::timeout(DEADLINE, task).await.expect("no answer in time").unwrap());
            }
            answers
        })
    }
}

/// A server may refuse a stream that it has no room for, and does nothing with it then: the request may be
/// sent again (RFC 9113, 8.7), as browsers do.
async fn until_taken(
    send: SendRequest<Bytes>,
    name: String,
    request: H2Request,
) -> Result<Response, h2::Error> {
    loop {
        match one(send.clone(), &name, request.clone()).await {
            Err(error) if error.reason() == Some(Reason::REFUSED_STREAM) => {}
            answered => return answered,
        }
    }
}

async fn one(send: SendRequest<Bytes>, name: &str, request: H2Request) -> Result<Response, h2::Error> {
    let mut ready = send.ready().await?;
    let mut head =
        http::Request::builder().method(request.method).uri(format!("https://{name}{}", request.path));
    for (name, value) in &request.headers {
        head = head.header(name, value);
    }
    let head = head.body(()).unwrap();
    let (answer, mut body) = ready.send_request(head, request.body.is_empty())?;
    if !request.body.is_empty() {
        body.send_data(Bytes::from(request.body), true)?;
    }
    let answer = answer.await?;
    let (parts, mut stream) = answer.into_parts();
    let mut body = Vec::new();
    while let Some(part) = stream.data().await {
        let part = part?;
        stream.flow_control().release_capacity(part.len())?;
        body.extend_from_slice(&part);
    }
    let headers = parts.headers.iter();
    let headers = headers
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    let head = Head { status: parts.status.as_u16(), version: "HTTP/2".to_owned(), headers };
    Ok(Response { head, body })
}
