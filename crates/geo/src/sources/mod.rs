//! HTTP sources of locations: who they are, what they are asked for, and what a run of the gateway hands in.
//!
//! Owns the settings and the seams. Must not open a socket or a database: both are handed in.

mod answer;
mod ask;
mod health;
mod stats;
mod worker;

use std::time::Duration;

use portcullis_model::{ClientIp, Location, Secret, UnixMs};

pub use ask::{Asked, Effort, Outcome, SourceReport, ask};
pub use health::{Circuit, MAX_LEFT_ALONE, SourceState, Unavailable};
pub use stats::{AnswerKind, SourceStats};
pub(crate) use worker::Questions;
pub use worker::{MAX_WAITING, OnLocation, Parts, SourcesThread};

/// A service that is asked over HTTP. What is sent to it is the client's address: a third party hears of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SourceKind {
    IpapiCo,
    IpinfoIo,
}

impl SourceKind {
    pub const ALL: [Self; 2] = [Self::IpapiCo, Self::IpinfoIo];

    /// The name in the configuration, the database and the metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::IpapiCo => "ipapi.co",
            Self::IpinfoIo => "ipinfo.io",
        }
    }

    /// The kind of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    /// Where the service is.
    pub fn url(self) -> &'static str {
        match self {
            Self::IpapiCo => "https://ipapi.co",
            Self::IpinfoIo => "https://ipinfo.io",
        }
    }
}

/// One source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceSettings {
    pub kind: SourceKind,
    /// What comes before `/ADDRESS/json`, without a slash at its end.
    pub url: String,
    pub token: Option<Secret>,
    /// Requests in a day (UTC); `None` is no bound.
    pub daily: Option<u32>,
    /// Requests in a calendar month (UTC); `None` is no bound.
    pub monthly: Option<u32>,
    pub timeout: Duration,
    /// How long the source is left alone after it has failed three times in a row; doubles with each further
    /// failure, up to [`MAX_LEFT_ALONE`].
    pub retry: Duration,
}

/// A part of a location that can be wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Field {
    Country,
    City,
    Region,
    Position,
    Asn,
    Isp,
}

impl Field {
    pub const ALL: [Self; 6] =
        [Self::Country, Self::City, Self::Region, Self::Position, Self::Asn, Self::Isp];

    /// The word that the configuration uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Country => "country",
            Self::City => "city",
            Self::Region => "region",
            Self::Position => "position",
            Self::Asn => "asn",
            Self::Isp => "isp",
        }
    }

    pub fn is_in(self, location: &Location) -> bool {
        match self {
            Self::Country => location.country.is_some(),
            Self::City => location.city.is_some(),
            Self::Region => location.region.is_some(),
            Self::Position => location.latitude.is_some(),
            Self::Asn => location.asn.is_some(),
            Self::Isp => location.isp.is_some(),
        }
    }
}

/// A question to a source, as it is sent. Holds the token, so it cannot be printed.
pub struct Ask {
    pub url: String,
    /// The value of the `Authorization` header.
    pub authorization: Option<Secret>,
    pub timeout: Duration,
    /// A longer body is an error.
    pub max_bytes: u64,
}

/// What came back, whatever its status.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    pub status: u16,
    /// The header `Retry-After` as it was sent.
    pub retry_after: Option<String>,
    pub body: Vec<u8>,
}

/// Carries questions to sources. The error is one sentence.
pub trait Transport: Send {
    fn send(&mut self, ask: &Ask) -> Result<Reply, String>;
}

/// What one source said about one address.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub source: SourceKind,
    /// Unknown when the source does not know the address.
    pub location: Location,
    pub fetched_at: UnixMs,
}

/// Keeps answers and the state of sources across restarts, for all processes. The errors are one sentence.
pub trait Shelf: Send {
    /// What sources said about an address, whatever its age.
    fn answers(&mut self, client: ClientIp) -> Result<Vec<Answer>, String>;
    fn keep(&mut self, client: ClientIp, answer: &Answer) -> Result<(), String>;
    fn source(&mut self, kind: SourceKind) -> Result<SourceState, String>;
    /// Changes the state of a source; no other process changes it in between.
    fn change_source(
        &mut self,
        kind: SourceKind,
        change: &mut dyn FnMut(&mut SourceState),
    ) -> Result<(), String>;
    /// Addresses about which another process has kept an answer after `after`, each with the time of its
    /// newest answer. May be empty when nothing has changed since the last call.
    fn news(&mut self, after: UnixMs) -> Result<Vec<(ClientIp, UnixMs)>, String>;
    /// Bounds what is kept. Called now and then.
    fn trim(&mut self) -> Result<(), String>;
}

/// What is missing in a location of what is wanted.
pub(crate) fn is_missing(wanted: &[Field], location: &Location) -> bool {
    wanted.iter().any(|field| !field.is_in(location))
}
