//! Blocks and allows that meet the wrong ones. Must not object to what is merely unusual.

use ipnet::IpNet;
use portcullis_model::ClientIp;
use portcullis_privacy::is_pseudonym;

use super::facts::Facts;
use super::identity::is_ours;
use super::{Finding, Gravity};
use crate::cli::output::number;
use crate::machine::{loopback, overlap};
use portcullis_model::bare;

/// Allows that are wider, as (IPv4, IPv6), let large parts of the Internet past every block and limit.
const WIDEST_ALLOW: (u8, u8) = (8, 20);

/// Blocks of trusted proxies, of this machine, of whole private networks and of everybody.
pub(super) fn blocks(facts: &Facts<'_>) -> Vec<Finding> {
    facts.blocks.iter().filter_map(|(network, id)| block(facts, network, *id)).collect()
}

fn block(facts: &Facts<'_>, network: &IpNet, id: i64) -> Option<Finding> {
    let proxies = &facts.config.server.trusted_proxies;
    let finding = |gravity, what: &str| {
        let network = bare(network);
        match id {
            // Only the file knows it yet.
            0 => Finding::new(
                "blocks",
                gravity,
                format!("the [[block]] of {network} {what}"),
                "Remove it from the configuration, unless you mean it.",
            ),
            id => Finding::new(
                "blocks",
                gravity,
                format!("block {id} of {network} {what}"),
                "Lift it, unless you mean it:",
            )
            .write(format!("portcullis unblock {network}")),
        }
    };
    if network.prefix_len() == 0 {
        Some(finding(Gravity::Error, "refuses everybody who is not allowed"))
    } else if let Some(proxy) = proxies.iter().find(|proxy| overlap(network, proxy)) {
        let what =
            format!("meets {} of trusted_proxies: requests that name no client are refused", bare(proxy));
        Some(finding(Gravity::Error, &what))
    } else if loopback().iter().any(|own| overlap(network, own)) {
        Some(finding(Gravity::Warning, "meets this machine's loopback addresses, local checks among them"))
    } else if let Some(own) = facts.own.iter().find(|own| network.contains(*own)) {
        Some(finding(Gravity::Warning, &format!("meets {own}, an address of this machine")))
    } else if is_ours(network.addr()) && network.prefix_len() <= 16 {
        Some(finding(Gravity::Warning, "covers a whole private network"))
    } else {
        None
    }
}

/// Allows that switch the gateway off.
pub(super) fn allows(facts: &Facts<'_>) -> Vec<Finding> {
    let is_wide = |network: &&IpNet| {
        let widest = if network.addr().is_ipv4() { WIDEST_ALLOW.0 } else { WIDEST_ALLOW.1 };
        network.prefix_len() < widest && !is_ours(network.addr())
    };
    let wide = facts.allows.iter().filter(is_wide);
    wide.map(|network| {
        let whom = if network.prefix_len() == 0 { "everybody" } else { "a large part of the Internet" };
        Finding::new(
            "allows",
            Gravity::Error,
            format!("{network} is allowed: no block, no limit and no detector meets {whom}"),
            "Remove it, here or from the [[allow]] sections, and allow the addresses that you mean:",
        )
        .write(format!("portcullis disallow {network}"))
    })
    .collect()
}

/// Blocks and opt-outs that are kept under a hash whose key is missing: they meet nobody.
pub(super) fn hashed(facts: &Facts<'_>) -> Vec<Finding> {
    let is_hashed = |network: &IpNet| is_pseudonym(ClientIp::new(network.addr()));
    let blocks = facts.blocks.iter().filter(|(network, _)| is_hashed(network)).count() as u64;
    let Some(problem) = facts.lasting_key.as_ref().filter(|_| blocks + facts.opt_outs > 0) else {
        return Vec::new();
    };
    let what = match (blocks, facts.opt_outs) {
        (0, opt_outs) => format!("{} recognised", count_are(opt_outs, "opt-out")),
        (blocks, 0) => format!("{} enforced", count_are(blocks, "block under a hash")),
        (blocks, opt_outs) => format!(
            "{} enforced, and {} recognised",
            count_are(blocks, "block under a hash"),
            count_are(opt_outs, "opt-out")
        ),
    };
    vec![Finding::new(
        "privacy",
        Gravity::Error,
        format!("{what}: {problem}"),
        "Put privacy.key back from a backup; the gateway takes it over by itself. Without one: lift those blocks \
         (\"portcullis blocks\" lists them), and have people opt out again.",
    )]
}

/// `1 block is not`, `2 blocks are not`
fn count_are(n: u64, noun: &str) -> String {
    let (noun, are) = match (n, noun.split_once(' ')) {
        (1, _) => (noun.to_owned(), "is"),
        (_, Some((first, rest))) => (format!("{first}s {rest}"), "are"),
        (_, None) => (format!("{noun}s"), "are"),
    };
    format!("{} {noun} {are} not", number(n))
}

#[cfg(test)]
mod tests {
    use super::super::facts::tests::{config, healthy};
    use super::*;

    #[test]
    fn blocks_of_our_own_side_are_found_and_others_are_not() {
        let config = config("[server]\ntrusted_proxies = [\"203.0.113.64/26\"]");
        let mut facts = healthy(&config);
        for (network, gravity) in [
            ("203.0.113.0/24", Some(Gravity::Error)),
            ("203.0.113.70/32", Some(Gravity::Error)),
            ("0.0.0.0/0", Some(Gravity::Error)),
            ("::1/128", Some(Gravity::Warning)),
            ("192.0.2.10/32", Some(Gravity::Warning)),
            ("10.0.0.0/8", Some(Gravity::Warning)),
            ("10.1.2.3/32", None),
            ("203.0.113.9/32", None),
            ("198.51.100.0/24", None),
            ("2001:db8::/32", None),
        ] {
            facts.blocks = vec![(network.parse().unwrap(), 7)];
            assert_eq!(blocks(&facts).first().map(|found| found.gravity), gravity, "{network}");
        }
    }

    #[test]
    fn an_allow_of_everybody_is_an_error() {
        let config = config("");
        let mut facts = healthy(&config);
        for (network, is) in [
            ("0.0.0.0/0", true),
            ("::/0", true),
            ("32.0.0.0/4", true),
            ("10.0.0.0/8", false),
            ("2001:db8::/32", false),
        ] {
            facts.allows = vec![network.parse().unwrap()];
            assert_eq!(!allows(&facts).is_empty(), is, "{network}");
        }
    }

    #[test]
    fn hashed_blocks_and_opt_outs_without_their_key_are_an_error() {
        let config = config("");
        let mut facts = healthy(&config);
        assert_eq!(hashed(&facts), Vec::new(), "nobody needs the key");
        let kept = |n: u8| (format!("3fff:800::{n}/128").parse().unwrap(), i64::from(n));
        facts.blocks = vec![kept(1), kept(2), ("203.0.113.9/32".parse().unwrap(), 3)];
        assert_eq!(
            hashed(&facts)[0].seen,
            "2 blocks under a hash are not enforced: d/privacy.key is not there"
        );
        facts.opt_outs = 1;
        assert!(hashed(&facts)[0].seen.contains(" not enforced, and 1 opt-out is not recognised: "));
        facts.lasting_key = None;
        assert_eq!(hashed(&facts), Vec::new());
    }
}
