//! What becomes of a request. The file to read first.
//!
//! Allowlist, then blocks, then limits, then admit: in that order, every branch here. The reason that is
//! returned is the one that the log, the metrics and the refusal page use.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use portcullis_model::{Reason, SharedPrefix, VerdictKind};

use crate::{
    Admission, Blocklist, LimitRule, Limiter, MAX_LIMIT_RULES, Mode, Now, Parties, PrefixSet, RequestFacts,
    Snapshot,
};

/// What a reload must not reset: blocks, allows and counts. The gateway has one for its life.
#[derive(Default)]
pub struct LiveState {
    /// The IDs of the allows.
    pub allows: ArcSwap<PrefixSet<i64>>,
    pub blocks: Blocklist,
    /// Blocks of users, and of the anonymous clients of an address that users share.
    pub parties: Parties,
    pub limiter: Limiter,
}

/// What the rules say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Admit,
    /// The ID of the allow.
    Allow(i64),
    /// The ID of the block.
    Block(i64),
    Limit(LimitHit),
}

/// A limit that is used up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitHit {
    pub rule: Arc<LimitRule>,
    pub retry_after: Duration,
    /// The client's IPv6 prefix that used it up as a whole; `None`: the client itself did.
    pub shared: Option<SharedPrefix>,
}

/// A verdict, and whether it is carried out or only recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    pub verdict: Verdict,
    pub mode: Mode,
}

/// Judges one request.
pub fn decide(rules: &Snapshot, state: &LiveState, facts: &RequestFacts<'_>, now: Now) -> Decision {
    let decision = |verdict, mode| Decision { verdict, mode };

    if let Some(&allow) = state.allows.load().lookup(facts.client.ip()) {
        return decision(Verdict::Allow(allow), rules.mode);
    }
    if let Some(block) = find_block(state, facts, now) {
        return decision(Verdict::Block(block), rules.mode);
    }
    if let Some(hit) = first_limit_hit(rules, &state.limiter, facts, now) {
        let mode = rules.mode.and(hit.rule.mode);
        return decision(Verdict::Limit(hit), mode);
    }
    decision(Verdict::Admit, rules.mode)
}

/// A verified user answers for itself: blocks that the machine made of the address because of a neighbour do not
/// meet it, its own does. What a person blocked is blocked for everybody.
fn find_block(state: &LiveState, facts: &RequestFacts<'_>, now: Now) -> Option<i64> {
    let of_address = match facts.identity {
        None => state.blocks.find(facts.client, now),
        Some(_) => state.blocks.find_for_users(facts.client, now),
    };
    of_address.or_else(|| state.parties.find(facts, now))
}

/// Counts the request under every rule that applies. An enforced rule that refuses it takes it back from
/// the others, since it will not be served; a rule in dry-run only speaks when no other refuses.
fn first_limit_hit(
    rules: &Snapshot,
    limiter: &Limiter,
    facts: &RequestFacts<'_>,
    now: Now,
) -> Option<LimitHit> {
    let client = facts.client.limit_key();
    let mut counted: u128 = 0;
    let mut in_dry_run = None;
    for (n, rule) in rules.limits.iter().enumerate().take(MAX_LIMIT_RULES) {
        if !rule.applies_to.matches(facts.method, facts.host, &facts.path) {
            continue;
        }
        let (retry_after, shared) = match limiter.admit(rule, client, now.monotonic_ms) {
            Admission::Admitted { .. } => {
                counted |= 1 << n;
                continue;
            }
            Admission::Refused { retry_after, shared } => (retry_after, shared),
        };
        let hit = LimitHit { rule: Arc::clone(rule), retry_after, shared };
        match rules.mode.and(rule.mode) {
            Mode::DryRun => in_dry_run = in_dry_run.or(Some(hit)),
            Mode::Enforce => {
                let others = rules.limits.iter().take(n).enumerate().filter(|(m, _)| counted >> m & 1 == 1);
                others.for_each(|(_, other)| limiter.refund(other, client, now.monotonic_ms));
                return Some(hit);
            }
        }
    }
    in_dry_run
}

