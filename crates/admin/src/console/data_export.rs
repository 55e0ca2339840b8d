//! All that is kept about a client, as one JSON document, sent as it is read.
//! Must not hold more than a few pieces of it.

use std::io::{self, BufWriter, Write};
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use portcullis_model::ClientIp;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{self, Sender};
use tokio::time::timeout;

use super::error::PageError;
use super::shared::Shared;

/// Bytes of a piece, and pieces that wait to be taken.
const PIECE: usize = 64 << 10;
const MAX_WAITING: usize = 4;
/// How long a visitor may take for one piece.
const PATIENCE: Duration = Duration::from_secs(30);

/// The document, as the answer that sends it.
pub(super) fn data_export(shared: Arc<Shared>, client: ClientIp) -> Result<Response, PageError> {
    let permit = Arc::clone(&shared.exports).try_acquire_owned().map_err(|_| {
        PageError::Conflict(
            "Other exports are under way. Wait until they have ended, or cancel them.".to_owned(),
        )
    })?;
    let (sender, receiver) = mpsc::channel(MAX_WAITING);
    let pieces = Pieces { sender: sender.clone(), runtime: Handle::current() };
    tokio::task::spawn_blocking(move || {
        let _permit = permit;
        let mut out = BufWriter::with_capacity(PIECE, pieces);
        let written = shared.running.export(client, &mut out);
        if let Err(why) = written.and_then(|()| out.flush().map_err(|error| error.to_string())) {
            tracing::warn!("an export of a client's data was broken off: {why}");
            // The download breaks off too, so that nobody takes it for whole.
            let _ = sender.try_send(Err(io::Error::other(why)));
        }
    });
    let body = stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|piece: io::Result<Bytes>| (piece, receiver))
    });
    let name = client.to_string().replace(':', "-");
    let headers = [
        (CONTENT_TYPE, "application/json".to_owned()),
        (CONTENT_DISPOSITION, format!("attachment; filename=\"{name}.json\"")),
    ];
    Ok((headers, Body::from_stream(body)).into_response())
}

/// Hands what is written to the answer.
struct Pieces {
    sender: Sender<io::Result<Bytes>>,
    runtime: Handle,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = Bytes::copy_from_slice(bytes);
        let sent = self.runtime.block_on(timeout(PATIENCE, self.sender.send(Ok(piece))));
        match sent {
            Ok(Ok(())) => Ok(bytes.len()),
            Ok(Err(_)) => Err(io::Error::other("the visitor has left")),
            Err(_) => Err(io::Error::other("the visitor does not take it")),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
