//! `portcullis suspicious`: what the detector found, one line each or one in full, and what people make
//! of it. Must not find anything itself.

use clap::builder::styling::Style;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use portcullis_model::{Finding, FindingStatus, Severity};
use portcullis_store::{FindingFilter, State, StoredFinding};

use super::block::until;
use super::context::{Context, actor, open_state};
use super::output::{Align, BOLD, Cell, DIM, MAGENTA, PLAIN, RED, Screen, Table, YELLOW, number, tell};
use super::party::AnyBlock;
use super::{Format, Outcome, time};

const EXAMPLES: &str = "\
Examples:
  portcullis suspicious
  portcullis suspicious --severity high --status all
  portcullis suspicious 12
      one finding in full: what the rules say, with sample requests
  portcullis suspicious 12 --dismiss
      it was a mistake; the same is not reported again for a day, and the block
      stays until \"unblock\"
  portcullis suspicious 12 --confirm";

/// Sample requests of a finding in full; the detector keeps no more.
const MAX_SAMPLES: usize = 10;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Suspicious {
    /// The number of a finding, to see it in full
    #[arg(value_name = "ID")]
    id: Option<i64>,

    /// This severe or more: low, medium, high or critical
    #[arg(long, value_name = "SEVERITY", conflicts_with = "id")]
    severity: Option<Severity>,

    /// Only findings that nobody looked at, that were confirmed, dismissed, or all
    #[arg(long, value_name = "STATUS", value_enum, default_value_t = Status::Open, conflicts_with = "id")]
    status: Status,

    /// At most so many, the newest
    #[arg(long, value_name = "N", default_value_t = 50, conflicts_with = "id")]
    limit: usize,

    /// Note that the finding is right
    #[arg(long, requires = "id")]
    confirm: bool,

    /// Note that the finding is wrong
    #[arg(long, requires = "id", conflicts_with = "confirm")]
    dismiss: bool,

    #[command(flatten)]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Status {
    Open,
    Confirmed,
    Dismissed,
    All,
}

impl Status {
    fn filter(self) -> Option<FindingStatus> {
        match self {
            Self::Open => Some(FindingStatus::Open),
            Self::Confirmed => Some(FindingStatus::Confirmed),
            Self::Dismissed => Some(FindingStatus::Dismissed),
            Self::All => None,
        }
    }
}

impl Suspicious {
    pub(super) fn run(self, context: &Context, screen: &mut Screen) -> anyhow::Result<Outcome> {
        let data = context.config()?.data;
        match self.id {
            None => self.list(open_state(&data)?, context, screen),
            Some(id) => {
                let judgement = match (self.confirm, self.dismiss) {
                    (true, _) => Some(FindingStatus::Confirmed),
                    (false, true) => Some(FindingStatus::Dismissed),
                    (false, false) => None,
                };
                let Some(state) = open_state(&data)? else { return Ok(unknown(id, context)) };
                let Some(stored) = state.finding(id)? else { return Ok(unknown(id, context)) };
                match judgement {
                    None => self.show(&state, &stored, context, screen),
                    Some(status) => {
                        let mut state = State::open_or_create(&data)?;
                        state.set_finding_status(id, status, &actor(), context.now)?;
                        self.judged(&state, StoredFinding { status, ..stored }, context, screen)
                    }
                }
            }
        }
    }

    fn list(&self, state: Option<State>, context: &Context, screen: &mut Screen) -> anyhow::Result<Outcome> {
        let filter = FindingFilter {
            min_severity: self.severity,
            status: self.status.filter(),
            limit: self.limit,
            ..FindingFilter::default()
        };
        let mut rows = Vec::new();
        if let Some(state) = &state {
            for stored in state.findings(&filter)? {
                let block = block_of(state, &stored, context)?;
                rows.push((stored, block));
            }
        }
        if self.format.json {
            screen.json(
                &rows.iter().map(|(stored, block)| as_json(stored, block.as_ref())).collect::<Vec<_>>(),
            )?;
            return Ok(Outcome::Done);
        }
        if rows.is_empty() {
            screen.line("No findings.")?;
            return Ok(Outcome::Done);
        }
        let mut table = Table::new(&[
            ("id", Align::Right),
            ("when", Align::Left),
            ("client", Align::Left),
            ("severity", Align::Left),
            ("status", Align::Left),
            ("requests", Align::Right),
            ("blocked", Align::Left),
            ("reason", Align::Left),
        ])
        .wrapped();
        for (stored, block) in &rows {
            table.row(row(stored, block.as_ref(), context));
        }
        screen.table(&mut table)?;
        screen.blank()?;
        screen.spans(&[(DIM, &format!("in full: {}", context.command("suspicious ID")))])?;
        Ok(Outcome::Done)
    }

