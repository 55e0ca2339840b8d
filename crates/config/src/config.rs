//! The validated configuration: addresses, durations and patterns, no text that is left to be parsed.
//! Plain data. Must not read files or know TOML.

use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use portcullis_model::Secret;
use portcullis_policy::{AccessRule, ClientIpSource, HostPattern, LimitRule, Mode, PathPattern};
use portcullis_privacy::{Anonymise, SecretNames};
use portcullis_store::LogSettings;

use crate::identity::Identity;
use crate::live::LiveSetting;
use crate::schedule::{Schedule, ScheduleZone};

/// Everything that one run of the gateway is told. Paths are absolute or relative to the working
/// directory; those of a file have already been resolved against the file's folder.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub mode: Mode,
    /// The folder of `log.db` and `state.db`.
    pub data: PathBuf,
    pub server: Server,
    /// Certificates that the gateway gets by itself; `None` when no listener asks for any.
    pub acme: Option<Acme>,
    /// At least one. Without routes all requests go to the first.
    pub upstreams: Vec<Upstream>,
    /// In the order of the file; the most specific host, then the most specific path wins.
    pub routes: Vec<Route>,
    pub identity: Identity,
    pub limits: Vec<Arc<LimitRule>>,
    /// In the order of the file; the first that matches decides.
    pub access: Vec<Arc<AccessRule>>,
    /// Canonical and without duplicates, each with its reason.
    pub blocks: Vec<(IpNet, String)>,
    /// Canonical and without duplicates, each with its reason.
    pub allows: Vec<(IpNet, String)>,
    /// Lists of addresses to block that others publish; at most [`portcullis_policy::MAX_FEEDS`].
    pub feeds: Vec<Feed>,
    pub log: LogSettings,
    pub privacy: Privacy,
    pub geo: portcullis_geo::Settings,
    /// No file is written by two of them.
    pub geo_downloads: Vec<GeoDownload>,
    /// In force: the file's, and what people have changed while the gateway runs.
    pub detection: portcullis_detect::Settings,
    /// As the file has them.
    pub detection_in_file: portcullis_detect::Settings,
    /// Settings that have another value than the file's, ascending.
    pub overridden: Vec<LiveSetting>,
    pub bots: Bots,
    /// What people are told of, and how.
    pub alerts: portcullis_notify::Settings,
    /// Where `/metrics`, `/healthz` and `/readyz` are served; `None` is off.
    pub metrics: Option<SocketAddr>,
    /// `None` is off.
    pub console: Option<Console>,
    pub pages: Pages,
    pub tasks: Tasks,
}

/// The listeners, and what every client is held to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Plain HTTP. No address is here or in `tls` or `metrics` twice.
    pub listen: Vec<SocketAddr>,
    pub tls: Vec<TlsListener>,
    /// Worker threads, at least 1: "one per core" is already resolved.
    pub threads: usize,
    /// Those of the addresses here and in `tls` at which each connection begins with a PROXY header.
    pub proxy_protocol: Vec<SocketAddr>,
    /// Peers whose forwarding header is believed.
    pub trusted_proxies: Vec<IpNet>,
    pub client_ip: ClientIpSource,
    /// Where plain requests are sent instead of being served: https on this port of the same host.
    pub redirect_to_https: Option<u16>,
    /// What answers over https say about the future (RFC 6797); `None` is nothing.
    pub hsts: Option<Hsts>,
    /// Whether the upstream also gets `Forwarded` (RFC 7239).
    pub forwarded_header: bool,
    /// How long open requests may take to finish after SIGTERM.
    pub grace_period: Duration,
    /// How long what is open may go on in the old process after `portcullis upgrade`, WebSockets included.
    pub drain_timeout: Duration,
    /// Bytes of a request body, 413 above; `None` is no limit.
    pub max_body: Option<u64>,
    /// Bytes of the request line and all headers, 431 above.
    pub max_head: usize,
    /// Header lines, 431 above.
    pub max_headers: usize,
    /// Bytes of path and query, 414 above.
    pub max_uri: usize,
    /// Whether `%2f` in a path is forwarded instead of refused; rules read it as a slash.
    pub escaped_slashes: bool,
    /// From the first byte of a head to its last.
    pub head_timeout: Duration,
    /// How long an idle connection is kept.
    pub keepalive_timeout: Duration,
    /// How long a client may pause in the middle of a body, whichever way it goes.
    pub body_timeout: Duration,
    /// Bytes per second that a client must send of a body or take of an answer on average; 0 is no bound.
    pub min_rate: u64,
    /// Connections from clients that may be open at once, at least 1.
    pub max_connections: usize,
    /// Connections that one client (an IPv4 address, an IPv6 /64) may have open; `None` is no bound.
    pub max_connections_per_client: Option<u32>,
    /// Connections that may wait for their clients in the middle of a body at once, at least 1.
    pub max_stalled: usize,
}

