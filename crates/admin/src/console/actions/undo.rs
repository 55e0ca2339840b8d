//! Taking a change back, step by step, as far as nobody has changed the same meanwhile.
//! Must not touch what the change did not.

use std::ops::RangeInclusive;

use portcullis_config::LiveSetting;
use portcullis_model::FindingStatus;
use portcullis_store::{NewBlock, NewNever, NewPartyBlock, State};

use super::Author;
use crate::console::error::PageError;
use crate::console::words::count;

/// What takes a change back.
#[derive(Clone, Debug)]
pub(crate) struct Undo {
    pub(super) steps: Vec<Step>,
}

/// One thing to be put back.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Lifts the block with this number.
    Lift(i64),
    /// Lifts the blocks of an import.
    LiftAll(RangeInclusive<i64>),
    /// Blocks again what the block with this number blocked: until the same time, for the same reason.
    Restore(i64),
    /// Takes back the allow with this number.
    Disallow(i64),
    /// Allows again what the allow with this number allowed.
    AllowAgain(i64),
    /// Gives a finding the status that it had, unless somebody has judged it anew since.
    Judge {
        finding: i64,
        from: FindingStatus,
        to: FindingStatus,
    },
    /// Has a finding name the block that it named before.
    Link {
        finding: i64,
        block: i64,
    },
    RemoveNever(i64),
    RestoreNever(i64),
    /// Gives a setting the value that it had before this one; `None` is the file's.
    Setting {
        setting: LiveSetting,
        before: Option<String>,
        after: Option<String>,
    },
}

/// Takes all back that can be; says what could not.
pub(crate) fn undo(state: &mut State, undo: &Undo, author: &Author) -> Result<String, PageError> {
    state.together(|state| {
        let mut left = Vec::new();
        for step in &undo.steps {
            if let Some(why) = take_back(state, step, author)? {
                left.push(why);
            }
        }
        Ok(match left.len() {
            0 => "Undone: all is as it was before.".to_owned(),
            n if n == undo.steps.len() => format!("Nothing was undone: {}.", left[0]),
            1 => format!("Undone, except that {}.", left[0]),
            n => format!("Undone, except for {}: {}, and so on.", count(n as u64, "change"), left[0]),
        })
    })
}

/// Why it cannot be.
type Left = Option<String>;

fn take_back(state: &mut State, step: &Step, author: &Author) -> Result<Left, PageError> {
    match step {
        Step::Lift(id) => lift(state, *id, author),
        Step::LiftAll(ids) => {
            let lifted = state.remove_blocks(ids.clone(), &author.actor, author.now)?;
            Ok((lifted == 0).then(|| "none of the blocks is in force any more".to_owned()))
        }
        Step::Restore(id) => restore(state, *id, author),
        Step::Disallow(id) => disallow(state, *id, author),
        Step::AllowAgain(id) => allow_again(state, *id, author),
        Step::Judge { finding, from, to } => judge(state, *finding, (*from, *to), author),
        Step::Link { finding, block } => {
            state.link_block(*finding, *block)?;
            Ok(None)
        }
        Step::RemoveNever(id) => {
            let removed = state.remove_never(*id, &author.actor, author.now)?;
            Ok((!removed).then(|| format!("\"never\" {id} had been taken back already")))
        }
        Step::RestoreNever(id) => restore_never(state, *id, author),
        Step::Setting { setting, before, after } => set_back(state, *setting, (before, after), author),
    }
}

fn set_back(
    state: &mut State,
    setting: LiveSetting,
    (before, after): (&Option<String>, &Option<String>),
    author: &Author,
) -> Result<Left, PageError> {
    let key = setting.as_str();
    if state.setting(key)? != *after {
        return Ok(Some(format!("{key} has been changed meanwhile")));
    }
    match before {
        Some(value) => state.set_setting(key, value, &author.actor, author.now)?,
        None => drop(state.unset_setting(key, &author.actor, author.now)?),
    }
    Ok(None)
}

fn lift(state: &mut State, id: i64, author: &Author) -> Result<Left, PageError> {
    let lifted = match state.block(id)?.filter(|stored| stored.removed_at.is_none()) {
        Some(stored) => !state.remove_block(&stored.block.network, &author.actor, author.now)?.is_empty(),
        None => match state.party_block(id)?.filter(|stored| stored.removed_at.is_none()) {
            Some(stored) => {
                state.remove_party_block(&stored.block.party, &author.actor, author.now)?.is_some()
            }
            None => false,
        },
    };
    Ok((!lifted).then(|| format!("block {id} is not in force any more")))
}

fn restore(state: &mut State, id: i64, author: &Author) -> Result<Left, PageError> {
    let gone = || Ok(Some(format!("block {id} has been forgotten")));
    if let Some(stored) = state.block(id)? {
        let old = stored.block;
        if old.is_expired(author.now) {
            return Ok(Some(format!("block {id} has run out meanwhile")));
        }
        if let Some(standing) = state.block_of(&old.network, author.now)? {
            return Ok(Some(format!("block {} is in force for the same", standing.id)));
        }
        let finding = old.finding_id;
        let new = NewBlock {
            network: old.network,
            reason: old.reason,
            source: old.source,
            created_at: author.now,
            expires_at: old.expires_at,
            finding_id: finding,
        };
        let block = state.add_block(new, &author.actor)?.id;
        return relink(state, finding, block);
    }
    let Some(stored) = state.party_block(id)? else { return gone() };
    let old = stored.block;
    if old.is_expired(author.now) {
        return Ok(Some(format!("block {id} has run out meanwhile")));
    }
    let finding = old.finding_id;
    let new = NewPartyBlock {
        party: old.party,
        reason: old.reason,
        source: old.source,
        created_at: author.now,
        expires_at: old.expires_at,
        finding_id: finding,
    };
    let block = state.add_party_block(new, &author.actor)?.id;
    relink(state, finding, block)
}

