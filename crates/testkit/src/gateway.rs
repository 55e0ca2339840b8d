//! A gateway in a process of its own: configured, started, watched, ended.
//!
//! Owns the process and its temporary folder. Must not link the gateway's crates for running it: what
//! users have is the binary.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread;

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, kill_process_group, prlimit};
use tempfile::TempDir;

use crate::client::{Client, Response};
use crate::files::Data;
use crate::upstream::Upstream;
use crate::wait::eventually;

/// What a gateway is started with. Each part is a piece of its configuration file.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    binary: PathBuf,
    top: String,
    server: String,
    sections: String,
    has_upstream: bool,
    listen: Option<String>,
    data: Option<PathBuf>,
    args: Vec<String>,
    environment: Vec<(String, String)>,
}

impl GatewayConfig {
    /// `binary` is the program: `env!("CARGO_BIN_EXE_portcullis")`. Listens on a free port of 127.0.0.1.
    pub fn new(binary: &str) -> Self {
        Self {
            binary: binary.into(),
            top: String::new(),
            server: String::new(),
            sections: String::new(),
            has_upstream: false,
            listen: Some("127.0.0.1:0".to_owned()),
            data: None,
            args: Vec::new(),
            environment: Vec::new(),
        }
    }

    /// In front of one upstream.
    pub fn upstream(self, upstream: &Upstream) -> Self {
        self.upstream_with(&format!("servers = [\"{}\"]", upstream.url()))
    }

    /// An upstream named `app` with these lines.
    pub fn upstream_with(mut self, lines: &str) -> Self {
        self.has_upstream = true;
        self.section(&format!("[[upstream]]\nname = \"app\"\n{lines}"))
    }

    /// Lines before the first section, such as `mode = "dry-run"`.
    pub fn top(mut self, lines: &str) -> Self {
        self.top += &format!("{lines}\n");
        self
    }

    /// Lines of `[server]`.
    pub fn server(mut self, lines: &str) -> Self {
        self.server += &format!("{lines}\n");
        self
    }

    /// Believes 127.0.0.1 about the client's address, so that tests can come from anywhere.
    pub fn behind_local_proxy(self) -> Self {
        self.server("trusted_proxies = [\"127.0.0.1\"]")
    }

    /// Whole sections with their headers.
    pub fn section(mut self, lines: &str) -> Self {
        self.sections += &format!("{lines}\n");
        self
    }

    /// With the console, on a free port of 127.0.0.1.
    pub fn console(self) -> Self {
        self.console_with("")
    }

    /// The same with more lines of `[console]`.
    pub fn console_with(self, lines: &str) -> Self {
        self.section(&format!("[console]\nlisten = \"127.0.0.1:0\"\n{lines}"))
    }

    /// A limit with these lines, such as `rate = "3/5m"`.
    pub fn limit(self, name: &str, lines: &str) -> Self {
        self.section(&format!("[[limit]]\nname = \"{name}\"\n{lines}"))
    }

    /// Where the plain listener is.
    pub fn listen(mut self, address: &str) -> Self {
        self.listen = Some(address.to_owned());
        self
    }

    /// No plain listener: there is a `[[server.tls]]` among the sections.
    pub fn without_plaintext(mut self) -> Self {
        self.listen = None;
        self
    }

    /// Uses this data folder instead of one of its own.
    pub fn data(mut self, folder: &Path) -> Self {
        self.data = Some(folder.to_owned());
        self
    }

