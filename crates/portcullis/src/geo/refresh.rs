//! Asks the sources again, about one address or all that need it. What they say is kept in the state database,
//! where a running gateway finds it. Must not print.

use std::collections::HashSet;

use portcullis_config::Config;
use portcullis_geo::{Asked, Effort, Geo, Outcome, SourceKind, Unavailable, ask, is_public};
use portcullis_model::{ClientIp, UnixMs};
use portcullis_store::{LogReader, State, StoreError};
use serde::Serialize;

use super::{Http, StateShelf, WINDOW};
use crate::cli::{count, iso};

/// Which addresses are asked about.
#[derive(Clone, Debug)]
pub(crate) enum Whom {
    These(Vec<ClientIp>),
    /// Clients of the last day without a country.
    Missing,
    /// Those, and those whose answer is too old.
    Stale,
    /// Those, and all about which an answer is kept.
    All,
}

/// What came of it.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Refreshed {
    /// Addresses that were looked at.
    pub(crate) addresses: u64,
    pub(crate) located: u64,
    /// No source knows them.
    pub(crate) unknown: u64,
    /// No source has answered.
    pub(crate) failed: u64,
    /// Addresses that were left, since no source may be asked any more.
    pub(crate) left: u64,
    /// Why: the first source's reason.
    #[serde(skip)]
    pub(crate) stopped: Option<(SourceKind, Unavailable)>,
    /// The last failure of a source. Holds words of the source.
    pub(crate) last_error: Option<String>,
}

/// Asks about at most `limit` addresses, until no source may be asked any more or `is_stopping`.
///
/// # Errors
/// The databases or the files cannot be used.
pub(crate) fn refresh(
    config: &Config,
    whom: &Whom,
    limit: usize,
    now: UnixMs,
    is_stopping: &dyn Fn() -> bool,
) -> anyhow::Result<Refreshed> {
    let geo = Geo::open(&config.geo)?;
    let (mut http, mut shelf) = (Http::new()?, StateShelf::new(&config.data));
    let effort = match whom {
        Whom::These(_) | Whom::All => Effort::Again,
        Whom::Missing | Whom::Stale => Effort::Missing,
    };
    let clients = clients(config, whom, limit, now)?;
    let mut done = Refreshed::default();
    for client in clients {
        if is_stopping() {
            anyhow::bail!("broken off");
        }
        if done.stopped.is_some() {
            done.left += 1;
            continue;
        }
        let known = geo.files_know(client);
        let at = now.max(crate::app::wall_now());
        let asked =
            ask(geo.settings(), geo.source_stats(), (client, &known), effort, (&mut http, &mut shelf), at)?;
        done.add(&asked);
    }
    Ok(done)
}

impl Refreshed {
    /// In words.
    pub(crate) fn sentence(&self) -> String {
        let mut text = match self.addresses {
            0 => "nobody had to be asked about any address".to_owned(),
            n => format!(
                "{}: {} located, {} that no source knows, {} without an answer",
                count(n, "address"),
                self.located,
                self.unknown,
                self.failed
            ),
        };
        if let Some((source, why)) = self.stopped {
            text += &format!("; {} left, {}", self.left, unavailable(source, why));
        }
        if let Some(error) = &self.last_error {
            text += &format!("; {error}");
        }
        text
    }

    fn add(&mut self, asked: &Asked) {
        let error = asked.reports.iter().rev().find_map(|report| match &report.outcome {
            Outcome::Failed(why) => Some(format!("{}: {why}", report.source.as_str())),
            _ => None,
        });
        let has_answer =
            asked.reports.iter().any(|report| matches!(report.outcome, Outcome::Kept(_) | Outcome::Fresh(_)));
        let unavailable = asked.reports.iter().find_map(|report| match report.outcome {
            Outcome::Unavailable(why) => Some((report.source, why)),
            _ => None,
        });
        match (has_answer, &error, unavailable) {
            // Nobody could be asked at all, and it will be the same with the next address.
            (false, None, Some(why)) => {
                self.stopped = Some(why);
                self.left += 1;
                return;
            }
            (true, _, _) if asked.location.is_unknown() => self.unknown += 1,
            (true, _, _) => self.located += 1,
            (false, Some(_), _) => self.failed += 1,
            // The files know enough.
            (false, None, None) => {}
        }
        self.addresses += 1;
        self.last_error = error.or(self.last_error.take());
    }
}

fn clients(config: &Config, whom: &Whom, limit: usize, now: UnixMs) -> anyhow::Result<Vec<ClientIp>> {
    let (missing, kept) = match whom {
        Whom::These(clients) => (clients.clone(), Vec::new()),
        Whom::Missing | Whom::Stale | Whom::All => {
            let missing = match LogReader::open(&config.data) {
                Ok(log) => log.clients_without_country(now.minus(WINDOW), limit)?,
                Err(StoreError::NoLog(_)) => Vec::new(),
                Err(error) => return Err(error.into()),
            };
            let before = match whom {
                Whom::All => UnixMs(i64::MAX),
                Whom::Stale => now.minus(config.geo.cache_ttl),
                Whom::These(_) | Whom::Missing => UnixMs(i64::MIN),
            };
            (missing, State::open_existing(&config.data)?.geo_answers_before(before, limit)?)
        }
    };
    let mut seen = HashSet::new();
    let all = missing.into_iter().chain(kept);
    let wanted = all.filter(|client| is_public(client.ip()) && seen.insert(*client));
    Ok(wanted.take(limit).collect())
}

/// Why a source is not asked, in words.
pub(crate) fn unavailable(source: SourceKind, why: Unavailable) -> String {
    let name = source.as_str();
    let until = iso(why.until());
    match why {
        Unavailable::LeftAlone { .. } => format!("{name} is left alone until {until}"),
        Unavailable::DayUsedUp { quota, .. } => {
            format!("{name} has had its {quota} requests of the day, until {until}")
        }
        Unavailable::MonthUsedUp { quota, .. } => {
            format!("{name} has had its {quota} requests of the month, until {until}")
        }
    }
}
