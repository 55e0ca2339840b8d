//! `portcullis demo`: the sample site, a gateway in front of it, the crowd, and what comes of it.

use std::fs::{File, TryLockError};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use anyhow::Context as _;
use portcullis_config::{FILE_NAME, Overrides, load};
use tokio::signal::unix::{SignalKind, signal};

use crate::app::{App, LOCK_FILE};
use crate::counts;
use crate::demo::{self, DemoEvent, DemoOptions, EVENT_QUEUE, Guide};
use crate::detection::{Done, Outcome};
use crate::serve::end;
use crate::tasks::Tasks;

const DEFAULT_DATA: &str = "demo-data";
/// Files of an earlier demo. Its blocks would refuse the attackers before they have done anything.
const LEFT_OVER: [&str; 14] = [
    "log.db",
    "log.db-wal",
    "log.db-shm",
    "state.db",
    "state.db-wal",
    "state.db-shm",
    "forest.model",
    "gateway.json",
    "task-detect.lock",
    "task-cleanup.lock",
    counts::FILE,
    LOCK_FILE,
    "log.lock",
    FILE_NAME,
];
/// Says that a folder belongs to a demo and may be emptied.
const MARKER: &str = "demo-folder";
/// How soon a signal is heard.
const SIGNAL_POLL: Duration = Duration::from_millis(100);
const SEED: u64 = 20_261_120;

/// The demo's configuration, with LISTEN, METRICS, CONSOLE and SITE to be filled in.
const CONFIG: &str = include_str!("demo/portcullis.toml");
/// Where the demo is found, unless another program is there already.
const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
const METRICS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9611);

const CONSOLE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9612);

/// Runs the demo. True: attackers were blocked and no visitor was hurt.
///
/// # Errors
/// When a part cannot be started.
pub(crate) fn run(seconds: Option<u64>, data: Option<PathBuf>) -> anyhow::Result<bool> {
    let data = data.unwrap_or_else(|| PathBuf::from(DEFAULT_DATA));
    empty(&data)?;
    let site = demo::site::start(([127, 0, 0, 1], 0).into()).context("cannot start the sample site")?;
    let file = data.join(FILE_NAME);
    let config = CONFIG
        .replace("LISTEN", &free(LISTEN).to_string())
        .replace("METRICS", &free(METRICS).to_string())
        .replace("CONSOLE", &free(CONSOLE).to_string())
        .replace("SITE", &site.address().to_string());
    std::fs::write(&file, config).with_context(|| format!("cannot write {}", file.display()))?;
    let overrides = Overrides::default();
    let app = Arc::new(App::start(load(Some(&file), &overrides)?, overrides, None)?);
    app.gateway().accept();

    let (events, happened) = sync_channel(EVENT_QUEUE);
    let at_once = events.clone();
    let on_caught = Box::new(move |done: &Done| tell_done(&at_once, done));
    let tasks = Tasks::start(&app, Arc::new(move |result| tell(&events, result)), on_caught)
        .context("cannot start the schedule")?;
    let console = app.start_console()?;
    let ended = Arc::new(AtomicBool::new(false));
    end_on_signal(Arc::clone(&ended))?;

    let gateway = app.listeners().first().map(|(address, _)| *address).context("the demo has no listener")?;
    let crowd = demo::clients::start(gateway, "shop.example", SEED).context("cannot start the crowd")?;
    let guide = Guide {
        site: format!("http://{gateway}/"),
        console: console.unwrap_or_default(),
        metrics: app.metrics_address().map(|address| format!("http://{address}/metrics")).unwrap_or_default(),
        config: file.display().to_string(),
        program: std::env::args().next().unwrap_or_else(|| "portcullis".to_owned()),
    };
    let summary = demo::watch(crowd, &happened, &ended, DemoOptions { seconds }, &guide);
    tasks.stop();
    end(app);
    let summary = summary?;
    println!("{}", summary.text.trim_end());
    Ok(summary.verdict.is_passed())
}

/// Runs the sample site until a signal ends it.
///
/// # Errors
/// When it cannot be started.
pub(crate) fn run_site(address: SocketAddr) -> anyhow::Result<()> {
    let ended = Arc::new(AtomicBool::new(false));
    end_on_signal(Arc::clone(&ended))?;
    let site = demo::site::start(address).with_context(|| format!("cannot start the site on {address}"))?;
    println!("the sample site is at http://{}/", site.address());
    while !ended.load(Ordering::Relaxed) {
        std::thread::sleep(SIGNAL_POLL);
    }
    Ok(())
}