/// The finding names the block that is in force.
fn relink(state: &mut State, finding: Option<i64>, block: i64) -> Result<Left, PageError> {
    if let Some(finding) = finding
        && state.finding(finding)?.is_some()
    {
        state.link_block(finding, block)?;
    }
    Ok(None)
}

fn disallow(state: &mut State, id: i64, author: &Author) -> Result<Left, PageError> {
    let Some(stored) = state.allow(id)?.filter(|stored| stored.removed_at.is_none()) else {
        return Ok(Some(format!("allow {id} is not in force any more")));
    };
    state.remove_allow(&stored.allow.network, &author.actor, author.now)?;
    Ok(None)
}

fn allow_again(state: &mut State, id: i64, author: &Author) -> Result<Left, PageError> {
    let Some(stored) = state.allow(id)? else { return Ok(Some(format!("allow {id} has been forgotten"))) };
    let old = stored.allow;
    state.add_allow(old.network, &old.reason, old.source, &author.actor, author.now)?;
    Ok(None)
}

fn judge(
    state: &mut State,
    id: i64,
    (from, to): (FindingStatus, FindingStatus),
    author: &Author,
) -> Result<Left, PageError> {
    match state.finding(id)? {
        Some(stored) if stored.status == from => {
            state.set_finding_status(id, to, &author.actor, author.now)?;
            Ok(None)
        }
        Some(stored) => Ok(Some(format!("finding {id} is {} meanwhile", stored.status.as_str()))),
        None => Ok(Some(format!("finding {id} has been forgotten"))),
    }
}

fn restore_never(state: &mut State, id: i64, author: &Author) -> Result<Left, PageError> {
    let Some(old) = state.never(id)? else { return Ok(Some(format!("\"never\" {id} has been forgotten"))) };
    let new = NewNever {
        rule: old.rule,
        network: old.network,
        path: old.path,
        note: old.note,
        finding_id: old.finding_id,
    };
    let added = state.add_never(&new, &author.actor, author.now)?;
    Ok(added.is_none().then(|| "there are too many dismissals for good".to_owned()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use portcullis_model::UnixMs;
    use tempfile::TempDir;

    use super::super::{Entry, Whom, block, import, lift};
    use super::*;

    fn state() -> (TempDir, State) {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(folder.path()).unwrap();
        (folder, state)
    }

    fn at(seconds: i64) -> Author {
        Author { actor: "console:ana".to_owned(), now: UnixMs(seconds * 1_000) }
    }

    fn entry(network: &str, until: Option<i64>) -> Entry {
        Entry {
            whom: Whom::Network(network.parse().unwrap()),
            reason: "scans".to_owned(),
            expires_at: until.map(|seconds| UnixMs(seconds * 1_000)),
            finding: None,
        }
    }

    #[test]
    fn what_somebody_else_has_changed_meanwhile_stays() {
        let (_folder, mut state) = state();
        let (id, _) = block(&mut state, entry("192.0.2.1/32", None), &at(1)).unwrap();
        let lifted = lift(&mut state, &[id], &at(2)).unwrap().undo.unwrap();
        let (other, _) = block(&mut state, entry("192.0.2.1/32", Some(100)), &at(3)).unwrap();
        let text = undo(&mut state, &lifted, &at(4)).unwrap();
        assert_eq!(text, format!("Nothing was undone: block {other} is in force for the same."));
        assert_eq!(state.active_blocks(UnixMs(4_000)).unwrap()[0].id, other);
    }

    #[test]
    fn a_block_that_has_run_out_is_not_brought_back() {
        let (_folder, mut state) = state();
        let (id, _) = block(&mut state, entry("192.0.2.1/32", Some(10)), &at(1)).unwrap();
        let lifted = lift(&mut state, &[id], &at(2)).unwrap().undo.unwrap();
        let text = undo(&mut state, &lifted, &at(11)).unwrap();
        assert!(text.contains("has run out meanwhile"), "{text}");
        assert!(state.active_blocks(UnixMs(11_000)).unwrap().is_empty());
    }

    #[test]
    fn an_import_goes_as_it_came_and_leaves_what_stood_before() {
        let (_folder, mut state) = state();
        block(&mut state, entry("192.0.2.1/32", Some(50)), &at(1)).unwrap();
        block(&mut state, entry("192.0.2.2/32", None), &at(1)).unwrap();
        let now = at(2);
        let blocks: Vec<NewBlock> = (0..=200_u8)
            .map(|n| NewBlock {
                network: format!("192.0.2.{n}/32").parse().unwrap(),
                reason: "list".to_owned(),
                source: portcullis_model::BlockSource::Import,
                created_at: now.now,
                expires_at: Some(now.now.plus(Duration::from_secs(3_600))),
                finding_id: None,
            })
            .collect();
        let (imported, done) = import(&mut state, &blocks, &now).unwrap();
        assert_eq!((imported.added, imported.kept), (200, 1));
        undo(&mut state, &done.undo.unwrap(), &at(3)).unwrap();
        let left = state.active_blocks(UnixMs(3_000)).unwrap();
        let left: Vec<(String, Option<i64>)> =
            left.iter().map(|block| (block.network.to_string(), block.expires_at.map(|at| at.0))).collect();
        assert_eq!(left, [("192.0.2.2/32".to_owned(), None), ("192.0.2.1/32".to_owned(), Some(50_000))]);
    }
}
