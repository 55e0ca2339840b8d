//! What keeps a gateway from starting is said in one sentence.

use std::fs;
use std::net::TcpListener;
use std::process::Command;

use portcullis_testkit::{Authority, Client, Gateway, GatewayConfig, Output, Upstream, eventually};
use tempfile::TempDir;

use crate::{config, in_front_of};

/// One line on stderr with each of these words, nothing on stdout, and a code that a script can see.
fn assert_one_sentence(output: &Output, words: &[&str]) {
    let Output { code, stdout, stderr } = output;
    assert!(matches!(code, Some(1 | 2)), "exit code {code:?}: {stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert_eq!(stdout, "");
    for word in words {
        assert!(stderr.contains(word), "{word:?} is not in {stderr}");
    }
}

fn start(config: &GatewayConfig) -> Output {
    config.run_to_end()
}

#[test]
fn a_port_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    assert_one_sentence(&start(&config().listen(&address)), &[&address, "port"]);
    let upstream = Upstream::start();
    let first = in_front_of(&upstream);
    let address = first.address().to_string();
    assert_one_sentence(&start(&config().listen(&address)), &[&address, "port"]);
    assert_eq!(first.get("/").status(), 200, "the first one is not disturbed");
}

#[test]
fn a_certificate_that_cannot_be_used_is_named() {
    let folder = TempDir::new().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let [one, other] = ["a.example", "b.example"].map(|name| Authority::new().issue(&[name]));
    let (cert, key) = (file("cert.pem", &one.certificate), file("key.pem", &one.key));
    let stranger = file("stranger.key", &other.key);
    let garbage = file("garbage.pem", "this is no certificate");
    let broken = file("broken.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let missing = folder.path().join("missing.pem").display().to_string();
    for (cert, key, named) in [
        (&missing, &key, &missing),
        (&cert, &missing, &missing),
        (&garbage, &key, &garbage),
        (&cert, &garbage, &garbage),
        (&cert, &stranger, &stranger),
        (&broken, &key, &broken),
    ] {
        let tls = format!(
            "[[server.tls]]\nlisten = \"127.0.0.1:0\"\ncertificates = [{{ cert = \"{cert}\", key = \"{key}\" }}]"
        );
        assert_one_sentence(&start(&config().section(&tls)), &[named]);
    }
}

#[test]
fn a_data_folder_that_cannot_be_written_is_named() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("a-file");
    fs::write(&file, "in the way").unwrap();
    for path in [file.clone(), file.join("below")] {
        let output = start(&config().data(&path));
        assert_one_sentence(&output, &[&path.display().to_string(), "folder", "--data"]);
    }
}

#[test]
fn a_database_of_a_newer_version_is_left_alone() {
    let upstream = Upstream::start();
    for name in ["log.db", "state.db"] {
        let ended = in_front_of(&upstream).terminate();
        ended.data.set_schema_version(name, 999);
        let output = start(&config().upstream(&upstream).data(ended.data.folder()));
        assert_one_sentence(&output, &[name, "999", "newer"]);
        assert_eq!(ended.data.schema_version(name), 999);
    }
}

#[test]
fn a_file_that_is_no_database_is_named() {
    let folder = TempDir::new().unwrap();
    let state = folder.path().join("state.db");
    fs::write(&state, "this is a diary and no database; ".repeat(100)).unwrap();
    assert_one_sentence(&start(&config().data(folder.path())), &["state.db", "damaged"]);
    assert!(fs::read_to_string(&state).unwrap().starts_with("this is a diary"), "it was overwritten");
}

#[test]
fn a_second_gateway_on_the_same_data_is_refused() {
    let upstream = Upstream::start();
    let first = in_front_of(&upstream);
    let folder = first.data().folder().to_owned();
    let output = start(&config().upstream(&upstream).data(&folder));
    assert_one_sentence(&output, &[&folder.display().to_string(), "another"]);
    assert_eq!(first.get("/").status(), 200);
    // Once the first has ended, however it ended, the folder is free.
    let ended = first.kill();
    assert_eq!(ended.start_again().get("/").status(), 200);
}

