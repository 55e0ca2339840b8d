//! What becomes of a record before it goes to the log's queue.
//!
//! Owns the order: who has opted out, which texts stay, which address is written. On the request path: without
//! anything to hide it allocates nothing and takes no lock. Must not let anything through when a part fails.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;
use std::sync::LazyLock;

use arc_swap::{ArcSwap, ArcSwapOption};
use portcullis_config::{Config, Privacy};
use portcullis_detect::Signatures;
use portcullis_geo::Geo;
use portcullis_model::{ClientIp, Location, RecordText, RequestRecord, TextFields, UnixMs, normalise_path};
use portcullis_privacy::{Anonymise, Kind, is_pseudonym, truncate};
use portcullis_store::OptOut;

use super::addresses::Addresses;
use super::keys::Keys;
use super::lasting;
use super::opt_outs::OptOuts;

/// The parameter that says which attack stood in a value that was hidden or left out.
const ATTACK: &str = "[attack]=";

/// One for the life of the gateway.
pub(crate) struct Recording {
    pub(super) config: Arc<ArcSwap<Config>>,
    geo: Arc<ArcSwap<Geo>>,
    keys: Keys,
    addresses: ArcSwap<Addresses>,
    /// `None` as long as nobody has opted out by name.
    opt_outs: ArcSwapOption<OptOuts>,
    /// Made when first needed: ordinary requests never need it.
    signatures: LazyLock<Signatures>,
}

impl Recording {
    pub(crate) fn new(
        data: &Path,
        config: Arc<ArcSwap<Config>>,
        geo: Arc<ArcSwap<Geo>>,
        now: UnixMs,
    ) -> Self {
        let keys = Keys::new(data);
        keys.destroy_old(now);
        let addresses = addresses_of(&config.load(), now);
        Self {
            config,
            geo,
            keys,
            addresses: ArcSwap::from_pointee(addresses),
            opt_outs: ArcSwapOption::empty(),
            signatures: LazyLock::new(Signatures::builtin),
        }
    }

    /// The record as it may be written. `asked`: the client asked not to be tracked, and that is honoured.
    pub(crate) fn prepare(&self, mut record: RequestRecord, asked: bool) -> RequestRecord {
        let config = self.config.load();
        let privacy = &config.privacy;
        let (client, text) = (record.client, &record.text);
        let has_opted_out = asked || self.has_opted_out(privacy, client, text.user(), Some(text.path()));
        if let Some(text) = self.text(privacy, &record.text, has_opted_out) {
            record.text = text;
        }
        if privacy.anonymise != Anonymise::None || has_opted_out {
            let client = self.logged(privacy, record.client, record.id.time());
            self.addresses.load().learn(client, record.client);
            record.client = client;
        }
        record
    }

    /// Who is behind logged addresses.
    pub(crate) fn addresses(&self) -> arc_swap::Guard<Arc<Addresses>> {
        self.addresses.load()
    }

    /// What a change of the configuration means for the map of addresses: another window is another memory.
    pub(crate) fn reloaded(&self, old: &Config, new: &Config, now: UnixMs) {
        let span = |config: &Config| (config.detection.window, config.detection.interval);
        if span(old) != span(new) {
            self.addresses.store(Arc::new(addresses_of(new, now)));
        }
    }

    /// Takes over who has opted out by name.
    pub(crate) fn set_opt_outs(&self, data: &Path, opt_outs: Vec<OptOut>) {
        let all = match (opt_outs.is_empty(), lasting::read(data)) {
            (true, _) => None,
            (false, Ok(Some(key))) => OptOuts::new(key, opt_outs),
            (false, Ok(None)) => {
                tracing::error!(
                    "privacy.key is gone from the data folder: nobody's opt-out can be recognised any more"
                );
                return;
            }
            (false, Err(error)) => {
                tracing::error!("opt-outs are not taken over: {error:#}");
                return;
            }
        };
        self.opt_outs.store(all.map(Arc::new));
    }

    /// Destroys what has had its time.
    pub(crate) fn tick(&self, now: UnixMs) {
        self.keys.destroy_old(now);
    }

    /// Where a client of the log is. Of an anonymous one the network is looked up, and told is what many share.
    pub(crate) fn location(&self, logged: ClientIp) -> Location {
        let geo = self.geo.load();
        if !is_pseudonym(logged) {
            return Location::clone(&geo.lookup(logged));
        }
        let Some(client) = self.addresses.load().one_of(logged) else { return Location::default() };
        let Location { country, asn, isp, .. } = Location::clone(&geo.lookup(truncate(client)));
        Location { country, asn, isp, ..Location::default() }
    }

