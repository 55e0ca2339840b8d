//! What speaks against a block that a person asks for: the gateway's own machine, its proxies, the person.
//! Must not decide; whoever asks may insist.

use std::net::IpAddr;

use ipnet::IpNet;
use portcullis_config::Config;
use portcullis_model::bare;

use crate::machine::{loopback, overlap, own_addresses};

/// Why blocking this would probably be a mistake.
pub(crate) fn objections(network: &IpNet, config: &Config, operator: Option<IpAddr>) -> Vec<String> {
    let mut objections = Vec::new();
    let widest = match network {
        IpNet::V4(_) => 8,
        IpNet::V6(_) => 16,
    };
    if network.prefix_len() < widest {
        objections.push(format!("a prefix shorter than /{widest} takes in a large part of the Internet"));
    }
    if loopback().iter().any(|loopback| overlap(network, loopback)) {
        objections.push("it is, or contains, a loopback address of this machine".to_owned());
    } else if let Some(own) = own_addresses().into_iter().find(|own| network.contains(own)) {
        objections.push(format!("{own} is an address of this machine"));
    }
    if let Some(proxy) = config.server.trusted_proxies.iter().find(|proxy| overlap(network, proxy)) {
        objections.push(format!(
            "{} is in trusted_proxies, and a block of a proxy would meet all its visitors",
            bare(proxy)
        ));
    }
    if let Some(own) = operator.filter(|own| network.contains(own)) {
        objections.push(format!("{own} is the address from which you are logged in here"));
    }
    objections
}

#[cfg(test)]
mod tests {
    use portcullis_model::network_of;

    use super::*;

    #[test]
    fn a_block_of_this_machine_is_objected_to() {
        let config = config("");
        for network in ["127.0.0.1", "127.1.0.0/16", "::1", "0.0.0.0/0", "::/0", "16.0.0.0/7"] {
            let objections = objections(&network_of(network).unwrap(), &config, None);
            assert!(!objections.is_empty(), "{network}");
        }
        for network in ["203.0.113.9", "203.0.113.0/24", "2001:db8::/32"] {
            assert_eq!(objections(&network_of(network).unwrap(), &config, None), Vec::<String>::new());
        }
    }

    #[test]
    fn a_block_that_touches_a_trusted_proxy_is_objected_to() {
        let config = config("[server]\ntrusted_proxies = [\"203.0.113.64/26\"]\n");
        for network in ["203.0.113.70", "203.0.113.0/24"] {
            let objections = objections(&network_of(network).unwrap(), &config, None);
            assert!(objections[0].contains("trusted_proxies"), "{network}: {objections:?}");
        }
        assert!(objections(&network_of("203.0.113.9").unwrap(), &config, None).is_empty());
    }

    #[test]
    fn a_block_of_the_operator_is_objected_to() {
        let own = Some(IpAddr::from([203, 0, 113, 9]));
        let objections = |network: &str| objections(&network_of(network).unwrap(), &config(""), own);
        assert!(objections("203.0.113.0/24")[0].contains("you are logged in"));
        assert!(objections("198.51.100.0/24").is_empty());
    }

    fn config(more: &str) -> Config {
        let text = format!("[[upstream]]\nname = \"a\"\nservers = [\"http://127.0.0.1:1\"]\n{more}");
        let overrides = portcullis_config::Overrides::default();
        portcullis_config::parse(&text, "test", std::path::Path::new(""), &overrides).unwrap()
    }
}