/// Where people look at the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Console {
    /// A loopback address unless there is a certificate.
    pub listen: SocketAddr,
    /// What it speaks TLS with; `None` is plain HTTP.
    pub certificate: Option<CertificateFiles>,
    /// The address that people type, besides the one that it listens on.
    pub url: Option<ConsoleUrl>,
    /// How long a session may be unused.
    pub idle_timeout: Duration,
    /// How long a session may last.
    pub session_timeout: Duration,
}

impl Console {
    /// The address to type into a browser when it listens there; no slash at the end.
    pub fn base_url(&self, listen: SocketAddr) -> String {
        let scheme = |is_https| if is_https { "https" } else { "http" };
        match &self.url {
            Some(url) => format!("{}://{}", scheme(url.is_https), url.authority),
            None => format!("{}://{listen}", scheme(self.certificate.is_some())),
        }
    }
}

/// Scheme, host and port of the console, as a browser names them in `Origin`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsoleUrl {
    pub is_https: bool,
    /// Lower case, with the port where it is not the scheme's own.
    pub authority: String,
}

/// `Strict-Transport-Security` (RFC 6797).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hsts {
    /// How long browsers use https alone; whole seconds. Zero makes them forget.
    pub max_age: Duration,
    /// Whether the hosts below this one are meant too.
    pub subdomains: bool,
    /// Whether browsers may ship with it.
    pub preload: bool,
}

/// A listener that speaks TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsListener {
    pub listen: SocketAddr,
    /// Whether HTTP/2 is offered beside HTTP/1.1.
    pub http2: bool,
    /// At least one here or in `acme`; the first is used when no name matches.
    pub certificates: Vec<CertificateFiles>,
    /// Certificates that the gateway gets by itself.
    pub acme: Vec<AcmeCertificate>,
    pub min_version: TlsVersion,
    /// Whether clients are asked for a certificate; `None` is no.
    pub client_auth: Option<ClientAuth>,
}

/// The oldest protocol that a client may speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsVersion {
    #[default]
    V1_2,
    V1_3,
}

impl TlsVersion {
    pub const ALL: [Self; 2] = [Self::V1_2, Self::V1_3];

    /// The word that the file uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V1_2 => "1.2",
            Self::V1_3 => "1.3",
        }
    }
}

/// Certificates of clients (mTLS).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientAuth {
    /// PEM certificates of the authorities whose clients are let in.
    pub authorities: PathBuf,
    /// Whether a client without a certificate is refused in the handshake. A wrong certificate always is.
    pub required: bool,
}

/// A certificate chain and its private key, both PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// A certificate that an authority issues to the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcmeCertificate {
    /// A DNS name, lower case.
    pub name: String,
    /// Where its chain and its key are kept. Not there before the first one has been issued.
    pub file: PathBuf,
}

/// How certificates are got from an authority (ACME, RFC 8555).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acme {
    /// The URL of the authority's directory, https.
    pub directory: String,
    /// Mail addresses, without `mailto:`.
    pub contact: Vec<String>,
    pub challenge: AcmeChallenge,
    /// PEM certificates to trust instead of the system's when talking to the authority.
    pub directory_ca: Option<PathBuf>,
    /// What ties the account to a customer of the authority, where it wants that (RFC 8555, 7.3.4).
    pub external_account: Option<ExternalAccount>,
    /// The wait after a first failure; it doubles with each further one.
    pub retry: Duration,
    /// Where accounts, keys and certificates are kept.
    pub folder: PathBuf,
    /// Every name once, each with its file.
    pub certificates: Vec<AcmeCertificate>,
}

/// A customer's key at the authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalAccount {
    pub key_id: String,
    /// The file of the HMAC key, base64url. A file, so that the secret is in no configuration.
    pub key_file: PathBuf,
}

/// How the gateway proves that a name is its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum AcmeChallenge {
    /// A file at port 80 (RFC 8555, 8.3).
    #[default]
    Http01,
    /// A handshake at port 443 (RFC 8737).
    TlsAlpn01,
}

impl AcmeChallenge {
    pub const ALL: [Self; 2] = [Self::Http01, Self::TlsAlpn01];

