//! Where the gateway gets its knowledge from, and how it is with that.
//! Must not fetch anything.

use portcullis_admin::running::chores::{Condition, SourceGroup, SourceState};
use portcullis_model::UnixMs;

use crate::app::App;
use crate::bots::Source;
use crate::cli::count;
use crate::cli::feeds::Shown;
use crate::detection;

pub(super) fn all(app: &App, now: UnixMs) -> Vec<SourceGroup> {
    vec![feeds(app, now), places(app), crawlers(app), site(app)]
}

fn feeds(app: &App, now: UnixMs) -> SourceGroup {
    let config = app.config();
    let state = |shown: Shown| SourceState {
        condition: match (shown.in_force, &shown.error) {
            (true, None) => Condition::Good,
            (true, Some(_)) => Condition::Poor,
            (false, Some(_)) => Condition::Bad,
            (false, None) => Condition::Waiting,
        },
        facts: format!("{} from {}, {}", count(shown.entries, "network"), shown.source, shown.mode),
        name: shown.name.to_string(),
        updated: shown.fetched_at,
        problem: shown.error,
    };
    SourceGroup {
        name: "Feeds of addresses",
        task: Some("feeds"),
        sources: config.feeds.iter().map(|feed| state(Shown::new(feed, &config, now))).collect(),
        without: "No feeds. A [[feed]] in the configuration adds one.",
    }
}

fn places(app: &App) -> SourceGroup {
    let state = |database: portcullis_geo::DatabaseStatus| SourceState {
        name: database.path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        condition: if database.rejected.is_some() { Condition::Poor } else { Condition::Good },
        facts: format!("{}, {}", database.kind, portcullis_config::format_size(database.bytes)),
        updated: Some(database.built),
        problem: database.rejected,
    };
    SourceGroup {
        name: "Locations",
        task: Some("geo-update"),
        sources: app.geo().status().into_iter().map(state).collect(),
        without: "No file of locations: countries and networks are not known. geo.databases names them.",
    }
}

fn crawlers(app: &App) -> SourceGroup {
    let bots = app.bots();
    let table = bots.known();
    let state = |source: Source| {
        let status = source.status.as_ref();
        let error = status.and_then(|status| status.error.clone());
        let networks = source.networks.len();
        SourceState {
            name: table.bots().get(source.bot).map_or_else(String::new, |bot| bot.name.to_string()),
            condition: match (networks, &error) {
                (0, Some(_)) => Condition::Bad,
                (0, None) => Condition::Waiting,
                (_, Some(_)) => Condition::Poor,
                (_, None) => Condition::Good,
            },
            facts: count(networks as u64, "network"),
            updated: status.and_then(|status| status.fetched_at),
            problem: error,
        }
    };
    SourceGroup {
        name: "Networks of crawlers",
        task: Some("bots"),
        sources: bots.sources().into_iter().map(state).collect(),
        without: "No networks are fetched; bots.update does that.",
    }
}

/// What the detector has learned of the site, and the forest's model.
fn site(app: &App) -> SourceGroup {
    let data = &app.config().data;
    let mut sources = Vec::new();
    match detection::read_site(data) {
        Ok(None) => {}
        Ok(Some(site)) => {
            let (owned, others) = site.path_counts();
            sources.push(SourceState {
                name: "The site".to_owned(),
                condition: Condition::Good,
                facts: format!(
                    "{} of its own, {} more were served to somebody",
                    count(owned as u64, "path"),
                    count(others as u64, "path")
                ),
                // Before the first request it has learned until the beginning of time.
                updated: site.since().map(|_| site.learned_until()),
                problem: None,
            });
        }
        Err(error) => sources.push(SourceState {
            name: "The site".to_owned(),
            condition: Condition::Bad,
            facts: "What was learned cannot be read.".to_owned(),
            updated: None,
            problem: Some(error.to_string()),
        }),
    }
    let forest = detection::forest_state(data);
    if let Some(latest) = forest.latest() {
        let problem = forest.problem();
        sources.push(SourceState {
            name: "The forest".to_owned(),
            condition: if problem.is_some() { Condition::Poor } else { Condition::Good },
            facts: format!("model {} of {}", latest.model, count(latest.training_rows as u64, "client")),
            updated: forest.fitted_at,
            problem,
        });
    }
    SourceGroup {
        name: "What the detector has learned",
        task: Some("detect"),
        sources,
        without: "Nothing yet: the detector learns from whole hours of the log.",
    }
}
