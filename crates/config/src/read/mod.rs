//! Reads a whole document: one file per group of settings. Start with `config`.
//! Must not stop at the first error, and must not let a wrong value through.

mod background;
mod fields;
mod files;
mod listeners;
mod notes;
mod pages;
mod rules;
mod server;
mod upstream;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use portcullis_policy::Mode;
use toml::de::DeTable;

use crate::load::Overrides;
use crate::{Config, ConfigError, ConfigErrors, Position};
use fields::{Context, Origin, Place, Problem, Section};
use listeners::Listeners;

pub(crate) use notes::notes;

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

/// Reads `text`; see [`crate::parse`].
pub(crate) fn config(
    text: &str,
    file_name: &str,
    base: &Path,
    overrides: &Overrides,
) -> Result<Config, ConfigErrors> {
    let (document, syntax) = document(text);
    let context = Context::new(base);
    let config = match syntax.intact {
        true => document_settings(document.get_ref(), &context, overrides),
        false => None,
    };
    let mut problems = context.into_problems();
    problems.retain(|problem| !syntax.covers(text, problem.origin));
    problems.extend(syntax.problems);
    match config {
        Some(config) if problems.is_empty() => Ok(config),
        _ => Err(located(text, file_name, problems)),
    }
}

/// What is no TOML.
struct Syntax {
    problems: Vec<Problem>,
    /// Whether the rest of the document can still be read as its author meant it.
    intact: bool,
}

impl Syntax {
    /// Whether the place is on a line that has a syntax error: what else is said about it is noise.
    fn covers(&self, text: &str, origin: Origin) -> bool {
        let Origin::Offset(offset) = origin else { return false };
        let line = line_of(text, offset);
        self.problems.iter().any(|problem| match problem.origin {
            Origin::Offset(at) => line_of(text, at) == line,
            Origin::File | Origin::Option(_) => false,
        })
    }
}

fn document(text: &str) -> (toml::Spanned<DeTable<'_>>, Syntax) {
    // The parser goes on after these without losing its way; after others (an open bracket, a missing
    // quote) what follows may be misread, and its errors would mislead.
    const HARMLESS: [&str; 2] = ["duplicate key", "string values must be quoted"];
    let (document, errors) = DeTable::parse_recoverable(text);
    let intact = errors.iter().all(|error| HARMLESS.iter().any(|text| error.message().starts_with(text)));
    let mut problems: Vec<Problem> = Vec::new();
    let mut lines: Vec<Range<usize>> = Vec::new();
    for error in &errors {
        let offset = error.span().map_or(text.len(), |span| span.start);
        let line = line_of(text, offset);
        if !lines.contains(&line) {
            lines.push(line);
            problems.push(Problem {
                origin: Origin::Offset(offset),
                message: format!("no valid TOML: {}", error.message()),
            });
        }
    }
    (document, Syntax { problems, intact })
}

/// The byte range of the line that `offset` is on.
fn line_of(text: &str, offset: usize) -> Range<usize> {
    let bytes = text.as_bytes();
    let offset = offset.min(bytes.len());
    let start = bytes[..offset].iter().rposition(|&b| b == b'\n').map_or(0, |n| n + 1);
    let end = bytes[offset..].iter().position(|&b| b == b'\n').map_or(bytes.len(), |n| offset + n);
    start..end
}

/// `None` only together with a reported problem.
fn document_settings<'a>(
    document: &'a DeTable<'a>,
    context: &'a Context<'a>,
    overrides: &Overrides,
) -> Option<Config> {
    let mut root = Section::root(document, context);
    let mut listeners = Listeners::default();
    let mode = root.read("mode", Mode::default(), |value| value.choice(&rules::MODES, Mode::as_str));
    let data = data_folder(&mut root, context, overrides);
    let server = server::read(&mut root, context, overrides, &mut listeners);
    let pools = upstream::read(&mut root);
    let routes = rules::routes(&mut root, &pools.names);
    let limits = rules::limits(&mut root);
    let (blocks, allows) = rules::lists(&mut root, context, &server.trusted_proxies);
    let log = background::log(&mut root);
    let geo = background::geo(&mut root);
    let detection = background::detection(&mut root, &log);
    let metrics = background::metrics(&mut root, &mut listeners);
    let pages = pages::read(&mut root);
    listeners.report_conflicts(context);
    root.finish();
    let (upstreams, routes) = upstream::redirect(pools, routes, context, overrides)?;
    Some(Config {
        mode: if overrides.dry_run { Mode::DryRun } else { mode },
        data,
        server,
        upstreams,
        routes,
        limits: limits.into_iter().map(Arc::new).collect(),
        blocks,
        allows,
        log,
        geo,
        detection,
        metrics,
        pages,
    })
}

fn data_folder(root: &mut Section<'_>, context: &Context<'_>, overrides: &Overrides) -> PathBuf {
    const DEFAULT: &str = "portcullis-data";
    let value = root.get("data");
    let mut place = value.as_ref().map_or_else(|| root.place.clone(), |value| value.place.clone());
    let mut data = value.and_then(|value| value.path()).unwrap_or_else(|| context.base.join(DEFAULT));
    if let Some(option) = &overrides.data {
        data.clone_from(option);
        place = Place { origin: Origin::Option("--data"), key: String::new() };
    }
    if data.exists() && !data.is_dir() {
        context.report(&place, format!("expected a folder for the databases, {} is a file", data.display()));
    }
    data
}

/// Gives each problem its line and column, in the order of the file.
fn located(text: &str, file_name: &str, mut problems: Vec<Problem>) -> ConfigErrors {
    problems.sort_by(|a, b| (a.origin, &a.message).cmp(&(b.origin, &b.message)));
    let mut lines = Lines { text, offset: 0, line: 1 };
    let errors = problems.into_iter().map(|problem| match problem.origin {
        Origin::File => ConfigError { file: file_name.to_owned(), position: None, message: problem.message },
        Origin::Offset(offset) => ConfigError {
            file: file_name.to_owned(),
            position: Some(lines.position(offset)),
            message: problem.message,
        },
        Origin::Option(name) => {
            ConfigError { file: name.to_owned(), position: None, message: problem.message }
        }
    });
    ConfigErrors::new(errors.collect())
}

/// Counts lines once for ascending offsets.
struct Lines<'t> {
    text: &'t str,
    offset: usize,
    line: usize,
}

impl Lines<'_> {
    fn position(&mut self, offset: usize) -> Position {
        let offset = offset.min(self.text.len());
        let passed = &self.text.as_bytes()[self.offset.min(offset)..offset];
        self.line += passed.iter().filter(|&&b| b == b'\n').count();
        self.offset = offset;
        let start = line_of(self.text, offset).start;
        let before = String::from_utf8_lossy(&self.text.as_bytes()[start..offset]);
        Position { line: self.line, column: before.chars().count() + 1 }
    }
}
