//! What runs beside the requests: the detector, the tasks, the locations, the alerts.

use std::time::Duration;

use portcullis_geo::Circuit;
use portcullis_model::UnixMs;

use super::facts::{Facts, FeedFacts};
use super::{Finding, Gravity};
use crate::cli::output::count;
use crate::cli::time;
use crate::detection;
use crate::feeds;

/// No task takes that long.
const LONG_RUN: Duration = Duration::from_secs(3_600);
/// Publishers bring out new files every month at the latest.
const OLD_GEO: Duration = Duration::from_secs(40 * 86_400);
/// Beyond two intervals nobody fetches a feed any more.
const FEED_PATIENCE: Duration = Duration::from_secs(900);
/// A source that is left alone for a while is none to worry about.
const SILENT_SOURCE: Duration = Duration::from_secs(86_400);

/// A detector that should run and does not, or that fails.
pub(super) fn detector(facts: &Facts<'_>) -> Vec<Finding> {
    const CHECK: &str = "detector";
    let detection = &facts.config.detection;
    if !detection.enabled {
        return Vec::new();
    }
    let overdue = detection.interval * 2;
    if let Some(run) = facts.detector.as_ref().filter(|run| !run.succeeded) {
        return vec![Finding::new(
            CHECK,
            Gravity::Error,
            format!("its last run, {}, failed: {}", time::relative(run.started_at, facts.now), run.summary),
            "Remove the cause; \"portcullis detect\" runs it at once and says what is wrong.",
        )];
    }
    let lost = facts.running().map_or(0, |status| status.alarms_lost);
    if lost > 0 {
        return vec![Finding::new(
            CHECK,
            Gravity::Warning,
            format!("{} of it were lost since the gateway started", count(lost, "alarm")),
            "Too many came at once, or state.db could not be written: look into the gateway's own log. The next run \
             finds what they were about; \"portcullis detect\" runs it at once.",
        )];
    }
    let Some(uptime) = facts.running().map(|status| facts.now.since(UnixMs(status.started_at))) else {
        return Vec::new();
    };
    let idle = facts.detector.as_ref().map_or(uptime, |run| facts.now.since(run.started_at).min(uptime));
    if idle <= overdue {
        return Vec::new();
    }
    vec![Finding::new(
        CHECK,
        Gravity::Error,
        format!(
            "it runs every {} and has not run for {}, while the gateway did",
            time::in_words(detection.interval),
            time::span(idle)
        ),
        "Look into the gateway's own log for \"detector\"; \"portcullis detect\" runs it at once.",
    )]
}

/// What the detector judges with: the isolation forest, and what it knows of the site.
pub(super) fn knowledge(facts: &Facts<'_>) -> Vec<Finding> {
    let forest = facts.forest.as_ref().map(|problem| {
        let remedy = "It is fitted anew each day; until then mind the other rules. Without it: [detection] forest \
                      = false.";
        Finding::new("forest", Gravity::Warning, format!("the isolation forest misleads: {problem}"), remedy)
            .write("portcullis detect --health".to_owned())
    });
    let site = facts.site.as_ref().map(|problem| {
        let remedy = "The next run of the detector learns it anew from the log of the last seven days.";
        Finding::new(
            "site",
            Gravity::Warning,
            format!("what was learned of the site is lost: {problem}"),
            remedy,
        )
        .write("portcullis detect".to_owned())
    });
    forest.into_iter().chain(site).collect()
}

/// Tasks that fail or do not end; failures of the detector and of feeds have checks of their own.
pub(super) fn tasks(facts: &Facts<'_>) -> Vec<Finding> {
    const CHECK: &str = "tasks";
    let has_failing_feed = facts.feeds.iter().any(|feed| feed.status.failing > 0);
    let has_own_check =
        |task: &str| task == detection::TASK || (task == feeds::TASK_NAME && has_failing_feed);
    let failed = facts.task_runs.iter().filter(|run| !run.succeeded && !has_own_check(&run.task));
    let failed = failed.map(|run| {
        let when = time::relative(run.started_at, facts.now);
        Finding::new(
            CHECK,
            Gravity::Warning,
            format!("the last run of \"{}\", {when}, failed: {}", run.task, run.summary),
            "Remove the cause; the task can be run at once to see whether it works again.",
        )
        .write(format!("portcullis tasks run {}", run.task))
    });
    let hanging = facts.running.iter().filter(|(_, since)| facts.now.since(*since) > LONG_RUN);
    let hanging = hanging.map(|(task, since)| {
        Finding::new(
            CHECK,
            Gravity::Warning,
            format!("\"{task}\" has been running for {}", time::span(facts.now.since(*since))),
            "It probably hangs, and is not run again before it ends; restart the gateway, and report it.",
        )
    });
    failed.chain(hanging).collect()
}

