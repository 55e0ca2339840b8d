//! The limiter against exact counts, in bounded memory, whatever the order of requests and refunds.

use super::*;
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::AtomicU32;

pub(super) fn rule(count: u32, seconds: u64) -> LimitRule {
    let rate = Rate::new(count, Duration::from_secs(seconds)).unwrap();
    LimitRule::per_client(&format!("{count}/{seconds}"), rate)
}

pub(super) fn ip(n: u32) -> Subject<'static> {
    Subject::Client(IpAddr::V4(Ipv4Addr::from_bits(n)))
}

pub(super) fn admitted(limiter: &Limiter, rule: &LimitRule, client: u32, now_ms: u64) -> bool {
    matches!(limiter.admit(rule, &ip(client), now_ms), Admission::Admitted { .. })
}

#[test]
fn the_fourth_login_within_five_minutes_waits_until_the_first_is_out() {
    let (limiter, login) = (Limiter::default(), rule(3, 300));
    for (n, now) in [0, 10_000, 20_000].into_iter().enumerate() {
        let remaining = 2 - n as u32;
        assert_eq!(limiter.admit(&login, &ip(1), now), Admission::Admitted { remaining });
    }
    let Admission::Refused { retry_after, exhausted: Exhausted::Rate } =
        limiter.admit(&login, &ip(1), 30_000)
    else {
        panic!("the fourth must be refused")
    };
    assert_eq!(retry_after, Duration::from_millis(270_001));
    assert!(!admitted(&limiter, &login, 1, 300_000));
    assert!(admitted(&limiter, &login, 1, 30_000 + 270_001));
    assert!(admitted(&limiter, &login, 2, 30_000), "another client has its own window");
}

#[test]
fn a_refund_makes_room_again() {
    let (limiter, one) = (Limiter::default(), rule(2, 60));
    for now in 0..5 {
        assert!(admitted(&limiter, &one, 1, now));
        assert!(admitted(&limiter, &one, 1, now));
        assert!(!admitted(&limiter, &one, 1, now));
        limiter.refund(&one, &ip(1), now);
        limiter.refund(&one, &ip(1), now);
    }
    assert_eq!(limiter.stats().keys, 0);
}

