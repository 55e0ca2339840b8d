//! The limits: the rules, what each has refused, and whom.
//! Must not count anything.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use portcullis_model::{UnixMs, VerdictKind};
use portcullis_policy::{LimitRule, RequestMatch};
use portcullis_store::{LimitEvent as StoredEvent, LimitEventCursor, LimitEventFilter, LimitTotal};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::document::Api;
use super::input::{Params, parsed};
use super::problem::Problem;
use super::words::{Address, Limit as Items, Page, Text, Time, Verdict};
use crate::console::shared::Shared;

/// Of what is counted unless asked otherwise.
const SPAN: Duration = Duration::from_secs(24 * 3_600);

pub(super) fn add_to(api: Api) -> Api {
    api.add(__path_list, list).add(__path_events, events)
}

/// What one rule did.
#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
struct Met {
    refused: u64,
    /// In a dry run.
    would_have_refused: u64,
    /// The minute of the last one.
    last: Option<Time>,
}

/// Which requests a rule means; what is empty does not matter.
#[derive(Debug, Serialize, ToSchema)]
struct Criteria {
    paths: Vec<String>,
    methods: Vec<String>,
    hosts: Vec<String>,
    identity: Vec<String>,
    countries: Vec<String>,
    asns: Vec<u32>,
    user_agents: Vec<String>,
    /// Also clients of which the place is not known.
    unknown_place: bool,
}

impl From<&RequestMatch> for Criteria {
    fn from(rule: &RequestMatch) -> Self {
        let country = |code: &[u8; 2]| code.iter().map(|letter| char::from(*letter)).collect();
        Self {
            paths: rule.paths.iter().map(|path| path.as_str().to_owned()).collect(),
            methods: rule.methods.iter().map(ToString::to_string).collect(),
            hosts: rule.hosts.iter().map(|host| host.as_str().to_owned()).collect(),
            identity: rule.identities.iter().map(ToString::to_string).collect(),
            countries: rule.countries.iter().map(country).collect(),
            asns: rule.asns.clone(),
            user_agents: rule.user_agents.iter().map(|pattern| pattern.as_str().to_owned()).collect(),
            unknown_place: rule.unknown_place,
        }
    }
}

/// A limit of the configuration.
#[derive(Debug, Serialize, ToSchema)]
struct LimitView {
    name: String,
    /// What it admits, as in `600/1m, burst 10/1s, 4 at once`.
    admits: String,
    /// What one request takes of it.
    cost: u32,
    /// Whose requests are counted together.
    key: String,
    /// `enforce`, or `dry-run`: it refuses nobody.
    mode: &'static str,
    applies_to: Criteria,
    /// What it did since `since`.
    events: Met,
}

/// The limits, in the order in which they are asked.
#[derive(Debug, Serialize, ToSchema)]
struct Limits {
    /// Of the gateway as a whole: `enforce`, or `dry-run`.
    mode: &'static str,
    since: Time,
    items: Vec<LimitView>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Asked {
    /// From when on what they refused is counted; without it, the last 24 hours.
    since: Option<Time>,
}

/// The limits, and what they have refused
#[utoipa::path(get, path = "/limits", tag = "limits", params(Asked), responses((status = 200, body = Limits)))]
async fn list(
    State(shared): State<Arc<Shared>>,
    Params(asked): Params<Asked>,
) -> Result<Json<Limits>, Problem> {
    let since = asked.since.map_or_else(|| shared.now().minus(SPAN), |since| since.0);
    let met = met(shared.state(move |state| state.limit_totals(since)).await?);
    let config = shared.config();
    let view = |rule: &Arc<LimitRule>| LimitView {
        name: rule.name.to_string(),
        admits: rule.allowance(),
        cost: rule.cost,
        key: rule.key.to_string(),
        mode: config.mode.and(rule.mode).as_str(),
        applies_to: Criteria::from(&rule.applies_to),
        events: met.get(&*rule.name).copied().unwrap_or_default(),
    };
    let items = config.limits.iter().map(view).collect();
    Ok(Json(Limits { mode: config.mode.as_str(), since: Time(since), items }))
}

fn met(totals: Vec<LimitTotal>) -> HashMap<String, Met> {
    let mut rules: HashMap<String, Met> = HashMap::new();
    for total in totals {
        let met = rules.entry(total.rule).or_default();
        match total.action {
            VerdictKind::WouldLimit => met.would_have_refused += total.count,
            _ => met.refused += total.count,
        }
        met.last = met.last.max(Some(Time(total.last)));
    }
    rules
}

/// A client that met a limit within one minute.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LimitEvent {
    /// The address that the limit counts by: of an IPv6 client its /64.
    client: Address,
    rule: String,
    /// What of the limit was used up, as the configuration had it: `3/5m`, `burst 10/1s`, `4 at once`.
    bound: String,
    /// The path, or `*` for those beyond what is kept one by one.
    endpoint: String,
    /// The beginning of the minute.
    minute: Time,
    /// Requests in that minute.
    count: u64,
    /// `limited`, or `would_limit` in a dry run.
    action: Verdict,
}

impl From<StoredEvent> for LimitEvent {
    fn from(event: StoredEvent) -> Self {
        Self {
            client: Address(event.client),
            rule: event.rule,
            bound: event.bound,
            endpoint: event.endpoint,
            minute: Time(event.minute),
            count: event.count,
            action: Verdict(event.action),
        }
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct EventsAsked {
    /// Not before; without it, the last 24 hours.
    since: Option<Time>,
    /// Of this limit only.
    #[param(inline)]
    rule: Option<Text<128>>,
    /// Of this client only; of IPv6, its /64.
    client: Option<Address>,
    /// `next` of the page before.
    #[serde(default, deserialize_with = "parsed")]
    #[param(value_type = Option<String>, pattern = "^[0-9]{1,18}-[0-9]{1,9}$")]
    cursor: Option<LimitEventCursor>,
    #[serde(default)]
    limit: Items,
}

/// Who met which limit, newest first
#[utoipa::path(get, path = "/limits/events", tag = "limits", params(EventsAsked),
    responses((status = 200, body = Page<LimitEvent>)))]
async fn events(
    State(shared): State<Arc<Shared>>,
    Params(asked): Params<EventsAsked>,
) -> Result<Json<Page<LimitEvent>>, Problem> {
    let since: UnixMs = asked.since.map_or_else(|| shared.now().minus(SPAN), |since| since.0);
    let filter = LimitEventFilter {
        since,
        rule: asked.rule.map(|text| text.0),
        client: asked.client.map(|client| client.0),
    };
    let (cursor, limit) = (asked.cursor, asked.limit.get());
    let (events, next) = shared.state(move |state| state.limit_events_page(&filter, cursor, limit)).await?;
    Ok(Json(Page {
        items: events.into_iter().map(LimitEvent::from).collect(),
        next: next.map(|next| next.to_string()),
    }))
}
