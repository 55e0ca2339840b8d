//! From plain HTTP to https, and the promise to stay there.

use portcullis_testkit::{Authority, Client, Gateway, GatewayConfig, Request, Upstream, client_config};
use tempfile::TempDir;

use crate::{behind_proxy, config};

/// A gateway with a plain and a TLS listener for `a.example`, and the client for the latter.
struct Site {
    gateway: Gateway,
    authority: Authority,
    _folder: TempDir,
}

impl Site {
    fn start(config: GatewayConfig) -> Self {
        let (authority, folder) = (Authority::new(), TempDir::new().unwrap());
        let (cert, key) = authority.issue(&["a.example"]).write(folder.path(), "a");
        let pair = format!("{{ cert = \"{}\", key = \"{}\" }}", cert.display(), key.display());
        let tls = format!("[[server.tls]]\nlisten = \"127.0.0.1:0\"\ncertificates = [{pair}]");
        Self { gateway: Gateway::start(config.section(&tls)), authority, _folder: folder }
    }

    fn plain(&self) -> Client {
        self.gateway.client().host("a.example")
    }

    fn tls(&self) -> Client {
        let trust = client_config(&self.authority, &["http/1.1"]);
        Client::connect_tls(self.gateway.tls_address(), "a.example", &trust)
    }
}

#[test]
fn plain_requests_are_sent_to_https_with_their_path_and_query() {
    let upstream = Upstream::start();
    let site = Site::start(config().upstream(&upstream).server("redirect_to_https = true\nhttps_port = 443"));
    let mut client = site.plain();
    for (request, status, location) in [
        (Request::get("/a/b?c=d&e=%2f"), 301, "https://a.example/a/b?c=d&e=%2f"),
        (Request::new("HEAD", "/"), 301, "https://a.example/"),
        (Request::get("/").header("Host", "A.example.:8080"), 301, "https://a.example/"),
        (
            Request::get("http://other.example/x").header("Host", "other.example"),
            301,
            "https://other.example/x",
        ),
        (Request::get("//evil.example/x"), 301, "https://a.example//evil.example/x"),
        // Its body is not read, so the connection may end.
        (Request::post("/form", "body"), 308, "https://a.example/form"),
    ] {
        let answer = client.send(&request);
        assert_eq!((answer.status(), answer.header("location")), (status, Some(location)), "{request:?}");
        assert!(answer.body.is_empty());
    }
    let row = site.gateway.data().row_of("/a/b");
    assert_eq!((row.status, row.verdict.as_str(), row.reason.as_str()), (301, "admitted", ""));
    assert_eq!(upstream.requests(), 0);
    assert_eq!(site.tls().get("/a/b").status(), 200);
    site.gateway.data().wait_for_count(7);
}

#[test]
fn another_port_of_https_is_named_in_the_redirect() {
    let upstream = Upstream::start();
    let site =
        Site::start(config().upstream(&upstream).server("redirect_to_https = true\nhttps_port = 8443"));
    let answer = site.plain().get("/x");
    assert_eq!(answer.header("location"), Some("https://a.example:8443/x"));
}

#[test]
fn a_redirect_comes_after_the_decision() {
    let upstream = Upstream::start();
    let lines = "redirect_to_https = true\nhttps_port = 443";
    let block = "[[block]]\nnetwork = \"203.0.113.9\"\nreason = \"test\"";
    let site =
        Site::start(behind_proxy(&upstream).server(lines).section(block).limit("all", "rate = \"2/1h\""));
    let status = |client: &str| site.plain().forwarded_for(client).get("/").status();
    assert_eq!(status("203.0.113.9"), 403);
    assert_eq!([1, 2, 3].map(|_| status("203.0.113.10")), [301, 301, 429]);
}

#[test]
fn who_comes_over_https_to_a_trusted_proxy_is_not_redirected() {
    let upstream = Upstream::start();
    let trusting = behind_proxy(&upstream).server("redirect_to_https = true");
    let request = Request::get("/").header("X-Forwarded-Proto", "https").header("Host", "a.example");
    let gateway = Gateway::start(trusting);
    assert_eq!(gateway.client().send(&request).status(), 200);
    assert_eq!(gateway.client().host("a.example").get("/").header("location"), Some("https://a.example/"));
    let site = Site::start(config().upstream(&upstream).server("redirect_to_https = true\nhttps_port = 443"));
    assert_eq!(site.gateway.client().send(&request).status(), 301, "nobody else is believed");
}

#[test]
fn a_redirect_needs_a_valid_host_and_spares_challenges() {
    let upstream = Upstream::start();
    let site = Site::start(config().upstream(&upstream).server("redirect_to_https = true\nhttps_port = 443"));
    let evil = Request::get("/").header("Host", "a.example/<x>");
    assert_eq!(site.plain().send(&evil).status(), 400);
    let mut old = site.gateway.client();
    old.write(b"GET / HTTP/1.0\r\n\r\n");
    assert_eq!(old.read_response("GET").status(), 400);
    assert_eq!(upstream.requests(), 0);
    assert_eq!(site.plain().get("/.well-known/acme-challenge/of-the-site").status(), 200);
    assert_eq!(upstream.requests(), 1);
}

#[test]
fn hsts_is_said_over_https_alone_on_every_answer() {
    const NAME: &str = "strict-transport-security";
    let upstream = Upstream::start();
    let block = "[[block]]\nnetwork = \"203.0.113.9\"\nreason = \"test\"";
    let lines = "hsts = \"365d\"\nhsts_subdomains = true\nhsts_preload = true";
    let site = Site::start(behind_proxy(&upstream).server(lines).section(block));
    let value = Some("max-age=31536000; includeSubDomains; preload");
    assert_eq!(site.tls().get("/").header(NAME), value);
    let refused = site.tls().forwarded_for("203.0.113.9").get("/");
    assert_eq!((refused.status(), refused.header(NAME)), (403, value));
    let mut broken = site.tls();
    broken.write(b"no request\r\n\r\n");
    let answer = broken.read_response("GET");
    assert_eq!((answer.status(), answer.header(NAME)), (400, value));
    let behind = Request::get("/").header("X-Forwarded-Proto", "https");
    assert_eq!(site.plain().send(&behind).header(NAME), value);
    assert_eq!(site.plain().get("/").header(NAME), None);
    assert_eq!(site.plain().forwarded_for("203.0.113.9").get("/").header(NAME), None);
}

#[test]
fn settings_that_would_lead_nowhere_are_refused() {
    let upstream = Upstream::start();
    for (lines, says) in [
        ("redirect_to_https = true", "there is no https"),
        ("hsts = \"30d\"\nhsts_preload = true", "server.hsts_preload: needs"),
        ("hsts = \"for ever\"", "server.hsts: expected a duration"),
        ("https_port = 0", "from 1 to 65535"),
    ] {
        let output = config().upstream(&upstream).server(lines).run_to_end();
        assert_eq!(output.code, Some(2), "{lines}");
        assert!(output.stderr.contains(says), "{lines}: {}", output.stderr);
    }
}
