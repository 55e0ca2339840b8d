//! Whose data is meant, from what was typed.
//!
//! Owns telling addresses from names, and under which other addresses a client may be found.

use std::path::Path;

use clap::Args;
use portcullis_model::{ClientIp, UnixMs};
use portcullis_privacy::Kind;
use portcullis_store::Subject;

use crate::privacy::{current_key, lasting};

const MAX_NAME: usize = 128;

#[derive(Clone, Debug, Args)]
pub(crate) struct Whose {
    /// An address, or the name of a user as the log has it
    #[arg(value_name = "IP|USER", value_parser = name)]
    name: String,

    /// The name is a user's even if it looks like an address
    #[arg(long)]
    user: bool,
}

fn name(text: &str) -> Result<String, String> {
    match text.trim() {
        "" => Err("expected an address or a user's name".to_owned()),
        name if name.len() > MAX_NAME => {
            Err(format!("expected at most {MAX_NAME} bytes, got {}", name.len()))
        }
        name => Ok(name.to_owned()),
    }
}

impl Whose {
    pub(crate) fn of_client(client: ClientIp) -> Self {
        Self { name: client.to_string(), user: false }
    }

    /// The address; `None` for a user.
    pub(super) fn client(&self) -> Option<ClientIp> {
        if self.user { None } else { self.name.parse().ok() }
    }

    pub(super) fn is_address(&self) -> bool {
        self.client().is_some()
    }

    /// As it is shown and compared: an address in its one form.
    pub(super) fn text(&self) -> String {
        self.client().map_or_else(|| self.name.clone(), |client| client.to_string())
    }

    /// The subject; an address with its pseudonym of today, and that of its blocks.
    ///
    /// # Errors
    /// The lasting key cannot be read.
    pub(crate) fn subject(&self, data: &Path, now: UnixMs) -> anyhow::Result<Subject> {
        let Some(client) = self.client() else { return Ok(Subject::User(self.name.clone())) };
        let of_rows = current_key(data, now).map(|key| key.pseudonym(Kind::Row, client));
        let of_blocks = lasting::read(data)?.map(|key| key.pseudonym(Kind::Block, client));
        Ok(Subject::Address([Some(client), of_rows, of_blocks].into_iter().flatten().collect()))
    }
}
