//! Where one address is, and who says so: the files, and what sources have answered.
//! Must not send an address to anybody unless it is told to.

use std::path::Path;

use portcullis_geo::{Asked, Effort, Geo, Outcome, SourceReport, SourceSettings, ask};
use portcullis_model::{ClientIp, Location, UnixMs};
use portcullis_store::State;

use super::{Http, StateShelf};
use crate::cli::open_state;

/// What is known about where an address is.
pub(crate) struct Said {
    /// What is known, the first who knows a field winning.
    pub(crate) location: Location,
    /// Files and sources in the order in which they count, with what each says.
    pub(crate) says: Vec<(String, Location)>,
    pub(crate) asked: Asked,
}

/// Gathers what files and sources say about an address; `effort` says whether sources are asked now.
///
/// # Errors
/// The state cannot be read, or the system has no way out for the questions.
pub(crate) fn said(
    geo: &Geo,
    data: &Path,
    client: ClientIp,
    effort: Effort,
    now: UnixMs,
) -> anyhow::Result<Said> {
    let files = geo.files_say(client).into_iter();
    let mut says: Vec<(String, Location)> =
        files.map(|(path, location)| (path.display().to_string(), location)).collect();
    let asked = asked(geo, data, client, effort, now)?;
    let answers = asked.reports.iter().filter_map(|report| match &report.outcome {
        Outcome::Kept(answer) | Outcome::Fresh(answer) => {
            Some((report.source.as_str().to_owned(), answer.location.clone()))
        }
        Outcome::Failed(_) | Outcome::Unavailable(_) | Outcome::NotAsked => None,
    });
    says.extend(answers);
    let location = says.iter().fold(Location::default(), |known, (_, said)| known.or(said.clone()));
    Ok(Said { location, says, asked })
}

fn asked(geo: &Geo, data: &Path, client: ClientIp, effort: Effort, now: UnixMs) -> anyhow::Result<Asked> {
    let not_asked =
        |source: &SourceSettings| SourceReport { source: source.kind, outcome: Outcome::NotAsked };
    let reports = geo.settings().sources.iter().map(not_asked).collect();
    let nothing = Asked { location: Location::default(), reports };
    match effort {
        Effort::Every => drop(State::open_or_create(data)?),
        // Nothing was ever kept.
        _ if open_state(data)?.is_none() => return Ok(nothing),
        _ => {}
    }
    let (mut http, mut shelf) = (Http::new()?, StateShelf::new(data));
    let known = geo.files_know(client);
    Ok(ask(geo.settings(), geo.source_stats(), (client, &known), effort, (&mut http, &mut shelf), now)?)
}
