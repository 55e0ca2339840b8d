//! `portcullis block`, `unblock` and `blocks`.
//!
//! Owns what keeps a person from locking out the gateway's own machine, its proxies or themselves. Must
//! not tell a running gateway anything: it watches the database.

use clap::{ArgGroup, Args};
use ipnet::IpNet;
use serde::Serialize;
use serde_json::json;

use portcullis_config::Config;
use portcullis_model::{
    Block as StandingBlock, BlockSource, ClientIp, Party, UnixMs, bare, network_of, reason_of, user_of,
};
use portcullis_policy::Mode;
use portcullis_store::{NewBlock, State, StoredBlock, StoredPartyBlock};

use crate::machine::operators_address;
use crate::objections::objections;

use super::context::{Context, Misuse, actor, actor_in_words, open_state};
use super::output::{Align, Cell, DIM, RED, Screen, Table, YELLOW, count, tell};
use super::party::{self, AnyBlock, ListedParty, UserBlock};
use super::time::{self, Expiry};
use super::{Format, Outcome, feeds};

const BLOCK_EXAMPLES: &str = "\
Examples:
  portcullis block 203.0.113.9 --reason \"tries passwords\"
  portcullis block 203.0.113.0/24 --expires +7d
  portcullis block 2001:db8:5::/48 --expires 2026-12-31
      until that day begins, in your time zone
  portcullis block --user mallory --expires +7d
      a verified user, from whatever address; the name is the one that \"logs\"
      shows. Needs [identity] in the configuration.

Works whether the gateway runs or not; a running one refuses from the next
request on. An allow that covers the address wins. \"portcullis unblock\" lifts
the block.";

#[derive(Debug, Args)]
#[command(after_help = BLOCK_EXAMPLES, group = ArgGroup::new("whom").required(true).args(["network", "user"]))]
pub(super) struct Block {
    /// The address or prefix, IPv4 or IPv6
    #[arg(value_name = "IP|CIDR", value_parser = network_of)]
    network: Option<IpNet>,

    /// A verified user instead of an address
    #[arg(long, value_name = "NAME", value_parser = user_of)]
    user: Option<String>,

    /// Why, for "blocks" and "why"
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true, value_parser = reason_of)]
    reason: String,

    /// When the block ends: +12h, +7d, 2026-12-31, a date with a time, RFC 3339, or never
    #[arg(long, value_name = "WHEN", default_value = "never")]
    expires: Expiry,

    /// Block it although it is this machine, a trusted proxy, your own address, or a very wide prefix
    #[arg(long)]
    force: bool,

    #[command(flatten)]
    format: Format,
}

impl Block {
    pub(super) fn run(self, context: &Context, screen: &mut Screen) -> anyhow::Result<Outcome> {
        let expires_at = self.expires.resolve(context.now, &context.zone).map_err(Misuse)?;
        let config = context.config()?;
        let network = match (self.network, self.user) {
            (Some(network), _) => network,
            (None, user) => {
                let user = user.unwrap_or_default();
                let block = UserBlock { user, reason: self.reason, expires_at };
                return block.add(&config, self.format.json, context, screen);
            }
        };
        if !self.force {
            let objections = objections(&network, &config, operators_address());
            if !objections.is_empty() {
                return Err(Misuse(format!(
                    "{} is not blocked: {}. Use --force to block it all the same",
                    bare(&network),
                    objections.join("; ")
                ))
                .into());
            }
        }
        let mut state = State::open_or_create(&config.data)?;
        let replaced = standing(&state, &network, context.now)?;
        let new = NewBlock {
            network,
            reason: self.reason,
            source: BlockSource::Cli,
            created_at: context.now,
            expires_at,
            finding_id: None,
        };
        let block = state.add_block(new, &actor())?;
        let remarks = remarks(&state, &config, &block, context)?;

        if self.format.json {
            screen.json(&json!({ "block": block, "replaced": replaced, "remarks": remarks }))?;
            return Ok(Outcome::Done);
        }
        screen.line(&format!(
            "Blocked {}, {} (block {}).",
            bare(&block.network),
            until(block.expires_at, context),
            block.id
        ))?;
        if let Some(old) = replaced {
            screen.line(&format!(
                "It replaces block {}, {}{}.",
                old.id,
                until(old.expires_at, context),
                because(&old.reason)
            ))?;
        }
        screen.line("In force at once if the gateway is running.")?;
        screen.line(&format!("Undo: {}", context.command(&format!("unblock {}", bare(&block.network)))))?;
        for remark in remarks {
            tell("warning: ", &remark);
        }
        Ok(Outcome::Done)
    }
}

