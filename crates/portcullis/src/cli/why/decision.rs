//! One decision explained: what was asked, what became of it, which rule, what evidence, until when, and
//! how to undo it.
//!
//! Owns the gathering and the sentences. Must say so where the evidence is gone, and never guess.

use std::time::Duration;

use ipnet::IpNet;
use serde::Serialize;

use portcullis_admin::running::stories::Remedy;
use portcullis_config::Config;
use portcullis_model::{
    Allow, Block, BlockSource, ClientIp, LoginOutcome, MalformedKind, Party, Reason, RequestId, UnixMs,
    UpstreamFailure, VerdictKind, bare,
};
use portcullis_policy::Exhausted;
use portcullis_store::{LogReader, LogRow, State, StoredFinding};

use super::client::Standing;
use super::rule::LimitWindow;
use super::{Advice, allow, disallow, show_advice, unblock, unblock_party, words};
use crate::cli::analyze::place;
use crate::cli::block::{Listed, because, ended, until};
use crate::cli::context::{Context, actor_in_words, open_state};
use crate::cli::explained::{Explained, FindingExplainer};
use crate::cli::logs::{milliseconds, request, verdict_style};
use crate::cli::output::{BOLD, DIM, Screen, tell};
use crate::cli::party::{self, ListedParty};
use crate::cli::suspicious::says;
use crate::cli::{Outcome, time};
use crate::feeds::list_of;

/// Requests of a limit's window that are shown.
pub(super) const SHOWN: usize = 5;
/// Audit entries that are searched for who added a block.
const MAX_AUDIT: usize = 100_000;

/// Everything there is to say. `--json` prints it as it is.
#[derive(Serialize)]
pub(crate) struct Explanation {
    pub(crate) request: LogRow,
    /// What became of it, in one sentence.
    pub(crate) outcome: String,
    /// Which rule, in sentences.
    pub(crate) because: Vec<String>,
    pub(crate) evidence: Evidence,
    /// How long it holds, or that it is over.
    pub(crate) lasts: Option<String>,
    /// How the client stands at this moment.
    pub(crate) now: String,
    pub(crate) advice: Vec<Advice>,
}

/// What an ID leads to.
pub(crate) enum Found {
    Decision(Box<Explanation>),
    /// Why it leads nowhere, in a sentence.
    Nothing(String),
}

/// What the decision rests on.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Evidence {
    /// No rule was involved, or what it knew is gone.
    None,
    Allow {
        #[serde(flatten)]
        allow: Allow,
        removed_at: Option<UnixMs>,
        removed_by: Option<String>,
    },
    Block {
        #[serde(flatten)]
        block: Listed,
        /// Of the detector.
        finding: Option<Box<Explained>>,
    },
    PartyBlock {
        #[serde(flatten)]
        block: ListedParty,
        /// Of the detector.
        finding: Option<Box<Explained>>,
    },
    Limit(LimitWindow),
}

pub(super) fn explain(
    id: RequestId,
    json: bool,
    context: &Context,
    screen: &mut Screen,
) -> anyhow::Result<Outcome> {
    let config = context.config()?;
    match find(id, &config, context)? {
        Found::Nothing(why) => {
            tell("", &why);
            Ok(Outcome::Nothing)
        }
        Found::Decision(explanation) if json => {
            screen.json(&explanation)?;
            Ok(Outcome::Done)
        }
        Found::Decision(explanation) => {
            show(&explanation, context, screen)?;
            Ok(Outcome::Done)
        }
    }
}

/// The decision with all that is known about it.
pub(crate) fn find(id: RequestId, config: &Config, context: &Context) -> anyhow::Result<Found> {
    let log = LogReader::open(&config.data)?;
    let Some(row) = log.find(id)? else {
        return Ok(Found::Nothing(not_found(id, &log, config, context)?));
    };
    let state = open_state(&config.data)?;
    let explanation = Explainer { config, log: &log, state: state.as_ref(), context }.explain(row)?;
    Ok(Found::Decision(Box::new(explanation)))
}

