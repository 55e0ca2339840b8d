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
    /// How many times what the rule says was admitted, because verified users share the address.
    pub times: u32,
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
        let asker = Asker { times: times(&subject, state, facts, now_ms), subject };
        let is_enforced = rules.mode.and(rule.mode) == Mode::Enforce;
        let admission = match &refusal {
            None => admit(rule, &asker, state, &mut permit, now_ms),
            // It is refused already: what is asked is whether this rule is stricter.
            Some(_) if is_enforced => state.limiter.peek(rule, &asker.subject, asker.times, now_ms),
            Some(_) => continue,
        };
        match admission {
            Admission::Admitted { .. } if refusal.is_none() => counted |= 1 << n,
            Admission::Admitted { .. } => {}
            Admission::Refused { retry_after, exhausted } => {
                let hit = LimitHit { rule: Arc::clone(rule), retry_after, exhausted, times: asker.times };
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

/// Whom a rule counts a request for, and how many stand behind that.
struct Asker<'a> {
    subject: Subject<'a>,
    times: u32,
}

/// An address that verified users share may do what so many clients may; who is told from its neighbours may not.
fn times(subject: &Subject<'_>, state: &LiveState, facts: &RequestFacts<'_>, now_ms: u64) -> u32 {
    match subject {
        Subject::Client(_) | Subject::ClientAndPath(_, _) => state.crowds.times(facts.client, now_ms),
        Subject::Prefix(_) | Subject::User(_) | Subject::Session(_) | Subject::Header(_) => 1,
    }
}

fn admit(
    rule: &LimitRule,
    asker: &Asker<'_>,
    state: &LiveState,
    permit: &mut Permit,
    now_ms: u64,
) -> Admission {
    let Asker { subject, times } = asker;
    let admission = state.limiter.admit_of_many(rule, subject, *times, now_ms);
    let (Admission::Admitted { .. }, Some(most)) = (admission, rule.concurrency) else { return admission };
    let most = most.saturating_mul(*times);
    if permit.enter(&state.under_way, state.limiter.key(rule, subject), most) {
        return admission;
    }
    state.limiter.refund(rule, subject, now_ms);
    Admission::Refused { retry_after: RETRY_CONCURRENCY, exhausted: Exhausted::Concurrency }
}
