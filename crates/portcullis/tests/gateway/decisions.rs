//! Blocks, allows, limits and dry-run as clients meet them, changed while the gateway runs.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use portcullis_testkit::{
    Authority, Gateway, H2Client, H2Request, Request, Response, Upstream, client_config, eventually_within,
};
use tempfile::TempDir;

use crate::{behind_proxy, config};

/// A change is promised within 250 ms; the rest is for a busy machine.
const IN_FORCE: Duration = Duration::from_secs(2);

fn status_for(gateway: &Gateway, client: &str) -> u16 {
    gateway.client_of(client).get("/").status()
}

fn wait_for_status(gateway: &Gateway, client: &str, status: u16) {
    eventually_within(IN_FORCE, &format!("{client} gets {status}"), || {
        (status_for(gateway, client) == status).then_some(())
    });
}

/// A limit as the originals had it on their login.
fn with_login_limit(upstream: &Upstream) -> Gateway {
    let lines = "paths = [\"/login\"]\nmethods = [\"POST\"]\nrate = \"3/5m\"";
    Gateway::start(behind_proxy(upstream).limit("login", lines))
}

#[test]
fn a_block_by_command_is_in_force_on_the_next_request_and_after_a_restart() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(behind_proxy(&upstream));
    assert_eq!(status_for(&gateway, "203.0.113.9"), 200);
    gateway.cli_ok(&["block", "203.0.113.9", "--reason", "tries passwords"]);
    wait_for_status(&gateway, "203.0.113.9", 403);
    let reached = upstream.requests();
    let refused = gateway.client_of("203.0.113.9").get("/again");
    assert_eq!((refused.status(), upstream.requests()), (403, reached));
    let row = gateway.data().row(&refused.decision_id());
    assert_eq!((row.status, row.verdict.as_str(), row.path.as_str()), (403, "blocked", "/again"));
    assert!(row.reason.starts_with("block:") && row.is_suspicious, "{row:?}");
    assert_eq!(status_for(&gateway, "203.0.113.10"), 200);

    let gateway = gateway.terminate().start_again();
    assert_eq!(status_for(&gateway, "203.0.113.9"), 403, "the first request after a restart");
    gateway.cli_ok(&["unblock", "203.0.113.9"]);
    wait_for_status(&gateway, "203.0.113.9", 200);
}

#[test]
fn a_block_by_command_is_in_force_after_kill_9() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(behind_proxy(&upstream));
    gateway.cli_ok(&["block", "203.0.113.9"]);
    let gateway = gateway.kill().start_again();
    assert_eq!(status_for(&gateway, "203.0.113.9"), 403);
}

#[test]
fn a_block_by_command_waits_for_a_gateway_that_is_not_running() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(behind_proxy(&upstream));
    gateway.cli_ok(&["block", "203.0.113.0/24"]);
    let blocks = gateway.cli_ok(&["blocks"]);
    assert!(blocks.contains("203.0.113.0/24"), "{blocks}");
    let ended = gateway.terminate();
    let gateway = ended.start_again();
    assert_eq!(status_for(&gateway, "203.0.113.77"), 403);
}

#[test]
fn an_expired_block_lets_the_client_in_again() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(behind_proxy(&upstream));
    // Long enough to see it in force on a busy machine, too.
    gateway.cli_ok(&["block", "203.0.113.9", "--expires", "+4s"]);
    let blocked_until = Instant::now() + Duration::from_secs(4);
    wait_for_status(&gateway, "203.0.113.9", 403);
    assert_eq!(gateway.metric("portcullis_blocks_active{kind=\"address\"}"), 1.0);
    // Nothing is changed by anybody: the block runs out by itself.
    let left = blocked_until.saturating_duration_since(Instant::now());
    thread::sleep(left.saturating_sub(Duration::from_millis(500)));
    portcullis_testkit::eventually("the block has run out", || {
        (status_for(&gateway, "203.0.113.9") == 200).then_some(())
    });
    let gateway = gateway.terminate().start_again();
    assert_eq!(status_for(&gateway, "203.0.113.9"), 200, "an expired block does not come back");
}

