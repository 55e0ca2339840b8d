//! The text of `/metrics`: reads the counters that the crates keep, adds nothing of its own but names.
//! Label values come from closed sets; nothing that a client sent is ever one.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use portcullis_detect::ForestHealth;
use portcullis_geo::{AnswerKind, Geo};
use portcullis_identity::{Sessions, TokenFault};
use portcullis_model::{ConnectionLimit, LoginOutcome, MalformedKind, Severity, UnixMs, VerdictKind};
use portcullis_policy::Mode;
use portcullis_proxy::{CLASSES, CircuitState, Edge, FORWARDING_HEADERS, LATENCY_BUCKETS_US, RuleCounter};
use portcullis_store::LogStats;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::alerts::{AlertStats, ChannelStats};
use crate::bots::LookupStats;
use crate::counts::CountsStats;
use crate::detection::{LiveStats, Outcome};
use crate::feeds::FeedState;
use crate::identity::KeySetStats;
use crate::privacy::KeptBlocks;
use crate::tasks::TaskStats;

/// Counters of what the binary itself does.
#[derive(Default)]
pub(crate) struct AppStats {
    reloads: [AtomicU64; ReloadOutcome::ALL.len()],
    last_reload_failed: AtomicU64,
    overridden: AtomicU64,
    detector: Mutex<DetectorStats>,
    pub(crate) acme: Arc<portcullis_acme::Stats>,
    pub(crate) alerts: Arc<AlertStats>,
    pub(crate) key_set: Arc<KeySetStats>,
    pub(crate) tasks: Arc<TaskStats>,
    pub(crate) counts: Arc<CountsStats>,
    pub(crate) live: Arc<LiveStats>,
    feeds: Mutex<Vec<FeedState>>,
    pub(crate) bots: Arc<LookupStats>,
}

#[derive(Clone, Debug, Default)]
struct DetectorStats {
    succeeded: u64,
    failed: u64,
    last_seconds: f64,
    findings: [u64; Severity::ALL.len()],
    /// Of the last run; `None`: the forest had no say.
    forest: Option<ForestStats>,
}

#[derive(Clone, Copy, Debug)]
struct ForestStats {
    training_rows: usize,
    threshold: f64,
    scored: usize,
    flagged: usize,
    drift: f64,
}

impl ForestStats {
    fn of(health: &ForestHealth) -> Option<Self> {
        match health {
            ForestHealth::Off { .. } => None,
            ForestHealth::Scored { training_rows, threshold, scored, flagged, drift, .. } => Some(Self {
                training_rows: *training_rows,
                threshold: *threshold,
                scored: *scored,
                flagged: *flagged,
                drift: drift.as_ref().map_or(f64::NAN, |drift| drift.by),
            }),
        }
    }
}

impl ForestStats {
    fn write(self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Clients that the isolation forest was trained on";
        gauge(encoder, "portcullis_forest_training_rows", help, self.training_rows as f64)?;
        let help = "The score above which a client is odd";
        gauge(encoder, "portcullis_forest_threshold", help, self.threshold)?;
        let help = "Clients that the isolation forest scored in the last run";
        gauge(encoder, "portcullis_forest_scored", help, self.scored as f64)?;
        let help = "Of these, the ones that it found odd";
        gauge(encoder, "portcullis_forest_odd", help, self.flagged as f64)?;
        let help = "How far ordinary clients have moved since the training, in ranges of the middle 90 %";
        gauge(encoder, "portcullis_forest_drift", help, self.drift)
    }
}

/// What became of a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReloadOutcome {
    Applied,
    Unchanged,
    Rejected,
}

impl ReloadOutcome {
    const ALL: [Self; 3] = [Self::Applied, Self::Unchanged, Self::Rejected];

    fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Unchanged => "unchanged",
            Self::Rejected => "rejected",
        }
    }
}

impl AppStats {
    pub(crate) fn reloaded(&self, outcome: ReloadOutcome) {
        self.reloads[outcome as usize].fetch_add(1, Ordering::Relaxed);
        self.last_reload_failed.store(u64::from(outcome == ReloadOutcome::Rejected), Ordering::Relaxed);
    }

