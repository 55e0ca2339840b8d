//! Which changes a running gateway takes, and which need a restart.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::path::Path;

use portcullis_config::{Config, Diff, Overrides, diff, parse};

const BASE: &str = r#"
data = "a"
[[upstream]]
name = "app"
servers = ["http://127.0.0.1:8000"]
[server]
listen = ["127.0.0.1:8080"]
threads = 2
[log]
queue = 65536
[metrics]
listen = "127.0.0.1:9611"
"#;

fn read(text: &str) -> Config {
    parse(text, "f.toml", Path::new(""), &Overrides::default())
        .unwrap_or_else(|errors| panic!("{errors}\n{text}"))
}

fn changed(from: &str, to: &str) -> Diff {
    assert!(BASE.contains(from), "{from:?} is not in the base");
    diff(&read(BASE), &read(&BASE.replacen(from, to, 1)))
}

#[test]
fn the_same_settings_written_differently_are_unchanged() {
    assert_eq!(changed("data = \"a\"", "data = \"a\"\nmode = \"enforce\" # the default"), Diff::Unchanged);
    assert_eq!(changed("[server]", "[server]\nhead_timeout = \"10000ms\""), Diff::Unchanged);
}

#[test]
fn what_cannot_change_while_running_needs_a_restart() {
    for (from, to, field) in [
        ("data = \"a\"", "data = \"b\"", "data"),
        ("127.0.0.1:8080", "127.0.0.1:8081", "server.listen"),
        ("threads = 2", "threads = 3", "server.threads"),
        ("[server]", "[server]\ngrace_period = \"1s\"", "server.grace_period"),
        ("queue = 65536", "queue = 1024", "log.queue"),
        ("127.0.0.1:9611", "127.0.0.1:9613", "metrics.listen"),
        ("[metrics]", "[console]\nlisten = \"off\"\n[metrics]", "console"),
        ("127.0.0.1:9611", "off", "metrics.listen"),
    ] {
        assert_eq!(
            changed(from, to),
            Diff::RestartRequired { fields: vec![field], live: Vec::new() },
            "{to}"
        );
    }
}

#[test]
fn where_a_proxy_header_is_expected_needs_a_restart() {
    let lines = "[server]\ntrusted_proxies = [\"10.0.0.1\"]\nproxy_protocol = [\"127.0.0.1:8080\"]";
    let (fields, live) = (vec!["server.proxy_protocol"], vec!["server.trusted_proxies"]);
    assert_eq!(changed("[server]", lines), Diff::RestartRequired { fields, live });
}

#[test]
fn everything_else_changes_while_running() {
    for (from, to, field) in [
        ("data = \"a\"", "data = \"a\"\nmode = \"dry-run\"", "mode"),
        ("127.0.0.1:8000", "127.0.0.1:8001", "upstream"),
        ("[server]", "[[route]]\nupstream = \"app\"\n[server]", "route"),
        ("[server]", "[[limit]]\nname = \"a\"\nrate = \"1/s\"\n[server]", "limit"),
        ("[server]", "[[block]]\nnetwork = \"192.0.2.1\"\n[server]", "block"),
        ("[server]", "[[allow]]\nnetwork = \"192.0.2.1\"\n[server]", "allow"),
        ("[server]", "[identity]\nlogin_paths = [\"/login\"]\n[server]", "identity"),
        ("[server]", "[detection]\nforest = false\n[server]", "detection"),
        ("[server]", "[alerts]\nmax_per_hour = 5\n[server]", "alerts"),
        ("[server]", "[pages]\nname = \"Us\"\n[server]", "pages"),
        ("[server]", "[tasks]\ncleanup = \"@hourly\"\n[server]", "tasks"),
        ("[server]", "[server]\ntrusted_proxies = [\"10.0.0.1\"]", "server.trusted_proxies"),
        ("[server]", "[server]\nforwarded_header = true", "server.forwarded_header"),
        ("[server]", "[server]\nhsts = \"1d\"", "server.hsts"),
        ("[server]", "[server]\nmax_body = \"1MB\"", "server.max_body"),
        ("[server]", "[server]\nmax_head = \"16KiB\"", "server.max_head"),
        ("[server]", "[server]\nmax_headers = 50", "server.max_headers"),
        ("[server]", "[server]\nmax_uri = \"4KiB\"", "server.max_uri"),
        ("[server]", "[server]\nescaped_slashes = true", "server.escaped_slashes"),
        ("[server]", "[server]\nhead_timeout = \"5s\"", "server.head_timeout"),
        ("[server]", "[server]\nkeepalive_timeout = \"5s\"", "server.keepalive_timeout"),
        ("[server]", "[server]\ndrain_timeout = \"5s\"", "server.drain_timeout"),
        ("[server]", "[server]\nbody_timeout = \"5s\"", "server.body_timeout"),
        ("[server]", "[server]\nmin_rate = \"1KiB\"", "server.min_rate"),
        ("[server]", "[server]\nmax_connections = 10", "server.max_connections"),
        ("[server]", "[server]\nmax_connections_per_client = 0", "server.max_connections_per_client"),
        ("[server]", "[server]\nmax_stalled = 10", "server.max_stalled"),
        ("queue = 65536", "retention = \"1d\"", "log.retention"),
        ("queue = 65536", "max_size = \"1GiB\"", "log.max_size"),
        ("queue = 65536", "flush_interval = \"1s\"", "log.flush_interval"),
    ] {
        assert_eq!(changed(from, to), Diff::Live { changed: vec![field] }, "{to}");
    }
}

#[test]
fn certificates_change_while_running_and_listeners_do_not() {
    let folder = tempfile::tempdir().unwrap();
    for (name, kind) in [("c.pem", "CERTIFICATE"), ("d.pem", "CERTIFICATE"), ("k.pem", "PRIVATE KEY")] {
        std::fs::write(folder.path().join(name), format!("-----BEGIN {kind}-----\n")).unwrap();
    }
    let with = |port: u16, cert: &str, more: &str| {
        let pair = format!("{{ cert = \"{cert}\", key = \"k.pem\" }}");
        let tls = format!("[[server.tls]]\nlisten = \"127.0.0.1:{port}\"\ncertificates = [{pair}]\n");
        parse(&format!("{BASE}{tls}{more}"), "f.toml", folder.path(), &Overrides::default()).unwrap()
    };
    let old = with(8443, "c.pem", "");
    let live = Diff::Live { changed: vec!["server.tls"] };
    assert_eq!(diff(&old, &with(8443, "d.pem", "")), live);
    assert_eq!(diff(&old, &with(8443, "c.pem", "http2 = false\n")), live);
    let restart = |live| Diff::RestartRequired { fields: vec!["server.tls.listen"], live };
    assert_eq!(diff(&old, &with(8444, "c.pem", "")), restart(Vec::new()));
    let none = parse(BASE, "f.toml", folder.path(), &Overrides::default()).unwrap();
    assert_eq!(diff(&old, &none), restart(Vec::new()));
}

#[test]
fn a_restart_also_names_what_could_be_applied_at_once() {
    let diff = changed("threads = 2", "threads = 3\nmax_headers = 50");
    assert_eq!(
        diff,
        Diff::RestartRequired { fields: vec!["server.threads"], live: vec!["server.max_headers"] }
    );
}
