//! TLS to clients and to upstreams, and HTTP/2.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use portcullis_testkit::{
    Authority, Client, Gateway, GatewayConfig, H2Client, H2Request, Issued, Request, Upstream, client_config,
    eventually, exchange, parse_response, server_config,
};
use tempfile::TempDir;

use crate::{behind_proxy, config, in_front_of};

/// The files of certificates that one authority issued.
pub(crate) struct Certificates {
    pub(crate) authority: Authority,
    folder: TempDir,
}

impl Certificates {
    pub(crate) fn new() -> Self {
        Self { authority: Authority::new(), folder: TempDir::new().unwrap() }
    }

    /// A TLS listener that has a certificate for each of these names.
    fn listener(&self, names: &[&str]) -> String {
        let pairs: Vec<String> = names
            .iter()
            .enumerate()
            .map(|(n, name)| {
                let issued = self.authority.issue(&[name]);
                let (cert, key) = issued.write(self.folder.path(), &n.to_string());
                format!("{{ cert = \"{}\", key = \"{}\" }}", cert.display(), key.display())
            })
            .collect();
        format!("[[server.tls]]\nlisten = \"127.0.0.1:0\"\ncertificates = [{}]", pairs.join(", "))
    }

    pub(crate) fn client(&self, gateway: &Gateway, name: &str) -> Client {
        Client::connect_tls(gateway.tls_address(), name, &client_config(&self.authority, &["http/1.1"]))
    }

    /// Whether a new connection gets a certificate of this authority for the name.
    fn is_trusted(&self, gateway: &Gateway, name: &str) -> bool {
        self.client(gateway, name).try_write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").is_ok()
    }

    pub(crate) fn h2_client(&self, gateway: &Gateway, name: &str) -> H2Client {
        H2Client::connect(gateway.tls_address(), name, &client_config(&self.authority, &["h2"]))
    }
}

pub(crate) fn with_tls(config: GatewayConfig, certificates: &Certificates, names: &[&str]) -> Gateway {
    Gateway::start(config.section(&certificates.listener(names)))
}

#[test]
fn the_name_that_the_client_asks_for_chooses_the_certificate() {
    let upstream = Upstream::start();
    let certificates = Certificates::new();
    let names = ["a.example", "b.example", "*.wild.example"];
    let gateway = with_tls(config().upstream(&upstream), &certificates, &names);
    for name in ["a.example", "b.example", "x.wild.example"] {
        // The client verifies the name, so another certificate would end the handshake.
        assert_eq!(certificates.client(&gateway, name).get("/").status(), 200, "{name}");
    }
    let mut stranger = certificates.client(&gateway, "c.example");
    let refused = stranger.try_write(b"GET / HTTP/1.1\r\n\r\n").unwrap_err().to_string();
    assert!(refused.contains("certificate"), "{refused}");
}

#[test]
fn http_1_1_over_tls_is_told_apart_from_plaintext() {
    let upstream = Upstream::start();
    let certificates = Certificates::new();
    let gateway = with_tls(config().upstream(&upstream), &certificates, &["a.example"]);
    let mut client = certificates.client(&gateway, "a.example");
    for _ in 0..3 {
        assert_eq!(client.get("/secure").status(), 200);
    }
    assert_eq!(upstream.last().header("x-forwarded-proto"), "https");
    gateway.get("/plain");
    assert_eq!(upstream.last().header("x-forwarded-proto"), "http");
    assert_eq!(gateway.data().row_of("/secure").protocol, "HTTP/1.1");
}

