//! How an address stands: let in or not and why, its latest refusals, findings and limits.
//! Must not list requests that were let in; `logs` and `analyze` do.

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use serde::Serialize;

use portcullis_config::Config;
use portcullis_model::{Allow, Block, BlockSource, ClientIp, PartyBlock, VerdictKind, bare};
use portcullis_policy::Mode;
use portcullis_store::{LimitEvent, LogFilter, LogReader, LogRow, State, StoreError};

use super::{Advice, allow, disallow, show_advice, show_limits, unblock, unblock_party};
use crate::cli::analyze::{place, show_bots};
use crate::cli::block::{because, until};
use crate::cli::bots::{Named, named};
use crate::cli::context::{Context, open_state};
use crate::cli::explained::{Explained, FindingExplainer};
use crate::cli::logs::{request, verdict_style};
use crate::cli::output::{Align, BOLD, Cell, DIM, GREEN, PLAIN, RED, Screen, Table, tell};
use crate::cli::party;
use crate::cli::suspicious::{nevers_about, says, severity_style};
use crate::cli::{Outcome, time};
use crate::feeds::list_of;

/// Refusals that are shown.
const REFUSALS: usize = 10;
/// Requests whose user agents are looked at.
const LATEST: usize = 50;
/// How far back limits are looked at.
const LIMITS_SPAN: Duration = Duration::from_secs(24 * 3_600);

/// What is in force for an address.
#[derive(Default, Serialize)]
pub(super) struct Standing {
    dry_run: bool,
    allows: Vec<Allow>,
    blocks: Vec<Block>,
    /// Of those on it who are no verified users.
    block_of_anonymous: Option<PartyBlock>,
    /// The names of the feeds that list it; of those in dry-run none.
    feeds: Vec<Arc<str>>,
}

impl Standing {
    pub(super) fn of(
        client: ClientIp,
        config: &Config,
        state: Option<&State>,
        context: &Context,
    ) -> anyhow::Result<Self> {
        let dry_run = match config.mode {
            Mode::Enforce => false,
            Mode::DryRun => true,
        };
        let feeds = feeds_of(client, config);
        let Some(state) = state else { return Ok(Self { dry_run, feeds, ..Self::default() }) };
        Ok(Self {
            dry_run,
            feeds,
            allows: state.allows_covering(client)?,
            blocks: state.covering(client, context.now)?,
            block_of_anonymous: state.block_of_anonymous(client, context.now)?,
        })
    }

    /// `203.0.113.9 is blocked by block 12 ..., until ...`. Of a block that was `told` of already, only
    /// that it is still in force.
    pub(super) fn sentence(&self, client: ClientIp, told: Option<i64>, context: &Context) -> String {
        let dry_run = if self.dry_run { "; dry-run: it is let in all the same" } else { "" };
        match (self.allows.first(), self.blocks.first()) {
            (Some(allow), block) => {
                let although = match block {
                    Some(block) => format!(", although block {} covers it", block.id),
                    None => String::new(),
                };
                format!(
                    "{client} is always let in: allow {} of {}{}{although}",
                    allow.id,
                    bare(&allow.network),
                    because(&allow.reason)
                )
            }
            (None, Some(block)) if told == Some(block.id) => {
                format!("the block is in force: {client} is refused{dry_run}")
            }
            (None, Some(block)) => format!(
                "{client} is blocked by block {} of {}, {}{}{dry_run}",
                block.id,
                bare(&block.network),
                until(block.expires_at, context),
                because(&block.reason)
            ),
            (None, None) if let Some(block) = &self.block_of_anonymous => format!(
                "block {} of {} is in force, {}{}. {}{dry_run}",
                block.id,
                block.party,
                until(block.expires_at, context),
                because(&block.reason),
                party::in_words(&block.party)
            ),
            (None, None) if let Some(feed) = self.feeds.first() => {
                format!("{client} is blocked: the feed \"{feed}\" lists it{dry_run}")
            }
            (None, None) => format!("{client} is neither blocked nor allowed; limits hold for it"),
        }
    }
}

fn feeds_of(client: ClientIp, config: &Config) -> Vec<Arc<str>> {
    let enforced = config.feeds.iter().filter(|feed| feed.mode == Mode::Enforce);
    let lists = |network: &IpNet| network.contains(&client.ip());
    let listing = enforced.filter(|feed| !list_of(&config.data, feed, lists).is_empty());
    listing.map(|feed| Arc::clone(&feed.name)).collect()
}