#[test]
fn concurrent_requests_admit_exactly_the_limit() {
    let (limiter, shared) = (Limiter::default(), rule(100, 60));
    let through = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for thread in 0..8_u64 {
            let (limiter, shared, through) = (&limiter, &shared, &through);
            scope.spawn(move || {
                for n in 0..500 {
                    if admitted(limiter, shared, 7, thread + n) {
                        through.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    assert_eq!(through.into_inner(), 100);
}

#[test]
fn a_flood_of_addresses_stays_in_memory_and_frees_nobody() {
    let (limiter, tight, wide) = (Limiter::default(), rule(3, 300), rule(600, 300));
    for now in 0..3 {
        assert!(admitted(&limiter, &tight, 1, now));
    }
    for n in 0..400 {
        assert!(admitted(&limiter, &wide, 2, n * 10));
    }
    for n in 0..3_000_000_u32 {
        assert!(admitted(&limiter, &tight, 1_000 + n, 5_000), "a client that was never seen is admitted");
    }
    assert!(!admitted(&limiter, &tight, 1, 6_000), "a client at its limit is not forgotten");
    let stats = limiter.stats();
    assert!(stats.bytes <= 64 << 20, "{stats:?}");
    assert!(stats.evictions > 1_000_000, "{stats:?}");
    (0..SHARDS).for_each(|_| limiter.sweep(10_000_000));
    assert_eq!(limiter.stats().keys, 0);
}

#[test]
fn lists_are_coarsened_when_their_memory_is_used_up() {
    let (limiter, wide) = (Limiter::default(), rule(256, 3_600));
    for client in 0..40_000 {
        for n in 0..130_u64 {
            assert!(admitted(&limiter, &wide, client, n * 1_000), "below the limit everybody is admitted");
        }
    }
    let stats = limiter.stats();
    assert!(stats.bytes <= 64 << 20, "{stats:?}");
}

/// The /64 number `n` of a /48.
fn site(site: u16, n: u16) -> Subject<'static> {
    Subject::Client(Ipv6Addr::new(0x2001, 0xdb8, site, n, 0, 0, 0, 0).into())
}

#[test]
fn rotation_gains_eight_limits_in_a_56_and_64_in_a_48() {
    let (limiter, login) = (Limiter::default(), rule(3, 300));
    let through = |addresses: &mut dyn Iterator<Item = Subject<'static>>, now| {
        addresses
            .filter(|client| matches!(limiter.admit(&login, client, now), Admission::Admitted { .. }))
            .count()
    };
    assert_eq!(through(&mut (0..256).map(|n| site(1, n)), 0), 3 * 8, "one /56");
    assert_eq!(through(&mut (0..=u16::MAX).map(|n| site(1, n)), 1), 3 * 64 - 3 * 8, "the rest of the /48");
    let refused = limiter.admit(&login, &site(1, 0xff00), 2);
    assert!(
        matches!(refused, Admission::Refused { exhausted: Exhausted::SharedRate(SharedPrefix::Slash48), .. }),
        "{refused:?}"
    );
    assert_eq!(through(&mut std::iter::once(site(2, 0)), 3), 1, "the neighbour is another site");
    let Admission::Refused { retry_after, .. } = refused else { return };
    let then = 2 + retry_after.as_millis() as u64;
    assert_eq!(through(&mut std::iter::once(site(1, 0xff00)), then), 1, "who waits as told is let in");
}

#[test]
fn a_client_at_its_limit_takes_nothing_from_its_neighbours() {
    let (limiter, login) = (Limiter::default(), rule(3, 300));
    for now in 0..10_000 {
        limiter.admit(&login, &site(1, 0), now);
    }
    for n in 1..8 {
        for now in 10_000..10_003 {
            let admission = limiter.admit(&login, &site(1, n), now);
            assert!(matches!(admission, Admission::Admitted { .. }), "/64 number {n}: {admission:?}");
        }
    }
}

#[test]
fn a_refusal_of_a_shared_window_and_a_refund_count_nowhere() {
    let (limiter, one) = (Limiter::default(), rule(1, 60));
    for n in 0..8 {
        limiter.admit(&one, &site(1, n), 0);
    }
    let refused = limiter.admit(&one, &site(1, 8), 0);
    assert!(matches!(
        refused,
        Admission::Refused { exhausted: Exhausted::SharedRate(SharedPrefix::Slash56), .. }
    ));
    limiter.refund(&one, &site(1, 0), 0);
    assert_eq!(limiter.admit(&one, &site(1, 8), 0), Admission::Admitted { remaining: 0 });
    for n in 1..9 {
        limiter.refund(&one, &site(1, n), 0);
    }
    assert_eq!(limiter.stats().keys, 0);
}

#[test]
fn random_ipv6_clients_stay_in_memory_and_are_all_admitted() {
    let (limiter, wide) = (Limiter::default(), rule(60, 60));
    let mut random: u64 = 1;
    for n in 0..3_000_000_u64 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let key = 0x2001_0db8_u128 << 96 | u128::from(random >> 32) << 64;
        let admission = limiter.admit(&wide, &Subject::Client(Ipv6Addr::from_bits(key).into()), n / 100);
        assert!(matches!(admission, Admission::Admitted { .. }), "{admission:?}");
    }
    let stats = limiter.stats();
    assert!(stats.bytes <= 64 << 20, "{stats:?}");
}

fn refused(admission: Admission) -> (Exhausted, u128) {
    match admission {
        Admission::Refused { retry_after, exhausted } => (exhausted, retry_after.as_millis()),
        Admission::Admitted { .. } => panic!("must be refused"),
    }
}

#[test]
fn a_burst_is_a_second_window_and_the_longer_wait_answers() {
    let burst = Some(Rate::new(2, Duration::from_secs(1)).unwrap());
    let (limiter, rule) = (Limiter::default(), LimitRule { burst, ..rule(4, 60) });
    assert!(admitted(&limiter, &rule, 1, 0) && admitted(&limiter, &rule, 1, 10));
    assert_eq!(refused(limiter.admit(&rule, &ip(1), 20)), (Exhausted::Burst, 981));
    assert!(admitted(&limiter, &rule, 1, 1_001) && admitted(&limiter, &rule, 1, 1_012));
    assert_eq!(refused(limiter.admit(&rule, &ip(1), 1_020)), (Exhausted::Rate, 58_981), "both are used up");
    assert_eq!(limiter.peek(&rule, &ip(1), 1, 1_020), limiter.admit(&rule, &ip(1), 1_020));
}

#[test]
fn a_request_takes_what_it_costs_and_waits_until_that_fits() {
    let (limiter, rule) = (Limiter::default(), LimitRule { cost: 3, ..rule(10, 60) });
    for now in [0, 1_000, 2_000] {
        assert!(admitted(&limiter, &rule, 1, now));
    }
    assert_eq!(refused(limiter.admit(&rule, &ip(1), 3_000)), (Exhausted::Rate, 57_001), "2 left of 10");
    assert!(!admitted(&limiter, &rule, 1, 60_000) && admitted(&limiter, &rule, 1, 60_001));
    limiter.refund(&rule, &ip(1), 60_001);
    assert!(admitted(&limiter, &rule, 1, 60_001), "a refund gives the whole cost back");
}

#[test]
fn a_refund_leaves_the_younger_requests_of_others_in_place() {
    let (limiter, two) = (Limiter::default(), rule(2, 60));
    assert!(admitted(&limiter, &two, 1, 0) && admitted(&limiter, &two, 1, 5_000));
    limiter.refund(&two, &ip(1), 0);
    assert!(admitted(&limiter, &two, 1, 59_000));
    assert!(!admitted(&limiter, &two, 1, 60_500), "that of 5 s and that of 59 s are in the window");
    assert!(admitted(&limiter, &two, 1, 65_001));
}

#[test]
fn subjects_of_one_rule_are_counted_apart() {
    let (limiter, one) = (Limiter::default(), rule(1, 60));
    let ip: IpAddr = "2001:db8::".parse().unwrap();
    let subjects = [
        Subject::Client(ip),
        Subject::ClientAndPath(ip, "/a"),
        Subject::ClientAndPath(ip, "/b"),
        Subject::Prefix("2001:db8::/48".parse().unwrap()),
        Subject::User("alice"),
        Subject::Header(b"alice"),
        Subject::Session(1),
    ];
    for subject in &subjects {
        assert!(matches!(limiter.admit(&one, subject, 0), Admission::Admitted { .. }), "{subject}");
    }
    for subject in &subjects {
        assert!(matches!(limiter.admit(&one, subject, 0), Admission::Refused { .. }), "{subject}");
    }
}

#[test]
fn header_values_without_end_stay_in_memory_and_free_nobody() {
    let (limiter, one) = (Limiter::default(), rule(2, 300));
    for now in 0..2 {
        limiter.admit(&one, &Subject::Header(b"victim"), now);
    }
    for n in 0..2_000_000_u64 {
        limiter.admit(&one, &Subject::Header(&n.to_le_bytes()), 5_000);
    }
    assert!(limiter.stats().bytes <= 64 << 20);
    assert_eq!(refused(limiter.admit(&one, &Subject::Header(b"victim"), 6_000)).0, Exhausted::Rate);
}

/// What a request did: when, and whether it was taken back.
type Step = (u64, bool);

/// What requests of this cost took of the window that ends at `now`, by the times of those admitted.
fn taken(times: &[u64], cost: u32, period_ms: u64, now: u64) -> u32 {
    times.iter().filter(|&&time| time + period_ms >= now).count() as u32 * cost
}

proptest! {
    #[test]
    fn no_trailing_window_admits_more_whatever_requests_cost_and_whatever_is_taken_back(
        count in 1_u32..40,
        cost in 1_u32..6,
        burst in 1_u32..12,
        steps in prop::collection::vec((0_u64..90, prop::bool::weighted(0.2)), 1..700),
    ) {
        let cost = cost.min(count).min(burst);
        let burst_rate = (burst < count).then(|| Rate::new(burst, Duration::from_secs(1)).unwrap());
        let (limiter, rule) = (Limiter::default(), LimitRule { cost, burst: burst_rate, ..rule(count, 5) });
        let mut now = 0;
        let mut times: Vec<u64> = Vec::new();
        let steps: Vec<Step> = steps;
        for (gap, is_taken_back) in steps {
            now += gap;
            // One millisecond for the cut-off clock.
            let fits = |at: u64, slack: u64| {
                let room = |period_ms: u64, count: u32| taken(&times, cost, period_ms + slack, at) + cost <= count;
                room(5_000, count) && burst_rate.is_none_or(|_| room(1_000, burst))
            };
            match limiter.admit(&rule, &ip(9), now) {
                Admission::Admitted { .. } => {
                    prop_assert!(fits(now, 0), "one too many at {now}");
                    if is_taken_back {
                        limiter.refund(&rule, &ip(9), now);
                    } else {
                        times.push(now);
                    }
                }
                Admission::Refused { retry_after, .. } => {
                    prop_assert!(!fits(now, 1), "refused although there was room at {now}");
                    let then = now + retry_after.as_millis() as u64;
                    prop_assert!(fits(then, 0) && !fits(then - 1, 1), "who waits as told is let in, and no longer");
                }
            }
        }
    }

    #[test]
    fn a_late_refund_never_makes_room_too_early(
        count in 1_u32..10,
        steps in prop::collection::vec((0_u64..120, prop::option::weighted(0.3, 0_u64..40)), 1..400),
    ) {
        // As when another thread decides in between: the refund comes after younger requests were counted.
        let (limiter, rule) = (Limiter::default(), rule(count, 1));
        let mut now = 0;
        let mut times: Vec<u64> = Vec::new();
        let mut pending: Vec<(u64, u64)> = Vec::new();
        for (gap, taken_back_after) in steps {
            now += gap;
            for (_, at) in pending.extract_if(.., |(due, _)| *due <= now) {
                limiter.refund(&rule, &ip(9), at);
            }
            if let Admission::Admitted { .. } = limiter.admit(&rule, &ip(9), now) {
                match taken_back_after {
                    Some(after) => pending.push((now + after, now)),
                    None => {
                        prop_assert!(taken(&times, 1, 1_000, now) < count);
                        times.push(now);
                    }
                }
            }
        }
    }

    #[test]
    fn no_trailing_window_of_a_prefix_admits_more_than_its_share(
        count in 1_u32..5,
        gaps in prop::collection::vec((0_u64..60, 0_u16..20), 1..900),
    ) {
        let (limiter, rule) = (Limiter::default(), rule(count, 1));
        let mut now = 0;
        let mut times: Vec<u64> = Vec::new();
        for (gap, n) in gaps {
            now += gap;
            if let Admission::Admitted { .. } = limiter.admit(&rule, &site(1, n), now) {
                times.push(now);
                let inside = times.iter().filter(|&&t| t + 1_000 >= now).count();
                prop_assert!(inside <= count as usize * 8, "{inside}");
            }
        }
    }

    #[test]
    fn no_trailing_window_admits_one_more(
        count in prop_oneof![1_u32..20, 250_u32..300],
        seconds in 1_u64..4,
        gaps in prop::collection::vec(0_u64..120, 1..900),
    ) {
        let (limiter, rule) = (Limiter::default(), rule(count, seconds));
        let period = seconds * 1_000;
        let mut now = 0;
        let mut times: Vec<u64> = Vec::new();
        for gap in gaps {
            now += gap;
            let inside = times.iter().filter(|&&t| t + period >= now).count() as u32;
            // One millisecond for the cut-off clock; a 256th of the period above 256 requests.
            let slack = if count <= EXACT_COUNT { 1 } else { period.div_ceil(256) + 1 };
            let surely = times.iter().filter(|&&t| t + period + slack >= now).count() as u32;
            match limiter.admit(&rule, &ip(9), now) {
                Admission::Admitted { remaining } => {
                    prop_assert!(inside < count);
                    prop_assert!(remaining < count);
                    times.push(now);
                }
                Admission::Refused { retry_after, .. } => {
                    prop_assert!(surely >= count, "refused although there was room");
                    let after = now + retry_after.as_millis() as u64;
                    prop_assert!(times.iter().filter(|&&t| t + period >= after).count() < count as usize);
                }
            }
        }
    }
}