/// Why an ID leads nowhere, as far as its time tells.
fn not_found(id: RequestId, log: &LogReader, config: &Config, context: &Context) -> anyhow::Result<String> {
    let at = id.time();
    let folder = config.data.display();
    let Some((first, last)) = log.span()? else {
        return Ok(format!("The log in {folder} is empty. Is it the right --data?"));
    };
    let about = format!("The ID {id} is from {}", context.time(at));
    Ok(if at > context.now.plus(Duration::from_secs(60)) {
        format!("The ID {id} cannot be right: its time is {}. Is it typed correctly?", context.time(at))
    } else if at < first {
        format!(
            "{about}; the log in {folder} begins on {}. Older requests have been deleted (log.retention and \
             log.max_size), or the ID is from another gateway.",
            time::full(first, &context.zone)
        )
    } else if at > last {
        format!(
            "{about}; the last request in the log in {folder} is from {}. A request is logged when it ends \
             and is written a moment later: try again in a second. Or the ID is from another gateway.",
            time::full(last, &context.zone)
        )
    } else {
        format!(
            "{about}; the log in {folder} has requests of that time, but not this one. Is it typed correctly, \
             and from this gateway? A request that still runs is logged when it ends."
        )
    })
}

pub(super) struct Explainer<'a> {
    pub(super) config: &'a Config,
    pub(super) log: &'a LogReader,
    state: Option<&'a State>,
    pub(super) context: &'a Context,
}

fn is_or_are(party: &Party) -> String {
    match party {
        Party::User(_) => format!("{party} is"),
        Party::Anonymous { .. } => format!("{party} are"),
    }
}

/// What led to a block, in a sentence.
fn grounds_of(reason: &str, finding: Option<&StoredFinding>) -> String {
    match finding {
        Some(stored) => {
            format!(
                "Finding {} ({}): {}",
                stored.id,
                stored.finding.severity,
                sentence(&says(&stored.finding))
            )
        }
        None if reason.is_empty() => "No reason was given.".to_owned(),
        None => format!("The reason: {}", sentence(reason)),
    }
}

/// The part of an explanation that depends on the reason.
pub(super) struct Grounds {
    pub(super) because: Vec<String>,
    pub(super) evidence: Evidence,
    pub(super) lasts: Option<String>,
    pub(super) advice: Vec<Advice>,
}

impl Grounds {
    pub(super) fn words(because: impl Into<String>, advice: Vec<Advice>) -> Self {
        Self { because: vec![because.into()], evidence: Evidence::None, lasts: None, advice }
    }
}

