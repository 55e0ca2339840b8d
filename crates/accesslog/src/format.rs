//! The formats by name. Must not parse.

use std::fmt;
use std::str::FromStr;

/// How a log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Format {
    /// Apache's and nginx's usual one, with referrer and user agent; further fields may follow.
    Combined,
    /// Without referrer and user agent (CLF).
    Common,
    /// Combined or common after the virtual host's name.
    VhostCombined,
    /// Traefik's access log as text.
    TraefikClf,
    /// Traefik's access log as JSON.
    Traefik,
    /// Caddy's access log.
    Caddy,
    /// An object per line with fields of one's own.
    Json,
    /// HAProxy's `option httplog`.
    Haproxy,
    /// What Nginx Proxy Manager writes for its hosts.
    ProxyManager,
}

impl Format {
    /// In the order in which they are tried.
    pub const ALL: [Self; 9] = [
        Self::Combined,
        Self::Common,
        Self::VhostCombined,
        Self::TraefikClf,
        Self::Traefik,
        Self::Caddy,
        Self::Json,
        Self::Haproxy,
        Self::ProxyManager,
    ];

    /// The word that the commands use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Combined => "combined",
            Self::Common => "common",
            Self::VhostCombined => "vhost_combined",
            Self::TraefikClf => "traefik-clf",
            Self::Traefik => "traefik",
            Self::Caddy => "caddy",
            Self::Json => "json",
            Self::Haproxy => "haproxy",
            Self::ProxyManager => "nginx-proxy-manager",
        }
    }

    /// The place in `ALL`.
    pub(crate) fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|format| format.as_str() == text).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|format| format.as_str()).collect();
            format!("expected auto, {}; got {text:?}", names.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_format_is_found_by_its_name_and_at_its_place() {
        for (n, format) in Format::ALL.into_iter().enumerate() {
            assert_eq!((format.as_str().parse(), format.index()), (Ok(format), n));
        }
        assert!("clf".parse::<Format>().unwrap_err().contains("traefik-clf"));
    }
}