/// Feeds that cannot be fetched, that nobody fetches, and those whose copy has become too old to be in force.
pub(super) fn stale_feeds(facts: &Facts<'_>) -> Vec<Finding> {
    let ago = |at: Option<UnixMs>| at.map_or_else(|| "never".to_owned(), |at| time::relative(at, facts.now));
    let uptime = facts.running().map(|status| facts.now.since(UnixMs(status.started_at)));
    let each = facts.feeds.iter().filter_map(|feed| {
        let FeedFacts { name, interval, status, in_force } = feed;
        let patience = *interval * 2 + FEED_PATIENCE;
        let untried = status.checked_at.map_or(Duration::MAX, |at| facts.now.since(at));
        let is_forgotten = uptime.is_some_and(|uptime| uptime.min(untried) > patience);
        let what = match (&status.error, status.failing_since) {
            (Some(error), since) => format!("cannot be fetched since {}: {error}", ago(since)),
            (None, _) if is_forgotten => format!(
                "was fetched last {}, and should be every {}",
                ago(status.fetched_at),
                time::in_words(*interval)
            ),
            (None, _) => return None,
        };
        let (gravity, copy) = match in_force {
            true => (Gravity::Warning, format!("the copy of {} is in force", ago(status.fetched_at))),
            false => (Gravity::Error, "nothing of it is in force".to_owned()),
        };
        let remedy = "Remove the cause, and fetch it now; whoever publishes it may have moved it.";
        let found = Finding::new("feeds", gravity, format!("the feed \"{name}\" {what}; {copy}"), remedy);
        Some(found.write(format!("portcullis feeds update {name}")))
    });
    each.collect()
}

/// Geo files that are old or cannot be used.
pub(super) fn geo(facts: &Facts<'_>) -> Vec<Finding> {
    let databases = match &facts.geo {
        Ok(databases) => databases,
        Err(error) => {
            return vec![Finding::new(
                "geo",
                Gravity::Error,
                error.clone(),
                "Put a whole MMDB file there, or take it out of geo.databases.",
            )];
        }
    };
    let old = databases.iter().filter(|database| facts.now.since(database.built) > OLD_GEO);
    old.map(|database| {
        let days = count(facts.now.since(database.built).as_secs() / 86_400, "day");
        Finding::new(
            "geo",
            Gravity::Warning,
            format!("{} was built {days} ago: addresses have moved since", database.path.display()),
            "Download the publisher's newest file to the same place; the gateway takes it over by itself.",
        )
    })
    .collect()
}

/// Channels that nobody is reached by.
pub(super) fn alerts(facts: &Facts<'_>) -> Vec<Finding> {
    let failing = facts.alerts.iter().filter_map(|known| Some((known, known.last_error.as_ref()?)));
    failing
        .map(|(known, error)| {
            let since = known.failing_since.map(|at| format!(" since {}", time::relative(at, facts.now)));
            Finding::new(
                "alerts",
                Gravity::Error,
                format!("messages by {} do not arrive{}: {error}", known.channel, since.unwrap_or_default()),
                "Remove the cause, and try with \"portcullis alerts test\". What waits is sent by itself afterwards.",
            )
        })
        .collect()
}

