//! `[[route]]`, `[[block]]` and `[[allow]]`: where requests go, and whose are refused or let in.
//! Must not decide anything; that is for the policy.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use ipnet::IpNet;
use portcullis_model::network_of;
use portcullis_policy::{HostPattern, Mode, PathPattern};

use crate::Route;

use super::fields::{Context, Place, Section, Value, nearest, quoted};

pub(super) const MODES: [Mode; 2] = [Mode::Enforce, Mode::DryRun];

const MAX_ROUTES: usize = 1_000;
const MAX_PATTERNS: usize = 1_000;
/// Pairs of hosts and paths in all routes.
const MAX_ROUTE_PAIRS: usize = 100_000;
/// Entries of `[[block]]` or `[[allow]]`; more belong into the database.
const MAX_ENTRIES: usize = 100_000;
const MAX_REASON: usize = 500;

const NETWORK: &str = "an address or a prefix such as \"192.0.2.1\" or \"2001:db8::/32\"";

/// `upstreams` are the names that a route may send to.
pub(super) fn routes(root: &mut Section<'_>, upstreams: &[Arc<str>]) -> Vec<Route> {
    let mut taken: HashMap<(String, String), Place> = HashMap::new();
    let sections = root.sections("route", MAX_ROUTES);
    sections.into_iter().filter_map(|section| route(section, upstreams, &mut taken)).collect()
}

fn route(
    mut section: Section<'_>,
    upstreams: &[Arc<str>],
    taken: &mut HashMap<(String, String), Place>,
) -> Option<Route> {
    let hosts = section.get("hosts").map_or_else(|| Some(Vec::new()), |value| hosts(&value));
    let paths = section.get("paths").map_or_else(|| Some(Vec::new()), |value| paths(&value));
    let upstream = section.required("upstream", "\"app\"", |value| upstream_name(value, upstreams));
    let max_body = section.read("max_body", None, |value| value.size(0..=u64::MAX).map(Some));
    let route = hosts.zip(paths).map(|(hosts, paths)| Route { hosts, paths, upstream: "".into(), max_body });
    if let Some(route) = &route {
        report_taken(&section, route, taken);
    }
    section.finish();
    Some(Route { upstream: upstream?, ..route? })
}

/// Reports the first pair of host and path that an earlier route has.
fn report_taken(section: &Section<'_>, route: &Route, taken: &mut HashMap<(String, String), Place>) {
    let or_any = |patterns: Vec<&str>, any: &str| -> Vec<String> {
        if patterns.is_empty() {
            vec![any.to_owned()]
        } else {
            patterns.into_iter().map(str::to_owned).collect()
        }
    };
    let hosts = or_any(route.hosts.iter().map(HostPattern::as_str).collect(), "every host");
    let paths = or_any(route.paths.iter().map(PathPattern::as_str).collect(), "every path");
    if hosts.len() * paths.len() + taken.len() > MAX_ROUTE_PAIRS {
        section.report(format!(
            "the routes have more than {MAX_ROUTE_PAIRS} pairs of hosts and paths; use patterns"
        ));
        return;
    }
    for (host, path) in hosts.iter().flat_map(|host| paths.iter().map(move |path| (host, path))) {
        if let Some(earlier) = taken.insert((host.clone(), path.clone()), section.place.clone()) {
            section.report(format!("{path} of {host} has a route already: {}", earlier.key));
            return;
        }
    }
}

fn upstream_name(value: &Value<'_>, upstreams: &[Arc<str>]) -> Option<Arc<str>> {
    let name = value.text("the name of an upstream")?;
    if let Some(upstream) = upstreams.iter().find(|upstream| ***upstream == *name) {
        return Some(upstream.clone());
    }
    let hint = match nearest(name, upstreams.iter().map(|upstream| &**upstream)) {
        Some(near) => format!("; did you mean {near:?}?"),
        None => String::new(),
    };
    value.fail(format!("no [[upstream]] is named {}{hint}", quoted(name)));
    None
}

