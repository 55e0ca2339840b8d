//! `portcullis privacy erase`: everything about a person goes, from both databases and every file.
//!
//! Owns the order: blocks are lifted while their rows still say of whom; then the log, by the gateway if one runs; then
//! the state; then a look through every byte. Must not say that something is gone which is not.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use ipnet::IpNet;
use portcullis_config::Config;
use portcullis_model::{Block, BlockSource, UnixMs};
use portcullis_privacy::{Kind, PseudonymKey, is_pseudonym};
use portcullis_store::{
    ErasedFromLog, ErasedFromState, Log, NewBlock, NoEnrichment, State, StoreError, Subject,
};
use serde::Serialize;
use serde_json::json;

use super::super::Outcome;
use super::super::context::{Context, actor, open_state};
use super::super::output::{GREEN, RED, Screen, tell};
use super::super::upgrade::{ask, next};
use super::export::counts;
use super::files;
use super::subject::Whose;
use crate::identity::forget_user;
use crate::privacy::lasting;
use crate::upgrade::{Answer, EraseOrder, Order, connect};

const EXAMPLES: &str = "\
Examples:
  portcullis privacy erase 203.0.113.9
      says what there is, and erases nothing
  portcullis privacy erase 203.0.113.9 --yes
  portcullis privacy erase 203.0.113.9 --keep-blocks-hashed --yes
  portcullis privacy erase alice@example.com --yes --json

Works while the gateway runs, and when it does not. The receipt names nobody; it
is in the audit trail too. Blocks of the address are lifted, or with
--keep-blocks-hashed go on under a keyed hash; blocks of a user or of the
anonymous clients of an address cannot, and are named before they are lifted.
Exit code 1: something is left, and the files are named.";

/// How long the gateway may take: it goes through the whole log.
const PATIENCE: Duration = Duration::from_secs(3_660);

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Erase {
    #[command(flatten)]
    whose: Whose,

    /// Go on refusing a blocked address, under a hash that does not tell who it is
    #[arg(long)]
    keep_blocks_hashed: bool,

    /// Erase; without it, only look
    #[arg(long)]
    yes: bool,

    /// Print the receipt as JSON
    #[arg(long)]
    json: bool,
}

/// What was done, without a word about whom it was done for.
#[derive(Debug, Serialize)]
pub(crate) struct Receipt {
    erased_at: String,
    kind: &'static str,
    /// Under the key of this data folder: the same person gives the same.
    pub(crate) subject_hash: String,
    pub(crate) log: ErasedFromLog,
    pub(crate) state: ErasedFromState,
    /// Of a user.
    sessions_ended: usize,
    pub(crate) blocks_lifted: usize,
    blocks_kept_hashed: usize,
    /// Files in which the address or the name still stands.
    pub(crate) left_in: Vec<PathBuf>,
}

impl Erase {
    pub(super) fn run(self, context: &Context, screen: &mut Screen) -> anyhow::Result<Outcome> {
        let config = context.config()?;
        let data = &config.data;
        let subject = self.whose.subject(data, context.now)?;
        self.say_what_is_lifted_anyway(data, context)?;
        if !self.yes {
            let state = open_state(data)?;
            let (requests, others) = counts(data, state.as_ref(), &subject)?;
            screen.line(&format!(
                "There are {requests} requests and {others} other entries about {}. Nothing has been erased.",
                self.whose.text()
            ))?;
            screen.line(&format!(
                "Erase them: {}",
                context.command(&format!(
                    "privacy erase {} --yes",
                    super::super::context::quoted(&self.whose.text())
                ))
            ))?;
            return Ok(Outcome::Nothing);
        }
        let receipt = erase(&config, &self.whose, self.keep_blocks_hashed, (&actor(), context.now))?;
        self.warn(&config);
        if self.json {
            screen.json(&receipt)?;
        } else {
            show(&receipt, &self.whose, screen)?;
        }
        Ok(if receipt.left_in.is_empty() { Outcome::Done } else { Outcome::Failed })
    }

