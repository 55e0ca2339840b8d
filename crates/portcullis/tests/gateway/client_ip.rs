//! Who the client is: the socket's peer, and what trusted proxies say, never what a client says.

use std::net::{Ipv4Addr, SocketAddr};

use portcullis_testkit::{Client, Gateway, Request, Upstream};

use crate::{behind_proxy, config, in_front_of};

const FORGED: [&str; 20] = [
    "X-Forwarded-For",
    "X-Real-IP",
    "CF-Connecting-IP",
    "True-Client-IP",
    "X-Client-IP",
    "X-Cluster-Client-IP",
    "Fastly-Client-IP",
    "Forwarded",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "X-Forwarded-Port",
    "X-Forwarded-Prefix",
    "X-Forwarded-Server",
    "X-Forwarded-Scheme",
    "X-Forwarded-Uri",
    "X-Original-Host",
    "X-Original-Forwarded-For",
    "X-Originating-IP",
    "X-Remote-IP",
    "X-Remote-Addr",
];

fn forged(target: &str) -> Request {
    FORGED.iter().fold(Request::get(target), |request, name| request.header(name, "203.0.113.66"))
}

/// The client of a request that a trusted proxy at 127.0.0.1 passes on with these X-Forwarded-For lines.
fn resolved(gateway: &Gateway, upstream: &Upstream, lines: &[&str]) -> String {
    let request =
        lines.iter().fold(Request::get("/"), |request, line| request.header("X-Forwarded-For", line));
    let answer = gateway.client().send(&request);
    assert_eq!(answer.status(), 200, "{lines:?}");
    upstream.last().header("x-forwarded-for").to_owned()
}

#[test]
fn an_untrusted_peer_is_the_client_whatever_it_says() {
    let upstream = Upstream::start();
    for config in [config(), config().server("trusted_proxies = [\"10.0.0.0/8\"]")] {
        let gateway = Gateway::start(config.upstream(&upstream));
        Client::connect_from("127.0.0.5", gateway.address()).send(&forged("/forged"));
        let seen = upstream.last();
        assert_eq!(seen.header("x-forwarded-for"), "127.0.0.5");
        assert_eq!(seen.header("x-real-ip"), "127.0.0.5");
        assert_eq!(seen.header("x-forwarded-proto"), "http");
        assert_eq!(seen.header("x-forwarded-host"), gateway.address().to_string());
        let leaked: Vec<_> =
            seen.headers.iter().filter(|(_, value)| value.contains("203.0.113.66")).collect();
        assert!(leaked.is_empty(), "the upstream was told {leaked:?}");
        assert_eq!(gateway.data().row_of("/forged").client.to_string(), "127.0.0.5");
    }
}

#[test]
fn headers_with_underscores_do_not_pass_for_ours() {
    // Applications that follow CGI cannot tell X_Forwarded_For from X-Forwarded-For.
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    let request = Request::get("/")
        .header("X_Forwarded_For", "203.0.113.66")
        .header("X_Real_IP", "203.0.113.66")
        .header("X-Forwarded_Proto", "203.0.113.66");
    gateway.client().send(&request);
    let seen = upstream.seen();
    let leaked = seen.iter().flat_map(|seen| &seen.headers).find(|(_, value)| value.contains("203.0.113.66"));
    assert_eq!(leaked, None);
}

#[test]
fn spoofed_forwarded_for_does_not_evade_a_block() {
    let upstream = Upstream::start();
    let block = "[[block]]\nnetwork = \"127.0.0.66\"\nreason = \"test\"";
    let gateway = Gateway::start(config().upstream(&upstream).section(block));
    let mut blocked = Client::connect_from("127.0.0.66", gateway.address());
    assert_eq!(blocked.get("/").status(), 403);
    assert_eq!(blocked.send(&forged("/")).status(), 403);
    assert_eq!(Client::connect_from("127.0.0.67", gateway.address()).send(&forged("/")).status(), 200);
    assert_eq!(upstream.requests(), 1);
}