    /// So many settings have another value than the file's.
    pub(crate) fn set_overridden(&self, settings: usize) {
        self.overridden.store(settings as u64, Ordering::Relaxed);
    }

    pub(crate) fn set_feeds(&self, states: Vec<FeedState>) {
        *self.feeds.lock() = states;
    }

    /// As they were looked at last.
    pub(crate) fn feeds(&self) -> Vec<FeedState> {
        self.feeds.lock().clone()
    }

    pub(crate) fn detected(&self, result: &anyhow::Result<Outcome>) {
        let mut detector = self.detector.lock();
        match result {
            Ok(outcome) => {
                detector.succeeded += 1;
                detector.last_seconds = outcome.took.as_secs_f64();
                detector.forest = ForestStats::of(&outcome.report.forest);
                for (_, finding) in &outcome.done.saved {
                    detector.findings[finding.severity as usize] += 1;
                }
            }
            Err(_) => detector.failed += 1,
        }
    }
}

/// Everything that is rendered.
pub(crate) struct Sources {
    pub(crate) edge: Arc<Edge>,
    pub(crate) log: Arc<LogStats>,
    pub(crate) geo: Arc<arc_swap::ArcSwap<Geo>>,
    pub(crate) app: Arc<AppStats>,
    pub(crate) kept_blocks: Arc<KeptBlocks>,
    pub(crate) started: UnixMs,
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sources")
    }
}

/// A closure that renders the metrics in the OpenMetrics text format.
pub(crate) fn renderer(sources: Sources) -> Box<dyn Fn() -> String + Send + Sync> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(sources));
    Box::new(move || {
        let mut text = String::new();
        // Writing into a String cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &registry);
        text
    })
}

type Labels<const N: usize> = [(&'static str, String); N];
type NoLabels = Labels<0>;

/// Writes one family; the encoder adds `_total` to the names of counters.
struct Family<'a>(MetricEncoder<'a>);

impl<'a> Family<'a> {
    fn new(
        encoder: &'a mut DescriptorEncoder<'_>,
        name: &'a str,
        help: &str,
        kind: MetricType,
    ) -> Result<Self, fmt::Error> {
        encoder.encode_descriptor(name, help, None, kind).map(Self)
    }

    fn count<const N: usize>(&mut self, labels: Labels<N>, value: u64) -> fmt::Result {
        self.0.encode_family(&labels)?.encode_counter::<NoLabels, _, u64>(&value, None)
    }

    fn gauge<const N: usize>(&mut self, labels: Labels<N>, value: f64) -> fmt::Result {
        self.0.encode_family(&labels)?.encode_gauge(&value)
    }
}

impl Collector for Sources {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        self.requests(encoder)?;
        self.policy(encoder)?;
        self.log(encoder)?;
        self.detector(encoder)?;
        self.feeds(encoder)?;
        self.bots(encoder)?;
        self.tasks(encoder)?;
        self.alerts(encoder)?;
        self.certificates(encoder)?;
        self.identity(encoder)?;
        self.upstreams(encoder)?;
        self.geo(encoder)?;
        self.rest(encoder)
    }
}

fn counter(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    encoder
        .encode_descriptor(name, help, None, MetricType::Counter)?
        .encode_counter::<NoLabels, _, u64>(&value, None)
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: f64) -> fmt::Result {
    encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
}

impl Sources {
    fn requests(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Requests that have ended, by verdict and by the class of the status sent";
        let mut family = Family::new(encoder, "portcullis_requests", help, MetricType::Counter)?;
        for verdict in VerdictKind::ALL {
            for (class, name) in CLASSES.into_iter().enumerate() {
                let labels = [("verdict", verdict.to_string()), ("class", name.to_owned())];
                family.count(labels, self.edge.metrics.requests(verdict, class))?;
            }
        }
        let latency = self.edge.metrics.latency();
        let bounds = LATENCY_BUCKETS_US.into_iter().map(|us| us as f64 / 1e6).chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(latency.counts).collect();
        let count = latency.counts.iter().sum();
        let help = "From the first byte of a request to the last byte of its answer";
        encoder
            .encode_descriptor("portcullis_request_duration_seconds", help, None, MetricType::Histogram)?
            .encode_histogram::<NoLabels>(latency.sum_us as f64 / 1e6, count, &buckets, None)?;
        let open = self.edge.metrics.connections() as f64;
        gauge(encoder, "portcullis_connections_open", "Connections from clients that are open", open)?;
        self.connections(encoder)?;
        let help = "Requests with a forwarding header from a peer that is not a trusted proxy";
        let mut family = Family::new(encoder, "portcullis_forwarding_ignored", help, MetricType::Counter)?;
        for (n, header) in FORWARDING_HEADERS.into_iter().enumerate() {
            family.count([("header", header.to_owned())], self.edge.metrics.ignored_forwarding(n))?;
        }
        Ok(())
    }