/// How a client stands, for whoever shows it otherwise.
pub(crate) struct Stands {
    /// In a sentence.
    pub(crate) now: String,
    /// Feeds that list it.
    pub(crate) feeds: Vec<Arc<str>>,
    /// Rules that are silent about it.
    pub(crate) silent: Vec<String>,
    /// Crawlers that it has named itself as.
    pub(crate) bots: Vec<String>,
}

/// # Errors
/// The state database fails.
pub(crate) fn stands(
    client: ClientIp,
    agents: &[String],
    config: &Config,
    context: &Context,
) -> anyhow::Result<Stands> {
    let state = open_state(&config.data)?;
    let standing = Standing::of(client, config, state.as_ref(), context)?;
    let named = named(config, client, agents.iter().map(String::as_str), context);
    Ok(Stands {
        now: standing.sentence(client, None, context),
        feeds: standing.feeds,
        silent: state.map_or_else(|| Ok(Vec::new()), |state| nevers_about(&state, client))?,
        bots: named.into_iter().map(|named| named.says).collect(),
    })
}

#[derive(Serialize)]
struct About {
    client: ClientIp,
    now: String,
    standing: Standing,
    /// Newest first.
    refusals: Vec<LogRow>,
    findings: Vec<Explained>,
    /// Rules that are silent about it, in words.
    dismissed_for_good: Vec<String>,
    limit_events: Vec<LimitEvent>,
    /// Crawlers that it has named itself as in its latest requests.
    bots: Vec<Named>,
    advice: Vec<Advice>,
}

pub(super) fn explain(
    client: ClientIp,
    json: bool,
    context: &Context,
    screen: &mut Screen,
) -> anyhow::Result<Outcome> {
    let config = context.config()?;
    let state = open_state(&config.data)?;
    let log = match LogReader::open(&config.data) {
        Ok(log) => Some(log),
        Err(StoreError::NoLog(_)) => None,
        Err(error) => return Err(error.into()),
    };
    let standing = Standing::of(client, &config, state.as_ref(), context)?;
    let (refusals, latest) = match &log {
        Some(log) => (refusals(log, client)?, latest(log, client)?),
        None => (Vec::new(), Vec::new()),
    };
    let (findings, limit_events) = match &state {
        Some(state) => {
            let since = context.now.minus(LIMITS_SPAN);
            let explainer = FindingExplainer { config: &config, state, context };
            let findings = state.findings_about(client)?.into_iter().map(|stored| explainer.explain(stored));
            (findings.collect::<anyhow::Result<Vec<_>>>()?, state.limit_events_about(client, since)?)
        }
        None => (Vec::new(), Vec::new()),
    };
    let dismissed_for_good = match &state {
        Some(state) => nevers_about(state, client)?,
        None => Vec::new(),
    };
    let is_unknown = latest.is_empty()
        && findings.is_empty()
        && standing.allows.is_empty()
        && standing.blocks.is_empty()
        && standing.feeds.is_empty();
    let about = About {
        client,
        now: standing.sentence(client, None, context),
        advice: advice(client, &standing, refusals.first(), context),
        standing,
        refusals,
        findings,
        dismissed_for_good,
        limit_events,
        bots: named(&config, client, latest.iter().map(|row| row.user_agent.as_str()), context),
    };
    if json {
        screen.json(&about)?;
    } else {
        show(&about, context, screen)?;
        if is_unknown {
            tell("", &format!("Nothing is known about {client} in {}.", config.data.display()));
        }
    }
    Ok(if is_unknown { Outcome::Nothing } else { Outcome::Done })
}

/// The latest requests of the client that were, or in a dry run would have been, refused.
fn refusals(log: &LogReader, client: ClientIp) -> anyhow::Result<Vec<LogRow>> {
    let mut all = Vec::new();
    for verdict in VerdictKind::ALL {
        let counts = match verdict {
            VerdictKind::Blocked
            | VerdictKind::Limited
            | VerdictKind::WouldBlock
            | VerdictKind::WouldLimit
            | VerdictKind::Malformed => true,
            VerdictKind::Admitted | VerdictKind::Allowed => false,
        };
        if counts {
            let filter = LogFilter {
                network: Some(client.limit_network()),
                verdict: Some(verdict),
                ..LogFilter::default()
            };
            all.extend(log.rows(&filter, REFUSALS)?);
        }
    }
    all.sort_unstable_by_key(|row| std::cmp::Reverse(row.time()));
    all.truncate(REFUSALS);
    Ok(all)
}

