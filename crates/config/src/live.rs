//! Settings of the detector that people change while the gateway runs: their names, their values as the file would
//! write them, and what comes of values in the place of the file's. Must not know where those are kept.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use portcullis_detect::{Actions, Settings};
use portcullis_model::Severity;
use toml::Value;
use toml::de::DeValue;

use crate::{Config, format_duration, read};

/// Bytes of a value.
pub const MAX_SETTING_BYTES: usize = 64 << 10;

/// A setting that can be changed while running.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LiveSetting {
    Enabled,
    Live,
    Interval,
    Window,
    RequestsPerHour,
    ErrorRate,
    ErrorMinRequests,
    LoginFailures,
    SensitivePaths,
    LoginPaths,
    BlockSeverity,
    BlockFor,
    BlockMemory,
    Forest,
}

/// No setting that can be changed while running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownSetting(pub String);

/// Why a value cannot be in the place of the file's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingProblem {
    /// As it was asked for, whether it is known or not.
    pub key: String,
    /// A sentence without the key.
    pub message: String,
}

/// A value in the place of the file's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overridden {
    pub setting: LiveSetting,
    /// The value in force, as the file would write it.
    pub value: String,
    pub in_file: String,
}

impl LiveSetting {
    pub const ALL: [Self; 14] = [
        Self::Enabled,
        Self::Live,
        Self::Interval,
        Self::Window,
        Self::RequestsPerHour,
        Self::ErrorRate,
        Self::ErrorMinRequests,
        Self::LoginFailures,
        Self::SensitivePaths,
        Self::LoginPaths,
        Self::BlockSeverity,
        Self::BlockFor,
        Self::BlockMemory,
        Self::Forest,
    ];

    /// The name with its table, as in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enabled => "detection.enabled",
            Self::Live => "detection.live",
            Self::Interval => "detection.interval",
            Self::Window => "detection.window",
            Self::RequestsPerHour => "detection.requests_per_hour",
            Self::ErrorRate => "detection.error_rate",
            Self::ErrorMinRequests => "detection.error_min_requests",
            Self::LoginFailures => "detection.login_failures",
            Self::SensitivePaths => "detection.sensitive_paths",
            Self::LoginPaths => "detection.login_paths",
            Self::BlockSeverity => "detection.block_severity",
            Self::BlockFor => "detection.block_for",
            Self::BlockMemory => "detection.block_memory",
            Self::Forest => "detection.forest",
        }
    }

    /// What it does, in a sentence.
    pub fn about(self) -> &'static str {
        match self {
            Self::Enabled => "Whether the log is looked through on schedule.",
            Self::Live => "Whether requests are judged at once as well.",
            Self::Interval => "From one look through the log to the next, at most the window.",
            Self::Window => "How far back each look goes, at most as far as the log is kept.",
            Self::RequestsPerHour => "More requests than this within any hour are suspicious.",
            Self::ErrorRate => "A larger share of failed requests (4xx) than this is suspicious.",
            Self::ErrorMinRequests => "With fewer requests than this no share of errors is computed.",
            Self::LoginFailures => "From this many refused logins on, a client is guessing passwords.",
            Self::SensitivePaths => "Paths whose visitors are noted, each with all below it.",
            Self::LoginPaths => "Where logins are sent, each with all below it.",
            Self::BlockSeverity => "The least severity that is blocked without asking anybody.",
            Self::BlockFor => "How long such a block lasts: the first of a client, the second, and so on.",
            Self::BlockMemory => "For how long earlier blocks of a client count for that.",
            Self::Forest => "Whether the isolation forest gives its second opinion.",
        }
    }

    /// The value as the file would write it.
    pub fn written(self, settings: &Settings) -> String {
        match self {
            Self::Enabled => Value::Boolean(settings.enabled),
            Self::Live => Value::Boolean(settings.live),
            Self::Interval => duration(settings.interval),
            Self::Window => duration(settings.window),
            Self::RequestsPerHour => Value::Integer(settings.requests_per_hour.into()),
            Self::ErrorRate => Value::Float(settings.error_rate),
            Self::ErrorMinRequests => Value::Integer(settings.error_min_requests.into()),
            Self::LoginFailures => Value::Integer(settings.login_failures.into()),
            Self::SensitivePaths => texts(&settings.sensitive_paths),
            Self::LoginPaths => texts(&settings.login_paths),
            Self::BlockSeverity => text(settings.block_severity.map_or("never", Severity::as_str)),
            Self::BlockFor => match settings.block_for[..] {
                [only] => step(only),
                ref steps => Value::Array(steps.iter().copied().map(step).collect()),
            },
            Self::BlockMemory => duration(settings.block_memory),
            Self::Forest => Value::Boolean(settings.forest),
        }
        .to_string()
    }
}

fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}

fn texts(all: &[String]) -> Value {
    Value::Array(all.iter().map(|one| text(one)).collect())
}

fn duration(duration: Duration) -> Value {
    Value::String(format_duration(duration))
}

fn step(step: Option<Duration>) -> Value {
    step.map_or_else(|| text("forever"), duration)
}

impl FromStr for LiveSetting {
    type Err = UnknownSetting;

    fn from_str(key: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|setting| setting.as_str() == key)
            .ok_or_else(|| UnknownSetting(key.to_owned()))
    }
}

impl fmt::Display for UnknownSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known: Vec<&str> = LiveSetting::ALL.iter().map(|setting| setting.as_str()).collect();
        write!(f, "{:?} cannot be changed while running; what can is: {}", self.0, known.join(", "))
    }
}

