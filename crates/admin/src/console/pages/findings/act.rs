//! What people make of findings, of one or of many.
//! Must not know what a change does.

use std::str::FromStr;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Redirect;
use ipnet::IpNet;
use portcullis_detect::Never;
use portcullis_model::{FindingStatus, bare, reason_of};

use crate::console::actions::{self, ForGood};
use crate::console::error::PageError;
use crate::console::forms::{Change, Fields};
use crate::console::pages::blocks::expiry;
use crate::console::shared::Shared;
use crate::console::visitor::Visitor;

/// What a button does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    Judge(FindingStatus),
    Block,
    Allow,
}

impl FromStr for Deed {
    type Err = PageError;

    fn from_str(text: &str) -> Result<Self, PageError> {
        match text {
            "confirm" => Ok(Self::Judge(FindingStatus::Confirmed)),
            "dismiss" => Ok(Self::Judge(FindingStatus::Dismissed)),
            "reopen" => Ok(Self::Judge(FindingStatus::Open)),
            "block" => Ok(Self::Block),
            "allow" => Ok(Self::Allow),
            _ => Err(PageError::Invalid("The form does not say what to do with the findings.".to_owned())),
        }
    }
}

pub(super) async fn on_many(
    State(shared): State<Arc<Shared>>,
    Change { visitor, form }: Change<Vec<(String, String)>>,
) -> Result<Redirect, PageError> {
    let fields = Fields::new(form);
    let (ids, deed) = (fields.chosen()?, fields.text("deed").parse::<Deed>()?);
    let expires_at = match deed {
        Deed::Block => {
            refuse_what_is_ours(&shared, &visitor, &ids, fields.is_ticked("force")).await?;
            let expiry = expiry(fields.text("expires"), fields.text("until"), shared.now());
            expiry.map_err(|problem| PageError::Invalid(format!("The end of the block: {problem}.")))?
        }
        Deed::Judge(_) | Deed::Allow => None,
    };
    let done = shared
        .act(&visitor, move |state, author| match deed {
            Deed::Judge(status) => actions::judge(state, &ids, status, author),
            Deed::Block => actions::block_client(state, &ids, expires_at, author),
            Deed::Allow => actions::allow_client(state, &ids, author),
        })
        .await?;
    Ok(shared.notices.answer(&visitor, &fields, "/findings", done))
}

/// Addresses of this machine, of proxies and of the visitor are not blocked by a button.
async fn refuse_what_is_ours(
    shared: &Arc<Shared>,
    visitor: &Visitor,
    ids: &[i64],
    is_forced: bool,
) -> Result<(), PageError> {
    if is_forced {
        return Ok(());
    }
    let (ids, from) = (ids.to_vec(), visitor.from);
    let networks = shared
        .state(move |state| {
            let mut networks: Vec<IpNet> = Vec::new();
            for id in ids {
                let stored = state.finding(id)?.filter(|stored| stored.finding.user.is_none());
                networks.extend(stored.map(|stored| stored.finding.client.limit_network()));
            }
            Ok(networks)
        })
        .await?;
    let objection = shared
        .blocking(move |shared| {
            let mut all = networks.iter().filter_map(|network| {
                let objections = shared.running.objections(network, from);
                (!objections.is_empty()).then(|| (bare(network), objections.join("; ")))
            });
            Ok(all.next())
        })
        .await?;
    match objection {
        None => Ok(()),
        Some((network, why)) => Err(PageError::Conflict(format!(
            "Nobody was blocked, because of {network}: {why}. To block it all the same, use the form on the page of the \
             blocks."
        ))),
    }
}

/// Dismisses one finding, for a day or for good.
pub(super) async fn dismiss(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<i64>,
    Change { visitor, form }: Change<Vec<(String, String)>>,
) -> Result<Redirect, PageError> {
    let fields = Fields::new(form);
    let never = match fields.text("never") {
        "" => None,
        "client" => Some(Never::Client),
        "path" => Some(Never::Path),
        "rule" => Some(Never::Rule),
        other => {
            return Err(PageError::Invalid(format!(
                "Never again: expected client, path or rule, got {other:?}."
            )));
        }
    };
    let given = |name: &str| Some(fields.text(name).to_owned()).filter(|text| !text.is_empty());
    let note = reason_of(fields.text("note"))
        .map_err(|problem| PageError::Invalid(format!("The note: {problem}.")))?;
    let for_good = never.map(|never| ForGood {
        never,
        rule: given("rule"),
        path: given("path").filter(|_| never == Never::Path),
        note,
    });
    let done = shared
        .act(&visitor, move |state, author| match for_good {
            Some(for_good) => actions::dismiss_for_good(state, id, &for_good, author),
            None => actions::judge(state, &[id], FindingStatus::Dismissed, author),
        })
        .await?;
    Ok(shared.notices.answer(&visitor, &fields, &format!("/findings/{id}"), done))
}
