//! The files that a replay writes for other programs. Must not print to the terminal.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use portcullis_detect::HourScore;

use super::super::output::Screen;
use super::super::time::iso;
use crate::replay::Flagged;

/// Writes one line for each flagged client.
pub(super) fn write_flagged(file: &Path, flagged: &[Flagged], screen: &mut Screen) -> anyhow::Result<()> {
    if file == Path::new("-") {
        return Ok(flagged.iter().try_for_each(|line| screen.json_line(line))?);
    }
    let cannot = || format!("cannot write {}", file.display());
    let mut out = BufWriter::new(File::create(file).with_context(cannot)?);
    for line in flagged {
        serde_json::to_writer(&mut out, line).with_context(cannot)?;
        out.write_all(b"\n").with_context(cannot)?;
    }
    out.flush().with_context(cannot)
}

/// Where the forest's scores of the first policy go.
pub(super) struct Sinks {
    scores: Option<(PathBuf, BufWriter<File>)>,
}

impl Sinks {
    pub(super) fn new(file: Option<&Path>) -> anyhow::Result<Self> {
        let Some(file) = file else { return Ok(Self { scores: None }) };
        let cannot = || format!("cannot write {}", file.display());
        let mut out = BufWriter::new(File::create(file).with_context(cannot)?);
        out.write_all(b"ip,hour,forest_score\n").with_context(cannot)?;
        Ok(Self { scores: Some((file.to_path_buf(), out)) })
    }

    /// A score by the policy number `n`.
    pub(super) fn write(&mut self, n: usize, score: &HourScore) -> anyhow::Result<()> {
        match &mut self.scores {
            Some((file, out)) if n == 0 => {
                writeln!(out, "{},{},{:.6}", score.client, iso(score.hour), score.score)
                    .with_context(|| format!("cannot write {}", file.display()))
            }
            Some(_) | None => Ok(()),
        }
    }

    pub(super) fn finish(self) -> anyhow::Result<()> {
        let Some((file, mut out)) = self.scores else { return Ok(()) };
        out.flush().with_context(|| format!("cannot write {}", file.display()))
    }
}
