//! From the rules' hits to one severity and one finding per client. Owns how evidence combines and what
//! holds it down; must not look at requests.

use portcullis_model::{ClientIp, Finding, Severity, UnixMs};
use serde_json::{Map, Value, json};

use crate::client::{Client, Sample};
use crate::engine::Score;
use crate::rules::{Context, Evidence, FOREST, Hit, RULES};
use crate::scenarios;
use crate::{Features, ForestModel, Origin, SharedAddress, feature_in_words};

/// The most samples of one finding.
const MAX_SAMPLES: usize = 10;
/// User agents and asset share from which an address is taken for a shared one: an office, a carrier.
const SHARED_AGENTS: usize = 8;
const SHARED_ASSET_SHARE: f64 = 0.2;
/// What presumed-good clients look like.
const GOOD_ASSET_SHARE: f64 = 0.1;
const GOOD_ERROR_SHARE: f64 = 0.3;

/// A client with all that was found about it.
#[derive(Debug)]
pub(crate) struct Judged {
    hits: Vec<(&'static str, Evidence, Hit)>,
    /// Before anything holds it down.
    combined: Option<Severity>,
    /// `None`: nothing to report.
    pub(crate) severity: Option<Severity>,
    held_down: Option<&'static str>,
    /// Rules that are not to be asked about this client, and the number of what says so.
    silent: Vec<(&'static str, i64)>,
    pub(crate) score: Option<f64>,
    /// The forest found it odd.
    pub(crate) is_odd: bool,
}

impl Judged {
    pub(crate) fn new(
        client: &Client,
        context: &Context<'_>,
        forest: Option<&ForestModel>,
        row: Option<&Features>,
    ) -> Self {
        let mut hits: Vec<_> = RULES
            .iter()
            .filter_map(|rule| (rule.check)(client, context).map(|hit| (rule.name, rule.evidence, hit)))
            .collect();
        let mut silent = Vec::new();
        let score = forest.zip(row).and_then(|(model, row)| model.score(row));
        let odd = forest.zip(score).and_then(|(model, score)| forest_hit(client, model, score));
        let is_odd = odd.is_some();
        hits.extend(scenarios::hits(client, context.neighbours));
        // Made-up clients say what is odd on most sites, not on this one: a second opinion on what rules say, no first one.
        let may_be_first = forest.is_some_and(|model| model.origin() == Origin::Site);
        let odd = odd.filter(|_| may_be_first || !hits.is_empty());
        hits.extend(odd.map(|hit| (FOREST, Evidence::Statistics, hit)));
        hits.retain(|(rule, _, _)| match context.knowledge.suppressions.of_client(rule, client.key) {
            Some(one) => {
                silent.push((*rule, one.id));
                false
            }
            None => true,
        });
        // Stable: among equally severe ones the table's order decides.
        hits.sort_by_key(|(_, _, hit)| std::cmp::Reverse(hit.severity));
        let combined = combine(&hits);
        let shares = context.neighbours.users > 0;
        let held_down = combined.and_then(|severity| hold_down(client, shares, &hits, severity));
        let severity = match held_down {
            Some(_) => combined.map(|severity| severity.min(Severity::Medium)),
            None => combined,
        };
        Self { hits, combined, severity, held_down, silent, score, is_odd }
    }

    /// Lets evidence that has added up over time count for at least so much; what holds it down holds it still.
    pub(crate) fn at_least(&mut self, client: &Client, context: &Context<'_>, least: Option<Severity>) {
        let Some(least) = least.filter(|_| !self.hits.is_empty() && least > self.combined) else { return };
        self.held_down = hold_down(client, context.neighbours.users > 0, &self.hits, least);
        self.severity = Some(if self.held_down.is_some() { Severity::Medium } else { least });
    }

    /// The rules that hit, the severest first.
    pub(crate) fn rules(&self) -> impl Iterator<Item = (&'static str, Evidence, Severity)> {
        self.hits.iter().map(|(rule, evidence, hit)| (*rule, *evidence, hit.severity))
    }

    /// Whether the client may teach the forest what is ordinary: nothing but volume was said about it, and
    /// it looks like a browser or is a known user.
    pub(crate) fn is_presumed_good(&self, client: &Client) -> bool {
        let only_volume = self.hits.iter().all(|(_, evidence, hit)| match evidence {
            Evidence::Volume => hit.severity == Severity::Low,
            Evidence::Errors
            | Evidence::Paths
            | Evidence::Signatures
            | Evidence::Logins
            | Evidence::Agent
            | Evidence::Identity
            | Evidence::Company => false,
            // The forest must not choose its own teachers.
            Evidence::Statistics => true,
        });
        only_volume && looks_good(client)
    }
}

fn looks_good(client: &Client) -> bool {
    client.user.is_some()
        || (client.asset_share() > GOOD_ASSET_SHARE && client.error_share() < GOOD_ERROR_SHARE)
}

/// The forest's opinion: low, since feed readers, API clients and people with odd habits are odd and harmless. A
/// client that looks like its teachers is never held against them.
fn forest_hit(client: &Client, model: &ForestModel, score: f64) -> Option<Hit> {
    if score <= model.threshold() || looks_good(client) {
        return None;
    }
    Some(Hit {
        severity: Severity::Low,
        says: format!(
            "behaves unlike the site's ordinary clients (score {score:.3}, ordinary up to {:.3})",
            model.threshold()
        ),
        evidence: json!({ "score": round(score), "threshold": round(model.threshold()), "model": model.id() }),
        samples: None,
    })
}

/// The greatest severity, and one step more when two independent kinds of evidence reach it: never to critical, from
/// low only if something was asked for that attacks ask for (a crawler with an old list of links is odd in
/// several ways at once), beyond medium only without the forest's help, and volume helps nothing.
fn combine(hits: &[(&'static str, Evidence, Hit)]) -> Option<Severity> {
    let highest = hits.first()?.2.severity;
    let mut kinds: Vec<Evidence> = Vec::new();
    for (_, evidence, hit) in hits.iter().filter(|(_, evidence, _)| *evidence != Evidence::Volume) {
        if hit.severity == highest && !kinds.contains(evidence) {
            kinds.push(*evidence);
        }
    }
    let without_forest = kinds.iter().filter(|kind| **kind != Evidence::Statistics).count();
    let is_about_attacks = kinds.contains(&Evidence::Signatures);
    Some(match highest {
        Severity::Low if kinds.len() >= 2 && is_about_attacks => Severity::Medium,
        Severity::Medium if without_forest >= 2 => Severity::High,
        Severity::Low | Severity::Medium | Severity::High | Severity::Critical => highest,
    })
}

/// Why the severity may not exceed medium, if it does. Guessed passwords are plain evidence where users are known:
/// what is blocked then is one user, or the anonymous clients of the address, and never all who share it.
fn hold_down(
    client: &Client,
    shares: bool,
    hits: &[(&'static str, Evidence, Hit)],
    severity: Severity,
) -> Option<&'static str> {
    let is_caught_in_the_act = hits.iter().any(|(_, evidence, hit)| {
        matches!(evidence, Evidence::Signatures | Evidence::Agent) && hit.severity >= Severity::Medium
    });
    if severity <= Severity::Medium || is_caught_in_the_act {
        return None;
    }
    if client.user.is_some() || shares {
        let guesses = hits
            .iter()
            .any(|(_, evidence, hit)| *evidence == Evidence::Logins && hit.severity >= Severity::High);
        return (!guesses).then_some(
            "a verified user is on this address, and nothing it asked for is an attack by itself",
        );
    }
    if client.agents() >= SHARED_AGENTS && client.asset_share() > SHARED_ASSET_SHARE {
        return Some(
            "many different browsers use this address, and nothing it asked for is an attack by itself",
        );
    }
    None
}

/// How a client came to be judged.
#[derive(Clone, Copy)]
pub(crate) enum Found<'a> {
    /// At the end of a window, with the forest's help.
    Hourly(Option<&'a ForestModel>),
    /// By the request that it made, with its score.
    Request(&'a Score),
}

/// The finding, or nothing when there is nothing to report.
pub(crate) fn write(
    client: &Client,
    judged: Judged,
    row: Option<&Features>,
    found: Found<'_>,
    shared: Option<&SharedAddress>,
    now: UnixMs,
) -> Option<Finding> {
    let severity = judged.severity?;
    let (reason, _, strongest) = judged.hits.first()?;
    let address = client.address();
    let mut details = Map::new();
    details.insert("summary".to_owned(), Value::String(summary(client, strongest, judged.hits.len())));
    if client.key != address.ip() || client.key.is_ipv6() {
        details.insert("network".to_owned(), json!(format!("{}/64", client.key)));
    }
    if let Some(why) = judged.held_down {
        details.insert("held_down".to_owned(), json!(why));
    }
    if let Some(shared) = shared {
        details.insert("shared".to_owned(), json!(shared));
    }
    if !judged.silent.is_empty() {
        let silent = judged.silent.iter().map(|(rule, id)| json!({ "rule": rule, "never": id }));
        details.insert("silent".to_owned(), silent.collect());
    }
    details.insert("rules".to_owned(), rules(client, &judged));
    details.insert("features".to_owned(), row.map_or(Value::Null, features));
    let forest = match found {
        Found::Hourly(forest) => {
            details.insert("found".to_owned(), json!("hourly"));
            forest
        }
        Found::Request(score) => {
            details.insert("found".to_owned(), json!("request"));
            details.insert("score".to_owned(), json!(score.value()));
            details.insert("score_history".to_owned(), score.history());
            None
        }
    };
    let opinion = forest.zip(row).filter(|_| judged.score.is_some());
    let opinion = opinion.map(|(model, row)| forest_details(model, row));
    details.insert("forest".to_owned(), opinion.unwrap_or(Value::Null));
    details.insert("prevented_by".to_owned(), prevention(reason, strongest, address));
    Some(Finding {
        client: address,
        user: client.user.as_deref().map(str::to_owned),
        reason: (*reason).to_owned(),
        severity,
        request_count: u64::from(client.requests),
        first_seen: client.first,
        last_seen: client.last,
        detected_at: now,
        details: Value::Object(details),
    })
}

/// What would have prevented the finding, in plain words; the surest last.
fn prevention(rule: &str, hit: &Hit, address: ClientIp) -> Value {
    let number = |name: &str| hit.evidence[name].as_u64().unwrap_or(0);
    let setting = match rule {
        "high_frequency" => {
            Some(format!("detection.requests_per_hour of at least {}", number("requests_in_busiest_hour")))
        }
        "error_rate" => Some("a higher detection.error_rate or detection.error_min_requests".to_owned()),
        "sensitive_paths" => Some("leaving these paths out of detection.sensitive_paths".to_owned()),
        "login_failures" => {
            Some("a higher detection.login_failures, where users mistype that often".to_owned())
        }
        "login_burst" | "xmlrpc_burst" => {
            Some("leaving the path out of detection.login_paths, where it is no login".to_owned())
        }
        "admin_probing" => {
            Some("leaving these paths out of detection.sensitive_paths, or serving them".to_owned())
        }
        "path_probing" | "fast_probing" => {
            Some("pages, redirects or no links where these pages are missing".to_owned())
        }
        FOREST => Some("detection.forest = false".to_owned()),
        _ => None,
    };
    let allow = format!("an allow of the client (portcullis allow {address})");
    json!(setting.into_iter().chain([allow]).collect::<Vec<_>>())
}

fn summary(client: &Client, strongest: &Hit, rules: usize) -> String {
    let others = match rules {
        0 | 1 => String::new(),
        2 => "; one more rule agrees".to_owned(),
        n => format!("; {} more rules agree", n - 1),
    };
    let requests = if client.requests == 1 { "request" } else { "requests" };
    let span = span(client.last.since(client.first).as_secs());
    let who = match &client.user {
        Some(user) => format!("user {user} at {}", client.address()),
        None => client.address().to_string(),
    };
    format!("{who} {}, in {} {requests} {span}{others}", strongest.says, client.requests)
}

fn span(seconds: u64) -> String {
    match seconds {
        0..=1 => "within a second".to_owned(),
        seconds @ 2..=119 => format!("within {seconds} seconds"),
        seconds @ 120..=7_199 => format!("within {} minutes", seconds / 60),
        seconds => format!("within {} hours", seconds / 3_600),
    }
}

/// All hits with their samples, which the strongest rules get first.
fn rules(client: &Client, judged: &Judged) -> Value {
    let mut room = MAX_SAMPLES;
    let entries = judged.hits.iter().map(|(name, _, hit)| {
        let samples: Vec<Value> = match hit.samples {
            Some(kind) => client.samples(kind).take(room).map(sample).collect(),
            None => Vec::new(),
        };
        room -= samples.len();
        json!({
            "rule": name,
            "severity": hit.severity,
            "says": hit.says,
            "evidence": hit.evidence,
            "samples": samples,
        })
    });
    Value::Array(entries.collect())
}

fn sample(sample: &Sample) -> Value {
    json!({ "time": sample.time, "method": sample.method, "path": sample.target, "status": sample.status })
}

fn features(row: &Features) -> Value {
    let values = Features::NAMES.into_iter().zip(row.plain_values());
    Value::Object(values.map(|(name, value)| (name.to_owned(), json!(value))).collect())
}

fn forest_details(model: &ForestModel, row: &Features) -> Value {
    let Some(opinion) = model.explain(row) else { return Value::Null };
    let strongest = opinion.strongest.iter();
    json!({
        "score": round(opinion.score),
        "threshold": round(model.threshold()),
        "model": model.id(),
        "strongest": strongest.map(|s| json!({
            "feature": s.feature, "value": s.value, "typical": s.typical, "share": s.share,
            "says": feature_in_words(s.feature, s.value, s.typical),
        })).collect::<Vec<_>>(),
    })
}

fn round(score: f64) -> f64 {
    (score * 10_000.0).round() / 10_000.0
}
