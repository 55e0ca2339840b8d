//! What all connections share: the rules in force, the live state, the counters, the way to the log.

use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use portcullis_identity::Verifier;
use portcullis_model::{ClientIp, LoginOutcome, RecordText, RequestId, RequestRecord, VerdictKind};
use portcullis_policy::{LiveState, Place};

use crate::guard::{Clients, Lobby, Watch};
use crate::tls::{CertificateStatus, Challenges, Tls};
use crate::{Clock, EdgeMetrics, Identities, PoolState, descriptors, ruleset::Ruleset};

/// Where records go, each with whether its client asked not to be tracked. Must not wait.
pub type Recorder = Box<dyn Fn(RequestRecord, bool) + Send + Sync>;

/// A request as the detector sees it: when its outcome is known, and before the client has the whole answer, so that
/// what it sends next is judged by this too.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    pub id: RequestId,
    pub client: ClientIp,
    /// The status that the client is sent; 0 when nothing can be sent.
    pub status: u16,
    /// Body bytes to the client, as far as the answer's head tells.
    pub bytes_out: u64,
    pub verdict: VerdictKind,
    /// How the login ended, if it was one.
    pub login: Option<LoginOutcome>,
    pub text: &'a RecordText,
    /// The client asked not to be tracked, and that is honoured.
    pub asks_for_privacy: bool,
}

/// Looks at every request once. On the request path: must not wait.
pub type Observer = Box<dyn Fn(&Seen<'_>) + Send + Sync>;

/// Says where a client is. Asked on the request path if a rule wants to know: must not wait.
pub type Places = Box<dyn Fn(ClientIp) -> Place + Send + Sync>;

/// What the edge is handed by the rest of the program.
pub struct Callbacks {
    pub observe: Observer,
    pub record: Recorder,
    pub place: Places,
}

/// One for the life of the gateway.
pub struct Edge {
    pub(crate) rules: ArcSwap<Ruleset>,
    pub(crate) tls: Tls,
    pub state: Arc<LiveState>,
    pub identities: Identities,
    pub metrics: EdgeMetrics,
    pub clock: Clock,
    pub(crate) watch: Watch,
    pub(crate) clients: Clients,
    pub(crate) lobby: Lobby,
    /// How many connections from clients the process has descriptors for.
    pub(crate) max_sockets: usize,
    callbacks: Callbacks,
}

impl Edge {
    pub(crate) fn new(
        rules: Ruleset,
        tls: Tls,
        state: Arc<LiveState>,
        clock: Clock,
        callbacks: Callbacks,
    ) -> Self {
        Self {
            rules: ArcSwap::from_pointee(rules),
            tls,
            state,
            identities: Identities::default(),
            metrics: EdgeMetrics::default(),
            clock,
            watch: Watch::default(),
            clients: Clients::default(),
            lobby: Lobby::default(),
            max_sockets: descriptors::for_clients(),
            callbacks,
        }
    }

    /// Counts a request that has ended and hands its record to the log. The detector is not shown it: another process
    /// did that, or [`Self::observe`].
    pub fn finish(&self, record: RequestRecord) {
        self.finish_as_wished(record, false);
    }

    /// The same for a client that may have `asked` not to be tracked, where that is honoured.
    pub(crate) fn finish_as_wished(&self, record: RequestRecord, asked: bool) {
        self.metrics.count(record.verdict, record.status, record.latency_us);
        self.metrics.count_reason(&record.reason, record.verdict);
        (self.callbacks.record)(record, asked);
    }

    /// Shows a request to the detector.
    pub(crate) fn observe(&self, seen: &Seen<'_>) {
        (self.callbacks.observe)(seen);
    }

    pub(crate) fn place(&self, client: ClientIp) -> Place {
        (self.callbacks.place)(client)
    }

    /// How many clients have a connection open, trusted proxies not counted.
    pub fn clients(&self) -> usize {
        self.clients.len()
    }

    /// The certificates that clients get.
    pub fn certificates(&self) -> Vec<CertificateStatus> {
        self.tls.status()
    }

    /// What certificate authorities are answered.
    pub fn challenges(&self) -> &Arc<Challenges> {
        self.tls.challenges()
    }

    /// How often files of certificates were changed to something that cannot be used.
    pub fn certificate_failures(&self) -> u64 {
        self.tls.failures()
    }

    /// What verifies tokens at present.
    pub fn verifier(&self) -> Option<Arc<Verifier>> {
        self.rules.load().identity.as_ref().and_then(|identity| identity.verifier().cloned())
    }

    /// Each upstream as it is now.
    pub fn upstreams(&self) -> Vec<PoolState> {
        let now = Instant::now();
        self.rules.load().pools.iter().map(|pool| pool.state(now)).collect()
    }
}
