//! What is to be done about a finding, by its severity and by the kind of evidence behind it. Owns the table, and what
//! the kind of a finding is; must not do it.

use std::time::Duration;

use portcullis_model::{Finding, Severity};

use crate::rules::{Evidence, evidence_of};

/// What is done about a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is written down.
    Log,
    /// Its client is blocked: for so long, or by the steps of [`crate::Settings::block_for`].
    Block(Option<Duration>),
}

/// An action for each kind of evidence and severity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actions {
    table: [[Action; Severity::ALL.len()]; Evidence::ALL.len()],
    dry_run: [bool; Evidence::ALL.len()],
}

/// What the table says about one finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decided {
    pub action: Action,
    /// It is only noted that it would be done.
    pub is_dry_run: bool,
}

impl Actions {
    /// Blocks from this severity on, whatever the evidence is; `None`: never.
    pub fn blocking_from(least: Option<Severity>) -> Self {
        let block = |severity: Severity| least.is_some_and(|least| severity >= least);
        let row = Severity::ALL.map(|severity| match block(severity) {
            true => Action::Block(None),
            false => Action::Log,
        });
        Self { table: [row; Evidence::ALL.len()], dry_run: [false; Evidence::ALL.len()] }
    }

    /// Changes one place of the table.
    pub fn set(&mut self, kind: Evidence, severity: Severity, action: Action) {
        self.table[kind as usize][severity as usize] = action;
    }

    /// What this kind of evidence leads to is only noted.
    pub fn set_dry_run(&mut self, kind: Evidence) {
        self.dry_run[kind as usize] = true;
    }

    /// Whether anything is blocked at all.
    pub fn blocks(&self) -> bool {
        self.table.iter().flatten().any(|action| *action != Action::Log)
    }

    /// What is to be done. Of the rules that are as severe as the severest one each speaks for its kind of evidence, and
    /// the strictest counts: a block before one in dry-run, and that before nothing.
    pub fn of(&self, finding: &Finding) -> Decided {
        let nothing = Decided { action: Action::Log, is_dry_run: false };
        kinds(finding).into_iter().fold(nothing, |so_far, kind| {
            let action = self.table[kind as usize][finding.severity as usize];
            let is_dry_run = self.dry_run[kind as usize];
            let is_stricter = match (action, so_far.action) {
                (Action::Log, _) => false,
                (Action::Block(_), Action::Log) => true,
                (Action::Block(_), Action::Block(_)) => so_far.is_dry_run && !is_dry_run,
            };
            if is_stricter { Decided { action, is_dry_run } } else { so_far }
        })
    }
}

impl Default for Actions {
    fn default() -> Self {
        Self::blocking_from(Some(Severity::High))
    }
}

/// The kinds of evidence of the severest rules.
fn kinds(finding: &Finding) -> Vec<Evidence> {
    let rules = finding.details["rules"].as_array().map(Vec::as_slice).unwrap_or_default();
    let named = rules.iter().filter_map(|rule| {
        let severity: Severity = rule["severity"].as_str()?.parse().ok()?;
        Some((severity, evidence_of(rule["rule"].as_str()?)?))
    });
    let named: Vec<_> = named.collect();
    let worst = named.iter().map(|(severity, _)| *severity).max();
    let kinds: Vec<_> =
        named.into_iter().filter(|(severity, _)| Some(*severity) == worst).map(|(_, kind)| kind).collect();
    if kinds.is_empty() { evidence_of(&finding.reason).into_iter().collect() } else { kinds }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_model::UnixMs;
    use serde_json::json;

    fn finding(severity: Severity, rules: &[(&str, &str)]) -> Finding {
        let rules: Vec<_> =
            rules.iter().map(|(rule, severity)| json!({ "rule": rule, "severity": severity })).collect();
        Finding {
            client: "192.0.2.1".parse().unwrap(),
            user: None,
            reason: "path_probing".to_owned(),
            severity,
            request_count: 1,
            first_seen: UnixMs(0),
            last_seen: UnixMs(0),
            detected_at: UnixMs(0),
            details: json!({ "rules": rules }),
        }
    }

    const HOUR: Duration = Duration::from_secs(3_600);

    #[test]
    fn by_default_everything_is_blocked_from_high_on() {
        let actions = Actions::default();
        for severity in Severity::ALL {
            let decided = actions.of(&finding(severity, &[("sensitive_files", "medium")]));
            let action = if severity >= Severity::High { Action::Block(None) } else { Action::Log };
            assert_eq!(decided, Decided { action, is_dry_run: false }, "{severity}");
        }
        let never = Actions::blocking_from(None);
        assert!(!never.blocks() && actions.blocks());
        assert_eq!(never.of(&finding(Severity::Critical, &[])).action, Action::Log);
    }

    #[test]
    fn of_the_severest_rules_the_strictest_action_counts() {
        let mut actions = Actions::default();
        actions.set(Evidence::Logins, Severity::High, Action::Log);
        actions.set(Evidence::Signatures, Severity::High, Action::Block(Some(HOUR)));
        actions.set_dry_run(Evidence::Errors);
        let of = |rules: &[(&str, &str)]| actions.of(&finding(Severity::High, rules));
        let decided = |action, is_dry_run| Decided { action, is_dry_run };
        assert_eq!(of(&[("login_failures", "high")]), decided(Action::Log, false));
        assert_eq!(of(&[("path_probing", "high")]), decided(Action::Block(None), true));
        assert_eq!(
            of(&[("login_failures", "high"), ("path_probing", "high")]),
            decided(Action::Block(None), true)
        );
        assert_eq!(
            of(&[("path_probing", "high"), ("sensitive_files", "high")]),
            decided(Action::Block(Some(HOUR)), false)
        );
        // The lesser rule does not speak.
        assert_eq!(
            of(&[("login_failures", "high"), ("sensitive_files", "medium")]),
            decided(Action::Log, false)
        );
        assert_eq!(of(&[]), decided(Action::Block(None), true), "by the finding's own reason");
    }

    #[test]
    fn every_rule_has_its_kind_of_evidence() {
        for name in crate::rule_names() {
            assert!(evidence_of(name).is_some(), "{name}");
        }
        for (n, kind) in Evidence::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, n);
        }
    }
}