    fn connections(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let metrics = &self.edge.metrics;
        let clients = self.edge.clients() as f64;
        let help = "Clients with open connections, trusted proxies not counted";
        gauge(encoder, "portcullis_connections_clients", help, clients)?;
        let help = "Connections that were closed because there were too many, by the limit";
        let mut family = Family::new(encoder, "portcullis_connections_shed", help, MetricType::Counter)?;
        for limit in ConnectionLimit::ALL {
            family.count([("limit", limit.as_str().to_owned())], metrics.shed(*limit))?;
        }
        let help = "Connections of blocked clients that were closed before the TLS handshake";
        counter(encoder, "portcullis_connections_dropped", help, metrics.dropped())?;
        let help = "What was refused as malformed, by why";
        let mut family = Family::new(encoder, "portcullis_malformed", help, MetricType::Counter)?;
        for kind in MalformedKind::ALL {
            family.count([("kind", kind.as_str().to_owned())], metrics.malformed(*kind))?;
        }
        Ok(())
    }

    fn policy(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let (addresses, prefixes) = self.edge.state.blocks.len();
        let mut blocks =
            Family::new(encoder, "portcullis_blocks_active", "Blocks in force", MetricType::Gauge)?;
        blocks.gauge([("kind", "address".to_owned())], addresses as f64)?;
        blocks.gauge([("kind", "prefix".to_owned())], prefixes as f64)?;
        let (users, anonymous) = self.edge.state.parties.len();
        blocks.gauge([("kind", "user".to_owned())], users as f64)?;
        blocks.gauge([("kind", "anonymous".to_owned())], anonymous as f64)?;
        let help = "Blocks in force that refuse nobody, because the key of the hash under which they are kept is missing";
        gauge(encoder, "portcullis_blocks_unenforced", help, self.kept_blocks.unenforced() as f64)?;
        let help = "Requests that a rule of the configuration refused, or would have in dry-run";
        let mut refusals = Family::new(encoder, "portcullis_rule_refusals", help, MetricType::Counter)?;
        for (counter, count) in self.edge.metrics.rules() {
            let RuleCounter { kind, rule, is_dry_run } = counter;
            let mode = if is_dry_run { Mode::DryRun } else { Mode::Enforce };
            let labels =
                [("kind", kind.to_owned()), ("rule", rule.to_string()), ("mode", mode.as_str().to_owned())];
            refusals.count(labels, count)?;
        }
        let subjects = self.edge.state.under_way.subjects() as f64;
        let help = "Clients with requests under way that limits of concurrency count";
        gauge(encoder, "portcullis_limiter_under_way", help, subjects)?;
        let limiter = self.edge.state.limiter.stats();
        gauge(encoder, "portcullis_limiter_keys", "Clients counted by limits", limiter.keys as f64)?;
        gauge(encoder, "portcullis_limiter_bytes", "Memory of the limiter", limiter.bytes as f64)?;
        let help = "Bytes written so that counts of limits survive a restart";
        counter(encoder, "portcullis_limiter_journal_written_bytes", help, self.app.counts.written())?;
        let help = "Whether counts of limits cannot be written, so that a restart would forget them";
        let is_failing = f64::from(u8::from(self.app.counts.is_failing()));
        gauge(encoder, "portcullis_limiter_journal_failing", help, is_failing)?;
        counter(
            encoder,
            "portcullis_limiter_evictions",
            "Counts given up early because the limiter was full",
            limiter.evictions,
        )
    }

