//! Which program this process was started from, and with what.
//!
//! Owns finding it and asking another one for its version. Must not start a gateway.

use std::ffi::OsString;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

/// The option that tells a process to take the place of the one that started it.
pub(crate) const TAKE_OVER: &str = "--take-over";
/// A program that does not say its version in this time does not work.
const VERSION_TIME: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(10);
/// What is kept of what it prints.
const MAX_PRINTED_BYTES: u64 = 2_048;

/// Read at the start, when the file is still what this process runs.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
}

impl Program {
    /// The program of this process: by the path that was typed, since a link in it may be meant to be changed,
    /// else by the file that the system started.
    ///
    /// # Errors
    /// Neither is known.
    pub(crate) fn of_this_process() -> std::io::Result<Self> {
        let mut arguments = std::env::args_os();
        let typed = arguments.next().map(PathBuf::from).filter(|path| path.components().count() > 1);
        let path = match typed {
            Some(path) => std::path::absolute(path)?,
            None => std::env::current_exe()?,
        };
        Ok(Self { path, arguments: arguments.filter(|argument| argument != TAKE_OVER).collect() })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The command line of the process that takes the place of this one.
    pub(crate) fn successor(&self, binary: &Path) -> Command {
        let mut command = Command::new(binary);
        command.args(&self.arguments).arg(TAKE_OVER);
        command
    }
}

/// Asks a program for its version: whatever cannot even say that is not started in the place of a gateway.
///
/// # Errors
/// It cannot be started, fails, or says nothing in time.
pub(super) fn version_of(binary: &Path) -> anyhow::Result<String> {
    let name = binary.display();
    let mut child = Command::new(binary)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {name}"))?;
    let Some(status) = wait(&mut child, VERSION_TIME)? else {
        end(&mut child);
        bail!("{name} did not say its version within {} s", VERSION_TIME.as_secs());
    };
    if !status.success() {
        let said = child.stderr.take().map(first_line).unwrap_or_default();
        bail!("{name} does not work ({status}){}{said}", if said.is_empty() { "" } else { ": " });
    }
    Ok(child.stdout.take().map(first_line).unwrap_or_default())
}

fn wait(child: &mut Child, patience: Duration) -> std::io::Result<Option<std::process::ExitStatus>> {
    let until = Instant::now() + patience;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= until {
            return Ok(None);
        }
        std::thread::sleep(POLL);
    }
}

fn first_line(from: impl std::io::Read) -> String {
    let mut bytes = Vec::new();
    // What cannot be read was not said.
    let _ = from.take(MAX_PRINTED_BYTES).read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).lines().next().unwrap_or_default().trim().to_owned()
}

/// Ends a process of ours and waits for it, so that whatever it held is free.
pub(super) fn end(child: &mut Child) {
    // Fails only when it has ended already.
    let _ = child.kill();
    let _ = child.wait();
}
