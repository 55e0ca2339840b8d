//! TOML in, a validated [`Config`] out; [`diff`] says what a reload would change.
//!
//! Owns the names, defaults and limits of all settings. It is the only crate that knows `toml`, and must
//! not act on what it reads: opening sockets, databases and certificates is for others.

mod config;
mod diff;
mod error;
mod identity;
mod live;
mod load;
mod moment;
mod read;
mod schedule;
mod units;

pub use config::{
    Acme, AcmeCertificate, AcmeChallenge, Balance, BotSource, Bots, CertificateFiles, CircuitBreaker,
    ClientAuth, Config, Console, ConsoleUrl, ExternalAccount, Feed, FeedSource, GeoDownload, HealthCheck,
    HostHeader, Hsts, Pages, Privacy, Route, Server, Tasks, TlsListener, TlsVersion, Upstream,
    UpstreamServer,
};
pub use diff::{Diff, TakesEffect, diff, takes_effect};
pub use error::{ConfigError, ConfigErrors, MAX_ERRORS, Position};
pub use identity::{
    Identity, KeySetSettings, KeySetSource, LoginSettings, SessionSettings, TokenSettings, TokenSource,
};
pub use live::{
    LiveSetting, MAX_SETTING_BYTES, Overridden, SettingProblem, UnknownSetting, setting_list, setting_value,
};
pub use load::{FILE_NAME, FileStamp, Loaded, MAX_FILE_BYTES, Overrides, TEMPLATE, load, parse};
pub use moment::{Expiry, Moment};
pub use portcullis_model::Secret;
pub use schedule::{CronExpression, Schedule, ScheduleZone};
pub use units::{format_duration, format_size, parse_duration, parse_size};