#[test]
fn prefixes_block_all_their_addresses_and_no_other() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(behind_proxy(&upstream));
    for network in ["203.0.113.128/25", "2001:db8:5::/48", "::ffff:198.51.100.0/124"] {
        gateway.cli_ok(&["block", network]);
    }
    wait_for_status(&gateway, "198.51.100.1", 403);
    for (client, status) in [
        ("203.0.113.127", 200),
        ("203.0.113.128", 403),
        ("203.0.113.255", 403),
        ("203.0.114.0", 200),
        ("2001:db8:5::1", 403),
        ("2001:db8:5:ffff:ffff:ffff:ffff:ffff", 403),
        ("2001:db8:6::1", 200),
        ("198.51.100.15", 403),
        ("::ffff:198.51.100.15", 403),
        ("198.51.100.16", 200),
    ] {
        assert_eq!(status_for(&gateway, client), status, "{client}");
    }
}

#[test]
fn an_allow_wins_over_blocks_and_limits() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(behind_proxy(&upstream).limit("all", "rate = \"2/1h\""));
    gateway.cli_ok(&["block", "203.0.113.0/24"]);
    wait_for_status(&gateway, "203.0.113.9", 403);
    gateway.cli_ok(&["allow", "203.0.113.9", "--reason", "office"]);
    wait_for_status(&gateway, "203.0.113.9", 200);
    for _ in 0..5 {
        assert_eq!(status_for(&gateway, "203.0.113.9"), 200);
    }
    assert_eq!(status_for(&gateway, "203.0.113.10"), 403);
    let row = gateway.data().row_where("an allowed request", |row| row.verdict.as_str() == "allowed");
    assert!(row.reason.starts_with("allow:"), "{row:?}");
    gateway.cli_ok(&["disallow", "203.0.113.9"]);
    wait_for_status(&gateway, "203.0.113.9", 403);
}

#[test]
fn the_fourth_login_within_five_minutes_gets_429() {
    let upstream = Upstream::start();
    let gateway = with_login_limit(&upstream);
    let mut client = gateway.client_of("203.0.113.9");
    for _ in 0..3 {
        assert_eq!(client.post("/login", "password=x").status(), 200);
    }
    let refused = client.post("/login", "password=x");
    assert_eq!((refused.status(), upstream.requests()), (429, 3));
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=300).contains(&wait), "{wait}");
    assert_eq!(refused.header("ratelimit-policy"), Some("\"login\";q=3;w=300"));
    assert_eq!(refused.header("ratelimit"), Some(&*format!("\"login\";r=0;t={wait}")));
    let row = gateway.data().row(&refused.decision_id());
    assert_eq!((row.status, row.verdict.as_str(), row.reason.as_str()), (429, "limited", "limit:login"));
    // Other pages and other clients are served.
    assert_eq!(gateway.client_of("203.0.113.9").get("/login").status(), 200);
    assert_eq!(gateway.client_of("203.0.113.10").post("/login", "").status(), 200);
    let why = gateway.cli_ok(&["why", &refused.decision_id()]);
    assert!(why.contains("login") && why.contains("203.0.113.9"), "{why}");
}

#[test]
fn a_limit_lets_in_again_when_its_window_has_passed() {
    let upstream = Upstream::start();
    let gateway =
        Gateway::start(behind_proxy(&upstream).limit("page", "paths = [\"/page\"]\nrate = \"2/2s\""));
    let mut client = gateway.client_of("203.0.113.9");
    for status in [200, 200, 429] {
        assert_eq!(client.get("/page").status(), status);
    }
    let wait: u64 = client.get("/page").header("retry-after").unwrap().parse().unwrap();
    thread::sleep(Duration::from_secs(wait));
    assert_eq!(client.get("/page").status(), 200, "who waits as told is let in");
}

#[test]
fn no_spelling_of_a_path_evades_its_limit() {
    let upstream = Upstream::start();
    let gateway = with_login_limit(&upstream);
    for (n, path) in [
        "/login",
        "//login",
        "/./login",
        "/x/../login",
        "/%6cogin",
        "/LOGIN",
        "/login;a=1",
        "/login/",
        "/login?",
        "/login?x=1",
        "\\login",
        "/%2e/login",
        "/%4Cogin",
        "/login//",
        "/x/%2e%2e/login",
        "/.//login",
        "/login%2f",
        "/x%2f..%2flogin",
        "/%5clogin",
        "/login%00",
    ]
    .into_iter()
    .enumerate()
    {
        let mut client = gateway.client_of(&format!("203.0.113.{n}"));
        for _ in 0..3 {
            client.post("/login", "");
        }
        let status = gateway.client_of(&format!("203.0.113.{n}")).post(path, "").status();
        // A request that is refused as malformed evades nothing either.
        assert!(matches!(status, 429 | 400), "{path} got {status}");
    }
}

