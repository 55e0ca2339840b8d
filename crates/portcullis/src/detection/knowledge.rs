//! What the detector knows before it looks at a request: of the site (`site.json` in the data folder), of what people
//! dismissed and of clients that were odd days ago (`state.db`). Owns where that is kept and how the site is learned
//! from the log. Must not judge.

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use portcullis_detect::{Knowledge, Past, Scope, Site, Suppression, Suppressions, WeakEvidence};
use portcullis_model::{Severity, UnixMs};
use portcullis_store::{Never, State};

use super::{LogOfRun, replace_file};

/// What is known of the site.
const SITE_FILE: &str = "site.json";
/// A file that is larger is none of ours.
const MAX_SITE_BYTES: u64 = 32 * 1024 * 1024;
/// How far back it learns after it has not run for a while, or when it begins.
const LEARNING_SPAN: Duration = Duration::from_secs(7 * 86_400);
/// The most requests from which one run learns; the next one goes on.
const MAX_LEARNING_REQUESTS: u64 = 2_000_000;
/// What was odd is forgotten after so long.
const MEMORY: Duration = Duration::from_secs(7 * 86_400);
const HOUR_MS: i64 = 3_600_000;

/// What is known of the site; nothing yet, with keys of its own, where there is no file.
///
/// # Errors
/// The file cannot be read, or is none of ours.
pub(crate) fn read_site(data: &Path) -> anyhow::Result<Option<Site>> {
    let path = data.join(SITE_FILE);
    let cannot = || format!("cannot read {}", path.display());
    match std::fs::metadata(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(cannot),
        Ok(file) if file.len() > MAX_SITE_BYTES => {
            anyhow::bail!("{} is too large to be what is known of the site", path.display())
        }
        Ok(_) => {}
    }
    let bytes = std::fs::read(&path).with_context(cannot)?;
    Ok(Some(Site::from_bytes(&bytes).with_context(|| path.display().to_string())?))
}

pub(crate) fn write_site(data: &Path, site: &Site) -> anyhow::Result<()> {
    replace_file(&data.join(SITE_FILE), &site.to_bytes())
}

/// Forgets everything about the site. False when nothing was known.
///
/// # Errors
/// The file cannot be removed.
pub(crate) fn forget_site(data: &Path) -> anyhow::Result<bool> {
    let path = data.join(SITE_FILE);
    match std::fs::remove_file(&path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("cannot remove {}", path.display())),
    }
}

/// The same as [`read_site`] for a run: without a usable file it begins anew, and says why.
fn site_to_learn(data: &Path) -> Site {
    match read_site(data) {
        Ok(Some(site)) => site,
        Ok(None) => Site::new((fastrand::u64(..), fastrand::u64(..))),
        Err(error) => {
            tracing::warn!("{error:#}");
            Site::new((fastrand::u64(..), fastrand::u64(..)))
        }
    }
}

/// What people dismissed, as the rules ask for it.
pub(crate) fn suppressions(nevers: Vec<Never>) -> Suppressions {
    Suppressions::new(nevers.into_iter().map(|never| Suppression {
        id: never.id,
        rule: never.rule,
        scope: match (never.network, never.path) {
            (Some(network), _) => Scope::Clients(network),
            (None, Some(path)) => Scope::Path(path),
            (None, None) => Scope::Everybody,
        },
    }))
}

/// What a run judges with.
///
/// # Errors
/// The database cannot be read.
pub(super) fn read(data: &Path, state: &State) -> anyhow::Result<Knowledge> {
    let mut past = Past::default();
    for (client, memory) in state.weak_evidence()? {
        past.restore(client, &memory);
    }
    Ok(Knowledge {
        site: Arc::new(site_to_learn(data)),
        suppressions: Arc::new(suppressions(state.nevers()?)),
        past: Arc::new(past),
    })
}

/// What the engine judges with from now on: what people dismissed, and the site as the file has it if that is another
/// one than it was at `modified`. A file that cannot be read changes nothing.
pub(super) fn renewed(
    known: &Knowledge,
    data: &Path,
    nevers: Vec<Never>,
    modified: &mut Option<SystemTime>,
) -> Knowledge {
    let now = std::fs::metadata(data.join(SITE_FILE)).and_then(|file| file.modified()).ok();
    let mut site = Arc::clone(&known.site);
    if now != *modified {
        *modified = now;
        match read_site(data) {
            Ok(read) => site = Arc::new(read.unwrap_or_default()),
            // The next run says so and learns it anew.
            Err(error) => tracing::debug!("the site is judged as it was known: {error:#}"),
        }
    }
    Knowledge { site, suppressions: Arc::new(suppressions(nevers)), past: Arc::clone(&known.past) }
}

/// Stores what was odd in the window that ended at `now`.
///
/// # Errors
/// The database cannot be written.
pub(super) fn remember(
    state: &mut State,
    past: &mut Arc<Past>,
    weak: &[(IpAddr, WeakEvidence)],
    now: UnixMs,
) -> anyhow::Result<()> {
    let past = Arc::make_mut(past);
    let changed = past.remember(weak, now);
    let texts: Vec<(IpAddr, String)> =
        changed.into_iter().filter_map(|client| Some((client, past.to_text(client)?))).collect();
    Ok(state.remember_weak_evidence(&texts, now, now.minus(MEMORY))?)
}

/// Learns the site from the whole hours of the log that have passed since it last did, and stores it. Who was flagged in
/// an hour teaches nothing.
///
/// # Errors
/// The log cannot be read, the file cannot be written, or the process ends.
pub(super) fn learn(
    log: &LogOfRun<'_>,
    data: &Path,
    knowledge: &Knowledge,
    now: UnixMs,
) -> anyhow::Result<Site> {
    let mut site = Site::clone(&knowledge.site);
    let whole_hour = |at: UnixMs| UnixMs(at.0.div_euclid(HOUR_MS) * HOUR_MS);
    let end = whole_hour(now);
    let Some((first, _)) = log.log.span()? else { return Ok(site) };
    let mut from = whole_hour(site.learned_until().max(first).max(now.minus(LEARNING_SPAN)));
    let mut requests = 0;
    while from < end && requests < MAX_LEARNING_REQUESTS {
        let to = UnixMs(from.0 + HOUR_MS);
        let mut window = log.window(from, to).knowing(knowledge);
        log.visit(from, to, |seen| {
            site.observe(log.settings, seen);
            window.observe(seen);
        })?;
        let report = window.finish(None, to);
        requests += report.requests;
        let flagged: HashSet<IpAddr> = report
            .findings
            .iter()
            .filter(|finding| finding.severity >= Severity::Medium)
            .map(|finding| finding.client.limit_key())
            .collect();
        site.settle(to, |client| flagged.contains(&client));
        from = to;
    }
    write_site(data, &site)?;
    Ok(site)
}
