//! What becomes of a request. The file to read first.
//!
//! Allowlist, then blocks, then whom the detector has just caught, then feeds, then the access list, then limits,
//! then admit: in that order, every branch here. The reason that is returned is the one that the log, the metrics and the refusal page use.

use std::sync::Arc;

use arc_swap::ArcSwap;
use portcullis_model::{ClientIp, Identity, Reason, VerdictKind};

use crate::{
    AccessRule, Blocklist, Caught, Crowds, Exhausted, Feeds, Hold, LimitHit, Limiter, Mode, Now, Parties,
    Permit, PrefixSet, RequestFacts, Snapshot, UnderWay, access, limits,
};

/// What a reload must not reset: blocks, allows and counts. The gateway has one for its life.
#[derive(Default)]
pub struct LiveState {
    /// The IDs of the allows.
    pub allows: ArcSwap<PrefixSet<i64>>,
    pub blocks: Blocklist,
    /// Blocks of users, and of the anonymous clients of an address that users share.
    pub parties: Parties,
    /// Whom the detector has caught since the blocks were last read.
    pub caught: Caught,
    pub crowds: Crowds,
    /// Lists that others publish.
    pub feeds: ArcSwap<Feeds>,
    pub limiter: Limiter,
    pub under_way: Arc<UnderWay>,
}

/// What the rules say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Admit,
    /// The ID of the allow.
    Allow(i64),
    /// The ID of the block.
    Block(i64),
    /// The rule of the access list.
    Deny(Arc<AccessRule>),
    /// The name of the list that has the address.
    Feed(Arc<str>),
    /// The name of the detector's rule.
    Caught(Arc<str>),
    Limit(LimitHit),
}

/// A verdict, and whether it is carried out or only recorded.
#[derive(Debug)]
pub struct Decision {
    pub verdict: Verdict,
    pub mode: Mode,
    /// To be kept until the request has ended.
    pub permit: Permit,
}

/// What is refused whoever sends it: to be asked before anybody computes whose the request is. `None` when that may
/// matter, or nothing is enforced. Where users can be known, of the blocks those alone count that mean them too.
pub fn decide_by_address(
    rules: &Snapshot,
    state: &LiveState,
    client: ClientIp,
    knows_users: bool,
    now: Now,
) -> Option<Decision> {
    if rules.mode != Mode::Enforce || state.allows.load().lookup(client.ip()).is_some() {
        return None;
    }
    let block = match knows_users {
        true => state.blocks.find_for_users(client, now),
        false => state.blocks.find(client, now),
    };
    let verdict = match block {
        Some(id) => Verdict::Block(id),
        None => {
            let feeds = state.feeds.load();
            let listed = feeds.find(client.ip()).filter(|feed| feed.mode == Mode::Enforce)?;
            Verdict::Feed(Arc::clone(&listed.name))
        }
    };
    Some(Decision { verdict, mode: Mode::Enforce, permit: Permit::default() })
}