    /// `path`: of one request, if it is about one.
    pub(super) fn has_opted_out(
        &self,
        privacy: &Privacy,
        client: ClientIp,
        user: &str,
        path: Option<&str>,
    ) -> bool {
        if let Some(opt_outs) = self.opt_outs.load().as_deref()
            && opt_outs.has(client, user)
        {
            return true;
        }
        if let Some(path) = path.filter(|_| !privacy.opt_out_paths.is_empty()) {
            let path = normalise_path(path.as_bytes());
            if privacy.opt_out_paths.iter().any(|pattern| pattern.matches(&path)) {
                return true;
            }
        }
        if privacy.opt_out_countries.is_empty() || is_pseudonym(client) {
            return false;
        }
        // The network is enough to tell the country, and all that a source elsewhere needs to hear.
        let location = self.geo.load().lookup(truncate(client));
        // Whoever's country is not known may be from there.
        location
            .country
            .as_ref()
            .is_none_or(|country| privacy.opt_out_countries.binary_search(country).is_ok())
    }

    /// The address that is written. Who opts out while others are not anonymous gets a pseudonym, because a
    /// browser's setting must not be a way around the detector; see docs/decisions/.
    pub(super) fn logged(&self, privacy: &Privacy, client: ClientIp, now: UnixMs) -> ClientIp {
        match privacy.anonymise {
            // A row of the process before this one, or what was a pseudonym already.
            _ if is_pseudonym(client) => client,
            Anonymise::Truncate => truncate(client),
            Anonymise::None | Anonymise::Hash => {
                self.keys.with(privacy.hash_rotation, now, |key| key.pseudonym(Kind::Row, client))
            }
        }
    }

    /// The texts that are written; `None` when they are as they were.
    fn text(&self, privacy: &Privacy, text: &RecordText, has_opted_out: bool) -> Option<RecordText> {
        let keeps = |is_logged: bool| is_logged && !has_opted_out;
        let path = privacy.redact.path(text.path());
        let query = self.query(privacy, text.query(), has_opted_out);
        let referer = match keeps(privacy.log_referer) {
            true => privacy.redact.url(text.referer()),
            false => Cow::Borrowed(""),
        };
        let user_agent = match keeps(privacy.log_user_agent) {
            true => text.user_agent(),
            // A scanner's name is nobody's.
            false if has_opted_out => self
                .signatures_of(text.user_agent())
                .and_then(|all| all.attack_in_agent(text.user_agent()))
                .unwrap_or(""),
            false => "",
        };
        let user = if keeps(privacy.log_user) { text.user() } else { "" };
        let is_same = *path == *text.path()
            && *query == *text.query()
            && *referer == *text.referer()
            && user_agent == text.user_agent()
            && user == text.user();
        if is_same {
            return None;
        }
        Some(RecordText::new(TextFields {
            method: text.method().as_bytes(),
            host: text.host().as_bytes(),
            path: path.as_bytes(),
            query: query.as_bytes(),
            user_agent: user_agent.as_bytes(),
            referer: referer.as_bytes(),
            user: user.as_bytes(),
        }))
    }

    /// The query without its secrets, or nothing of it. Of an attack that goes with them the signature's own
    /// words stay, so that nobody hides an injection by sending it as a password.
    pub(super) fn query<'t>(&self, privacy: &Privacy, query: &'t str, has_opted_out: bool) -> Cow<'t, str> {
        if !privacy.log_query {
            return Cow::Borrowed("");
        }
        let hidden = match has_opted_out {
            true => Cow::Borrowed(""),
            false => privacy.redact.query(query),
        };
        if *hidden == *query {
            return hidden;
        }
        let attack = self.signatures.attack_in_query(query);
        match attack.filter(|_| self.signatures.attack_in_query(&hidden).is_none()) {
            Some(pattern) => Cow::Owned(with_attack(&hidden, pattern)),
            None => hidden,
        }
    }

    pub(super) fn signatures_of(&self, text: &str) -> Option<&Signatures> {
        (!text.is_empty()).then_some(&*self.signatures)
    }
}

fn addresses_of(config: &Config, now: UnixMs) -> Addresses {
    Addresses::new(config.detection.window, config.detection.interval, now)
}

/// Adds a pattern as a parameter that no form has, percent-encoded.
fn with_attack(query: &str, pattern: &str) -> String {
    use std::fmt::Write as _;

    let separator = if query.is_empty() { "" } else { "&" };
    let mut out = format!("{query}{separator}{ATTACK}");
    for byte in pattern.bytes() {
        // Writing into a String cannot fail.
        let _ = match byte {
            b'a'..=b'z' | b'0'..=b'9' => write!(out, "{}", char::from(byte)),
            byte => write!(out, "%{byte:02X}"),
        };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_attack_that_can_stand_in_a_secret_is_found_again_in_what_is_written() {
        let signatures = Signatures::builtin();
        let mut count = 0;
        for signature in signatures.all() {
            let Some((_, query)) = signature.example.split_once('?') else { continue };
            let Some(pattern) = signatures.attack_in_query(query) else { continue };
            let written = with_attack("token=[redacted]", pattern);
            // A longer one may begin before it.
            let found = signatures.attack_in_query(&written);
            assert!(found.is_some_and(|found| found.contains(pattern)), "{written}: {found:?}");
            count += 1;
        }
        assert!(count > 10, "{count}");
    }
}
