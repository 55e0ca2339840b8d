//! Who has opted out by name, as the request path asks for it.
//!
//! Owns the hashes in memory. Must not know whom they are of.

use std::collections::HashSet;

use portcullis_model::ClientIp;
use portcullis_privacy::PseudonymKey;
use portcullis_store::OptOut;

/// The hash of an address: an IPv6 address opts out with its /64, of which its owner has all.
pub(crate) fn digest_of_client(key: &PseudonymKey, client: ClientIp) -> String {
    key.digest("opt-out address", &client.limit_key().to_string())
}

/// The hash of a user's name.
pub(crate) fn digest_of_user(key: &PseudonymKey, user: &str) -> String {
    key.digest("opt-out user", user)
}

/// The opt-outs in force.
pub(super) struct OptOuts {
    key: PseudonymKey,
    digests: HashSet<String>,
}

impl OptOuts {
    /// `None` when there is nobody.
    pub(super) fn new(key: PseudonymKey, opt_outs: Vec<OptOut>) -> Option<Self> {
        let digests: HashSet<String> = opt_outs.into_iter().map(|opt_out| opt_out.digest).collect();
        (!digests.is_empty()).then_some(Self { key, digests })
    }

    pub(super) fn has(&self, client: ClientIp, user: &str) -> bool {
        self.digests.contains(&digest_of_client(&self.key, client))
            || (!user.is_empty() && self.digests.contains(&digest_of_user(&self.key, user)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_opts_out_with_its_64_and_a_user_by_name() {
        let key = PseudonymKey::new(&[7; 32]);
        let ip = |text: &str| text.parse::<ClientIp>().unwrap();
        let digests = [
            digest_of_client(&key, ip("2001:db8:1:2::5")),
            digest_of_client(&key, ip("203.0.113.9")),
            digest_of_user(&key, "alice"),
        ];
        let opt_outs = digests.map(|digest| OptOut {
            digest,
            kind: String::new(),
            created_at: portcullis_model::UnixMs(0),
        });
        let opt_outs = OptOuts::new(key.clone(), opt_outs.into()).unwrap();
        assert!(opt_outs.has(ip("2001:db8:1:2:ffff::1"), "") && opt_outs.has(ip("203.0.113.9"), "bob"));
        assert!(opt_outs.has(ip("192.0.2.1"), "alice"));
        assert!(!opt_outs.has(ip("2001:db8:1:3::5"), "bob") && !opt_outs.has(ip("203.0.113.10"), ""));
        assert!(OptOuts::new(key, Vec::new()).is_none());
    }
}
