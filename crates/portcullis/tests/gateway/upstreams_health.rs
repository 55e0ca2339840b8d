//! Servers that fail: who is left out, for how long, and what is asked when nobody is left.

use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use portcullis_testkit::{
    Gateway, GatewayConfig, RawUpstream, Refusing, Response, Upstream, eventually, eventually_within,
};

use crate::config;

/// An upstream with these servers and lines.
fn upstream(servers: &[&str], more: &str) -> GatewayConfig {
    let urls: Vec<String> = servers.iter().map(|url| format!("{url:?}")).collect();
    config().upstream_with(&format!("servers = [{}]\n{more}", urls.join(", ")))
}

fn healthy(gateway: &Gateway) -> f64 {
    gateway.metric("portcullis_upstream_healthy{upstream=\"app\"}")
}

fn posts(gateway: &Gateway, count: usize) -> Vec<u16> {
    (0..count).map(|_| gateway.client().post("/", "").status()).collect()
}

fn count(statuses: &[u16], wanted: u16) -> usize {
    statuses.iter().filter(|status| **status == wanted).count()
}

#[test]
fn a_server_that_fails_several_times_in_a_row_is_left_out() {
    let (bad, good) = (RawUpstream::resetting(), Upstream::start());
    let gateway =
        Gateway::start(upstream(&[&bad.url(), &good.url()], "max_fails = 2\nfail_timeout = \"10m\""));
    let statuses = posts(&gateway, 20);
    assert_eq!((count(&statuses, 502), count(&statuses, 200), bad.requests()), (2, 18, 2));
    assert!((0.5..1.5).contains(&healthy(&gateway)));
    let of = |name: &str, address: std::net::SocketAddr| {
        gateway.metric(&format!("portcullis_upstream_server_{name}{{upstream=\"app\",server=\"{address}\"}}"))
    };
    assert_eq!((of("up", bad.address()), of("failures_total", bad.address())), (0.0, 2.0));
    assert_eq!((of("up", good.address()), of("failures_total", good.address())), (1.0, 0.0));
    assert_eq!(of("active", good.address()), 0.0);
    assert!(gateway.stderr().contains("failed 2 times in a row"), "{}", gateway.stderr());
}

#[test]
fn a_server_that_refuses_costs_nobody_anything_and_comes_back() {
    let (nobody, good) = (Refusing::new(), Upstream::named("good"));
    let address = nobody.address();
    let lines = "max_fails = 1\nfail_timeout = \"300ms\"";
    let gateway = Gateway::start(upstream(&[&format!("http://{address}"), &good.url()], lines));
    assert_eq!(count(&posts(&gateway, 10), 200), 10);
    eventually("it is tried and left out", || {
        gateway.get("/");
        (healthy(&gateway) < 1.5).then_some(())
    });
    drop(nobody);
    let _back = Upstream::at("back", address);
    let name = |answer: &Response| answer.header("x-upstream").unwrap().to_owned();
    eventually("it is back", || (name(&gateway.get("/")) == "back").then_some(()));
    assert!(healthy(&gateway) > 1.5);
    let names: Vec<String> = (0..2).map(|_| name(&gateway.get("/"))).collect();
    assert_ne!(names[0], names[1], "it has its whole share again");
}

