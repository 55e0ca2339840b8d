//! Everything that the log, the state and the gateway know about one client.
//! Must not judge: findings are the detector's.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use portcullis_detect::is_sensitive;
use portcullis_model::{Allow, Block, ClientIp, PartyBlock, UnixMs};
use portcullis_store::{
    Bucket, ClientReport, LimitEvent, LogFilter, LogReader, LogRow, OverviewSpan, SimilarClients, StoreError,
    StoredFinding,
};
use serde::Deserialize;

use crate::console::error::PageError;
use crate::console::running::clients::ClientStanding;
use crate::console::shared::Shared;

/// Requests that are listed.
const NEWEST: usize = 20;
/// Similar clients of each kind that are listed.
const SIMILAR: usize = 8;
/// Bars of the timeline, about.
const BARS: usize = 48;
/// How long each of the three looks through the log may take; then it shows what it has.
const PATIENCE: Duration = Duration::from_millis(600);

/// How far back to look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Range {
    #[default]
    Day,
    Week,
    Month,
}

impl Range {
    pub(super) const ALL: [Self; 3] = [Self::Day, Self::Week, Self::Month];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
        }
    }

    pub(super) fn in_words(self) -> &'static str {
        match self {
            Self::Day => "the last 24 hours",
            Self::Week => "the last 7 days",
            Self::Month => "the last 30 days",
        }
    }

    fn length(self) -> Duration {
        const DAY: u64 = 86_400;
        match self {
            Self::Day => Duration::from_secs(DAY),
            Self::Week => Duration::from_secs(7 * DAY),
            Self::Month => Duration::from_secs(30 * DAY),
        }
    }
}

pub(super) struct Known {
    pub(super) client: ClientIp,
    pub(super) range: Range,
    /// `None`: there is no log yet.
    pub(super) log: Option<Logged>,
    pub(super) state: Stored,
    pub(super) standing: ClientStanding,
}

/// What the log says.
pub(super) struct Logged {
    pub(super) report: ClientReport,
    pub(super) series: Vec<Bucket>,
    pub(super) newest: Vec<LogRow>,
    /// Requests of its whole /64, with whether there are more; IPv6 only.
    pub(super) subnet: Option<(u64, bool)>,
    pub(super) similar: SimilarClients,
}

/// What the state says.
pub(super) struct Stored {
    pub(super) allows: Vec<Allow>,
    pub(super) blocks: Vec<Block>,
    pub(super) block_of_anonymous: Option<PartyBlock>,
    pub(super) findings: Vec<StoredFinding>,
    pub(super) limit_events: Vec<LimitEvent>,
}

pub(super) async fn read(shared: &Arc<Shared>, client: ClientIp, range: Range) -> Result<Known, PageError> {
    let now = shared.now();
    let since = now.minus(range.length());
    let config = shared.config();
    let sensitive = move |path: &str| is_sensitive(&config.detection, path);
    let log = shared.log_if_any(move |log| logged(log, client, (since, now), &sensitive)).await?;
    let state = shared
        .state(move |state| {
            Ok(Stored {
                allows: state.allows_covering(client)?,
                blocks: state.covering(client, now)?,
                block_of_anonymous: state.block_of_anonymous(client, now)?,
                findings: state.findings_about(client)?,
                limit_events: state.limit_events_about(client, since)?,
            })
        })
        .await?;
    let agents = log.as_ref().map_or(&[][..], |log| &log.report.user_agents);
    let agents: Vec<String> = agents.iter().map(|(agent, _)| agent.clone()).collect();
    let standing = shared
        .blocking(move |shared| shared.running.standing(client, &agents).map_err(PageError::Failed))
        .await?;
    Ok(Known { client, range, log, state, standing })
}

fn logged(
    log: &LogReader,
    client: ClientIp,
    (since, now): (UnixMs, UnixMs),
    is_sensitive: &dyn Fn(&str) -> bool,
) -> Result<Logged, StoreError> {
    // One millisecond more: what began this very moment belongs to it.
    let until = now.plus(Duration::from_millis(1));
    let report = log.client_report(client, since, until, is_sensitive)?;
    let filter = LogFilter { network: Some(IpNet::from(client.ip())), ..LogFilter::default() };
    let span = OverviewSpan { from: since, to: until, buckets: BARS };
    let (series, _) = log.series(&filter, span, Instant::now() + PATIENCE)?;
    let newest = log.page(&filter, None, NEWEST, Instant::now() + PATIENCE)?.rows;
    let subnet = match client.ip().is_ipv6() {
        false => None,
        true => Some(of_subnet(log, client, since)?),
    };
    let similar = log.similar_clients(client, since, SIMILAR, Instant::now() + PATIENCE)?;
    Ok(Logged { report, series, newest, subnet, similar })
}

/// Requests of the whole /64, as far as they are counted in time.
fn of_subnet(log: &LogReader, client: ClientIp, since: UnixMs) -> Result<(u64, bool), StoreError> {
    const MAX_COUNTED: usize = 10_000;
    let filter =
        LogFilter { network: Some(client.limit_network()), since: Some(since), ..LogFilter::default() };
    let page = log.page(&filter, None, MAX_COUNTED, Instant::now() + PATIENCE)?;
    Ok((page.rows.len() as u64, page.next.is_some()))
}
