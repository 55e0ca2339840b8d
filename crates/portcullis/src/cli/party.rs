//! Blocks of users and of anonymous clients, as `block --user`, `unblock`, `blocks`, `suspicious` and `why` show and
//! change them. Must not know how such a block is enforced.

use serde::Serialize;
use serde_json::json;

use portcullis_config::Config;
use portcullis_model::{BlockSource, Party, PartyBlock, UnixMs, bare};
use portcullis_policy::{Mode, ROOM_LOGINS, ROOM_PERIOD};
use portcullis_store::{NewPartyBlock, State, StoredPartyBlock};

use super::Outcome;
use super::block::{Listed, because, ended, until};
use super::context::{Context, actor, open_state, quoted};
use super::output::{Cell, DIM, RED, Screen, YELLOW, count, tell};
use super::time;

/// Such a block with what became of it.
#[derive(Serialize)]
pub(crate) struct ListedParty {
    #[serde(flatten)]
    pub(crate) stored: StoredPartyBlock,
    pub(super) in_force: bool,
}

impl ListedParty {
    pub(super) fn new(stored: StoredPartyBlock, now: UnixMs) -> Self {
        let in_force = stored.removed_at.is_none() && !stored.block.is_expired(now);
        Self { stored, in_force }
    }

    /// How it ended, if it did.
    pub(super) fn end(&self, context: &Context) -> Option<String> {
        let StoredPartyBlock { block, removed_at, removed_by } = &self.stored;
        ended(*removed_at, removed_by.as_deref(), block.expires_at, context)
    }

    /// In the columns of `blocks`.
    pub(super) fn row(&self, context: &Context) -> Vec<Cell> {
        let StoredPartyBlock { block, removed_at, removed_by } = &self.stored;
        let end = match (removed_at, removed_by.as_deref(), block.expires_at) {
            (Some(_), Some("replaced"), _) => "replaced".to_owned(),
            (Some(at), Some("expired") | None, _) => format!("ended {}", time::relative(*at, context.now)),
            (Some(at), Some(_), _) => format!("lifted {}", time::relative(*at, context.now)),
            (None, _, None) => "no end".to_owned(),
            (None, _, Some(at)) if self.in_force => {
                format!("{} ({})", context.short_time(at), time::relative(at, context.now))
            }
            (None, _, Some(at)) => format!("ended {}", time::relative(at, context.now)),
        };
        let style = match (self.in_force, block.source.is_automatic()) {
            (false, _) => DIM,
            (true, true) => YELLOW,
            (true, false) => RED,
        };
        vec![
            Cell::new(block.id.to_string()),
            Cell::styled(block.party.to_string(), style),
            Cell::new(end),
            Cell::new(block.source.as_str()),
            Cell::new(context.short_time(block.created_at)),
            Cell::new(&block.reason),
        ]
    }
}

/// A block of an address or of somebody behind one.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum AnyBlock {
    Network(Listed),
    Party(ListedParty),
}

impl AnyBlock {
    /// The block with this number, also one that has ended.
    pub(super) fn find(state: &State, id: i64, now: UnixMs) -> anyhow::Result<Option<Self>> {
        if let Some(stored) = state.block(id)? {
            return Ok(Some(Self::Network(Listed::new(stored, now))));
        }
        Ok(state.party_block(id)?.map(|stored| Self::Party(ListedParty::new(stored, now))))
    }

    pub(super) fn id(&self) -> i64 {
        match self {
            Self::Network(listed) => listed.block.id,
            Self::Party(listed) => listed.stored.block.id,
        }
    }

    pub(super) fn in_force(&self) -> bool {
        match self {
            Self::Network(listed) => listed.in_force,
            Self::Party(listed) => listed.in_force,
        }
    }

    pub(super) fn expires_at(&self) -> Option<UnixMs> {
        match self {
            Self::Network(listed) => listed.block.expires_at,
            Self::Party(listed) => listed.stored.block.expires_at,
        }
    }

    /// How it ended, if it did.
    pub(super) fn end(&self, context: &Context) -> Option<String> {
        match self {
            Self::Network(listed) => listed.end(context),
            Self::Party(listed) => listed.end(context),
        }
    }

