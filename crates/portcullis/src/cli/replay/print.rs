//! A replay in words: first the clients that look innocent and would have been refused, then what would have been.
//! Must not compute figures.

use portcullis_config::Config;
use portcullis_model::{Severity, UnixMs};
use portcullis_privacy::Anonymise;

use super::super::output::{Align, Cell, DIM, GREEN, PLAIN, RED, Screen, Table, YELLOW, count, number};
use super::super::suspicious::severity_style;
use super::super::time;
use crate::replay::{
    Change, Figures, Flagged, Looks, ModelOrigin, Outcome, Pass, Past, Refused, SourceReport, Tally,
};

/// Files that are named one by one.
const NAMED_SOURCES: usize = 12;
/// Rules that are listed.
const RULES: usize = 15;
/// From this share of all requests one private client is a proxy's address, and not a client's.
const PROXY_SHARE: f64 = 0.9;

/// All that there is to say.
pub(super) struct Report<'a> {
    pub(super) past: &'a Past,
    pub(super) config: &'a Config,
    pub(super) pass: &'a Pass,
    pub(super) now: &'a Outcome,
    pub(super) before: Option<&'a Outcome>,
    pub(super) changes: Option<&'a [Change]>,
    pub(super) flagged: &'a [Flagged],
    pub(super) figures: &'a Figures,
    pub(super) severity: Severity,
    pub(super) limit: usize,
    pub(super) keeps_model: bool,
}

