//! `portcullis demo`: the gateway at work, without a site and without visitors of one's own.

use std::net::SocketAddr;

use clap::Args;

use super::Outcome;
use super::context::Context;
use crate::demo_run;

const EXAMPLES: &str = "\
Examples:
  portcullis demo
      until Ctrl-C
  portcullis demo --seconds 60
      ends by itself; exit code 0 only if attackers were blocked and no visitor
      was refused
  portcullis demo --data /tmp/demo
      keeps the databases, for \"portcullis logs\", \"why\" and \"suspicious\"
      afterwards
  portcullis demo --site 127.0.0.1:8000
      the sample site alone, to put a gateway of your own in front of it";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Demo {
    /// End after so many seconds
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    seconds: Option<u64>,

    /// Run the sample site alone on this address, without a gateway
    #[arg(long, value_name = "ADDRESS", conflicts_with = "seconds")]
    site: Option<SocketAddr>,
}

impl Demo {
    pub(super) fn run(self, context: &Context) -> anyhow::Result<Outcome> {
        if let Some(address) = self.site {
            demo_run::run_site(address)?;
            return Ok(Outcome::Done);
        }
        let went_well = demo_run::run(self.seconds, context.named_data().map(ToOwned::to_owned))?;
        Ok(if went_well { Outcome::Done } else { Outcome::Failed })
    }
}
