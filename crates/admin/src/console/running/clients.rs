//! Blocks, allows, findings and erasures: what may be done about a client, and what speaks against it.
//! Must not know how it is done.

use std::io::Write;
use std::net::IpAddr;

use ipnet::IpNet;
use portcullis_model::{Block, ClientIp, UnixMs};
use portcullis_store::NewBlock;

/// What may be done about a client.
pub trait Clients: Send + Sync {
    /// Why blocking this would probably be a mistake, each as a clause. `visitor` is the address of whoever asks.
    fn objections(&self, network: &IpNet, visitor: IpAddr) -> Vec<String>;

    /// Reads a list of addresses: plain text, CSV, JSON or nginx.
    ///
    /// # Errors
    /// A sentence: it is no list, is too long, or the state cannot be read.
    fn read_list(&self, asked: &AskedList<'_>) -> Result<ReadList, String>;

    /// The blocks as a list for another program.
    ///
    /// # Errors
    /// A sentence: there is no such format.
    fn write_list(&self, format: &str, blocks: &[Block]) -> Result<Vec<u8>, String>;

    /// How a client stands that has sent these user agents.
    ///
    /// # Errors
    /// A sentence: the state cannot be read.
    fn standing(&self, client: ClientIp, agents: &[String]) -> Result<ClientStanding, String>;

    /// How much there is about a client: requests in the log, and other entries.
    ///
    /// # Errors
    /// A sentence: the log or the state cannot be read.
    fn kept_about(&self, client: ClientIp) -> Result<(u64, usize), String>;

    /// Erases everything about a client. Takes as long as the whole log takes to be read.
    ///
    /// # Errors
    /// A sentence: what could not be erased.
    fn erase(&self, client: ClientIp, actor: &str) -> Result<Erased, String>;

    /// Writes everything that is kept about a client as one JSON document.
    ///
    /// # Errors
    /// A sentence: something cannot be read, or `out` cannot be written.
    fn export(&self, client: ClientIp, out: &mut dyn Write) -> Result<(), String>;
}

/// How a client stands.
#[derive(Clone, Debug, Default)]
pub struct ClientStanding {
    /// Whether it is let in at this moment, in a sentence.
    pub now: String,
    /// Feeds that list it.
    pub feeds: Vec<String>,
    /// Rules that are silent about it, because a person has said so.
    pub silent: Vec<String>,
    /// Crawlers that it has named itself as, and whether it is them, in sentences.
    pub bots: Vec<String>,
}

/// What was erased.
#[derive(Clone, Debug, Default)]
pub struct Erased {
    pub requests: u64,
    /// Entries of the state that were deleted, and others of which a mention was taken out.
    pub entries: u64,
    pub blocks_lifted: usize,
    /// The receipt, which names nobody.
    pub receipt: String,
    /// Files of the data folder in which the address still stands.
    pub left_in: Vec<String>,
}

/// A list that somebody wants to import.
#[derive(Clone, Copy, Debug)]
pub struct AskedList<'a> {
    pub text: &'a [u8],
    /// For entries without one.
    pub reason: &'a str,
    /// For entries that do not say it themselves.
    pub expires_at: Option<UnixMs>,
    /// Also what is private, this machine's, a trusted proxy's, the visitor's, or very wide.
    pub is_forced: bool,
    pub visitor: IpAddr,
    pub now: UnixMs,
}

/// What is in a list.
#[derive(Clone, Debug, Default)]
pub struct ReadList {
    pub format: String,
    /// What there is to add.
    pub blocks: Vec<NewBlock>,
    /// Entries that have run out.
    pub expired: u64,
    /// Entries that must not be blocked by a list, and the first of them with the reason.
    pub refused: u64,
    pub refused_shown: Vec<String>,
    /// Lines that are no entries, and the first of them with their numbers and what is wrong.
    pub bad: u64,
    pub bad_shown: Vec<String>,
    /// `allow` lines of nginx, which are left out.
    pub allows: u64,
}
