//! `portcullis analyze`: everything that the log and the state say about one address.
//! Must not judge: findings are the detector's.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};

use portcullis_config::Config;
use portcullis_detect::is_sensitive;
use portcullis_model::{Allow, Block, ClientIp, Location, UnixMs, bare};
use portcullis_store::{ClientReport, LimitEvent, LogReader};

use super::block::{because, until};
use super::bots::{Named, named};
use super::context::{Context, open_state};
use super::explained::{Explained, FindingExplainer};
use super::output::{Align, Cell, DIM, GREEN, PLAIN, RED, Screen, Table, YELLOW, bytes, count, number};
use super::suspicious::{says, severity_style};
use super::{Format, Outcome, time, why};

const EXAMPLES: &str = "\
Examples:
  portcullis analyze 203.0.113.9
  portcullis analyze 203.0.113.9 --hours 168 --json
  portcullis analyze 2001:db8::7

Sensitive paths are those of the configuration (detection.sensitive_paths). The
error rate is the site's own 4xx answers; what the gateway refused does not
count.";

const BAR: usize = 40;
/// Hours that are shown one by one; with more, the hours without requests are left out.
const ALL_HOURS: usize = 48;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Analyze {
    /// The address, IPv4 or IPv6
    #[arg(value_name = "IP")]
    ip: ClientIp,

    /// How far back to look
    #[arg(long, value_name = "N", default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=8_784))]
    hours: u32,

    #[command(flatten)]
    format: Format,
}

/// What is known about the address besides its requests.
#[derive(Default, Serialize)]
struct Standing {
    allows: Vec<Allow>,
    blocks: Vec<Block>,
    findings: Vec<Explained>,
    limit_events: Vec<LimitEvent>,
    /// Crawlers that it has named itself as.
    bots: Vec<Named>,
}

impl Analyze {
    pub(super) fn run(self, context: &Context, screen: &mut Screen) -> anyhow::Result<Outcome> {
        let config = context.config()?;
        let since = context.now.minus(Duration::from_secs(u64::from(self.hours) * 3_600));
        // One millisecond more: what began this very moment belongs to it.
        let until = context.now.plus(Duration::from_millis(1));
        let report = LogReader::open(&config.data)?
            .client_report(self.ip, since, until, &|path| is_sensitive(&config.detection, path))?;
        let mut standing = standing(&config, self.ip, since, context)?;
        let agents = report.user_agents.iter().map(|(agent, _)| agent.as_str());
        standing.bots = named(&config, self.ip, agents, context);
        if self.format.json {
            screen.json(&as_json(&report, &standing))?;
        } else {
            show(&report, &standing, self.hours, context, screen)?;
        }
        let is_unknown = report.requests == 0 && standing.findings.is_empty() && standing.blocks.is_empty();
        Ok(if is_unknown { Outcome::Nothing } else { Outcome::Done })
    }
}

fn standing(config: &Config, ip: ClientIp, since: UnixMs, context: &Context) -> anyhow::Result<Standing> {
    let Some(state) = open_state(&config.data)? else { return Ok(Standing::default()) };
    let explainer = FindingExplainer { config, state: &state, context };
    let findings = state.findings_about(ip)?.into_iter().map(|stored| explainer.explain(stored));
    Ok(Standing {
        allows: state.allows_covering(ip)?,
        blocks: state.covering(ip, context.now)?,
        findings: findings.collect::<anyhow::Result<_>>()?,
        limit_events: state.limit_events_about(ip, since)?,
        bots: Vec::new(),
    })
}

fn as_json(report: &ClientReport, standing: &Standing) -> Value {
    let hours = report.per_hour.iter().map(|(hour, requests)| json!({ "time": hour, "requests": requests }));
    let counted = |list: &[(String, u64)], name: &str| -> Vec<Value> {
        list.iter().map(|(key, requests)| json!({ name: key, "requests": requests })).collect()
    };
    let mut document = json!(report);
    document["per_hour"] = hours.collect();
    document["top_paths"] = counted(&report.top_paths, "path").into();
    document["user_agents"] = counted(&report.user_agents, "user_agent").into();
    document["methods"] = counted(&report.methods, "method").into();
    document["users"] = counted(&report.users, "user").into();
    document["standing"] = json!(standing);
    document
}