/// Sources of locations that do not answer, and files that never came.
pub(super) fn geo_sources(facts: &Facts<'_>) -> Vec<Finding> {
    const CHECK: &str = "geo";
    let missing = facts.geo_missing.iter().map(|file| {
        Finding::new(
            CHECK,
            Gravity::Warning,
            format!("{} has not been downloaded yet", file.display()),
            "Download it now; what keeps it from coming is said then:",
        )
        .write("portcullis geo update".to_owned())
    });
    let silent = facts.geo_sources.iter().filter_map(|(kind, state)| {
        let error = state.last_error.as_ref()?;
        let is_silent = state.last_answer_at.is_none_or(|at| facts.now.since(at) > SILENT_SOURCE);
        if !is_silent || state.circuit(facts.now) == Circuit::Closed {
            return None;
        }
        let last = state.last_answer_at.map_or_else(
            || "has never answered".to_owned(),
            |at| format!("answered last {}", time::relative(at, facts.now)),
        );
        let what = format!("{} {last}: {error}", kind.as_str());
        let remedy =
            "Look at the token in [[geo.source]], the quota at the service, and this machine's way out.";
        Some(Finding::new(CHECK, Gravity::Warning, what, remedy))
    });
    missing.chain(silent).collect()
}

#[cfg(test)]
mod tests {
    use super::super::facts::tests::{config, healthy, run};
    use super::*;
    use portcullis_geo::{DatabaseStatus, SourceKind};
    use portcullis_store::TaskRun;

    #[test]
    fn a_forest_that_misleads_and_lost_knowledge_of_the_site_are_told() {
        let config = config("");
        let mut facts = healthy(&config);
        assert_eq!(knowledge(&facts), Vec::new());
        facts.forest = Some("it found 90 of 100 clients odd".to_owned());
        facts.site = Some("format 9".to_owned());
        let found = knowledge(&facts);
        assert!(found[0].seen.contains("90 of 100") && found[1].seen.contains("format 9"), "{found:?}");
    }

    #[test]
    fn a_detector_that_does_not_run_or_fails_is_found() {
        let config = config("");
        let mut facts = healthy(&config);
        assert_eq!(detector(&facts), Vec::new());
        let hours_ago = |n: u32| facts.now.minus(config.detection.interval * n);
        let (three, one) = (hours_ago(3), hours_ago(1));
        facts.detector = Some(run(three, true));
        assert!(detector(&facts)[0].seen.contains("for 3 h"), "{:?}", detector(&facts));
        facts.detector = Some(run(one, false));
        assert!(detector(&facts)[0].seen.contains("the disk is full"));
        facts.detector = None;
        assert_eq!(detector(&facts).len(), 1, "a day without a run");
        facts.gateway.as_mut().unwrap().started_at = one.0;
        assert_eq!(detector(&facts), Vec::new(), "it has just been started");
        facts.gateway = None;
        facts.detector = Some(run(three, true));
        assert_eq!(detector(&facts), Vec::new(), "no gateway, no detector");
    }

    #[test]
    fn a_task_that_fails_or_hangs_is_found() {
        let config = config("");
        let mut facts = healthy(&config);
        assert_eq!(tasks(&facts), Vec::new());
        let failed = run(facts.now.minus(LONG_RUN), false);
        facts.task_runs.push(TaskRun { task: "cleanup".to_owned(), ..failed });
        let found = tasks(&facts);
        assert!(found.len() == 1 && found[0].seen.contains("\"cleanup\", 60 min ago, failed"), "{found:?}");
        facts.task_runs.clear();
        facts.running = vec![("cleanup", facts.now.minus(LONG_RUN * 3)), ("detect", facts.now)];
        let found = tasks(&facts);
        assert!(found.len() == 1 && found[0].seen.contains("running for 3 h"), "{found:?}");
    }

    #[test]
    fn a_feed_that_fails_or_that_nobody_fetches_is_found() {
        use crate::feeds::Status;

        let config = config("");
        let mut facts = healthy(&config);
        let day = Duration::from_secs(86_400);
        let now = facts.now;
        let feed = |checked: UnixMs, status: Status| {
            let status = Status { checked_at: Some(checked), fetched_at: Some(checked), ..status };
            FeedFacts { name: "drop".to_owned(), interval: day / 24, status, in_force: true }
        };
        facts.feeds = vec![feed(now.minus(day / 24), Status::default())];
        assert_eq!(stale_feeds(&facts), Vec::new());
        let failing = Status {
            failing: 3,
            failing_since: Some(now.minus(day)),
            error: Some("answered with 503".to_owned()),
            ..Status::default()
        };
        facts.feeds = vec![feed(now.minus(day), failing)];
        let found = stale_feeds(&facts);
        assert!(found.len() == 1 && found[0].gravity == Gravity::Warning, "{found:?}");
        assert!(found[0].seen.contains("since 24 h ago: answered with 503; the copy of "), "{found:?}");
        facts.feeds[0].in_force = false;
        assert_eq!(stale_feeds(&facts)[0].gravity, Gravity::Error);
        // The run that recorded it is not a second finding; one that failed for another reason is.
        let failed = run(now.minus(LONG_RUN), false);
        facts.task_runs.push(TaskRun { task: feeds::TASK_NAME.to_owned(), ..failed });
        assert_eq!(tasks(&facts), Vec::new());

        facts.feeds = vec![feed(now.minus(day), Status::default())];
        assert_eq!(tasks(&facts).len(), 1);
        assert!(stale_feeds(&facts)[0].seen.contains("should be every"), "{:?}", stale_feeds(&facts));
        facts.gateway.as_mut().unwrap().started_at = now.0;
        assert_eq!(stale_feeds(&facts), Vec::new(), "the gateway has just been started");
    }