/// The block of exactly this network that is in force.
fn standing(state: &State, network: &IpNet, now: UnixMs) -> anyhow::Result<Option<StandingBlock>> {
    let covering = state.covering(ClientIp::new(network.addr()), now)?;
    Ok(covering.into_iter().find(|block| block.network == *network))
}

/// What keeps a new block from having its full effect.
fn remarks(
    state: &State,
    config: &Config,
    block: &StandingBlock,
    context: &Context,
) -> anyhow::Result<Vec<String>> {
    let mut remarks = Vec::new();
    let stored = state.allows()?.into_iter().map(|allow| (allow.network, allow.reason));
    let mut allows: Vec<(IpNet, String)> = stored.collect();
    for (network, why) in &config.allows {
        if !allows.iter().any(|(known, _)| known == network) {
            allows.push((*network, why.clone()));
        }
    }
    if let Some((network, why)) = allows.iter().find(|(network, _)| network.contains(&block.network)) {
        remarks.push(format!(
            "the block has no effect as long as {} is allowed{}, because an allow always wins; \
             to end that: {}",
            bare(network),
            because(why),
            context.command(&format!("disallow {}", bare(network)))
        ));
    } else {
        let inside: Vec<_> = allows.iter().filter(|(network, _)| block.network.contains(network)).collect();
        if let Some((network, _)) = inside.first() {
            remarks.push(format!(
                "an allow always wins, and {} inside of it stays let in{}",
                bare(network),
                match inside.len() {
                    1 => String::new(),
                    more => format!(", as do {} more", more - 1),
                }
            ));
        }
    }
    match config.mode {
        Mode::Enforce => {}
        Mode::DryRun => remarks.push(
            "the configuration says mode = \"dry-run\": the block is recorded in the log and refuses nobody"
                .to_owned(),
        ),
    }
    Ok(remarks)
}

const UNBLOCK_EXAMPLES: &str = "\
Examples:
  portcullis unblock 203.0.113.9
  portcullis unblock 203.0.113.0/24
  portcullis unblock --user mallory

Takes exactly what was blocked. If the address is inside of a wider block, that
one is named. To let one address of a blocked prefix in: portcullis allow
203.0.113.9";

#[derive(Debug, Args)]
#[command(after_help = UNBLOCK_EXAMPLES, group = ArgGroup::new("whom").required(true).args(["network", "user"]))]
pub(super) struct Unblock {
    /// The address or prefix, as "blocks" shows it
    #[arg(value_name = "IP|CIDR", value_parser = network_of)]
    network: Option<IpNet>,

    /// A verified user instead of an address
    #[arg(long, value_name = "NAME", value_parser = user_of)]
    user: Option<String>,

    #[command(flatten)]
    format: Format,
}

impl Unblock {
    pub(super) fn run(self, context: &Context, screen: &mut Screen) -> anyhow::Result<Outcome> {
        let json = self.format.json;
        match (self.network, self.user) {
            (Some(network), _) => UnblockNetwork { network, json }.run(context, screen),
            (None, user) => party::unblock_user(&user.unwrap_or_default(), json, context, screen),
        }
    }
}

/// `unblock IP|CIDR`: what was blocked there, of all or of the anonymous clients.
struct UnblockNetwork {
    network: IpNet,
    json: bool,
}