impl Explainer<'_> {
    fn explain(&self, row: LogRow) -> anyhow::Result<Explanation> {
        let reason = row.reason.parse::<Reason>();
        let mut grounds = match &reason {
            Ok(Reason::None) => nothing_to_say(&row),
            Ok(Reason::Allow(id)) => self.allow(*id, &row)?,
            Ok(Reason::Block(id)) => self.block(*id, &row)?,
            Ok(Reason::Feed(name)) => self.feed(name, &row),
            Ok(Reason::Caught(rule)) => self.caught(rule, &row)?,
            Ok(Reason::Limit(rule)) => self.limit(rule, Exhausted::Rate, &row)?,
            Ok(Reason::SharedLimit(rule, prefix)) => {
                self.limit(rule, Exhausted::SharedRate(*prefix), &row)?
            }
            Ok(Reason::Burst(rule)) => self.limit(rule, Exhausted::Burst, &row)?,
            Ok(Reason::Concurrency(rule)) => self.limit(rule, Exhausted::Concurrency, &row)?,
            Ok(Reason::Access(rule)) => self.access(rule, &row),
            Ok(Reason::Malformed(kind)) => {
                let words = words::malformed(*kind);
                Grounds::words(words.means, vec![Advice::sentence(words.look_at)])
            }
            Ok(Reason::Upstream(failure)) => {
                let words = words::upstream(*failure);
                Grounds::words(words.means, vec![Advice::sentence(words.look_at)])
            }
            Ok(Reason::Login(outcome)) => {
                let words = words::login(*outcome);
                Grounds::words(words.means, vec![Advice::sentence(words.look_at)])
            }
            Ok(Reason::Connections(limit)) => {
                let words = words::connections(*limit);
                Grounds::words(words.means, vec![Advice::sentence(words.look_at)])
            }
            Err(unknown) => Grounds::words(
                format!("The log says {:?}, which this version of portcullis does not know.", unknown.0),
                vec![Advice::sentence("Ask the version that runs the gateway.")],
            ),
        };
        if let (Some(login), false) =
            (LoginOutcome::of_logged(&row.reason), matches!(reason, Ok(Reason::Login(_))))
        {
            grounds.because.push(words::login(login).means.to_owned());
        }
        let outcome = outcome(&row, reason.as_ref().ok(), &grounds.evidence);
        let told = match &grounds.evidence {
            Evidence::Block { block, .. } => Some(block.block.id),
            Evidence::None | Evidence::Allow { .. } | Evidence::PartyBlock { .. } | Evidence::Limit(_) => {
                None
            }
        };
        let standing = Standing::of(row.client, self.config, self.state, self.context)?;
        let now = match &grounds.evidence {
            Evidence::PartyBlock { block, .. } if block.in_force => {
                format!("the block is in force: {} refused", is_or_are(&block.stored.block.party))
            }
            Evidence::PartyBlock { .. }
            | Evidence::None
            | Evidence::Allow { .. }
            | Evidence::Block { .. }
            | Evidence::Limit(_) => standing.sentence(row.client, told, self.context),
        };
        let Grounds { because, evidence, lasts, advice } = grounds;
        Ok(Explanation { request: row, outcome, because, evidence, lasts, now, advice })
    }

    fn allow(&self, id: i64, row: &LogRow) -> anyhow::Result<Grounds> {
        let stored = match self.state {
            Some(state) => state.allow(id)?,
            None => None,
        };
        let Some(stored) = stored else {
            return Ok(Grounds::words(
                format!("Allow {id} covered it. It was removed, and its details have been deleted since."),
                Vec::new(),
            ));
        };
        let allow = &stored.allow;
        let who = self.who(allow.source, "allow", &allow.network.to_string(), allow.created_at)?;
        let network = bare(&allow.network);
        let end = ended(stored.removed_at, stored.removed_by.as_deref(), None, self.context);
        let advice = match (&end, allow.source) {
            (Some(_), _) => Vec::new(),
            (None, BlockSource::Config) => vec![Advice::sentence(format!(
                "To end that, remove the [[allow]] with network = \"{network}\" from the configuration."
            ))],
            (None, BlockSource::Cli | BlockSource::Console | BlockSource::Detector | BlockSource::Import) => {
                vec![disallow(allow.network, self.context)]
            }
        };
        Ok(Grounds {
            because: vec![format!(
                "Allow {id} of {network}{}, added {who}, covers {}. An allow wins: blocks and limits were not \
                 asked.",
                because(&allow.reason),
                row.client
            )],
            lasts: Some(end.map_or_else(|| "until somebody removes the allow".to_owned(), over)),
            evidence: Evidence::Allow {
                allow: stored.allow,
                removed_at: stored.removed_at,
                removed_by: stored.removed_by,
            },
            advice,
        })
    }

    fn block(&self, id: i64, row: &LogRow) -> anyhow::Result<Grounds> {
        let (stored, finding) = match self.state {
            None => (None, None),
            Some(state) => {
                let stored = state.block(id)?;
                let finding = stored.as_ref().and_then(|stored| stored.block.finding_id);
                (stored, finding.map(|id| state.finding(id)).transpose()?.flatten())
            }
        };
        let Some(stored) = stored else {
            if let Some(grounds) = self.party_block(id)? {
                return Ok(grounds);
            }
            return Ok(Grounds::words(
                format!(
                    "Block {id} covered {}. It ended more than 90 days ago, and its details have been deleted.",
                    row.client
                ),
                Vec::new(),
            ));
        };
        let listed = Listed::new(stored, self.context.now);
        let block = &listed.block;
        let who = self.who(block.source, "block", &block.network.to_string(), block.created_at)?;
        let reason = grounds_of(&block.reason, finding.as_ref());
        let because = vec![
            format!(
                "Block {id} of {}, added {who} on {}.",
                bare(&block.network),
                self.context.time(block.created_at)
            ),
            reason,
        ];
        let end = listed.end(self.context);
        let advice = match &end {
            Some(_) => Vec::new(),
            None => self.undo_block(block, row.client, finding.as_ref()),
        };
        let lasts = end.map_or_else(|| until(block.expires_at, self.context), over);
        let finding = self.explained(finding)?;
        Ok(Grounds {
            because,
            evidence: Evidence::Block { block: listed, finding },
            lasts: Some(lasts),
            advice,
        })
    }

    /// A list that others publish.
    fn feed(&self, name: &str, row: &LogRow) -> Grounds {
        let client = row.client.ip();
        let feed = self.config.feeds.iter().find(|feed| *feed.name == *name);
        let networks = feed
            .map(|feed| list_of(&self.config.data, feed, |network| network.contains(&client)))
            .unwrap_or_default();
        let mut because = vec![format!("The feed \"{name}\" lists {}.", row.client)];
        because.push(match (feed, networks.first()) {
            (None, _) => "It is not in the configuration any more.".to_owned(),
            (Some(_), None) => "Its copy of now does not list the address any more.".to_owned(),
            (Some(_), Some(network)) => format!("Its copy of now has {}.", bare(network)),
        });
        let mut advice = Vec::new();
        if !networks.is_empty() {
            advice.push(allow("let it in", IpNet::from(row.client.ip()), self.context));
            advice.push(Advice::sentence(format!(
                "To let in all that the feed lists, remove the [[feed]] named \"{name}\" from the configuration, \
                 or give it mode = \"dry-run\"."
            )));
        }
        let lasts = networks.first().map(|_| "as long as the feed lists it".to_owned());
        Grounds { because, evidence: Evidence::None, lasts, advice }
    }

    /// The detector had caught the client a moment before, and its block was not in force yet.
    fn caught(&self, rule: &str, row: &LogRow) -> anyhow::Result<Grounds> {
        let caught = format!(
            "The detector had caught it a moment before, by the rule \"{rule}\": from the next request on it is \
             refused, before its block is even written."
        );
        let found = match self.state {
            Some(state) => state.findings_about(row.client)?,
            None => Vec::new(),
        };
        let user = (!row.user.is_empty()).then_some(row.user.as_str());
        let of_this = |stored: &&StoredFinding| {
            stored.finding.user.as_deref() == user && stored.finding.first_seen <= row.time()
        };
        let finding = found.iter().find(of_this);
        let mut grounds = match finding.and_then(|stored| stored.block_id) {
            Some(block) => self.block(block, row)?,
            None => {
                let because = finding.map(|stored| grounds_of(rule, Some(stored)));
                let advice = finding.map(|stored| self.dismiss(stored)).into_iter().collect();
                Grounds { because: because.into_iter().collect(), ..Grounds::words("", advice) }
            }
        };
        grounds.because.insert(0, caught);
        Ok(grounds)
    }

    /// A block of a user, or of the anonymous clients of an address.
    fn party_block(&self, id: i64) -> anyhow::Result<Option<Grounds>> {
        let Some(state) = self.state else { return Ok(None) };
        let Some(stored) = state.party_block(id)? else { return Ok(None) };
        let finding = stored.block.finding_id.map(|id| state.finding(id)).transpose()?.flatten();
        let listed = ListedParty::new(stored, self.context.now);
        let block = &listed.stored.block;
        let who = self.who(block.source, "block", &block.party.to_string(), block.created_at)?;
        let because = vec![
            format!("Block {id} of {}, added {who} on {}.", block.party, self.context.time(block.created_at)),
            party::in_words(&block.party),
            grounds_of(&block.reason, finding.as_ref()),
        ];
        let end = listed.end(self.context);
        let mut advice = Vec::new();
        if end.is_none() {
            advice.push(unblock_party(block, self.context));
            advice.extend(finding.as_ref().map(|finding| self.dismiss(finding)));
        }
        let lasts = end.map_or_else(|| until(block.expires_at, self.context), over);
        let evidence = Evidence::PartyBlock { block: listed, finding: self.explained(finding)? };
        Ok(Some(Grounds { because, evidence, lasts: Some(lasts), advice }))
    }

    fn explained(&self, finding: Option<StoredFinding>) -> anyhow::Result<Option<Box<Explained>>> {
        let (Some(stored), Some(state)) = (finding, self.state) else { return Ok(None) };
        let explainer = FindingExplainer { config: self.config, state, context: self.context };
        Ok(Some(Box::new(explainer.explain(stored)?)))
    }

    fn dismiss(&self, finding: &StoredFinding) -> Advice {
        Advice::command(
            "note that the detector was wrong",
            self.context.command(&format!("suspicious {} --dismiss", finding.id)),
        )
        .or_button(Remedy::Dismiss(finding.id))
    }

    fn undo_block(&self, block: &Block, client: ClientIp, finding: Option<&StoredFinding>) -> Vec<Advice> {
        let network = bare(&block.network);
        let mut advice = match block.source {
            BlockSource::Config => vec![Advice::sentence(format!(
                "To undo it, remove the [[block]] with network = \"{network}\" from the configuration."
            ))],
            BlockSource::Cli | BlockSource::Console | BlockSource::Detector | BlockSource::Import => {
                vec![unblock(block.network, self.context)]
            }
        };
        let client = client.limit_network();
        advice.push(allow(format!("never block or limit {} again", bare(&client)), client, self.context));
        advice.extend(finding.map(|finding| self.dismiss(finding)));
        advice
    }

    /// `by alice at the command line`, `by the detector`, `by the configuration file`.
    fn who(&self, source: BlockSource, action: &str, subject: &str, at: UnixMs) -> anyhow::Result<String> {
        let actor = match (source, self.state) {
            (BlockSource::Cli | BlockSource::Console, Some(state)) => state
                .audit(at, MAX_AUDIT)?
                .into_iter()
                .find(|entry| entry.at == at && entry.action == action && entry.subject == subject)
                .map_or_else(|| source.as_str().to_owned(), |entry| entry.actor),
            _ => source.as_str().to_owned(),
        };
        Ok(actor_in_words(&actor))
    }
}