pub(super) fn paths(value: &Value<'_>) -> Option<Vec<PathPattern>> {
    all_of(value, |item| item.parse("a path such as \"/login\", \"/api/*\" or \"*.php\""))
}

pub(super) fn hosts(value: &Value<'_>) -> Option<Vec<HostPattern>> {
    all_of(value, |item| item.parse("a host name such as \"example.com\" or \"*.example.com\""))
}

/// `None` if one is wrong: without it the others would mean something else.
pub(super) fn all_of<'a, T>(value: &Value<'a>, read: impl FnMut(&Value<'a>) -> Option<T>) -> Option<Vec<T>> {
    let mut read = read;
    let items = value.list(MAX_PATTERNS, |item| Some(read(item)))?;
    items.into_iter().collect()
}

/// A list of networks with their reasons.
type Entries = Vec<(IpNet, String)>;

/// `[[block]]` and `[[allow]]`. Blocks that could never take effect are errors.
pub(super) fn lists(root: &mut Section<'_>, context: &Context<'_>, trusted: &[IpNet]) -> (Entries, Entries) {
    let blocks = entries(root, "block", "blocked by the configuration");
    let allows = entries(root, "allow", "allowed by the configuration");
    let allowed = Covering::new(allows.iter().map(|(network, ..)| *network));
    let trusted = Covering::new(trusted.iter().copied());
    for (network, _, place) in &blocks {
        if let Some(by) = allowed.find(*network) {
            context.report(
                place,
                format!("{network} cannot be blocked: the [[allow]] of {by} covers it and always wins"),
            );
        } else if let Some(by) = trusted.find(*network) {
            context.report(
                place,
                format!("{network} cannot be blocked: it belongs to {by} of server.trusted_proxies"),
            );
        }
    }
    let bare = |entries: Vec<(IpNet, String, Place)>| {
        entries.into_iter().map(|(network, reason, _)| (network, reason)).collect()
    };
    (bare(blocks), bare(allows))
}

fn entries(root: &mut Section<'_>, key: &'static str, default_reason: &str) -> Vec<(IpNet, String, Place)> {
    let mut seen = HashSet::new();
    let mut entries = Vec::new();
    for mut section in root.sections(key, MAX_ENTRIES) {
        let network = section.required("network", "\"192.0.2.0/24\"", |value| {
            let network = value.parse_with(NETWORK, network_of)?;
            if !seen.insert(network) {
                value.fail(format!("{network} is in the list twice"));
            }
            Some((network, value.place.clone()))
        });
        let reason = section.read("reason", default_reason.to_owned(), |value| value.label(1..=MAX_REASON));
        section.finish();
        entries.extend(network.map(|(network, place)| (network, reason, place)));
    }
    entries
}

/// Finds the network of a set that contains another.
struct Covering(HashSet<IpNet>);

impl Covering {
    fn new(networks: impl Iterator<Item = IpNet>) -> Self {
        Self(networks.collect())
    }

    fn find(&self, network: IpNet) -> Option<IpNet> {
        if self.0.is_empty() {
            return None;
        }
        let wider = std::iter::successors(Some(network), |network| network.supernet());
        wider.map(|network| network.trunc()).find(|network| self.0.contains(network))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_covered_by_itself_and_by_wider_ones() {
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        let covering = Covering::new([net("10.0.0.0/8"), net("2001:db8::/32")].into_iter());
        assert_eq!(covering.find(net("10.1.2.3/32")), Some(net("10.0.0.0/8")));
        assert_eq!(covering.find(net("10.0.0.0/8")), Some(net("10.0.0.0/8")));
        assert_eq!(covering.find(net("0.0.0.0/0")), None);
        assert_eq!(covering.find(net("2001:db8:1::/48")), Some(net("2001:db8::/32")));
        assert_eq!(covering.find(net("2001:db9::/32")), None);
    }
}