    fn log(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let log = &self.log;
        gauge(
            encoder,
            "portcullis_log_queue_depth",
            "Records that wait for the writer",
            log.queued() as f64,
        )?;
        counter(encoder, "portcullis_log_rows_written", "Rows committed to the log", log.written())?;
        counter(encoder, "portcullis_log_rows_lost", "Records that the log had no room for", log.dropped())?;
        counter(
            encoder,
            "portcullis_log_write_errors",
            "Batches that could not be committed",
            log.write_errors(),
        )?;
        counter(
            encoder,
            "portcullis_log_enrichment_panics",
            "Rows stored without a location or a judgement because that panicked",
            log.enrichment_panics(),
        )?;
        counter(
            encoder,
            "portcullis_limit_events_dropped",
            "Limit events that had no room in their minute",
            log.limit_events_dropped(),
        )?;
        gauge(encoder, "portcullis_log_bytes", "Size of the log on disk", log.bytes_on_disk() as f64)
    }

    fn detector(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let stats = self.app.detector.lock().clone();
        let mut runs =
            Family::new(encoder, "portcullis_detector_runs", "Runs of the detector", MetricType::Counter)?;
        runs.count([("outcome", "succeeded".to_owned())], stats.succeeded)?;
        runs.count([("outcome", "failed".to_owned())], stats.failed)?;
        let help = "How long the last run of the detector took";
        gauge(encoder, "portcullis_detector_duration_seconds", help, stats.last_seconds)?;
        let help = "Findings by severity; one that is found again counts again";
        let mut findings = Family::new(encoder, "portcullis_detector_findings", help, MetricType::Counter)?;
        for severity in Severity::ALL {
            findings.count([("severity", severity.to_string())], stats.findings[severity as usize])?;
        }
        if let Some(forest) = stats.forest {
            forest.write(encoder)?;
        }
        self.live(encoder)
    }

    fn live(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let live = &self.app.live;
        let help = "Clients that were found to be worse at request time, by the severity that they reached";
        let mut alarms = Family::new(encoder, "portcullis_detector_alarms", help, MetricType::Counter)?;
        for severity in Severity::ALL {
            alarms.count([("severity", severity.to_string())], live.alarms(severity))?;
        }
        let help =
            "Clients that were refused from the request after an alarm on, and those without room for that";
        let mut holds = Family::new(encoder, "portcullis_detector_holds", help, MetricType::Counter)?;
        holds.count([("outcome", "held".to_owned())], live.holds())?;
        holds.count([("outcome", "no_room".to_owned())], live.not_held())?;
        let help = "Clients that are held until their block is in force";
        gauge(encoder, "portcullis_detector_held", help, self.edge.state.caught.len() as f64)?;
        let help = "Alarms that were lost; the next run of the detector finds what they were about";
        counter(encoder, "portcullis_detector_alarms_lost", help, live.dropped())?;
        let (written, seconds) = live.written();
        let help = "Alarms that were written to the state database";
        counter(encoder, "portcullis_detector_alarms_written", help, written)?;
        let help = "Seconds from alarm to row, of all alarms that were written together";
        encoder
            .encode_descriptor("portcullis_detector_alarms_written_seconds", help, None, MetricType::Counter)?
            .encode_counter::<NoLabels, _, u64>(&seconds, None)?;
        let help = "Clients that the detector remembers at request time";
        gauge(encoder, "portcullis_detector_clients", help, live.clients() as f64)?;
        let help =
            "Clients that are not held at request time, since a person has dismissed what was found of them";
        gauge(encoder, "portcullis_detector_dismissed", help, live.dismissed() as f64)?;
        let help = "Clients that it forgot because there were too many";
        counter(encoder, "portcullis_detector_clients_forgotten", help, live.forgotten())
    }

