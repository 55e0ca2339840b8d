//! A real certificate authority for tests: Pebble (ACME, RFC 8555) and the name server that it asks.
//!
//! Owns both processes and their files. Must not be needed: where the programs are missing, tests that want one
//! say so and do nothing, unless `PEBBLE=1` asks for them.

use std::collections::HashMap;
use std::env;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use tempfile::TempDir;

use crate::certificates::{Authority, trusting};
use crate::client::Client;
use crate::wait::eventually;

/// Below the ports that the system gives to whoever asks for any.
const PORTS: std::ops::Range<u16> = 15_000..32_000;

/// Tests of one process never get the same one.
static NEXT_PORT: AtomicU16 = AtomicU16::new(0);

/// A port that nobody uses, and that is given to nobody who asks for any port.
pub fn free_port() -> u16 {
    let span = PORTS.end - PORTS.start;
    let start = u16::try_from(std::process::id() % u32::from(span)).unwrap();
    eventually("a port is free", || {
        let step = NEXT_PORT.fetch_add(1, Ordering::Relaxed);
        let port = PORTS.start + (u32::from(start) + u32::from(step)).rem_euclid(u32::from(span)) as u16;
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, port));
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, port));
        (tcp.is_ok() && udp.is_ok()).then_some(port)
    })
}

/// What an authority is made of; it can be started, ended and started again.
pub struct PebbleConfig {
    /// Where it looks for files and for handshakes.
    pub http_port: u16,
    pub tls_port: u16,
    /// How long its certificates hold, in seconds.
    pub validity: u64,
    /// How many of a hundred good nonces it rejects.
    pub rejected_nonces: u8,
    /// The ID and the key (base64url) that new accounts have to be tied to.
    pub external_account: Option<(&'static str, &'static str)>,
    directory_port: u16,
    management_port: u16,
    /// Of its own server.
    authority: Authority,
    folder: TempDir,
}

impl PebbleConfig {
    /// `None`, with a word about it, where Pebble is not installed.
    ///
    /// # Panics
    /// Where it is not installed and `PEBBLE=1` says that it has to be.
    pub fn find() -> Option<Self> {
        let is_there = |name: &str| {
            let path = env::var_os("PATH").unwrap_or_default();
            env::split_paths(&path).map(|folder| folder.join(name)).any(|path: PathBuf| path.is_file())
        };
        if !is_there("pebble") || !is_there("pebble-challtestsrv") {
            assert!(env::var("PEBBLE").as_deref() != Ok("1"), "PEBBLE=1, and pebble is not installed");
            eprintln!("not tested: pebble is not installed (on Debian: apt-get install pebble)");
            return None;
        }
        let (authority, folder) = (Authority::new(), TempDir::new().unwrap());
        authority.issue(&["localhost"]).write(folder.path(), "server");
        fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
        Some(Self {
            http_port: free_port(),
            tls_port: free_port(),
            validity: 90 * 86_400,
            rejected_nonces: 0,
            external_account: None,
            directory_port: free_port(),
            management_port: free_port(),
            authority,
            folder,
        })
    }

    /// The lines of `[acme]` for a gateway that gets its certificates there, and soon tries again.
    pub fn acme(&self, lines: &str) -> String {
        let retry = if lines.contains("retry") { "" } else { "retry = \"1s\"\n" };
        format!(
            "[acme]\ndirectory = \"https://localhost:{}/dir\"\ndirectory_ca = \"{}\"\naccept_terms = true\n\
             {retry}{lines}\n",
            self.directory_port,
            self.folder.path().join("ca.pem").display()
        )
    }

    /// Returns when it serves. Its accounts, orders and root are new each time.
    pub fn start(&self) -> Pebble<'_> {
        let Self { http_port, tls_port, validity, directory_port, management_port, folder, .. } = self;
        let path = |name: &str| folder.path().join(name);
        let config = serde_json::json!({ "pebble": {
            "listenAddress": format!("127.0.0.1:{directory_port}"),
            "managementListenAddress": format!("127.0.0.1:{management_port}"),
            "certificate": path("server.pem"),
            "privateKey": path("server.key"),
            "httpPort": http_port,
            "tlsPort": tls_port,
            "certificateValidityPeriod": validity,
            "externalAccountBindingRequired": self.external_account.is_some(),
            "externalAccountMACKeys": self.external_account.into_iter().collect::<HashMap<_, _>>(),
        }});
        fs::write(path("pebble.json"), config.to_string()).unwrap();
        let dns = format!("127.0.0.1:{}", free_port());
        let mut names = Command::new("pebble-challtestsrv");
        names.args(["-dns01", &dns, "-defaultIPv6", "", "-http01", "", "-https01", "", "-tlsalpn01", ""]);
        names.args(["-management", &format!("127.0.0.1:{}", free_port())]);
        let mut pebble = Command::new("pebble");
        pebble.args(["-dnsserver", &dns, "-config"]).arg(path("pebble.json"));
        pebble.env("PEBBLE_VA_NOSLEEP", "1").env("PEBBLE_AUTHZREUSE", "0");
        pebble.env("PEBBLE_WFE_NONCEREJECT", self.rejected_nonces.to_string());
        let spawn = |mut command: Command, log: &str| {
            let log = File::create(path(log)).unwrap();
            let errors = log.try_clone().unwrap();
            let child = command.stdin(Stdio::null()).stdout(log).stderr(errors).spawn();
            Ending(child.unwrap())
        };
        let running =
            Pebble { config: self, processes: [spawn(names, "names.log"), spawn(pebble, "pebble.log")] };
        for port in [*directory_port, *management_port] {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            eventually("the authority serves", || std::net::TcpStream::connect(address).ok());
        }
        running
    }
}

/// An authority that serves. Ended when it is dropped.
pub struct Pebble<'a> {
    config: &'a PebbleConfig,
    processes: [Ending; 2],
}

impl Pebble<'_> {
    /// The certificate that those which it issues can be verified with, PEM.
    pub fn root(&self) -> String {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.config.management_port));
        let trust = trusting(self.config.authority.pem());
        Client::connect_tls(address, "localhost", &trust).get("/roots/0").text()
    }

    /// What it has said.
    pub fn log(&self) -> String {
        fs::read_to_string(self.config.folder.path().join("pebble.log")).unwrap()
    }

    pub fn end(self) {
        drop(self.processes);
    }
}

struct Ending(Child);

impl Drop for Ending {
    fn drop(&mut self) {
        // Fails only when it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