#[test]
fn spoofed_forwarded_for_does_not_block_somebody_else() {
    let upstream = Upstream::start();
    let gateway =
        Gateway::start(config().upstream(&upstream).limit("login", "paths = [\"/login\"]\nrate = \"2/5m\""));
    let mut attacker = Client::connect_from("127.0.0.5", gateway.address());
    let statuses: Vec<u16> = (1..=4)
        .map(|n| {
            let request = Request::post("/login", "").header("X-Forwarded-For", &format!("198.51.100.{n}"));
            attacker.send(&request).status()
        })
        .collect();
    assert_eq!(statuses, [200, 200, 429, 429]);
    assert_eq!(Client::connect_from("127.0.0.6", gateway.address()).post("/login", "").status(), 200);
}

#[test]
fn the_rightmost_untrusted_hop_is_the_client() {
    let upstream = Upstream::start();
    let trust = "trusted_proxies = [\"127.0.0.1\", \"10.0.0.0/8\"]";
    let gateway = Gateway::start(config().upstream(&upstream).server(trust));
    let resolved = |lines: &[&str]| resolved(&gateway, &upstream, lines);
    assert_eq!(resolved(&["203.0.113.66, 198.51.100.7, 10.0.0.1"]), "198.51.100.7");
    assert_eq!(resolved(&["203.0.113.66", "198.51.100.7, 10.0.0.1"]), "198.51.100.7");
    assert_eq!(resolved(&["203.0.113.66", "198.51.100.7", "10.0.0.1, 10.9.9.9"]), "198.51.100.7");
    assert_eq!(resolved(&["2001:db8::7"]), "2001:db8::7");
    assert_eq!(resolved(&[]), "127.0.0.1");
}

#[test]
fn the_standard_forwarded_header_names_the_client_when_the_proxy_sends_it() {
    let upstream = Upstream::start();
    let trust = "trusted_proxies = [\"127.0.0.1\", \"10.0.0.0/8\"]\nclient_ip_header = \"forwarded\"";
    let gateway = Gateway::start(config().upstream(&upstream).server(trust));
    let named = |lines: &[&str]| {
        let request = Request::get("/").header("X-Forwarded-For", "203.0.113.66");
        let request = lines.iter().fold(request, |request, line| request.header("Forwarded", line));
        assert_eq!(gateway.client().send(&request).status(), 200, "{lines:?}");
        upstream.last().header("x-forwarded-for").to_owned()
    };
    assert_eq!(
        named(&["for=203.0.113.66, for=\"198.51.100.7:4711\";proto=https, for=10.0.0.1"]),
        "198.51.100.7"
    );
    assert_eq!(named(&["for=203.0.113.66", "for=\"[2001:db8::7]\""]), "2001:db8::7");
    assert_eq!(named(&["for=\", for=198.51.100.7"]), "198.51.100.7", "a quote left open by the client");
    assert_eq!(named(&["for=203.0.113.66, for=_hidden, for=10.0.0.1"]), "10.0.0.1");
    assert_eq!(named(&["for=unknown"]), "127.0.0.1");
    assert_eq!(named(&[]), "127.0.0.1");
    assert!(upstream.last().all("forwarded").is_empty());
    named(&["for=198.51.100.7;proto=https, for=10.0.0.1;proto=http"]);
    assert_eq!(upstream.last().header("x-forwarded-proto"), "https", "the client's own connection");
    let forged =
        Request::get("/").header("Forwarded", "for=198.51.100.7").header("X-Forwarded-Proto", "https");
    gateway.client().send(&forged);
    assert_eq!(upstream.last().header("x-forwarded-proto"), "http", "the proxy does not write this one");
    // From anybody else it is a lie.
    let said = Request::get("/").header("Forwarded", "for=198.51.100.7");
    Client::connect_from("127.0.0.5", gateway.address()).send(&said);
    assert_eq!(upstream.last().header("x-forwarded-for"), "127.0.0.5");
}

