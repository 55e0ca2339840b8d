//! The thread `portcullis-bots`: asks DNS, a few clients at a time, each with a deadline. Must not be on the way of
//! a request. Names in answers are strangers' text: they are compared and shown, never used for anything else.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::system_conf::read_system_conf;
use portcullis_config::Bots as Settings;
use portcullis_detect::bots::{Lookup, Next, Outcome, Refusal, Reverse};
use tokio::sync::{Semaphore, mpsc};

use super::names::{Answers, MAX_AT_ONCE, Question};

const THREAD: &str = "portcullis-bots";
/// Questions of one client, one after the other, at most: its names, then the addresses of those, at once.
const QUESTIONS: u32 = 2;
/// Tries of one question.
const TRIES: u32 = 2;
/// Records of one answer that are looked at.
const MAX_RECORDS: usize = 64;
/// Answers that the library remembers for us; we remember what follows from them.
const LIBRARY_CACHE: u64 = 64;

/// Begins to answer questions, until nobody can ask any more.
///
/// # Errors
/// The system says nobody who could be asked, or no thread can be made.
pub(super) fn start(
    settings: &Settings,
    questions: mpsc::Receiver<Question>,
    answers: Answers,
) -> anyhow::Result<()> {
    let (servers, mut options) = match settings.resolver {
        Some(address) => (ResolverConfig::from_name_servers(vec![server(address)]), ResolverOpts::default()),
        None => read_system_conf().context("/etc/resolv.conf cannot be used")?,
    };
    options.timeout = settings.timeout;
    options.attempts = TRIES as usize - 1;
    options.cache_size = LIBRARY_CACHE;
    // What this machine calls others proves nothing.
    options.use_hosts_file = ResolveHosts::Never;
    let deadline = settings.timeout.saturating_mul(QUESTIONS * TRIES);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let work = move || {
        runtime.block_on(async {
            let mut builder = TokioResolver::builder_with_config(servers, TokioRuntimeProvider::default());
            *builder.options_mut() = options;
            match builder.build() {
                Ok(resolver) => answer_all(Asker::new(resolver, deadline), questions, answers).await,
                Err(error) => tracing::warn!("DNS is not asked for crawlers: {error}"),
            }
        });
    };
    std::thread::Builder::new().name(THREAD.to_owned()).spawn(work).context("no thread can be made")?;
    Ok(())
}

fn server(address: SocketAddr) -> NameServerConfig {
    let at = |mut connection: ConnectionConfig| {
        connection.port = address.port();
        connection
    };
    NameServerConfig::new(address.ip(), true, vec![at(ConnectionConfig::udp()), at(ConnectionConfig::tcp())])
}

async fn answer_all(asker: Asker, mut questions: mpsc::Receiver<Question>, answers: Answers) {
    let (asker, room) = (Arc::new(asker), Arc::new(Semaphore::new(MAX_AT_ONCE)));
    while let Some(question) = questions.recv().await {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
        let (asker, answers) = (Arc::clone(&asker), answers.clone());
        tokio::spawn(async move {
            let outcome = tokio::time::timeout(asker.deadline, asker.ask(&question.check)).await;
            answers.take(question, outcome.unwrap_or(Outcome::Unsettled));
            drop(place);
        });
    }
}

struct Asker {
    resolver: TokioResolver,
    deadline: Duration,
    /// Whether this resolver has ever known the name of any address. One that has not may be one that knows
    /// nothing of the Internet: what it denies is not believed.
    has_named: AtomicBool,
}

impl Asker {
    fn new(resolver: TokioResolver, deadline: Duration) -> Self {
        Self { resolver, deadline, has_named: AtomicBool::new(false) }
    }

    async fn ask(&self, check: &Reverse) -> Outcome {
        let names = self.names(check.client()).await;
        if matches!(&names, Lookup::Found(_)) {
            self.has_named.store(true, Ordering::Relaxed);
        }
        let asked = match check.named(names) {
            Next::Done(Outcome::Refuted(Refusal::NoName)) if !self.has_named.load(Ordering::Relaxed) => {
                return Outcome::Unsettled;
            }
            Next::Done(outcome) => return outcome,
            Next::AskAddresses(names) => names,
        };
        let is_v4 = check.client().is_ipv4();
        let answers = asked.into_iter().map(|name| async move {
            let addresses = self.addresses(&name, is_v4).await;
            (name, addresses)
        });
        check.addressed(futures_util::future::join_all(answers).await)
    }

    async fn names(&self, client: IpAddr) -> Lookup<Vec<String>> {
        self.records(Name::from(client), RecordType::PTR, |data| match data {
            RData::PTR(name) => Some(name.0.to_ascii()),
            _ => None,
        })
        .await
    }

    async fn addresses(&self, name: &str, is_v4: bool) -> Lookup<Vec<IpAddr>> {
        let Ok(mut name) = Name::from_ascii(name) else { return Lookup::Absent };
        name.set_fqdn(true);
        let kind = if is_v4 { RecordType::A } else { RecordType::AAAA };
        let found = self
            .records(name, kind, |data| match data {
                RData::A(address) => Some(IpAddr::V4(address.0)),
                RData::AAAA(address) => Some(IpAddr::V6(address.0)),
                _ => None,
            })
            .await;
        match found {
            // What resolvers answer that keep their users from a name.
            Lookup::Found(addresses)
                if addresses.iter().all(|ip| ip.is_unspecified() || ip.is_loopback()) =>
            {
                Lookup::Failed
            }
            found => found,
        }
    }

    async fn records<T>(
        &self,
        name: Name,
        kind: RecordType,
        read: impl Fn(&RData) -> Option<T>,
    ) -> Lookup<Vec<T>> {
        match self.resolver.lookup(name, kind).await {
            Ok(answer) => {
                let records = answer.answers().iter().take(MAX_RECORDS);
                let found: Vec<T> = records.filter_map(|record| read(&record.data)).collect();
                if found.is_empty() { Lookup::Absent } else { Lookup::Found(found) }
            }
            Err(error) => nothing(&error),
        }
    }
}

fn nothing<T>(error: &NetError) -> Lookup<T> {
    if error.is_no_records_found() { Lookup::Absent } else { Lookup::Failed }
}
