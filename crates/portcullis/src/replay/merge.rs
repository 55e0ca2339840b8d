//! Several logs as one, in the order of time. Must not hold more than a batch of each log that is open.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::bail;
use portcullis_accesslog::{BATCH_BYTES, BATCH_RECORDS, Batch};
use portcullis_model::UnixMs;

use super::input::{Inputs, Reading, SourceReport, Waiting};

/// Logs that are open at once because they are of the same time.
const MAX_OPEN: usize = 64;
/// Rotation leaves a few lines of the next log in the one before; more than that is an overlap.
const ROTATION: Duration = Duration::from_secs(120);

/// Hands out the records of all logs.
pub(super) struct Merged<'i> {
    inputs: &'i Inputs,
    /// The next one last.
    waiting: Vec<Waiting>,
    open: Vec<Reading>,
    done: Vec<SourceReport>,
    read: Arc<AtomicU64>,
}

impl<'i> Merged<'i> {
    pub(super) fn new(inputs: &'i Inputs, read: Arc<AtomicU64>) -> anyhow::Result<Self> {
        let mut waiting = inputs.in_order()?;
        waiting.reverse();
        Ok(Self { inputs, waiting, open: Vec::new(), done: Vec::new(), read })
    }

    /// The next records, in the place of what is in the batch; false when there are no more.
    pub(super) fn next(&mut self, out: &mut Batch) -> anyhow::Result<bool> {
        out.clear();
        while out.len() < BATCH_RECORDS && out.text_bytes() < BATCH_BYTES {
            self.close_ended();
            let Some(n) = self.earliest()? else { break };
            let until = self.others_begin(n);
            let reading = &mut self.open[n];
            let is_alone = || until.is_none_or(|until| reading.latest().is_none_or(|latest| latest <= until));
            if out.is_empty() && reading.is_fresh() && is_alone() {
                std::mem::swap(out, &mut reading.batch);
                reading.refill()?;
                return Ok(true);
            }
            while let Some(record) = reading.batch.get(reading.at)
                && until.is_none_or(|until| record.time <= until)
                && out.len() < BATCH_RECORDS
            {
                out.push(&record);
                reading.advance()?;
            }
        }
        Ok(!out.is_empty())
    }

    /// What became of each log, in the order of time. At the end all are there.
    pub(super) fn reports(self) -> Vec<SourceReport> {
        self.done
    }

    fn close_ended(&mut self) {
        let done = &mut self.done;
        self.open.retain(|reading| {
            let is_open = reading.head().is_some();
            if !is_open {
                done.push(reading.report());
            }
            is_open
        });
    }

    /// The log whose next record is the earliest, once all that could have an earlier one are open.
    fn earliest(&mut self) -> anyhow::Result<Option<usize>> {
        loop {
            let heads = self.open.iter().enumerate().filter_map(|(n, log)| Some((log.head()?, n)));
            let earliest = heads.min();
            let next = self.waiting.last().map(|log| log.first);
            match (earliest, next) {
                (Some((head, n)), Some(Some(first))) if first > head => return Ok(Some(n)),
                (Some((_, n)), None) => return Ok(Some(n)),
                (None, None) => return Ok(None),
                (_, Some(_)) => self.open_next()?,
            }
            self.close_ended();
        }
    }

    fn open_next(&mut self) -> anyhow::Result<()> {
        let Some(next) = self.waiting.pop() else { return Ok(()) };
        if self.open.len() >= MAX_OPEN {
            bail!("more than {MAX_OPEN} logs are of the same time; replay them in portions");
        }
        let first = next.first;
        let mut reading = self.inputs.begin(next, &self.read)?;
        let ends_later = |log: &&Reading| {
            first.is_some_and(|first| log.latest().is_some_and(|latest| latest > first.plus(ROTATION)))
        };
        reading.overlaps = self.open.iter().find(ends_later).map(|log| log.name().to_owned());
        self.open.push(reading);
        Ok(())
    }

    /// The earliest record of any other log.
    fn others_begin(&self, than: usize) -> Option<UnixMs> {
        let open = self.open.iter().enumerate().filter(|(n, _)| *n != than);
        let heads = open.filter_map(|(_, log)| log.head());
        heads.chain(self.waiting.last().and_then(|log| log.first)).min()
    }
}