    fn show(
        &self,
        state: &State,
        stored: &StoredFinding,
        context: &Context,
        screen: &mut Screen,
    ) -> anyhow::Result<Outcome> {
        let block = block_of(state, stored, context)?;
        if self.format.json {
            screen.json(&as_json(stored, block.as_ref()))?;
            return Ok(Outcome::Done);
        }
        let finding = &stored.finding;
        screen.spans(&[
            (BOLD, &format!("Finding {}: {} ", stored.id, client_and_user(finding))),
            (severity_style(finding.severity), finding.severity.as_str()),
            (PLAIN, &format!(" ({})", stored.status.as_str())),
        ])?;
        screen.blank()?;
        screen.field("detected", &context.time(finding.detected_at))?;
        screen.field(
            "requests",
            &format!(
                "{} from {} to {}",
                number(finding.request_count),
                time::full(finding.first_seen, &context.zone),
                time::full(finding.last_seen, &context.zone)
            ),
        )?;
        screen.field("found", &says(finding))?;
        show_rules(&finding.details, "rules", 0, screen)?;
        show_samples(&finding.details, MAX_SAMPLES, context, screen)?;
        show_forest(&finding.details, screen)?;
        let block_text = match &block {
            None => "not blocked for this".to_owned(),
            Some(stored) => block_in_words(stored, context),
        };
        screen.field("block", &block_text)?;
        screen.blank()?;
        screen.styled_field("everything", DIM, &context.command(&format!("analyze {}", finding.client)))?;
        match stored.status {
            FindingStatus::Open => {
                let judge = |how: &str| context.command(&format!("suspicious {} --{how}", stored.id));
                screen.styled_field("right", DIM, &judge("confirm"))?;
                screen.styled_field("wrong", DIM, &judge("dismiss"))?;
            }
            FindingStatus::Confirmed | FindingStatus::Dismissed => {}
        }
        Ok(Outcome::Done)
    }

    fn judged(
        &self,
        state: &State,
        stored: StoredFinding,
        context: &Context,
        screen: &mut Screen,
    ) -> anyhow::Result<Outcome> {
        let block = block_of(state, &stored, context)?;
        if self.format.json {
            screen.json(&as_json(&stored, block.as_ref()))?;
            return Ok(Outcome::Done);
        }
        screen.line(&format!("Finding {} is {}.", stored.id, stored.status.as_str()))?;
        let standing = block.filter(AnyBlock::in_force);
        if let (FindingStatus::Dismissed, Some(block)) = (stored.status, standing) {
            screen.line(&format!(
                "{}: still blocked, {}. To lift that: {}",
                block.whom(),
                until(block.expires_at(), context),
                block.undo(context)
            ))?;
        }
        Ok(Outcome::Done)
    }
}

fn unknown(id: i64, context: &Context) -> Outcome {
    tell(
        "",
        &format!(
            "There is no finding {id}; findings are kept for 30 days. See {}",
            context.command("suspicious --status all")
        ),
    );
    Outcome::Nothing
}

fn block_of(state: &State, stored: &StoredFinding, context: &Context) -> anyhow::Result<Option<AnyBlock>> {
    match stored.block_id {
        Some(id) => AnyBlock::find(state, id, context.now),
        None => Ok(None),
    }
}

fn block_in_words(block: &AnyBlock, context: &Context) -> String {
    match block.end(context) {
        Some(end) => format!("{} of {}: {end}", block.id(), block.whom()),
        None => format!("{} of {}, {}", block.id(), block.whom(), until(block.expires_at(), context)),
    }
}

fn as_json(stored: &StoredFinding, block: Option<&AnyBlock>) -> Value {
    let mut document = json!(stored);
    document["block"] = json!(block);
    document
}

