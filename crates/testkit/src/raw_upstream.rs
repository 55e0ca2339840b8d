//! An upstream that writes its own bytes: for answers that no proper server gives.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use socket2::SockRef;

use crate::wait::DEADLINE;

/// The longest request that is read.
const MAX_REQUEST: usize = 64 << 10;

/// Answers every request with the same bytes, on one connection after another. Ends when it is dropped.
pub struct RawUpstream {
    address: SocketAddr,
    requests: Arc<AtomicUsize>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl RawUpstream {
    /// Each connection gets one answer and is closed after `pause`. Requests must come in one piece.
    pub fn answering(answer: &str, pause: Duration) -> Self {
        let answer = answer.to_owned();
        Self::run(move |stream, count| {
            if has_request(stream) {
                count();
                // The gateway may have gone meanwhile.
                let _ = stream.write_all(answer.as_bytes());
                thread::sleep(pause);
            }
        })
    }

    /// Resets each connection as soon as a request has come on it.
    pub fn resetting() -> Self {
        Self::run(|stream, count| reset_after_request(stream, count))
    }

    /// Answers the first request of each connection, and resets it as soon as a second one has come.
    pub fn resetting_kept_connections(answer: &str) -> Self {
        let answer = answer.to_owned();
        Self::run(move |stream, count| {
            if has_request(stream) {
                count();
                let _ = stream.write_all(answer.as_bytes());
                reset_after_request(stream, count);
            }
        })
    }

    /// `serve` counts each request.
    fn run(serve: impl Fn(&mut TcpStream, &dyn Fn()) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (requests, stopping) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, stop) = (Arc::clone(&requests), Arc::clone(&stopping));
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let mut stream = stream.unwrap();
                stream.set_read_timeout(Some(DEADLINE)).unwrap();
                serve(&mut stream, &|| {
                    count.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        Self { address, requests, stopping, thread: Some(thread) }
    }

    /// `http://ADDRESS`
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Requests that have come.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

/// Waits for a request, or for the end of the connection.
fn has_request(stream: &mut TcpStream) -> bool {
    stream.read(&mut vec![0; MAX_REQUEST]).is_ok_and(|n| n > 0)
}

fn reset_after_request(stream: &mut TcpStream, count: &dyn Fn()) {
    if has_request(stream) {
        count();
        // Without a linger time the end of the socket is a reset.
        SockRef::from(&*stream).set_linger(Some(Duration::ZERO)).unwrap();
    }
}

impl Drop for RawUpstream {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        // Wakes the thread that waits for a connection.
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            // A panic of that thread was printed by the panic hook.
            let _ = thread.join();
        }
    }
}
