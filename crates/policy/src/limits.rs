//! Which limits a request meets. All that apply are asked; of those that refuse, the one that makes the client wait
//! longest answers.
//!
//! Owns the order of counting and taking back. A refused request is counted nowhere, since it is not served.

use std::sync::Arc;
use std::time::Duration;

use crate::{
    Admission, Exhausted, LimitRule, LiveState, MAX_LIMIT_RULES, Mode, Permit, RequestFacts, Snapshot,
    Subject,
};

/// What a client is told to wait that has too many requests under way: nobody knows when one of them ends.
pub const RETRY_CONCURRENCY: Duration = Duration::from_secs(1);

/// A limit that is used up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitHit {
    pub rule: Arc<LimitRule>,
    pub retry_after: Duration,
    pub exhausted: Exhausted,
}

impl LimitHit {
    fn stricter(self, other: Self) -> Self {
        if other.retry_after > self.retry_after { other } else { self }
    }
}

/// Counts the request under every rule that applies. An enforced rule that refuses it takes it back from the
/// others; a rule in dry-run only speaks when no other refuses. The permit is the request's place in the limits of
/// concurrency, and is empty when it is refused.
pub(crate) fn count(
    rules: &Snapshot,
    state: &LiveState,
    facts: &RequestFacts<'_>,
    now_ms: u64,
) -> (Option<LimitHit>, Permit) {
    let mut permit = Permit::default();
    let mut counted: u128 = 0;
    let mut refusal: Option<LimitHit> = None;
    let mut in_dry_run: Option<LimitHit> = None;
    for (n, rule) in rules.limits.iter().enumerate().take(MAX_LIMIT_RULES) {
        if !rule.applies_to.matches(facts) {
            continue;
        }
        let subject = rule.key.subject(facts);
        let is_enforced = rules.mode.and(rule.mode) == Mode::Enforce;
        let admission = match &refusal {
            None => admit(rule, &subject, state, &mut permit, now_ms),
            // It is refused already: what is asked is whether this rule is stricter.
            Some(_) if is_enforced => state.limiter.peek(rule, &subject, now_ms),
            Some(_) => continue,
        };
        match admission {
            Admission::Admitted { .. } if refusal.is_none() => counted |= 1 << n,
            Admission::Admitted { .. } => {}
            Admission::Refused { retry_after, exhausted } => {
                let hit = LimitHit { rule: Arc::clone(rule), retry_after, exhausted };
                let which = if is_enforced { &mut refusal } else { &mut in_dry_run };
                *which = Some(match which.take() {
                    Some(earlier) => earlier.stricter(hit),
                    None => hit,
                });
            }
        }
    }
    if refusal.is_none() {
        return (in_dry_run, permit);
    }
    for (_, rule) in
        rules.limits.iter().enumerate().filter(|(n, _)| *n < MAX_LIMIT_RULES && counted >> n & 1 == 1)
    {
        state.limiter.refund(rule, &rule.key.subject(facts), now_ms);
    }
    (refusal, Permit::default())
}

fn admit(
    rule: &LimitRule,
    subject: &Subject<'_>,
    state: &LiveState,
    permit: &mut Permit,
    now_ms: u64,
) -> Admission {
    let admission = state.limiter.admit(rule, subject, now_ms);
    let (Admission::Admitted { .. }, Some(most)) = (admission, rule.concurrency) else { return admission };
    if permit.enter(&state.under_way, state.limiter.key(rule, subject), most) {
        return admission;
    }
    state.limiter.refund(rule, subject, now_ms);
    Admission::Refused { retry_after: RETRY_CONCURRENCY, exhausted: Exhausted::Concurrency }
}