    /// More arguments for `portcullis run`.
    pub fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.to_owned());
        self
    }

    /// A variable of its environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The text of the configuration file.
    pub fn text(&self) -> String {
        let listen =
            self.listen.as_ref().map(|address| format!("listen = [\"{address}\"]\n")).unwrap_or_default();
        let upstream = match self.has_upstream || self.sections.contains("[[upstream]]") {
            true => "",
            // Nothing listens there.
            false => "[[upstream]]\nname = \"nowhere\"\nservers = [\"http://127.0.0.1:1\"]\n",
        };
        let Self { top, server, sections, .. } = self;
        let console = if sections.contains("[console]") { "" } else { "[console]\nlisten = \"off\"\n" };
        format!(
            "{top}[server]\n{listen}{server}{upstream}{sections}{console}[metrics]\nlisten = \"127.0.0.1:0\"\n"
        )
    }

    /// Runs the gateway until it ends by itself.
    pub fn run_to_end(&self) -> Output {
        let folder = TempDir::new().unwrap();
        let child = self.spawn(folder.path());
        let mut ending = Ending { child, folder: folder.path().to_owned() };
        let status = eventually("the gateway ends by itself", || ending.child.try_wait().unwrap());
        ending.output(status)
    }

    fn spawn(&self, folder: &Path) -> Child {
        let file = folder.join("portcullis.toml");
        fs::write(&file, self.text()).unwrap();
        let create = |name| File::create(folder.join(name)).unwrap();
        Command::new(&self.binary)
            .args(["run", "--config"])
            .arg(&file)
            .arg("--data")
            .arg(self.data.clone().unwrap_or_else(|| folder.join("data")))
            .args(&self.args)
            .env_remove("RUST_LOG")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(create("stdout"))
            .stderr(create("stderr"))
            // Whatever an upgrade starts belongs to it and ends with the test.
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run {}: {error}", self.binary.display()))
    }
}

/// A process that is killed if the test fails while it waits.
struct Ending {
    child: Child,
    folder: PathBuf,
}

