//! Passwords from whoever types them.
//! Must not show them, nor take them from the arguments, which everybody on the machine can read.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _};

use anyhow::Context as _;
use portcullis_admin::{check_password, hash_password};
use portcullis_model::Secret;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::cli::context::Misuse;

/// Bytes of a line that are read: more than any password has.
const MAX_LINE: u64 = 4_096;

/// Asks for a password, twice, or reads one line of standard input. Returns its hash.
pub(super) fn ask(name: &str, from_stdin: bool) -> anyhow::Result<Secret> {
    let password = match from_stdin {
        true => line()?,
        false => typed(name)?,
    };
    check_password(&password, name)
        .map_err(|problem| Misuse(format!("this password cannot be used: {problem}")))?;
    Ok(hash_password(&password))
}

fn typed(name: &str) -> anyhow::Result<String> {
    if !io::stdin().is_terminal() {
        let sentence = "standard input is no terminal to type a password at; send it there with --password-stdin, or \
                        make a link with \"console link\"";
        return Err(Misuse(sentence.to_owned()).into());
    }
    let silence = Silence::begin().context("cannot keep the terminal from showing the password")?;
    let first = prompted(&format!("New password for {name}: "))?;
    let second = prompted("The same again: ")?;
    drop(silence);
    match first == second {
        true => Ok(first),
        false => Err(Misuse("the two are not the same; nothing was changed".to_owned()).into()),
    }
}

fn prompted(text: &str) -> anyhow::Result<String> {
    let mut stderr = io::stderr().lock();
    write!(stderr, "{text}")?;
    stderr.flush()?;
    let line = line();
    writeln!(stderr)?;
    line
}

fn line() -> anyhow::Result<String> {
    let mut text = String::new();
    let read = io::stdin().lock().take(MAX_LINE).read_line(&mut text).context("cannot read the password")?;
    if read == 0 {
        return Err(Misuse("there is no password on standard input".to_owned()).into());
    }
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// A terminal that does not show what is typed, until this is dropped.
struct Silence {
    before: Termios,
}

impl Silence {
    fn begin() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Flush, &silent)?;
        Ok(Self { before })
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        // A terminal that has gone needs nothing more.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}
