//! The thread that gets and renews certificates, one after another. Requests never wait for it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use portcullis_config::{Acme as Settings, AcmeCertificate, format_duration};
use portcullis_model::UnixMs;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::certificate::Validity;
use crate::directory::{account, forget_account};
use crate::folder::{forget_progress, lock, progress, read, save_progress, write};
use crate::order::{Issued, order};
use crate::schedule::{back_off, due, is_due_already, rate_limited, renewal};
use crate::{AcmeError, Progress, Responder};

/// Between two looks at what is due, or whether another process has let go of the folder.
const SHORTEST_LOOK: Duration = Duration::from_millis(500);
/// The clock may have been put forward, or a file removed.
const LONGEST_LOOK: Duration = Duration::from_secs(60);
/// How long one order may take in all.
const ORDER_TIMEOUT: Duration = Duration::from_secs(180);

/// The wall clock.
type Now = Box<dyn Fn() -> UnixMs + Send>;

/// What became of orders since the start.
#[derive(Debug, Default)]
pub struct Stats {
    issued: AtomicU64,
    failed: AtomicU64,
}

impl Stats {
    pub fn issued(&self) -> u64 {
        self.issued.load(Ordering::Relaxed)
    }

    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }
}

/// The thread; [`Acme::stop`] ends it.
pub struct Acme {
    settings: watch::Sender<Option<Arc<Settings>>>,
    thread: JoinHandle<()>,
}

impl Acme {
    /// Starts with the first certificate that is due. Without settings it waits for some.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(
        settings: Option<Settings>,
        responder: Arc<dyn Responder>,
        stats: Arc<Stats>,
        now: Now,
        seed: u64,
    ) -> io::Result<Self> {
        let (sender, receiver) = watch::channel(settings.map(Arc::new));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut worker = Worker {
            settings: receiver,
            responder,
            now,
            random: fastrand::Rng::with_seed(seed),
            stats,
            lock: None,
        };
        let thread = std::thread::Builder::new().name("portcullis-acme".to_owned()).spawn(move || {
            worker.outlive_panics(&runtime);
            // A name server that does not answer must not hold up the end.
            runtime.shutdown_background();
        })?;
        Ok(Self { settings: sender, thread })
    }

    /// From the next order on. One that is under way goes on.
    pub fn apply(&self, settings: Option<&Settings>) {
        self.settings.send_if_modified(|current| {
            let is_new = current.as_deref() != settings;
            if is_new {
                *current = settings.cloned().map(Arc::new);
            }
            is_new
        });
    }

    /// Gives up an order that is under way.
    pub fn stop(self) {
        drop(self.settings);
        // A panic has been printed by the panic hook.
        let _ = self.thread.join();
    }
}

struct Worker {
    settings: watch::Receiver<Option<Arc<Settings>>>,
    responder: Arc<dyn Responder>,
    now: Now,
    random: fastrand::Rng,
    stats: Arc<Stats>,
    /// Two gateways on one folder would order everything twice.
    lock: Option<File>,
}

impl Worker {
    /// A bug must not end all renewals. The panic hook has said where it is.
    fn outlive_panics(&mut self, runtime: &Runtime) {
        while catch_unwind(AssertUnwindSafe(|| runtime.block_on(self.run()))).is_err() {
            tracing::error!("getting certificates panicked; it goes on in a minute");
            let _ = runtime.block_on(async {
                let mut stopping = self.settings.clone();
                tokio::time::timeout(LONGEST_LOOK, gone(&mut stopping)).await
            });
        }
    }

    /// Returns when the settings' sender is gone.
    async fn run(&mut self) {
        let mut complained = None;
        while self.settings.has_changed().is_ok() {
            let settings = self.settings.borrow_and_update().clone();
            let passed = match &settings {
                Some(settings) => self.pass(settings).await,
                None => Ok(LONGEST_LOOK),
            };
            let (pause, failed) = match passed {
                Ok(pause) => (pause, None),
                Err(error) => (LONGEST_LOOK, Some(error.to_string())),
            };
            if let Some(problem) = &failed
                && failed != complained
            {
                tracing::error!("certificates cannot be renewed: {problem}");
            }
            complained = failed;
            // Ends early when the settings change or the gateway ends; the loop sees which.
            let _ = tokio::time::timeout(pause, self.settings.changed()).await;
        }
    }

    /// Does what is due, one name after another; returns when to look again.
    async fn pass(&mut self, settings: &Arc<Settings>) -> Result<Duration, AcmeError> {
        if self.lock.is_none() {
            self.lock = lock(&settings.folder)?;
        }
        if self.lock.is_none() {
            return Ok(SHORTEST_LOOK);
        }
        let mut all = match progress(&settings.folder) {
            // Better to forget what was tried than never to renew again.
            Err(error @ AcmeError::Broken { .. }) => {
                tracing::error!("{error}; it is put aside, and what was tried is forgotten");
                forget_progress(&settings.folder)?;
                BTreeMap::new()
            }
            other => other?,
        };
        let mut next = None;
        for certificate in &settings.certificates {
            if self.due(settings, certificate, &all) <= (self.now)() {
                self.attempt(settings, certificate, &mut all).await?;
            }
            let due = self.due(settings, certificate, &all);
            next = Some(next.map_or(due, |next: UnixMs| next.min(due)));
            if !matches!(self.settings.has_changed(), Ok(false)) {
                return Ok(Duration::ZERO);
            }
        }
        let pause = next.map_or(LONGEST_LOOK, |next| next.since((self.now)()));
        Ok(pause.clamp(SHORTEST_LOOK, LONGEST_LOOK))
    }

