//! What blocks of somebody behind an address need of other crates: how the database's changes become the policy's,
//! and how the detector's signatures look at one request. Must not decide.

use std::sync::{Arc, LazyLock};

use arc_swap::ArcSwap;
use portcullis_config::Config;
use portcullis_detect::{Asked, Look as Looks, Signatures, glance};
use portcullis_policy::{Glance, Look, PartyChange, RequestFacts};

pub(crate) fn change(change: portcullis_store::PartyChange) -> PartyChange {
    match change {
        portcullis_store::PartyChange::Added(block) => {
            PartyChange::Add { party: block.party, id: block.id, expires_at: block.expires_at }
        }
        portcullis_store::PartyChange::Removed { id, party } => PartyChange::Remove { party, id },
    }
}

/// Looks at the requests of anonymous clients from an address under a block.
pub(crate) fn look(config: &Arc<ArcSwap<Config>>) -> Look {
    let config = Arc::clone(config);
    // Most gateways never ask.
    let signatures = LazyLock::new(Signatures::builtin);
    Box::new(move |facts: &RequestFacts<'_>| {
        let (path, query) = (String::from_utf8_lossy(facts.raw_path), String::from_utf8_lossy(facts.query));
        let asked = Asked { method: facts.method, path: &path, query: &query, user_agent: facts.user_agent };
        let config = config.load();
        // The paths of [identity] may be others than those that the detector knows.
        let logs_in = || {
            facts.method.eq_ignore_ascii_case("POST")
                && config.identity.logins.paths.iter().any(|path| path.matches(&facts.path))
        };
        match glance(&config.detection, &signatures, &asked) {
            Looks::Ordinary if logs_in() => Glance::Login,
            Looks::Ordinary => Glance::Ordinary,
            Looks::Login => Glance::Login,
            Looks::Attack => Glance::Attack,
        }
    })
}
