//! What all commands share: the options of every command, the moment, the configuration, who is asking.
//!
//! Owns where the configuration and the data folder are looked for. Must not print.

use std::fmt;
use std::path::{Path, PathBuf};

use jiff::tz::TimeZone;

use portcullis_config::{Config, ConfigErrors, FILE_NAME, Loaded, Overrides};
use portcullis_model::UnixMs;
pub(crate) use portcullis_model::actor_in_words;
use portcullis_store::{State, StoreError};

use super::output::tell;
use super::{Globals, time};
use crate::settings::load;

/// The user or the configuration asked for something that cannot be done.
#[derive(Debug)]
pub(crate) struct Misuse(pub(crate) String);

impl fmt::Display for Misuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Misuse {}

/// Made once per run.
pub(crate) struct Context {
    globals: Globals,
    pub(crate) now: UnixMs,
    /// The reader's.
    pub(crate) zone: TimeZone,
}

impl Context {
    pub(super) fn new(globals: Globals, now: UnixMs) -> Self {
        Self { globals, now, zone: TimeZone::system() }
    }

    /// As it is for commands about a gateway with this file, or with these data without one.
    pub(crate) fn of_gateway(config: Option<&Path>, data: Option<&Path>, now: UnixMs) -> Self {
        let globals = Globals {
            data: data.map(Path::to_path_buf),
            config: config.map(Path::to_path_buf),
            color: clap::ColorChoice::Never,
        };
        Self::new(globals, now)
    }

    /// The configuration file: the one that was named, or the one in the working directory.
    pub(crate) fn config_file(&self) -> Option<PathBuf> {
        self.globals.config.clone().or_else(|| {
            let here = Path::new(FILE_NAME);
            here.exists().then(|| here.to_path_buf())
        })
    }

    /// `--config` as it was given.
    pub(crate) fn named_config(&self) -> Option<&Path> {
        self.globals.config.as_deref()
    }

    /// `--data` as it was given.
    pub(crate) fn named_data(&self) -> Option<&Path> {
        self.globals.data.as_deref()
    }

    /// Exactly what the gateway would run with. `overrides` get `--data`.
    pub(crate) fn load(&self, overrides: &mut Overrides) -> Result<Loaded, ConfigErrors> {
        overrides.data.clone_from(&self.globals.data);
        load(self.config_file().as_deref(), overrides)
    }

    /// The configuration for commands that look at data: the file's, or the defaults of a gateway without
    /// one. During an attack a mistake in the file of the working directory must not keep anybody from
    /// blocking or reading: with `--data` it is a warning.
    ///
    /// # Errors
    /// The file has mistakes, and it or nothing else says where the data is.
    pub(crate) fn config(&self) -> anyhow::Result<Config> {
        let Some(file) = self.config_file() else { return self.defaults() };
        let overrides = Overrides { data: self.globals.data.clone(), ..Overrides::default() };
        match load(Some(&file), &overrides) {
            Ok(loaded) => Ok(loaded.config),
            Err(errors) if self.globals.data.is_some() && self.globals.config.is_none() => {
                let mistakes = errors.errors().len() + errors.omitted();
                tell(
                    "warning: ",
                    &format!(
                        "{} is left out, it has mistakes ({mistakes}); \"portcullis check\" lists them",
                        file.display()
                    ),
                );
                self.defaults()
            }
            Err(errors) => Err(errors.into()),
        }
    }

    /// The configuration of a gateway without a file.
    pub(crate) fn defaults(&self) -> anyhow::Result<Config> {
        // Nothing is sent there: the defaults of a gateway need a site, the commands do not.
        let upstream = Some("http://127.0.0.1".to_owned());
        let overrides = Overrides { upstream, data: self.globals.data.clone(), ..Overrides::default() };
        Ok(load(None, &overrides)?.config)
    }

    /// A command to type, with the options that lead to the same data.
    pub(crate) fn command(&self, arguments: &str) -> String {
        let option = match (&self.globals.data, &self.globals.config) {
            (Some(data), _) => format!(" --data {}", quoted(&data.to_string_lossy())),
            (None, Some(config)) => format!(" --config {}", quoted(&config.to_string_lossy())),
            (None, None) => String::new(),
        };
        format!("portcullis {arguments}{option}")
    }

    /// `2026-09-01 12:34:56 CEST (3 min ago)`
    pub(crate) fn time(&self, at: UnixMs) -> String {
        format!("{} ({})", time::full(at, &self.zone), time::relative(at, self.now))
    }

    /// `2026-09-01 12:34:56`
    pub(crate) fn short_time(&self, at: UnixMs) -> String {
        time::short(at, &self.zone)
    }
}

/// The state database for reading; `None` when there is none yet.
pub(crate) fn open_state(data: &Path) -> Result<Option<State>, StoreError> {
    match State::open_read_only(data) {
        Ok(state) => Ok(Some(state)),
        Err(StoreError::NoState(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Who changes something, as the audit trail keeps it: `cli:alice`.
pub(crate) fn actor() -> String {
    // The first that is set: whoever became root by sudo is still the one who acts.
    let user = ["SUDO_USER", "USER", "LOGNAME"].into_iter().find_map(|name| {
        let user = std::env::var(name).ok()?;
        let user: String = user.chars().filter(|c| !c.is_control()).take(MAX_ACTOR).collect();
        (!user.is_empty()).then_some(user)
    });
    user.map_or_else(|| "cli".to_owned(), |user| format!("cli:{user}"))
}

/// Characters of a user's name in the audit trail.
const MAX_ACTOR: usize = 64;

/// For a POSIX shell.
pub(crate) fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_shell_would_read_otherwise_is_quoted() {
        assert_eq!(quoted("/var/lib/portcullis"), "/var/lib/portcullis");
        assert_eq!(quoted("my data"), "'my data'");
        assert_eq!(quoted("it's; rm -rf"), "'it'\\''s; rm -rf'");
        assert_eq!(quoted(""), "''");
    }
}