/// The address, with any port where its own is taken.
fn free(address: SocketAddr) -> SocketAddr {
    match TcpListener::bind(address) {
        Ok(_) => address,
        Err(_) => SocketAddr::new(address.ip(), 0),
    }
}

/// Removes what an earlier demo left; never touches a folder that is not a demo's, or one in use.
fn empty(data: &Path) -> anyhow::Result<()> {
    let found = LEFT_OVER.iter().find(|name| data.join(name).exists());
    if let Some(name) = found.filter(|_| !data.join(MARKER).exists()) {
        anyhow::bail!(
            "{} belongs to no demo: it holds {name}; choose another folder with --data",
            data.display()
        );
    }
    let lock = File::open(data.join(LOCK_FILE));
    if lock.is_ok_and(|lock| matches!(lock.try_lock(), Err(TryLockError::WouldBlock))) {
        anyhow::bail!(
            "another demo is running in {}; stop it or choose another folder with --data",
            data.display()
        );
    }
    std::fs::create_dir_all(data).with_context(|| format!("cannot make the folder {}", data.display()))?;
    for name in LEFT_OVER {
        match std::fs::remove_file(data.join(name)) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("cannot empty {}", data.display())),
        }
    }
    std::fs::write(data.join(MARKER), "made by portcullis demo; emptied at its next start\n")
        .with_context(|| format!("cannot write to {}", data.display()))
}

fn tell(events: &SyncSender<DemoEvent>, result: &anyhow::Result<Outcome>) {
    let Ok(outcome) = result else { return };
    tell_done(events, &outcome.done);
    let run = DemoEvent::DetectionRun {
        findings: outcome.done.saved.len() as u64,
        blocked: (outcome.done.blocked.len() + outcome.done.blocked_parties.len()) as u64,
        took: outcome.took,
    };
    let _ = events.try_send(run);
}

fn tell_done(events: &SyncSender<DemoEvent>, done: &Done) {
    let findings = done.saved.iter().map(|(_, finding)| DemoEvent::Finding {
        client: finding.client,
        severity: finding.severity,
        reason: finding.reason.clone(),
        says: finding.details["summary"].as_str().unwrap_or_default().to_owned(),
    });
    let blocks = done.blocked.iter().map(|block| DemoEvent::Blocked {
        client: block.network.addr().into(),
        reason: block.reason.clone(),
        expires: block.expires_at,
    });
    for event in findings.chain(blocks) {
        // A table that does not keep up misses a line; the summary counts what the clients saw.
        let _ = events.try_send(event);
    }
}

/// Ctrl-C and SIGTERM end the demo in order.
fn end_on_signal(ended: Arc<AtomicBool>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot listen for signals")?;
    let listen = move || {
        runtime.block_on(async {
            let (Ok(mut interrupt), Ok(mut terminate)) =
                (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
            else {
                return;
            };
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            ended.store(true, Ordering::Relaxed);
        });
    };
    std::thread::Builder::new()
        .name("portcullis-signals".to_owned())
        .spawn(listen)
        .context("cannot listen for signals")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use tempfile::TempDir;

    #[test]
    fn a_folder_that_no_demo_made_is_left_alone() {
        for name in [FILE_NAME, "state.db", "log.db"] {
            let folder = TempDir::new().unwrap();
            let file = folder.path().join(name);
            fs::write(&file, "mine").unwrap();
            assert!(empty(folder.path()).is_err(), "{name}");
            assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
        }
    }

    #[test]
    fn what_an_earlier_demo_left_is_removed_and_nothing_else() {
        let folder = TempDir::new().unwrap();
        empty(folder.path()).unwrap();
        for name in [FILE_NAME, "state.db", "notes.txt"] {
            fs::write(folder.path().join(name), "x").unwrap();
        }
        empty(folder.path()).unwrap();
        assert!(!folder.path().join("state.db").exists() && folder.path().join("notes.txt").exists());
    }

    #[test]
    fn the_folder_of_a_demo_that_runs_is_left_alone() {
        let folder = TempDir::new().unwrap();
        empty(folder.path()).unwrap();
        let state = folder.path().join("state.db");
        fs::write(&state, "in use").unwrap();
        let lock = File::create(folder.path().join(LOCK_FILE)).unwrap();
        lock.lock().unwrap();
        assert!(empty(folder.path()).is_err());
        assert!(state.exists());
        drop(lock);
        empty(folder.path()).unwrap();
    }
}