fn latest(log: &LogReader, client: ClientIp) -> anyhow::Result<Vec<LogRow>> {
    let filter = LogFilter { network: Some(client.limit_network()), ..LogFilter::default() };
    Ok(log.rows(&filter, LATEST)?)
}

fn advice(client: ClientIp, standing: &Standing, refusal: Option<&LogRow>, context: &Context) -> Vec<Advice> {
    let mut advice = Vec::new();
    for allow in &standing.allows {
        let network = bare(&allow.network);
        advice.push(match allow.source {
            BlockSource::Config => Advice::sentence(format!(
                "To judge it like everybody else, remove the [[allow]] with network = \"{network}\" from the \
                 configuration."
            )),
            BlockSource::Cli | BlockSource::Console | BlockSource::Detector | BlockSource::Import => {
                disallow(allow.network, context)
            }
        });
    }
    if standing.allows.is_empty() {
        for block in &standing.blocks {
            let network = bare(&block.network);
            advice.push(match block.source {
                BlockSource::Config => Advice::sentence(format!(
                    "To let it in, remove the [[block]] with network = \"{network}\" from the configuration."
                )),
                BlockSource::Cli | BlockSource::Console | BlockSource::Detector | BlockSource::Import => {
                    unblock(block.network, context)
                }
            });
        }
        if let Some(block) = &standing.block_of_anonymous {
            advice.push(unblock_party(block, context));
        }
        if !standing.blocks.is_empty() || !standing.feeds.is_empty() || refusal.is_some() {
            advice.push(allow("never block or limit it", client.limit_network(), context));
        }
    }
    if let Some(row) = refusal {
        let why = context.command(&format!("why {}", row.id));
        advice.push(Advice::command("have the latest refusal explained", why));
    }
    advice.push(Advice::command("see all that it did", context.command(&format!("analyze {client}"))));
    advice
}

fn show(about: &About, context: &Context, screen: &mut Screen) -> anyhow::Result<()> {
    let is_open = about.standing.blocks.is_empty() && about.standing.feeds.is_empty();
    let style = match (about.standing.allows.is_empty(), is_open) {
        (false, _) => GREEN,
        (true, false) => RED,
        (true, true) => PLAIN,
    };
    screen.spans(&[(BOLD, &about.client.to_string())])?;
    screen.blank()?;
    screen.styled_field("now", style, &about.now)?;
    if let Some(row) = about.refusals.first().filter(|row| !row.location.is_unknown()) {
        screen.field("from", &place(&row.location))?;
    }
    show_bots(&about.bots, screen)?;
    for (n, Explained { stored, .. }) in about.findings.iter().enumerate() {
        let finding = &stored.finding;
        let text = format!(
            "{}, {} ({}, {}): {}",
            stored.id,
            finding.severity,
            stored.status.as_str(),
            time::relative(finding.detected_at, context.now),
            says(finding)
        );
        screen.styled_field(if n == 0 { "findings" } else { "" }, severity_style(finding.severity), &text)?;
    }
    for (n, never) in about.dismissed_for_good.iter().enumerate() {
        screen.field(if n == 0 { "never again" } else { "" }, never)?;
    }
    // The newest in full.
    if let Some(newest) = about.findings.first() {
        newest.show(context, screen)?;
        screen.field("block", newest.outcome())?;
    }
    show_limits(&about.limit_events, context, screen)?;
    if !about.refusals.is_empty() {
        screen.blank()?;
        screen.table(&mut refusals_table(&about.refusals, context))?;
    }
    screen.blank()?;
    show_advice("to", &about.advice, screen)
}

/// The reason, or the verdict where the log has none.
fn rule(row: &LogRow) -> String {
    let rule = if row.reason.is_empty() { row.verdict.as_str() } else { &row.reason };
    match row.verdict {
        VerdictKind::WouldBlock | VerdictKind::WouldLimit => format!("{rule} (dry run)"),
        VerdictKind::Blocked
        | VerdictKind::Limited
        | VerdictKind::Malformed
        | VerdictKind::Admitted
        | VerdictKind::Allowed => rule.to_owned(),
    }
}

fn refusals_table(rows: &[LogRow], context: &Context) -> Table {
    let mut table = Table::new(&[
        ("refused", Align::Left),
        ("id", Align::Left),
        ("rule", Align::Left),
        ("request", Align::Left),
    ]);
    for row in rows {
        table.row(vec![
            Cell::styled(context.short_time(row.time()), DIM),
            Cell::new(row.id.to_string()),
            Cell::styled(rule(row), verdict_style(row.verdict)),
            Cell::new(request(row)),
        ]);
    }
    table
}
