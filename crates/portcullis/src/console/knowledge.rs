//! What the gateway knows of an address from others: where it is, and whether it is a crawler.
//! Must not know about pages, or send an address to a source of locations.

use std::time::{Duration, Instant};

use portcullis_admin::Knowledge;
use portcullis_admin::running::knowledge::{KnownCrawler, KnownPlace};
use portcullis_geo::Effort;
use portcullis_model::ClientIp;

use super::Backend;
use crate::app::wall_now;
use crate::bots::why;
use crate::geo::said;
use crate::sentence::sentence;

/// For one client, DNS included: as long as somebody may wait for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

impl Knowledge for Backend {
    fn place(&self, client: ClientIp) -> Result<KnownPlace, String> {
        let app = self.app()?;
        let said = said(&app.geo(), &app.config().data, client, Effort::KeptOnly, wall_now());
        let said = said.map_err(|error| sentence(&error))?;
        Ok(KnownPlace { location: said.location, says: said.says })
    }

    fn crawler(&self, client: ClientIp, user_agent: Option<&str>) -> Result<KnownCrawler, String> {
        let app = self.app()?;
        let bots = app.bots();
        let Some(agent) = user_agent else {
            let name = bots.owner(client).map(|name| name.to_string());
            let why = match &name {
                Some(bot) => format!("The address is in the networks of {bot}."),
                None => "The address is in no crawler's networks as they are known.".to_owned(),
            };
            return Ok(KnownCrawler { name, status: None, why });
        };
        Ok(match bots.explain(client, agent, Instant::now() + PATIENCE) {
            None => KnownCrawler {
                name: None,
                status: None,
                why: "bots.enabled is false: nobody is told apart.".to_owned(),
            },
            Some(explained) => KnownCrawler {
                why: why(&explained),
                status: Some(explained.judgement.status),
                name: explained.bot.map(|bot| bot.name.to_string()),
            },
        })
    }
}