fn show(
    report: &ClientReport,
    standing: &Standing,
    hours: u32,
    context: &Context,
    screen: &mut Screen,
) -> anyhow::Result<()> {
    screen.title(&format!("{} in the last {}", report.client, count(u64::from(hours), "hour")))?;
    screen.blank()?;
    if !report.location.is_unknown() {
        screen.field("from", &place(&report.location))?;
    }
    show_bots(&standing.bots, screen)?;
    show_standing(standing, context, screen)?;
    if report.requests == 0 {
        screen.field("requests", "none in this time")?;
        screen.blank()?;
        return show_more(report, hours, context, screen);
    }
    show_totals(report, context, screen)?;
    show_hours(report, context, screen)?;
    show_list("paths", &report.top_paths, "(none)", screen)?;
    show_list("agents", &report.user_agents, "(none sent)", screen)?;
    if !report.users.is_empty() {
        show_list("users", &report.users, "", screen)?;
    }
    screen.blank()?;
    show_more(report, hours, context, screen)
}

/// Which crawler it is, or only says that it is.
pub(super) fn show_bots(bots: &[Named], screen: &mut Screen) -> anyhow::Result<()> {
    for (n, named) in bots.iter().enumerate() {
        screen.field(if n == 0 { "bot" } else { "" }, &named.says)?;
    }
    Ok(())
}

fn show_more(
    report: &ClientReport,
    hours: u32,
    context: &Context,
    screen: &mut Screen,
) -> anyhow::Result<()> {
    // Whoever has one address of a /64 commonly has them all.
    let network = bare(&report.client.limit_network());
    let hint = context.command(&format!("logs --ip {network} --since {hours}h"));
    screen.styled_field("more", DIM, &hint)?;
    Ok(())
}

fn show_standing(standing: &Standing, context: &Context, screen: &mut Screen) -> anyhow::Result<()> {
    for (n, allow) in standing.allows.iter().enumerate() {
        let text = format!("by allow {} of {}{}", allow.id, bare(&allow.network), because(&allow.reason));
        screen.styled_field(if n == 0 { "allowed" } else { "" }, GREEN, &text)?;
    }
    for (n, block) in standing.blocks.iter().enumerate() {
        let text = format!(
            "by block {} of {}, {}{}",
            block.id,
            bare(&block.network),
            until(block.expires_at, context),
            because(&block.reason)
        );
        screen.styled_field(if n == 0 { "blocked" } else { "" }, RED, &text)?;
    }
    for (n, Explained { stored, .. }) in standing.findings.iter().enumerate() {
        let finding = &stored.finding;
        let text = format!(
            "{}: {}, {} ({}, {})",
            stored.id,
            finding.severity,
            finding.reason,
            stored.status.as_str(),
            time::relative(finding.detected_at, context.now)
        );
        screen.styled_field(if n == 0 { "findings" } else { "" }, severity_style(finding.severity), &text)?;
    }
    // The newest in full.
    if let Some(newest) = standing.findings.first() {
        screen.field("found", &says(&newest.stored.finding))?;
        newest.show(context, screen)?;
        screen.field("block", newest.outcome())?;
    }
    why::show_limits(&standing.limit_events, context, screen)
}

fn show_totals(report: &ClientReport, context: &Context, screen: &mut Screen) -> anyhow::Result<()> {
    screen.field(
        "requests",
        &format!(
            "{} ({} from the client, {} to it)",
            number(report.requests),
            bytes(report.bytes_in),
            bytes(report.bytes_out)
        ),
    )?;
    if let (Some(first), Some(last)) = (report.first_seen, report.last_seen) {
        screen.field("first", &context.time(first))?;
        screen.field("last", &context.time(last))?;
    }
    let verdicts: Vec<_> =
        report.verdicts.iter().map(|(verdict, n)| format!("{verdict} {}", number(*n))).collect();
    screen.field("verdicts", &verdicts.join(", "))?;
    let statuses = &report.statuses;
    let classes = [
        ("2xx", statuses.success),
        ("3xx", statuses.redirect),
        ("4xx", statuses.client_error),
        ("5xx", statuses.server_error),
        ("other", statuses.other),
    ];
    let statuses: Vec<_> =
        classes.iter().filter(|c| c.1 > 0).map(|c| format!("{} {}", c.0, number(c.1))).collect();
    screen.field("statuses", &statuses.join(", "))?;
    let rate = format!(
        "{:.0} % ({} of the {} that the site answered)",
        report.error_rate * 100.0,
        number(report.client_errors),
        number(report.answered)
    );
    screen.styled_field("error rate", if report.error_rate > 0.5 { YELLOW } else { PLAIN }, &rate)?;
    screen.field("paths", &format!("{} different", number(report.distinct_paths)))?;
    let sensitive = &report.sensitive;
    let text = match sensitive.count {
        0 => "none".to_owned(),
        hits => format!("{}: {}", count(hits, "request"), sensitive.samples.join("  ")),
    };
    screen.styled_field("sensitive", if sensitive.count > 0 { YELLOW } else { PLAIN }, &text)?;
    Ok(())
}

