//! The requests of the past, one after the other, as the detector sees them: from access logs, read and parsed on a
//! thread of their own, or from the gateway's log. Must not judge them.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use anyhow::anyhow;
use portcullis_accesslog::{Batch, Record};
use portcullis_detect::{BotStatus, Observation};
use portcullis_model::{UnixMs, VerdictKind};
use portcullis_store::LogReader;

use super::input::{Inputs, SourceReport};
use super::merge::Merged;
use crate::detection;

/// Batches on their way from the thread that reads to the one that judges.
const BATCHES: usize = 8;
/// Rows of the gateway's log from one look at the progress to the next.
const ROWS: u64 = 2_048;

/// Where the requests come from.
pub(crate) enum Past {
    Logs(Inputs),
    /// The gateway's own log.
    Own {
        data: PathBuf,
        from: UnixMs,
        to: UnixMs,
    },
}

/// What one reading of the past gave.
#[derive(Debug, Default)]
pub(crate) struct Pass {
    pub(crate) requests: u64,
    /// Of access logs, in the order of time.
    pub(crate) sources: Vec<SourceReport>,
}

/// Told now and then: requests so far, and bytes of the files so far.
pub(crate) type Progress<'p> = dyn FnMut(u64, u64) + 'p;

impl Past {
    /// Whether it can be read a second time.
    pub(crate) fn is_repeatable(&self) -> bool {
        match self {
            Self::Logs(inputs) => inputs.is_repeatable(),
            Self::Own { .. } => true,
        }
    }

    /// Calls `each` for every request, in the order of time as far as the logs are.
    ///
    /// # Errors
    /// A log cannot be read, or is in no known format.
    pub(crate) fn visit(
        &self,
        progress: &mut Progress<'_>,
        each: &mut dyn FnMut(&Observation<'_>),
    ) -> anyhow::Result<Pass> {
        match self {
            Self::Logs(inputs) => visit_logs(inputs, progress, each),
            Self::Own { data, from, to } => {
                let mut requests = 0;
                LogReader::open(data)?.visit(*from, *to, &mut |request| {
                    each(&detection::observation(request, BotStatus::None));
                    requests += 1;
                    if requests % ROWS == 0 {
                        progress(requests, 0);
                    }
                    ControlFlow::Continue(())
                })?;
                Ok(Pass { requests, sources: Vec::new() })
            }
        }
    }
}

fn visit_logs(
    inputs: &Inputs,
    progress: &mut Progress<'_>,
    each: &mut dyn FnMut(&Observation<'_>),
) -> anyhow::Result<Pass> {
    let read = Arc::new(AtomicU64::new(0));
    let (full, batches) = sync_channel(BATCHES);
    // Batches come back to be filled again.
    let (used, empty) = sync_channel(BATCHES);
    thread::scope(|scope| {
        let bytes = Arc::clone(&read);
        let reader = thread::Builder::new()
            .name("portcullis-read".to_owned())
            .spawn_scoped(scope, move || read_logs(inputs, bytes, &full, &empty))?;
        let mut requests = 0;
        for batch in batches {
            let batch: Batch = batch;
            batch.iter().for_each(|record| each(&observation(&record)));
            requests += batch.len() as u64;
            progress(requests, read.load(Ordering::Relaxed));
            // When the reader is done nobody needs it.
            let _ = used.try_send(batch);
        }
        let sources = reader.join().map_err(|_| anyhow!("the thread that reads the logs panicked"))??;
        Ok(Pass { requests, sources })
    })
}

fn read_logs(
    inputs: &Inputs,
    read: Arc<AtomicU64>,
    full: &SyncSender<Batch>,
    empty: &Receiver<Batch>,
) -> anyhow::Result<Vec<SourceReport>> {
    let mut merged = Merged::new(inputs, read)?;
    loop {
        let mut batch = empty.try_recv().unwrap_or_default();
        if !merged.next(&mut batch)? || full.send(batch).is_err() {
            return Ok(merged.reports());
        }
    }
}

/// What a server logged, as the gateway would have seen it.
fn observation<'a>(record: &'a Record<'a>) -> Observation<'a> {
    Observation {
        time: record.time,
        client: record.client,
        status: record.status,
        verdict: if record.is_malformed { VerdictKind::Malformed } else { VerdictKind::Admitted },
        bytes_out: record.bytes_out,
        method: &record.method,
        host: &record.host,
        path: &record.path,
        query: &record.query,
        user_agent: &record.user_agent,
        referer: &record.referer,
        // What a server logs as the user is what the client claimed.
        user: "",
        login: None,
        bot: BotStatus::None,
    }
}