    fn tasks(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let tasks = self.app.tasks.all();
        let label = |name: &str| [("task", name.to_owned())];
        let help = "Runs of a task that the gateway began";
        let mut runs = Family::new(encoder, "portcullis_task_runs", help, MetricType::Counter)?;
        for (name, stat) in &tasks {
            for (outcome, count) in [("succeeded", stat.succeeded), ("failed", stat.failed)] {
                runs.count([("task", (*name).to_owned()), ("outcome", outcome.to_owned())], count)?;
            }
        }
        let help = "When a task last ended well, in seconds since 1970; 0 is never";
        let name = "portcullis_task_last_success_timestamp_seconds";
        let mut last = Family::new(encoder, name, help, MetricType::Gauge)?;
        for (name, stat) in &tasks {
            last.gauge(label(name), stat.last_success.map_or(0.0, |at| at.0 as f64 / 1e3))?;
        }
        let help = "How long the last run of a task took";
        let mut took = Family::new(encoder, "portcullis_task_duration_seconds", help, MetricType::Gauge)?;
        for (name, stat) in &tasks {
            if let Some(span) = stat.took {
                took.gauge(label(name), span.as_secs_f64())?;
            }
        }
        let help = "For how long a task has been running; 0 is not at all";
        let mut running = Family::new(encoder, "portcullis_task_running_seconds", help, MetricType::Gauge)?;
        for (name, stat) in &tasks {
            running
                .gauge(label(name), stat.running_since.map_or(0.0, |since| since.elapsed().as_secs_f64()))?;
        }
        Ok(())
    }

    /// The names of channels come from the configuration.
    fn alerts(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let channels = self.app.alerts.all();
        let help = "Messages to people, by channel and by whether they arrived";
        let mut messages = Family::new(encoder, "portcullis_alerts_messages", help, MetricType::Counter)?;
        for (name, channel) in &channels {
            for (outcome, count) in [("sent", channel.sent), ("failed", channel.failed)] {
                messages.count([("channel", name.clone()), ("outcome", outcome.to_owned())], count)?;
            }
        }
        type Gauge = (&'static str, &'static str, fn(&ChannelStats) -> u64);
        let gauges: [Gauge; 3] = [
            ("portcullis_alerts_waiting", "Events that a channel has not been told of yet", |channel| {
                channel.waiting
            }),
            (
                "portcullis_alerts_failing",
                "Whether the last message of a channel did not arrive",
                |channel| u64::from(channel.is_failing),
            ),
            ("portcullis_alerts_lost", "Events that a channel will never be told of", |channel| channel.lost),
        ];
        for (name, help, value) in gauges {
            let mut family = Family::new(encoder, name, help, MetricType::Gauge)?;
            for (channel, stats) in &channels {
                family.gauge([("channel", channel.clone())], value(stats) as f64)?;
            }
        }
        Ok(())
    }

    fn bots(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Clients that called themselves a crawler and of which DNS was asked, by what came of it";
        let mut lookups = Family::new(encoder, "portcullis_bot_lookups", help, MetricType::Counter)?;
        let LookupStats { confirmed, refuted, unsettled, dropped } = &*self.app.bots;
        for (outcome, counter) in
            [("confirmed", confirmed), ("refuted", refuted), ("unsettled", unsettled), ("dropped", dropped)]
        {
            lookups.count([("outcome", outcome.to_owned())], counter.load(Ordering::Relaxed))?;
        }
        Ok(())
    }

    fn feeds(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let feeds = self.app.feeds();
        let label = |feed: &FeedState| [("feed", feed.name.to_string())];
        let help = "Networks of a feed that are in force";
        let mut entries = Family::new(encoder, "portcullis_feed_entries", help, MetricType::Gauge)?;
        for feed in &feeds {
            entries.gauge(label(feed), feed.entries as f64)?;
        }
        let help = "When a feed was last fetched or found unchanged, in seconds since 1970";
        let name = "portcullis_feed_last_success_seconds";
        let mut fetched = Family::new(encoder, name, help, MetricType::Gauge)?;
        for feed in &feeds {
            fetched.gauge(label(feed), feed.fetched_at.map_or(0.0, |at| at.0 as f64 / 1e3))?;
        }
        let help = "Whether the last try to fetch a feed failed";
        let mut failing = Family::new(encoder, "portcullis_feed_failing", help, MetricType::Gauge)?;
        for feed in &feeds {
            failing.gauge(label(feed), f64::from(u8::from(feed.is_failing)))?;
        }
        let help = "Tries to fetch a feed that failed";
        let mut failures = Family::new(encoder, "portcullis_feed_failures", help, MetricType::Counter)?;
        for feed in &feeds {
            failures.count(label(feed), feed.failures)?;
        }
        Ok(())
    }