    /// `203.0.113.9`, or `user mallory`.
    pub(super) fn whom(&self) -> String {
        match self {
            Self::Network(listed) => bare(&listed.block.network),
            Self::Party(listed) => listed.stored.block.party.to_string(),
        }
    }

    /// The command that lifts it.
    pub(super) fn undo(&self, context: &Context) -> String {
        match self {
            Self::Network(listed) => context.command(&format!("unblock {}", bare(&listed.block.network))),
            Self::Party(listed) => undo(&listed.stored.block, context),
        }
    }
}

/// What `unblock` needs to hear.
pub(super) fn named(party: &Party) -> String {
    match party {
        Party::User(user) => format!("--user {}", quoted(user)),
        Party::Anonymous { network, .. } => bare(network),
    }
}

/// What such a block refuses, in a sentence.
pub(super) fn in_words(party: &Party) -> String {
    match party {
        Party::User(user) => format!("It refuses the verified user {user:?}, from whatever address."),
        Party::Anonymous { network, agents } => {
            let agents = match agents.len() {
                0 => String::new(),
                n => format!("what comes with the culprit's {}, ", count(n as u64, "user agent")),
            };
            format!(
                "Verified users share {}, so it refuses only those who are none, and of them only {agents}what is \
                 an attack by itself, and logins beyond {ROOM_LOGINS} in {}.",
                bare(network),
                time::in_words(ROOM_PERIOD)
            )
        }
    }
}

/// A user whom a person blocks.
pub(super) struct UserBlock {
    pub(super) user: String,
    pub(super) reason: String,
    pub(super) expires_at: Option<UnixMs>,
}

impl UserBlock {
    pub(super) fn add(
        self,
        config: &Config,
        json: bool,
        context: &Context,
        screen: &mut Screen,
    ) -> anyhow::Result<Outcome> {
        let mut state = State::open_or_create(&config.data)?;
        let replaced = state.block_of_user(&self.user, context.now)?;
        let new = NewPartyBlock {
            party: Party::User(self.user.into()),
            reason: self.reason,
            source: BlockSource::Cli,
            created_at: context.now,
            expires_at: self.expires_at,
            finding_id: None,
        };
        let block = state.add_party_block(new, &actor())?;
        let mut remarks = Vec::new();
        match config.mode {
            Mode::Enforce => {}
            Mode::DryRun => remarks.push(
                "the configuration says mode = \"dry-run\": the block is recorded in the log and refuses nobody",
            ),
        }
        if json {
            screen.json(&json!({ "block": block, "replaced": replaced, "remarks": remarks }))?;
            return Ok(Outcome::Done);
        }
        screen.line(&format!(
            "Blocked {}, {} (block {}).",
            block.party,
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
        screen.line(&format!("Undo: {}", undo(&block, context)))?;
        for remark in remarks {
            tell("warning: ", remark);
        }
        Ok(Outcome::Done)
    }
}

/// The command that lifts the block.
pub(super) fn undo(block: &PartyBlock, context: &Context) -> String {
    context.command(&format!("unblock {}", named(&block.party)))
}

/// `unblock --user NAME`.
pub(super) fn unblock_user(
    user: &str,
    json: bool,
    context: &Context,
    screen: &mut Screen,
) -> anyhow::Result<Outcome> {
    let config = context.config()?;
    let removed = match open_state(&config.data)? {
        None => None,
        Some(_) => {
            let party = Party::User(user.into());
            State::open_or_create(&config.data)?.remove_party_block(&party, &actor(), context.now)?
        }
    };
    if json {
        screen.json(&json!({ "removed": removed.iter().collect::<Vec<_>>() }))?;
    } else if let Some(block) = &removed {
        screen.line(&lifted(block, context))?;
        screen.line("In force at once if the gateway is running.")?;
    } else {
        tell("", &format!("user {user} is not blocked."));
    }
    Ok(if removed.is_some() { Outcome::Done } else { Outcome::Nothing })
}

pub(super) fn lifted(block: &PartyBlock, context: &Context) -> String {
    format!(
        "Unblocked {}: block {}, {}{}, is lifted.",
        block.party,
        block.id,
        until(block.expires_at, context),
        because(&block.reason)
    )
}