impl UnblockNetwork {
    fn run(self, context: &Context, screen: &mut Screen) -> anyhow::Result<Outcome> {
        let config = context.config()?;
        let Some(_) = open_state(&config.data)? else {
            return self.nothing(&[], &[], context, screen);
        };
        let mut state = State::open_or_create(&config.data)?;
        let removed = state.remove_block(&self.network, &actor(), context.now)?;
        let anonymous = Party::Anonymous { network: self.network, agents: Vec::new() };
        let of_anonymous = state.remove_party_block(&anonymous, &actor(), context.now)?;
        let wider: Vec<StandingBlock> = state
            .covering(ClientIp::new(self.network.addr()), context.now)?
            .into_iter()
            .filter(|block| block.network.contains(&self.network))
            .collect();
        if removed.is_empty() && of_anonymous.is_none() {
            let mut inside = state.active_blocks(context.now)?;
            inside.retain(|block| self.network.contains(&block.network));
            return self.nothing(&wider, &inside, context, screen);
        }
        if self.json {
            let of_anonymous: Vec<_> = of_anonymous.iter().collect();
            screen.json(&json!({
                "removed": removed, "removed_of_anonymous": of_anonymous, "still_covered_by": wider
            }))?;
            return Ok(Outcome::Done);
        }
        if let Some(block) = &of_anonymous {
            screen.line(&party::lifted(block, context))?;
        }
        for block in &removed {
            screen.line(&format!(
                "Unblocked {}: block {}, {}{}, is lifted.",
                bare(&block.network),
                block.id,
                until(block.expires_at, context),
                because(&block.reason)
            ))?;
        }
        screen.line("In force at once if the gateway is running.")?;
        if removed.iter().any(|block| block.source == BlockSource::Config) {
            tell(
                "warning: ",
                "it is a [[block]] of the configuration file and comes back with the next start or reload, \
                 unless it is removed there",
            );
        }
        if let Some(block) = wider.first() {
            tell("warning: ", &format!("still refused: {}", covers(block, context)));
        }
        Ok(Outcome::Done)
    }

    /// Nothing was removed; says what is blocked around it.
    fn nothing(
        &self,
        wider: &[StandingBlock],
        inside: &[StandingBlock],
        context: &Context,
        screen: &mut Screen,
    ) -> anyhow::Result<Outcome> {
        const SHOWN: usize = 5;
        if self.json {
            screen.json(&json!({ "removed": [], "still_covered_by": wider, "inside": inside }))?;
            return Ok(Outcome::Nothing);
        }
        tell("", &format!("{} is not blocked by itself.", bare(&self.network)));
        for block in wider {
            tell("", &covers(block, context));
        }
        if !wider.is_empty() {
            let allow = context.command(&format!("allow {}", bare(&self.network)));
            tell("", &format!("To let in only {}: {allow}", bare(&self.network)));
        }
        if !inside.is_empty() {
            tell("", &format!("Inside of it: {}.", count(inside.len() as u64, "block")));
        }
        for block in inside.iter().take(SHOWN) {
            tell("  ", &context.command(&format!("unblock {}", bare(&block.network))));
        }
        Ok(Outcome::Nothing)
    }
}

fn covers(block: &StandingBlock, context: &Context) -> String {
    format!(
        "block {} of {} covers it, {}{}; to lift it: {}",
        block.id,
        bare(&block.network),
        until(block.expires_at, context),
        because(&block.reason),
        context.command(&format!("unblock {}", bare(&block.network)))
    )
}

const BLOCKS_EXAMPLES: &str = "\
Examples:
  portcullis blocks
  portcullis blocks --all --limit 20
      also those that ended, for 90 days, newest first
  portcullis blocks --json | jq -r '.[].network // empty'";

#[derive(Debug, Args)]
#[command(after_help = BLOCKS_EXAMPLES)]
pub(super) struct Blocks {
    /// Also those that were lifted, were replaced or have run out
    #[arg(long)]
    all: bool,

    /// At most so many, the newest
    #[arg(long, value_name = "N")]
    limit: Option<usize>,

    #[command(flatten)]
    format: Format,
}

/// A block with what became of it.
#[derive(Serialize)]
pub(crate) struct Listed {
    #[serde(flatten)]
    pub(crate) block: StandingBlock,
    pub(super) in_force: bool,
    removed_at: Option<UnixMs>,
    removed_by: Option<String>,
}

impl Listed {
    /// How it ended, if it did.
    pub(super) fn end(&self, context: &Context) -> Option<String> {
        ended(self.removed_at, self.removed_by.as_deref(), self.block.expires_at, context)
    }

    pub(super) fn new(stored: StoredBlock, now: UnixMs) -> Self {
        let StoredBlock { block, removed_at, removed_by } = stored;
        let in_force = removed_at.is_none() && !block.is_expired(now);
        Self { block, in_force, removed_at, removed_by }
    }
}