#[test]
fn a_path_with_a_nul_is_refused() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(config().upstream(&upstream));
    for path in ["/login%00", "/login%00.html", "/%00/x"] {
        let answer = gateway.get(path);
        assert_eq!(answer.status(), 400, "{path}");
        assert_eq!(gateway.data().row(&answer.decision_id()).verdict.as_str(), "malformed", "{path}");
    }
    assert_eq!(upstream.requests(), 0);
    assert_eq!(gateway.get("/?q=%00").status(), 200, "a query is the application's business");
}

#[test]
fn addresses_of_one_ipv6_subscriber_share_a_limit() {
    let upstream = Upstream::start();
    let gateway = with_login_limit(&upstream);
    let statuses: Vec<u16> = (1..=5)
        .map(|n| gateway.client_of(&format!("2001:db8:1:2:{n}::1")).post("/login", "").status())
        .collect();
    assert_eq!(statuses, [200, 200, 200, 429, 429]);
    assert_eq!(gateway.client_of("2001:db8:1:3::1").post("/login", "").status(), 200);
}

#[test]
fn changing_the_ipv6_network_soon_gains_nothing_and_the_log_names_the_prefix() {
    let upstream = Upstream::start();
    let gateway =
        Gateway::start(behind_proxy(&upstream).limit("login", "paths = [\"/login\"]\nrate = \"1/1h\""));
    let login = |client: &str| gateway.client_of(client).post("/login", "");
    let statuses: Vec<u16> = (0..10).map(|n| login(&format!("2001:db8:1:{n:x}::1")).status()).collect();
    assert_eq!(statuses, [200, 200, 200, 200, 200, 200, 200, 200, 429, 429], "eight of one /56");
    let through = (1..0x100).filter(|n| login(&format!("2001:db8:1:{:x}::1", n << 8)).status() == 200);
    assert_eq!(8 + through.count(), 64, "64 of one /48");
    assert_eq!(login("2001:db8:2::1").status(), 200, "another site");
    let refused = login("2001:db8:1:fff0::1");
    let row = gateway.data().row(&refused.decision_id());
    assert_eq!((row.status, row.verdict.as_str(), row.reason.as_str()), (429, "limited", "limit:login/48"));
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((3_000..=3_660).contains(&wait), "{wait}");
    let why = gateway.cli_ok(&["why", &refused.decision_id()]);
    assert!(why.contains("2001:db8:1::/48") && why.contains("64 requests of one IPv6 /48"), "{why}");
}

#[test]
fn no_method_host_query_or_new_connection_evades_a_limit() {
    let upstream = Upstream::start();
    let rules = "hosts = [\"shop.example\"]\nrate = \"4/1h\"";
    let gateway = Gateway::start(config().upstream(&upstream).limit("shop", rules));
    let mut kept = gateway.client();
    let host = |method: &str, target: &str, host: &str| Request::new(method, target).header("Host", host);
    for request in [
        host("GET", "/a", "shop.example"),
        host("HEAD", "/b", "SHOP.example"),
        host("OPTIONS", "/c", "shop.example."),
        host("DELETE", "/d", "shop.example:8080"),
    ] {
        assert_eq!(kept.send(&request).status(), 200);
    }
    for (n, request) in [
        host("GET", "/", "shop.example"),
        host("PATCH", "/?q=1", "shop.example"),
        host("PUT", "/?q=2", "Shop.Example.:80"),
        host("GET", "http://shop.example/absolute", "shop.example"),
        host("BREW", "/", "shop.example"),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(kept.send(&request).status(), 429, "the same connection, {n}");
        assert_eq!(gateway.client().send(&request).status(), 429, "a new connection, {n}");
    }
    assert_eq!(upstream.requests(), 4);
}

