//! `portcullis health`: asks a running gateway whether it is ready, for containers and supervisors.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;

use portcullis_admin::ask_ready;
use portcullis_config::{ConfigErrors, parse_duration};

use super::Outcome;
use super::context::{Context, Misuse};
use super::output::{Screen, tell};

const EXAMPLES: &str = "\
Examples:
  portcullis health && echo ready
  HEALTHCHECK CMD [\"portcullis\", \"health\"]

Asks /readyz on the address that metrics.listen names; if the configuration has
mistakes, on the default one. Exit code 0: ready; 1: not ready, with the reason.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Health {
    /// How long an answer may take
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = span)]
    timeout: Duration,
}

fn span(text: &str) -> Result<Duration, String> {
    parse_duration(text)
        .filter(|span| !span.is_zero())
        .ok_or_else(|| format!("expected a time such as 500ms or 2s, got {text:?}"))
}

impl Health {
    pub(super) fn run(self, context: &Context, screen: &mut Screen) -> anyhow::Result<Outcome> {
        let Some(address) = address(context)? else {
            return Err(Misuse(
                "metrics.listen is \"off\" in the configuration, so the gateway has no place to ask; give it \
                 an address such as \"127.0.0.1:9611\""
                    .to_owned(),
            )
            .into());
        };
        match ask_ready(address, self.timeout) {
            Ok(()) => {
                screen.line("ready")?;
                Ok(Outcome::Done)
            }
            Err(error) => {
                tell("", &error.to_string());
                Ok(Outcome::Failed)
            }
        }
    }
}

/// Where the gateway answers. It goes on with its old configuration when the file is broken, so a
/// supervisor must not be told to end it for that.
fn address(context: &Context) -> anyhow::Result<Option<SocketAddr>> {
    match context.config() {
        Ok(config) => Ok(config.metrics),
        Err(error) if error.is::<ConfigErrors>() => {
            let address = context.defaults()?.metrics;
            let asked = address.map(|address| address.to_string()).unwrap_or_default();
            tell("warning: ", &format!("the configuration has mistakes; asking the default address {asked}"));
            Ok(address)
        }
        Err(error) => Err(error),
    }
}
