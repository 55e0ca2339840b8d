//! `portcullis privacy export`: everything that is kept about a person, for that person.
//! Must not change anything, and must not hold a large log in memory.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use portcullis_model::UnixMs;
use portcullis_store::{Found, LogReader, LogRow, State, StoreError, Subject};
use serde_json::{Value, json};

use super::super::Outcome;
use super::super::context::{Context, Misuse, open_state};
use super::super::output::Screen;
use super::files;
use super::subject::Whose;

const EXAMPLES: &str = "\
Examples:
  portcullis privacy export 203.0.113.9
  portcullis privacy export 203.0.113.9 --out data.json
  portcullis privacy export alice --format csv --out alice/

JSON: one document with the requests and, by table, everything else: findings,
blocks that are in force or were, limit events, locations, what people did. CSV:
a folder with a file for each. Works whether the gateway runs or not.";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    Json,
    Csv,
}

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Export {
    #[command(flatten)]
    whose: Whose,

    /// One JSON document, or a folder of CSV files
    #[arg(long, value_name = "FORM", default_value = "json")]
    format: Form,

    /// The file to write, with CSV the folder; without it, JSON goes to standard output
    #[arg(long, value_name = "PATH", value_hint = clap::ValueHint::AnyPath)]
    out: Option<PathBuf>,
}

impl Export {
    pub(super) fn run(self, context: &Context, screen: &mut Screen) -> anyhow::Result<Outcome> {
        let data = context.config()?.data;
        let kept = Kept::of(&self.whose, &data, context.now)?;
        let (export, about) = (kept.exported(), about(&self.whose, context.now)?);
        let requests = match (self.format, &self.out) {
            (Form::Csv, None) => {
                return Err(Misuse(
                    "--format csv needs --out FOLDER: it is a file for each kind of data".to_owned(),
                )
                .into());
            }
            (Form::Csv, Some(folder)) => export.csv(folder)?,
            (Form::Json, Some(file)) => {
                let mut out = private_file(file)?;
                let requests = export.json(&about, &mut out)?;
                out.flush().with_context(|| format!("cannot write {}", file.display()))?;
                requests
            }
            (Form::Json, None) => {
                let mut out = Escaped(screen);
                export.json(&about, &mut out)?
            }
        };
        if let Some(out) = &self.out {
            let others: usize = kept.found.iter().map(|found| found.rows.len()).sum();
            screen.line(&format!(
                "Wrote {requests} requests and {others} other entries to {}.",
                out.display()
            ))?;
        }
        Ok(if requests == 0 && kept.found.is_empty() { Outcome::Nothing } else { Outcome::Done })
    }
}

/// Writes everything that is kept about a person as one document.
///
/// # Errors
/// A database or a file cannot be read, or `out` cannot be written.
pub(crate) fn write(whose: &Whose, data: &Path, now: UnixMs, out: &mut dyn Write) -> anyhow::Result<()> {
    let kept = Kept::of(whose, data, now)?;
    kept.exported().json(&about(whose, now)?, out)?;
    Ok(())
}

/// Where it is said whose data it is.
fn about(whose: &Whose, now: UnixMs) -> anyhow::Result<Value> {
    Ok(json!({
        "subject": whose.text(),
        "kind": if whose.is_address() { "address" } else { "user" },
        "exported_at": jiff::Timestamp::from_millisecond(now.0)?.to_string(),
    }))
}

/// What is kept about a person.
struct Kept {
    subject: Subject,
    found: Vec<Found>,
    log: Option<LogReader>,
    files: Vec<PathBuf>,
}

impl Kept {
    fn of(whose: &Whose, data: &Path, now: UnixMs) -> anyhow::Result<Self> {
        let subject = whose.subject(data, now)?;
        let found = match open_state(data)? {
            Some(state) => state.rows_about(&subject)?,
            None => Vec::new(),
        };
        let files = match whose.client() {
            Some(client) => files::with_any(data, &[client.to_string()]),
            None => files::with_name(data, &whose.text()),
        };
        let files = files.context("cannot look through the data folder")?;
        Ok(Self { log: open_log(data)?, subject, found, files })
    }

    fn exported(&self) -> Exported<'_> {
        let Self { subject, found, log, files } = self;
        Exported { log: log.as_ref(), subject, found, files }
    }
}

