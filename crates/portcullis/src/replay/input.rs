//! Files and standard input as logs. Owns how they are opened and in which order they come; must not parse lines.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, bail};
use portcullis_accesslog::{Batch, Choice, Compression, Counts, FieldMap, Format, Log};
use portcullis_model::UnixMs;

/// The most files of one replay.
const MAX_FILES: usize = 10_000;

/// Where a log comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    File(PathBuf),
    Stdin,
}

impl Source {
    pub(crate) fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Stdin => "standard input".to_owned(),
        }
    }
}

/// Which logs are read, and how.
#[derive(Clone, Debug)]
pub(crate) struct Inputs {
    pub(crate) sources: Vec<Source>,
    pub(crate) choice: Choice,
    pub(crate) map: Option<FieldMap>,
}

/// What became of one log.
#[derive(Clone, Debug)]
pub(crate) struct SourceReport {
    pub(crate) name: String,
    pub(crate) format: Option<Format>,
    pub(crate) compression: Compression,
    pub(crate) counts: Counts,
    /// The log before it in time of which it repeats a part of the time.
    pub(crate) overlaps: Option<String>,
}

/// A log of which the first records are there.
pub(super) struct Reading {
    name: String,
    log: Log,
    pub(super) batch: Batch,
    pub(super) at: usize,
    is_more: bool,
    pub(super) overlaps: Option<String>,
}

/// A log that is not open yet.
pub(super) struct Waiting {
    source: Source,
    /// Open already: standard input cannot be opened twice.
    reading: Option<Reading>,
    /// Of its first record; `None` without one.
    pub(super) first: Option<UnixMs>,
}

impl Inputs {
    /// All names, and folders' names refused.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        if self.sources.len() > MAX_FILES {
            bail!("{} files are too many, {MAX_FILES} at most", self.sources.len());
        }
        if self.sources.iter().filter(|source| **source == Source::Stdin).count() > 1 {
            bail!("standard input can be read once only");
        }
        Ok(())
    }

    /// Whether it can be read a second time.
    pub(crate) fn is_repeatable(&self) -> bool {
        let is_plain_file = |path: &Path| path.metadata().is_ok_and(|file| file.is_file());
        self.sources.iter().all(|source| match source {
            Source::File(path) => is_plain_file(path),
            Source::Stdin => false,
        })
    }

    /// Bytes of all files as they are, for a progress bar; `None` when it cannot be known.
    pub(crate) fn bytes(&self) -> Option<u64> {
        let sizes = self.sources.iter().map(|source| match source {
            Source::File(path) => path.metadata().ok().filter(|file| file.is_file()).map(|file| file.len()),
            Source::Stdin => None,
        });
        sizes.sum()
    }

    /// Looks at the beginning of every log, and puts them in the order of time.
    pub(super) fn in_order(&self) -> anyhow::Result<Vec<Waiting>> {
        let mut waiting = Vec::new();
        for source in &self.sources {
            let reading = self.open(source, &Arc::default())?;
            let first = reading.batch.time(0);
            let keep = match source {
                // What was read of it is gone otherwise.
                Source::Stdin => true,
                Source::File(path) => !path.metadata().is_ok_and(|file| file.is_file()),
            };
            waiting.push(Waiting { source: source.clone(), reading: keep.then_some(reading), first });
        }
        // Stable: of two that begin at the same time the one that was named first is first.
        waiting.sort_by_key(|log| log.first);
        Ok(waiting)
    }

    pub(super) fn begin(&self, waiting: Waiting, read: &Arc<AtomicU64>) -> anyhow::Result<Reading> {
        match waiting.reading {
            Some(reading) => Ok(reading),
            None => self.open(&waiting.source, read),
        }
    }

    fn open(&self, source: &Source, read: &Arc<AtomicU64>) -> anyhow::Result<Reading> {
        let name = source.name();
        let reader: Box<dyn Read + Send> = match source {
            Source::Stdin => Box::new(io::stdin()),
            Source::File(path) => {
                if path.is_dir() {
                    bail!("{name} is a folder: name the files in it, such as {name}/access.log*");
                }
                Box::new(File::open(path).with_context(|| format!("cannot read {name}"))?)
            }
        };
        let counted = Counted { reader, read: Arc::clone(read) };
        let log = Log::open(Box::new(counted), self.choice, self.map.as_ref())
            .with_context(|| format!("cannot use {name}"))?;
        let mut reading =
            Reading { name, log, batch: Batch::default(), at: 0, is_more: true, overlaps: None };
        reading.refill()?;
        Ok(reading)
    }
}

impl Reading {
    /// The time of its next record; `None` at its end.
    pub(super) fn head(&self) -> Option<UnixMs> {
        self.batch.time(self.at)
    }

    /// Whether nothing of the batch has been taken.
    pub(super) fn is_fresh(&self) -> bool {
        self.at == 0
    }

    /// The latest time in the batch.
    pub(super) fn latest(&self) -> Option<UnixMs> {
        (self.at..self.batch.len()).filter_map(|n| self.batch.time(n)).max()
    }

    pub(super) fn advance(&mut self) -> anyhow::Result<()> {
        self.at += 1;
        if self.at >= self.batch.len() { self.refill() } else { Ok(()) }
    }

    /// The next records in the place of those that were taken.
    pub(super) fn refill(&mut self) -> anyhow::Result<()> {
        self.batch.clear();
        self.at = 0;
        while self.is_more && self.batch.is_empty() {
            let filled = self.log.fill(&mut self.batch);
            self.is_more = filled.with_context(|| {
                format!("cannot read {} beyond line {}", self.name, self.log.counts().lines)
            })?;
        }
        Ok(())
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn report(&self) -> SourceReport {
        SourceReport {
            name: self.name.clone(),
            format: self.log.format(),
            compression: self.log.compression(),
            counts: self.log.counts().clone(),
            overlaps: self.overlaps.clone(),
        }
    }
}

/// Counts what is read, as it lies on the disk.
struct Counted {
    reader: Box<dyn Read + Send>,
    read: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(into)?;
        self.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}