#[test]
fn http_2_carries_many_requests_at_once() {
    let upstream = Upstream::start();
    let certificates = Certificates::new();
    let gateway = with_tls(config().upstream(&upstream), &certificates, &["a.example"]);
    let client = certificates.h2_client(&gateway, "a.example");
    let requests: Vec<_> = (0..300)
        .map(|n| match n % 3 {
            0 => H2Request::get("/slow/50"),
            1 => H2Request::post("/echo", format!("body {n}").as_bytes()),
            _ => H2Request::get("/bytes/70000"),
        })
        .collect();
    let answers = client.send_all(requests);
    for (n, answer) in answers.into_iter().enumerate() {
        let answer = answer.unwrap();
        assert_eq!(answer.status(), 200);
        match n % 3 {
            0 => assert_eq!(answer.text(), "slow"),
            1 => assert_eq!(answer.json()["body"], format!("body {n}")),
            _ => assert_eq!(answer.body.len(), 70_000),
        }
    }
    let row = gateway.data().row_of("/echo");
    assert_eq!((row.protocol.as_str(), row.host.as_str()), ("HTTP/2", "a.example"));
    assert_eq!(upstream.last().header("x-forwarded-host"), "a.example");
    gateway.data().wait_for_count(300);
}

#[test]
fn forwarding_headers_of_an_http_2_client_never_reach_the_upstream() {
    let upstream = Upstream::start();
    let certificates = Certificates::new();
    let gateway = with_tls(config().upstream(&upstream), &certificates, &["a.example"]);
    let client = certificates.h2_client(&gateway, "a.example");
    let forged =
        H2Request::get("/").header("x-forwarded-for", "203.0.113.1").header("x-real-ip", "203.0.113.1");
    assert_eq!(client.send(forged).unwrap().status(), 200);
    let seen = upstream.last();
    assert_eq!((seen.header("x-forwarded-for"), seen.header("x-forwarded-proto")), ("127.0.0.1", "https"));
    assert_eq!(seen.all("x-real-ip"), ["127.0.0.1"]);
}

#[test]
fn a_blocked_client_is_refused_over_http_2() {
    let upstream = Upstream::start();
    let certificates = Certificates::new();
    let config =
        behind_proxy(&upstream).section("[[block]]\nnetwork = \"203.0.113.0/24\"\nreason = \"test\"");
    let gateway = with_tls(config, &certificates, &["a.example"]);
    let client = certificates.h2_client(&gateway, "a.example");
    let request = H2Request::get("/").header("x-forwarded-for", "203.0.113.9");
    let answer = client.send(request).unwrap();
    assert_eq!(answer.status(), 403);
    assert_eq!(gateway.data().row(&answer.decision_id()).protocol, "HTTP/2");
    let request = H2Request::get("/").header("x-forwarded-for", "198.51.100.9");
    assert_eq!(client.send(request).unwrap().status(), 200, "another client on the same connection");
    assert_eq!(upstream.requests(), 1);
}

#[test]
fn a_handshake_that_fails_leaves_a_row() {
    let upstream = Upstream::start();
    let certificates = Certificates::new();
    let gateway = with_tls(config().upstream(&upstream), &certificates, &["a.example"]);
    exchange(gateway.tls_address(), b"\x16\x03\x01\x00\x05hello");
    let row = gateway.data().row_where("the handshake", |row| row.reason == "malformed:tls_handshake");
    assert_eq!((row.status, row.verdict.as_str()), (0, "malformed"));
    assert!(row.path.starts_with("\\x16\\x03\\x01"), "{}", row.path);
    assert_eq!(upstream.requests(), 0);
    assert_eq!(certificates.client(&gateway, "a.example").get("/").status(), 200);
}