/// Judges one request.
pub fn decide(rules: &Snapshot, state: &LiveState, facts: &RequestFacts<'_>, now: Now) -> Decision {
    let decision = |verdict, mode| Decision { verdict, mode, permit: Permit::default() };

    if let Some(&allow) = state.allows.load().lookup(facts.client.ip()) {
        return decision(Verdict::Allow(allow), rules.mode);
    }
    if let Some(block) = find_block(state, facts, now) {
        return decision(Verdict::Block(block), rules.mode);
    }
    let caught = state.caught.find(facts, &state.parties, now);
    if let Some(hold) = caught.as_ref().filter(|hold| hold.mode == Mode::Enforce) {
        return decision(Verdict::Caught(Arc::clone(&hold.rule)), rules.mode);
    }
    let feeds = state.feeds.load();
    let listed = feeds.find(facts.client.ip());
    if let Some(feed) = listed.filter(|feed| feed.mode == Mode::Enforce) {
        return decision(Verdict::Feed(Arc::clone(&feed.name)), rules.mode);
    }
    if let Some(identity) = facts.identity {
        state.crowds.note(facts.client, identity, now.monotonic_ms);
        state.parties.user_is_here(facts.client, identity);
    }
    let denial = access::denial(rules, facts);
    if let Some(rule) = denial.filter(|rule| rule.mode == Mode::Enforce) {
        return decision(Verdict::Deny(Arc::clone(rule)), rules.mode);
    }
    let (limit, permit) = limits::count(rules, state, facts, now.monotonic_ms);
    let limit = limit.map(|hit| (rules.mode.and(hit.rule.mode), hit));
    // What is in dry-run only speaks when nothing that is enforced refuses.
    let (verdict, mode) = match (limit, caught, denial, listed) {
        (Some((Mode::Enforce, hit)), ..) => (Verdict::Limit(hit), Mode::Enforce),
        (_, Some(Hold { rule, .. }), ..) => (Verdict::Caught(rule), Mode::DryRun),
        (_, None, Some(rule), _) => (Verdict::Deny(Arc::clone(rule)), Mode::DryRun),
        (_, None, None, Some(feed)) => (Verdict::Feed(Arc::clone(&feed.name)), Mode::DryRun),
        (Some((Mode::DryRun, hit)), None, None, None) => (Verdict::Limit(hit), Mode::DryRun),
        (None, None, None, None) => (Verdict::Admit, rules.mode),
    };
    Decision { verdict, mode, permit }
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

impl LiveState {
    /// The block that ends what a client has open: of its address, or of the verified user that it is.
    pub fn blocked(&self, client: ClientIp, identity: Option<&Identity>, now: Now) -> Option<i64> {
        match identity {
            None => self.blocks.find(client, now),
            Some(user) => self.blocks.find_for_users(client, now).or_else(|| self.parties.of_user(user, now)),
        }
    }
}

impl Decision {
    /// Whether the request goes to the upstream.
    pub fn is_served(&self) -> bool {
        match (&self.verdict, self.mode) {
            (Verdict::Admit | Verdict::Allow(_), _) => true,
            (
                Verdict::Block(_)
                | Verdict::Feed(_)
                | Verdict::Caught(_)
                | Verdict::Deny(_)
                | Verdict::Limit(_),
                mode,
            ) => mode == Mode::DryRun,
        }
    }

    /// The verdict and the reason as the log and the metrics have them.
    pub fn kind(&self) -> VerdictKind {
        match (&self.verdict, self.mode) {
            (Verdict::Admit, _) => VerdictKind::Admitted,
            (Verdict::Allow(_), _) => VerdictKind::Allowed,
            (Verdict::Block(_) | Verdict::Feed(_) | Verdict::Caught(_) | Verdict::Deny(_), Mode::Enforce) => {
                VerdictKind::Blocked
            }
            (Verdict::Block(_) | Verdict::Feed(_) | Verdict::Caught(_) | Verdict::Deny(_), Mode::DryRun) => {
                VerdictKind::WouldBlock
            }
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
            Verdict::Deny(rule) => Reason::Access(Arc::clone(&rule.name)),
            Verdict::Feed(name) => Reason::Feed(Arc::clone(name)),
            Verdict::Caught(rule) => Reason::Caught(Arc::clone(rule)),
            Verdict::Limit(hit) => {
                let rule = Arc::clone(&hit.rule.name);
                match hit.exhausted {
                    Exhausted::Rate => Reason::Limit(rule),
                    Exhausted::SharedRate(prefix) => Reason::SharedLimit(rule, prefix),
                    Exhausted::Burst => Reason::Burst(rule),
                    Exhausted::Concurrency => Reason::Concurrency(rule),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AccessAction, BlockChange, LimitRule, RequestMatch};
    use ipnet::IpNet;
    use std::time::Duration;

    use portcullis_model::{Party, UnixMs, normalise_path};

    const NOW: Now = Now { wall: UnixMs(1_000_000), monotonic_ms: 1_000_000 };

    fn posts_to(paths: &[&str]) -> RequestMatch {
        RequestMatch {
            paths: paths.iter().map(|p| p.parse().unwrap()).collect(),
            methods: vec!["POST".into()],
            ..RequestMatch::default()
        }
    }

    fn limit(name: &str, rate: &str, paths: &[&str], mode: Mode) -> Arc<LimitRule> {
        let rule = LimitRule::per_client(name, rate.parse().unwrap());
        Arc::new(LimitRule { mode, applies_to: posts_to(paths), ..rule })
    }

    fn deny(name: &str, paths: &[&str], mode: Mode) -> Arc<AccessRule> {
        let action = AccessAction::Deny;
        Arc::new(AccessRule { name: name.into(), action, mode, applies_to: posts_to(paths) })
    }

    fn enforcing(limits: Vec<Arc<LimitRule>>) -> Snapshot {
        Snapshot { limits, ..Snapshot::default() }
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
        let rules = enforcing(vec![limit("all", "1/1h", &[], Mode::Enforce)]);
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
    fn an_address_decides_where_it_does_not_matter_whose_the_request_is() {
        let state = state(&[("198.51.100.0/24", 1)], &[("198.51.100.7/32", 9)]);
        let spares = BlockChange::Add {
            network: "192.0.2.1/32".parse().unwrap(),
            id: 2,
            expires_at: None,
            spares_users: true,
        };
        state.blocks.apply([spares], NOW);
        let listed: crate::AddressRanges = ["203.0.113.0/24".parse::<IpNet>().unwrap()].into_iter().collect();
        let feed = |mode| {
            let feed = crate::Feed { name: "drop".into(), mode, addresses: Arc::new(listed.clone()) };
            Arc::new(Feeds::new([Arc::new(feed)]))
        };
        state.feeds.store(feed(Mode::Enforce));
        let rules = Snapshot::default();
        let ask = |client: &str, knows_users| {
            let decision = decide_by_address(&rules, &state, client.parse().unwrap(), knows_users, NOW);
            decision.map(|decision| (decision.is_served(), decision.verdict))
        };
        for knows_users in [true, false] {
            assert_eq!(ask("198.51.100.9", knows_users), Some((false, Verdict::Block(1))));
            assert_eq!(ask("203.0.113.9", knows_users), Some((false, Verdict::Feed("drop".into()))));
            assert_eq!(ask("198.51.100.7", knows_users), None, "an allow");
            assert_eq!(ask("192.0.2.2", knows_users), None);
        }
        assert_eq!(ask("192.0.2.1", true), None, "the detector spares users");
        assert_eq!(ask("192.0.2.1", false), Some((false, Verdict::Block(2))));
        state.feeds.store(feed(Mode::DryRun));
        assert_eq!(ask("203.0.113.9", true), None);
        let dry = Snapshot { mode: Mode::DryRun, ..Snapshot::default() };
        let client = "198.51.100.9".parse().unwrap();
        assert!(decide_by_address(&dry, &state, client, false, NOW).is_none());
    }

    #[test]
    fn limits_of_an_address_grow_with_its_users_and_those_of_a_user_do_not() {
        let per_user = LimitRule {
            key: crate::LimitKey::User,
            ..LimitRule::per_client("user", "2/1h".parse().unwrap())
        };
        let rules = enforcing(vec![limit("login", "3/1h", &["/login"], Mode::Enforce), Arc::new(per_user)]);
        let state = state(&[], &[]);
        let client: ClientIp = "192.0.2.1".parse().unwrap();
        let visit = |n: usize| {
            let identity =
                Identity { user: Some(format!("user-{n}").into()), roles: Vec::new(), session: None };
            let facts = RequestFacts::new(client, "GET", "example.com", "/".into());
            // A new one every six seconds.
            let now = Now { monotonic_ms: NOW.monotonic_ms + n as u64 * 6_000, ..NOW };
            decide(&rules, &state, &RequestFacts { identity: Some(&identity), ..facts }, now).is_served()
        };
        assert!((0..20).all(visit) && visit(20) && visit(20) && !visit(20), "two an hour of each user");
        let now = Now { monotonic_ms: NOW.monotonic_ms + 200_000, ..NOW };
        let times = state.crowds.times(client, now.monotonic_ms);
        assert!((10..=24).contains(&times), "{times}");
        let facts = RequestFacts::new(client, "POST", "example.com", "/login".into());
        let logins = (0..200).filter(|_| limits::count(&rules, &state, &facts, now.monotonic_ms).0.is_none());
        assert_eq!(logins.count() as u32, 2 * times, "the stricter of the two rules, for so many clients");
        let other = RequestFacts { client: "192.0.2.2".parse().unwrap(), ..facts };
        let logins = (0..9).filter(|_| limits::count(&rules, &state, &other, now.monotonic_ms).0.is_none());
        assert_eq!(logins.count(), 2, "the next address has a limit of its own");
    }

    #[test]
    fn who_was_just_caught_is_refused_unless_allowed_and_in_dry_run_leaves_the_limits_to_speak() {
        let rules = enforcing(vec![limit("all", "2/1h", &[], Mode::Enforce)]);
        let state = state(&[("203.0.113.8/32", 4)], &[("203.0.113.7/32", 9)]);
        let hold = |client: &str, mode| {
            let network = format!("{client}/32").parse().unwrap();
            let hold = Hold { rule: "path_probing".into(), mode };
            assert!(state.caught.hold(&crate::Culprit::Address(network), hold, Duration::from_secs(9), NOW));
        };
        for client in ["203.0.113.7", "203.0.113.8", "203.0.113.9"] {
            hold(client, Mode::Enforce);
        }
        let hit = post(&rules, &state, "203.0.113.9", "/");
        assert_eq!((hit.kind(), hit.is_served()), (VerdictKind::Blocked, false));
        assert_eq!(hit.reason(), Reason::Caught("path_probing".into()));
        assert_eq!(post(&rules, &state, "203.0.113.7", "/").verdict, Verdict::Allow(9));
        assert_eq!(post(&rules, &state, "203.0.113.8", "/").verdict, Verdict::Block(4), "a block says more");
        assert_eq!(post(&rules, &state, "198.51.100.9", "/").verdict, Verdict::Admit);
        hold("203.0.113.10", Mode::DryRun);
        let kinds: Vec<_> = (0..3).map(|_| post(&rules, &state, "203.0.113.10", "/").kind()).collect();
        assert_eq!(kinds, [VerdictKind::WouldBlock, VerdictKind::WouldBlock, VerdictKind::Limited]);
        let all_in_dry_run = Snapshot { mode: Mode::DryRun, ..Snapshot::default() };
        let would = post(&all_in_dry_run, &state, "203.0.113.9", "/");
        assert_eq!((would.kind(), would.is_served()), (VerdictKind::WouldBlock, true));
    }

    #[test]
    fn a_feed_blocks_whom_no_allow_lets_in_and_in_dry_run_leaves_the_limits_to_speak() {
        let list = |mode| {
            let addresses: crate::AddressRanges =
                std::iter::once("203.0.113.0/24".parse::<IpNet>().unwrap()).collect();
            let addresses = Arc::new(addresses);
            Arc::new(Feeds::new([Arc::new(crate::Feed { name: "drop".into(), mode, addresses })]))
        };
        let rules = enforcing(vec![limit("all", "2/1h", &[], Mode::Enforce)]);
        let state = state(&[("203.0.113.8/32", 4)], &[("203.0.113.7/32", 9)]);
        state.feeds.store(list(Mode::Enforce));
        let hit = post(&rules, &state, "203.0.113.9", "/");
        assert_eq!(
            (hit.kind(), hit.reason(), hit.is_served()),
            (VerdictKind::Blocked, Reason::Feed("drop".into()), false)
        );
        assert_eq!(post(&rules, &state, "203.0.113.7", "/").verdict, Verdict::Allow(9));
        assert_eq!(post(&rules, &state, "203.0.113.8", "/").verdict, Verdict::Block(4));
        assert_eq!(post(&rules, &state, "198.51.100.9", "/").verdict, Verdict::Admit);
        state.feeds.store(list(Mode::DryRun));
        let kinds: Vec<_> = (0..3).map(|_| post(&rules, &state, "203.0.113.10", "/").kind()).collect();
        assert_eq!(kinds, [VerdictKind::WouldBlock, VerdictKind::WouldBlock, VerdictKind::Limited]);
    }

    #[test]
    fn the_fourth_login_is_limited_however_it_is_spelt() {
        let rules = enforcing(vec![limit("login", "3/5m", &["/login"], Mode::Enforce)]);
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
        let limits = vec![limit("login", "1/5m", &["/login"], Mode::Enforce)];
        let rules = Snapshot { mode: Mode::DryRun, ..enforcing(limits) };
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
        let rules = enforcing(limits);
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
        let rules = enforcing(limits);
        let state = state(&[], &[]);
        for _ in 0..20 {
            post(&rules, &state, "192.0.2.1", "/login");
        }
        let served = (0..10).filter(|_| post(&rules, &state, "192.0.2.1", "/").is_served()).count();
        assert_eq!(served, 4, "one login and four others make five");
    }

    #[test]
    fn a_denial_comes_after_blocks_and_before_limits() {
        let access = vec![deny("no-admin", &["/admin"], Mode::Enforce)];
        let rules = Snapshot { access, ..enforcing(vec![limit("all", "1/1h", &[], Mode::Enforce)]) };
        let state = state(&[("192.0.2.66/32", 4)], &[("192.0.2.77/32", 5)]);
        for _ in 0..3 {
            let denied = post(&rules, &state, "192.0.2.1", "/%61dmin");
            let why = (denied.kind(), denied.reason(), denied.is_served());
            assert_eq!(why, (VerdictKind::Blocked, Reason::Access("no-admin".into()), false));
        }
        assert!(post(&rules, &state, "192.0.2.1", "/").is_served(), "a denied request is not counted");
        assert_eq!(post(&rules, &state, "192.0.2.66", "/admin").reason(), Reason::Block(4));
        assert_eq!(post(&rules, &state, "192.0.2.77", "/admin").reason(), Reason::Allow(5));
    }

    #[test]
    fn a_denial_in_dry_run_is_recorded_and_lifts_no_limit() {
        let access = vec![deny("tried", &[], Mode::DryRun)];
        let rules = Snapshot { access, ..enforcing(vec![limit("all", "1/1h", &[], Mode::Enforce)]) };
        let state = state(&[], &[]);
        let first = post(&rules, &state, "192.0.2.1", "/");
        let why = (first.kind(), first.reason(), first.is_served());
        assert_eq!(why, (VerdictKind::WouldBlock, Reason::Access("tried".into()), true));
        assert_eq!(post(&rules, &state, "192.0.2.1", "/").kind(), VerdictKind::Limited);
    }

    #[test]
    fn of_the_limits_that_refuse_the_strictest_answers() {
        let limits = vec![
            limit("minute", "1/1m", &[], Mode::Enforce),
            limit("hour", "1/1h", &[], Mode::Enforce),
            limit("second", "1/1s", &[], Mode::Enforce),
            limit("shadow", "1/1d", &[], Mode::DryRun),
        ];
        let (rules, state) = (enforcing(limits), state(&[], &[]));
        assert!(post(&rules, &state, "192.0.2.1", "/").is_served());
        let Verdict::Limit(hit) = post(&rules, &state, "192.0.2.1", "/").verdict else {
            panic!("the second must be refused")
        };
        assert_eq!((&*hit.rule.name, hit.retry_after.as_millis()), ("hour", 3_600_001));
    }

    #[test]
    fn a_limit_of_concurrency_holds_until_the_request_ends_and_counts_nothing_when_it_refuses() {
        let at_once =
            LimitRule { concurrency: Some(1), ..LimitRule::clone(&limit("one", "2/1h", &[], Mode::Enforce)) };
        let (rules, state) = (enforcing(vec![Arc::new(at_once)]), state(&[], &[]));
        let first = post(&rules, &state, "192.0.2.1", "/");
        assert!(first.is_served() && post(&rules, &state, "192.0.2.2", "/").is_served());
        for _ in 0..5 {
            let second = post(&rules, &state, "192.0.2.1", "/");
            let why = (second.kind(), second.reason());
            assert_eq!(why, (VerdictKind::Limited, Reason::Concurrency("one".into())));
        }
        drop(first);
        assert!(
            post(&rules, &state, "192.0.2.1", "/").is_served(),
            "the refused ones took nothing of the rate"
        );
        assert_eq!(post(&rules, &state, "192.0.2.1", "/").reason(), Reason::Limit("one".into()));
        assert_eq!(state.under_way.subjects(), 0);
    }

    #[test]
    fn a_request_that_another_limit_refuses_is_not_under_way() {
        let export = LimitRule {
            rate: None,
            concurrency: Some(5),
            ..LimitRule::per_client("export", "1/1h".parse().unwrap())
        };
        let limits = vec![Arc::new(export), limit("all", "1/1h", &[], Mode::Enforce)];
        let (rules, state) = (enforcing(limits), state(&[], &[]));
        let served = post(&rules, &state, "192.0.2.1", "/");
        let refused = post(&rules, &state, "192.0.2.1", "/");
        assert_eq!((refused.reason(), state.under_way.subjects()), (Reason::Limit("all".into()), 1));
        drop(served);
        assert_eq!(state.under_way.subjects(), 0, "although the refusal is still held");
    }
}
