//! Blocks, allows, findings and erasures: what may be done about a client, and what speaks against it.
//! Must not know about pages.

use std::io::Write;
use std::net::IpAddr;

use ipnet::IpNet;
use portcullis_admin::running::clients::{AskedList, ClientStanding, Clients, Erased, ReadList};
use portcullis_lists::{Format, Limits, Writable, write};
use portcullis_model::{Block, ClientIp, bare};
use portcullis_store::State;

use super::Backend;
use crate::app::wall_now;
use crate::cli::privacy::{self, Whose};
use crate::cli::why;
use crate::import::{Defaults, List, guard};
use crate::objections::objections;
use crate::sentence::sentence;

/// Entries of one list from the console; longer ones are for the command.
const MAX_ENTRIES: usize = 100_000;

impl Clients for Backend {
    fn objections(&self, network: &IpNet, visitor: IpAddr) -> Vec<String> {
        match self.app() {
            Ok(app) => objections(network, &app.config(), Some(visitor)),
            Err(ending) => vec![ending],
        }
    }

    fn read_list(&self, asked: &AskedList<'_>) -> Result<ReadList, String> {
        let config = self.app()?.config();
        // Bad lines are told of one by one; whether they matter is for the person.
        let limits = Limits { max_entries: MAX_ENTRIES, max_bad: 1.0 };
        let list = List::read(Format::detect(asked.text), asked.text, limits)
            .map_err(|error| format!("The list cannot be read: {error}."))?;
        let guard = match asked.is_forced {
            true => None,
            false => {
                let unreadable = |error| format!("The allows cannot be read: {error}.");
                let state = State::open_read_only(&config.data).map_err(unreadable)?;
                Some(guard(&config, Some(&state), Some(asked.visitor)).map_err(unreadable)?)
            }
        };
        let defaults = Defaults { reason: asked.reason, expires_at: asked.expires_at };
        let sorted = list.sort(guard.as_ref(), &defaults, asked.now);
        let refused = sorted.refused_shown.iter().map(|(network, why)| format!("{}: {why}", bare(network)));
        Ok(ReadList {
            expired: sorted.expired,
            refused: sorted.refused(),
            refused_shown: refused.collect(),
            bad: list.summary.bad,
            bad_shown: list.summary.shown.iter().map(ToString::to_string).collect(),
            allows: list.summary.allows,
            format: list.format,
            blocks: sorted.blocks,
        })
    }

    fn write_list(&self, format: &str, blocks: &[Block]) -> Result<Vec<u8>, String> {
        let format: Format = format.parse()?;
        let entries = blocks.iter().map(|block| Writable {
            network: block.network,
            reason: &block.reason,
            source: block.source.as_str(),
            created_at: block.created_at,
            expires: block.expires_at,
        });
        let mut text = Vec::new();
        write(format, entries, &mut text).map_err(|error| error.to_string())?;
        Ok(text)
    }

    fn standing(&self, client: ClientIp, agents: &[String]) -> Result<ClientStanding, String> {
        let app = self.app()?;
        let why::Stands { now, feeds, silent, bots } =
            why::stands(client, agents, &app.config(), &Self::context(&app))
                .map_err(|error| sentence(&error))?;
        let feeds = feeds.iter().map(ToString::to_string).collect();
        Ok(ClientStanding { now, feeds, silent, bots })
    }

    fn kept_about(&self, client: ClientIp) -> Result<(u64, usize), String> {
        let data = &self.app()?.config().data;
        let counted = || {
            let subject = Whose::of_client(client).subject(data, wall_now())?;
            privacy::counts(data, Some(&State::open_read_only(data)?), &subject)
        };
        counted().map_err(|error| sentence(&error))
    }

    fn erase(&self, client: ClientIp, actor: &str) -> Result<Erased, String> {
        let config = self.app()?.config();
        let receipt = privacy::erase(&config, &Whose::of_client(client), false, (actor, wall_now()))
            .map_err(|error| sentence(&error))?;
        let rows = |tables: &[(String, u64)]| tables.iter().map(|(_, rows)| rows).sum::<u64>();
        Ok(Erased {
            requests: receipt.log.requests,
            entries: rows(&receipt.state.deleted) + rows(&receipt.state.altered),
            blocks_lifted: receipt.blocks_lifted,
            left_in: receipt.left_in.iter().map(|file| file.display().to_string()).collect(),
            receipt: receipt.subject_hash,
        })
    }

    fn export(&self, client: ClientIp, out: &mut dyn Write) -> Result<(), String> {
        let data = &self.app()?.config().data;
        privacy::write(&Whose::of_client(client), data, wall_now(), out).map_err(|error| sentence(&error))
    }
}