fn row(stored: &StoredFinding, block: Option<&AnyBlock>, context: &Context) -> Vec<Cell> {
    let finding = &stored.finding;
    let blocked = match block {
        None => Cell::styled("no", DIM),
        Some(block) if !block.in_force() => Cell::styled("ended", DIM),
        Some(block) => Cell::styled(
            match block.expires_at() {
                Some(at) => format!("{} left", time::span(at.since(context.now))),
                None => "no end".to_owned(),
            },
            RED,
        ),
    };
    vec![
        Cell::new(stored.id.to_string()),
        Cell::new(time::relative(finding.detected_at, context.now)),
        Cell::new(client_and_user(finding)),
        Cell::styled(finding.severity.as_str(), severity_style(finding.severity)),
        Cell::new(stored.status.as_str()),
        Cell::new(number(finding.request_count)),
        blocked,
        Cell::new(format!("{}: {}", finding.reason, says(finding))),
    ]
}

/// `203.0.113.9`, or `user mallory at 203.0.113.9`.
pub(super) fn client_and_user(finding: &Finding) -> String {
    match &finding.user {
        Some(user) => format!("user {user} at {}", finding.client),
        None => finding.client.to_string(),
    }
}

pub(super) fn severity_style(severity: Severity) -> Style {
    match severity {
        Severity::Low => PLAIN,
        Severity::Medium => YELLOW,
        Severity::High => RED,
        Severity::Critical => MAGENTA,
    }
}

/// What the detector says of the client, without naming it again.
pub(super) fn says(finding: &Finding) -> String {
    let summary = finding.details["summary"].as_str().unwrap_or_default();
    summary.strip_prefix(&format!("{} ", client_and_user(finding))).unwrap_or(summary).to_owned()
}

/// What each rule says, the strongest first; `skip` of them have been told already.
pub(super) fn show_rules(
    details: &Value,
    label: &str,
    skip: usize,
    screen: &mut Screen,
) -> anyhow::Result<()> {
    let rules = details["rules"].as_array().map_or(&[][..], Vec::as_slice);
    for (n, rule) in rules.iter().skip(skip).enumerate() {
        let text = |name: &str| rule[name].as_str().unwrap_or("?").to_owned();
        let label = if n == 0 { label } else { "" };
        screen.field(label, &format!("{} ({}): {}", text("rule"), text("severity"), text("says")))?;
    }
    if let Some(why) = details["held_down"].as_str() {
        screen.field("but", &format!("at most medium: {why}"))?;
    }
    Ok(())
}

/// Requests that show it. Rules share some of them.
pub(super) fn show_samples(
    details: &Value,
    limit: usize,
    context: &Context,
    screen: &mut Screen,
) -> anyhow::Result<()> {
    let rules = details["rules"].as_array().map_or(&[][..], Vec::as_slice);
    let mut samples: Vec<&Value> = Vec::new();
    for sample in rules.iter().filter_map(|rule| rule["samples"].as_array()).flatten() {
        if samples.len() < limit && !samples.contains(&sample) {
            samples.push(sample);
        }
    }
    for (n, sample) in samples.iter().enumerate() {
        screen.field(if n == 0 { "for example" } else { "" }, &sample_in_words(sample, context))?;
    }
    Ok(())
}

/// What the isolation forest found unusual.
fn show_forest(details: &Value, screen: &mut Screen) -> anyhow::Result<()> {
    if let Some(strongest) = details["forest"]["strongest"].as_array() {
        for (n, odd) in strongest.iter().enumerate() {
            let text = format!(
                "{} is {} (usual here: {})",
                odd["feature"].as_str().unwrap_or("?"),
                rounded(&odd["value"]),
                rounded(&odd["typical"])
            );
            screen.field(if n == 0 { "unusual" } else { "" }, &text)?;
        }
    }
    Ok(())
}

fn sample_in_words(sample: &Value, context: &Context) -> String {
    let at = sample["time"]
        .as_i64()
        .map_or_else(String::new, |ms| time::short(portcullis_model::UnixMs(ms), &context.zone));
    format!(
        "{at}  {} {}  {}",
        sample["method"].as_str().unwrap_or("-"),
        sample["path"].as_str().unwrap_or("-"),
        sample["status"]
    )
}

fn rounded(value: &Value) -> String {
    value.as_f64().map_or_else(|| "?".to_owned(), |value| format!("{}", (value * 100.0).round() / 100.0))
}
