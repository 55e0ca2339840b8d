//! Blocks and allows: added, lifted, imported.
//! Must not ask whether it is wise: who calls has asked what speaks against it.

use ipnet::IpNet;
use portcullis_config::Config;
use portcullis_model::{BlockSource, ClientIp, Party, UnixMs, bare};
use portcullis_policy::Mode;
use portcullis_store::{Imported, NewBlock, NewPartyBlock, State};

use super::{Author, Done, Step};
use crate::console::error::PageError;
use crate::console::words::count;

/// Who is to be blocked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Whom {
    Network(IpNet),
    /// A verified user.
    User(String),
}

/// A block that somebody asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) whom: Whom,
    pub(crate) reason: String,
    /// `None` lasts until somebody lifts it.
    pub(crate) expires_at: Option<UnixMs>,
    /// The finding that it is for.
    pub(crate) finding: Option<i64>,
}

/// Adds the block, in the place of one that is in force for the same. Returns its number too.
pub(crate) fn block(state: &mut State, entry: Entry, author: &Author) -> Result<(i64, Done), PageError> {
    state.together(|state| {
        let Entry { whom, reason, expires_at, finding } = entry;
        let (id, name, replaced) = match whom {
            Whom::Network(network) => {
                let replaced = state.block_of(&network, author.now)?.map(|block| block.id);
                let new = NewBlock {
                    network,
                    reason,
                    source: BlockSource::Console,
                    created_at: author.now,
                    expires_at,
                    finding_id: finding,
                };
                (state.add_block(new, &author.actor)?.id, bare(&network), replaced)
            }
            Whom::User(user) => {
                let replaced = state.block_of_user(&user, author.now)?.map(|block| block.id);
                let party = Party::User(user.into());
                let name = party.to_string();
                let new = NewPartyBlock {
                    party,
                    reason,
                    source: BlockSource::Console,
                    created_at: author.now,
                    expires_at,
                    finding_id: finding,
                };
                (state.add_party_block(new, &author.actor)?.id, name, replaced)
            }
        };
        let text = match replaced {
            None => format!("Blocked {name} (block {id})."),
            Some(old) => format!("Blocked {name} (block {id}), in the place of block {old}."),
        };
        let steps = std::iter::once(Step::Lift(id)).chain(replaced.map(Step::Restore)).collect();
        Ok((id, Done::new(text, steps)))
    })
}

/// Lifts the blocks with these numbers, of networks and of users.
pub(crate) fn lift(state: &mut State, ids: &[i64], author: &Author) -> Result<Done, PageError> {
    state.together(|state| {
        let (mut steps, mut names, mut comes_back) = (Vec::new(), Vec::new(), false);
        for id in ids {
            if let Some(stored) = state.block(*id)?.filter(|stored| stored.removed_at.is_none()) {
                let network = stored.block.network;
                if state.remove_block(&network, &author.actor, author.now)?.is_empty() {
                    continue;
                }
                comes_back |= stored.block.source == BlockSource::Config;
                names.push(bare(&network));
            } else if let Some(stored) =
                state.party_block(*id)?.filter(|stored| stored.removed_at.is_none())
                && state.remove_party_block(&stored.block.party, &author.actor, author.now)?.is_some()
            {
                names.push(stored.block.party.to_string());
            } else {
                continue;
            }
            steps.push(Step::Restore(*id));
        }
        let mut text = match names.as_slice() {
            [] => "None of them is in force, so nothing was lifted.".to_owned(),
            [name] => format!("Lifted the block of {name}."),
            names => format!("Lifted {}.", count(names.len() as u64, "block")),
        };
        if comes_back {
            text.push_str(
                " What the configuration file lists as a [[block]] comes back with the next start or reload, unless \
                 it is removed there.",
            );
        }
        Ok(Done::new(text, steps))
    })
}

