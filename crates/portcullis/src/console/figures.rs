//! How the gateway is at this moment: counters for the live overview, health of its parts.
//! Must not know about pages.

use portcullis_admin::running::figures::{Counters, Figures, Grade, Health, Problem};
use portcullis_config::Config;
use portcullis_model::VerdictKind;
use portcullis_notify::words::{bytes, count, number};
use portcullis_proxy::{CLASSES, CircuitState, PoolState};

use super::Backend;
use crate::app::{App, wall_now};
use crate::cli::doctor::{self, Finding, Gravity};
use crate::cli::relative;
use crate::tasks::TASKS;

/// A part of the gateway, and how it is told of.
struct Part {
    name: &'static str,
    /// The checks of the doctor that are about it.
    checks: &'static [&'static str],
    say: fn(&App, &Config) -> Said,
}

/// A few words on a part, and what is wrong that no check of the doctor knows.
struct Said {
    grade: Grade,
    text: String,
    problem: Option<Problem>,
}

impl Said {
    fn good(text: String) -> Self {
        Self { grade: Grade::Good, text, problem: None }
    }

    fn off(text: &str) -> Self {
        Self { grade: Grade::Off, text: text.to_owned(), problem: None }
    }
}

const PARTS: [Part; 6] = [
    Part { name: "Log", checks: &["log", "databases", "disk", "clock", "permissions"], say: log },
    Part { name: "Upstreams", checks: &["own_upstream"], say: upstreams },
    Part { name: "Tasks", checks: &["tasks", "detector", "forest", "site"], say: tasks },
    Part { name: "Geo", checks: &["geo"], say: geo },
    Part { name: "Feeds", checks: &["feeds"], say: feeds },
    Part { name: "Alerts", checks: &["alerts"], say: alerts },
];

impl Figures for Backend {
    fn counters(&self) -> Option<Counters> {
        let app = self.app().ok()?;
        let edge = app.gateway().edge();
        let of = |verdict| (0..CLASSES.len()).map(|class| edge.metrics.requests(verdict, class)).sum();
        let (addresses, prefixes) = edge.state.blocks.len();
        let (users, anonymous) = edge.state.parties.len();
        Some(Counters {
            verdicts: VerdictKind::ALL.map(of),
            connections: edge.metrics.connections(),
            blocks: addresses + prefixes + users + anonymous,
        })
    }

    fn health(&self) -> Vec<Health> {
        let Ok(app) = self.app() else { return Vec::new() };
        let config = app.config();
        let mut findings = doctor::at_once(&Self::context(&app), &config);
        let mut health: Vec<Health> =
            PARTS.iter().map(|part| part.health(&app, &config, &mut findings)).collect();
        // What no part has claimed is about how everything is set up.
        let text = match findings.len() as u64 {
            0 => "nothing is wrong that could be seen".to_owned(),
            n => format!("{} to look at", count(n, "setting")),
        };
        health.push(with("Settings", Said::good(text), findings));
        health
    }
}

impl Part {
    /// Takes the findings that are about this part.
    fn health(&self, app: &App, config: &Config, findings: &mut Vec<Finding>) -> Health {
        let (own, others) =
            std::mem::take(findings).into_iter().partition(|finding| self.checks.contains(&finding.check));
        *findings = others;
        with(self.name, (self.say)(app, config), own)
    }
}

fn with(part: &'static str, said: Said, findings: Vec<Finding>) -> Health {
    let worst = findings.iter().map(|finding| grade(finding.gravity)).max();
    let found = findings.into_iter().map(|finding| Problem {
        seen: finding.seen,
        remedy: finding.remedy,
        write: finding.write,
    });
    Health {
        part,
        grade: worst.map_or(said.grade, |worst| worst.max(said.grade)),
        said: said.text,
        problems: said.problem.into_iter().chain(found).collect(),
    }
}

fn grade(gravity: Gravity) -> Grade {
    match gravity {
        Gravity::Warning => Grade::Warning,
        Gravity::Error => Grade::Bad,
    }
}

fn log(app: &App, _: &Config) -> Said {
    let stats = app.log_stats();
    let text = format!("{} written, {}", count(stats.written(), "row"), bytes(stats.bytes_on_disk()));
    if !stats.is_failing() {
        return Said::good(text);
    }
    // The doctor reads it from a file that is written every few seconds; this is from now.
    Said {
        grade: Grade::Bad,
        text: format!("cannot be written; {} lost", count(stats.dropped(), "row")),
        problem: None,
    }
}

