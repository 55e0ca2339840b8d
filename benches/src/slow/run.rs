//! One attack of slow clients: ordinary requests before, during and after it, and what it took.
//!
//! Owns the order of an attack and what is counted in it; starts the processes of the clients.

use std::collections::{HashMap, HashSet};
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};

use super::{Kind, Sources, sockets};
use crate::measure::{Clients, Generator, Sample, Size};
use crate::process::{Program, free_address, memory_of};

/// How long all slow connections may take to be opened.
const OPEN_TIME: Duration = Duration::from_secs(60);
/// How long the gateway may take to come to rest after that, how often it is looked at, and which part of a
/// worker thread's time is rest.
const SETTLE_TIME: Duration = Duration::from_secs(5);
const SETTLE_POLL: Duration = Duration::from_millis(250);
const QUIET_PART: u32 = 5;
/// How often the table of sockets and the memory are read.
const SOCKETS_POLL: Duration = Duration::from_millis(500);
const MEMORY_POLL: Duration = Duration::from_millis(100);
/// Beyond the deadline; what is held longer than that counts as never closed.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Who is attacked, and how ordinary requests are made meanwhile.
pub struct Ground<'a> {
    pub gateway: &'a Program,
    pub plain: SocketAddr,
    pub tls: SocketAddr,
    pub certificate: PathBuf,
    pub generator: &'a Generator,
    pub visitors: &'a Clients,
    pub load: Size,
}

/// What is done to the gateway.
#[derive(Clone, Debug)]
pub struct Attack {
    pub kinds: Vec<Kind>,
    pub connections_each: usize,
    pub sources: Sources,
    pub pause: Duration,
    /// When a connection must be gone, from the moment in which it began to be slow.
    pub deadline: Duration,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub before: Sample,
    pub during: Sample,
    pub after: Sample,
    /// Slow connections that were asked for; that began to be slow.
    pub wanted: usize,
    pub began: usize,
    /// Held by the gateway when the ordinary load began, and when it had ended.
    pub held: [usize; 2],
    /// Of those that were seen held: the latest beyond its deadline, and how many were never closed.
    pub latest: Duration,
    pub never_closed: usize,
    /// Of the gateway, without mapped files, in bytes: before, at the most, after.
    pub memory: [u64; 3],
    /// The most that the kernel held in buffers of TCP sockets, of all processes, in bytes.
    pub kernel: u64,
}

impl Outcome {
    /// Ordinary requests per second, as a share of those without the attack.
    pub fn rate(&self) -> f64 {
        2.0 * self.during.throughput() / (self.before.throughput() + self.after.throughput())
    }

    /// CPU time of the gateway per ordinary request, as a multiple of that without the attack.
    pub fn cost(&self) -> f64 {
        2.0 * self.during.cpu_us() / (self.before.cpu_us() + self.after.cpu_us())
    }

    /// Bytes that the gateway grew by at the most.
    pub fn growth(&self) -> u64 {
        self.memory[1].saturating_sub(self.memory[0])
    }
}

