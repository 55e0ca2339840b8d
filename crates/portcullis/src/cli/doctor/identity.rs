//! Whether the gateway knows who its clients are. Must not be misled by clients: what they send is a hint
//! only where nearly all of them send it.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use super::facts::Facts;
use super::{Finding, Gravity};
use crate::cli::output::{count, number};
use portcullis_model::bare;

/// With fewer requests nothing can be said.
const MIN_ROWS: u64 = 50;
/// An address of our own networks with this share of all requests is a proxy, if it also looks like one.
const PROXY_SHARE: f64 = 0.9;
/// Different programs behind one address: a person or a script has one or two.
const MIN_AGENTS: usize = 5;
/// Requests of a trusted proxy itself that are more than its health checks.
const MIN_PATHS: usize = 3;
/// Prefixes of public addresses that are shorter are wider than any one operator's proxies.
const WIDEST_PUBLIC: (u8, u8) = (12, 28);

fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

fn percent(part: u64, whole: u64) -> String {
    format!("{:.0} %", share(part, whole) * 100.0)
}

/// A proxy in front of the gateway that is not trusted: all visitors are one client, and one block or one
/// limit meets them all.
pub(super) fn hidden_clients(facts: &Facts<'_>) -> Vec<Finding> {
    const CHECK: &str = "hidden_clients";
    let Some((busiest, requests)) = facts.busiest() else { return Vec::new() };
    let rows = facts.traffic.rows;
    if rows < MIN_ROWS || facts.is_trusted(busiest) || share(requests, rows) < PROXY_SHARE {
        return Vec::new();
    }
    let by_header = facts.gateway.as_ref().and_then(|status| {
        let (header, ignored) = status.forwarding_ignored.iter().max_by_key(|(_, count)| **count)?;
        (share(*ignored, status.requests) >= PROXY_SHARE && *ignored >= MIN_ROWS)
            .then_some((header, *ignored))
    });
    let from = format!("{} of {} came from {busiest}", percent(requests, rows), count(rows, "request"));
    let trust = trust_line(facts, busiest);
    let one_client = "To the gateway all visitors are one client: one limit or one block meets them all";
    match by_header {
        Some((header, ignored)) => {
            let line = match header.as_str() {
                "x-forwarded-for" => trust,
                other => format!("{trust}\nclient_ip_header = \"{other}\""),
            };
            vec![
                Finding::new(
                    CHECK,
                    Gravity::Error,
                    format!(
                        "{from}, and {} named another client in {header}, which nobody trusts. {one_client}",
                        number(ignored)
                    ),
                    format!("If {busiest} is your own proxy or CDN, trust it, in [server]:"),
                )
                .write(line),
            ]
        }
        None if is_ours(busiest) && facts.traffic.agents >= MIN_AGENTS => vec![
            Finding::new(
                CHECK,
                Gravity::Warning,
                format!(
                    "{from}, with {} different programs, and without a header that names the client. {one_client}",
                    number(facts.traffic.agents as u64)
                ),
                format!(
                    "If {busiest} is a proxy, have it send X-Forwarded-For (or the PROXY protocol), and trust it, \
                     in [server]:"
                ),
            )
            .write(trust),
        ],
        None => Vec::new(),
    }
}

fn trust_line(facts: &Facts<'_>, ip: IpAddr) -> String {
    let proxies = facts.config.server.trusted_proxies.iter().map(bare).chain([ip.to_string()]);
    let quoted: Vec<String> = proxies.map(|proxy| format!("{proxy:?}")).collect();
    format!("trusted_proxies = [{}]", quoted.join(", "))
}

/// A trusted proxy that says nothing, or clients that connect directly from a trusted range.
pub(super) fn unnamed_clients(facts: &Facts<'_>) -> Vec<Finding> {
    let traffic = &facts.traffic;
    let is_telling = traffic.of_proxies >= MIN_ROWS && traffic.paths_of_proxies >= MIN_PATHS;
    if !is_telling || share(traffic.of_proxies, traffic.rows) < 0.5 {
        return Vec::new();
    }
    let header = facts.config.server.client_ip.header();
    vec![Finding::new(
        "unnamed_clients",
        Gravity::Warning,
        format!(
            "{} of {} came from addresses in trusted_proxies without an address in {header}",
            percent(traffic.of_proxies, traffic.rows),
            count(traffic.rows, "request")
        ),
        format!(
            "Either the proxy does not send {header}: configure it there, or name the header that it sends in \
                 client_ip_header. Or visitors connect directly from a trusted range and could choose their \
                 address: narrow trusted_proxies to the proxies themselves."
        ),
    )]
}

