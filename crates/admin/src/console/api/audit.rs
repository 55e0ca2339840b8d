//! The audit trail: who changed what, when and from where.
//! Must not change anything.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use portcullis_store::{AuditEntry, AuditFilter};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::document::Api;
use super::input::{Params, parsed};
use super::problem::Problem;
use super::words::{Limit, Page, Text, Time};
use crate::console::shared::Shared;

pub(super) fn add_to(api: Api) -> Api {
    api.add(__path_list, list)
}

/// Which entries. Everything that is given must hold.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Asked {
    /// What the actor begins with: `console:`, `api:backup`.
    #[param(inline)]
    actor: Option<Text<128>>,
    /// Such as `block`, `unblock`, `allow`, `set`, `finding`.
    #[param(inline)]
    action: Option<Text<64>>,
    /// `next` of the page before.
    #[serde(default, deserialize_with = "parsed")]
    #[param(value_type = Option<String>, pattern = "^[0-9]{1,18}$")]
    cursor: Option<i64>,
    #[serde(default)]
    limit: Limit,
}

/// Something that somebody did.
#[derive(Debug, Serialize, ToSchema)]
struct Entry {
    id: i64,
    at: Time,
    actor: String,
    action: String,
    /// What it was done to: a network, a setting's name, a finding's number.
    subject: String,
    detail: String,
    /// The address that it was done from; none for the command line and the gateway itself.
    origin: Option<String>,
}

impl From<AuditEntry> for Entry {
    fn from(entry: AuditEntry) -> Self {
        let AuditEntry { id, at, actor, action, subject, detail, origin } = entry;
        Self { id, at: Time(at), actor, action, subject, detail, origin }
    }
}

/// Who changed what, newest first
#[utoipa::path(get, path = "/audit", tag = "gateway", params(Asked), responses((status = 200, body = Page<Entry>)))]
async fn list(
    State(shared): State<Arc<Shared>>,
    Params(asked): Params<Asked>,
) -> Result<Json<Page<Entry>>, Problem> {
    let limit = asked.limit;
    let filter = AuditFilter {
        actor: asked.actor.map(|actor| actor.0),
        action: asked.action.map(|action| action.0),
        before: asked.cursor,
    };
    let found = shared.state(move |state| state.audit_page(&filter, limit.get() + 1)).await?;
    Ok(Json(Page::of(found, limit, |entry| entry.id, Entry::from)))
}