#[test]
fn dry_run_refuses_nobody_and_records_what_would_have_been() {
    let upstream = Upstream::start();
    let block = "[[block]]\nnetwork = \"203.0.113.9\"\nreason = \"test\"";
    let config =
        behind_proxy(&upstream).section(block).limit("all", "rate = \"1/1h\"").top("mode = \"dry-run\"");
    let gateway = Gateway::start(config);
    assert_eq!(gateway.client_of("203.0.113.9").get("/blocked").status(), 200);
    for path in ["/first", "/second"] {
        assert_eq!(gateway.client_of("203.0.113.10").get(path).status(), 200);
    }
    let verdict = |path: &str| {
        let row = gateway.data().row_of(path);
        (row.verdict.as_str(), row.reason, row.status)
    };
    let (kind, reason, status) = verdict("/blocked");
    assert_eq!((kind, reason.starts_with("block:"), status), ("would_block", true, 200));
    assert_eq!(verdict("/first"), ("admitted", String::new(), 200));
    assert_eq!(verdict("/second"), ("would_limit", "limit:all".to_owned(), 200));
}

#[test]
fn dry_run_names_its_rule_also_when_the_site_fails() {
    let upstream = Upstream::start();
    let config = behind_proxy(&upstream).limit("all", "rate = \"1/1h\"").top("mode = \"dry-run\"");
    let gateway = Gateway::start(config);
    for (path, verdict, reason) in
        [("/close?first", "admitted", "upstream:broken"), ("/close?second", "would_limit", "limit:all")]
    {
        let answer = gateway.client_of("203.0.113.10").get(path);
        assert_eq!(answer.status(), 502);
        let row = gateway.data().row(&answer.decision_id());
        assert_eq!((row.verdict.as_str(), &*row.reason, row.status), (verdict, reason, 502));
    }
}

#[test]
fn the_option_dry_run_wins_over_the_file() {
    let upstream = Upstream::start();
    let config = behind_proxy(&upstream).limit("all", "rate = \"1/1h\"").arg("--dry-run");
    let gateway = Gateway::start(config);
    let statuses: Vec<u16> = (0..3).map(|_| status_for(&gateway, "203.0.113.9")).collect();
    assert_eq!(statuses, [200; 3]);
}

#[test]
fn one_rule_in_dry_run_leaves_the_others_in_force() {
    let upstream = Upstream::start();
    let config = behind_proxy(&upstream)
        .limit("trial", "rate = \"1/1h\"\nmode = \"dry-run\"")
        .limit("real", "rate = \"3/1h\"");
    let gateway = Gateway::start(config);
    let mut client = gateway.client_of("203.0.113.9");
    let statuses: Vec<u16> = (1..=4).map(|n| client.get(&format!("/{n}")).status()).collect();
    assert_eq!(statuses, [200, 200, 200, 429]);
    let reasons = [1, 2, 4].map(|n| gateway.data().row_of(&format!("/{n}")).reason);
    assert_eq!(reasons, ["", "limit:trial", "limit:real"]);
}

