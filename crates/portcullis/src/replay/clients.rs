//! What every client did and what would have become of it, in bounded memory; who of them looks innocent.
//! Must not decide what becomes of a request.

use std::collections::HashMap;
use std::net::IpAddr;

use portcullis_detect::{BotStatus, Observation, is_asset};
use portcullis_model::{ClientIp, UnixMs, normalise_path};

/// The most clients that are told apart; of further ones only the flagged ones are, and the totals count all.
pub(crate) const MAX_CLIENTS: usize = 500_000;
/// What a browser does that a program rarely does: it fetches what pages are made of, from pages, and finds them.
const HUMAN_ASSET_SHARE: f64 = 0.1;
const HUMAN_ASSETS: u32 = 2;
const HUMAN_REFERER_SHARE: f64 = 0.2;
const HUMAN_ERROR_SHARE: f64 = 0.3;
/// Pages of a client that are told apart.
const PAGES: usize = 4;

/// Why a request would have been refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// By a block that the detector would have made.
    Detector,
    /// By a `[[block]]` of the configuration.
    Listed,
    /// By a rule of the access list.
    Denied,
    /// By a limit.
    Limited,
}

impl Refused {
    pub(crate) const ALL: [Self; 4] = [Self::Detector, Self::Listed, Self::Denied, Self::Limited];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Detector => "blocked by the detector",
            Self::Listed => "refused by [[block]]",
            Self::Denied => "denied by the access list",
            Self::Limited => "limited",
        }
    }
}

/// What a client looks like by what it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Looks {
    /// It fetches pages with what belongs to them.
    Human,
    /// Its address is in a network that a crawler's operator publishes.
    VerifiedBot,
    /// Nothing speaks for it.
    Unknown,
}

/// One client: an IPv4 address, or an IPv6 /64.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    /// The address that it was seen with first.
    pub(crate) address: ClientIp,
    pub(crate) first: UnixMs,
    pub(crate) requests: u32,
    /// By [`Refused`].
    pub(crate) refused: [u32; Refused::ALL.len()],
    pub(crate) first_refused: Option<UnixMs>,
    /// The highest score of the forest; below zero: none.
    pub(crate) score: f32,
    is_verified_bot: bool,
    assets: u32,
    with_referer: u32,
    errors: u32,
    /// Hashes of the first distinct pages that it found; zero is none.
    pages: [u32; PAGES],
}

impl Tally {
    fn new(address: ClientIp, first: UnixMs) -> Self {
        Self {
            address,
            first,
            requests: 0,
            refused: [0; Refused::ALL.len()],
            first_refused: None,
            score: -1.0,
            is_verified_bot: false,
            assets: 0,
            with_referer: 0,
            errors: 0,
            pages: [0; PAGES],
        }
    }

    fn count(&mut self, seen: &Observation<'_>) {
        self.requests = self.requests.saturating_add(1);
        self.is_verified_bot |= seen.bot == BotStatus::Verified;
        let path = normalise_path(seen.path.as_bytes());
        let is_asset = is_asset(&path);
        self.assets += u32::from(is_asset);
        self.with_referer += u32::from(!matches!(seen.referer, "" | "-"));
        self.errors += u32::from(!is_asset && (400..500).contains(&seen.status));
        if !is_asset && matches!(seen.status, 200..=299 | 304) {
            let hash = fnv1a(path.as_bytes()).max(1);
            if let Some(free) = self.pages.iter_mut().find(|page| **page == 0 || **page == hash) {
                *free = hash;
            }
        }
    }

    pub(crate) fn pages(&self) -> usize {
        self.pages.iter().filter(|page| **page != 0).count()
    }

    pub(crate) fn asset_share(&self) -> f64 {
        share(self.assets, self.requests)
    }

    pub(crate) fn referer_share(&self) -> f64 {
        share(self.with_referer, self.requests)
    }

    pub(crate) fn refused_requests(&self) -> u64 {
        self.refused.iter().map(|&count| u64::from(count)).sum()
    }

    pub(crate) fn refused_by(&self, why: Refused) -> u32 {
        self.refused[why as usize]
    }

    pub(crate) fn refuse(&mut self, why: Refused, at: UnixMs) {
        let count = &mut self.refused[why as usize];
        *count = count.saturating_add(1);
        self.first_refused.get_or_insert(at);
    }

    pub(crate) fn score(&self) -> Option<f64> {
        (self.score >= 0.0).then_some(f64::from(self.score))
    }