    /// The word that the file uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http01 => "http-01",
            Self::TlsAlpn01 => "tls-alpn-01",
        }
    }
}

/// A pool of servers that serve the same site.
#[derive(Clone, Debug, PartialEq)]
pub struct Upstream {
    /// Unique.
    pub name: Arc<str>,
    /// At least one, none twice.
    pub servers: Vec<UpstreamServer>,
    pub balance: Balance,
    pub connect_timeout: Duration,
    /// Between two reads from the server, the wait for its answer included.
    pub read_timeout: Duration,
    /// Between two writes to the server.
    pub write_timeout: Duration,
    /// How long an unused connection to the server is kept.
    pub idle_timeout: Duration,
    /// Whether the server's certificate must be valid.
    pub tls_verify: bool,
    /// The name to ask for and to verify; `None` is the host of the server's URL.
    pub tls_name: Option<String>,
    /// PEM certificates to trust instead of the system's.
    pub tls_ca: Option<PathBuf>,
    pub host_header: HostHeader,
    /// Failures in a row that take a server out while another one is there; 0 is never.
    pub max_fails: usize,
    /// No more than this between the first and the last of them; a server is then out for as long.
    pub fail_timeout: Duration,
    /// Whether an answer of 500 and above is a failure, as no answer is.
    pub fail_on_5xx: bool,
    /// The most requests that one server gets at once, at least 1; `None` is no limit.
    pub max_connections: Option<usize>,
    /// The most requests that wait while all servers are full.
    pub queue: usize,
    /// The longest that one of them waits.
    pub queue_timeout: Duration,
    /// How long a server that comes back or joins takes to its whole share; zero is no time.
    pub slow_start: Duration,
    /// Active checks; `None` is off.
    pub health: Option<HealthCheck>,
    /// When the whole pool is left alone; `None` is never.
    pub breaker: Option<CircuitBreaker>,
}

/// One server of a pool.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UpstreamServer {
    /// A lower-case name or an address; IPv6 without brackets.
    pub host: String,
    pub port: u16,
    pub tls: bool,
    /// Its share relative to the other servers, at least 1.
    pub weight: usize,
}

impl fmt::Display for UpstreamServer {
    /// `http://host:port`, as it can be written in the file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        match self.host.contains(':') {
            true => write!(f, "{scheme}://[{}]:{}", self.host, self.port),
            false => write!(f, "{scheme}://{}:{}", self.host, self.port),
        }
    }
}

/// How a pool chooses a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Balance {
    #[default]
    RoundRobin,
    LeastConnections,
    /// By the client's address, so that a client stays with its server.
    ConsistentHash,
}

impl Balance {
    pub const ALL: [Self; 3] = [Self::RoundRobin, Self::LeastConnections, Self::ConsistentHash];

    /// The word that the file uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RoundRobin => "round-robin",
            Self::LeastConnections => "least-connections",
            Self::ConsistentHash => "consistent-hash",
        }
    }
}

/// Which `Host` the upstream gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum HostHeader {
    /// The one that the client sent.
    #[default]
    Preserve,
    /// The host of the server's URL, as hosted services expect it.
    Upstream,
}

impl HostHeader {
    pub const ALL: [Self; 2] = [Self::Preserve, Self::Upstream];

    /// The word that the file uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Preserve => "preserve",
            Self::Upstream => "upstream",
        }
    }
}

/// Requests that find out whether a server works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// Path and query.
    pub path: String,
    pub interval: Duration,
    /// Not longer than `interval`.
    pub timeout: Duration,
    /// Good answers in a row that bring a server back.
    pub healthy_after: usize,
    /// Bad answers in a row that take a server out.
    pub unhealthy_after: usize,
    /// The statuses of a good answer: ascending, without overlaps.
    pub expect: Vec<RangeInclusive<u16>>,
}

impl HealthCheck {
    /// Whether an answer with this status is a good one.
    pub fn expects(&self, status: u16) -> bool {
        self.expect.iter().any(|range| range.contains(&status))
    }
}

/// A pool of which too many requests fail is not asked for a while.
#[derive(Clone, Debug, PartialEq)]
pub struct CircuitBreaker {
    /// The share of failed requests that opens it, above 0, at most 1.
    pub error_share: f64,
    /// The fewest requests in the window that it judges by, at least 1.
    pub min_requests: usize,
    /// How far back requests count.
    pub window: Duration,
    /// How long nobody is asked.
    pub open_for: Duration,
    /// Requests that are let through after that; when so many have been answered, it closes. At least 1.
    pub probes: usize,
}

