//! What a person means by "never flag this again": which rule of a finding is to be silent, about whom or what.
//! Must not note it down.

use ipnet::IpNet;
use portcullis_model::Finding;

use crate::rules::{may_be_dismissed_by_path, rule_names};

/// About what the rule is to be silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Never {
    /// About this client: its address, of IPv6 the /64.
    Client,
    /// About requests at and below a path.
    Path,
    /// About anybody.
    Rule,
}

/// A finding that is dismissed for good, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dismissal {
    pub rule: String,
    /// Of one client; `None`: whoever it is.
    pub network: Option<IpNet>,
    /// And what is below it; `None`: whatever was asked for.
    pub path: Option<String>,
}

/// Why nobody can mean that, with what to say instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DismissalError {
    #[error("there is no rule {0:?}; the rules are {rules}", rules = rule_names().collect::<Vec<_>>().join(", "))]
    UnknownRule(String),
    #[error("{0} is about all that a client does, not about a path; dismiss it for the client")]
    NotAboutPaths(String),
    #[error("expected a path such as /old-shop, without a query, got {0:?}")]
    NoPath(String),
    #[error("the finding has no sample of {0}; say which path")]
    NoSample(String),
    #[error("the samples are of several paths; say which one")]
    SeveralPaths,
}

impl Dismissal {
    /// Without `rule` it is the finding's strongest; without `path` the one path of the rule's samples.
    ///
    /// # Errors
    /// The rule does not exist or does not look at paths, or which path is meant cannot be told.
    pub fn new(
        finding: &Finding,
        never: Never,
        rule: Option<&str>,
        path: Option<&str>,
    ) -> Result<Self, DismissalError> {
        let rule = rule.unwrap_or(&finding.reason).to_owned();
        if !rule_names().any(|name| name == rule) {
            return Err(DismissalError::UnknownRule(rule));
        }
        let path = match never {
            Never::Client | Never::Rule => None,
            Never::Path if !may_be_dismissed_by_path(&rule) => {
                return Err(DismissalError::NotAboutPaths(rule));
            }
            Never::Path => Some(path.map_or_else(|| path_of(finding, &rule), checked)?),
        };
        let network = (never == Never::Client).then(|| finding.client.limit_network());
        Ok(Self { rule, network, path })
    }
}

fn checked(path: &str) -> Result<String, DismissalError> {
    if path.starts_with('/') && !path.contains('?') {
        return Ok(path.to_owned());
    }
    Err(DismissalError::NoPath(path.to_owned()))
}

/// The one path of the rule's samples.
fn path_of(finding: &Finding, rule: &str) -> Result<String, DismissalError> {
    let rules = finding.details["rules"].as_array().map_or(&[][..], Vec::as_slice);
    let samples = rules.iter().filter(|one| one["rule"] == rule).filter_map(|one| one["samples"].as_array());
    let mut paths: Vec<&str> = samples
        .flatten()
        .filter_map(|sample| sample["path"].as_str())
        .map(|target| target.split('?').next().unwrap_or(target))
        .collect();
    paths.sort_unstable();
    paths.dedup();
    match paths[..] {
        [path] => Ok(path.to_owned()),
        [] => Err(DismissalError::NoSample(rule.to_owned())),
        _ => Err(DismissalError::SeveralPaths),
    }
}

#[cfg(test)]
mod tests {
    use portcullis_model::{Severity, UnixMs};
    use serde_json::json;

    use super::*;

    fn finding(paths: &[&str]) -> Finding {
        let samples: Vec<_> = paths.iter().map(|path| json!({ "path": path })).collect();
        Finding {
            client: "2001:db8::7".parse().unwrap(),
            user: None,
            reason: "path_probing".to_owned(),
            severity: Severity::High,
            request_count: 1,
            first_seen: UnixMs(1),
            last_seen: UnixMs(1),
            detected_at: UnixMs(1),
            details: json!({ "rules": [{ "rule": "path_probing", "samples": samples }] }),
        }
    }

    #[test]
    fn the_path_is_the_one_of_the_samples() {
        let of = |paths: &[&str]| Dismissal::new(&finding(paths), Never::Path, None, None).map(|d| d.path);
        assert_eq!(of(&["/a?x=1", "/a"]), Ok(Some("/a".to_owned())));
        assert_eq!(of(&["/a", "/b"]), Err(DismissalError::SeveralPaths));
        assert!(matches!(of(&[]), Err(DismissalError::NoSample(_))));
    }

    #[test]
    fn a_client_is_its_64_and_a_rule_must_exist() {
        let of = |never, rule| Dismissal::new(&finding(&[]), never, rule, None).map(|d| d.network);
        assert_eq!(of(Never::Client, None), Ok(Some("2001:db8::/64".parse().unwrap())));
        assert_eq!(of(Never::Rule, None), Ok(None));
        assert!(of(Never::Rule, Some("nonsense")).unwrap_err().to_string().contains("the rules are"));
    }
}
