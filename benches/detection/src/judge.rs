//! One log through a timeline, as `replay` does it: who was flagged, when, and how odd the forest found whom.
//! Must not know labels.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use portcullis_accesslog::{Batch, Choice, Log, Record};
use portcullis_detect::bots::KnownBots;
use portcullis_detect::reference_model;
use portcullis_detect::{Asked, BotStatus, Look, Observation, Settings, Signatures, Timeline, glance};
use portcullis_model::{ClientIp, Finding, Severity, UnixMs, VerdictKind};

/// What requests are judged with.
pub(crate) struct Judge {
    settings: Settings,
    signatures: Arc<Signatures>,
    bots: KnownBots,
}

/// All that was found in a log.
#[derive(Default)]
pub(crate) struct Verdicts {
    pub(crate) records: u64,
    pub(crate) clients: HashMap<ClientIp, Client>,
}

/// What a log says of one client.
#[derive(Default)]
pub(crate) struct Client {
    pub(crate) requests: u64,
    /// From its first hostile request on.
    hostile: Option<Since>,
    /// Its first finding of medium severity or more.
    pub(crate) flag: Option<Flag>,
    /// The severest finding.
    pub(crate) worst: Option<Finding>,
    /// The forest's highest score of any of its hours.
    pub(crate) score: Option<f64>,
    /// It came from a network of the crawler that it said to be.
    pub(crate) is_verified: bool,
}

#[derive(Clone, Copy)]
struct Since {
    time: UnixMs,
    requests: u64,
}

/// How long a client went on before it was flagged.
#[derive(Clone, Copy)]
pub(crate) struct Flag {
    /// From the first hostile request to the one with which it was flagged, both counted.
    pub(crate) requests: u64,
    pub(crate) seconds: f64,
}

impl Judge {
    pub(crate) fn new() -> Self {
        let signatures = Arc::new(Signatures::builtin());
        Self { settings: Settings::default(), signatures, bots: KnownBots::builtin() }
    }

    /// Reads a log and judges it.
    pub(crate) fn judge(&self, log: &Path) -> Result<Verdicts> {
        let file = File::open(log).with_context(|| log.display().to_string())?;
        let mut log = Log::open(Box::new(file), Choice::Auto, None)?;
        let mut timeline =
            Timeline::new(&self.settings, Arc::clone(&self.signatures), reference_model().ok());
        let mut verdicts = Verdicts::default();
        let mut batch = Batch::default();
        loop {
            let is_more = log.fill(&mut batch)?;
            for record in batch.iter() {
                self.observe(&record, &mut timeline, &mut verdicts);
            }
            batch.clear();
            if !is_more {
                break;
            }
        }
        timeline.finish();
        verdicts.take(&mut timeline);
        Ok(verdicts)
    }

    fn observe(&self, record: &Record<'_>, timeline: &mut Timeline, verdicts: &mut Verdicts) {
        let verdict = if record.is_malformed { VerdictKind::Malformed } else { VerdictKind::Admitted };
        verdicts.records += 1;
        let bot = self.bots.by_networks(record.client.ip(), &record.user_agent);
        let client = verdicts.clients.entry(record.client).or_default();
        client.count(record.time, || self.is_hostile(record));
        client.is_verified |= bot == BotStatus::Verified;
        timeline.observe(&Observation {
            time: record.time,
            client: record.client,
            status: record.status,
            verdict,
            bytes_out: record.bytes_out,
            method: &record.method,
            host: &record.host,
            path: &record.path,
            query: &record.query,
            user_agent: &record.user_agent,
            referer: &record.referer,
            user: "",
            login: None,
            bot,
        });
        verdicts.take(timeline);
    }

    /// What could be the beginning of an attack: a request that asks for what attacks ask for, that sends a login, or
    /// that the site answered as the client's error.
    fn is_hostile(&self, record: &Record<'_>) -> bool {
        let asked = Asked {
            method: &record.method,
            path: &record.path,
            query: &record.query,
            user_agent: &record.user_agent,
        };
        record.is_malformed
            || (400..499).contains(&record.status)
            || glance(&self.settings, &self.signatures, &asked) != Look::Ordinary
    }
}

impl Verdicts {
    fn take(&mut self, timeline: &mut Timeline) {
        for finding in timeline.take_findings() {
            self.clients.entry(finding.client).or_default().flag(finding);
        }
        for score in timeline.take_scores() {
            let best = &mut self.clients.entry(score.client).or_default().score;
            *best = Some(best.map_or(score.score, |known| known.max(score.score)));
        }
    }
}

impl Client {
    fn count(&mut self, time: UnixMs, is_hostile: impl FnOnce() -> bool) {
        self.requests += 1;
        if self.flag.is_none() && self.hostile.is_none() && is_hostile() {
            self.hostile = Some(Since { time, requests: self.requests });
        }
    }

    fn flag(&mut self, finding: Finding) {
        if finding.severity >= Severity::Medium && self.flag.is_none() {
            let began = self.hostile.unwrap_or(Since { time: finding.detected_at, requests: self.requests });
            let seconds = finding.detected_at.since(began.time).as_secs_f64();
            self.flag = Some(Flag { requests: self.requests + 1 - began.requests, seconds });
        }
        if self.worst.as_ref().is_none_or(|worst| worst.severity < finding.severity) {
            self.worst = Some(finding);
        }
    }

    pub(crate) fn severity(&self) -> Option<Severity> {
        self.worst.as_ref().map(|finding| finding.severity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_from_the_first_hostile_one_to_the_flag() {
        let folder = std::env::temp_dir().join(format!("portcullis-detection-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let log = folder.join("a.log");
        let line = |second: u32, path: &str, status: u16| {
            format!(
                "192.0.2.1 - - [17/Oct/2022:14:14:{second:02} +0000] \"GET {path} HTTP/1.1\" {status} 1 \"-\" \"x\"\n"
            )
        };
        let text =
            [line(1, "/", 200), line(2, "/gone", 404), line(5, "/.env", 404), line(6, "/", 200)].concat();
        std::fs::write(&log, text).unwrap();
        let verdicts = Judge::new().judge(&log).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        let client = &verdicts.clients[&"192.0.2.1".parse().unwrap()];
        let flag = client.flag.unwrap();
        assert_eq!((verdicts.records, client.requests, flag.requests, flag.seconds), (4, 4, 2, 3.0));
        assert_eq!(client.severity(), Some(Severity::Medium));
    }
}
