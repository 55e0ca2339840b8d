//! What the operator can tune about detection. Owns the defaults; must not parse text or read files.

use std::time::Duration;

use portcullis_model::Severity;

use crate::Actions;

/// The `[detection]` settings, ready to use.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Whether the scheduled run takes place; the caller looks at it, a [`crate::Window`] does not.
    pub enabled: bool,
    /// Whether requests are judged as they end too; the caller looks at it.
    pub live: bool,
    /// From one scheduled run to the next.
    pub interval: Duration,
    /// How far back a run looks.
    pub window: Duration,
    /// More requests than this within any hour are `high_frequency`.
    pub requests_per_hour: u32,
    /// A larger share of 4xx answers than this is `error_rate`; 0 to 1.
    pub error_rate: f64,
    /// With fewer judged requests than this there is no error rate to speak of.
    pub error_min_requests: u32,
    /// From this many refused logins on a client is `login_failures`.
    pub login_failures: u32,
    /// Paths whose visitors are noted, each exact or anything below it.
    pub sensitive_paths: Vec<String>,
    /// Where logins are sent, each exact, anything below it, or at the end of a longer path, because
    /// applications live below prefixes (`/blog/wp-login.php`).
    pub login_paths: Vec<String>,
    /// Findings at least this severe are to be blocked; `None` never blocks.
    pub block_severity: Option<Severity>,
    /// What is done about a finding by its kind of evidence; where this says nothing else, as `block_severity` says.
    pub actions: Actions,
    /// How long such a block lasts, the first of a client, the second, and so on, the last one for all further
    /// ones; `None` until somebody removes it. At least one step.
    pub block_for: Vec<Option<Duration>>,
    /// Blocks count as earlier ones for so long.
    pub block_memory: Duration,
    /// Whether the isolation forest gives its second opinion.
    pub forest: bool,
    /// The most clients that a window keeps apart.
    pub max_clients: usize,
}

const HOUR: Duration = Duration::from_secs(3_600);

impl Default for Settings {
    fn default() -> Self {
        Self {
            enabled: true,
            live: true,
            interval: HOUR,
            window: HOUR,
            requests_per_hour: 100,
            error_rate: 0.5,
            error_min_requests: 10,
            login_failures: 10,
            sensitive_paths: owned(&[
                "/admin",
                "/administrator",
                "/login",
                "/wp-admin",
                "/wp-login.php",
                "/phpmyadmin",
                "/manager/html",
                "/server-status",
                "/actuator",
                "/.env",
                "/.git",
            ]),
            login_paths: owned(&[
                "/login",
                "/log-in",
                "/logon",
                "/signin",
                "/sign-in",
                "/sign_in",
                "/session",
                "/sessions",
                "/auth",
                "/token",
                "/j_security_check",
                "/wp-login.php",
                "/xmlrpc.php",
                "/login.php",
                "/user/login",
                "/accounts/login",
                "/administrator/index.php",
            ]),
            block_severity: Some(Severity::High),
            actions: Actions::default(),
            block_for: [1, 4, 24, 7 * 24].map(|hours| Some(hours * HOUR)).to_vec(),
            block_memory: 30 * 24 * HOUR,
            forest: true,
            max_clients: 200_000,
        }
    }
}

impl Settings {
    /// Which step a block is, from 1, after so many earlier ones, and how long it lasts.
    pub fn block_step(&self, earlier: usize) -> (usize, Option<Duration>) {
        let step = earlier.min(self.block_for.len().saturating_sub(1));
        (step + 1, self.block_for.get(step).copied().flatten())
    }
}

fn owned(paths: &[&str]) -> Vec<String> {
    paths.iter().map(|&path| path.to_owned()).collect()
}
