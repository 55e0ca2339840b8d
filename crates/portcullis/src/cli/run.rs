//! `portcullis run`: from the command line to the gateway.
//! Must not know how the gateway works; it is wired in `app`.

use clap::Args;

use portcullis_config::Overrides;

use super::Outcome;
use super::context::Context;
use crate::sentence::sentence;
use crate::serve;
use crate::upgrade::Predecessor;

const EXAMPLES: &str = "\
Examples:
  portcullis run --upstream http://127.0.0.1:8000
      in front of a site on port 8000, on safe defaults, on port 8080
  portcullis run --upstream http://127.0.0.1:8000 --listen 0.0.0.0:80 --dry-run
      refuses nobody yet; \"portcullis logs --verdict would_block\" shows whom it
      would
  portcullis run --config /etc/portcullis/portcullis.toml
      as configured; \"portcullis init\" writes such a file

Signals: SIGTERM and SIGINT let requests under way finish and end; SIGHUP reads
the configuration again. \"portcullis upgrade\" puts a new binary in its place.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Run {
    /// The site to protect: http://HOST:PORT, https://HOST or HOST:PORT; wins over the configuration
    #[arg(long, value_name = "URL", value_hint = clap::ValueHint::Url)]
    upstream: Option<String>,

    /// Where to listen for plain HTTP, in place of the configuration's addresses; may be repeated
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Vec<String>,

    /// Refuse nobody; record in the log what would have been refused
    #[arg(long)]
    dry_run: bool,

    /// Take the place of the gateway that started this process
    #[arg(long, hide = true)]
    take_over: bool,
}

impl Run {
    pub(super) fn run(self, context: &Context) -> anyhow::Result<Outcome> {
        let mut predecessor = if self.take_over { Some(Predecessor::meet()?) } else { None };
        let result = self.serve(context, &mut predecessor);
        if let (Err(error), Some(predecessor)) = (&result, &mut predecessor) {
            predecessor.failed(&sentence(error));
        }
        result.map(|()| Outcome::Done)
    }

    fn serve(self, context: &Context, predecessor: &mut Option<Predecessor>) -> anyhow::Result<()> {
        let mut overrides =
            Overrides { upstream: self.upstream, listen: self.listen, data: None, dry_run: self.dry_run };
        let loaded = context.load(&mut overrides)?;
        serve::run(loaded, overrides, predecessor)
    }
}