    fn certificates(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "When the certificate in use expires, in seconds since 1970";
        let name = "portcullis_tls_certificate_expiry_seconds";
        let mut expiry = Family::new(encoder, name, help, MetricType::Gauge)?;
        for certificate in self.edge.certificates() {
            let Some(facts) = certificate.facts else { continue };
            let name = facts.names.into_iter().next().unwrap_or_default();
            let source = certificate.source.as_str().to_owned();
            let labels = [("listen", certificate.listen.to_string()), ("name", name), ("source", source)];
            expiry.gauge(labels, facts.not_after.0 as f64 / 1e3)?;
        }
        let help = "Changed certificate files that could not be used";
        let failures = self.edge.certificate_failures();
        counter(encoder, "portcullis_tls_certificate_reload_failures", help, failures)?;
        let help = "Orders of certificates from the authority";
        let mut orders = Family::new(encoder, "portcullis_acme_orders", help, MetricType::Counter)?;
        orders.count([("outcome", "issued".to_owned())], self.app.acme.issued())?;
        orders.count([("outcome", "failed".to_owned())], self.app.acme.failed())
    }

    fn identity(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let live = &self.edge.identities;
        let help = "Tokens by what came of them; whoever has a bad one is anonymous";
        let mut tokens = Family::new(encoder, "portcullis_identity_tokens", help, MetricType::Counter)?;
        tokens.count([("outcome", "accepted".to_owned())], live.tokens.accepted())?;
        for fault in TokenFault::ALL {
            tokens.count([("outcome", fault.as_str().to_owned())], live.tokens.refused(fault))?;
        }
        let help = "Of the accepted tokens, those whose signature had been computed before";
        counter(encoder, "portcullis_identity_tokens_remembered", help, live.tokens.remembered())?;
        let help = "Signatures that were computed, of good tokens and bad ones";
        counter(encoder, "portcullis_identity_signatures", help, live.tokens.signatures())?;
        let sessions = live.sessions().map_or(0, Sessions::len);
        gauge(encoder, "portcullis_identity_sessions", "Sessions that are known", sessions as f64)?;
        let help = "Requests with several values of the session's cookie, which are anonymous";
        counter(encoder, "portcullis_identity_ambiguous_cookies", help, live.ambiguous_cookies())?;
        let help = "Logins that were seen to end";
        let mut logins = Family::new(encoder, "portcullis_identity_logins", help, MetricType::Counter)?;
        for outcome in LoginOutcome::ALL {
            logins.count([("outcome", outcome.as_str().to_owned())], live.logins(*outcome))?;
        }
        let keys = self.app.key_set.get();
        gauge(encoder, "portcullis_identity_published_keys", "Keys of the issuer", keys.keys as f64)?;
        let help = "When the issuer's keys were read, in seconds since 1970; 0 is never";
        let read_at = keys.read_at.unwrap_or(0) as f64 / 1e3;
        gauge(encoder, "portcullis_identity_published_keys_read_seconds", help, read_at)?;
        let help = "Reads of the issuer's keys";
        let mut reads = Family::new(encoder, "portcullis_identity_key_reads", help, MetricType::Counter)?;
        reads.count([("outcome", "succeeded".to_owned())], keys.refreshed)?;
        reads.count([("outcome", "failed".to_owned())], keys.failed)
    }