/// The end of something that is over, as a field.
fn over(end: String) -> String {
    format!("over: {end}")
}

/// A reason as a sentence of its own.
fn sentence(text: &str) -> String {
    if text.ends_with(['.', '!', '?']) { text.to_owned() } else { format!("{text}.") }
}

fn nothing_to_say(row: &LogRow) -> Grounds {
    let because = match row.verdict {
        VerdictKind::Admitted => "No block and no limit met it.",
        VerdictKind::Allowed => "An allow covered it.",
        VerdictKind::Blocked | VerdictKind::WouldBlock => "A block covered it; the log does not say which.",
        VerdictKind::Limited | VerdictKind::WouldLimit => "A limit was used up; the log does not say which.",
        VerdictKind::Malformed => "It was no valid request; the log does not say more.",
    };
    let advice = match row.status {
        400.. if !row.verdict.is_refusal() => vec![Advice::sentence(format!(
            "The {} is the site's own answer, not the gateway's: look into the site's log.",
            row.status
        ))],
        _ => Vec::new(),
    };
    Grounds::words(because, advice)
}

/// What became of a request that was let in and did not get the site's whole answer.
fn failed(failure: UpstreamFailure) -> &'static str {
    match failure {
        UpstreamFailure::Connect
        | UpstreamFailure::ConnectTimeout
        | UpstreamFailure::Tls
        | UpstreamFailure::Broken
        | UpstreamFailure::ReadTimeout
        | UpstreamFailure::NoneHealthy => "the site gave no complete answer",
        UpstreamFailure::CircuitOpen | UpstreamFailure::Busy => "the site was too busy to be asked",
        UpstreamFailure::ClientGone => "the client left before the answer was complete",
        UpstreamFailure::NoRoute => "no route led to a site",
        UpstreamFailure::Internal => "the gateway itself failed",
        UpstreamFailure::Interrupted => "the gateway ended before the answer was complete",
    }
}

