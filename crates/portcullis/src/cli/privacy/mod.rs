//! `portcullis privacy`: answers people who ask for their data, or want it gone.
//! Must not decide what is logged: the configuration does.

mod erase;
mod export;
mod files;
mod opt_out;
mod subject;

use clap::{Args, Subcommand};

pub(crate) use erase::erase;
pub(crate) use export::{counts, write};
pub(crate) use subject::Whose;

use super::Outcome;
use super::context::Context;
use super::output::Screen;

const EXAMPLES: &str = "\
Examples:
  portcullis privacy export 203.0.113.9 --out alice.json
  portcullis privacy export alice@example.com --format csv --out alice/
  portcullis privacy erase 203.0.113.9 --yes
  portcullis privacy opt-out 203.0.113.9

docs/PRIVACY.md says what is kept where, and how to answer a request.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Privacy {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Write down everything that is kept about an address or a user
    Export(export::Export),
    /// Erase everything about an address or a user, with a receipt
    Erase(erase::Erase),
    /// Log an address or a user without name from now on
    OptOut(opt_out::OptOut),
    /// List who has opted out, as hashes
    OptOuts(opt_out::OptOuts),
}

impl Privacy {
    pub(super) fn run(self, context: &Context, screen: &mut Screen) -> anyhow::Result<Outcome> {
        match self.action {
            Action::Export(command) => command.run(context, screen),
            Action::Erase(command) => command.run(context, screen),
            Action::OptOut(command) => command.run(context, screen),
            Action::OptOuts(command) => command.run(context, screen),
        }
    }
}