impl Ending {
    fn output(&self, status: ExitStatus) -> Output {
        let read = |name| fs::read_to_string(self.folder.join(name)).unwrap();
        Output { code: status.code(), stdout: read("stdout"), stderr: read("stderr") }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// What a command printed.
#[derive(Clone, Debug)]
pub struct Output {
    /// `None` when a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// A gateway that serves. Killed when it is dropped.
pub struct Gateway {
    child: Child,
    /// The process that serves since the last upgrade; not a child of this one.
    successor: Option<Pid>,
    config: GatewayConfig,
    folder: Arc<TempDir>,
    /// The folder of a predecessor, whose data this one goes on with.
    _inherited: Option<Arc<TempDir>>,
    plain: Vec<SocketAddr>,
    tls: Vec<SocketAddr>,
    metrics: SocketAddr,
    /// Where the console was to be opened at the start: while there was no account, the link that makes the first one.
    console: Option<String>,
    data: Data,
}

impl Gateway {
    /// Returns when the gateway serves.
    ///
    /// # Panics
    /// With what it printed, when it does not start.
    pub fn start(config: GatewayConfig) -> Self {
        Self::start_after(config, None, |_| ())
    }

    /// As [`Self::start`], with a SIGHUP as soon as it says its first word.
    pub fn start_and_hang_up_at_once(config: GatewayConfig) -> Self {
        Self::start_after(config, None, |child| signal(child, Signal::HUP))
    }

    fn start_after(
        config: GatewayConfig,
        inherited: Option<Arc<TempDir>>,
        at_first_word: impl FnOnce(&Child),
    ) -> Self {
        let mut at_first_word = Some(at_first_word);
        let folder = Arc::new(TempDir::new().unwrap());
        let mut child = config.spawn(folder.path());
        let banner = eventually("the gateway starts", || {
            let stdout = fs::read_to_string(folder.path().join("stdout")).unwrap();
            if !stdout.is_empty()
                && let Some(act) = at_first_word.take()
            {
                act(&child);
            }
            if let Some(status) = child.try_wait().unwrap() {
                let stderr = fs::read_to_string(folder.path().join("stderr")).unwrap();
                panic!("the gateway ended with {status}:\n{stdout}{stderr}\n{}", config.text());
            }
            // The line of the metrics is the last one with an address.
            address_after(&stdout, "metrics ").map(|_| stdout)
        });
        let addresses = |scheme: &str| {
            let lines = banner.lines().filter(|line| line.trim_start().starts_with("listening"));
            lines.filter_map(|line| line.split_once(scheme)?.1.trim().parse().ok()).collect()
        };
        let data = Data::new(&config.data.clone().unwrap_or_else(|| folder.path().join("data")));
        let gateway = Self {
            child,
            successor: None,
            plain: addresses("http://"),
            tls: addresses("https://"),
            metrics: address_after(&banner, "metrics ").unwrap(),
            console: url_after(&banner, "console "),
            data,
            config,
            folder,
            _inherited: inherited,
        };
        eventually("the gateway is ready", || (gateway.operations("/readyz").status() == 200).then_some(()));
        gateway
    }

    /// The first plain listener.
    pub fn address(&self) -> SocketAddr {
        *self.plain.first().expect("this gateway has no plain listener")
    }

    /// The first TLS listener.
    pub fn tls_address(&self) -> SocketAddr {
        *self.tls.first().expect("this gateway has no TLS listener")
    }

    /// Where the console listens.
    pub fn console(&self) -> SocketAddr {
        let url = self.console_url();
        let authority = url.split("://").nth(1).and_then(|rest| rest.split('/').next());
        authority.and_then(|authority| authority.parse().ok()).expect("the console has no address")
    }

    /// Where the terminal said that the console can be opened: while there was no account, the link that makes the first.
    pub fn console_url(&self) -> &str {
        self.console.as_deref().expect("this gateway has no console")
    }

    /// A new connection to it.
    pub fn client(&self) -> Client {
        Client::connect(self.address())
    }

    /// A new connection whose requests come from this address; needs a gateway behind a local proxy.
    pub fn client_of(&self, client: &str) -> Client {
        self.client().forwarded_for(client)
    }

    /// One GET on a connection of its own.
    pub fn get(&self, target: &str) -> Response {
        self.client().get(target)
    }

    pub fn data(&self) -> &Data {
        &self.data
    }

    /// The folder of the configuration file.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The text of `/metrics`.
    pub fn metrics(&self) -> String {
        self.operations("/metrics").text()
    }

    /// The value of one metric, labels included in the name as they are printed.
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.metrics();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no metric {name} in\n{text}")).parse().unwrap()
    }

    /// A GET on the listener of metrics and health.
    pub fn operations(&self, path: &str) -> Response {
        Client::connect(self.metrics).get(path)
    }

    /// Runs a command of the program with this gateway's data and configuration.
    pub fn cli(&self, args: &[&str]) -> Output {
        run_command(&self.config.binary, args, &self.config_file(), self.data.folder())
    }

    /// Runs a command that must succeed; returns what it printed.
    pub fn cli_ok(&self, args: &[&str]) -> String {
        let output = self.cli(args);
        assert_eq!(output.code, Some(0), "portcullis {} failed: {output:?}", args.join(" "));
        output.stdout
    }

    pub fn config_file(&self) -> PathBuf {
        self.folder.path().join("portcullis.toml")
    }

    /// Replaces the configuration file as editors do, and tells nobody.
    pub fn write_config(&self, text: &str) {
        let new = self.folder.path().join("portcullis.toml.new");
        fs::write(&new, text).unwrap();
        fs::rename(new, self.config_file()).unwrap();
    }

    /// What the gateway has said on stderr.
    pub fn stderr(&self) -> String {
        fs::read_to_string(self.folder.path().join("stderr")).unwrap()
    }

    /// The process that serves.
    pub fn pid(&self) -> u32 {
        self.successor.map_or(self.child.id(), |pid| pid.as_raw_nonzero().get().unsigned_abs())
    }

    /// How many descriptors the process may have open from now on, those that are open already included.
    pub fn limit_descriptors(&self, most: u64) {
        let pid = Pid::from_raw(i32::try_from(self.pid()).unwrap()).unwrap();
        let maximum = getrlimit(Resource::Nofile).maximum;
        prlimit(Some(pid), Resource::Nofile, Rlimit { current: Some(most), maximum }).unwrap();
    }

    /// SIGHUP.
    pub fn hang_up(&self) {
        self.signal(Signal::HUP);
    }

    /// SIGTERM, without waiting.
    pub fn begin_to_end(&self) {
        self.signal(Signal::TERM);
    }

    fn signal(&self, signal: Signal) {
        let pid = self.successor.unwrap_or_else(|| Pid::from_child(&self.child));
        kill_process(pid, signal).unwrap();
    }

    /// `portcullis upgrade` with these arguments. After a success this stands for the new process; the
    /// answer holds the number of the old one, which may still finish what is open.
    pub fn upgrade(&mut self, args: &[&str]) -> (Output, u32) {
        let old = self.pid();
        let output = self.cli(&[&["upgrade"], args].concat());
        if output.code == Some(0) {
            let line = output.stdout.lines().last().unwrap_or_default();
            let pid = line.split(' ').nth(1).and_then(|pid| pid.parse().ok()).and_then(Pid::from_raw);
            self.successor = Some(pid.unwrap_or_else(|| panic!("no process in {output:?}")));
        }
        (output, old)
    }

    /// Waits until a process of this gateway has ended.
    pub fn wait_for_end(&mut self, pid: u32) {
        eventually("a process ends", || {
            // Reaps it when it is ours.
            let _ = self.child.try_wait();
            (!is_running(pid)).then_some(())
        });
    }

    /// SIGTERM; waits for the end. Returns the data folder, which stays until the result is dropped.
    pub fn terminate(mut self) -> Ended {
        self.begin_to_end();
        if self.successor.is_some() {
            self.wait_for_end(self.pid());
        }
        let code = eventually("the gateway ends after SIGTERM", || self.child.try_wait().unwrap());
        self.ended(code)
    }

    /// SIGKILL.
    pub fn kill(mut self) -> Ended {
        self.child.kill().unwrap();
        let status = self.child.wait().unwrap();
        self.ended(status)
    }

    fn ended(&self, status: ExitStatus) -> Ended {
        let folder = Arc::clone(&self.folder);
        Ended { code: status.code(), data: self.data.clone(), config: self.config.clone(), folder }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let ended = self.child.try_wait().ok().flatten();
        if ended.is_none() || self.successor.is_some() && is_running(self.pid()) {
            // Fails only when it has just ended.
            let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        }
        end(&mut self.child);
        if thread::panicking() {
            if let Some(status) = ended {
                eprintln!("--- the gateway was gone already: {status}");
            }
            eprintln!("--- what the gateway said:\n{}", self.stderr());
        }
    }
}

/// What is left of a gateway.
pub struct Ended {
    /// `None` when a signal ended it.
    pub code: Option<i32>,
    pub data: Data,
    config: GatewayConfig,
    /// Of the first gateway on this data.
    folder: Arc<TempDir>,
}

impl Ended {
    /// A new gateway with the same configuration on the same data.
    pub fn start_again(&self) -> Gateway {
        let config = self.config.clone().data(self.data.folder());
        Gateway::start_after(config, Some(Arc::clone(&self.folder)), |_| ())
    }

    /// Runs a command of the program with the data and the configuration of what was.
    pub fn cli(&self, args: &[&str]) -> Output {
        let file = self.folder.path().join("portcullis.toml");
        run_command(&self.config.binary, args, &file, self.data.folder())
    }
}

fn run_command(binary: &Path, args: &[&str], config: &Path, data: &Path) -> Output {
    let output = Command::new(binary)
        .args(args)
        .arg("--config")
        .arg(config)
        .arg("--data")
        .arg(data)
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Output { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

/// Whether a process runs, whoever started it. One that nobody has waited for yet does not.
fn is_running(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

fn end(child: &mut Child) {
    // Fails only when it has ended already.
    let _ = child.kill();
    let _ = child.wait();
}

/// The URL in the first line that begins with `name`, once that line is complete.
fn url_after(banner: &str, name: &str) -> Option<String> {
    let complete = &banner[..banner.rfind('\n')?];
    let line = complete.lines().find_map(|line| line.trim_start().strip_prefix(name))?;
    Some(line.trim().to_owned())
}

/// The address in the first line that begins with `name`, once that line is complete.
fn address_after(banner: &str, name: &str) -> Option<SocketAddr> {
    let complete = &banner[..banner.rfind('\n')?];
    let line = complete.lines().find(|line| line.trim_start().starts_with(name))?;
    line.split_once("http://")?.1.split('/').next()?.parse().ok()
}
