//! One address, prefix or range per line. What follows after a blank is ignored, as some lists add counts.

use std::net::IpAddr;

use ipnet::{IpNet, IpSubnets, Ipv4Subnets, Ipv6Subnets};
use portcullis_model::{ClientIp, network_of};

use super::{Entry, Reading, lines, reason};
use crate::ListError;

/// A range that needs more prefixes than this is no honest range.
const MAX_PREFIXES: usize = 256;

pub(super) fn read(bytes: &[u8], reading: &mut Reading<'_>) -> Result<(), ListError> {
    for (number, line) in lines(bytes) {
        let (said, comment) = match line.find(['#', ';']) {
            Some(at) => (&line[..at], line[at + 1..].trim_start_matches(['#', ';', ' '])),
            None => (&*line, ""),
        };
        let said = said.trim();
        if said.is_empty() {
            continue;
        }
        reading.line();
        match networks(said) {
            Err(problem) => reading.bad(number, said, problem),
            Ok(networks) => {
                for network in networks {
                    reading.entry(Entry { network, reason: reason(comment), expires: None })?;
                }
            }
        }
    }
    Ok(())
}

/// The networks of a line without its comment.
fn networks(said: &str) -> Result<Networks, String> {
    if let Some((from, to)) = said.split_once('-')
        && let (Some(from), Some(to)) = (address(from.trim()), address(first_word(to.trim())))
    {
        return range(from, to);
    }
    network_of(first_word(said)).map(|network| Networks::One(Some(network)))
}

fn first_word(text: &str) -> &str {
    text.split([' ', '\t', ',']).next().unwrap_or(text)
}

fn address(text: &str) -> Option<IpAddr> {
    text.parse().ok().map(|ip| ClientIp::new(ip).ip())
}

fn range(from: IpAddr, to: IpAddr) -> Result<Networks, String> {
    let subnets = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) if from <= to => IpSubnets::from(Ipv4Subnets::new(from, to, 0)),
        (IpAddr::V6(from), IpAddr::V6(to)) if from <= to => IpSubnets::from(Ipv6Subnets::new(from, to, 0)),
        _ => return Err(format!("the range {from}-{to} ends before it begins")),
    };
    let networks: Vec<IpNet> = subnets.take(MAX_PREFIXES + 1).collect();
    match networks.len() <= MAX_PREFIXES {
        true => Ok(Networks::Many(networks.into_iter())),
        false => Err(format!("the range {from}-{to} takes more than {MAX_PREFIXES} prefixes")),
    }
}

/// Without an allocation for the line with one network, which nearly all are.
enum Networks {
    One(Option<IpNet>),
    Many(std::vec::IntoIter<IpNet>),
}

impl Iterator for Networks {
    type Item = IpNet;

    fn next(&mut self) -> Option<IpNet> {
        match self {
            Self::One(network) => network.take(),
            Self::Many(networks) => networks.next(),
        }
    }
}