impl Ground<'_> {
    /// One ordinary load that nobody measures.
    ///
    /// # Errors
    /// When an ordinary request fails.
    pub fn warm_up(&self) -> anyhow::Result<()> {
        self.ordinary().map(drop)
    }

    /// Runs one attack to its end.
    ///
    /// # Errors
    /// When a process cannot be started or an ordinary request fails.
    pub fn run(&self, attack: &Attack) -> anyhow::Result<Outcome> {
        let before = self.ordinary()?;
        let at_first = self.gateway.memory()?.anonymous;
        let peak = Peak::watch(self.gateway.pid());
        let attackers: Vec<Attacker> =
            attack.kinds.iter().map(|&kind| self.start(attack, kind)).collect::<Result<_, _>>()?;
        let opened = Instant::now() + OPEN_TIME;
        while !attackers.iter().all(Attacker::has_opened) {
            if Instant::now() > opened {
                bail!("the slow connections were not opened within {} s", OPEN_TIME.as_secs());
            }
            std::thread::sleep(MEMORY_POLL);
        }
        self.settle()?;
        let mut watch = Watch { deadline: attack.deadline, ..Watch::default() };
        let held_first = watch.look(&self.addresses(), &attackers)?;
        let during = self.ordinary()?;
        let held_last = watch.look(&self.addresses(), &attackers)?;
        let patience = Instant::now() + attack.deadline + PATIENCE;
        while watch.look(&self.addresses(), &attackers)? > 0 && Instant::now() < patience {
            std::thread::sleep(SOCKETS_POLL);
        }
        let began = attackers.iter().map(Attacker::began).sum();
        drop(attackers);
        let (most, kernel) = peak.end();
        let after = self.ordinary()?;
        Ok(Outcome {
            before,
            during,
            after,
            wanted: attack.kinds.len() * attack.connections_each,
            began,
            held: [held_first, held_last],
            latest: watch.latest,
            never_closed: watch.held.len(),
            memory: [at_first, most, self.gateway.memory()?.anonymous],
            kernel,
        })
    }

    /// Waits until the gateway has done what opening the connections made it do: what they cost while they
    /// hang is the question.
    fn settle(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + SETTLE_TIME;
        let mut before = self.gateway.cpu()?;
        loop {
            std::thread::sleep(SETTLE_POLL);
            let now = self.gateway.cpu()?;
            if now.saturating_sub(before) < SETTLE_POLL / QUIET_PART || Instant::now() > deadline {
                return Ok(());
            }
            before = now;
        }
    }

    fn addresses(&self) -> [SocketAddr; 2] {
        [self.plain, self.tls]
    }

    fn ordinary(&self) -> anyhow::Result<Sample> {
        let sample = self.generator.measure(self.gateway, self.plain, self.visitors, self.load)?;
        if sample.answered == 0 || sample.failed + sample.refused > 0 {
            bail!(
                "void: of the ordinary requests {} were answered, {} of them refused, {} had no answer",
                sample.answered,
                sample.refused,
                sample.failed
            );
        }
        Ok(sample)
    }

    fn start(&self, attack: &Attack, kind: Kind) -> anyhow::Result<Attacker> {
        let target = if kind.needs_tls() { self.tls } else { self.plain };
        let sources = match attack.sources {
            Sources::Spread => "spread",
            Sources::One => "one",
        };
        let mut command = own_program("clients")?;
        command
            .args(["--kind", kind.name(), "--sources", sources])
            .args(["--target", &target.to_string()])
            .args(["--connections", &attack.connections_each.to_string()])
            .args(["--pause-ms", &attack.pause.as_millis().to_string()])
            .arg("--certificate")
            .arg(&self.certificate);
        Attacker::start(command)
    }
}

/// This program, to be started again as one of its parts.
///
/// # Errors
/// When the operating system does not tell where it is.
pub fn own_program(part: &str) -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("cannot tell where this program is")?);
    command.arg(part);
    Ok(command)
}

/// The process of the server behind the gateway; ends when it is dropped.
pub struct SlowUpstream {
    child: Child,
    pub address: SocketAddr,
}

impl SlowUpstream {
    /// # Errors
    /// When it cannot be started.
    pub fn start() -> anyhow::Result<Self> {
        let mut child = own_program("upstream")?.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        let output = child.stdout.take().context("no standard output")?;
        BufReader::new(output).read_line(&mut line)?;
        let address = line.trim().strip_prefix("LISTENS ").and_then(|address| address.parse().ok());
        Ok(Self { child, address: address.context("the upstream did not say where it listens")? })
    }
}

impl Drop for SlowUpstream {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A process of slow clients; its connections end when it is dropped.
struct Attacker {
    child: Child,
    said: Arc<Said>,
}

#[derive(Default)]
struct Said {
    opened: AtomicBool,
    /// When each connection began to be slow.
    began: Mutex<HashMap<SocketAddrV4, SystemTime>>,
}

impl Attacker {
    fn start(mut command: Command) -> anyhow::Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let output = child.stdout.take().context("no standard output")?;
        let said = Arc::new(Said::default());
        let listener = Arc::clone(&said);
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                listener.note(&line);
            }
            // A process that has ended opens no more.
            listener.opened.store(true, Ordering::Relaxed);
        });
        Ok(Self { child, said })
    }

    fn has_opened(&self) -> bool {
        self.said.opened.load(Ordering::Relaxed)
    }

    fn began(&self) -> usize {
        self.said.lock().len()
    }
}