impl Decision {
    /// Whether the request goes to the upstream.
    pub fn is_served(&self) -> bool {
        match (&self.verdict, self.mode) {
            (Verdict::Admit | Verdict::Allow(_), _)
            | (Verdict::Block(_) | Verdict::Limit(_), Mode::DryRun) => true,
            (Verdict::Block(_) | Verdict::Limit(_), Mode::Enforce) => false,
        }
    }

    /// The verdict and the reason as the log and the metrics have them.
    pub fn kind(&self) -> VerdictKind {
        match (&self.verdict, self.mode) {
            (Verdict::Admit, _) => VerdictKind::Admitted,
            (Verdict::Allow(_), _) => VerdictKind::Allowed,
            (Verdict::Block(_), Mode::Enforce) => VerdictKind::Blocked,
            (Verdict::Block(_), Mode::DryRun) => VerdictKind::WouldBlock,
            (Verdict::Limit(_), Mode::Enforce) => VerdictKind::Limited,
            (Verdict::Limit(_), Mode::DryRun) => VerdictKind::WouldLimit,
        }
    }

    /// The reason column of the log.
    pub fn reason(&self) -> Reason {
        match &self.verdict {
            Verdict::Admit => Reason::None,
            Verdict::Allow(id) => Reason::Allow(*id),
            Verdict::Block(id) => Reason::Block(*id),
            Verdict::Limit(hit) => {
                let rule = Arc::clone(&hit.rule.name);
                match hit.shared {
                    None => Reason::Limit(rule),
                    Some(prefix) => Reason::SharedLimit(rule, prefix),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BlockChange;
    use ipnet::IpNet;
    use portcullis_model::{Identity, Party, UnixMs, normalise_path};

    const NOW: Now = Now { wall: UnixMs(1_000_000), monotonic_ms: 1_000_000 };

    fn limit(name: &str, rate: &str, paths: &[&str], mode: Mode) -> Arc<LimitRule> {
        let applies_to = crate::RequestMatch {
            paths: paths.iter().map(|p| p.parse().unwrap()).collect(),
            methods: vec!["POST".into()],
            hosts: Vec::new(),
        };
        Arc::new(LimitRule { name: name.into(), rate: rate.parse().unwrap(), mode, applies_to })
    }

    fn state(blocks: &[(&str, i64)], allows: &[(&str, i64)]) -> LiveState {
        let state = LiveState::default();
        let changes = blocks.iter().map(|(network, id)| BlockChange::Add {
            network: network.parse().unwrap(),
            id: *id,
            expires_at: None,
            spares_users: false,
        });
        state.blocks.apply(changes, NOW);
        let allows = allows.iter().map(|(network, id)| (network.parse::<IpNet>().unwrap(), *id)).collect();
        state.allows.store(Arc::new(allows));
        state
    }

    fn post(rules: &Snapshot, state: &LiveState, client: &str, path: &str) -> Decision {
        let path = normalise_path(path.as_bytes());
        let facts = RequestFacts::new(client.parse().unwrap(), "POST", "example.com", path);
        decide(rules, state, &facts, NOW)
    }

    #[test]
    fn an_allow_wins_over_a_block_and_a_limit() {
        let rules = Snapshot { mode: Mode::Enforce, limits: vec![limit("all", "1/1h", &[], Mode::Enforce)] };
        let state = state(&[("10.0.0.0/8", 1)], &[("10.1.0.0/16", 9)]);
        for _ in 0..3 {
            assert_eq!(post(&rules, &state, "10.1.2.3", "/").verdict, Verdict::Allow(9));
        }
        assert_eq!(post(&rules, &state, "10.2.0.1", "/").kind(), VerdictKind::Blocked);
    }

    #[test]
    fn a_verified_user_answers_for_itself_and_not_for_its_neighbours() {
        let rules = Snapshot::default();
        let state = state(&[("198.51.100.0/24", 1)], &[]);
        let network: IpNet = "192.0.2.1/32".parse().unwrap();
        let by_the_detector = BlockChange::Add { network, id: 2, expires_at: None, spares_users: true };
        state.blocks.apply([by_the_detector], NOW);
        let mallory =
            crate::PartyChange::Add { party: Party::User("mallory".into()), id: 3, expires_at: None };
        state.parties.apply([mallory], NOW);
        let ask = |client: &str, user: Option<&str>| {
            let identity =
                user.map(|user| Identity { user: Some(user.into()), roles: Vec::new(), session: None });
            let facts = RequestFacts::new(client.parse().unwrap(), "GET", "example.com", "/".into());
            decide(&rules, &state, &RequestFacts { identity: identity.as_ref(), ..facts }, NOW).verdict
        };
        assert_eq!(ask("192.0.2.1", None), Verdict::Block(2));
        assert_eq!(ask("192.0.2.1", Some("alice")), Verdict::Admit);
        assert_eq!(ask("192.0.2.1", Some("mallory")), Verdict::Block(3));
        assert_eq!(ask("203.0.113.9", Some("mallory")), Verdict::Block(3), "from wherever");
        assert_eq!(ask("198.51.100.7", Some("alice")), Verdict::Block(1), "a person's block is absolute");
    }

    #[test]
    fn the_fourth_login_is_limited_however_it_is_spelt() {
        let rules = Snapshot {
            mode: Mode::Enforce,
            limits: vec![limit("login", "3/5m", &["/login"], Mode::Enforce)],
        };
        let state = state(&[], &[]);
        for path in ["/login", "//login/", "/%6cogin"] {
            assert!(post(&rules, &state, "192.0.2.1", path).is_served());
        }
        let fourth = post(&rules, &state, "192.0.2.1", "/x/../LOGIN");
        assert_eq!((fourth.kind(), fourth.reason()), (VerdictKind::Limited, Reason::Limit("login".into())));
        let client = "192.0.2.1".parse().unwrap();
        let lower = RequestFacts::new(client, "post", "example.com", "/login".into());
        assert!(!decide(&rules, &state, &lower, NOW).is_served(), "the method in other letters");
        assert!(post(&rules, &state, "192.0.2.1", "/logout").is_served());
        assert!(post(&rules, &state, "192.0.2.2", "/login").is_served());
    }

    #[test]
    fn dry_run_records_and_serves() {
        let rules =
            Snapshot { mode: Mode::DryRun, limits: vec![limit("login", "1/5m", &["/login"], Mode::Enforce)] };
        let state = state(&[("192.0.2.66/32", 4)], &[]);
        let blocked = post(&rules, &state, "192.0.2.66", "/");
        assert_eq!((blocked.kind(), blocked.is_served()), (VerdictKind::WouldBlock, true));
        assert!(post(&rules, &state, "192.0.2.1", "/login").is_served());
        let limited = post(&rules, &state, "192.0.2.1", "/login");
        assert_eq!((limited.kind(), limited.is_served()), (VerdictKind::WouldLimit, true));
    }

    #[test]
    fn a_rule_in_dry_run_does_not_stop_the_enforced_one_after_it() {
        let limits =
            vec![limit("shadow", "1/1h", &[], Mode::DryRun), limit("real", "2/1h", &[], Mode::Enforce)];
        let rules = Snapshot { mode: Mode::Enforce, limits };
        let state = state(&[], &[]);
        let kinds: Vec<_> = (0..3).map(|_| post(&rules, &state, "192.0.2.1", "/").kind()).collect();
        assert_eq!(kinds, [VerdictKind::Admitted, VerdictKind::WouldLimit, VerdictKind::Limited]);
    }

    #[test]
    fn a_refused_request_is_not_counted_under_the_other_rules() {
        let limits = vec![
            limit("wide", "5/1h", &[], Mode::Enforce),
            limit("login", "1/1h", &["/login"], Mode::Enforce),
        ];
        let rules = Snapshot { mode: Mode::Enforce, limits };
        let state = state(&[], &[]);
        for _ in 0..20 {
            post(&rules, &state, "192.0.2.1", "/login");
        }
        let served = (0..10).filter(|_| post(&rules, &state, "192.0.2.1", "/").is_served()).count();
        assert_eq!(served, 4, "one login and four others make five");
    }
}
