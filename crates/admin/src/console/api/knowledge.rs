//! What the gateway knows of an address from others: where it is, and whether it is a crawler.
//! Must not ask anybody by itself.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use portcullis_detect::BotStatus;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::document::Api;
use super::input::{Params, Part};
use super::problem::Problem;
use super::requests::Place;
use super::words::{Address, Text};
use crate::console::error::PageError;
use crate::console::shared::Shared;

pub(super) fn add_to(api: Api) -> Api {
    api.add(__path_geo, geo).add(__path_crawler, crawler)
}

/// What one file or source says.
#[derive(Debug, Serialize, ToSchema)]
struct PlaceSaid {
    by: String,
    place: Place,
}

/// Where an address is, and who says so.
#[derive(Debug, Serialize, ToSchema)]
struct AddressPlace {
    ip: Address,
    place: Place,
    /// In the order in which they count: the first who knows something wins.
    says: Vec<PlaceSaid>,
}

/// Where an address is, and who says so
///
/// From the files, and from what sources have answered before; nobody is asked.
#[utoipa::path(get, path = "/geo/{ip}", tag = "clients", params(("ip" = Address, Path, description = "The address")),
    responses((status = 200, body = AddressPlace)))]
async fn geo(
    State(shared): State<Arc<Shared>>,
    Part(ip): Part<Address>,
) -> Result<Json<AddressPlace>, Problem> {
    let known = shared.blocking(move |shared| shared.running.place(ip.0).map_err(PageError::Failed)).await?;
    let says = known.says.into_iter();
    Ok(Json(AddressPlace {
        ip,
        place: known.location.into(),
        says: says.map(|(by, location)| PlaceSaid { by, place: location.into() }).collect(),
    }))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct CrawlerAsked {
    /// What the client calls itself; without it, in whose networks the address is.
    #[param(inline)]
    user_agent: Option<Text<512>>,
}

/// Whether a client is the crawler that it says it is.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum CrawlerStatus {
    /// It does not say that it is one.
    None,
    /// It says so, and nothing tells.
    Claimed,
    Verified,
    /// It is certainly not what it says.
    False,
}

impl From<BotStatus> for CrawlerStatus {
    fn from(status: BotStatus) -> Self {
        match status {
            BotStatus::None => Self::None,
            BotStatus::Claimed => Self::Claimed,
            BotStatus::Verified => Self::Verified,
            BotStatus::False => Self::False,
        }
    }
}

/// What a client is of the crawlers.
#[derive(Debug, Serialize, ToSchema)]
struct Crawler {
    ip: Address,
    /// Which one it says it is, or in whose networks it is.
    bot: Option<String>,
    /// None without a user agent, and where nobody is told apart.
    status: Option<CrawlerStatus>,
    /// What that rests on.
    why: String,
}

/// Whether a client is the crawler that it says it is
///
/// DNS may be asked, for some seconds.
#[utoipa::path(get, path = "/bots/{ip}", tag = "clients",
    params(("ip" = Address, Path, description = "The address"), CrawlerAsked),
    responses((status = 200, body = Crawler)))]
async fn crawler(
    State(shared): State<Arc<Shared>>,
    Part(ip): Part<Address>,
    Params(asked): Params<CrawlerAsked>,
) -> Result<Json<Crawler>, Problem> {
    let known = shared.blocking(move |shared| {
        let agent = asked.user_agent.as_ref().map(|agent| agent.0.as_str());
        shared.running.crawler(ip.0, agent).map_err(PageError::Failed)
    });
    let known = known.await?;
    Ok(Json(Crawler { ip, bot: known.name, status: known.status.map(CrawlerStatus::from), why: known.why }))
}
