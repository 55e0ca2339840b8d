//! The engine under hostile and odd input: any texts, any times, any number of clients; the same input always gives
//! the same alarms, and what others do changes nothing about a client.

use std::sync::Arc;

use crate::support::request;
use portcullis_detect::{Alarm, BotStatus, Engine, Observation, Settings, Signatures};
use portcullis_model::{ClientIp, Finding, LoginOutcome, UnixMs, VerdictKind};
use proptest::prelude::*;

/// One request, owned.
#[derive(Clone, Debug)]
struct Owned {
    time: i64,
    client: u8,
    path: String,
    query: String,
    agent: String,
    method: &'static str,
    status: u16,
    user: &'static str,
    referer: &'static str,
    verdict: VerdictKind,
    login: Option<LoginOutcome>,
    bot: BotStatus,
}

fn address(client: u8) -> ClientIp {
    let text = match client % 3 {
        0 => format!("2001:db8:0:{client:x}::{client:x}"),
        _ => format!("192.0.2.{client}"),
    };
    text.parse().expect("an address")
}

fn observe(engine: &Engine, owned: &Owned) -> Option<Alarm> {
    engine.observe(&Observation {
        time: UnixMs(owned.time),
        client: address(owned.client),
        path: &owned.path,
        query: &owned.query,
        user_agent: &owned.agent,
        method: owned.method,
        status: owned.status,
        user: owned.user,
        referer: owned.referer,
        verdict: owned.verdict,
        login: owned.login,
        bot: owned.bot,
        ..request("192.0.2.1", 0)
    })
}

fn path() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => (0..400_u32).prop_map(|n| format!("/page-{n}")),
        1 => prop::sample::select(vec![
            "/.env", "/.git/config", "/wp-login.php", "/xmlrpc.php", "/admin", "/login", "/phpmyadmin/",
            "/wso.php", "/c99.php", "/x/../../../../etc/passwd", "/backup.zip", "/style.css",
        ]).prop_map(str::to_owned),
        1 => ".{0,40}",
    ]
}

prop_compose! {
    fn any_request(clients: u8, times: std::ops::Range<i64>)(
        time in times,
        client in 0..clients,
        path in path(),
        query in prop::sample::select(vec!["", "", "id=1+union+select+2", "q=<script>", "file=../../../etc/passwd"]),
        agent in prop::sample::select(vec!["Mozilla/5.0", "sqlmap/1.8", "Examplebot", "", "curl/8"]),
        method in prop::sample::select(vec!["GET", "POST", "HEAD"]),
        status in prop::sample::select(vec![200_u16, 200, 301, 401, 403, 404, 404, 404, 500, 0]),
        user in prop::sample::select(vec!["", "", "", "anna", "session:1234"]),
        referer in prop::sample::select(vec!["", "https://example.com/"]),
        verdict in prop::sample::select(vec![
            VerdictKind::Admitted, VerdictKind::Admitted, VerdictKind::Admitted, VerdictKind::Limited,
            VerdictKind::Blocked, VerdictKind::Malformed,
        ]),
        login in prop::sample::select(vec![None, None, None, Some(LoginOutcome::Failed), Some(LoginOutcome::Succeeded)]),
        bot in prop::sample::select(vec![BotStatus::None, BotStatus::None, BotStatus::Claimed, BotStatus::False]),
    ) -> Owned {
        Owned {
            time, client, path, query: query.to_owned(), agent: agent.to_owned(), method, status, user, referer,
            verdict, login, bot,
        }
    }
}