impl std::error::Error for UnknownSetting {}

impl fmt::Display for SettingProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.message)
    }
}

/// A value as somebody types it: as in the file, or text without its quotes.
pub fn setting_value(typed: &str) -> String {
    let typed = typed.trim();
    match DeValue::parse(typed) {
        Ok(_) => typed.to_owned(),
        Err(_) => text(typed).to_string(),
    }
}

/// A list of texts, as the file would write it.
pub fn setting_list<'a>(items: impl IntoIterator<Item = &'a str>) -> String {
    Value::Array(items.into_iter().map(text).collect()).to_string()
}

impl Config {
    /// The settings whose value is not the file's.
    pub fn overridden(&self) -> Vec<Overridden> {
        let each = self.overridden.iter().map(|&setting| Overridden {
            setting,
            value: setting.written(&self.detection),
            in_file: setting.written(&self.detection_in_file),
        });
        each.collect()
    }

    /// Puts values (key and text as in the file) in the place of the file's, and takes back those of before.
    ///
    /// # Errors
    /// All that is wrong with them; then nothing has changed.
    pub fn override_with(&mut self, values: &[(String, String)]) -> Result<(), Vec<SettingProblem>> {
        let mut chosen = Vec::new();
        let mut problems = Vec::new();
        for (key, value) in values {
            match checked(key, value) {
                Ok(setting) => chosen.push((setting, value.as_str())),
                Err(message) => problems.push(SettingProblem { key: key.clone(), message }),
            }
        }
        let detection = if problems.is_empty() { self.detection_with(&chosen) } else { Err(problems) }?;
        self.detection = detection;
        self.overridden = chosen.into_iter().map(|(setting, _)| setting).collect();
        self.overridden.sort_unstable();
        Ok(())
    }

    /// The same, leaving out those that cannot be used: a file may have changed under values that were good.
    pub fn override_with_the_good_of(&mut self, values: &[(String, String)]) -> Vec<SettingProblem> {
        let mut values = values.to_vec();
        let mut left_out = Vec::new();
        while let Err(problems) = self.override_with(&values) {
            let before = values.len();
            values.retain(|(key, _)| !problems.iter().any(|problem| problem.key == *key));
            if values.len() == before {
                // They do not fit what the file has: none of them is more wrong than another.
                values.clear();
            }
            left_out.extend(problems);
        }
        left_out
    }

    /// As it would be after a change of one setting, `None` being back to the file; `before` are the values that stand.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn with_change(
        &self,
        before: &[(String, String)],
        key: &str,
        value: Option<&str>,
    ) -> Result<Self, Vec<SettingProblem>> {
        let mut changed = self.clone();
        // What stands and is no good any more is no reason to refuse this one.
        changed.override_with_the_good_of(before);
        let others = changed.overridden.iter().filter(|setting| setting.as_str() != key);
        let mut values: Vec<(String, String)> = others
            .map(|setting| (setting.as_str().to_owned(), setting.written(&changed.detection)))
            .collect();
        values.extend(value.map(|value| (key.to_owned(), value.to_owned())));
        changed.override_with(&values)?;
        Ok(changed)
    }

    fn detection_with(&self, chosen: &[(LiveSetting, &str)]) -> Result<Settings, Vec<SettingProblem>> {
        let mut document = String::from("[detection]\n");
        for setting in LiveSetting::ALL {
            let own = chosen.iter().find(|(own, _)| *own == setting).map(|(_, value)| (*value).to_owned());
            let value = own.unwrap_or_else(|| setting.written(&self.detection_in_file));
            let name = setting.as_str().trim_start_matches("detection.");
            document.push_str(&format!("{name} = {value}\n"));
        }
        let read = read::detection_alone(&document, Path::new(""), &self.log).map_err(|messages| {
            messages.into_iter().map(|message| problem(&message)).collect::<Vec<SettingProblem>>()
        })?;
        let in_file = &self.detection_in_file;
        let actions = match read.block_severity == in_file.block_severity {
            true => in_file.actions.clone(),
            false if in_file.actions == Actions::blocking_from(in_file.block_severity) => read.actions,
            false => {
                let key = LiveSetting::BlockSeverity.as_str().to_owned();
                let message = "the file has a table [detection.actions], which says more than one severity can; \
                               change it there";
                return Err(vec![SettingProblem { key, message: message.to_owned() }]);
            }
        };
        Ok(Settings { actions, max_clients: in_file.max_clients, ..read })
    }
}

/// One value on its own, so that it cannot bring further settings with it.
fn checked(key: &str, value: &str) -> Result<LiveSetting, String> {
    let setting: LiveSetting = key.parse().map_err(|unknown: UnknownSetting| unknown.to_string())?;
    if value.len() > MAX_SETTING_BYTES {
        return Err(format!("expected at most {MAX_SETTING_BYTES} bytes, got {}", value.len()));
    }
    match DeValue::parse(value) {
        Ok(_) if value.contains(['\n', '\r']) => Err("expected a value on one line".to_owned()),
        Ok(_) => Ok(setting),
        Err(error) => Err(format!("expected a value as the file has them: {}", error.message())),
    }
}

/// `detection.window: expected ...`
fn problem(message: &str) -> SettingProblem {
    match message.split_once(": ") {
        Some((key, rest)) => SettingProblem { key: key.to_owned(), message: rest.to_owned() },
        None => SettingProblem { key: String::new(), message: message.to_owned() },
    }
}