#[test]
fn plain_http_on_a_port_for_tls_is_told_to_use_https() {
    let upstream = Upstream::start();
    let certificates = Certificates::new();
    let gateway = with_tls(config().upstream(&upstream), &certificates, &["a.example"]);
    let answer = parse_response(&exchange(gateway.tls_address(), b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert_eq!(answer.status(), 400);
    assert!(answer.text().contains("https"), "{}", answer.text());
    let row = gateway.data().row(&answer.decision_id());
    assert_eq!((&*row.method, &*row.path, &*row.reason), ("GET", "/x", "malformed:tls_handshake"));
    // One that says nothing is no attempt at anything.
    drop(Client::connect(gateway.tls_address()));
    assert_eq!(certificates.client(&gateway, "a.example").get("/").status(), 200);
    gateway.data().wait_for_count(2);
}

#[test]
fn tls_bytes_on_a_plain_listener_get_an_answer_and_a_row() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    let authority = Authority::new();
    let mut client =
        Client::connect_tls(gateway.address(), "a.example", &client_config(&authority, &["h2", "http/1.1"]));
    client.try_write(b"GET / HTTP/1.1\r\n\r\n").expect_err("a plain listener has no TLS");
    drop(client);
    let row = gateway.data().row_where("the hello", |row| row.verdict.as_str() == "malformed");
    assert!(row.reason.starts_with("malformed:"), "{row:?}");
    assert_eq!(gateway.get("/").status(), 200);
}

#[test]
fn a_tls_listener_without_a_plain_one_serves() {
    let upstream = Upstream::start();
    let certificates = Certificates::new();
    let gateway =
        with_tls(config().upstream(&upstream).without_plaintext(), &certificates, &["only.example"]);
    assert_eq!(certificates.client(&gateway, "only.example").get("/").status(), 200);
}

/// An upstream over TLS whose certificate is for this name, and the lines that a gateway reaches it by.
fn secure_upstream(authority: &Authority, name: &str, more: &str) -> (Upstream, String) {
    let upstream = Upstream::tls("secure", server_config(&authority.issue(&[name])));
    let lines = format!("servers = [\"https://{}\"]\n{more}", upstream.address());
    (upstream, lines)
}

#[test]
fn an_upstream_over_tls_is_verified_against_the_given_authority() {
    let certificates = Certificates::new();
    let file = certificates.folder.path().join("authority.pem");
    std::fs::write(&file, certificates.authority.pem()).unwrap();
    let trust = format!("tls_ca = \"{}\"\ntls_name = \"app.internal\"", file.display());
    let (upstream, lines) = secure_upstream(&certificates.authority, "app.internal", &trust);
    let gateway = Gateway::start(config().upstream_with(&lines));
    for _ in 0..3 {
        let answer = gateway.client().send(&Request::post("/echo", "over TLS"));
        assert_eq!((answer.status(), &answer.json()["body"]), (200, &"over TLS".into()));
    }
    assert_eq!(upstream.requests(), 3);
}

#[test]
fn an_upstream_that_cannot_be_verified_gets_no_request() {
    let authority = Authority::new();
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("authority.pem");
    std::fs::write(&file, authority.pem()).unwrap();
    let trust = format!("tls_ca = \"{}\"", file.display());
    for (case, more) in [
        ("an unknown authority", "tls_name = \"app.internal\"".to_owned()),
        ("another name", format!("{trust}\ntls_name = \"other.internal\"")),
        ("the address instead of the name", trust),
    ] {
        let (upstream, lines) = secure_upstream(&authority, "app.internal", &more);
        let gateway = Gateway::start(config().upstream_with(&lines));
        let answer = gateway.get("/");
        assert_eq!(answer.status(), 502, "{case}");
        let row = gateway.data().row(&answer.decision_id());
        assert_eq!(row.reason, "upstream:tls", "{case}");
        assert_eq!(upstream.requests(), 0, "{case}");
    }
}

#[test]
fn an_upstream_is_not_verified_when_the_operator_says_so() {
    let (upstream, lines) = secure_upstream(&Authority::new(), "app.internal", "tls_verify = false");
    let gateway = Gateway::start(config().upstream_with(&lines));
    assert_eq!(gateway.get("/").status(), 200);
    assert_eq!(upstream.requests(), 1);
}

#[test]
fn a_websocket_passes_over_tls() {
    let upstream = Upstream::start();
    let certificates = Certificates::new();
    let gateway = with_tls(config().upstream(&upstream), &certificates, &["a.example"]);
    let mut client = certificates.client(&gateway, "a.example");
    let request = Request::get("/websocket")
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
    client.write_request(&request);
    assert_eq!(client.read_head().status, 101);
    // A masked text frame with "hi" comes back unmasked.
    client.write(&[0x81, 0x82, 0, 0, 0, 0, b'h', b'i']);
    client.read_until("hi");
}

#[test]
fn certificates_of_several_listeners_do_not_mix() {
    let upstream = Upstream::start();
    let (first, second) = (Certificates::new(), Certificates::new());
    let gateway = Gateway::start(
        config()
            .upstream(&upstream)
            .section(&first.listener(&["a.example"]))
            .section(&second.listener(&["a.example"])),
    );
    assert_eq!(first.client(&gateway, "a.example").get("/").status(), 200);
    let config = client_config(&second.authority, &["http/1.1"]);
    let mut wrong = Client::connect_tls(gateway.tls_address(), "a.example", &config);
    assert!(wrong.try_write(b"GET / HTTP/1.1\r\n\r\n").is_err());
}

#[test]
fn a_refused_http_2_request_leaves_a_row() {
    let upstream = Upstream::start();
    let certificates = Certificates::new();
    let gateway = with_tls(config().upstream(&upstream), &certificates, &["a.example"]);
    let client = certificates.h2_client(&gateway, "a.example");
    let large = H2Request::get("/").header("x-large", &"x".repeat(40_000));
    let mut connect = H2Request::get("/");
    connect.method = "CONNECT".parse().unwrap();
    // Many applications take it for a POST, and rules would not.
    let mut lower = H2Request::post("/login", b"password=x");
    lower.method = "post".parse().unwrap();
    for (request, status, reason) in [
        (large, 431, "malformed:head_too_large"),
        (connect, 405, "malformed:method"),
        (lower, 400, "malformed:bad_request"),
    ] {
        let answer = client.send(request).unwrap();
        assert_eq!(answer.status(), status);
        let row = gateway.data().row(&answer.decision_id());
        assert_eq!((row.reason.as_str(), row.protocol.as_str()), (reason, "HTTP/2"));
    }
    assert_eq!(upstream.requests(), 0);
}

#[test]
fn an_http_2_client_that_changes_its_mind_is_not_malformed() {
    let upstream = Upstream::start();
    let certificates = Certificates::new();
    let gateway = with_tls(config().upstream(&upstream), &certificates, &["a.example"]);
    let client = certificates.h2_client(&gateway, "a.example");
    client.send_and_cancel(H2Request::get("/slow/1000"), || {
        eventually("the request has arrived", || (upstream.requests() == 1).then_some(()));
    });
    let row = gateway.data().row_of("/slow/1000");
    assert_eq!((row.verdict.as_str(), row.reason.as_str()), ("admitted", "upstream:client_gone"));
}

/// Writes over files as a tool does that renews a certificate.
fn replace(issued: &Issued, folder: &TempDir, name: &str) {
    issued.write(folder.path(), name);
}

#[test]
fn a_certificate_that_changes_on_disk_is_taken_over_without_a_restart() {
    let upstream = Upstream::start();
    let (old, new) = (Certificates::new(), Certificates::new());
    let gateway = with_tls(config().upstream(&upstream), &old, &["a.example"]);
    let mut open = old.client(&gateway, "a.example");
    assert_eq!(open.get("/before").status(), 200);
    replace(&new.authority.issue(&["a.example"]), &old.folder, "0");
    eventually("new connections get the new certificate", || {
        new.is_trusted(&gateway, "a.example").then_some(())
    });
    assert!(!old.is_trusted(&gateway, "a.example"));
    assert_eq!(open.get("/after").status(), 200, "an open connection goes on");
    assert_eq!(gateway.metric("portcullis_tls_certificate_reload_failures_total"), 0.0);
}

#[test]
fn a_broken_certificate_on_disk_leaves_the_last_good_one_in_use() {
    let upstream = Upstream::start();
    let certificates = Certificates::new();
    let gateway = with_tls(config().upstream(&upstream), &certificates, &["a.example", "b.example"]);
    let failures = || gateway.metric("portcullis_tls_certificate_reload_failures_total");
    // The key of somebody else, then no certificate at all.
    let other = certificates.authority.issue(&["a.example"]);
    std::fs::write(certificates.folder.path().join("0.key"), &other.key).unwrap();
    eventually("the mismatch is noticed", || (failures() > 0.0).then_some(()));
    assert!(certificates.is_trusted(&gateway, "a.example"));
    eventually("the log says so", || gateway.stderr().contains("does not belong").then_some(()));
    let so_far = failures();
    std::fs::write(certificates.folder.path().join("0.pem"), "half a fi").unwrap();
    eventually("the garbage is noticed", || (failures() > so_far).then_some(()));
    assert!(certificates.is_trusted(&gateway, "a.example"));
    assert!(certificates.is_trusted(&gateway, "b.example"));
    let new = Certificates::new();
    replace(&new.authority.issue(&["a.example"]), &certificates.folder, "0");
    eventually("a good pair is taken over", || new.is_trusted(&gateway, "a.example").then_some(()));
}

#[test]
fn certificates_are_added_and_removed_by_a_reload() {
    let upstream = Upstream::start();
    let certificates = Certificates::new();
    let base = config().upstream(&upstream);
    let both = base.clone().section(&certificates.listener(&["a.example", "b.example"]));
    let one = base.clone().section(&certificates.listener(&["a.example"]));
    let gateway = Gateway::start(one.clone());
    assert!(!certificates.is_trusted(&gateway, "b.example"));
    let mut open = certificates.client(&gateway, "a.example");
    assert_eq!(open.get("/").status(), 200);
    gateway.write_config(&both.text());
    gateway.hang_up();
    eventually("the added name has its certificate", || {
        certificates.is_trusted(&gateway, "b.example").then_some(())
    });
    gateway.write_config(&one.text());
    gateway.hang_up();
    eventually("the removed name has none", || {
        (!certificates.is_trusted(&gateway, "b.example")).then_some(())
    });
    assert_eq!(open.get("/").status(), 200);
    assert!(!gateway.stderr().contains("next start"), "no restart is asked for");
}

#[test]
fn check_tells_of_certificates_that_expire_and_of_names_that_two_have() {
    let upstream = Upstream::start();
    let certificates = Certificates::new();
    let days = |days: u64| Duration::from_secs(days * 86_400 + 3_600);
    let listener = certificates.listener(&["fine.example", "soon.example", "soon.example"]);
    certificates.authority.issue_for(&["soon.example"], days(5)).write(certificates.folder.path(), "1");
    let gateway = Gateway::start(config().upstream(&upstream).section(&listener));
    let said = gateway.cli_ok(&["check"]);
    assert!(said.contains("(soon.example) expires in 5 days"), "{said}");
    assert!(said.contains("soon.example is in ") && said.contains("the first is used"), "{said}");
    assert!(!said.contains("(fine.example)"), "{said}");
    let name = "portcullis_tls_certificate_expiry_seconds";
    assert!(gateway.metrics().contains("name=\"soon.example\""), "{name} is missing");
    let other = certificates.authority.issue(&["fine.example"]);
    std::fs::write(certificates.folder.path().join("0.key"), &other.key).unwrap();
    let refused = gateway.cli(&["check"]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("does not belong to the certificate"), "{refused:?}");
}

#[test]
fn no_handshake_fails_while_certificates_are_replaced() {
    const REPLACED: usize = 10;
    let upstream = Upstream::start();
    let certificates = Certificates::new();
    let gateway = with_tls(config().upstream(&upstream), &certificates, &["a.example"]);
    let expiry = || gateway.metrics().lines().find(|line| line.contains("a.example")).map(str::to_owned);
    let (done, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    assert_eq!(certificates.client(&gateway, "a.example").get("/").status(), 200);
                    served.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for n in 1..=REPLACED {
            let before = expiry();
            // Two files, one after the other: in between they do not belong together.
            let validity = Duration::from_secs(n as u64 * 86_400);
            let issued = certificates.authority.issue_for(&["a.example"], validity);
            replace(&issued, &certificates.folder, "0");
            gateway.hang_up();
            eventually("the new certificate is in use", || (expiry() != before).then_some(()));
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(served.load(Ordering::Relaxed) > REPLACED, "{served:?} connections are no load");
}
