//! What a block would mean, while somebody is still typing.
//! Must not change anything.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::{Query, State};
use portcullis_model::{bare, network_of};
use portcullis_store::{Listing, LogFilter};
use serde::{Deserialize, Serialize};

use super::add::objections;
use crate::console::actions;
use crate::console::error::PageError;
use crate::console::shared::Shared;
use crate::console::visitor::Visitor;
use crate::console::words::{count, number};

/// Requests that are counted one by one; more are "more than".
const MAX_COUNTED: usize = 10_000;
/// How long they are counted.
const PATIENCE: Duration = Duration::from_millis(400);
const DAY: Duration = Duration::from_secs(86_400);
/// Blocks around or inside of it that are counted.
const MAX_BLOCKS: usize = 1_000;

#[derive(Deserialize)]
pub(super) struct Asked {
    #[serde(default)]
    network: String,
}

/// What there is to say, as text.
#[derive(Default, Serialize)]
pub(super) struct Check {
    /// What is wrong with the text.
    problem: Option<String>,
    says: Vec<String>,
    objections: Vec<String>,
}

pub(super) async fn check(
    State(shared): State<Arc<Shared>>,
    visitor: Visitor,
    Query(Asked { network }): Query<Asked>,
) -> Result<Json<Check>, PageError> {
    let network = match network_of(&network) {
        Ok(network) => network,
        Err(problem) => return Ok(Json(Check { problem: Some(problem), ..Check::default() })),
    };
    let objections = objections(&shared, &visitor, network).await?;
    let (now, config) = (shared.now(), shared.config());
    let filter = LogFilter { network: Some(network), since: Some(now.minus(DAY)), ..LogFilter::default() };
    let page =
        shared.log_if_any(move |log| log.page(&filter, None, MAX_COUNTED, Instant::now() + PATIENCE)).await?;
    let requests =
        page.map_or((0, true), |page| (page.rows.len() as u64, page.is_complete && page.next.is_none()));
    let mut says = vec![format!("{}: {}.", bare(&network), in_the_last_day(requests))];
    let (blocks, remarks) = shared
        .blocking(move |shared| {
            let state = portcullis_store::State::open_read_only(shared.data())?;
            let listing = Listing { text: network.to_string(), limit: MAX_BLOCKS, ..Listing::default() };
            Ok((state.list_blocks(&listing, now)?, actions::remarks(&state, &network, &config)?))
        })
        .await?;
    if let Some(stored) = blocks.iter().find(|stored| stored.block.network == network) {
        says.push(format!("Block {} is in force for it and would be replaced.", stored.block.id));
    } else if let Some(stored) = blocks.iter().find(|stored| stored.block.network.contains(&network)) {
        says.push(format!("Block {} of {} covers it already.", stored.block.id, bare(&stored.block.network)));
    } else if !blocks.is_empty() {
        says.push(format!("{} inside of it.", count(blocks.len() as u64, "block")));
    }
    says.extend(remarks);
    Ok(Json(Check { problem: None, says, objections }))
}

fn in_the_last_day((requests, is_all): (u64, bool)) -> String {
    match (requests, is_all) {
        (0, true) => "no request in the last 24 h".to_owned(),
        (n, true) => format!("{} in the last 24 h", count(n, "request")),
        (n, false) => format!("more than {} requests in the last 24 h", number(n)),
    }
}
