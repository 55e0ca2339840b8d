//! `portcullis export`: the blocks in force, as a list for another program. Must not know the formats.

use std::io::Write as _;

use clap::Args;

use portcullis_lists::{Format, Writable, write};
use portcullis_model::BlockSource;

use super::context::{Context, open_state};
use super::output::Screen;
use super::{Format as Output, Outcome};

const EXAMPLES: &str = "\
Examples:
  portcullis export > blocked.txt
  portcullis export --format csv --source detector
  portcullis export --format nginx > /etc/nginx/conf.d/deny.conf
  portcullis export --json | portcullis import - --data /srv/other

Only blocks in force. CSV and JSON keep when a block ends; the other two name it
in a comment. The lists of [[feed]] are not in it.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Export {
    /// plain, csv, json or nginx
    #[arg(long, value_name = "FORMAT", default_value = "plain", conflicts_with = "json")]
    format: Format,

    /// Only blocks that came from there: cli, console, config, detector or import; may be given more than once
    #[arg(long, value_name = "SOURCE", value_delimiter = ',')]
    source: Vec<BlockSource>,

    #[command(flatten)]
    output: Output,
}

impl Export {
    pub(super) fn run(self, context: &Context, screen: &mut Screen) -> anyhow::Result<Outcome> {
        let data = context.config()?.data;
        let mut blocks = match open_state(&data)? {
            None => Vec::new(),
            Some(state) => state.active_blocks(context.now)?,
        };
        blocks.retain(|block| self.source.is_empty() || self.source.contains(&block.source));
        let format = if self.output.json { Format::Json } else { self.format };
        let entries = blocks.iter().map(|block| Writable {
            network: block.network,
            reason: &block.reason,
            source: block.source.as_str(),
            created_at: block.created_at,
            expires: block.expires_at,
        });
        let mut text = Vec::new();
        write(format, entries, &mut text)?;
        text.flush()?;
        screen.script(&text)?;
        Ok(Outcome::Done)
    }
}