    #[test]
    fn a_detector_that_is_switched_off_is_somebodys_choice() {
        let config = config("[detection]\nenabled = false");
        let mut facts = healthy(&config);
        facts.detector = None;
        assert_eq!(detector(&facts), Vec::new());
    }

    #[test]
    fn geo_sources_that_do_not_answer_and_files_that_never_came_are_found() {
        let config = config("");
        let mut facts = healthy(&config);
        assert_eq!(geo_sources(&facts), Vec::new());
        let state = |failures: u32, answered: Option<UnixMs>| {
            let json = serde_json::json!({
                "failures": failures,
                "left_alone_until": (failures >= 3).then_some(facts.now.plus(OLD_GEO)),
                "last_error": "it answered with status 500",
                "last_error_at": facts.now,
                "last_answer_at": answered,
            });
            serde_json::from_value(json).unwrap()
        };
        let long_ago = Some(facts.now.minus(SILENT_SOURCE * 2));
        let kind = SourceKind::IpinfoIo;
        let states = [state(3, Some(facts.now)), state(2, long_ago), state(3, long_ago), state(3, None)];
        facts.geo_sources = states.map(|state| (kind, state)).to_vec();
        let found = geo_sources(&facts);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].seen.contains("answered last 2 d"), "{found:?}");
        assert!(found[1].seen.contains("never") && found[1].seen.contains("status 500"), "{found:?}");
        facts.geo_sources.clear();
        facts.geo_missing = vec!["city.mmdb".into()];
        assert!(geo_sources(&facts)[0].seen.contains("city.mmdb has not been downloaded"));
    }

    #[test]
    fn old_and_broken_geo_files_are_found() {
        let config = config("");
        let mut facts = healthy(&config);
        let built = |days: u64| DatabaseStatus {
            path: "city.mmdb".into(),
            kind: String::new(),
            built: facts.now.minus(Duration::from_secs(days * 86_400)),
            nodes: 1,
            ip_version: 6,
            bytes: 1,
            rejected: None,
        };
        let (new, old) = (built(39), built(60));
        facts.geo = Ok(vec![new, old]);
        let found = geo(&facts);
        assert!(found.len() == 1 && found[0].seen.contains("60 days"), "{found:?}");
        facts.geo = Err("city.mmdb: not an MMDB file".to_owned());
        assert_eq!(geo(&facts)[0].gravity, Gravity::Error);
    }

    #[test]
    fn a_channel_that_reaches_nobody_is_found() {
        let config = config("");
        let mut facts = healthy(&config);
        let channel = |error: Option<&str>| portcullis_store::AlertChannel {
            channel: "mail".to_owned(),
            done_id: 0,
            failures: u32::from(error.is_some()),
            failing_since: error.map(|_| facts.now.minus(Duration::from_secs(7_200))),
            next_try_at: None,
            last_error: error.map(str::to_owned),
            sent: 3,
            last_sent_at: None,
            lost: 0,
        };
        let (works, fails) = (channel(None), channel(Some("refused the user name")));
        facts.alerts = vec![works];
        assert_eq!(alerts(&facts), Vec::new());
        facts.alerts = vec![fails];
        let found = alerts(&facts);
        assert!(
            found[0].seen.contains("mail do not arrive since 2 h ago: refused the user name"),
            "{found:?}"
        );
    }
}
