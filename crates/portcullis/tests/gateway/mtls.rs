//! What a TLS listener asks of clients: a version, a certificate.

use std::sync::Arc;

use portcullis_testkit::{
    Authority, Client, ClientConfig, Gateway, Request, Upstream, client_config, client_config_as, eventually,
    old_client_config,
};
use tempfile::TempDir;

use crate::config;

const NAMES: [&str; 3] = ["x-client-cert-verify", "x-client-cert-subject", "x-client-cert-fingerprint"];

/// A TLS listener for `a.example` with more lines, and the authority of its clients in `clients.pem`.
struct Site {
    gateway: Gateway,
    upstream: Upstream,
    servers: Authority,
    clients: Authority,
    folder: TempDir,
}

impl Site {
    fn start(lines: &str) -> Self {
        let (servers, clients, folder) = (Authority::new(), Authority::new(), TempDir::new().unwrap());
        let (cert, key) = servers.issue(&["a.example"]).write(folder.path(), "a");
        let authority = folder.path().join("clients.pem");
        std::fs::write(&authority, clients.pem()).unwrap();
        let pair = format!("{{ cert = \"{}\", key = \"{}\" }}", cert.display(), key.display());
        let lines = lines.replace("CLIENTS", &authority.display().to_string());
        let tls = format!("[[server.tls]]\nlisten = \"127.0.0.1:0\"\ncertificates = [{pair}]\n{lines}");
        let upstream = Upstream::start();
        let gateway = Gateway::start(config().upstream(&upstream).section(&tls));
        Self { gateway, upstream, servers, clients, folder }
    }

    fn with(&self, config: &Arc<ClientConfig>) -> Client {
        Client::connect_tls(self.gateway.tls_address(), "a.example", config)
    }

    fn client(&self, name: &str) -> Client {
        self.with(&client_config_as(&self.servers, &self.clients.issue_client(name)))
    }

    fn nobody(&self) -> Client {
        self.with(&client_config(&self.servers, &[]))
    }
}

/// TLS 1.3 tells a client that it is refused only after its first bytes.
fn is_refused(mut client: Client) -> bool {
    client.try_write(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").is_err() || client.try_read().is_empty()
}

#[test]
fn clients_without_a_certificate_of_the_authority_are_refused_and_recorded() {
    let site = Site::start("client_ca = \"CLIENTS\"");
    assert!(is_refused(site.nobody()));
    let stranger = Authority::new().issue_client("alice");
    assert!(is_refused(site.with(&client_config_as(&site.servers, &stranger))));
    eventually("both are recorded", || {
        let rows = site.gateway.data().rows();
        (rows.iter().filter(|row| row.reason == "malformed:tls_handshake").count() == 2).then_some(())
    });
    assert_eq!(site.upstream.requests(), 0);
    assert_eq!(site.client("alice").get("/").status(), 200);
}

#[test]
fn the_site_is_told_who_the_client_is_and_clients_cannot_say_it() {
    let site = Site::start("client_ca = \"CLIENTS\"\nclient_auth = \"optional\"");
    let forged = NAMES.iter().fold(Request::get("/"), |request, name| request.header(name, "forged"));
    let forged = forged.header("X_Client_Cert_Subject", "forged").header("Client-Cert", "forged");
    assert_eq!(site.client("alice, CN=admin").send(&forged).status(), 200);
    let seen = site.upstream.last();
    assert_eq!(seen.header("x-client-cert-verify"), "SUCCESS");
    assert_eq!(seen.header("x-client-cert-subject"), "CN=alice\\, CN\\=admin,O=Testers");
    assert_eq!(seen.header("x-client-cert-fingerprint").len(), 64);
    for mut client in [site.nobody(), site.gateway.client()] {
        assert_eq!(client.send(&forged).status(), 200);
        let seen = site.upstream.last();
        for name in NAMES.iter().chain(&["x_client_cert_subject", "client-cert"]) {
            assert!(seen.all(name).is_empty(), "{name}");
        }
    }
}

#[test]
fn a_wrong_certificate_is_refused_also_where_none_is_needed() {
    let site = Site::start("client_ca = \"CLIENTS\"\nclient_auth = \"optional\"");
    let stranger = Authority::new().issue_client("alice");
    assert!(is_refused(site.with(&client_config_as(&site.servers, &stranger))));
}

#[test]
fn the_authorities_of_clients_change_without_a_restart() {
    let site = Site::start("client_ca = \"CLIENTS\"");
    let new = Authority::new();
    let newcomer = client_config_as(&site.servers, &new.issue_client("bob"));
    assert!(is_refused(site.with(&newcomer)));
    // This client keeps its session, and would resume it.
    let alice = client_config_as(&site.servers, &site.clients.issue_client("alice"));
    assert_eq!(site.with(&alice).get("/").status(), 200);
    std::fs::write(site.folder.path().join("clients.pem"), new.pem()).unwrap();
    eventually("the new authority is trusted", || (!is_refused(site.with(&newcomer))).then_some(()));
    assert!(is_refused(site.with(&alice)));
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    std::fs::write(site.folder.path().join("clients.pem"), broken).unwrap();
    let failures = "portcullis_tls_certificate_reload_failures_total";
    eventually("the broken file is noticed", || (site.gateway.metric(failures) > 0.0).then_some(()));
    assert!(!is_refused(site.with(&newcomer)), "the authorities of before stay in force");
    let checked = site.gateway.cli(&["check"]);
    assert_eq!(checked.code, Some(2), "{checked:?}");
    assert!(checked.stderr.contains("clients.pem"), "{checked:?}");
}

#[test]
fn a_reload_asks_new_connections_for_a_certificate_and_leaves_open_ones_alone() {
    let site = Site::start("");
    let mut open = site.nobody();
    assert_eq!(open.get("/").status(), 200);
    let authority = site.folder.path().join("clients.pem");
    let text = std::fs::read_to_string(site.gateway.config_file()).unwrap();
    let asking =
        text.replace("certificates = ", &format!("client_ca = \"{}\"\ncertificates = ", authority.display()));
    site.gateway.write_config(&asking);
    site.gateway.hang_up();
    eventually("a certificate is asked for", || is_refused(site.nobody()).then_some(()));
    assert_eq!(site.client("alice").get("/").status(), 200);
    assert_eq!(open.get("/").status(), 200);
}

#[test]
fn a_listener_can_insist_on_tls_1_3() {
    let new = Site::start("min_version = \"1.3\"");
    assert!(is_refused(new.with(&old_client_config(&new.servers))));
    assert_eq!(new.nobody().get("/").status(), 200);
    let both = Site::start("");
    assert_eq!(both.with(&old_client_config(&both.servers)).get("/").status(), 200);
}

#[test]
fn wrong_settings_for_clients_are_refused() {
    let upstream = Upstream::start();
    let folder = TempDir::new().unwrap();
    let (cert, key) = Authority::new().issue(&["a.example"]).write(folder.path(), "a");
    let pair = format!("{{ cert = \"{}\", key = \"{}\" }}", cert.display(), key.display());
    for (lines, says) in [
        ("client_auth = \"required\"", "needs client_ca"),
        ("client_ca = \"missing.pem\"", "there is no file"),
        ("min_version = \"1.1\"", "expected \"1.2\" or \"1.3\""),
    ] {
        let tls = format!("[[server.tls]]\nlisten = \"127.0.0.1:0\"\ncertificates = [{pair}]\n{lines}");
        let output = config().upstream(&upstream).section(&tls).run_to_end();
        assert_eq!(output.code, Some(2), "{lines}");
        assert!(output.stderr.contains(says), "{lines}: {}", output.stderr);
    }
}
