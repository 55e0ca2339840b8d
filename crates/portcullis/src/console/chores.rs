//! Tasks, alerts, reloads: what a person may have done at once.
//! Must not know about pages.

use std::path::PathBuf;
use std::sync::Arc;

use jiff::tz::TimeZone;
use portcullis_admin::running::chores::{
    ChannelState, Chores, Reloaded, SourceGroup, TaskState, Told, Tried,
};
use portcullis_model::UnixMs;
use portcullis_notify::Digest;
use portcullis_store::State;

use crate::alerts;
use crate::app::{App, Reload, wall_now};
use crate::sentence::sentence;
use crate::tasks::{self, Standing, TaskContext, lower_priority, running_since};

use super::{Backend, sources};

impl Chores for Backend {
    fn last_reload(&self) -> Result<Option<(UnixMs, Reloaded)>, String> {
        Ok(self.app()?.last_reload().map(|(at, reload)| (at, reloaded(reload))))
    }

    fn config_file(&self) -> Result<Option<PathBuf>, String> {
        Ok(self.app()?.source().map(PathBuf::from))
    }

    fn reload(&self) -> Result<Reloaded, String> {
        Ok(reloaded(self.app()?.reload()))
    }

    fn tasks(&self) -> Result<Vec<TaskState>, String> {
        let app = self.app()?;
        let config = app.config();
        let standing = tasks::standing(&config, Some(&state(&app)?), wall_now());
        Ok(standing.map_err(|error| error.to_string())?.into_iter().map(task).collect())
    }

    fn run_task(&self, name: &str) -> Result<(), String> {
        let app = self.app()?;
        let task = tasks::find(name).ok_or_else(|| format!("There is no task \"{name}\"."))?;
        let config = app.config();
        if running_since(&config.data, task.name).is_some() {
            return Err(format!("The task \"{name}\" is running already; its outcome will be here."));
        }
        let context = TaskContext {
            config,
            now: wall_now(),
            gateway: Some(app.parts(Arc::new(|_| ()))),
            control: Arc::clone(&self.control),
        };
        let run = move || {
            lower_priority();
            // A failure is on record, and the page shows it.
            if let Err(error) = task.run_now(&context) {
                tracing::warn!("the task \"{}\", run from the console: {}", task.name, sentence(&error));
            }
        };
        let thread = std::thread::Builder::new().name(format!("portcullis-{}", task.name)).spawn(run);
        thread.map(drop).map_err(|error| format!("The task cannot begin: {error}."))
    }

    fn channels(&self) -> Result<Vec<ChannelState>, String> {
        let app = self.app()?;
        let config = app.config();
        let statuses = alerts::statuses(&config, Some(&state(&app)?), wall_now());
        Ok(statuses.map_err(|error| error.to_string())?.iter().map(channel).collect())
    }

    fn recent_alerts(&self, limit: usize) -> Result<Vec<Told>, String> {
        let app = self.app()?;
        let stored = state(&app)?.recent_alerts(UnixMs(0), limit).map_err(|error| error.to_string())?;
        let told = stored.into_iter().map(|stored| {
            let digest: Option<Digest> = serde_json::from_str(&stored.alert.body).ok();
            Told {
                last_at: stored.alert.last_at,
                severity: stored.alert.severity,
                events: stored.alert.events,
                what: digest.map_or_else(|| "cannot be read".to_owned(), |digest| alerts::in_words(&digest)),
            }
        });
        Ok(told.collect())
    }

    fn test_alerts(&self) -> Result<Vec<Tried>, String> {
        let config = self.app()?.config();
        let tried = alerts::test(&config.alerts, &TimeZone::system(), wall_now());
        let tried = tried.into_iter().map(|(channel, outcome)| Tried {
            channel: channel.name().to_owned(),
            target: channel.target(),
            problem: outcome.err(),
        });
        Ok(tried.collect())
    }

    fn sources(&self) -> Result<Vec<SourceGroup>, String> {
        Ok(sources::all(&*self.app()?, wall_now()))
    }
}

fn state(app: &App) -> Result<State, String> {
    State::open_read_only(&app.config().data).map_err(|error| error.to_string())
}

fn reloaded(reload: Reload) -> Reloaded {
    match reload {
        Reload::Unchanged => Reloaded::Unchanged,
        Reload::Applied { changed, waiting } => Reloaded::Applied { changed, waiting },
        Reload::Rejected(why) => Reloaded::Rejected(why),
    }
}

fn task(standing: Standing) -> TaskState {
    let Standing { task, about, schedule, last_run, last_success, running_since, next_run } = standing;
    TaskState { name: task, about, schedule, last_run, last_success, running_since, next_run }
}

fn channel(status: &alerts::Status<'_>) -> ChannelState {
    let known = status.known.as_ref();
    ChannelState {
        name: status.channel.name().to_owned(),
        target: status.channel.target(),
        sent: known.map_or(0, |known| known.sent),
        last_sent: known.and_then(|known| known.last_sent_at),
        waiting: status.waiting,
        next: status.next,
        failing: known.and_then(|known| Some((known.failing_since?, known.last_error.clone()?))),
        lost: known.map_or(0, |known| known.lost),
    }
}