/// What became of the request, by its verdict; the reason only tells a failed site from one that answered.
fn outcome(row: &LogRow, reason: Option<&Reason>, evidence: &Evidence) -> String {
    let status = match row.status {
        0 => "without an answer".to_owned(),
        status => format!("with {status}"),
    };
    let answered = match reason {
        Some(Reason::Upstream(failure)) if row.status == 0 => failed(*failure).to_owned(),
        Some(Reason::Upstream(failure)) => format!("{}: {}", failed(*failure), row.status),
        _ => format!("the site answered {}", row.status),
    };
    let limit = match reason {
        Some(Reason::Limit(rule)) => format!("the limit \"{rule}\""),
        Some(Reason::Burst(rule)) => format!("the burst of the limit \"{rule}\""),
        Some(Reason::Concurrency(rule)) => format!("the places of the limit \"{rule}\""),
        Some(Reason::SharedLimit(rule, prefix)) => {
            format!("the limit \"{rule}\" together with its /{}", prefix.length())
        }
        _ => "a limit".to_owned(),
    };
    match row.verdict {
        VerdictKind::Admitted => format!("Let in; {answered}."),
        VerdictKind::Allowed => format!("Let in by an allow; {answered}."),
        VerdictKind::Blocked => match list(reason) {
            Some(list) => format!("Refused {status} by {list}."),
            None => format!("Refused {status}: {}.", was_blocked(row, evidence)),
        },
        VerdictKind::Limited if matches!(reason, Some(Reason::Connections(_))) => {
            format!("The connection of {} was closed {status}: there were too many.", row.client)
        }
        VerdictKind::Limited => format!("Refused {status}: {} had used up {limit}.", row.client),
        VerdictKind::WouldBlock => {
            let why = list(reason).map_or_else(|| "as blocked".to_owned(), |list| format!("by {list}"));
            format!("Let in because of dry-run; it would have been refused {why}. Then {answered}.")
        }
        VerdictKind::WouldLimit => {
            format!("Let in because of dry-run; it would have been refused by {limit}. Then {answered}.")
        }
        VerdictKind::Malformed => match reason {
            Some(Reason::Malformed(kind)) => malformed(*kind, row.status),
            _ => format!("Refused {status}: it was no valid request."),
        },
    }
}

