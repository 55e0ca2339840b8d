//! Whose requests a limit counts together.
//!
//! Owns the choice of key and what stands in for one that a request does not have. Must never let a request
//! go uncounted: what has no key of the wanted kind is counted by its address.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

use crate::{PatternError, RequestFacts};

/// What a limit counts by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LimitKey {
    /// The client's address, IPv6 by its /64.
    #[default]
    Ip,
    /// The client's network; lengths in bits.
    Prefix { v4: u8, v6: u8 },
    /// The verified user.
    User,
    /// The observed session.
    Session,
    /// The value of a header; its name in lower case.
    Header(Box<str>),
    /// The client's address together with the path.
    IpAndPath,
}

/// Whom a limit counts one request for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject<'a> {
    /// An IPv4 address, or the first of an IPv6 /64.
    Client(IpAddr),
    ClientAndPath(IpAddr, &'a str),
    Prefix(IpNet),
    User(&'a str),
    Session(u64),
    /// A header's value: chosen by the client.
    Header(&'a [u8]),
}

impl LimitKey {
    /// Bits of the network that `prefix` counts by, unless the rule says otherwise.
    pub const PREFIX_V4: u8 = 24;
    pub const PREFIX_V6: u8 = 48;

    /// Whom the request is counted for. A user who is not known counts by session, a session that is not there
    /// by user; who has neither, and whoever does not send the header exactly once, counts by address.
    pub fn subject<'f>(&self, facts: &'f RequestFacts<'_>) -> Subject<'f> {
        let client = Subject::Client(facts.client.limit_key());
        let user = || facts.identity?.user.as_deref().map(Subject::User);
        let session = || facts.identity?.session.map(Subject::Session);
        match self {
            Self::Ip => client,
            Self::Prefix { v4, v6 } => {
                let ip = facts.client.ip();
                let length = if ip.is_ipv4() { *v4 } else { *v6 };
                IpNet::new(ip, length).map_or(client, |network| Subject::Prefix(network.trunc()))
            }
            Self::User => user().or_else(session).unwrap_or(client),
            Self::Session => session().or_else(user).unwrap_or(client),
            Self::Header(name) => facts.headers.only(name).map_or(client, Subject::Header),
            Self::IpAndPath => Subject::ClientAndPath(facts.client.limit_key(), &facts.path),
        }
    }
}

impl FromStr for LimitKey {
    type Err = PatternError;

    /// `prefix` gets its default lengths.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const MAX_NAME: usize = 64;
        let is_name = |name: &str| {
            (1..=MAX_NAME).contains(&name.len())
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
        };
        match text {
            "ip" => Ok(Self::Ip),
            "prefix" => Ok(Self::Prefix { v4: Self::PREFIX_V4, v6: Self::PREFIX_V6 }),
            "user" => Ok(Self::User),
            "session" => Ok(Self::Session),
            "ip+path" => Ok(Self::IpAndPath),
            _ => match text.strip_prefix("header:").filter(|name| is_name(name)) {
                Some(name) => Ok(Self::Header(name.to_ascii_lowercase().into())),
                None => Err(PatternError(format!(
                    "expected \"ip\", \"prefix\", \"user\", \"session\", \"header:NAME\" or \"ip+path\", got {text:?}"
                ))),
            },
        }
    }
}

impl fmt::Display for LimitKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip => f.write_str("ip"),
            Self::Prefix { v4, v6 } => write!(f, "prefix (/{v4}, IPv6 /{v6})"),
            Self::User => f.write_str("user"),
            Self::Session => f.write_str("session"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::IpAndPath => f.write_str("ip+path"),
        }
    }
}

impl fmt::Display for Subject<'_> {
    /// For people. A header's value is as the client sent it: escape it before printing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let client = |f: &mut fmt::Formatter<'_>, ip: &IpAddr| match ip {
            IpAddr::V4(_) => write!(f, "address {ip}"),
            IpAddr::V6(_) => write!(f, "address {ip}/64"),
        };
        match self {
            Self::Client(ip) => client(f, ip),
            Self::ClientAndPath(ip, path) => {
                client(f, ip)?;
                write!(f, " at {path}")
            }
            Self::Prefix(network) => write!(f, "network {network}"),
            Self::User(name) => write!(f, "user {name}"),
            Self::Session(hash) => write!(f, "session {hash:016x}"),
            Self::Header(value) => write!(f, "header value {}", String::from_utf8_lossy(value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RequestHeaders;
    use portcullis_model::Identity;

    #[derive(Debug)]
    struct ApiKey;

    impl RequestHeaders for ApiKey {
        fn only(&self, name: &str) -> Option<&[u8]> {
            (name == "x-api-key").then_some(b"k1")
        }
    }

    fn subject(key: &str, ip: &str, identity: Option<&Identity>) -> String {
        let facts = RequestFacts {
            identity,
            headers: &ApiKey,
            ..RequestFacts::new(ip.parse().unwrap(), "GET", "a", "/p".into())
        };
        key.parse::<LimitKey>().unwrap().subject(&facts).to_string()
    }

    #[test]
    fn each_key_finds_its_subject_and_nobody_goes_uncounted() {
        let alice = Identity { user: Some("alice".into()), roles: Vec::new(), session: None };
        let session = Identity { user: None, roles: Vec::new(), session: Some(7) };
        for (key, anonymous, of_alice, of_session) in [
            ("ip", "address 192.0.2.9", "address 192.0.2.9", "address 192.0.2.9"),
            ("prefix", "network 192.0.2.0/24", "network 192.0.2.0/24", "network 192.0.2.0/24"),
            ("user", "address 192.0.2.9", "user alice", "session 0000000000000007"),
            ("session", "address 192.0.2.9", "user alice", "session 0000000000000007"),
            ("header:X-Api-Key", "header value k1", "header value k1", "header value k1"),
            ("header:other", "address 192.0.2.9", "address 192.0.2.9", "address 192.0.2.9"),
            ("ip+path", "address 192.0.2.9 at /p", "address 192.0.2.9 at /p", "address 192.0.2.9 at /p"),
        ] {
            let found = [None, Some(&alice), Some(&session)].map(|who| subject(key, "192.0.2.9", who));
            assert_eq!(found, [anonymous, of_alice, of_session], "{key}");
        }
        assert_eq!(subject("ip", "2001:db8::9", None), "address 2001:db8::/64");
        assert_eq!(subject("prefix", "2001:db8:1:2::9", None), "network 2001:db8:1::/48");
    }

    #[test]
    fn an_unknown_key_is_an_error() {
        for bad in ["", "IP", "address", "header:", "header:a b", "header:a:b", "prefix/24", "path"] {
            assert!(bad.parse::<LimitKey>().is_err(), "{bad}");
        }
    }
}
