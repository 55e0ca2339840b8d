//! `portcullis upgrade`: asks the running gateway to put a new process in its place, and prints how it goes.
//! Must not do it itself: the gateway does, so that the new process stays where the service manager wants it.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use portcullis_config::parse_duration;

use super::Outcome;
use super::context::Context;
use super::output::{Screen, tell};
use crate::upgrade::{Answer, Order, UpgradeOrder, connect};

const EXAMPLES: &str = "\
Examples:
  portcullis upgrade
      starts what is now where the running gateway was started from
  portcullis upgrade --binary /opt/portcullis-2/portcullis --timeout 2m
  portcullis upgrade --config /etc/portcullis/portcullis.toml

The new process reads the configuration anew and gets the listening sockets; the
old one finishes its requests and WebSockets (server.drain_timeout). When the
new one does not come to serve, the old one goes on as it was. Ctrl-C ends this
command alone: an upgrade that has begun goes on. Exit code 0: the new process
serves; 1: it does not, with the reason.";

/// How long the gateway may take beyond the time that the new process has to become ready.
const MORE_TIME: Duration = Duration::from_secs(60);
/// What one answer may hold.
const MAX_ANSWER_BYTES: u64 = 1 << 20;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Upgrade {
    /// The new program; without it, the file that the gateway was started from
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::ExecutablePath)]
    binary: Option<PathBuf>,

    /// How long the new process may take until it is ready
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = span)]
    timeout: Duration,
}

fn span(text: &str) -> Result<Duration, String> {
    parse_duration(text)
        .filter(|span| !span.is_zero())
        .ok_or_else(|| format!("expected a time such as 30s or 2m, got {text:?}"))
}

impl Upgrade {
    pub(super) fn run(self, context: &Context, screen: &mut Screen) -> anyhow::Result<Outcome> {
        let data = context.config()?.data;
        let binary = self.binary.map(std::path::absolute).transpose()?;
        let timeout_ms = u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX);
        let order = Order::Upgrade(UpgradeOrder { binary, timeout_ms });
        let patience = self.timeout.saturating_add(MORE_TIME);
        let mut answers = ask(&data, &order, patience)?;
        loop {
            match next(&mut answers)? {
                Answer::Progress { text } => {
                    screen.line(&text)?;
                    screen.flush()?;
                }
                Answer::Done { text, .. } => {
                    screen.line(&text)?;
                    return Ok(Outcome::Done);
                }
                Answer::Erased { .. } => {
                    bail!("the gateway answered something else; is it of another version?")
                }
                Answer::Failed { why } => {
                    tell("error: ", &format!("the old process goes on: {why}"));
                    return Ok(Outcome::Failed);
                }
            }
        }
    }
}

pub(super) type Answers = BufReader<io::Take<std::os::unix::net::UnixStream>>;

/// Asks the gateway of a data folder; its answers come within `patience`.
///
/// # Errors
/// There is none, or it cannot be reached.
pub(super) fn ask(data: &Path, order: &Order, patience: Duration) -> anyhow::Result<Answers> {
    let mut stream = connect(data).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => anyhow::anyhow!(
            "no gateway runs on the data folder {}; name the right one with --config or --data",
            data.display()
        ),
        _ => anyhow::Error::from(error)
            .context(format!("cannot reach the gateway of the data folder {}", data.display())),
    })?;
    let mut line = serde_json::to_vec(order)?;
    line.push(b'\n');
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(&line).context("the gateway does not listen")?;
    Ok(BufReader::new(stream.take(MAX_ANSWER_BYTES)))
}

/// The next answer.
///
/// # Errors
/// There is none.
pub(super) fn next(answers: &mut Answers) -> anyhow::Result<Answer> {
    let mut line = String::new();
    let read = answers.read_line(&mut line).context("the gateway gave no answer; see its log")?;
    if read == 0 {
        bail!("the gateway gave no answer: it has ended, or belongs to another user");
    }
    serde_json::from_str(&line)
        .context("the gateway's answer cannot be understood; is it of another version?")
}
