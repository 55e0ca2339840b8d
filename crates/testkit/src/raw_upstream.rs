//! An upstream that writes its own bytes: for answers that no proper server gives.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

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
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (requests, stopping) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (answer, count, stop) = (answer.to_owned(), Arc::clone(&requests), Arc::clone(&stopping));
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                if serve(stream.unwrap(), &answer, pause) {
                    count.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
        Self { address, requests, stopping, thread: Some(thread) }
    }

    /// `http://ADDRESS`
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Requests that were answered.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

/// Whether there was a request.
fn serve(mut stream: TcpStream, answer: &str, pause: Duration) -> bool {
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut request = vec![0; MAX_REQUEST];
    if !stream.read(&mut request).is_ok_and(|n| n > 0) {
        return false;
    }
    // The gateway may have gone meanwhile.
    let _ = stream.write_all(answer.as_bytes());
    thread::sleep(pause);
    true
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
