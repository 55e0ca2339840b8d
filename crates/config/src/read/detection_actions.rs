//! `[detection.actions]`: what is done about findings, by severity and by kind of evidence.

use portcullis_detect::{Action, Actions, Evidence};
use portcullis_model::Severity;

use crate::units::parse_duration;

use super::fields::{Section, Value, quoted};
use super::{DAY, SECOND};

const WHAT: &str = "\"log\", \"block\", or \"block\" with a duration such as \"block 2h\"";

/// The table, and from which severity on it blocks whatever the evidence is. `short`: what `block_severity` says.
pub(super) fn actions(detection: &mut Section<'_>, short: Option<Severity>) -> (Actions, Option<Severity>) {
    let has_short = detection.has("block_severity");
    let mut section = detection.section("actions");
    let mut actions = Actions::blocking_from(short);
    let mut general = Severity::ALL.map(|severity| short.is_some_and(|least| severity >= least));
    for severity in Severity::ALL {
        let Some(value) = section.get(severity.as_str()) else { continue };
        let Some(action) = action(&value) else { continue };
        let is_block = action != Action::Log;
        if has_short && is_block != general[severity as usize] {
            value.fail("detection.block_severity says otherwise; keep one of the two");
        }
        let lower = Severity::ALL.into_iter().find(|lower| *lower < severity && general[*lower as usize]);
        if let Some(lower) = lower.filter(|_| !is_block) {
            value.fail(format!("expected a block too, since the lesser severity \"{lower}\" is blocked"));
        }
        general[severity as usize] = is_block;
        Evidence::ALL.into_iter().for_each(|kind| actions.set(kind, severity, action));
    }
    for kind in Evidence::ALL {
        let mut own = section.section(kind.as_str());
        for severity in Severity::ALL {
            if let Some(action) = own.get(severity.as_str()).and_then(|value| action(&value)) {
                actions.set(kind, severity, action);
            }
        }
        own.finish();
    }
    let in_dry_run = section.read("dry_run", Vec::new(), |value| {
        value.list(Evidence::ALL.len(), |item| item.choice(&Evidence::ALL, Evidence::as_str))
    });
    in_dry_run.into_iter().for_each(|kind| actions.set_dry_run(kind));
    section.finish();
    (actions, Severity::ALL.into_iter().find(|severity| general[*severity as usize]))
}

fn action(value: &Value<'_>) -> Option<Action> {
    let text = value.text(WHAT)?;
    match text.split_once(' ') {
        None if text == "log" => Some(Action::Log),
        None if text == "block" => Some(Action::Block(None)),
        Some(("block", span)) => match parse_duration(span) {
            Some(span) if (SECOND..=3_650 * DAY).contains(&span) => Some(Action::Block(Some(span))),
            Some(_) => {
                value.fail(format!("expected a duration from 1s to 3650d, got {}", quoted(span)));
                None
            }
            None => value.expected(WHAT),
        },
        _ => value.expected(WHAT),
    }
}
