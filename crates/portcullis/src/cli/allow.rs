//! `portcullis allow`, `disallow` and `allows`.
//! Must not tell a running gateway anything: it watches the database.

use clap::Args;
use ipnet::IpNet;
use serde_json::json;

use portcullis_model::{BlockSource, ClientIp, bare, network_of, reason_of};
use portcullis_store::State;

use super::block::because;
use super::context::{Context, actor, open_state};
use super::output::{Align, Cell, GREEN, Screen, Table, tell};
use super::{Format, Outcome};

const ALLOW_EXAMPLES: &str = "\
Examples:
  portcullis allow 198.51.100.7 --reason office
  portcullis allow 10.0.0.0/8 --reason \"our own network\"

An allow wins over every block, limit and finding, also over later ones. What it
lets in is still in the log, with the verdict \"allowed\".";

#[derive(Debug, Args)]
#[command(after_help = ALLOW_EXAMPLES)]
pub(super) struct Allow {
    /// The address or prefix, IPv4 or IPv6
    #[arg(value_name = "IP|CIDR", value_parser = network_of)]
    network: IpNet,

    /// Why, for "allows" and "why"
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true, value_parser = reason_of)]
    reason: String,

    #[command(flatten)]
    format: Format,
}

impl Allow {
    pub(super) fn run(self, context: &Context, screen: &mut Screen) -> anyhow::Result<Outcome> {
        let mut state = State::open_or_create(&context.config()?.data)?;
        let allow = state.add_allow(self.network, &self.reason, BlockSource::Cli, &actor(), context.now)?;
        let overruled = state.covering(ClientIp::new(allow.network.addr()), context.now)?;
        if self.format.json {
            screen.json(&json!({ "allow": allow, "overrules": overruled }))?;
            return Ok(Outcome::Done);
        }
        screen.line(&format!("Allowed {} (allow {}).", bare(&allow.network), allow.id))?;
        for block in overruled {
            screen.line(&format!(
                "It overrules block {} of {}{}.",
                block.id,
                bare(&block.network),
                because(&block.reason)
            ))?;
        }
        screen.line("In force at once if the gateway is running.")?;
        screen.line(&format!("Undo: {}", context.command(&format!("disallow {}", bare(&allow.network)))))?;
        if allow.network.prefix_len() == 0 {
            tell("warning: ", "it covers every address: no block and no limit has an effect now");
        }
        Ok(Outcome::Done)
    }
}

const DISALLOW_EXAMPLES: &str = "\
Examples:
  portcullis disallow 198.51.100.7

Takes exactly what was allowed. Blocks and limits hold for the address again;
nothing is blocked by this.";

#[derive(Debug, Args)]
#[command(after_help = DISALLOW_EXAMPLES)]
pub(super) struct Disallow {
    /// The address or prefix, as "allows" shows it
    #[arg(value_name = "IP|CIDR", value_parser = network_of)]
    network: IpNet,

    #[command(flatten)]
    format: Format,
}

impl Disallow {
    pub(super) fn run(self, context: &Context, screen: &mut Screen) -> anyhow::Result<Outcome> {
        let data = context.config()?.data;
        let (mut removed, mut wider) = (Vec::new(), Vec::new());
        if open_state(&data)?.is_some() {
            let mut state = State::open_or_create(&data)?;
            removed = state.remove_allow(&self.network, &actor(), context.now)?;
            wider = state.allows_covering(ClientIp::new(self.network.addr()))?;
            wider.retain(|allow| allow.network.contains(&self.network));
        }
        let outcome = if removed.is_empty() { Outcome::Nothing } else { Outcome::Done };
        if self.format.json {
            screen.json(&json!({ "removed": removed, "still_covered_by": wider }))?;
            return Ok(outcome);
        }
        for allow in &removed {
            screen.line(&format!(
                "{} is not allowed any more (allow {}{}). Blocks and limits hold for it again.",
                bare(&allow.network),
                allow.id,
                because(&allow.reason)
            ))?;
            screen.line("In force at once if the gateway is running.")?;
            if allow.source == BlockSource::Config {
                tell(
                    "warning: ",
                    "it is an [[allow]] of the configuration file and comes back with the next start or \
                     reload, unless it is removed there",
                );
            }
        }
        if removed.is_empty() {
            tell("", &format!("{} is not allowed by itself.", bare(&self.network)));
        }
        for allow in &wider {
            tell(
                "",
                &format!(
                    "allow {} of {} covers it{}; to remove it: {}",
                    allow.id,
                    bare(&allow.network),
                    because(&allow.reason),
                    context.command(&format!("disallow {}", bare(&allow.network)))
                ),
            );
        }
        Ok(outcome)
    }
}

const ALLOWS_EXAMPLES: &str = "\
Examples:
  portcullis allows
  portcullis allows --json";

#[derive(Debug, Args)]
#[command(after_help = ALLOWS_EXAMPLES)]
pub(super) struct Allows {
    #[command(flatten)]
    format: Format,
}

impl Allows {
    pub(super) fn run(self, context: &Context, screen: &mut Screen) -> anyhow::Result<Outcome> {
        let allows = match open_state(&context.config()?.data)? {
            Some(state) => state.allows()?,
            None => Vec::new(),
        };
        if self.format.json {
            screen.json(&allows)?;
            return Ok(Outcome::Done);
        }
        if allows.is_empty() {
            screen.line("No allows.")?;
            return Ok(Outcome::Done);
        }
        let mut table = Table::new(&[
            ("id", Align::Right),
            ("network", Align::Left),
            ("by", Align::Left),
            ("since", Align::Left),
            ("reason", Align::Left),
        ]);
        for allow in allows {
            table.row(vec![
                Cell::new(allow.id.to_string()),
                Cell::styled(bare(&allow.network), GREEN),
                Cell::new(allow.source.as_str()),
                Cell::new(context.short_time(allow.created_at)),
                Cell::new(&allow.reason),
            ]);
        }
        screen.table(&mut table)?;
        Ok(Outcome::Done)
    }
}