#[test]
fn a_server_that_is_restarted_under_load_fails_no_request_that_can_be_repeated() {
    let [mut restarted, good] = ["restarted", "good"].map(Upstream::named);
    let address = restarted.address();
    let lines = "max_fails = 1\nfail_timeout = \"100ms\"";
    let gateway = Gateway::start(upstream(&[&restarted.url(), &good.url()], lines));
    let (done, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = gateway.client();
                while !done.load(Ordering::Relaxed) {
                    assert_eq!(client.get("/").status(), 200);
                    served.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for _ in 0..5 {
            eventually("it has work", || (restarted.requests() > 20).then_some(()));
            drop(restarted);
            let before = served.load(Ordering::Relaxed);
            eventually("the other one serves", || {
                (served.load(Ordering::Relaxed) > before + 20).then_some(())
            });
            restarted = Upstream::at("restarted", address);
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(served.load(Ordering::Relaxed) > 200);
}

#[test]
fn when_every_server_fails_all_of_them_go_on_being_asked() {
    let both = [RawUpstream::resetting(), RawUpstream::resetting()];
    let lines = "max_fails = 1\nfail_timeout = \"10m\"";
    let gateway = Gateway::start(upstream(&[&both[0].url(), &both[1].url()], lines));
    assert_eq!(count(&posts(&gateway, 10), 502), 10);
    assert_eq!(both[0].requests() + both[1].requests(), 10);
    assert!(both.iter().all(|server| server.requests() >= 3));
    assert!(healthy(&gateway) < 0.5);
    assert!(gateway.data().rows().iter().all(|row| row.reason == "upstream:broken"));
}

#[test]
fn answers_of_500_and_above_count_only_when_that_is_asked_for() {
    let answer = "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    for (line, failed) in [("fail_on_5xx = true", 2), ("fail_on_5xx = false", 10)] {
        let (bad, good) = (RawUpstream::answering(answer, Duration::ZERO), Upstream::start());
        let lines = format!("max_fails = 2\nfail_timeout = \"10m\"\n{line}");
        let gateway = Gateway::start(upstream(&[&bad.url(), &good.url()], &lines));
        let statuses = posts(&gateway, 20);
        assert_eq!((count(&statuses, 500), bad.requests()), (failed, failed), "{line}");
    }
}

#[test]
fn a_server_that_hangs_is_left_out_and_its_requests_are_not_repeated() {
    // Connections are made by the kernel, and nobody ever reads from them.
    let hanging = TcpListener::bind("127.0.0.1:0").unwrap();
    let good = Upstream::start();
    let lines = "read_timeout = \"100ms\"\nmax_fails = 2\nfail_timeout = \"10m\"";
    let url = format!("http://{}", hanging.local_addr().unwrap());
    let gateway = Gateway::start(upstream(&[&url, &good.url()], lines));
    let statuses: Vec<u16> = (0..20).map(|_| gateway.get("/").status()).collect();
    assert_eq!((count(&statuses, 504), count(&statuses, 200), good.requests()), (2, 18, 18));
}

#[test]
fn a_gateway_without_descriptors_blames_itself_and_no_server() {
    let server = Upstream::start();
    let gateway = Gateway::start(upstream(&[&server.url()], "max_fails = 1\nfail_timeout = \"10m\""));
    let mut client = gateway.client();
    client.write(b"GET / HTTP/1.1\r\n");
    eventually("the connection is accepted", || {
        (gateway.metric("portcullis_connections_open") > 0.5).then_some(())
    });
    gateway.limit_descriptors(3);
    client.write(b"Host: site.example\r\n\r\n");
    let answer = client.read_response("GET");
    gateway.limit_descriptors(1_024);
    assert_eq!((answer.status(), server.requests()), (500, 0));
    assert_eq!(gateway.data().row(&answer.decision_id()).reason, "upstream:internal");
    assert!(healthy(&gateway) > 0.5);
    assert_eq!(gateway.get("/").status(), 200);
}

#[test]
fn a_reload_forgets_nothing_about_a_server() {
    let (bad, good) = (RawUpstream::resetting(), Upstream::start());
    let servers = [&*bad.url(), &*good.url()];
    let lines = "max_fails = 2\nfail_timeout = \"10m\"";
    let gateway = Gateway::start(upstream(&servers, lines));
    posts(&gateway, 10);
    assert_eq!(bad.requests(), 2);
    gateway.write_config(&upstream(&servers, &format!("{lines}\nread_timeout = \"50s\"")).text());
    gateway.hang_up();
    let applied = "portcullis_config_reloads_total{outcome=\"applied\"}";
    eventually("the reload is applied", || (gateway.metric(applied) > 0.5).then_some(()));
    assert_eq!(count(&posts(&gateway, 10), 200), 10);
    assert_eq!(bad.requests(), 2);
}

#[test]
fn a_server_that_comes_back_starts_slowly() {
    let [a, b] = ["a", "b"].map(Upstream::named);
    let lines = "slow_start = \"1h\"\n[upstream.health]\npath = \"/healthz\"\ninterval = \"100ms\"";
    let gateway = Gateway::start(upstream(&[&a.url(), &b.url()], lines));
    let share_of_a = || {
        let mut client = gateway.client();
        let names = (0..40).map(|_| client.get("/").header("x-upstream").unwrap().to_owned());
        names.filter(|name| name == "a").count()
    };
    assert_eq!(share_of_a(), 20, "nobody starts slowly with the gateway");
    a.set_healthy(false);
    eventually("it is taken out", || (healthy(&gateway) < 1.5).then_some(()));
    a.set_healthy(true);
    eventually("it is back", || (healthy(&gateway) > 1.5).then_some(()));
    let share = share_of_a();
    assert!(share <= 5, "{share} of 40 at the beginning of an hour");
}

#[test]
fn servers_that_hang_do_not_hold_up_the_checks_of_others() {
    // Accepts by the kernel's hand, on all of 127.0.0.0/8, and never says a word.
    let hanging = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = hanging.local_addr().unwrap().port();
    let good = Upstream::start();
    let mut servers: Vec<String> = (2..=41).map(|n| format!("http://127.0.0.{n}:{port}")).collect();
    servers.push(good.url());
    let lines =
        "[upstream.health]\npath = \"/healthz\"\ninterval = \"1s\"\ntimeout = \"1s\"\nunhealthy_after = 1";
    let gateway = Gateway::start(upstream(&servers.iter().map(|url| &**url).collect::<Vec<_>>(), lines));
    eventually("only one is left", || (healthy(&gateway) < 1.5).then_some(()));
    good.set_healthy(false);
    // One after another, a round would take forty seconds.
    let soon = Duration::from_secs(15);
    eventually_within(soon, "none is left", || (healthy(&gateway) < 0.5).then_some(()));
}
