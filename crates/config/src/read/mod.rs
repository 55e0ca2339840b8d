//! Reads a whole document: one file per group of settings. Start with `config`.
//! Must not stop at the first error, and must not let a wrong value through.

mod acme;
mod alerts;
mod background;
mod bots;
mod console;
mod criteria;
mod detection_actions;
mod feeds;
mod fields;
mod files;
mod geo;
mod identity;
mod limits;
mod lines;
mod listeners;
mod notes;
mod pages;
mod privacy;
mod rules;
mod secret;
mod server;
mod tasks;
mod upstream;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use portcullis_detect::Settings;
use portcullis_policy::Mode;
use portcullis_privacy::Anonymise;
use portcullis_store::LogSettings;
use toml::Spanned;
use toml::de::DeTable;

use crate::load::Overrides;
use crate::{Config, ConfigError, ConfigErrors, MAX_ERRORS};
use fields::{Context, Origin, Place, Problem, Section};
use lines::LineIndex;
use listeners::Listeners;

pub(crate) use notes::notes;

/// The settings outside of any table.
const MODE: &str = "mode";
const DATA: &str = "data";

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

/// Reads `text`; see [`crate::parse`].
pub(crate) fn config(
    text: &str,
    file_name: &str,
    base: &Path,
    overrides: &Overrides,
) -> Result<Config, ConfigErrors> {
    let lines = LineIndex::new(text);
    let (document, syntax) = document(text, &lines);
    let context = Context::new(base, &[MODE, DATA]);
    let config = match syntax.intact {
        true => document_settings(document.get_ref(), &context, overrides),
        false => None,
    };
    let mut problems = context.into_problems();
    // What else is said about a line with a syntax error is noise.
    problems.retain(|problem| match problem.origin {
        Origin::Offset(offset) => !syntax.lines.contains(&lines.line(offset)),
        Origin::File | Origin::Option(_) => true,
    });
    problems.extend(syntax.problems);
    match config {
        Some(config) if problems.is_empty() => Ok(config),
        _ => Err(located(problems, &lines, file_name)),
    }
}

/// What is no TOML.
struct Syntax {
    /// The first of each line.
    problems: Vec<Problem>,
    lines: HashSet<usize>,
    /// Whether the rest of the document can still be read as its author meant it.
    intact: bool,
}

fn document<'t>(text: &'t str, index: &LineIndex<'t>) -> (Spanned<DeTable<'t>>, Syntax) {
    // The parser goes on after these without losing its way; after others (an open bracket, a missing
    // quote) what follows may be misread, and its errors would mislead.
    const UNQUOTED: &str = "string values must be quoted";
    const HARMLESS: [&str; 2] = ["duplicate key", UNQUOTED];
    let (document, mut errors) = DeTable::parse_recoverable(text);
    let intact = errors.iter().all(|error| HARMLESS.iter().any(|text| error.message().starts_with(text)));
    let offset = |error: &toml::de::Error| error.span().map_or(text.len(), |span| span.start);
    errors.sort_by_key(offset);
    let mut lines = HashSet::new();
    errors.retain(|error| lines.insert(index.line(offset(error))));
    let problems = errors.iter().map(|error| Problem {
        origin: Origin::Offset(offset(error)),
        message: match error.message().starts_with(UNQUOTED) {
            true => "expected a value; text must be in quotes".to_owned(),
            false => format!("no valid TOML: {}", error.message()),
        },
    });
    let problems = problems.collect();
    (document, Syntax { problems, lines, intact })
}

/// `None` only together with a reported problem.
fn document_settings<'a>(
    document: &'a DeTable<'a>,
    context: &'a Context<'a>,
    overrides: &Overrides,
) -> Option<Config> {
    let mut root = Section::root(document, context);
    let mut listeners = Listeners::default();
    let mode = root.read(MODE, Mode::default(), |value| value.choice(&rules::MODES, Mode::as_str));
    let data = data_folder(&mut root, context, overrides);
    let server = server::read(&mut root, context, &data, overrides, &mut listeners);
    let acme = acme::read(&mut root, &data, &server);
    let pools = upstream::read(&mut root);
    let routes = rules::routes(&mut root, &pools.names);
    let identity = identity::read(&mut root);
    let limits = limits::limits(&mut root);
    let access = limits::access(&mut root);
    let (blocks, allows) = rules::lists(&mut root, context, &server.trusted_proxies);
    let feeds = feeds::read(&mut root);
    let mut log = background::log(&mut root);
    let (mut geo, geo_downloads) = geo::read(&mut root);
    let privacy = privacy::read(&mut root, &geo, &mut log);
    // Who is to stay anonymous, or may have opted out, is not named to a third party either.
    geo.networks_only = privacy.anonymise != Anonymise::None || !privacy.opt_out_countries.is_empty();
    let detection = background::detection(&mut root, &log);
    let bots = bots::read(&mut root);
    let alerts = alerts::read(&mut root);
    let metrics = background::metrics(&mut root, &mut listeners);
    let console = console::read(&mut root, &mut listeners);
    let pages = pages::read(&mut root);
    let tasks = tasks::read(&mut root);
    listeners.report_conflicts(context);
    root.finish();
    let (upstreams, routes) = upstream::redirect(pools, routes, context, overrides)?;
    Some(Config {
        mode: if overrides.dry_run { Mode::DryRun } else { mode },
        data,
        server,
        acme,
        upstreams,
        routes,
        identity,
        limits: limits.into_iter().map(Arc::new).collect(),
        access: access.into_iter().map(Arc::new).collect(),
        blocks,
        allows,
        feeds,
        log,
        privacy,
        geo,
        geo_downloads,
        detection_in_file: detection.clone(),
        detection,
        overridden: Vec::new(),
        bots,
        alerts,
        metrics,
        console,
        pages,
        tasks,
    })
}

/// `[detection]` on its own.
///
/// # Errors
/// Everything that is wrong, each with the name of the setting.
pub(crate) fn detection_alone(text: &str, base: &Path, log: &LogSettings) -> Result<Settings, Vec<String>> {
    let document = DeTable::parse(text).map_err(|error| vec![error.message().to_owned()])?;
    let context = Context::new(base, &[]);
    let mut root = Section::root(document.get_ref(), &context);
    let settings = background::detection(&mut root, log);
    root.finish();
    let problems: Vec<String> = context.into_problems().into_iter().map(|problem| problem.message).collect();
    if problems.is_empty() { Ok(settings) } else { Err(problems) }
}

fn data_folder(root: &mut Section<'_>, context: &Context<'_>, overrides: &Overrides) -> PathBuf {
    const DEFAULT: &str = "portcullis-data";
    let value = root.get(DATA);
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
fn located(mut problems: Vec<Problem>, lines: &LineIndex<'_>, file_name: &str) -> ConfigErrors {
    problems.sort_by(|a, b| (a.origin, &a.message).cmp(&(b.origin, &b.message)));
    let omitted = problems.len().saturating_sub(MAX_ERRORS);
    problems.truncate(MAX_ERRORS);
    let errors = problems.into_iter().map(|problem| {
        let (file, position) = match problem.origin {
            Origin::File => (file_name, None),
            Origin::Offset(offset) => (file_name, Some(lines.position(offset))),
            Origin::Option(name) => (name, None),
        };
        ConfigError { file: file.to_owned(), position, message: problem.message }
    });
    ConfigErrors::new(errors.collect(), omitted)
}
