//! `portcullis migrate`: brings the databases to the schema of this version, as every start of a gateway does.
//! Must not change what is in them.

use clap::Args;
use serde_json::json;

use portcullis_store::{Log, NoEnrichment, State, StoreError};

use super::context::Context;
use super::output::Screen;
use super::{Format, Outcome};

const EXAMPLES: &str = "\
Examples:
  portcullis migrate

A gateway does this by itself when it starts; by hand it shows beforehand that
it works. Makes the databases where there are none. Changes nothing while a
gateway of an older version runs; \"portcullis upgrade\" replaces that one.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Migrate {
    #[command(flatten)]
    format: Format,
}

impl Migrate {
    pub(super) fn run(self, context: &Context, screen: &mut Screen) -> anyhow::Result<Outcome> {
        let config = context.config()?;
        let is_in_use = match Log::start(&config.data, config.log.clone(), Box::new(NoEnrichment)) {
            Ok(log) => {
                log.shutdown();
                drop(State::open(&config.data)?);
                false
            }
            // A gateway has brought up to date what it uses. One of an older version could not go on with more.
            Err(StoreError::InUse(_)) => match State::open_read_only(&config.data) {
                Ok(_) | Err(StoreError::NoState(_)) => true,
                Err(error) => return Err(error.into()),
            },
            Err(error) => return Err(error.into()),
        };
        if self.format.json {
            screen.json(
                &json!({ "data": config.data, "is_up_to_date": true, "gateway_is_running": is_in_use }),
            )?;
            return Ok(Outcome::Done);
        }
        let by = if is_in_use { " The running gateway did it when it started." } else { "" };
        screen.line(&format!("The databases in {} are up to date.{by}", config.data.display()))?;
        Ok(Outcome::Done)
    }
}