    fn upstreams(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let pools = self.edge.upstreams();
        let help = "Servers of an upstream that answer";
        let mut healthy = Family::new(encoder, "portcullis_upstream_healthy", help, MetricType::Gauge)?;
        for pool in &pools {
            let count = pool.servers.iter().filter(|server| server.answers()).count();
            healthy.gauge([("upstream", pool.name.to_string())], count as f64)?;
        }
        let help = "Requests that wait for a server that is not full";
        let mut waiting = Family::new(encoder, "portcullis_upstream_waiting", help, MetricType::Gauge)?;
        for pool in &pools {
            waiting.gauge([("upstream", pool.name.to_string())], pool.waiting as f64)?;
        }
        let help = "The state of an upstream's circuit breaker: 1 for the one that it is in";
        let mut circuits = Family::new(encoder, "portcullis_upstream_circuit", help, MetricType::Gauge)?;
        for pool in &pools {
            let Some(circuit) = pool.circuit else { continue };
            for state in CircuitState::ALL {
                let labels = [("upstream", pool.name.to_string()), ("state", state.as_str().to_owned())];
                circuits.gauge(labels, f64::from(u8::from(state == circuit)))?;
            }
        }
        let servers = || {
            pools.iter().flat_map(|pool| {
                pool.servers.iter().map(|server| {
                    let labels =
                        [("upstream", pool.name.to_string()), ("server", server.address.to_string())];
                    (labels, server)
                })
            })
        };
        let help = "Whether a server answers";
        let mut up = Family::new(encoder, "portcullis_upstream_server_up", help, MetricType::Gauge)?;
        for (labels, server) in servers() {
            up.gauge(labels, f64::from(u8::from(server.answers())))?;
        }
        let help = "Requests that a server is serving";
        let mut active = Family::new(encoder, "portcullis_upstream_server_active", help, MetricType::Gauge)?;
        for (labels, server) in servers() {
            active.gauge(labels, server.active as f64)?;
        }
        let help = "Requests that a server gave no proper answer to";
        let name = "portcullis_upstream_server_failures";
        let mut failures = Family::new(encoder, name, help, MetricType::Counter)?;
        for (labels, server) in servers() {
            failures.count(labels, server.failures)?;
        }
        Ok(())
    }

    fn geo(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let geo = self.geo.load();
        let stats = geo.stats();
        let mut lookups =
            Family::new(encoder, "portcullis_geo_lookups", "Look-ups of locations", MetricType::Counter)?;
        for (result, count) in [("hit", stats.hits), ("miss", stats.misses), ("unknown", stats.unknown)] {
            lookups.count([("result", result.to_owned())], count)?;
        }
        let help = "Questions to geo sources, by what came of them";
        let mut answers = Family::new(encoder, "portcullis_geo_source_answers", help, MetricType::Counter)?;
        let sources = geo.source_stats();
        for source in &geo.settings().sources {
            for outcome in AnswerKind::ALL {
                let labels =
                    [("source", source.kind.as_str().to_owned()), ("outcome", outcome.as_str().to_owned())];
                answers.count(labels, sources.answers(source.kind, outcome))?;
            }
        }
        let help = "Addresses that wait for a geo source";
        gauge(encoder, "portcullis_geo_source_waiting", help, geo.waiting() as f64)?;
        let help = "Addresses that no geo source was asked about, or none answered for";
        counter(encoder, "portcullis_geo_source_dropped", help, sources.dropped())
    }

    fn rest(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Reloads of the configuration";
        let mut reloads = Family::new(encoder, "portcullis_config_reloads", help, MetricType::Counter)?;
        for outcome in ReloadOutcome::ALL {
            let count = self.app.reloads[outcome as usize].load(Ordering::Relaxed);
            reloads.count([("outcome", outcome.as_str().to_owned())], count)?;
        }
        let good = 1 - self.app.last_reload_failed.load(Ordering::Relaxed).min(1);
        let help = "Whether the newest configuration is in force";
        gauge(encoder, "portcullis_config_last_reload_successful", help, good as f64)?;
        let help = "Settings that were changed while running and win over the configuration file";
        let overridden = self.app.overridden.load(Ordering::Relaxed);
        gauge(encoder, "portcullis_config_overridden_settings", help, overridden as f64)?;
        let help = "When the gateway started, in seconds since 1970";
        gauge(encoder, "portcullis_start_time_seconds", help, self.started.0 as f64 / 1e3)?;
        let help = "The version that runs";
        let mut build = Family::new(encoder, "portcullis_build_info", help, MetricType::Gauge)?;
        build.gauge(
            [
                ("version", env!("CARGO_PKG_VERSION").to_owned()),
                ("rustc", env!("CARGO_PKG_RUST_VERSION").to_owned()),
            ],
            1.0,
        )
    }
}