/// Allows the network: no block, limit or finding touches it any more.
pub(crate) fn allow(
    state: &mut State,
    network: IpNet,
    reason: &str,
    author: &Author,
) -> Result<(i64, Done), PageError> {
    state.together(|state| {
        let covering = state.allows_covering(ClientIp::new(network.addr()))?;
        let replaced = covering.into_iter().find(|allow| allow.network == network.trunc());
        let allow = state.add_allow(network, reason, BlockSource::Console, &author.actor, author.now)?;
        let mut text = format!("Allowed {} (allow {}).", bare(&allow.network), allow.id);
        if let Some(block) = state.covering(ClientIp::new(network.addr()), author.now)?.first() {
            text.push_str(&format!(" It overrules block {} of {}.", block.id, bare(&block.network)));
        }
        if allow.network.prefix_len() == 0 {
            text.push_str(" It covers every address: no block and no limit has an effect now.");
        }
        let step = replaced.map_or(Step::Disallow(allow.id), |old| Step::AllowAgain(old.id));
        Ok((allow.id, Done::new(text, vec![step])))
    })
}

/// Takes the allows with these numbers back.
pub(crate) fn disallow(state: &mut State, ids: &[i64], author: &Author) -> Result<Done, PageError> {
    state.together(|state| {
        let (mut steps, mut names, mut comes_back) = (Vec::new(), Vec::new(), false);
        for id in ids {
            let Some(stored) = state.allow(*id)?.filter(|stored| stored.removed_at.is_none()) else { continue };
            state.remove_allow(&stored.allow.network, &author.actor, author.now)?;
            comes_back |= stored.allow.source == BlockSource::Config;
            names.push(bare(&stored.allow.network));
            steps.push(Step::AllowAgain(*id));
        }
        let mut text = match names.as_slice() {
            [] => "None of them is in force, so nothing was taken back.".to_owned(),
            [name] => format!("{name} is not allowed any more: blocks and limits hold for it again."),
            names => format!("Took {} back: blocks and limits hold again.", count(names.len() as u64, "allow")),
        };
        if comes_back {
            text.push_str(
                " What the configuration file lists as an [[allow]] comes back with the next start or reload, unless \
                 it is removed there.",
            );
        }
        Ok(Done::new(text, steps))
    })
}

/// Adds the blocks of a list, all or none. What is blocked for as long already stays as it is.
pub(crate) fn import(
    state: &mut State,
    blocks: &[NewBlock],
    author: &Author,
) -> Result<(Imported, Done), PageError> {
    state.together(|state| {
        let mut standing = Vec::new();
        for block in blocks {
            standing.extend(state.block_of(&block.network, author.now)?.map(|block| block.id));
        }
        let before = state.newest_block()?;
        let imported = state.import_blocks(blocks, &author.actor, author.now)?;
        let mut steps = Vec::new();
        if imported.added > 0 {
            steps.push(Step::LiftAll(before + 1..=state.newest_block()?));
        }
        for id in standing {
            if state.block(id)?.is_some_and(|stored| stored.removed_at.is_some()) {
                steps.push(Step::Restore(id));
            }
        }
        let kept = match imported.kept {
            0 => String::new(),
            kept => format!(" {} were in force already.", count(kept, "block")),
        };
        let text = format!("Imported {}.{kept}", count(imported.added, "block"));
        Ok((imported, Done::new(text, steps)))
    })
}

/// What keeps a block of this network from having its full effect, in sentences.
pub(crate) fn remarks(state: &State, network: &IpNet, config: &Config) -> Result<Vec<String>, PageError> {
    let stored = state.allows()?.into_iter().map(|allow| allow.network);
    let allows: Vec<IpNet> = stored.chain(config.allows.iter().map(|(network, _)| *network)).collect();
    let mut remarks = Vec::new();
    if let Some(allow) = allows.iter().find(|allow| allow.contains(network)) {
        remarks.push(format!(
            "The block has no effect as long as {} is allowed, because an allow always wins.",
            bare(allow)
        ));
    } else if let Some(allow) = allows.iter().find(|allow| network.contains(*allow)) {
        remarks.push(format!("{} inside of it is allowed and stays let in.", bare(allow)));
    }
    if config.mode == Mode::DryRun {
        remarks.push(
            "The configuration says mode = \"dry-run\": the block is recorded in the log and refuses nobody."
                .to_owned(),
        );
    }
    Ok(remarks)
}
