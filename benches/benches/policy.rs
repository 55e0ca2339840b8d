//! What one decision costs: the lists with a million entries each, a limit, the path, the client's address.
//!
//! Owns micro-benchmarks only; what a whole request costs is `side_by_side`'s question.
//!
//! `cargo bench -p portcullis-benches --bench policy`

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use ipnet::IpNet;
use portcullis_benches::lists;
use portcullis_model::{ClientIp, UnixMs, normalise_path};
use portcullis_policy::{
    BlockChange, ClientIpSource, LimitRule, Limiter, LiveState, Now, PrefixSet, RequestFacts, Snapshot,
    Subject, client_ip, decide,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const MILLION: usize = 1_000_000;
const START: Now = Now { wall: UnixMs(1_800_000_000_000), monotonic_ms: 1_000_000 };

fn clients() -> Vec<ClientIp> {
    lists::clients(lists::CLIENTS).into_iter().map(|address| ClientIp::new(IpAddr::V4(address))).collect()
}

/// One client after the other, so that no look-up finds its neighbourhood in the cache already.
fn in_turn(clients: &[ClientIp]) -> impl FnMut() -> ClientIp {
    let mut next = clients.iter().cycle().copied();
    move || next.next().unwrap_or_else(|| ClientIp::new(IpAddr::V4(Ipv4Addr::LOCALHOST)))
}

fn state(blocks: impl IntoIterator<Item = IpNet>) -> LiveState {
    let state = LiveState::default();
    let add = |(id, network)| BlockChange::Add { network, id, expires_at: None, spares_users: false };
    state.blocks.apply((1..).zip(blocks).map(add), START);
    state
}

fn rule() -> Arc<LimitRule> {
    let rate = match "10000000/1m".parse() {
        Ok(rate) => rate,
        Err(error) => panic!("{error}"),
    };
    Arc::new(LimitRule::per_client("every-request", rate))
}

fn facts(client: ClientIp) -> RequestFacts<'static> {
    RequestFacts::new(client, "GET", "example.com", "/p/1".into())
}

fn decisions(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decide");
    let clients = clients();
    let unlimited = Snapshot::default();
    let limited = Snapshot { limits: vec![rule()], ..Snapshot::default() };
    let empty = LiveState::default();
    let large = state(lists::addresses(MILLION).into_iter().chain(lists::prefixes(MILLION)));

    for (name, rules, state) in [
        ("no blocks, no limit", &unlimited, &empty),
        ("2 million blocks, no limit", &unlimited, &large),
        ("2 million blocks, one limit", &limited, &large),
    ] {
        let mut client = in_turn(&clients);
        group.bench_function(name, |b| b.iter(|| decide(rules, state, black_box(&facts(client())), START)));
    }
    let blocked: Vec<ClientIp> =
        lists::addresses(lists::CLIENTS).into_iter().map(|network| ClientIp::new(network.addr())).collect();
    let blocked_state = state(lists::addresses(MILLION));
    let mut client = in_turn(&blocked);
    group.bench_function("a client that may be blocked, among a million", |b| {
        b.iter(|| decide(&limited, &blocked_state, black_box(&facts(client())), START));
    });
    group.finish();
}

fn limits(criterion: &mut Criterion) {
    let limiter = Limiter::default();
    let rule = rule();
    let v4 = clients();
    // Their /56 and /48 are counted too, sixteen clients to each /56.
    let site = |n: u128| Ipv6Addr::from_bits(0x2001_0db8 << 96 | (n >> 4) << 72 | (n & 15) << 64);
    let v6 = (0..lists::CLIENTS as u128).map(|n| ClientIp::new(IpAddr::V6(site(n)))).collect();
    let mut now_ms = START.monotonic_ms;
    for (name, clients) in [("50,000", v4), ("50,000 IPv6", v6)] {
        let mut client = in_turn(&clients);
        criterion.bench_function(&format!("limiter, {name} clients in turn"), |b| {
            b.iter(|| {
                now_ms += 1;
                limiter.admit(black_box(&rule), &Subject::Client(client().limit_key()), now_ms)
            });
        });
    }
}

fn texts(criterion: &mut Criterion) {
    for (name, path) in [
        ("normalise, plain", &b"/catalogue/section-7/item-123.html"[..]),
        ("normalise, disguised", b"//Catalogue/./%73ection-7/x/../item-123.html"),
    ] {
        criterion.bench_function(name, |b| b.iter(|| normalise_path(black_box(path)).len()));
    }
    let trusted: PrefixSet<IpNet> =
        ["127.0.0.0/8", "10.0.0.0/8"].iter().filter_map(|n| n.parse().ok()).map(|n: IpNet| (n, n)).collect();
    let peer = ClientIp::new(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let line: &[u8] = b"203.0.113.9, 198.51.100.77, 10.0.0.3";
    criterion.bench_function("client_ip, three hops", |b| {
        b.iter(|| client_ip(peer, &trusted, &ClientIpSource::XForwardedFor, [black_box(line)].into_iter()));
    });
}

criterion_group!(policy, decisions, limits, texts);
criterion_main!(policy);