    fn due(
        &self,
        settings: &Settings,
        certificate: &AcmeCertificate,
        all: &BTreeMap<String, Progress>,
    ) -> UnixMs {
        let unknown = Progress::default();
        due(all.get(&certificate.name).unwrap_or(&unknown), validity(certificate), settings)
    }

    /// One try, remembered before it begins: a gateway that crashes in it and starts again must not hammer the
    /// authority.
    async fn attempt(
        &mut self,
        settings: &Arc<Settings>,
        certificate: &AcmeCertificate,
        all: &mut BTreeMap<String, Progress>,
    ) -> Result<(), AcmeError> {
        let name = &certificate.name;
        let before = all.get(name).cloned();
        let mut entry = before.clone().unwrap_or_default();
        let (directory, challenge) = (settings.directory.clone(), settings.challenge.as_str().to_owned());
        if (&entry.directory, &entry.challenge) != (&directory, &challenge) {
            (entry.directory, entry.challenge, entry.failures) = (directory, challenge, 0);
        }
        let now = (self.now)();
        entry.failures = entry.failures.saturating_add(1);
        let wait = back_off(settings.retry, entry.failures, &mut self.random);
        (entry.last_try, entry.next_try) = (Some(now), Some(now.plus(wait)));
        entry.last_error = Some("the last try was interrupted".to_owned());
        all.insert(name.clone(), entry.clone());
        save_progress(&settings.folder, all)?;

        let tried = {
            let mut stopping = self.settings.clone();
            tokio::select! {
                tried = tokio::time::timeout(ORDER_TIMEOUT, self.issue(settings, certificate)) => {
                    Some(tried.unwrap_or(Err(AcmeError::Timeout)))
                }
                () = gone(&mut stopping) => None,
            }
        };
        let counter = match tried {
            // The gateway ends, and that is not the name's fault.
            None => {
                match before {
                    Some(before) => all.insert(name.clone(), before),
                    None => all.remove(name),
                };
                None
            }
            Some(tried) => {
                let (entry, counter) = self.settle(settings, name, entry, wait, tried);
                all.insert(name.clone(), entry);
                Some(counter)
            }
        };
        save_progress(&settings.folder, all)?;
        // Counted when it has been saved, so that who sees the count can read what happened.
        if let Some(counter) = counter {
            counter(&self.stats).fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// What is remembered and said of a try that came to its end.
    fn settle(
        &mut self,
        settings: &Settings,
        name: &str,
        mut entry: Progress,
        wait: Duration,
        tried: Result<Issued, AcmeError>,
    ) -> (Progress, fn(&Stats) -> &AtomicU64) {
        let now = (self.now)();
        match tried {
            Ok(issued) => {
                let renew_at = renewal(issued.validity, &mut self.random);
                entry.issued_by.clone_from(&settings.directory);
                (entry.failures, entry.last_error, entry.next_try) = (0, None, None);
                entry.renew_at = Some(renew_at);
                let renewed = rounded(renew_at.since(now));
                let directory = &settings.directory;
                tracing::info!("{directory} issued a certificate for {name}; it is renewed in {renewed}");
                (entry, |stats| &stats.issued)
            }
            Err(error) => {
                let wait = if error.is_rate_limited() { rate_limited(wait) } else { wait };
                entry.next_try = Some(now.plus(wait));
                entry.last_error = Some(error.to_string());
                tracing::warn!("no certificate for {name}: {error}; the next try is in {}", rounded(wait));
                (entry, |stats| &stats.failed)
            }
        }
    }

    async fn issue(&self, settings: &Settings, certificate: &AcmeCertificate) -> Result<Issued, AcmeError> {
        let issued = match self.order(settings, certificate).await {
            Err(error) if error.is_without_account() => {
                forget_account(settings)?;
                self.order(settings, certificate).await?
            }
            other => other?,
        };
        write(&certificate.file, issued.pem.as_bytes())?;
        // What would be due again at once has failed, however good it looks: orders without end are worse.
        if validity(certificate) != Some(issued.validity) {
            let file = certificate.file.display();
            return Err(AcmeError::Unusable(format!("it cannot be read back from {file}")));
        }
        if is_due_already(issued.validity, (self.now)()) {
            return Err(AcmeError::Clock);
        }
        Ok(issued)
    }

    async fn order(&self, settings: &Settings, certificate: &AcmeCertificate) -> Result<Issued, AcmeError> {
        let account = account(settings).await?;
        order(&account, &certificate.name, settings.challenge, &*self.responder).await
    }
}

/// Returns when nobody can change the settings any more.
async fn gone(settings: &mut watch::Receiver<Option<Arc<Settings>>>) {
    while settings.changed().await.is_ok() {}
}

/// Of the certificate that there is. One that cannot be read counts as none.
fn validity(certificate: &AcmeCertificate) -> Option<Validity> {
    let pem = read(&certificate.file).ok().flatten()?;
    Validity::of(&pem, &certificate.name).ok()
}

/// For people: a day more or less, or an hour, is not told in seconds.
fn rounded(span: Duration) -> String {
    let step = match span.as_secs() {
        86_400.. => 3_600,
        3_600.. => 60,
        _ => 1,
    };
    format_duration(Duration::from_secs(span.as_secs() / step * step))
}