/// The list that refused, where it was no block.
fn list(reason: Option<&Reason>) -> Option<String> {
    match reason? {
        Reason::Access(_) => Some("the access list".to_owned()),
        Reason::Feed(name) => Some(format!("the feed \"{name}\"")),
        Reason::Caught(_) => Some("the detector".to_owned()),
        Reason::None
        | Reason::Allow(_)
        | Reason::Block(_)
        | Reason::Limit(_)
        | Reason::SharedLimit(..)
        | Reason::Burst(_)
        | Reason::Concurrency(_)
        | Reason::Malformed(_)
        | Reason::Upstream(_)
        | Reason::Connections(_)
        | Reason::Login(_) => None,
    }
}

/// Who was: the address, or somebody behind it.
fn was_blocked(row: &LogRow, evidence: &Evidence) -> String {
    match evidence {
        Evidence::PartyBlock { block, .. } => match &block.stored.block.party {
            party @ Party::User(_) => format!("{party} was blocked"),
            party @ Party::Anonymous { .. } => format!("{party} were blocked"),
        },
        Evidence::None | Evidence::Allow { .. } | Evidence::Block { .. } | Evidence::Limit(_) => {
            format!("{} was blocked", row.client)
        }
    }
}

/// What became of what was no request, or did not stay one. A site may have answered before the end of a body.
fn malformed(kind: MalformedKind, status: u16) -> String {
    let with = match status {
        0 => "without an answer".to_owned(),
        status => format!("with {status}"),
    };
    let so_far = match status {
        0 => String::new(),
        status => format!(" after the answer {status} had begun"),
    };
    match kind {
        MalformedKind::BadRequest
        | MalformedKind::Host
        | MalformedKind::Framing
        | MalformedKind::LineEnding
        | MalformedKind::HeaderSyntax
        | MalformedKind::Target
        | MalformedKind::Upgrade => format!("Refused {with}: it was no valid request."),
        MalformedKind::Method => format!("Refused {with}: the method is not forwarded."),
        MalformedKind::HeadTooLarge | MalformedKind::UriTooLong | MalformedKind::BodyTooLarge => {
            format!("Refused {with}: it was too large.")
        }
        MalformedKind::IncompleteHead => format!("Closed {with}: the request did not arrive."),
        MalformedKind::IncompleteBody => match status {
            0 | 400 | 408 => format!("Closed {with}: the body of the request did not arrive."),
            status => format!("Answered with {status}, and closed: the body of the request did not arrive."),
        },
        MalformedKind::SlowRead => format!("Closed{so_far}: the client did not take it."),
        MalformedKind::TlsHandshake => format!("Closed {with}: no encrypted connection came about."),
        MalformedKind::ProxyProtocol => format!("Closed {with}: there was no good PROXY header."),
        MalformedKind::Http2 => format!("Closed {with}: the client broke the protocol."),
        MalformedKind::Http2Flood => format!("Closed{so_far}: the client flooded the connection."),
    }
}

