//! Findings: confirmed, dismissed, dismissed for good; the client behind one blocked or allowed.
//! Must not find anything itself.

use portcullis_detect::{Dismissal, Never};
use portcullis_model::{FindingStatus, UnixMs, bare};
use portcullis_store::{MAX_NEVERS, NewNever, State, StoredFinding};

use super::{Author, Done, Entry, Step, Whom};
use crate::console::error::PageError;
use crate::console::words::count;

/// A dismissal that is meant for good.
#[derive(Clone, Debug)]
pub(crate) struct ForGood {
    pub(crate) never: Never,
    /// Another rule than the finding's strongest.
    pub(crate) rule: Option<String>,
    /// Without it the path of the samples, if all have one.
    pub(crate) path: Option<String>,
    pub(crate) note: String,
}

fn known(state: &State, id: i64) -> Result<StoredFinding, PageError> {
    state.finding(id)?.ok_or_else(|| {
        PageError::NotFound(format!("There is no finding {id}; findings are kept for 30 days."))
    })
}

/// Gives the findings the status. Those that have it stay as they are.
pub(crate) fn judge(
    state: &mut State,
    ids: &[i64],
    status: FindingStatus,
    author: &Author,
) -> Result<Done, PageError> {
    state.together(|state| {
        let mut steps = Vec::new();
        for id in ids {
            steps.extend(set_status(state, &known(state, *id)?, status, author)?);
        }
        let word = status.as_str();
        let text = match (ids, steps.len()) {
            ([id], 0) => format!("Finding {id} is {word} already."),
            ([id], _) => format!("Finding {id} is {word}.{}", still_blocked(state, *id, status, author.now)?),
            (_, n) => format!("{}: now {word}.", count(n as u64, "finding")),
        };
        Ok(Done::new(text, steps))
    })
}

fn set_status(
    state: &mut State,
    stored: &StoredFinding,
    status: FindingStatus,
    author: &Author,
) -> Result<Option<Step>, PageError> {
    if stored.status == status {
        return Ok(None);
    }
    state.set_finding_status(stored.id, status, &author.actor, author.now)?;
    Ok(Some(Step::Judge { finding: stored.id, from: status, to: stored.status }))
}

/// A dismissal lifts no block.
fn still_blocked(state: &State, id: i64, status: FindingStatus, now: UnixMs) -> Result<String, PageError> {
    let block = match (status, state.finding(id)?.and_then(|stored| stored.block_id)) {
        (FindingStatus::Dismissed, Some(block)) => state.block(block)?,
        (FindingStatus::Open | FindingStatus::Confirmed | FindingStatus::Dismissed, _) => None,
    };
    let standing = block.filter(|stored| stored.removed_at.is_none() && !stored.block.is_expired(now));
    Ok(standing.map_or_else(String::new, |stored| {
        format!(" Block {} of {} is still in force.", stored.block.id, bare(&stored.block.network))
    }))
}

/// Dismisses a finding, and has its rule be silent from now on.
pub(crate) fn dismiss_for_good(
    state: &mut State,
    id: i64,
    asked: &ForGood,
    author: &Author,
) -> Result<Done, PageError> {
    state.together(|state| {
        let stored = known(state, id)?;
        let Dismissal { rule, network, path } =
            Dismissal::new(&stored.finding, asked.never, asked.rule.as_deref(), asked.path.as_deref())
                .map_err(|error| PageError::Invalid(format!("Nothing was dismissed: {error}.")))?;
        let new = NewNever { rule, network, path, note: asked.note.clone(), finding_id: Some(id) };
        let newest = state.nevers()?.iter().map(|never| never.id).max();
        let Some(never) = state.add_never(&new, &author.actor, author.now)? else {
            return Err(PageError::Conflict(format!(
                "There are {MAX_NEVERS} dismissals for good already; take some back first."
            )));
        };
        let is_new = newest.is_none_or(|newest| never.id > newest);
        let judged = set_status(state, &stored, FindingStatus::Dismissed, author)?;
        let steps = is_new.then_some(Step::RemoveNever(never.id)).into_iter().chain(judged).collect();
        let blocked = still_blocked(state, id, FindingStatus::Dismissed, author.now)?;
        Ok(Done::new(format!("Finding {id} is dismissed. Never again: {never}.{blocked}"), steps))
    })
}

/// Blocks the clients of the findings, or their users, and confirms what nobody has judged.
pub(crate) fn block_client(
    state: &mut State,
    ids: &[i64],
    expires_at: Option<UnixMs>,
    author: &Author,
) -> Result<Done, PageError> {
    state.together(|state| {
        let (mut steps, mut texts) = (Vec::new(), Vec::new());
        for id in ids {
            let stored = known(state, *id)?;
            let entry = Entry {
                whom: match &stored.finding.user {
                    Some(user) => Whom::User(user.clone()),
                    None => Whom::Network(stored.finding.client.limit_network()),
                },
                reason: stored.finding.reason.clone(),
                expires_at,
                finding: Some(*id),
            };
            let (block, done) = super::block(state, entry, author)?;
            steps.extend(done.undo.into_iter().flat_map(|undo| undo.steps));
            steps.extend(stored.block_id.map(|old| Step::Link { finding: *id, block: old }));
            state.link_block(*id, block)?;
            if stored.status == FindingStatus::Open {
                steps.extend(set_status(state, &stored, FindingStatus::Confirmed, author)?);
            }
            texts.push(done.text);
        }
        let text = match texts.as_slice() {
            [one] => one.clone(),
            many => format!("Blocked the clients of {}.", count(many.len() as u64, "finding")),
        };
        Ok(Done::new(text, steps))
    })
}

/// Allows the clients of the findings for good, and dismisses the findings.
pub(crate) fn allow_client(state: &mut State, ids: &[i64], author: &Author) -> Result<Done, PageError> {
    state.together(|state| {
        let (mut steps, mut texts) = (Vec::new(), Vec::new());
        for id in ids {
            let stored = known(state, *id)?;
            let reason = format!("finding {id} was a mistake");
            let network = stored.finding.client.limit_network();
            let (_, done) = super::allow(state, network, &reason, author)?;
            steps.extend(done.undo.into_iter().flat_map(|undo| undo.steps));
            steps.extend(set_status(state, &stored, FindingStatus::Dismissed, author)?);
            texts.push(done.text);
        }
        let text = match texts.as_slice() {
            [one] => one.clone(),
            many => format!("Allowed the clients of {}.", count(many.len() as u64, "finding")),
        };
        Ok(Done::new(text, steps))
    })
}

/// Lets a rule speak again.
pub(crate) fn remove_never(state: &mut State, id: i64, author: &Author) -> Result<Done, PageError> {
    state.together(|state| {
        let Some(never) = state.never(id)? else {
            return Err(PageError::NotFound(format!("There is no dismissal for good {id}.")));
        };
        match state.remove_never(id, &author.actor, author.now)? {
            true => Ok(Done::new(format!("The rule speaks again: {never}."), vec![Step::RestoreNever(id)])),
            false => Ok(Done::new(format!("\"never\" {id} had been taken back already."), Vec::new())),
        }
    })
}