impl Report<'_> {
    pub(super) fn print(&self, screen: &mut Screen) -> anyhow::Result<()> {
        self.head(screen)?;
        if self.now.totals.requests == 0 {
            screen.blank()?;
            screen.line("There is no request to replay.")?;
            return Ok(());
        }
        match (self.changes, self.before) {
            (Some(changes), Some(before)) => self.differences(changes, before, screen)?,
            _ => {
                self.innocent(screen)?;
                self.totals(screen)?;
                self.rules(screen)?;
                self.list(screen)?;
            }
        }
        self.notes(screen)
    }

    fn head(&self, screen: &mut Screen) -> anyhow::Result<()> {
        let totals = &self.now.totals;
        let clients = count(self.now.clients.len() as u64, "client");
        screen.title(&format!("{} of {clients}", count(totals.requests, "request")))?;
        let names = match self.before {
            Some(before) => format!("{}, compared with {}", self.now.name, before.name),
            None => self.now.name.clone(),
        };
        screen.field("policy", &names)?;
        if let Some((first, latest)) = self.now.span {
            screen.field("time", &format!("{} to {}", utc(first), utc(latest)))?;
        }
        for (n, source) in self.pass.sources.iter().take(NAMED_SOURCES).enumerate() {
            screen.field(if n == 0 { "logs" } else { "" }, &source_in_words(source))?;
        }
        if let Some(more) = self.pass.sources.len().checked_sub(NAMED_SOURCES + 1) {
            screen.field("", &format!("and {}", count(more as u64 + 1, "more log")))?;
        }
        self.bad_lines(screen)?;
        screen.field("forest", &self.forest())?;
        Ok(())
    }

    fn bad_lines(&self, screen: &mut Screen) -> anyhow::Result<()> {
        for source in self.pass.sources.iter().filter(|source| source.counts.bad > 0).take(NAMED_SOURCES) {
            let bad = count(source.counts.bad, "line");
            screen.styled_field("not read", YELLOW, &format!("{bad} of {}, such as", source.name))?;
            for line in &source.counts.shown {
                screen.field("", &format!("{}:{}: {}", source.name, line.number, line.reason.as_str()))?;
                screen.styled_field("", DIM, &format!("  {}", line.text))?;
            }
        }
        Ok(())
    }

    fn forest(&self) -> String {
        let id = self.now.model_id.as_deref().unwrap_or("none");
        match &self.now.model {
            ModelOrigin::Given => format!("the given model, {id}"),
            ModelOrigin::Trained if self.keeps_model => format!("trained on these requests and stored, {id}"),
            ModelOrigin::Trained => {
                "trained on these requests; with --model FILE the next replay scores the same".to_owned()
            }
            ModelOrigin::AsItGoes => {
                "trained as it went, since this can be read once only; scores differ from run to run"
                    .to_owned()
            }
            ModelOrigin::Reference(why) => format!("the one that ships ({why}), {id}"),
            ModelOrigin::Off(why) => format!("off: {why}"),
        }
    }

    fn innocent(&self, screen: &mut Screen) -> anyhow::Result<()> {
        screen.blank()?;
        let innocent = self.now.innocent_and_refused();
        if innocent.is_empty() {
            let humans = self.figure("humans");
            screen.spans(&[
                (GREEN, "Nobody who looks innocent would have been refused"),
                (PLAIN, &format!(" ({} look like people).", number(humans))),
            ])?;
            return Ok(());
        }
        screen.spans(&[
            (RED, "Look innocent, and would have been refused: "),
            (RED, &count(innocent.len() as u64, "client")),
        ])?;
        let mut table = Table::new(&[
            ("client", Align::Left),
            ("refused", Align::Right),
            ("of", Align::Right),
            ("first", Align::Left),
            ("why", Align::Left),
        ])
        .indented(2)
        .wrapped();
        for tally in innocent.iter().take(self.limit) {
            table.row(vec![
                Cell::new(tally.address.to_string()),
                Cell::new(number(tally.refused_requests())),
                Cell::new(number(u64::from(tally.requests))),
                Cell::new(tally.first_refused.map(utc_short).unwrap_or_default()),
                Cell::new(self.why_innocent(tally)),
            ]);
        }
        screen.table(&mut table)?;
        self.rest(innocent.len(), screen)
    }

    fn why_innocent(&self, tally: &Tally) -> String {
        let looks = match tally.looks() {
            Looks::VerifiedBot => "a verified crawler".to_owned(),
            Looks::Human | Looks::Unknown => format!(
                "looks like a person: {} pages, {:.0} % of its requests for what belongs to them",
                tally.pages(),
                tally.asset_share() * 100.0
            ),
        };
        let kinds = Refused::ALL.into_iter().filter(|why| tally.refused_by(*why) > 0).map(Refused::as_str);
        let kinds = kinds.collect::<Vec<_>>().join(", ");
        let found = self.flagged.iter().find(|f| f.ip.limit_key() == tally.address.limit_key());
        let says = found.map(|f| format!(": {}", without_client(f))).unwrap_or_default();
        format!("{kinds}{says} ({looks})")
    }

    fn totals(&self, screen: &mut Screen) -> anyhow::Result<()> {
        screen.blank()?;
        screen.title("Would have been")?;
        let mut table = Table::new(&[
            ("", Align::Left),
            ("clients", Align::Right),
            ("of them people", Align::Right),
            ("requests", Align::Right),
        ])
        .indented(2);
        let least = self.severity;
        let blocks = count(self.now.totals.blocks, "block");
        let flagged = if least == Severity::Critical {
            format!("flagged {least}")
        } else {
            format!("flagged {least} or worse")
        };
        let mut row = |name: &str, clients: &str, humans: Option<&str>, requests: Option<u64>| {
            table.row(vec![
                Cell::new(name),
                Cell::new(number(self.figure(clients))),
                Cell::new(humans.map(|name| number(self.figure(name))).unwrap_or_default()),
                Cell::new(requests.map(number).unwrap_or_default()),
            ]);
        };
        let requests = |why: Refused| Some(self.now.totals.refused[why as usize]);
        row(&flagged, "flagged", Some("humans_flagged"), None);
        row(
            &format!("blocked by the detector ({blocks})"),
            "blocked",
            Some("humans_blocked"),
            requests(Refused::Detector),
        );
        if !self.config.blocks.is_empty() {
            row("refused by [[block]]", "listed", None, requests(Refused::Listed));
        }
        if !self.config.access.is_empty() {
            row("denied by the access list", "denied", None, requests(Refused::Denied));
        }
        if !self.config.limits.is_empty() {
            row("limited", "limited", Some("humans_limited"), requests(Refused::Limited));
        }
        row("refused anything", "refused", Some("humans_refused"), Some(self.now.totals.refused_requests()));
        row("all", "clients", Some("humans"), Some(self.now.totals.requests));
        screen.table(&mut table)?;
        let by_severity: Vec<String> = Severity::ALL
            .into_iter()
            .rev()
            .filter_map(|severity| {
                let n = self.flagged.iter().filter(|f| f.severity == severity).count();
                (n > 0).then(|| format!("{} {severity}", number(n as u64)))
            })
            .collect();
        if !by_severity.is_empty() {
            screen.field("  flagged", &by_severity.join(", "))?;
        }
        Ok(())
    }

    fn rules(&self, screen: &mut Screen) -> anyhow::Result<()> {
        if self.now.rules.is_empty() {
            return Ok(());
        }
        screen.blank()?;
        screen.title("Requests by the rule that meets them")?;
        let mut rules: Vec<_> = self.now.rules.iter().collect();
        rules.sort_by_key(|(name, requests)| (std::cmp::Reverse(**requests), *name));
        let mut table = Table::new(&[("", Align::Right), ("", Align::Left)]).indented(2).without_heading();
        for (name, requests) in rules.iter().take(RULES) {
            table.row(vec![Cell::new(number(**requests)), Cell::new(name)]);
        }
        screen.table(&mut table)?;
        Ok(())
    }

    fn list(&self, screen: &mut Screen) -> anyhow::Result<()> {
        screen.blank()?;
        if self.flagged.is_empty() {
            screen.line("Nobody would have been flagged.")?;
            return Ok(());
        }
        screen.title(&format!("Flagged: {}", count(self.flagged.len() as u64, "client")))?;
        let mut table = Table::new(&[
            ("severity", Align::Left),
            ("client", Align::Left),
            ("when", Align::Left),
            ("after", Align::Right),
            ("of", Align::Right),
            ("why", Align::Left),
        ])
        .indented(2)
        .wrapped();
        for flagged in self.flagged.iter().take(self.limit) {
            table.row(vec![
                Cell::styled(flagged.severity.as_str(), severity_style(flagged.severity)),
                Cell::new(flagged.ip.to_string()),
                Cell::new(utc_short(flagged.flagged_at)),
                Cell::new(number(flagged.requests_before_flag)),
                Cell::new(number(flagged.requests)),
                Cell::new(format!("{}{}", without_client(flagged), what_follows(flagged))),
            ]);
        }
        screen.table(&mut table)?;
        self.rest(self.flagged.len(), screen)?;
        let dropped = self.now.totals.dropped_flags;
        if dropped > 0 {
            screen.line(&format!("  {} about further clients found no room", count(dropped, "finding")))?;
        }
        Ok(())
    }

    fn differences(&self, changes: &[Change], before: &Outcome, screen: &mut Screen) -> anyhow::Result<()> {
        screen.blank()?;
        if changes.is_empty() {
            screen.spans(&[(GREEN, "Both policies would have done the same to every client.")])?;
            return Ok(());
        }
        screen.title(&format!("Different for {}", count(changes.len() as u64, "client")))?;
        let of = |test: &dyn Fn(&Change) -> bool| number(changes.iter().filter(|c| test(c)).count() as u64);
        let is_human = |change: &Change| change.looks == Looks::Human;
        for (says, all, human) in [
            (
                "refused now and not before",
                of(&|c| c.is_newly_refused()),
                of(&|c| c.is_newly_refused() && is_human(c)),
            ),
            (
                "refused before and not now",
                of(&|c| c.is_newly_served()),
                of(&|c| c.is_newly_served() && is_human(c)),
            ),
        ] {
            screen.line(&format!("  {all} {says}, {human} of them look like people"))?;
        }
        screen.line(&format!("  now: {}; before: {}", self.now.name, before.name))?;
        screen.blank()?;
        let mut table = Table::new(&[
            ("client", Align::Left),
            ("looks like", Align::Left),
            ("requests", Align::Right),
            ("now / before", Align::Left),
        ])
        .indented(2)
        .wrapped();
        for change in changes.iter().take(self.limit) {
            let (looks, style) = match change.looks {
                Looks::Human => ("a person", RED),
                Looks::VerifiedBot => ("a crawler", RED),
                Looks::Unknown => ("", PLAIN),
            };
            table.row(vec![
                Cell::new(change.client.to_string()),
                Cell::styled(looks, style),
                Cell::new(number(change.requests)),
                Cell::new(format!("{} / {}", change.now.says(), change.before.says())),
            ]);
        }
        screen.table(&mut table)?;
        self.rest(changes.len(), screen)
    }

    fn rest(&self, all: usize, screen: &mut Screen) -> anyhow::Result<()> {
        if all > self.limit {
            let more = number((all - self.limit) as u64);
            screen.spans(&[(DIM, &format!("  and {more} more; --limit {all} lists all"))])?;
        }
        Ok(())
    }

    /// What a reader must know to believe the figures.
    fn notes(&self, screen: &mut Screen) -> anyhow::Result<()> {
        let mut notes = Vec::new();
        for source in self.pass.sources.iter().filter(|source| source.counts.is_truncated) {
            notes.push(format!(
                "{} ends in the middle of its packed data; what came before counts",
                source.name
            ));
        }
        for source in &self.pass.sources {
            if let Some(other) = &source.overlaps {
                notes.push(format!("{} and {other} are of the same time and were merged", source.name));
            }
        }
        notes.extend(self.proxy_note());
        let others = self.now.clients.requests_of_others;
        if others > 0 {
            notes.push(format!(
                "{} came from clients beyond the bound and count in the sums only",
                count(others, "request")
            ));
        }
        let late = self.now.totals.late;
        if late > 0 {
            notes.push(format!(
                "{} came so late in the log that its hour had been judged",
                count(late, "request")
            ));
        }
        if !self.now.blocks {
            notes.push("[detection] lets nobody be blocked (block_severity, actions)".to_owned());
        }
        notes.extend(self.privacy_notes());
        notes.push(self.not_played());
        screen.blank()?;
        for note in notes {
            screen.styled_field("note", DIM, &note)?;
        }
        Ok(())
    }

    /// A log that has the address of a proxy for everybody is of no use.
    fn proxy_note(&self) -> Option<String> {
        let is_local = |tally: &&Tally| {
            let ip = tally.address.ip();
            ip.is_loopback() || matches!(ip, std::net::IpAddr::V4(v4) if v4.is_private())
        };
        let most = self.now.clients.iter().filter(is_local).max_by_key(|tally| tally.requests)?;
        let is_proxy = self.now.clients.len() > 0
            && f64::from(most.requests) > PROXY_SHARE * self.now.totals.requests as f64
            && self.now.totals.requests > 100;
        is_proxy.then(|| {
            format!(
                "nearly all requests come from {}: that is a proxy's address, and who is behind it is not in this log",
                most.address
            )
        })
    }

    fn privacy_notes(&self) -> Vec<String> {
        let Past::Own { .. } = self.past else { return Vec::new() };
        let privacy = &self.config.privacy;
        let mut notes = Vec::new();
        if privacy.anonymise != Anonymise::None {
            notes.push("privacy.anonymise: addresses stand for others here, so one may be several clients, or half of one".to_owned());
        }
        for (is_logged, what) in [
            (privacy.log_query, "queries are not in the log: attacks in them cannot be seen"),
            (
                privacy.log_user_agent,
                "user agents are not in the log: scanners and crawlers cannot be known by them",
            ),
            (privacy.log_referer, "referrers are not in the log: nobody looks like a person without them"),
            (privacy.log_user, "users are not in the log: addresses that users share cannot be known"),
        ] {
            if !is_logged {
                notes.push(what.to_owned());
            }
        }
        notes
    }

    fn not_played(&self) -> String {
        let mut missing = vec!["tokens and sessions", "bounds of connections and bodies"];
        if self.config.limits.iter().any(|rule| rule.concurrency.is_some()) {
            missing.push("limits of concurrency");
        }
        if !self.config.feeds.is_empty() {
            missing.push("feeds");
        }
        let database = "blocks and allows of the database";
        format!("not played, since a log cannot tell: {}, {database}", missing.join(", "))
    }

    fn figure(&self, name: &str) -> u64 {
        self.figures.known().find(|(known, _)| *known == name).map_or(0, |(_, value)| value)
    }
}

