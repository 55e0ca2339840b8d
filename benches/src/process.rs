//! A program under measurement: started, read from /proc, ended.
//!
//! Owns its life; a program never outlives its handle. Linux only, as /proc is.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::load;

/// How long a program may take until it answers; a million blocks are read meanwhile.
const START_TIME: Duration = Duration::from_secs(180);
/// How long it may take to end.
const STOP_TIME: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

/// A running program and its children.
pub struct Program {
    name: String,
    child: Child,
    output: PathBuf,
}

/// Resident memory in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    pub resident: u64,
    /// Without memory-mapped files, which the kernel can drop at any time.
    pub anonymous: u64,
}

impl Program {
    /// Starts it. What it prints goes to `DIR/NAME.out`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(name: &str, mut command: Command, dir: &Path) -> anyhow::Result<Self> {
        let output = dir.join(format!("{name}.out"));
        let file = File::create(&output).with_context(|| format!("cannot write {}", output.display()))?;
        let errors = file.try_clone()?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(errors)
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        Ok(Self { name: name.to_owned(), child, output })
    }

    /// Returns when it answers HTTP at `address`.
    ///
    /// # Errors
    /// When it ends before, or takes too long; with what it printed.
    pub fn wait_until_it_answers(&mut self, address: SocketAddr) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_TIME;
        while !load::answers(address) {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status}:\n{}", self.name, self.printed());
            }
            if Instant::now() > deadline {
                bail!("{} did not answer at {address}:\n{}", self.name, self.printed());
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// What it has printed.
    pub fn printed(&self) -> String {
        fs::read_to_string(&self.output).unwrap_or_default()
    }

    /// User and system time of all its threads and of its children, in the kernel's ticks of 10 ms.
    ///
    /// # Errors
    /// When it is gone.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        let ticks: u64 = self.family().into_iter().map(ticks).sum::<anyhow::Result<u64>>()?;
        Ok(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
    }

    /// What it and its children hold now.
    ///
    /// # Errors
    /// When it is gone.
    pub fn memory(&self) -> anyhow::Result<Memory> {
        let mut sum = Memory::default();
        for pid in self.family() {
            let one = memory_of(pid)?;
            sum.resident += one.resident;
            sum.anonymous += one.anonymous;
        }
        Ok(sum)
    }

    /// The process that was started.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn family(&self) -> Vec<u32> {
        let pid = self.child.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        let children = children.split_ascii_whitespace().filter_map(|child| child.parse().ok());
        std::iter::once(pid).chain(children).collect()
    }

    /// Asks it to end and waits until it has.
    ///
    /// # Errors
    /// When it does not.
    pub fn stop(mut self) -> anyhow::Result<ExitStatus> {
        self.end().with_context(|| format!("{} did not end:\n{}", self.name, self.printed()))
    }

    fn end(&mut self) -> anyhow::Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("no process ID")?;
        // Not SIGKILL: nginx's workers would outlive their master, and a log would lose its last rows.
        kill_process(pid, Signal::TERM)?;
        let deadline = Instant::now() + STOP_TIME;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(POLL);
        }
        bail!("still running {} s after SIGTERM", STOP_TIME.as_secs())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if self.end().is_err() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// What one process holds now, without its children.
///
/// # Errors
/// When it is gone.
pub fn memory_of(pid: u32) -> anyhow::Result<Memory> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    Ok(Memory {
        resident: kilobytes(&status, "VmRSS:") * 1_024,
        anonymous: kilobytes(&status, "RssAnon:") * 1_024,
    })
}

/// utime and stime of /proc/PID/stat (proc_pid_stat(5)).
fn ticks(pid: u32) -> anyhow::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("the program is gone")?;
    ticks_of(&stat).with_context(|| format!("cannot read /proc/{pid}/stat: {stat}"))
}

/// The name in the second field may hold blanks and parentheses, so fields are counted from its end.
fn ticks_of(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn kilobytes(status: &str, field: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|rest| rest.split_ascii_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// A port of loopback that was free a moment ago.
///
/// # Errors
/// When there is none.
pub fn free_address() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no port is free on loopback")?;
    Ok(listener.local_addr()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_found_behind_a_name_with_blanks_and_parentheses() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 100 0 0 0 250 150 9 9 20 0 3 0 100 1 1";
        assert_eq!(ticks_of(stat), Some(400));
        assert_eq!(ticks_of("7 (x) S 1"), None);
    }

    #[test]
    fn a_program_s_cost_and_memory_can_be_read_and_it_ends_when_asked() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sleep");
        command.arg("60");
        let program = Program::start("sleep", command, dir.path()).unwrap();
        assert!(program.cpu().unwrap() < Duration::from_secs(1));
        assert!(program.memory().unwrap().resident > 0);
        assert!(!program.stop().unwrap().success());
    }
}
