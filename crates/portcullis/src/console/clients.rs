//! Blocks, allows, findings and erasures: what may be done about a client, and what speaks against it.
//! Must not know about pages.

use std::net::IpAddr;

use ipnet::IpNet;
use portcullis_admin::running::clients::{AskedList, Clients, ReadList};
use portcullis_lists::{Format, Limits, Writable, write};
use portcullis_model::{Block, bare};
use portcullis_store::State;

use super::Backend;
use crate::import::{Defaults, List, guard};
use crate::objections::objections;

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
}
