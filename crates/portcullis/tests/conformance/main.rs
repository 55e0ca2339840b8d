//! Programs that others wrote for testing proxies, against the gateway: varnishtest and h2load.
//!
//! Owns running them; the scripts are in tests/vtc. A machine without them skips these tests, unless
//! CONFORMANCE is set: then they must be there.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use portcullis_testkit::{Authority, Gateway, GatewayConfig, Upstream};
use tempfile::TempDir;

/// Both load the machine; together they would make each other late.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Whether the program is there.
fn has(program: &str, package: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
    assert!(
        found || std::env::var_os("CONFORMANCE").is_none(),
        "{program} is missing; on Debian or Ubuntu: apt-get install {package}"
    );
    if !found {
        println!("skipped: there is no {program} on this machine ({package})");
    }
    found
}

fn config() -> GatewayConfig {
    GatewayConfig::new(env!("CARGO_BIN_EXE_portcullis"))
}

fn scripts() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vtc");
    let entries = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let mut scripts: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|end| end == "vtc")).collect();
    scripts.sort();
    assert!(!scripts.is_empty(), "no scripts in {}", folder.display());
    scripts
}

/// Runs a script with a gateway of its own. Returns what it said if it fails.
fn run_script(script: &Path) -> Result<(), String> {
    // The script listens there; nobody else takes a port that was just given back.
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let gateway = Gateway::start(config().upstream_with(&format!("servers = [\"http://{upstream}\"]")));
    let output = Command::new("varnishtest")
        .arg(format!("-Dgateway={}", gateway.address()))
        .arg(format!("-Dupstream={upstream}"))
        .args(["-t", "30"])
        .arg(script)
        .output()
        .unwrap();
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()),
    }
}

#[test]
fn every_script_of_varnishtest_passes() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    if !has("varnishtest", "varnish") {
        return;
    }
    let mut failures = Vec::new();
    for script in scripts() {
        let name = script.file_stem().unwrap().to_string_lossy().into_owned();
        match run_script(&script) {
            Ok(()) => println!("varnishtest {name}: passed"),
            Err(said) => {
                println!("varnishtest {name}: FAILED");
                failures.push(format!("{name}:\n{said}"));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Runs h2load and checks that every request was answered with 2xx, and is in the log.
fn load(gateway: &Gateway, what: &str, requests: u64, args: &[&str], rows_before: u64) {
    let output = Command::new("h2load").args(["-n", &requests.to_string()]).args(args).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = |start: &str| said.lines().find(|line| line.starts_with(start)).unwrap_or_default().to_owned();
    println!("h2load {what}: {}; {}", line("requests:"), line("finished in"));
    let counts = format!(
        "requests: {requests} total, {requests} started, {requests} done, {requests} succeeded, 0 failed, 0 errored, 0 timeout"
    );
    assert_eq!(line("requests:"), counts, "{said}");
    assert_eq!(line("status codes:"), format!("status codes: {requests} 2xx, 0 3xx, 0 4xx, 0 5xx"), "{said}");
    gateway.data().wait_for_count(rows_before + requests);
}

#[test]
fn h2load_finds_no_request_failed() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    if !has("h2load", "nghttp2-client") {
        return;
    }
    let upstream = Upstream::start();
    let (authority, folder) = (Authority::new(), TempDir::new().unwrap());
    let (cert, key) = authority.issue(&["localhost", "127.0.0.1"]).write(folder.path(), "h2load");
    let listener = format!(
        "[[server.tls]]\nlisten = \"127.0.0.1:0\"\ncertificates = [{{ cert = \"{}\", key = \"{}\" }}]",
        cert.display(),
        key.display()
    );
    let gateway = Gateway::start(config().upstream(&upstream).section(&listener));
    let tls = |path: &str| format!("https://{}{path}", gateway.tls_address());
    let plain = format!("http://{}/", gateway.address());
    let body = folder.path().join("body");
    fs::write(&body, vec![b'x'; 10_000]).unwrap();
    let body = body.to_str().unwrap();
    let (small, large, upload) = (tls("/"), tls("/bytes/100000"), tls("/upload"));
    let runs: [(&str, u64, Vec<&str>); 7] = [
        ("one connection, one stream", 500, vec!["-c", "1", "-m", "1", &small]),
        ("one connection, 100 streams", 3_000, vec!["-c", "1", "-m", "100", &small]),
        ("10 connections, 100 streams", 5_000, vec!["-c", "10", "-m", "100", &small]),
        ("200 connections, 5 streams", 4_000, vec!["-c", "200", "-m", "5", &small]),
        ("bodies of 100 kB", 500, vec!["-c", "5", "-m", "20", &large]),
        ("uploads of 10 kB", 1_000, vec!["-c", "5", "-m", "20", "-d", body, &upload]),
        ("HTTP/1.1 without TLS, 100 connections", 5_000, vec!["--h1", "-c", "100", &plain]),
    ];
    let mut rows = 0;
    for (what, requests, args) in runs {
        load(&gateway, what, requests, &args, rows);
        rows += requests;
    }
}