fn upstreams(app: &App, _: &Config) -> Said {
    let pools = app.gateway().edge().upstreams();
    let servers = pools.iter().flat_map(|pool| &pool.servers);
    let (all, answering) = (servers.clone().count(), servers.filter(|server| server.answers()).count());
    let text = format!("{answering} of {} answering", count(all as u64, "server"));
    let worst = pools.iter().map(pool_grade).max().unwrap_or(Grade::Off);
    let bad = pools.iter().filter(|pool| pool_grade(pool) > Grade::Good).map(pool_words);
    let bad: Vec<String> = bad.collect();
    let problem = (!bad.is_empty()).then(|| Problem {
        seen: bad.join("; "),
        remedy: "Look at these servers and at the network between; they are tried again by themselves."
            .to_owned(),
        write: None,
    });
    Said { grade: worst, text, problem }
}

fn pool_grade(pool: &PoolState) -> Grade {
    let answering = pool.servers.iter().filter(|server| server.answers()).count();
    match pool.circuit {
        Some(CircuitState::Open) => Grade::Bad,
        _ if answering == 0 => Grade::Bad,
        Some(CircuitState::HalfOpen) => Grade::Warning,
        Some(CircuitState::Closed) | None if answering < pool.servers.len() => Grade::Warning,
        Some(CircuitState::Closed) | None => Grade::Good,
    }
}

fn pool_words(pool: &PoolState) -> String {
    let silent = pool.servers.iter().filter(|server| !server.answers());
    let silent: Vec<String> = silent.map(|server| server.address.to_string()).collect();
    let silent = match silent.is_empty() {
        true => String::new(),
        false => format!(" does not get answers from {}", silent.join(", ")),
    };
    let circuit = match pool.circuit {
        Some(CircuitState::Open) => " is being left alone after too many failures",
        Some(CircuitState::HalfOpen) => " is being tried again after failures",
        Some(CircuitState::Closed) | None => "",
    };
    let and = if silent.is_empty() || circuit.is_empty() { "" } else { " and" };
    format!("\"{}\"{silent}{and}{circuit}", pool.name)
}

fn tasks(app: &App, _: &Config) -> Said {
    let known = app.stats().tasks.all();
    let running: Vec<&str> =
        known.iter().filter(|(_, stat)| stat.running_since.is_some()).map(|(name, _)| *name).collect();
    let last = known.values().filter_map(|stat| stat.last_success).max();
    let now = match (running.is_empty(), last) {
        (false, _) => format!("running: {}", running.join(", ")),
        (true, Some(at)) => format!("last success {}", ago(at)),
        (true, None) => "none has run yet".to_owned(),
    };
    Said::good(format!("{}, {now}", count(TASKS.len() as u64, "task")))
}

fn geo(app: &App, config: &Config) -> Said {
    let databases = app.geo().status();
    let sources = config.geo.sources.len();
    if databases.is_empty() && sources == 0 {
        return Said::off("no database: countries are unknown");
    }
    let mut said = vec![count(databases.len() as u64, "database")];
    let newest = databases.iter().map(|database| database.built).max();
    said.extend(newest.map(|built| format!("the newest built {}", ago(built))));
    if sources > 0 {
        said.push(count(sources as u64, "source"));
    }
    Said::good(said.join(", "))
}

fn feeds(app: &App, config: &Config) -> Said {
    if config.feeds.is_empty() {
        return Said::off("none configured");
    }
    let states = app.stats().feeds();
    let entries: u64 = states.iter().map(|feed| feed.entries).sum();
    let in_force = states.iter().filter(|feed| feed.entries > 0).count();
    let all = count(config.feeds.len() as u64, "feed");
    Said::good(format!("{in_force} of {all} in force, {}", count(entries, "network")))
}

fn alerts(app: &App, _: &Config) -> Said {
    let channels = app.stats().alerts.all();
    if channels.is_empty() {
        return Said::off("no channel configured: nobody is told");
    }
    let sent = channels.values().map(|channel| channel.sent).sum();
    let waiting: u64 = channels.values().map(|channel| channel.waiting).sum();
    Said::good(format!(
        "{}, {} sent, {} waiting",
        count(channels.len() as u64, "channel"),
        number(sent),
        number(waiting)
    ))
}

fn ago(at: portcullis_model::UnixMs) -> String {
    relative(at, wall_now())
}