fn show(explanation: &Explanation, context: &Context, screen: &mut Screen) -> anyhow::Result<()> {
    let Explanation { request: row, outcome, because, evidence, lasts, now, advice } = explanation;
    screen.spans(&[(BOLD, &format!("{}  ", row.id)), (verdict_style(row.verdict), outcome)])?;
    screen.blank()?;
    screen.field("asked", &request(row))?;
    screen.field("", &context.time(row.time()))?;
    screen.field("by", &who_asked(row))?;
    if !row.verdict.is_refusal() {
        screen.field("took", &format!("{} ms", milliseconds(row.latency_us)))?;
    }
    for (n, text) in because.iter().enumerate() {
        screen.field(if n == 0 { "because" } else { "" }, text)?;
    }
    match evidence {
        Evidence::None | Evidence::Allow { .. } => {}
        Evidence::Block { finding: None, .. } | Evidence::PartyBlock { finding: None, .. } => {}
        Evidence::Block { finding: Some(stored), .. }
        | Evidence::PartyBlock { finding: Some(stored), .. } => {
            stored.show(context, screen)?;
        }
        Evidence::Limit(window) => {
            for (n, row) in window.latest.iter().enumerate() {
                let text = format!("{}  {}  {}", context.short_time(row.time()), request(row), row.status);
                screen.styled_field(if n == 0 { "served" } else { "" }, DIM, &text)?;
            }
        }
    }
    if let Some(lasts) = lasts {
        screen.field("lasts", lasts)?;
    }
    screen.field("now", now)?;
    if !advice.is_empty() {
        screen.blank()?;
    }
    let undoes = advice.iter().any(|advice| advice.command.is_some());
    show_advice(if undoes { "to" } else { "hint" }, advice, screen)
}

/// The address, where it is, the user and the claimed program.
fn who_asked(row: &LogRow) -> String {
    let mut text = row.client.to_string();
    if !row.location.is_unknown() {
        text.push_str(&format!(" ({})", place(&row.location)));
    }
    if !row.user.is_empty() {
        text.push_str(&format!(", user {}", row.user));
    }
    if !row.user_agent.is_empty() {
        text.push_str(&format!(", {}", row.user_agent));
    }
    text
}
