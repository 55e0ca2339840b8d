//! Asks the sources about one address, in their order, as far as it is needed.
//!
//! Owns the order of cache, quota, question and book-keeping. Must not decide when an address is asked about.

use portcullis_model::{ClientIp, Location, UnixMs};

use super::answer::{Failure, clean, question, read};
use super::stats::{AnswerKind, SourceStats};
use super::{Answer, Field, Shelf, SourceKind, SourceSettings, Transport, Unavailable, is_missing};
use crate::geo::Settings;
use crate::{GeoError, is_public};

/// How much is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// Only what is kept already; nobody is asked.
    KeptOnly,
    /// What is missing and not kept.
    Missing,
    /// What is missing, whatever is kept.
    Again,
    /// Every source, whatever is known and kept.
    Every,
}

/// What came of one source.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// What it said before.
    Kept(Answer),
    /// What it says now.
    Fresh(Answer),
    /// One sentence; holds words of the source: escape it before printing.
    Failed(String),
    Unavailable(Unavailable),
    /// Nothing was missing any more, or nobody was to be asked.
    NotAsked,
}

#[derive(Clone, Debug, PartialEq)]
pub struct SourceReport {
    pub source: SourceKind,
    pub outcome: Outcome,
}

/// What all sources together say.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// Of the sources alone: for each field the first source that knows it.
    pub location: Location,
    /// In the order of the sources.
    pub reports: Vec<SourceReport>,
}

impl Asked {
    pub(crate) fn has_failure(&self) -> bool {
        self.reports.iter().any(|report| matches!(report.outcome, Outcome::Failed(_)))
    }

    /// Whether a source could not say anything, and may be able to later.
    pub(crate) fn is_open(&self) -> bool {
        let is_open = |report: &SourceReport| match report.outcome {
            Outcome::Failed(_) | Outcome::Unavailable(_) => true,
            Outcome::Kept(_) | Outcome::Fresh(_) | Outcome::NotAsked => false,
        };
        self.reports.iter().any(is_open)
    }

    /// When the first source that could not be asked may be asked again.
    pub(crate) fn available_at(&self) -> Option<UnixMs> {
        let until = |report: &SourceReport| match report.outcome {
            Outcome::Unavailable(why) => Some(why.until()),
            Outcome::Kept(_) | Outcome::Fresh(_) | Outcome::Failed(_) | Outcome::NotAsked => None,
        };
        self.reports.iter().filter_map(until).min()
    }

    /// The oldest answer that the location is made of.
    pub(crate) fn fetched_at(&self) -> Option<UnixMs> {
        self.answers().map(|answer| answer.fetched_at).min()
    }

    fn answers(&self) -> impl Iterator<Item = &Answer> {
        self.reports.iter().filter_map(|report| match &report.outcome {
            Outcome::Kept(answer) | Outcome::Fresh(answer) => Some(answer),
            Outcome::Failed(_) | Outcome::Unavailable(_) | Outcome::NotAsked => None,
        })
    }
}

/// Asks about an address of which `known` is known from files. Addresses that are not of the public Internet
/// are never sent to anybody.
///
/// # Errors
/// What is kept cannot be read or written. Then nobody is asked: a quota that cannot be counted cannot be kept.
pub fn ask(
    settings: &Settings,
    stats: &SourceStats,
    (client, known): (ClientIp, &Location),
    effort: Effort,
    (transport, shelf): (&mut dyn Transport, &mut dyn Shelf),
    now: UnixMs,
) -> Result<Asked, GeoError> {
    let mut kept = shelf.answers(client).map_err(GeoError::shelf)?;
    let is_kept_enough = matches!(effort, Effort::KeptOnly | Effort::Missing);
    kept.retain(|answer| is_kept_enough && is_fresh(settings, answer, now));
    let mut location = Location::default();
    let mut reports = Vec::with_capacity(settings.sources.len());
    for source in &settings.sources {
        let is_done = !is_missing(&settings.wanted, &known.clone().or(location.clone()));
        let position = kept.iter().position(|answer| answer.source == source.kind);
        let outcome = match (position, effort) {
            (Some(position), _) => Outcome::Kept(kept.swap_remove(position)),
            (None, Effort::KeptOnly) => Outcome::NotAsked,
            (None, Effort::Missing | Effort::Again) if is_done => Outcome::NotAsked,
            (None, _) if !is_public(client.ip()) => Outcome::NotAsked,
            (None, Effort::Missing | Effort::Again | Effort::Every) => {
                ask_one(source, stats, client, (&mut *transport, &mut *shelf), now)?
            }
        };
        if let Outcome::Kept(answer) | Outcome::Fresh(answer) = &outcome {
            location = location.or(answer.location.clone());
        }
        reports.push(SourceReport { source: source.kind, outcome });
    }
    Ok(Asked { location, reports })
}

/// Answers that lack what is wanted are kept for a shorter time.
fn is_fresh(settings: &Settings, answer: &Answer, now: UnixMs) -> bool {
    let lacks = |wanted: &[Field]| is_missing(wanted, &answer.location);
    let ttl = if lacks(&settings.wanted) { settings.negative_ttl } else { settings.cache_ttl };
    now.since(answer.fetched_at) < ttl
}

fn ask_one(
    source: &SourceSettings,
    stats: &SourceStats,
    client: ClientIp,
    (transport, shelf): (&mut dyn Transport, &mut dyn Shelf),
    now: UnixMs,
) -> Result<Outcome, GeoError> {
    let kind = source.kind;
    let state = shelf.source(kind).map_err(GeoError::shelf)?;
    // Without a write, since this may be asked for every address while a source is down.
    if let Err(why) = state.check(source, now) {
        return Ok(Outcome::Unavailable(why));
    }
    let mut taken = Ok(());
    shelf.change_source(kind, &mut |state| taken = state.take(source, now)).map_err(GeoError::shelf)?;
    if let Err(why) = taken {
        return Ok(Outcome::Unavailable(why));
    }
    let reply = transport.send(&question(source, client)).map_err(|why| Failure::broken(clean(&why, client)));
    match reply.and_then(|reply| read(kind, client, &reply, now)) {
        Ok(location) => {
            stats.count(kind, if location.is_unknown() { AnswerKind::Unknown } else { AnswerKind::Located });
            let answer = Answer { source: kind, location, fetched_at: now };
            shelf.keep(client, &answer).map_err(GeoError::shelf)?;
            shelf.change_source(kind, &mut |state| state.answered(now)).map_err(GeoError::shelf)?;
            Ok(Outcome::Fresh(answer))
        }
        Err(failure) => {
            stats.count(kind, AnswerKind::Failed);
            shelf
                .change_source(kind, &mut |state| state.failed(source, &failure, now))
                .map_err(GeoError::shelf)?;
            Ok(Outcome::Failed(failure.says))
        }
    }
}