impl Blocks {
    pub(super) fn run(self, context: &Context, screen: &mut Screen) -> anyhow::Result<Outcome> {
        let config = context.config()?;
        let limit = self.limit.unwrap_or(usize::MAX);
        let (stored, parties) = match open_state(&config.data)? {
            None => (Vec::new(), Vec::new()),
            Some(state) if self.all => (state.recent_blocks(limit)?, state.recent_party_blocks(limit)?),
            Some(state) => {
                let blocks = state.active_blocks(context.now)?.into_iter().rev().take(limit);
                let blocks = blocks.map(|block| StoredBlock { block, removed_at: None, removed_by: None });
                let parties = state.active_party_blocks(context.now)?.into_iter().rev().take(limit);
                let parties =
                    parties.map(|block| StoredPartyBlock { block, removed_at: None, removed_by: None });
                (blocks.collect(), parties.collect())
            }
        };
        let blocks = stored.into_iter().map(|block| AnyBlock::Network(Listed::new(block, context.now)));
        let parties = parties.into_iter().map(|block| AnyBlock::Party(ListedParty::new(block, context.now)));
        let mut listed: Vec<AnyBlock> = blocks.chain(parties).collect();
        listed.sort_by_key(|block| std::cmp::Reverse(block.id()));
        listed.truncate(limit);
        if self.format.json {
            screen.json(&listed)?;
            return Ok(Outcome::Done);
        }
        if listed.is_empty() {
            screen.line("No blocks.")?;
            tell_of_feeds(&config, context);
            return Ok(Outcome::Done);
        }
        let mut table = Table::new(&[
            ("id", Align::Right),
            ("whom", Align::Left),
            ("until", Align::Left),
            ("by", Align::Left),
            ("since", Align::Left),
            ("reason", Align::Left),
        ]);
        for listed in listed {
            table.row(match listed {
                AnyBlock::Network(listed) => row(&listed, context),
                AnyBlock::Party(listed) => listed.row(context),
            });
        }
        screen.table(&mut table)?;
        tell_of_feeds(&config, context);
        Ok(Outcome::Done)
    }
}

/// Feeds are not in the table: they have up to millions of networks.
fn tell_of_feeds(config: &Config, context: &Context) {
    if let Some(feeds) = feeds::in_a_line(config, context.now) {
        tell("", &format!("Also blocked, by feeds: {feeds}. More: {}", context.command("feeds")));
    }
}

fn row(listed: &Listed, context: &Context) -> Vec<Cell> {
    let Listed { block, in_force, removed_at, removed_by } = listed;
    let end = match (removed_at, block.expires_at) {
        (Some(at), _) => match removed_by.as_deref() {
            Some("replaced") => "replaced".to_owned(),
            Some("expired") | None => format!("ended {}", time::relative(*at, context.now)),
            Some(_) => format!("lifted {}", time::relative(*at, context.now)),
        },
        (None, None) => "no end".to_owned(),
        (None, Some(at)) if *in_force => {
            format!("{} ({})", context.short_time(at), time::relative(at, context.now))
        }
        (None, Some(at)) => format!("ended {}", time::relative(at, context.now)),
    };
    let style = match (in_force, block.source) {
        (false, _) => DIM,
        (true, BlockSource::Detector) => YELLOW,
        (true, BlockSource::Cli | BlockSource::Console | BlockSource::Config | BlockSource::Import) => RED,
    };
    vec![
        Cell::new(block.id.to_string()),
        Cell::styled(bare(&block.network), style),
        Cell::new(end),
        Cell::new(block.source.as_str()),
        Cell::new(context.short_time(block.created_at)),
        Cell::new(&block.reason),
    ]
}

/// `until 2026-12-31 00:00:00 CET (in 41 days)`, or `without an end`.
pub(super) fn until(expires_at: Option<UnixMs>, context: &Context) -> String {
    match expires_at {
        Some(at) => format!("until {}", context.time(at)),
        None => "without an end".to_owned(),
    }
}

/// ` ("tries passwords")`, or nothing.
pub(super) fn because(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(" (\"{reason}\")") }
}

/// How a block or an allow ended, if somebody or time ended it.
pub(super) fn ended(
    removed_at: Option<UnixMs>,
    removed_by: Option<&str>,
    expires_at: Option<UnixMs>,
    context: &Context,
) -> Option<String> {
    match (removed_at, removed_by, expires_at) {
        (Some(at), Some("replaced"), _) => {
            Some(format!("a newer entry for the same network replaced it on {}", context.time(at)))
        }
        (Some(_), Some("expired"), Some(at)) => Some(format!("it ran out on {}", context.time(at))),
        (Some(at), by, _) => {
            let by = by.map_or_else(|| "by somebody".to_owned(), actor_in_words);
            Some(format!("it was removed {by} on {}", context.time(at)))
        }
        (None, _, Some(at)) if at <= context.now => Some(format!("it ran out on {}", context.time(at))),
        (None, _, _) => None,
    }
}