    pub(crate) fn looks(&self) -> Looks {
        let is_human = self.assets >= HUMAN_ASSETS
            && self.asset_share() > HUMAN_ASSET_SHARE
            && self.referer_share() > HUMAN_REFERER_SHARE
            && self.pages() > 0
            && share(self.errors, self.requests) < HUMAN_ERROR_SHARE;
        match (self.is_verified_bot, is_human) {
            (true, _) => Looks::VerifiedBot,
            (false, true) => Looks::Human,
            (false, false) => Looks::Unknown,
        }
    }
}

fn share(part: u32, whole: u32) -> f64 {
    f64::from(part) / f64::from(whole.max(1))
}

/// FNV-1a, 32 bits: tells a few pages apart, protects nothing.
fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, &byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// All clients, by [`ClientIp::limit_key`].
#[derive(Debug, Default)]
pub(crate) struct Clients {
    slots: HashMap<IpAddr, u32>,
    tallies: Vec<Tally>,
    /// Requests of clients for which there was no room.
    pub(crate) requests_of_others: u64,
}

impl Clients {
    /// Counts a request for its client; `None` when there is no room for it.
    pub(crate) fn count(&mut self, seen: &Observation<'_>) -> Option<&mut Tally> {
        let key = seen.client.limit_key();
        let slot = match self.slots.get(&key) {
            Some(&slot) => slot as usize,
            None if self.tallies.len() >= MAX_CLIENTS => {
                self.requests_of_others += 1;
                return None;
            }
            None => {
                self.slots.insert(key, self.tallies.len() as u32);
                self.tallies.push(Tally::new(seen.client, seen.time));
                self.tallies.len() - 1
            }
        };
        let tally = &mut self.tallies[slot];
        tally.count(seen);
        Some(tally)
    }

    pub(crate) fn get(&self, client: ClientIp) -> Option<&Tally> {
        self.slots.get(&client.limit_key()).map(|&slot| &self.tallies[slot as usize])
    }

    pub(crate) fn get_mut(&mut self, client: ClientIp) -> Option<&mut Tally> {
        self.slots.get(&client.limit_key()).map(|&slot| &mut self.tallies[slot as usize])
    }

    /// In the order in which they came.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Tally> {
        self.tallies.iter()
    }

    pub(crate) fn len(&self) -> usize {
        self.tallies.len()
    }
}

#[cfg(test)]
mod tests {
    use portcullis_model::VerdictKind;

    use super::*;

    fn seen<'a>(path: &'a str, status: u16, referer: &'a str) -> Observation<'a> {
        Observation {
            time: UnixMs(1_666_016_061_000),
            client: "192.0.2.1".parse().unwrap(),
            status,
            verdict: VerdictKind::Admitted,
            bytes_out: 1,
            method: "GET",
            host: "",
            path,
            query: "",
            user_agent: "",
            referer,
            user: "",
            login: None,
            bot: BotStatus::None,
        }
    }

    fn looks(requests: &[Observation<'_>]) -> Looks {
        let mut clients = Clients::default();
        requests.iter().for_each(|request| {
            clients.count(request);
        });
        clients.iter().next().unwrap().looks()
    }

    #[test]
    fn a_browser_looks_like_a_person_and_a_scanner_or_a_script_does_not() {
        let page = "https://shop.example/";
        let browser = [
            seen("/", 200, ""),
            seen("/a.css", 200, page),
            seen("/logo.PNG", 200, page),
            seen("/b", 200, page),
        ];
        assert_eq!(looks(&browser), Looks::Human);
        let script = [seen("/", 200, ""), seen("/feed", 200, ""), seen("/feed", 304, "")];
        assert_eq!(looks(&script), Looks::Unknown);
        let scanner = [seen("/.env", 404, page), seen("/a.css", 404, page), seen("/x.js", 404, page)];
        assert_eq!(looks(&scanner), Looks::Unknown);
        let crawler = [Observation { bot: BotStatus::Verified, ..seen("/", 200, "") }];
        assert_eq!(looks(&crawler), Looks::VerifiedBot);
    }

    #[test]
    fn pages_are_told_apart_up_to_a_few() {
        let mut clients = Clients::default();
        for n in 0..20 {
            let path = format!("/page/{}", n % 3);
            clients.count(&seen(&path, 200, ""));
        }
        assert_eq!(clients.iter().next().map(Tally::pages), Some(3));
    }
}