fn source_in_words(source: &SourceReport) -> String {
    let format = source.format.map_or("no request", |format| format.as_str());
    let packed = match source.compression {
        portcullis_accesslog::Compression::None => String::new(),
        packed => format!(", {packed}"),
    };
    let counts = &source.counts;
    let malformed = match counts.malformed {
        0 => String::new(),
        n => format!(", {} that are no HTTP", number(n)),
    };
    format!("{}: {format}{packed}, {}{malformed}", source.name, count(counts.records, "request"))
}

/// What the detector says, without the client's address before it.
fn without_client(flagged: &Flagged) -> &str {
    flagged.says.strip_prefix(&format!("{} ", flagged.ip)).unwrap_or(&flagged.says)
}

fn what_follows(flagged: &Flagged) -> String {
    match (flagged.spared, flagged.first_block) {
        (Some(why), _) => format!(" [not blocked: {why}]"),
        (None, None) => String::new(),
        (None, Some((at, until))) => {
            let span = until.map_or("for ever".to_owned(), |until| {
                format!("for {}", portcullis_config::format_duration(until.since(at)))
            });
            let again = match flagged.blocks {
                0 | 1 => String::new(),
                n => format!(", {} times in all", number(u64::from(n))),
            };
            format!(" [blocked {span}{again}]")
        }
    }
}

/// Logs of several machines have one time only.
fn utc(at: UnixMs) -> String {
    format!("{} UTC", utc_short(at))
}

fn utc_short(at: UnixMs) -> String {
    time::short(at, &jiff::tz::TimeZone::UTC)
}
