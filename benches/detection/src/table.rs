//! The tables, as text. Must not count.

use portcullis_model::Severity;

use crate::List;
use crate::cases::{Ended, Outcome};
use crate::corpus::{Label, Site};
use crate::figures::{Figures, Group, mean, median};

/// Measured on real logs of the same kind, with the same labels: recall, precision, humans flagged per 1,000.
const BASELINES: [(&str, &str, &str, &str); 3] = [
    ("CrowdSec, default scenarios (emulated)", "20", "38", "8"),
    ("fail2ban, web jails (emulated)", "5", "36", "-"),
    ("request and error counts as originally specified", "-", "-", "71"),
];

pub(crate) fn heading() {
    println!("In pairs: flagged (medium and above) / would be blocked (high and above).\n");
    println!(
        "{:12} {:>7} {:>11} {:>11} {:>11} {:>6} {:>9} {:>5} {:>11} {:>9} {:>5} {:>7} {:>5}",
        "site",
        "attacks",
        "recall %",
        ">=5/h %",
        "precision %",
        "humans",
        "per 1,000",
        "bots",
        "per 1,000",
        "verified",
        "req.",
        "seconds",
        "AUC"
    );
}

pub(crate) fn line(name: &str, figures: &Figures) {
    row(
        name,
        figures,
        [percent(&figures.attacks), percent(&figures.busy_attacks), precision(figures)],
        [per_mille(&figures.humans), per_mille(&figures.bots)],
        figures.auc,
    );
}

fn row(name: &str, figures: &Figures, shares: [String; 3], benign: [String; 2], auc: Option<f64>) {
    let [recall, busy, precision] = shares;
    let [humans, bots] = benign;
    println!(
        "{name:12} {:>7} {recall:>11} {busy:>11} {precision:>11} {:>6} {humans:>9} {:>5} {bots:>11} {:>9} {:>5} {:>7} {:>5}",
        figures.attacks.all,
        figures.humans.all,
        figures.bots.all,
        format!("{}/{}", figures.verified.reached[0], figures.verified.all),
        number(median(&figures.requests_to_flag), 0),
        number(median(&figures.seconds_to_flag), 0),
        number(auc, 2),
    );
}

/// All sites as one, the means over sites, and what others reach.
pub(crate) fn summary(sites: &[Figures]) {
    let pooled = Figures::pooled(sites);
    let aucs = || sites.iter().map(|site| site.auc);
    println!();
    line("pooled", &pooled);
    let both = |value: fn(&Figures, usize) -> Option<f64>, scale: f64| {
        pair(|level| mean(sites.iter().map(|site| value(site, level))).map(|mean| mean * scale))
    };
    row(
        "mean of sites",
        &pooled,
        [
            both(|site, level| site.attacks.share(level), 100.0),
            both(|site, level| site.busy_attacks.share(level), 100.0),
            both(Figures::precision, 100.0),
        ],
        [
            both(|site, level| site.humans.share(level), 1_000.0),
            both(|site, level| site.bots.share(level), 1_000.0),
        ],
        mean(aucs()),
    );
    let worst = aucs().flatten().min_by(f64::total_cmp);
    println!(
        "\nHumans that would be blocked: {}. Verified crawlers flagged: {}. Other malicious clients flagged: {} of {}.",
        pooled.humans.reached[1],
        pooled.verified.reached[0],
        pooled.other_malice.reached[0],
        pooled.other_malice.all
    );
    println!(
        "The forest alone: AUC {} on average over {} sites, {} on the worst.",
        number(mean(aucs()), 2),
        aucs().flatten().count(),
        number(worst, 2)
    );
    println!(
        "\n{:50} {:>8} {:>11} {:>16}",
        "measured on such logs", "recall %", "precision %", "humans per 1,000"
    );
    for (name, recall, precision, humans) in BASELINES {
        println!("{name:50} {recall:>8} {precision:>11} {humans:>16}");
    }
    println!(
        "{:50} {:>8} {:>11} {:>16}",
        "Portcullis, flagged",
        number(pooled.attacks.share(0).map(|share| share * 100.0), 0),
        number(pooled.precision(0).map(|share| share * 100.0), 0),
        number(pooled.humans.share(0).map(|share| share * 1_000.0), 1)
    );
}

/// How the expert cases ended.
pub(crate) fn cases(ended: &[Ended], lists: bool) {
    let of = |is_attack: bool| ended.iter().filter(move |case| case.is_attack == is_attack);
    let passed = |is_attack| of(is_attack).filter(|case| case.outcome == Outcome::Passed).count();
    let absent: Vec<&str> = ended
        .iter()
        .filter(|case| matches!(case.outcome, Outcome::NotInLog(_)))
        .map(|case| case.name.as_str())
        .collect();
    println!(
        "\nExpert cases: {} of {} attacks flagged, {} of {} benign applications left alone.",
        passed(true),
        of(true).count(),
        passed(false),
        of(false).count()
    );
    if !absent.is_empty() {
        println!("Not in an access log at all: {}.", absent.join(", "));
    }
    for case in ended.iter().filter(|_| lists) {
        if let Outcome::Failed(clients) = &case.outcome {
            println!("  {}: {}", case.name, clients.join(", "));
        }
    }
}

/// Who was judged against its label.
pub(crate) fn list(site: &Site, which: List) {
    let mut clients: Vec<_> = site.labels.iter().collect();
    clients.sort_by_key(|(client, _)| **client);
    for (client, label) in clients {
        let seen = site.verdicts.clients.get(client);
        let severity = seen.and_then(|seen| seen.severity());
        let is_flagged = severity >= Some(Severity::Medium);
        let wanted = match (which, label) {
            (List::Humans, Label::Human) | (List::Bots, Label::Bot) => is_flagged,
            (List::Missed, Label::Attack { .. }) => !is_flagged,
            _ => false,
        };
        if !wanted {
            continue;
        }
        let worst = seen.and_then(|seen| seen.worst.as_ref());
        let summary =
            worst.and_then(|worst| worst.details["summary"].as_str()).unwrap_or("nothing was found");
        let requests = seen.map_or(0, |seen| seen.requests);
        // What clients sent is hostile text.
        println!(
            "  {client} ({requests}) {}: {}",
            severity.map_or("-", Severity::as_str),
            summary.escape_debug()
        );
    }
}

fn percent(group: &Group) -> String {
    pair(|level| group.share(level).map(|share| share * 100.0))
}

fn per_mille(group: &Group) -> String {
    pair(|level| group.share(level).map(|share| share * 1_000.0))
}

fn precision(figures: &Figures) -> String {
    pair(|level| figures.precision(level).map(|share| share * 100.0))
}

fn pair(value: impl Fn(usize) -> Option<f64>) -> String {
    format!("{}/{}", number(value(0), 1), number(value(1), 1))
}

fn number(value: Option<f64>, decimals: usize) -> String {
    value.map_or("-".to_owned(), |value| format!("{value:.decimals$}"))
}