#[test]
fn headers_that_a_client_calls_hop_by_hop_still_reach_the_upstream_from_us() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    let send = |names: &str| {
        let forged =
            FORGED.iter().fold(Request::get("/"), |request, name| request.header(name, "203.0.113.66"));
        gateway.client().send(&forged.header("Connection", names)).status()
    };
    for names in ["keep-alive, X-Real-IP", "close, X-REAL-IP, Forwarded, X-Forwarded-Port"] {
        assert_eq!(send(names), 200, "{names}");
        let seen = upstream.last();
        for ours in ["x-real-ip", "x-forwarded-for"] {
            assert_eq!(seen.all(ours), ["127.0.0.1"], "{names}: {seen:?}");
        }
        assert_eq!(seen.all("x-forwarded-proto"), ["http"], "{names}");
        assert_eq!(seen.all("host").len(), 1, "{names}");
        // A proxy between us and the site must not be told to remove them either.
        let said = seen.all("connection").concat().to_ascii_lowercase();
        assert!(!said.contains("x-") && !said.contains("forwarded"), "{names}: {said}");
    }
    // These are never anything but an attempt.
    for names in ["X-Forwarded-For", "close, x-forwarded-proto", "keep-alive, Host"] {
        assert_eq!((send(names), upstream.requests()), (400, 2), "{names}");
    }
}

#[test]
fn junk_in_forwarded_for_never_becomes_an_address() {
    let upstream = Upstream::start();
    let trust = "trusted_proxies = [\"127.0.0.1\", \"10.0.0.0/8\"]\nmax_head = \"512KiB\"";
    let gateway = Gateway::start(config().upstream(&upstream).server(trust));
    let many = ["10.0.0.1"; 10_000].join(",");
    for (line, client) in [
        ("garbage", "127.0.0.1"),
        ("unknown", "127.0.0.1"),
        ("", "127.0.0.1"),
        ("203.0.113.66, unknown, 10.0.0.1", "10.0.0.1"),
        ("1.2.3.4:80", "1.2.3.4"),
        ("[2001:db8::1]:80", "2001:db8::1"),
        ("1.2.3", "127.0.0.1"),
        ("<script>", "127.0.0.1"),
        (&many, "10.0.0.1"),
    ] {
        let shown = &line[..line.len().min(40)];
        assert_eq!(resolved(&gateway, &upstream, &[line]), client, "{shown}");
    }
    // Only so many hops are looked at, whatever stands to the left of them.
    let hidden = format!("203.0.113.66,{}", ["10.0.0.1"; 40].join(","));
    assert_eq!(resolved(&gateway, &upstream, &[&hidden]), "10.0.0.1");
}

#[test]
fn a_header_of_the_cdn_names_the_client_when_the_cdn_sends_it() {
    let upstream = Upstream::start();
    let settings = "trusted_proxies = [\"127.0.0.1\"]\nclient_ip_header = \"cf-connecting-ip\"";
    let gateway = Gateway::start(config().upstream(&upstream).server(settings));
    let named = || Request::get("/").header("CF-Connecting-IP", "198.51.100.7");
    gateway.client().send(&named().header("X-Forwarded-For", "203.0.113.66"));
    assert_eq!(upstream.last().header("x-forwarded-for"), "198.51.100.7");
    assert!(upstream.last().all("cf-connecting-ip").is_empty());
    // From anybody else it is a lie.
    Client::connect_from("127.0.0.5", gateway.address()).send(&named());
    assert_eq!(upstream.last().header("x-forwarded-for"), "127.0.0.5");
    let before = upstream.requests();
    let twice = gateway.client().send(&named().header("CF-Connecting-IP", "203.0.113.66"));
    assert_eq!((twice.status(), upstream.requests()), (400, before), "two addresses are no address");
    assert_eq!(gateway.data().row(&twice.decision_id()).verdict.as_str(), "malformed");
}