    /// Before anything is done: a hash stands for one address, and not for a user or some of an address's clients.
    fn say_what_is_lifted_anyway(&self, data: &Path, context: &Context) -> anyhow::Result<()> {
        let Some(state) = open_state(data)?.filter(|_| self.keep_blocks_hashed) else { return Ok(()) };
        let block = match self.whose.client() {
            Some(client) => state.block_of_anonymous(client, context.now)?,
            None => state.block_of_user(&self.whose.text(), context.now)?,
        };
        let Some(block) = block else { return Ok(()) };
        let (party, lifted) = (&block.party, if self.yes { "is lifted" } else { "would be lifted" });
        tell(
            "warning: ",
            &format!(
                "the block of {party} cannot go on under a hash, which stands for whole addresses: it {lifted}"
            ),
        );
        Ok(())
    }

    /// What this command cannot change.
    fn warn(&self, config: &Config) {
        let Some(client) = self.whose.client() else { return };
        let net = IpNet::from(client.ip());
        let is_listed = |list: &[(IpNet, String)]| list.iter().any(|(network, _)| *network == net);
        if is_listed(&config.blocks) || is_listed(&config.allows) {
            tell(
                "warning: ",
                "the configuration file lists the address; it comes back with the next start or reload unless it is \
                 removed there",
            );
        }
    }
}

/// Erases everything about a person. Works beside a running gateway, and when there is none.
///
/// # Errors
/// A database fails, or the gateway does not erase from its log.
pub(crate) fn erase(
    config: &Config,
    whose: &Whose,
    keeps_blocks_hashed: bool,
    (actor, now): (&str, UnixMs),
) -> anyhow::Result<Receipt> {
    let data = &config.data;
    let subject = &whose.subject(data, now)?;
    let key = lasting::read_or_make(data)?;
    let mut state = State::open_or_create(data)?;
    let keep = |block: &Block| keeps_blocks_hashed.then(|| under_hash(block, &key));
    let lifted = state.lift_blocks(subject, keep, (actor, now))?;
    let kept: Vec<i64> = lifted.iter().filter_map(|lifted| lifted.kept).collect();
    let order = EraseOrder {
        subject: subject.clone(),
        lifted: lifted.iter().map(|lifted| lifted.block.id).collect(),
    };
    let (log, sessions_ended) = erase_from_log(config, order)?;

    let subject_hash = key.digest("subject", &whose.text());
    let mut receipt = Receipt {
        erased_at: jiff::Timestamp::from_millisecond(now.0)?.to_string(),
        kind: if whose.is_address() { "address" } else { "user" },
        subject_hash: subject_hash.clone(),
        log,
        state: ErasedFromState::default(),
        sessions_ended,
        blocks_lifted: lifted.len() - kept.len(),
        blocks_kept_hashed: kept.len(),
        left_in: Vec::new(),
    };
    let detail = |erased: &ErasedFromState| {
        let detail = json!({
            "kind": receipt.kind,
            "log": log,
            "state": erased,
            "sessions_ended": sessions_ended,
            "blocks_lifted": receipt.blocks_lifted,
            "blocks_kept_hashed": receipt.blocks_kept_hashed,
        });
        (subject_hash.clone(), detail.to_string())
    };
    receipt.state = state.erase(subject, &kept, (actor, now), detail)?;
    let is_compact = state.compact()?;
    drop(state);
    if !is_compact {
        tell("warning: ", "a program that reads state.db keeps its write-ahead log; end it and erase again");
    }
    receipt.left_in = left_in(whose, data, subject)
        .context("what is erased is erased; but the data folder cannot be looked through")?;
    Ok(receipt)
}

fn left_in(whose: &Whose, data: &Path, subject: &Subject) -> anyhow::Result<Vec<PathBuf>> {
    if let Some(client) = whose.client() {
        return Ok(files::with_any(data, &[client.to_string()])?);
    }
    let mut left = files::with_name(data, &whose.text())?;
    // A name can be a word like others in the paths of a database: its rows say whether it is the user.
    let (requests, others) = counts(data, open_state(data)?.as_ref(), subject)?;
    left.extend((requests > 0).then(|| PathBuf::from("log.db")));
    left.extend((others > 0).then(|| PathBuf::from("state.db")));
    Ok(left)
}