#[test]
fn a_thousand_concurrent_requests_against_a_limit_of_a_hundred_admit_exactly_a_hundred() {
    const CONNECTIONS: usize = 10;
    const STREAMS: usize = 100;
    let upstream = Upstream::start();
    let (authority, folder) = (Authority::new(), TempDir::new().unwrap());
    let (cert, key) = authority.issue(&["a.example"]).write(folder.path(), "a");
    let tls = format!(
        "[[server.tls]]\nlisten = \"127.0.0.1:0\"\ncertificates = [{{ cert = \"{}\", key = \"{}\" }}]",
        cert.display(),
        key.display()
    );
    let gateway =
        Gateway::start(config().upstream(&upstream).section(&tls).limit("all", "rate = \"100/1h\""));
    let tls = client_config(&authority, &["h2"]);
    let together = Barrier::new(CONNECTIONS);
    let statuses: Vec<u16> = thread::scope(|scope| {
        let threads: Vec<_> = (0..CONNECTIONS)
            .map(|_| {
                scope.spawn(|| {
                    let client = H2Client::connect(gateway.tls_address(), "a.example", &tls);
                    together.wait();
                    let answers = client.send_all(vec![H2Request::get("/"); STREAMS]);
                    answers.into_iter().map(|answer| answer.unwrap().status()).collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let of = |status: u16| statuses.iter().filter(|&&given| given == status).count();
    assert_eq!((of(200), of(429), upstream.requests()), (100, 900, 100));
    gateway.data().wait_for_count(1_000);
    let limited: i64 = gateway.data().sql("SELECT count(*) FROM request_log WHERE verdict = 'limited'");
    assert_eq!(limited, 900);
}

fn refused(gateway: &Gateway, request: &Request) -> Response {
    gateway.client_of("203.0.113.9").send(request)
}

#[test]
fn the_page_of_a_refusal_is_html_or_json_as_the_client_likes() {
    let upstream = Upstream::start();
    let block = "[[block]]\nnetwork = \"203.0.113.9\"\nreason = \"secret evidence\"\n";
    let pages = "[pages]\nname = \"Shop <&> Co\"\ncontact = \"help@shop.example\"";
    let gateway = Gateway::start(behind_proxy(&upstream).section(block).section(pages));
    let html =
        refused(&gateway, &Request::get("/").header("Accept", "text/html,application/xhtml+xml,*/*;q=0.8"));
    assert_eq!(html.header("content-type"), Some("text/html; charset=utf-8"));
    let text = html.text();
    assert!(text.contains("Shop &lt;&amp;&gt; Co") && text.contains("help@shop.example"), "{text}");
    assert!(!text.contains("secret evidence"), "the page tells the attacker why");
    assert_eq!(html.header("cache-control"), Some("no-store"));
    let json = refused(&gateway, &Request::get("/").header("Accept", "application/json"));
    assert_eq!(json.header("content-type"), Some("application/json"));
    assert_eq!(json.json()["decision_id"], json.decision_id());
    assert_eq!(json.json()["status"], 403);
    assert_ne!(html.decision_id(), json.decision_id());
    let bare = refused(&gateway, &Request::get("/"));
    assert_eq!(bare.header("content-type"), Some("text/html; charset=utf-8"));
}

#[test]
fn a_refused_head_request_has_no_body_and_keeps_the_connection() {
    let upstream = Upstream::start();
    let block = "[[block]]\nnetwork = \"203.0.113.9\"\nreason = \"test\"\n";
    let gateway = Gateway::start(behind_proxy(&upstream).section(block));
    let mut client = gateway.client_of("203.0.113.9");
    let answer = client.send(&Request::new("HEAD", "/"));
    assert_eq!((answer.status(), answer.body.len()), (403, 0));
    assert!(answer.header("content-length").is_some());
    answer.decision_id();
    assert_eq!(client.get("/").status(), 403, "the same connection");
}

#[test]
fn a_refused_upload_does_not_confuse_the_next_request() {
    let upstream = Upstream::start();
    let block = "[[block]]\nnetwork = \"203.0.113.9\"\nreason = \"test\"\n";
    let gateway = Gateway::start(behind_proxy(&upstream).section(block));
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 198.51.100.1\r\n\r\n";
    let mut client = gateway.client_of("203.0.113.9");
    assert_eq!(client.send(&Request::post("/upload", smuggled)).status(), 403);
    // Whatever the gateway does with the body, it must not take it for a request.
    if client
        .try_write(
            b"GET /next HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.9\r\nConnection: close\r\n\r\n",
        )
        .is_ok()
    {
        let _ = client.read_to_end();
    }
    assert_eq!(upstream.requests(), 0);
    gateway.data().row_of("/upload");
    assert!(gateway.data().rows().iter().all(|row| row.path != "/smuggled"));
}

#[test]
fn the_sender_of_a_large_upload_gets_to_see_why_it_was_refused() {
    let upstream = Upstream::start();
    let block = "[[block]]\nnetwork = \"203.0.113.9\"\nreason = \"test\"\n";
    let gateway = Gateway::start(behind_proxy(&upstream).section(block));
    for length in [50_000, 5_000_000] {
        let mut client = gateway.client_of("203.0.113.9");
        client.write_request(&Request::new("POST", "/upload").header("Content-Length", &length.to_string()));
        // The gateway may close before all of it has been sent.
        let _ = client.try_write(&vec![b'x'; length]);
        let answer = client.read_response("POST");
        assert_eq!(answer.status(), 403);
        answer.decision_id();
    }
    assert_eq!(upstream.requests(), 0);
}

#[test]
fn a_blocked_client_that_does_not_wait_for_its_page_is_recorded_as_blocked() {
    let upstream = Upstream::start();
    let config =
        config().upstream(&upstream).section("[[block]]\nnetwork = \"127.0.0.1/32\"\nreason = \"test\"");
    let gateway = Gateway::start(config);
    for n in 0..20 {
        let mut client = gateway.client();
        client.write_request(&Request::get(&format!("/gone/{n}")));
        client.reset();
    }
    gateway.data().wait_for_count(20);
    for row in gateway.data().rows() {
        assert_eq!((row.verdict.as_str(), row.reason.starts_with("block:")), ("blocked", true), "{row:?}");
    }
}
