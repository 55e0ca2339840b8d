//! What the gateway knows of an address from others: where it is, and whether it is a crawler.
//! Must not know how it is done.

use portcullis_detect::BotStatus;
use portcullis_model::{ClientIp, Location};

/// What the gateway knows of an address from others.
pub trait Knowledge: Send + Sync {
    /// Where an address is, and who says so. Nobody is asked.
    ///
    /// # Errors
    /// A sentence, here and below: the gateway is ending, or something cannot be read.
    fn place(&self, client: ClientIp) -> Result<KnownPlace, String>;

    /// Whether a client is the crawler that it says it is; without a user agent, in which crawler's networks it is.
    /// DNS may be asked, for some seconds.
    ///
    /// # Errors
    /// See above.
    fn crawler(&self, client: ClientIp, user_agent: Option<&str>) -> Result<KnownCrawler, String>;
}

/// Where an address is.
#[derive(Clone, Debug, Default)]
pub struct KnownPlace {
    pub location: Location,
    /// Files and sources in the order in which they count, with what each says.
    pub says: Vec<(String, Location)>,
}

/// What a client is of the crawlers.
#[derive(Clone, Debug)]
pub struct KnownCrawler {
    /// Which one it says it is, or in whose networks it is.
    pub name: Option<String>,
    /// `None`: nobody is told apart, or no user agent was given.
    pub status: Option<BotStatus>,
    /// What that rests on, in a sentence.
    pub why: String,
}
