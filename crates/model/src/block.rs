//! Blocks and allows as the state database keeps them.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{ClientIp, UnixMs};

/// Who or what added a block or an allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BlockSource {
    /// A person at the command line.
    Cli,
    /// A person in the console.
    Console,
    /// A `[[block]]` or `[[allow]]` entry of the configuration file.
    Config,
    /// The detector.
    Detector,
    /// A list that a person imported.
    Import,
}

impl BlockSource {
    pub const ALL: [Self; 5] = [Self::Cli, Self::Console, Self::Config, Self::Detector, Self::Import];

    /// The word that the database and the commands use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cli => "cli",
            Self::Console => "console",
            Self::Config => "config",
            Self::Detector => "detector",
            Self::Import => "import",
        }
    }

    /// Whether the block was the machine's own idea. Such a block of an address does not meet verified users on it:
    /// they answer for themselves. What a person wrote down means everybody.
    pub fn is_automatic(self) -> bool {
        match self {
            Self::Cli | Self::Console | Self::Config | Self::Import => false,
            Self::Detector => true,
        }
    }
}

impl FromStr for BlockSource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|source| source.as_str() == text);
        found.ok_or_else(|| {
            format!("expected \"cli\", \"console\", \"config\", \"detector\" or \"import\", got {text:?}")
        })
    }
}

impl fmt::Display for BlockSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A refused address or prefix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// The row in the state database; refusals name it.
    pub id: i64,
    /// A single address is a /32 or a /128.
    pub network: IpNet,
    pub reason: String,
    pub source: BlockSource,
    pub created_at: UnixMs,
    /// `None` lasts until somebody removes it.
    pub expires_at: Option<UnixMs>,
    /// The finding that led to it, for blocks by the detector.
    pub finding_id: Option<i64>,
}

impl Block {
    /// Whether the block has run out at `now`.
    pub fn is_expired(&self, now: UnixMs) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }
}

/// An address or prefix that no block and no limit touches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allow {
    pub id: i64,
    pub network: IpNet,
    pub reason: String,
    pub source: BlockSource,
    pub created_at: UnixMs,
}

/// Characters of a reason that is kept.
const MAX_REASON: usize = 1_000;

/// A reason as somebody typed it, without blanks around it.
///
/// # Errors
/// A sentence: it is too long.
pub fn reason_of(text: &str) -> Result<String, String> {
    let trimmed = text.trim();
    match trimmed.chars().count() {
        0..=MAX_REASON => Ok(trimmed.to_owned()),
        length => Err(format!("expected at most {MAX_REASON} characters, got {length}")),
    }
}

/// A network as people write it: a single address without its prefix length.
pub fn bare(network: &IpNet) -> String {
    if network.prefix_len() == network.max_prefix_len() {
        network.addr().to_string()
    } else {
        network.to_string()
    }
}

/// Reads an address or a prefix, as people type them, into canonical form: host bits are cleared,
/// IPv4-mapped and NAT64 forms become IPv4.
///
/// # Errors
/// A sentence that says what was expected.
pub fn network_of(text: &str) -> Result<IpNet, String> {
    let trimmed = text.trim();
    if let Ok(ip) = trimmed.parse::<IpAddr>() {
        return Ok(IpNet::from(ClientIp::new(ip).ip()));
    }
    let net = trimmed.parse::<IpNet>().map_err(|_| {
        format!("expected an address or a prefix such as 192.0.2.1 or 2001:db8::/32, got {text:?}")
    })?;
    let canonical = ClientIp::new(net.network()).ip();
    let net = match (net.addr(), canonical) {
        // A prefix of at least 96 bits inside of the mapped or NAT64 range is a prefix of IPv4.
        (IpAddr::V6(_), IpAddr::V4(v4)) if net.prefix_len() >= 96 => {
            IpNet::new(IpAddr::V4(v4), net.prefix_len() - 96).map_err(|e| e.to_string())?
        }
        _ => net,
    };
    Ok(net.trunc())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_bounded() {
        assert_eq!(reason_of("  scans us "), Ok("scans us".to_owned()));
        assert!(reason_of(&"x".repeat(1_001)).unwrap_err().contains("at most 1000"));
    }

    #[test]
    fn networks_are_canonical() {
        for (text, want) in [
            ("192.0.2.1", "192.0.2.1/32"),
            ("192.0.2.77/24", "192.0.2.0/24"),
            ("::ffff:192.0.2.1", "192.0.2.1/32"),
            ("::ffff:192.0.2.0/120", "192.0.2.0/24"),
            ("2001:db8::5/32", "2001:db8::/32"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(network_of(text).unwrap().to_string(), want);
        }
        assert!(network_of("192.0.2.0/33").unwrap_err().contains("expected an address"));
    }
}