impl Drop for Attacker {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

impl Said {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<SocketAddrV4, SystemTime>> {
        self.began.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, line: &str) {
        let mut words = line.split(' ');
        match (words.next(), words.next(), words.next()) {
            (Some("HELD"), Some(address), Some(millis)) => {
                if let (Ok(address), Ok(millis)) = (address.parse(), millis.parse()) {
                    self.lock().insert(address, UNIX_EPOCH + Duration::from_millis(millis));
                }
            }
            (Some("OPENED"), _, _) => self.opened.store(true, Ordering::Relaxed),
            _ => {}
        }
    }
}

/// Sees the connections go.
#[derive(Default)]
struct Watch {
    deadline: Duration,
    held: HashSet<SocketAddrV4>,
    latest: Duration,
}

impl Watch {
    /// Returns how many slow connections the gateway holds now.
    fn look(&mut self, servers: &[SocketAddr], attackers: &[Attacker]) -> anyhow::Result<usize> {
        let table = sockets::held(servers)?;
        let now = SystemTime::now();
        let mut held = HashSet::new();
        for attacker in attackers {
            let began = attacker.said.lock();
            for (address, &at) in began.iter() {
                if table.contains(address) {
                    held.insert(*address);
                } else if self.held.contains(address) {
                    let late = now.duration_since(at + self.deadline).unwrap_or_default();
                    self.latest = self.latest.max(late);
                }
            }
        }
        self.held = held;
        Ok(self.held.len())
    }
}

/// The most memory that a process, and the kernel for all TCP sockets, have had since they were watched.
struct Peak {
    most: Arc<[AtomicU64; 2]>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Peak {
    fn watch(pid: u32) -> Self {
        let (most, stop) = (Arc::<[AtomicU64; 2]>::default(), Arc::new(AtomicBool::new(false)));
        let (peak, stopped) = (Arc::clone(&most), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let [process, kernel] = &*peak;
            while !stopped.load(Ordering::Relaxed) {
                // A process that is gone is found out by whoever asks it for something.
                process.fetch_max(memory_of(pid).unwrap_or_default().anonymous, Ordering::Relaxed);
                kernel.fetch_max(sockets::kernel_memory(), Ordering::Relaxed);
                std::thread::sleep(MEMORY_POLL);
            }
        });
        Self { most, stop, thread }
    }

    fn end(self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.join();
        let [process, kernel] = &*self.most;
        (process.load(Ordering::Relaxed), kernel.load(Ordering::Relaxed))
    }
}

/// The configuration of a gateway under attack: short deadlines, and room for all connections.
///
/// # Errors
/// When a path is no text, or no port is free.
pub fn config(
    upstream: SocketAddr,
    listen: [SocketAddr; 2],
    certificate: (&Path, &Path),
    deadline: Duration,
    extra: &str,
) -> anyhow::Result<String> {
    let [plain, tls] = listen;
    let metrics = free_address()?;
    let text = |path: &Path| path.to_str().map(ToOwned::to_owned).context("a path is no text");
    let (certificate, key) = (text(certificate.0)?, text(certificate.1)?);
    let seconds = deadline.as_secs();
    Ok(format!(
        r#"mode = "enforce"

[[upstream]]
name = "app"
servers = ["http://{upstream}"]

[server]
listen = ["{plain}"]
threads = 1
trusted_proxies = ["127.0.0.1"]
head_timeout = "{seconds}s"
body_timeout = "{seconds}s"
keepalive_timeout = "{seconds}s"
max_connections = 20000
{extra}

[[server.tls]]
listen = "{tls}"
http2 = true
certificates = [{{ cert = "{certificate}", key = "{key}" }}]

[[limit]]
name = "every-request"
rate = "10000000/1m"

[console]
listen = "off"

[metrics]
listen = "{metrics}"
"#
    ))
}
