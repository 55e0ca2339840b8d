//! The gateway's chores: what is looked at every second and every few seconds.
//! Must not do what takes long: one thread does all of them, one after the other.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_acme::Acme;
use portcullis_config::FileStamp;

use crate::alerts::Watch;
use crate::app::{App, wall_now};
use crate::detection::Control;
use crate::identity::Keeper;
use crate::status::{IdentityStatus, StatusWriter};

const TICK: Duration = Duration::from_secs(1);
/// Between looks at files that hardly ever change.
const SLOW_TICK: Duration = Duration::from_secs(5);

/// Returns when the process ends.
pub(super) fn run(app: &App, control: &Control, acme: Acme) {
    let mut watched =
        Watched { path: app.source().map(PathBuf::from), seen: app.source_stamp(), pending: None };
    let start = Instant::now();
    let mut next_slow = start + SLOW_TICK;
    let mut status = StatusWriter::new(wall_now(), start);
    let log = app.log_stats();
    let mut watch = Watch::default();
    let mut identity = Keeper::new(Arc::clone(&app.stats().key_set), Arc::clone(app.session_copies()));
    while !control.is_stopping() {
        std::thread::park_timeout(TICK);
        let edge = app.gateway().edge();
        edge.state.limiter.sweep(edge.clock.now().monotonic_ms);
        shielded("the look at the certificates", || app.gateway().refresh_certificates());
        let data = &app.config().data;
        shielded("the gateway's status", || {
            let known = || {
                let is_on = !app.config().identity.is_off();
                let identity = is_on.then(|| IdentityStatus::of(&edge.identities, app.stats().key_set.get()));
                (identity, app.stats().live.dropped())
            };
            status.tick(data, &edge.metrics, &log, known, (wall_now(), Instant::now()));
        });
        shielded("the look at what to tell", || {
            let config = app.config();
            watch.tick(app.alerts(), &config.alerts, &log, &config.data, wall_now());
            // What cannot be stored now is stored later; that the database fails is said where it is used.
            if let Err(error) = app.alerts().keep(&config) {
                tracing::debug!("alerts wait: {error}");
            }
        });
        if watched.has_changed() {
            shielded("the reload", || drop(app.reload()));
        }
        shielded("the look at the settings", || app.refresh_settings());
        shielded("the look at the feeds", || app.refresh_feeds());
        shielded("the look at the crawlers", || app.refresh_bots());
        shielded("the look after sessions and keys", || identity.tick(edge, &app.config(), wall_now()));
        acme.apply(app.config().acme.as_ref());
        app.recording().tick(wall_now());
        let now = Instant::now();
        if now >= next_slow {
            next_slow = now + SLOW_TICK;
            shielded("the look at blocks under a hash", || app.look_after_kept_blocks());
            shielded("the look at the geo databases", || reload_geo(app));
        }
    }
    identity.end(app.gateway().edge(), &app.config().data);
    acme.stop();
}

/// A chore that panics must not take the others with it. The panic hook has said where and why.
fn shielded(what: &str, chore: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(chore)).is_err() {
        tracing::error!("{what} panicked; it is tried again when it is due again");
    }
}

fn reload_geo(app: &App) {
    match app.geo().reload_if_changed() {
        Ok(true) => tracing::info!("geo databases were replaced"),
        Ok(false) => {}
        Err(error) => tracing::warn!("{error}; the last good geo database stays"),
    }
}

/// Notices that the configuration file was written or replaced.
struct Watched {
    path: Option<PathBuf>,
    /// Of what was last read.
    seen: Option<FileStamp>,
    /// A change that may still be going on: taken when it has been the same for one tick.
    pending: Option<FileStamp>,
}

impl Watched {
    fn look(&self) -> Option<FileStamp> {
        FileStamp::of(self.path.as_ref()?)
    }

    fn has_changed(&mut self) -> bool {
        let Some(now) = self.look().filter(|now| Some(*now) != self.seen) else {
            self.pending = None;
            return false;
        };
        if self.pending.replace(now) == Some(now) {
            self.pending = None;
            self.seen = Some(now);
            return true;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chore_that_panics_does_not_end_the_others() {
        shielded("a chore", || panic!("a bug"));
    }
}