/// The log for reading; `None` when there is none yet.
pub(super) fn open_log(data: &Path) -> Result<Option<LogReader>, StoreError> {
    match LogReader::open(data) {
        Ok(log) => Ok(Some(log)),
        Err(StoreError::NoLog(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// An empty file for the owner alone, whatever was there: a file that others may read is closed to them before anything
/// is written. A pipe or a terminal stays what it is.
fn private_file(path: &Path) -> anyhow::Result<BufWriter<File>> {
    use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};

    let open = || {
        let file = fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
        if file.metadata()?.is_file() {
            file.set_permissions(fs::Permissions::from_mode(0o600))?;
            file.set_len(0)?;
        }
        Ok::<_, io::Error>(file)
    };
    Ok(BufWriter::new(open().with_context(|| format!("cannot write {}", path.display()))?))
}

/// Standard output, with what a terminal would obey spelled out.
struct Escaped<'s>(&'s mut Screen);

impl Write for Escaped<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.json_text(&String::from_utf8_lossy(bytes))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

struct Exported<'e> {
    log: Option<&'e LogReader>,
    subject: &'e Subject,
    found: &'e [Found],
    files: &'e [PathBuf],
}

impl Exported<'_> {
    fn each_request(&self, mut each: impl FnMut(LogRow) -> io::Result<()>) -> anyhow::Result<u64> {
        let Some(log) = self.log else { return Ok(0) };
        let (mut count, mut failed) = (0, None);
        log.visit_subject(self.subject, &mut |row| {
            count += 1;
            match each(row) {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    failed = Some(error);
                    ControlFlow::Break(())
                }
            }
        })?;
        failed.map_or(Ok(count), |error| Err(error.into()))
    }

    /// One document, written as it is read.
    fn json(&self, about: &Value, out: &mut dyn Write) -> anyhow::Result<u64> {
        writeln!(out, "{{")?;
        for (name, value) in about.as_object().into_iter().flatten() {
            writeln!(out, "  {}: {value},", json!(name))?;
        }
        write!(out, "  \"requests\": [")?;
        let mut separator = "\n    ";
        let requests = self.each_request(|row| {
            let text = serde_json::to_string(&row)?;
            write!(out, "{separator}{text}")?;
            separator = ",\n    ";
            Ok(())
        })?;
        write!(out, "\n  ],\n  \"state\": {{")?;
        let mut separator = "\n    ";
        for Found { table, rows } in self.found {
            write!(out, "{separator}{}: {}", json!(table), json!(rows))?;
            separator = ",\n    ";
        }
        let files: Vec<String> = self.files.iter().map(|file| file.display().to_string()).collect();
        writeln!(out, "\n  }},\n  \"files\": {}\n}}", json!(files))?;
        Ok(requests)
    }

    /// A file for the requests and one for each table.
    fn csv(&self, folder: &Path) -> anyhow::Result<u64> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let mut out = private_file(&folder.join("requests.csv"))?;
        let mut heading = true;
        let requests = self.each_request(|row| {
            let row = serde_json::to_value(&row)?;
            write_row(&mut out, &row, std::mem::take(&mut heading))
        })?;
        out.flush()?;
        for Found { table, rows } in self.found {
            let mut out = private_file(&folder.join(format!("{table}.csv")))?;
            for (n, row) in rows.iter().enumerate() {
                write_row(&mut out, row, n == 0)?;
            }
            out.flush()?;
        }
        Ok(requests)
    }
}

fn write_row(out: &mut impl Write, row: &Value, heading: bool) -> io::Result<()> {
    let fields = || row.as_object().into_iter().flatten();
    if heading {
        let names: Vec<String> = fields().map(|(name, _)| csv_cell(name)).collect();
        writeln!(out, "{}", names.join(","))?;
    }
    let cells: Vec<String> = fields()
        .map(|(_, value)| match value {
            Value::Null => String::new(),
            Value::String(text) => csv_cell(text),
            other => csv_cell(&other.to_string()),
        })
        .collect();
    writeln!(out, "{}", cells.join(","))
}

/// What a spreadsheet takes for the beginning of a formula; the last four are wide forms of the first.
const FORMULA_STARTS: [char; 11] =
    ['=', '+', '-', '@', '\t', '\r', '\n', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}'];

/// RFC 4180; what a spreadsheet would take for a formula gets an apostrophe in front.
fn csv_cell(text: &str) -> String {
    let is_number = text.parse::<f64>().is_ok();
    let guard = if text.starts_with(FORMULA_STARTS) && !is_number { "'" } else { "" };
    match text.contains([',', '"', '\n', '\r']) || !guard.is_empty() {
        true => format!("\"{guard}{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    }
}

/// How much there is about a person, for a look before an erasure.
pub(crate) fn counts(data: &Path, state: Option<&State>, subject: &Subject) -> anyhow::Result<(u64, usize)> {
    let log = open_log(data)?;
    let found = state.map(|state| state.rows_about(subject)).transpose()?.unwrap_or_default();
    let requests =
        Exported { log: log.as_ref(), subject, found: &found, files: &[] }.each_request(|_| Ok(()))?;
    Ok((requests, found.iter().map(|found| found.rows.len()).sum()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_that_was_there_is_closed_to_others_and_emptied_before_it_is_written() {
        let folder = tempfile::tempdir().unwrap();
        for (name, before) in [("new", None), ("old", Some("much older and longer text"))] {
            let path = folder.path().join(name);
            if let Some(text) = before {
                fs::write(&path, text).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
            }
            private_file(&path).unwrap().write_all(b"{}").unwrap();
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
            assert_eq!(fs::read_to_string(&path).unwrap(), "{}", "{name}");
        }
        private_file(Path::new("/dev/null")).unwrap();
    }

    #[test]
    fn a_spreadsheet_finds_no_formula_in_what_a_client_sent() {
        assert_eq!(csv_cell("=1+1"), "\"'=1+1\"");
        assert_eq!(csv_cell("@a,b"), "\"'@a,b\"");
        assert_eq!(csv_cell("-9.14"), "-9.14");
        assert_eq!(csv_cell("say \"hi\""), "\"say \"\"hi\"\"\"");
        assert_eq!(csv_cell("plain"), "plain");
    }
}