#[test]
fn mistakes_in_the_configuration_are_reported_together() {
    let output = start(&config().top("mdoe = \"enforce\"").section("[[block]]\nnetwork = \"10.0.0.0/99\""));
    assert_eq!((output.code, &*output.stdout), (Some(2), ""));
    assert!(
        output.stderr.contains("portcullis.toml:1:1:") && output.stderr.contains("10.0.0.0/99"),
        "{output:?}"
    );
}

#[test]
fn a_started_gateway_says_what_is_on() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(config().upstream(&upstream).limit("login", "rate = \"3/5m\""));
    let banner = fs::read_to_string(gateway.folder().join("stdout")).unwrap();
    for part in [
        &*gateway.address().to_string(),
        &upstream.url(),
        "enforce",
        "login 3/5m",
        "log.db",
        "no geo database",
    ] {
        assert!(banner.contains(part), "{part:?} is not in\n{banner}");
    }
    assert_eq!(gateway.stderr(), "", "nothing to complain about");
}

#[test]
fn metrics_health_and_readiness_have_their_own_listener() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    for path in ["/metrics", "/healthz", "/readyz"] {
        assert_eq!(gateway.operations(path).status(), 200, "{path}");
    }
    // On the site's listener these are the site's.
    assert_eq!(gateway.get("/metrics").text(), "hello from app");
    let text = gateway.metrics();
    for name in [
        "portcullis_requests_total{verdict=\"admitted\",class=\"2xx\"}",
        "portcullis_request_duration_seconds_bucket",
        "portcullis_blocks_active",
        "portcullis_limiter_keys",
        "portcullis_log_queue_depth",
        "portcullis_log_rows_written_total",
        "portcullis_log_rows_lost_total",
        "portcullis_detector_runs_total",
        "portcullis_geo_lookups_total",
        "portcullis_config_reloads_total",
        "portcullis_build_info",
    ] {
        assert!(text.contains(name), "{name} is not in\n{text}");
    }
    assert_eq!(gateway.cli(&["health"]).code, Some(1), "the file says port 0, where nobody can ask");
    drop(Client::connect(gateway.address()));
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_under_what_it_prints_does_not_end_a_gateway() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("portcullis.toml");
    fs::write(&file, config().text()).unwrap();
    let full = || fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut gateway = Command::new(env!("CARGO_BIN_EXE_portcullis"))
        .args(["run", "--config"])
        .arg(&file)
        .arg("--data")
        .arg(folder.path().join("data"))
        .stdout(full())
        .stderr(full())
        .spawn()
        .unwrap();
    eventually("the gateway starts", || folder.path().join("data/log.db").exists().then_some(()));
    let pid = rustix::process::Pid::from_child(&gateway);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let status = eventually("the gateway ends", || gateway.try_wait().unwrap());
    assert_eq!(status.code(), Some(0), "it ends as it was told to, with its records written");
}

#[test]
fn commands_of_a_newer_version_leave_the_database_of_a_running_gateway_as_it_is() {
    let upstream = Upstream::start();
    let ended = in_front_of(&upstream).terminate();
    let newest = ended.data.schema_version("state.db");
    ended.data.set_schema_version("state.db", 1);
    // As a gateway holds it.
    let lock = fs::File::open(ended.data.folder().join("log.lock")).unwrap();
    lock.lock().unwrap();
    for command in [
        &["blocks"][..],
        &["block", "203.0.113.9"],
        &["tasks"],
        &["detect"],
        &["feeds", "update"],
        &["migrate"],
    ] {
        let output = ended.cli(command);
        assert_eq!(output.code, Some(1), "{command:?}: {output:?}");
        assert!(output.stderr.contains("has schema version 1"), "{command:?}: {output:?}");
        assert!(output.stderr.contains("portcullis migrate"), "{command:?}: {output:?}");
        assert_eq!(ended.data.schema_version("state.db"), 1, "{command:?}");
    }
    assert_eq!(ended.cli(&["doctor"]).code, Some(2));
    ended.data.set_schema_version("state.db", newest);
    for command in [&["migrate"][..], &["block", "203.0.113.9"]] {
        assert_eq!(ended.cli(command).code, Some(0), "{command:?}");
    }
}