/// Sends the requests of some hosts and paths to an upstream. An empty list means "any".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub hosts: Vec<HostPattern>,
    pub paths: Vec<PathPattern>,
    /// The name of an upstream that exists.
    pub upstream: Arc<str>,
    /// In the place of `Server::max_body`; 0 is no limit.
    pub max_body: Option<u64>,
}

/// What of a request is kept, and what is said about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Privacy {
    pub anonymise: Anonymise,
    /// How long one key makes the pseudonyms.
    pub hash_rotation: Duration,
    pub log_query: bool,
    pub log_user_agent: bool,
    pub log_referer: bool,
    pub log_user: bool,
    /// The parameters whose values are never written.
    pub redact: SecretNames,
    /// Whether `Sec-GPC: 1` is an opt-out.
    pub honour_gpc: bool,
    /// Whether `DNT: 1` is an opt-out.
    pub honour_dnt: bool,
    /// Where everybody has opted out: ISO 3166-1 alpha-2, upper case, ascending, none twice.
    pub opt_out_countries: Vec<String>,
    /// What everybody has opted out of.
    pub opt_out_paths: Vec<PathPattern>,
    /// Whether answers say that requests are logged.
    pub header: bool,
    /// The address of the site's privacy policy, for that header.
    pub policy_url: Option<String>,
}

/// A file of locations that the gateway gets by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GeoDownload {
    /// May hold an account or a licence key.
    pub url: Secret,
    /// Where it is put. One of `portcullis_geo::Settings::databases` or `downloads`.
    pub file: PathBuf,
    /// Of what is downloaded, before it is unpacked; lower case.
    pub sha256: Option<String>,
    /// How old the file becomes before it is downloaded again.
    pub interval: Duration,
    /// The largest file, before and after it is unpacked.
    pub max_bytes: u64,
}

/// A list of addresses that is fetched again and again, and in force as it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Feed {
    /// Unique.
    pub name: Arc<str>,
    pub source: FeedSource,
    /// `None`: told by what it begins with.
    pub format: Option<portcullis_lists::Format>,
    /// How often it is fetched.
    pub interval: Duration,
    /// For one fetch as a whole.
    pub timeout: Duration,
    /// The largest list, in bytes.
    pub max_bytes: u64,
    pub max_entries: usize,
    /// The share of lines that may be no entries, 0 to 1.
    pub max_bad: f64,
    /// For how long a copy is in force that could not be fetched again; `None` is for ever.
    pub max_age: Option<Duration>,
    pub mode: Mode,
}

/// Where a feed comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FeedSource {
    /// `http` or `https`. It may hold a token.
    Url(Secret),
    File(PathBuf),
}

/// Which crawlers are known, and how the real ones are told from others.
#[derive(Clone, Debug, PartialEq)]
pub struct Bots {
    pub enabled: bool,
    /// Whether DNS is asked for the names of clients that call themselves a bot.
    pub dns: bool,
    /// Who is asked; `None`: whoever the system asks.
    pub resolver: Option<SocketAddr>,
    /// For one question.
    pub timeout: Duration,
    /// No two have one name.
    pub table: Vec<portcullis_detect::bots::Bot>,
    /// Where networks of the table's bots are fetched.
    pub sources: Vec<BotSource>,
}

/// Networks of a bot that are fetched again and again.
#[derive(Clone, Debug, PartialEq)]
pub struct BotSource {
    /// Its place in the table.
    pub bot: usize,
    pub list: Feed,
}

/// What the pages of refusals and errors say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pages {
    pub brand: String,
    pub contact: Option<String>,
    /// HTML with `{{title}}`, `{{message}}`, `{{decision_id}}`, `{{brand}}` and `{{contact}}`;
    /// `{{decision_id}}` is always in it. `None` is the built-in page.
    pub template: Option<String>,
}

/// When the background tasks run that have no setting of their own for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tasks {
    /// What a cron expression's hours are meant in.
    pub time_zone: ScheduleZone,
    /// Deletes what nobody needs any more from the state database.
    pub cleanup: Schedule,
    /// Looks whether a file of `Config::geo_downloads` is old enough to be downloaded.
    pub geo_update: Schedule,
    /// Has geo sources asked about clients whose country is not known.
    pub geo_refresh: Schedule,
    /// Sends the report of yesterday, where there is anybody to send it to.
    pub report: Schedule,
}