/// Whoever is in a trusted range chooses the address that he is judged by.
pub(super) fn wide_trust(facts: &Facts<'_>) -> Vec<Finding> {
    let is_wide = |network: &&IpNet| {
        let widest = if network.addr().is_ipv4() { WIDEST_PUBLIC.0 } else { WIDEST_PUBLIC.1 };
        network.prefix_len() < widest && !is_ours(network.addr())
    };
    let wide = facts.config.server.trusted_proxies.iter().filter(is_wide);
    wide.map(|network| {
        let addresses = match network {
            IpNet::V4(v4) => format!("{} addresses", number(1_u64 << (32 - v4.prefix_len()))),
            IpNet::V6(v6) => format!("an IPv6 /{}", v6.prefix_len()),
        };
        Finding::new(
            "wide_trust",
            Gravity::Error,
            format!("trusted_proxies has {network}: {addresses} whose owners may choose who they are"),
            "Name the proxies themselves, or the ranges that your CDN publishes.",
        )
    })
    .collect()
}

/// Private, carrier-grade NAT, link-local and loopback addresses: of networks that somebody owns.
pub(super) fn is_ours(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => {
            let shared = IpNet::new_assert(IpAddr::V4(Ipv4Addr::new(100, 64, 0, 0)), 10);
            v4.is_private() || v4.is_loopback() || v4.is_link_local() || shared.contains(&ip)
        }
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::facts::tests::{config, healthy};
    use super::*;

    fn only(facts: &mut Facts<'_>, ip: &str, rows: u64, agents: usize) {
        facts.traffic.clients = [(ip.parse().unwrap(), rows)].into_iter().collect();
        (facts.traffic.rows, facts.traffic.agents) = (rows, agents);
    }

    #[test]
    fn a_proxy_that_nobody_trusts_is_an_error_with_the_line_to_write() {
        let config = config("[server]\ntrusted_proxies = [\"10.0.0.9\"]");
        let mut facts = healthy(&config);
        only(&mut facts, "10.0.0.5", 500, 1);
        let ignored = [("cf-connecting-ip".to_owned(), 1_000), ("x-forwarded-for".to_owned(), 3)];
        facts.gateway.as_mut().unwrap().forwarding_ignored = ignored.into_iter().collect();
        let found = hidden_clients(&facts);
        assert_eq!(found[0].gravity, Gravity::Error);
        assert_eq!(
            found[0].write.as_deref(),
            Some("trusted_proxies = [\"10.0.0.9\", \"10.0.0.5\"]\nclient_ip_header = \"cf-connecting-ip\"")
        );
    }

    #[test]
    fn many_programs_behind_one_private_address_are_a_proxy_that_says_nothing() {
        for (ip, agents, is) in [
            ("10.0.0.5", 9, true),
            ("100.64.0.1", 9, true),
            ("127.0.0.1", 9, true),
            ("fd00::1", 9, true),
            // Somebody tries the gateway out, or measures it.
            ("127.0.0.1", 2, false),
            ("203.0.113.9", 9, false),
        ] {
            let config = config("");
            let mut facts = healthy(&config);
            only(&mut facts, ip, 500, agents);
            assert_eq!(!hidden_clients(&facts).is_empty(), is, "{ip}, {agents} programs");
            only(&mut facts, ip, 49, agents);
            assert!(hidden_clients(&facts).is_empty(), "too few requests to tell");
        }
    }

    #[test]
    fn clients_that_lie_about_their_address_make_no_proxy() {
        let config = config("");
        let mut facts = healthy(&config);
        facts.gateway.as_mut().unwrap().forwarding_ignored = [("x-forwarded-for".to_owned(), 1_000)].into();
        assert_eq!(hidden_clients(&facts), Vec::new(), "they come from many addresses");
    }

    #[test]
    fn a_proxy_that_names_nobody_is_told_from_its_health_checks() {
        let config = config("[server]\ntrusted_proxies = [\"10.0.0.0/8\"]");
        let mut facts = healthy(&config);
        only(&mut facts, "10.0.0.5", 700, 9);
        (facts.traffic.of_proxies, facts.traffic.paths_of_proxies) = (700, 1);
        assert_eq!(unnamed_clients(&facts), Vec::new());
        facts.traffic.paths_of_proxies = 20;
        assert!(unnamed_clients(&facts)[0].seen.contains("100 % of 700 requests"));
        assert_eq!(hidden_clients(&facts), Vec::new(), "once is enough");
    }

    #[test]
    fn wide_trusted_ranges_of_public_addresses_are_errors() {
        for (network, is) in [
            ("1.0.0.0/8", true),
            ("16.0.0.0/7", true),
            ("2000::/3", true),
            ("10.0.0.0/8", false),
            ("172.16.0.0/12", false),
            ("104.16.0.0/13", false),
            ("2606:4700::/32", false),
            ("fc00::/7", false),
            ("203.0.113.9", false),
        ] {
            let config = config(&format!("[server]\ntrusted_proxies = [\"{network}\"]"));
            assert_eq!(!wide_trust(&healthy(&config)).is_empty(), is, "{network}");
        }
    }
}