#[test]
fn a_block_of_a_client_behind_a_proxy_meets_that_client_alone() {
    let upstream = Upstream::start();
    let blocks = "[[block]]\nnetwork = \"203.0.113.9\"\nreason = \"test\"";
    let gateway = Gateway::start(behind_proxy(&upstream).section(blocks));
    let mut proxy = gateway.client();
    let from = |client: &str| Request::get("/").header("X-Forwarded-For", client);
    for _ in 0..2 {
        assert_eq!(proxy.send(&from("203.0.113.9")).status(), 403);
        assert_eq!(proxy.send(&from("203.0.113.10")).status(), 200, "the connection is the proxy's");
    }
    let row = gateway.data().row_where("the refusal", |row| row.status == 403);
    assert_eq!(row.client.to_string(), "203.0.113.9");
}

#[test]
fn one_client_has_one_address_however_it_is_written() {
    let upstream = Upstream::start();
    let block = "[[block]]\nnetwork = \"192.0.2.1\"\nreason = \"test\"\n[[block]]\nnetwork = \"::ffff:192.0.2.128/121\"\nreason = \"test\"";
    let gateway = Gateway::start(behind_proxy(&upstream).section(block));
    for (client, status) in [
        ("192.0.2.1", 403),
        ("::ffff:192.0.2.1", 403),
        ("::FFFF:c000:201", 403),
        ("[::ffff:192.0.2.1]:443", 403),
        ("64:ff9b::c000:201", 403),
        ("192.0.2.200", 403),
        ("::ffff:192.0.2.2", 200),
        ("::192.0.2.1", 200),
    ] {
        assert_eq!(gateway.client_of(client).get("/").status(), status, "{client}");
    }
}

#[test]
fn a_block_that_covers_a_trusted_proxy_meets_no_visitor_of_it() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(behind_proxy(&upstream));
    gateway.cli_ok(&["block", "127.0.0.0/8", "--force"]);
    let named = |client: &str| gateway.client_of(client).get("/").status();
    portcullis_testkit::eventually("the block is in force", || (named("127.0.0.9") == 403).then_some(()));
    assert_eq!(named("203.0.113.9"), 200, "the connection of a trusted proxy is not dropped");
    assert_eq!(named("127.0.0.9"), 403, "the client it names is judged");
    assert_eq!(gateway.client().get("/").status(), 403, "so is the proxy's own request");
}

#[test]
fn an_ipv4_client_of_a_dual_stack_listener_is_the_ipv4_client() {
    let upstream = Upstream::start();
    let block = "[[block]]\nnetwork = \"127.0.0.66\"\nreason = \"test\"";
    let config = config().upstream(&upstream).listen("[::]:0").section(block);
    let gateway = Gateway::start(config.server("trusted_proxies = [\"127.0.0.7\"]"));
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, gateway.address().port()));
    assert_eq!(Client::connect_from("127.0.0.5", to).get("/mapped").status(), 200);
    assert_eq!(upstream.last().header("x-forwarded-for"), "127.0.0.5");
    assert_eq!(gateway.data().row_of("/mapped").client.to_string(), "127.0.0.5");
    assert_eq!(Client::connect_from("127.0.0.66", to).forwarded_for("198.51.100.7").get("/").status(), 403);
    Client::connect_from("127.0.0.7", to).forwarded_for("198.51.100.7").get("/");
    assert_eq!(upstream.last().header("x-forwarded-for"), "198.51.100.7", "a proxy is trusted here too");
}

#[test]
fn an_ipv6_peer_is_a_client_too() {
    let upstream = Upstream::start();
    let block = "[[block]]\nnetwork = \"::1\"\nreason = \"test\"";
    let gateway = Gateway::start(config().upstream(&upstream).listen("[::1]:0").section(block));
    assert_eq!(gateway.get("/").status(), 403);
    assert_eq!(gateway.data().row_of("/").client.to_string(), "::1");
}