/// The same block of an address that says nothing.
fn under_hash(block: &Block, key: &PseudonymKey) -> NewBlock {
    let client = portcullis_model::ClientIp::new(block.network.addr());
    let network = match is_pseudonym(client) {
        true => block.network,
        false => {
            let stand_in = key.pseudonym(Kind::Block, client).ip();
            let length = match block.network {
                IpNet::V6(v6) if v6.prefix_len() == 64 => 64,
                IpNet::V4(_) | IpNet::V6(_) => 128,
            };
            IpNet::new_assert(stand_in, length)
        }
    };
    NewBlock {
        network,
        reason: "kept under a hash when its address was erased".to_owned(),
        source: match block.source {
            // The file would take it out again.
            BlockSource::Config => BlockSource::Cli,
            other => other,
        },
        created_at: block.created_at,
        expires_at: block.expires_at,
        finding_id: None,
    }
}

/// By the gateway if one runs: it alone writes the log.
/// Returns how many sessions have ended, too.
fn erase_from_log(config: &Config, order: EraseOrder) -> anyhow::Result<(ErasedFromLog, usize)> {
    let data = &config.data;
    match connect(data) {
        Ok(_) => {}
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return erase_alone(config, data, order.subject);
        }
        Err(error) => {
            return Err(error).context(format!("cannot reach the gateway of {}", data.display()));
        }
    }
    let mut answers = ask(data, &Order::Erase(order), PATIENCE)?;
    loop {
        match next(&mut answers)? {
            Answer::Progress { text } => tell("note: ", &text),
            Answer::Erased { erased, sessions } => return Ok((erased, sessions)),
            Answer::Failed { why } => bail!("the gateway did not erase from its log: {why}"),
            Answer::Done { .. } => bail!("the gateway answered something else; is it of another version?"),
        }
    }
}

fn erase_alone(config: &Config, data: &Path, subject: Subject) -> anyhow::Result<(ErasedFromLog, usize)> {
    let sessions = match &subject {
        Subject::Address(_) => 0,
        Subject::User(name) => forget_user(data, name)?,
    };
    if super::export::open_log(data)?.is_none() {
        return Ok((ErasedFromLog::default(), sessions));
    }
    let log = match Log::start(data, config.log.clone(), Box::new(NoEnrichment)) {
        Err(error @ StoreError::InUse(_)) => {
            return Err(error).context("a gateway runs that has no control socket; stop it for the erasure");
        }
        started => started?,
    };
    let erased = log.eraser().erase(subject)?;
    log.shutdown();
    Ok((erased, sessions))
}

fn show(receipt: &Receipt, whose: &Whose, screen: &mut Screen) -> anyhow::Result<()> {
    screen.title(&format!("Erased {}", whose.text()))?;
    let ErasedFromLog { requests, texts, .. } = receipt.log;
    screen.field("requests", &format!("{requests} deleted; {texts} texts of others or of nobody cleared"))?;
    let list = |rows: &[(String, u64)]| {
        let rows: Vec<String> = rows.iter().map(|(table, rows)| format!("{table} {rows}")).collect();
        if rows.is_empty() { "nothing".to_owned() } else { rows.join(", ") }
    };
    screen.field("state", &format!("deleted: {}", list(&receipt.state.deleted)))?;
    screen.field("", &format!("mentions taken out: {}", list(&receipt.state.altered)))?;
    if receipt.sessions_ended > 0 {
        screen
            .field("sessions", &format!("{} ended: the user has to log in again", receipt.sessions_ended))?;
    }
    match (receipt.blocks_lifted, receipt.blocks_kept_hashed) {
        (0, 0) => {}
        (0, kept) => screen.field("blocks", &format!("{kept} go on under a hash"))?,
        (lifted, _) => screen.field("blocks", &format!("{lifted} lifted: the address is let in again"))?,
    }
    screen.field("receipt", &receipt.subject_hash)?;
    let what = if whose.is_address() { "the address" } else { "the name" };
    if receipt.left_in.is_empty() {
        screen.styled_field("left", GREEN, &format!("no file of the data folder holds {what}"))?;
    } else {
        let files: Vec<String> = receipt.left_in.iter().map(|file| file.display().to_string()).collect();
        screen.styled_field("left", RED, &format!("{what} still stands in {}", files.join(", ")))?;
        screen.field("", "delete what is an old copy (such as NAME.corrupt-...), or erase again")?;
    }
    Ok(())
}
