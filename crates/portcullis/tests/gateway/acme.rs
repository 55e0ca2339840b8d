//! Certificates from a real authority (Pebble): issuing, renewing, failing, recovering.

use std::fs;
use std::time::Duration;

use portcullis_testkit::{
    Client, DEADLINE, Gateway, GatewayConfig, Pebble, PebbleConfig, Upstream, eventually, eventually_within,
    free_port, trusting,
};

use crate::config;

const NAME: &str = "www.site.test";

/// A gateway at the ports that the authority looks at, which gets a certificate for [`NAME`].
fn gateway_for(pebble: &PebbleConfig, upstream: &Upstream, acme: &str) -> GatewayConfig {
    let tls = format!("[[server.tls]]\nlisten = \"127.0.0.1:{}\"\nacme = [\"{NAME}\"]", pebble.tls_port);
    config()
        .upstream(upstream)
        .listen(&format!("127.0.0.1:{}", pebble.http_port))
        .section(&tls)
        .section(&pebble.acme(acme))
}

fn tls_client(gateway: &Gateway, root: &str) -> Client {
    Client::connect_tls(gateway.tls_address(), NAME, &trusting(root))
}

/// Whether a new connection gets a certificate of the authority.
fn is_trusted(gateway: &Gateway, root: &str) -> bool {
    tls_client(gateway, root).try_write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").is_ok()
}

fn wait_until_trusted(gateway: &Gateway, authority: &Pebble<'_>) {
    let root = authority.root();
    eventually_within(2 * DEADLINE, "the authority's certificate is shown", || {
        is_trusted(gateway, &root).then_some(())
    });
}

fn orders(gateway: &Gateway, outcome: &str) -> f64 {
    gateway.metric(&format!("portcullis_acme_orders_total{{outcome=\"{outcome}\"}}"))
}

fn expiry(gateway: &Gateway, source: &str) -> Option<f64> {
    let text = gateway.metrics();
    let lines = text.lines().filter(|line| line.starts_with("portcullis_tls_certificate_expiry_seconds"));
    let mut of_source = lines.filter(|line| line.contains(&format!("source=\"{source}\"")));
    of_source.next().and_then(|line| line.rsplit(' ').next()?.parse().ok())
}