fn signatures() -> Arc<Signatures> {
    Arc::new(Signatures::builtin())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_same_requests_give_the_same_alarms(
        mut requests in prop::collection::vec(any_request(12, 0..9_000_000), 1..400),
        max_clients in prop::sample::select(vec![1_usize, 3, 1_000, 100_000]),
    ) {
        requests.sort_by_key(|request| request.time);
        let signatures = signatures();
        let settings = Settings { max_clients, ..Settings::default() };
        let engines = [(); 2].map(|()| Engine::new(&settings, Arc::clone(&signatures)));
        for request in &requests {
            prop_assert_eq!(observe(&engines[0], request), observe(&engines[1], request));
        }
        prop_assert!(engines[0].clients() <= max_clients);
        prop_assert_eq!(engines[0].clients(), engines[1].clients());
    }

    #[test]
    fn what_others_do_changes_no_findings_of_a_client(
        mut requests in prop::collection::vec(any_request(6, 0..20_000_000), 1..400),
        swaps in prop::collection::vec(0..400_usize, 0..400),
    ) {
        requests.sort_by_key(|request| request.time);
        let signatures = signatures();
        let found = |requests: &[Owned], only: Option<u8>| -> Vec<Finding> {
            let engine = Engine::new(&Settings::default(), Arc::clone(&signatures));
            let mine = requests.iter().filter(|request| only.is_none_or(|client| client == request.client));
            mine.filter_map(|request| observe(&engine, request)).map(|alarm| alarm.finding).collect()
        };
        let in_order = found(&requests, None);
        // Records of different clients come a little out of order.
        let mut shuffled = requests.clone();
        for swap in swaps {
            if let Some([a, b]) = shuffled.get_mut(swap..swap + 2)
                && a.client != b.client
                && (a.time - b.time).abs() < 60_000
            {
                std::mem::swap(a, b);
            }
        }
        let out_of_order = found(&shuffled, None);
        for client in 0..6 {
            let about = |all: &[Finding]| -> Vec<Finding> {
                let key = address(client).limit_key();
                all.iter().filter(|finding| finding.client.limit_key() == key).cloned().collect()
            };
            prop_assert_eq!(about(&in_order), about(&out_of_order));
            prop_assert_eq!(about(&in_order), found(&requests, Some(client)));
        }
    }

    #[test]
    fn times_that_jump_are_survived(
        requests in prop::collection::vec(any_request(4, 0..9_000_000), 1..200),
        times in prop::collection::vec(
            prop_oneof![
                Just(i64::MIN), Just(i64::MAX), Just(0), -10_000_000..10_000_000_i64, any::<i64>(),
            ],
            200,
        ),
    ) {
        let engine = Engine::new(&Settings::default(), signatures());
        for (request, time) in requests.iter().zip(times) {
            observe(&engine, &Owned { time, ..request.clone() });
        }
        prop_assert!(engine.clients() <= 12);
    }
}

#[test]
fn huge_and_empty_texts_give_bounded_findings() {
    let huge = ["", "/", "%", "../", "é", "<script>", "\u{0}"]
        .map(|piece| if piece.is_empty() { String::new() } else { piece.repeat(65_536 / piece.len()) });
    let engine = Engine::new(&Settings::default(), signatures());
    let mut largest = 0;
    for (n, path) in huge.iter().enumerate() {
        for (m, query) in huge.iter().enumerate() {
            let alarm = engine.observe(&Observation {
                time: UnixMs((n * 10 + m) as i64),
                path,
                query,
                user_agent: query,
                referer: path,
                method: path,
                user: if m % 2 == 0 { "" } else { query },
                status: 404,
                bytes_out: u64::MAX,
                ..request("192.0.2.1", 0)
            });
            largest = largest.max(alarm.map_or(0, |alarm| {
                // The name of a user is as long as the caller lets it be.
                let finding = Finding { user: None, ..alarm.finding };
                finding.details["rules"].to_string().len()
            }));
        }
    }
    assert!(largest > 0 && largest < 100_000, "{largest}");
}

#[test]
fn a_flood_of_clients_stays_within_the_bound() {
    const MOST: usize = 1_000;
    let engine = Engine::new(&Settings { max_clients: MOST, ..Settings::default() }, signatures());
    let attacker = "203.0.113.9";
    assert!(engine.observe(&Observation { path: "/.env", status: 404, ..request(attacker, 0) }).is_some());
    for n in 0..60_000_u32 {
        let client = ClientIp::new(std::net::Ipv4Addr::from_bits(0x0A00_0000 + n).into());
        engine.observe(&Observation {
            client,
            path: "/",
            time: UnixMs(i64::from(n)),
            ..request(attacker, 0)
        });
    }
    assert!(engine.clients() <= MOST, "{}", engine.clients());
    assert_eq!(
        engine.observe(&Observation { path: "/.env", status: 404, ..request(attacker, 1_000) }),
        None,
        "whom something is held against is not forgotten for passers-by"
    );
}
