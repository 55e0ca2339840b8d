//! `portcullis suspicious`: what the detector found, one line each or one in full, and what people make
//! of it. Must not find anything itself.

mod never;

pub(super) use never::about as nevers_about;

use clap::builder::styling::Style;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use portcullis_model::{Finding, FindingStatus, Severity};
use portcullis_store::{FindingFilter, State, StoredFinding};

use super::block::until;
use super::context::{Context, actor, open_state};
use super::explained::{Explained, FindingExplainer, requests};
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
  portcullis suspicious 12 --confirm
  portcullis suspicious dismiss 12 --never path --path /old-shop --note moved
      never again this rule for what is below /old-shop
  portcullis suspicious never
      what was dismissed for good, and how to take it back";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(super) struct Suspicious {
    #[command(subcommand)]
    action: Option<never::Action>,

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
        let config = context.config()?;
        let data = &config.data;
        if let Some(action) = self.action {
            return action.run(data, context, screen);
        }
        match self.id {
            None => self.list(open_state(data)?, context, screen),
            Some(id) => {
                let judgement = match (self.confirm, self.dismiss) {
                    (true, _) => Some(FindingStatus::Confirmed),
                    (false, true) => Some(FindingStatus::Dismissed),
                    (false, false) => None,
                };
                let Some(state) = open_state(data)? else { return Ok(unknown(id, context)) };
                let Some(stored) = state.finding(id)? else { return Ok(unknown(id, context)) };
                match judgement {
                    None => {
                        let explainer = FindingExplainer { config: &config, state: &state, context };
                        self.show(&explainer.explain(stored)?, context, screen)
                    }
                    Some(status) => {
                        let mut state = State::open_or_create(data)?;
                        state.set_finding_status(id, status, &actor(), context.now)?;
                        judged(&state, StoredFinding { status, ..stored }, self.format.json, context, screen)
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

    fn show(&self, explained: &Explained, context: &Context, screen: &mut Screen) -> anyhow::Result<Outcome> {
        if self.format.json {
            screen.json(explained)?;
            return Ok(Outcome::Done);
        }
        let finding = &explained.stored.finding;
        screen.spans(&[
            (BOLD, &format!("Finding {}: {} ", explained.stored.id, client_and_user(finding))),
            (severity_style(finding.severity), finding.severity.as_str()),
            (PLAIN, &format!(" ({})", explained.stored.status.as_str())),
        ])?;
        screen.blank()?;
        screen.field("detected", &context.time(finding.detected_at))?;
        screen.field("requests", &requests(&explained.stored, context))?;
        screen.field("found", &says(finding))?;
        explained.show(context, screen)?;
        screen.field("block", explained.outcome())?;
        screen.blank()?;
        screen.styled_field("everything", DIM, &context.command(&format!("analyze {}", finding.client)))?;
        match explained.stored.status {
            FindingStatus::Open => {
                let judge =
                    |how: &str| context.command(&format!("suspicious {} --{how}", explained.stored.id));
                screen.styled_field("right", DIM, &judge("confirm"))?;
                screen.styled_field("wrong", DIM, &judge("dismiss"))?;
            }
            FindingStatus::Confirmed | FindingStatus::Dismissed => {}
        }
        Ok(Outcome::Done)
    }
}

fn judged(
    state: &State,
    stored: StoredFinding,
    is_json: bool,
    context: &Context,
    screen: &mut Screen,
) -> anyhow::Result<Outcome> {
    let block = block_of(state, &stored, context)?;
    if is_json {
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