#[test]
fn a_certificate_is_got_over_plain_http_past_blocks_limits_and_the_redirect() {
    let Some(pebble) = PebbleConfig::find() else { return };
    let (_authority, upstream) = (pebble.start(), Upstream::start());
    let gateway = Gateway::start(
        gateway_for(&pebble, &upstream, "contact = [\"admin@site.test\"]")
            .server("redirect_to_https = true")
            .limit("all", "rate = \"1/1h\"")
            .section("[[block]]\nnetwork = \"127.0.0.1\"\nreason = \"test\""),
    );
    // Handshakes of a blocked client are not even begun, so the metrics have to tell.
    eventually("the authority's certificate is in use", || expiry(&gateway, "acme"));
    assert_eq!((orders(&gateway, "issued"), orders(&gateway, "failed")), (1.0, 0.0));
    let asked = gateway.data().row_where("the challenge", |row| {
        row.path.starts_with("/.well-known/acme-challenge/") && row.status == 200
    });
    assert_eq!((asked.verdict.as_str(), asked.reason.as_str()), ("admitted", ""));
    assert_eq!(upstream.requests(), 0, "the site never saw it");
    // Afterwards the token is as good as any other path.
    assert_eq!(gateway.get(&asked.path).status(), 403);
    let listed = gateway.cli_ok(&["certs"]);
    assert!(listed.contains(NAME) && listed.contains("acme") && listed.contains("is renewed"), "{listed}");
    let keys = gateway.data().folder().join("acme/certificates").join(format!("{NAME}.pem"));
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(keys).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_certificate_is_got_by_a_handshake_without_any_plain_listener() {
    let Some(pebble) = PebbleConfig::find() else { return };
    let (authority, upstream) = (pebble.start(), Upstream::start());
    let config = gateway_for(&pebble, &upstream, "challenge = \"tls-alpn-01\"").without_plaintext();
    let gateway = Gateway::start(config);
    wait_until_trusted(&gateway, &authority);
    assert_eq!(tls_client(&gateway, &authority.root()).get("/").status(), 200);
    assert_eq!(orders(&gateway, "failed"), 0.0);
    gateway.data().row_of("/");
    // The proof itself leaves no row; the clients that did not trust the placeholder do.
    let is_known =
        |row: &portcullis_store::LogRow| row.path == "/" || row.reason == "malformed:tls_handshake";
    assert!(gateway.data().rows().iter().all(is_known));
}

#[test]
fn a_certificate_is_renewed_before_it_expires_although_nonces_are_rejected() {
    let Some(mut pebble) = PebbleConfig::find() else { return };
    (pebble.validity, pebble.rejected_nonces) = (12, 20);
    let (authority, upstream) = (pebble.start(), Upstream::start());
    let gateway = Gateway::start(gateway_for(&pebble, &upstream, ""));
    wait_until_trusted(&gateway, &authority);
    let root = authority.root();
    let mut open = tls_client(&gateway, &root);
    assert_eq!(open.get("/").status(), 200);
    let first = expiry(&gateway, "acme").unwrap();
    eventually_within(2 * DEADLINE, "the next certificate is in use", || {
        (expiry(&gateway, "acme").unwrap() > first).then_some(())
    });
    assert!(is_trusted(&gateway, &root));
    assert_eq!(open.get("/").status(), 200, "an open connection goes on");
    assert!(orders(&gateway, "issued") >= 2.0);
}

#[test]
fn an_authority_that_is_down_is_not_hammered_and_is_asked_again() {
    let Some(pebble) = PebbleConfig::find() else { return };
    let upstream = Upstream::start();
    let gateway = Gateway::start(gateway_for(&pebble, &upstream, ""));
    eventually("two tries have failed", || (orders(&gateway, "failed") >= 2.0).then_some(()));
    assert!(expiry(&gateway, "placeholder").is_some(), "clients get a self-signed certificate");
    let listed = gateway.cli_ok(&["certs"]);
    assert!(listed.contains("placeholder") && listed.contains("the next try is due"), "{listed}");
    let checked = gateway.cli_ok(&["check"]);
    assert!(checked.contains("no certificate of the authority yet"), "{checked}");
    assert!(checked.contains(&format!("{NAME} by http-01 from https://localhost")), "{checked}");
    assert!(checked.contains("nothing listens on port 80"), "{checked}");
    assert_eq!(gateway.get("/").status(), 200, "requests do not wait");
    let authority = pebble.start();
    wait_until_trusted(&gateway, &authority);
    assert!(expiry(&gateway, "placeholder").is_none());
    // The waits double: 1 s, 2 s, 4 s, 8 s, 16 s.
    assert!(orders(&gateway, "failed") <= 8.0, "{}", orders(&gateway, "failed"));
    assert!(!gateway.cli_ok(&["certs"]).contains("next try"));
}

#[test]
fn a_name_that_cannot_be_verified_is_explained_and_the_wait_survives_a_crash() {
    let Some(mut pebble) = PebbleConfig::find() else { return };
    let upstream = Upstream::start();
    let config = gateway_for(&pebble, &upstream, "retry = \"1h\"");
    // The authority looks where nobody listens.
    pebble.http_port = free_port();
    let _authority = pebble.start();
    let gateway = Gateway::start(config);
    eventually("the first try has failed", || (orders(&gateway, "failed") > 0.5).then_some(()));
    let listed = gateway.cli_ok(&["certs"]);
    assert!(listed.contains("could not verify the name") && listed.contains("refused"), "{listed}");
    let ended = gateway.kill();
    let state = ended.data.folder().join("acme/state.json");
    let before = fs::read(&state).unwrap();
    let gateway = ended.start_again();
    assert_eq!(gateway.get("/").status(), 200);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(fs::read(&state).unwrap(), before);
    assert_eq!(orders(&gateway, "failed"), 0.0);
}

#[test]
fn a_restart_keeps_the_account_and_the_certificate() {
    let Some(pebble) = PebbleConfig::find() else { return };
    let (authority, upstream) = (pebble.start(), Upstream::start());
    let gateway = Gateway::start(gateway_for(&pebble, &upstream, ""));
    wait_until_trusted(&gateway, &authority);
    let ended = gateway.terminate();
    let accounts = ended.data.folder().join("acme/accounts");
    let account = || {
        let files: Vec<_> = fs::read_dir(&accounts).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(files.len(), 1, "{files:?}");
        fs::read(&files[0]).unwrap()
    };
    let before = account();
    let gateway = ended.start_again();
    assert!(is_trusted(&gateway, &authority.root()), "from the first connection on");
    // A certificate that is gone is ordered again, by the same account.
    fs::remove_file(ended.data.folder().join("acme/certificates").join(format!("{NAME}.pem"))).unwrap();
    gateway.hang_up();
    drop(gateway);
    let gateway = ended.start_again();
    wait_until_trusted(&gateway, &authority);
    assert_eq!(orders(&gateway, "issued"), 1.0);
    assert_eq!(account(), before);
}

#[test]
fn what_was_tried_may_be_unreadable_and_renewals_go_on() {
    let Some(pebble) = PebbleConfig::find() else { return };
    let (authority, upstream) = (pebble.start(), Upstream::start());
    let folder = tempfile::TempDir::new().unwrap();
    let acme = folder.path().join("acme");
    fs::create_dir(&acme).unwrap();
    fs::write(acme.join("state.json"), "half a fi").unwrap();
    let gateway = Gateway::start(gateway_for(&pebble, &upstream, "").data(folder.path()));
    wait_until_trusted(&gateway, &authority);
    assert!(acme.join("state.json.broken").exists());
    assert!(gateway.stderr().contains("put aside"), "{}", gateway.stderr());
}

#[test]
fn an_account_that_the_authority_has_forgotten_is_replaced() {
    let Some(pebble) = PebbleConfig::find() else { return };
    let upstream = Upstream::start();
    let authority = pebble.start();
    let gateway = Gateway::start(gateway_for(&pebble, &upstream, ""));
    wait_until_trusted(&gateway, &authority);
    let ended = gateway.terminate();
    authority.end();
    fs::remove_file(ended.data.folder().join("acme/certificates").join(format!("{NAME}.pem"))).unwrap();
    // It remembers nothing and has another root.
    let authority = pebble.start();
    let gateway = ended.start_again();
    wait_until_trusted(&gateway, &authority);
}

#[test]
fn an_authority_that_has_customers_is_shown_the_key() {
    const KEY: &str = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
    let Some(mut pebble) = PebbleConfig::find() else { return };
    pebble.external_account = Some(("customer-1", KEY));
    let (authority, upstream) = (pebble.start(), Upstream::start());
    let gateway = Gateway::start(gateway_for(&pebble, &upstream, ""));
    eventually("an order without the key fails", || (orders(&gateway, "failed") > 0.5).then_some(()));
    assert!(gateway.cli_ok(&["certs"]).contains("externalAccountRequired"));
    let file = gateway.folder().join("eab.key");
    fs::write(&file, format!("{KEY}\n")).unwrap();
    let lines = format!("eab_key_id = \"customer-1\"\neab_key_file = \"{}\"", file.display());
    gateway.write_config(&gateway_for(&pebble, &upstream, &lines).text());
    gateway.hang_up();
    wait_until_trusted(&gateway, &authority);
}

#[test]
fn renewals_go_on_after_an_upgrade() {
    let Some(mut pebble) = PebbleConfig::find() else { return };
    pebble.validity = 12;
    let (authority, upstream) = (pebble.start(), Upstream::start());
    let mut gateway = Gateway::start(gateway_for(&pebble, &upstream, ""));
    wait_until_trusted(&gateway, &authority);
    let first = expiry(&gateway, "acme").unwrap();
    gateway.upgrade(&[]);
    assert!(is_trusted(&gateway, &authority.root()));
    eventually_within(2 * DEADLINE, "the new process has renewed it", || {
        (expiry(&gateway, "acme").unwrap() > first && orders(&gateway, "issued") > 0.5).then_some(())
    });
}

#[test]
fn settings_that_no_authority_could_serve_are_refused() {
    let upstream = Upstream::start();
    let tls = |acme: &str| format!("[[server.tls]]\nlisten = \"127.0.0.1:0\"\nacme = [{acme}]");
    for (names, lines, says) in [
        ("\"a.example\"", "", "accept_terms = true"),
        ("\"*.example\"", "[acme]\naccept_terms = true", "cannot be had by http-01"),
        ("\"192.0.2.1\"", "[acme]\naccept_terms = true", "expected a DNS name"),
        ("\"../x.example\"", "[acme]\naccept_terms = true", "expected a DNS name"),
        ("\"a.example\"", "[acme]\naccept_terms = true\ndirectory = \"http://a\"", "expected the https URL"),
        (
            "\"a.example\"",
            "[acme]\naccept_terms = true\nchallenge = \"dns-01\"",
            "\"http-01\" or \"tls-alpn-01\"",
        ),
        ("\"a.example\"", "[acme]\naccept_terms = true\ncontact = [\"me\"]", "expected a mail address"),
        ("\"a.example\"", "[acme]\naccept_terms = true\neab_key_id = \"x\"", "belong together"),
    ] {
        let output = config().upstream(&upstream).section(&tls(names)).section(lines).run_to_end();
        assert_eq!(output.code, Some(2), "{names} {lines}");
        assert!(output.stderr.contains(says), "{names} {lines}: {}", output.stderr);
    }
    let lines = "[acme]\naccept_terms = true";
    let output =
        config().upstream(&upstream).without_plaintext().section(&tls("\"a.example\"")).section(lines);
    assert!(output.run_to_end().stderr.contains("add a server.listen"));
}