fn show_hours(report: &ClientReport, context: &Context, screen: &mut Screen) -> anyhow::Result<()> {
    const HOUR: Duration = Duration::from_secs(3_600);
    let (Some((first, _)), Some((last, _))) = (report.per_hour.first(), report.per_hour.last()) else {
        return Ok(());
    };
    let known: BTreeMap<UnixMs, u64> = report.per_hour.iter().copied().collect();
    let hours = std::iter::successors(Some(*first), |hour| Some(hour.plus(HOUR)))
        .take_while(|hour| hour <= last)
        .take(ALL_HOURS + 1)
        .count();
    let series: Vec<(UnixMs, u64)> = match hours <= ALL_HOURS {
        true => std::iter::successors(Some(*first), |hour| Some(hour.plus(HOUR)))
            .take(hours)
            .map(|hour| (hour, known.get(&hour).copied().unwrap_or(0)))
            .collect(),
        false => report.per_hour.clone(),
    };
    let most = series.iter().map(|(_, requests)| *requests).max().unwrap_or(1);
    screen.blank()?;
    screen.spans(&[(DIM, "requests per hour")])?;
    let mut table =
        Table::new(&[("", Align::Left), ("", Align::Right), ("", Align::Left)]).indented(2).without_heading();
    for (hour, requests) in series {
        table.row(vec![
            Cell::styled(time::hour(hour, &context.zone), DIM),
            Cell::new(number(requests)),
            Cell::new(bar(requests, most)),
        ]);
    }
    screen.table(&mut table)?;
    Ok(())
}

/// At least a sliver for anything above zero.
fn bar(value: u64, most: u64) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    if value == 0 || most == 0 {
        return String::new();
    }
    let eighths = ((value as f64 / most as f64) * (BAR * 8) as f64).round() as usize;
    let eighths = eighths.clamp(1, BAR * 8);
    format!("{}{}", "█".repeat(eighths / 8), EIGHTHS[eighths % 8])
}

fn show_list(
    heading: &str,
    list: &[(String, u64)],
    nothing: &str,
    screen: &mut Screen,
) -> anyhow::Result<()> {
    screen.blank()?;
    screen.spans(&[(DIM, heading)])?;
    let mut table = Table::new(&[("", Align::Right), ("", Align::Left)]).indented(2).without_heading();
    for (text, requests) in list {
        let text = if text.is_empty() { nothing } else { text };
        table.row(vec![Cell::new(number(*requests)), Cell::new(text)]);
    }
    screen.table(&mut table)?;
    Ok(())
}

/// A location in one line.
pub(super) fn place(location: &Location) -> String {
    let asn = location.asn.map(|asn| format!("AS{asn}"));
    let network = [asn, location.isp.clone()].into_iter().flatten().collect::<Vec<_>>().join(" ");
    let network = Some(network).filter(|text| !text.is_empty());
    let parts = [location.city.clone(), location.region.clone(), location.country.clone(), network];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_grow_with_their_value_and_never_vanish() {
        assert_eq!(bar(0, 100), "");
        assert_eq!(bar(1, 1_000_000), "▏");
        assert_eq!(bar(50, 100), "█".repeat(20));
        assert_eq!(bar(100, 100), "█".repeat(BAR));
        assert_eq!(bar(5, 0), "");
    }

    #[test]
    fn a_place_leaves_out_what_is_not_known() {
        let location = Location { country: Some("DE".into()), asn: Some(64_496), ..Location::default() };
        assert_eq!(place(&location), "DE, AS64496");
    }
}
