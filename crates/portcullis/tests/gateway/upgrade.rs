//! Another process takes the place of the gateway: no request fails, no row is missing or there twice,
//! whatever becomes of the new process.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::PathBuf;
use std::time::Duration;

use portcullis_testkit::tungstenite::protocol::Message;
use portcullis_testkit::{
    Authority, Counts, Gateway, H2Client, H2Request, Load, Request, Upstream, Visitors, client_config,
    eventually, tungstenite,
};

use crate::config;

/// Busy ones, ones that come anew each time, and ones whose connections are mostly idle.
const VISITORS: [Visitors; 3] = [
    Visitors { count: 3, keep_alive: true, pause: Duration::from_millis(1) },
    Visitors { count: 3, keep_alive: false, pause: Duration::from_millis(2) },
    Visitors { count: 20, keep_alive: true, pause: Duration::from_millis(120) },
];

fn under_load(gateway: &Gateway) -> Load {
    let load = Load::start(gateway.address(), &VISITORS);
    more_answers(&load, 200);
    load
}

fn more_answers(load: &Load, more: u64) {
    let wanted = load.answered() + more;
    eventually("more answers", || (load.answered() >= wanted).then_some(()));
}

/// Every answer has its row, and no other row is there.
fn assert_nothing_failed(gateway: &Gateway, counts: Counts) {
    assert_eq!(counts.failed(), 0, "{counts:?}");
    gateway.data().wait_for_count(counts.good);
    let distinct: i64 = gateway.data().sql("SELECT count(DISTINCT id) FROM request_log");
    assert_eq!(u64::try_from(distinct).unwrap(), counts.good);
}

/// A program of these lines, started in place of the gateway's. `$GATEWAY` is the real one.
fn program(gateway: &Gateway, lines: &str) -> String {
    let path: PathBuf = gateway.folder().join("program");
    let real = env!("CARGO_BIN_EXE_portcullis");
    fs::write(&path, format!("#!/bin/sh\nGATEWAY='{real}'\n{lines}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.display().to_string()
}

#[test]
fn an_upgrade_under_load_fails_no_request_and_loses_no_row() {
    let upstream = Upstream::start();
    let mut gateway = Gateway::start(config().upstream(&upstream));
    let load = under_load(&gateway);
    for _ in 0..3 {
        let (output, old) = gateway.upgrade(&[]);
        assert_eq!(output.code, Some(0), "{output:?}");
        assert_ne!(gateway.pid(), old);
        more_answers(&load, 200);
        gateway.wait_for_end(old);
    }
    assert_eq!(gateway.operations("/readyz").status(), 200);
    assert_nothing_failed(&gateway, load.stop());
    let ended = gateway.terminate();
    assert_eq!(ended.data.integrity(), ["ok", "ok"]);
}

#[test]
fn the_new_process_is_the_one_of_the_new_configuration() {
    let upstream = Upstream::start();
    let mut gateway = Gateway::start(config().upstream(&upstream).server("threads = 1"));
    let listen = "listen = [\"127.0.0.1:0\"";
    let second = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let text = fs::read_to_string(gateway.config_file()).unwrap();
    gateway.write_config(&text.replace(listen, &format!("{listen}, \"{second}\"")));
    let (output, old) = gateway.upgrade(&[]);
    assert_eq!(output.code, Some(0), "{output:?}");
    gateway.wait_for_end(old);
    assert_eq!(portcullis_testkit::Client::connect(second).get("/").status(), 200);
    assert_eq!(gateway.get("/").status(), 200, "the old address is still there");

    gateway.write_config(&text);
    let (output, old) = gateway.upgrade(&[]);
    assert_eq!(output.code, Some(0), "{output:?}");
    gateway.wait_for_end(old);
    std::net::TcpStream::connect(second).unwrap_err();
    gateway.data().wait_for_count(2);
}

#[test]
fn blocks_hold_across_an_upgrade() {
    let upstream = Upstream::start();
    let mut gateway = Gateway::start(config().upstream(&upstream).behind_local_proxy());
    gateway.cli_ok(&["block", "203.0.113.9"]);
    let (output, _) = gateway.upgrade(&[]);
    assert_eq!(output.code, Some(0), "{output:?}");
    assert_eq!(gateway.client_of("203.0.113.9").get("/").status(), 403);
    gateway.cli_ok(&["block", "203.0.113.10"]);
    eventually("a new block is in force", || {
        (gateway.client_of("203.0.113.10").get("/").status() == 403).then_some(())
    });
}

#[test]
fn a_client_at_its_limit_stays_there_across_an_upgrade() {
    let upstream = Upstream::start();
    let limited = config().upstream(&upstream).behind_local_proxy().limit("all", "rate = \"3/5m\"");
    let mut gateway = Gateway::start(limited);
    let ask = |gateway: &Gateway, client| gateway.client_of(client).get("/").status();
    for status in [200, 200, 200, 429] {
        assert_eq!(ask(&gateway, "203.0.113.1"), status);
    }
    assert_eq!(ask(&gateway, "203.0.113.2"), 200);
    for _ in 0..2 {
        let (output, _) = gateway.upgrade(&[]);
        assert_eq!(output.code, Some(0), "{output:?}");
        assert_eq!(ask(&gateway, "203.0.113.1"), 429);
        assert_eq!(ask(&gateway, "203.0.113.2"), 200);
    }
    assert_eq!(ask(&gateway, "203.0.113.2"), 429);
}

#[test]
fn a_program_that_does_not_come_to_serve_changes_nothing() {
    let upstream = Upstream::start();
    let mut gateway = Gateway::start(config().upstream(&upstream));
    let load = under_load(&gateway);
    let pid = gateway.pid();
    for (lines, arguments, said) in [
        ("echo 'no such library' >&2; exit 127", &[][..], "no such library"),
        ("exec sleep 60", &[], "did not say its version"),
        ("[ \"$1\" = --version ] && exec $GATEWAY --version; exit 3", &[], "exit status: 3"),
        (
            "[ \"$1\" = --version ] && exec $GATEWAY --version; exec sleep 60",
            &["--timeout", "1s"],
            "after 1 s",
        ),
        // It gets as far as the first byte that it has to write.
        (
            "[ \"$1\" = --version ] && exec $GATEWAY --version; ulimit -f 0; exec $GATEWAY \"$@\"",
            &[],
            "the new process",
        ),
    ] {
        let binary = program(&gateway, lines);
        let (output, _) = gateway.upgrade(&[&["--binary", &binary], arguments].concat());
        assert_eq!(output.code, Some(1), "{lines}: {output:?}");
        assert!(output.stderr.contains(said), "{lines}: {output:?}");
        assert_eq!(gateway.pid(), pid);
        more_answers(&load, 50);
    }
    let (output, _) = gateway.upgrade(&["--binary", "/no/such/program"]);
    assert!(output.stderr.contains("cannot start /no/such/program"), "{output:?}");
    assert_nothing_failed(&gateway, load.stop());
    assert_eq!(gateway.operations("/readyz").status(), 200);
    assert_eq!(gateway.terminate().code, Some(0));
}

#[test]
fn a_broken_configuration_stops_an_upgrade_and_the_reason_is_told() {
    let upstream = Upstream::start();
    let mut gateway = Gateway::start(config().upstream(&upstream));
    let load = under_load(&gateway);
    let text = fs::read_to_string(gateway.config_file()).unwrap();
    gateway.write_config(&text.replace("[server]", "[server]\nmax_had = 1"));
    // Once by the command's own reading of the file, once by the new process.
    let (output, _) = gateway.upgrade(&[]);
    assert_eq!(output.code, Some(2), "{output:?}");
    let folder = gateway.data().folder().display().to_string();
    let asked = std::process::Command::new(env!("CARGO_BIN_EXE_portcullis"))
        .args(["upgrade", "--data", &folder])
        .current_dir(gateway.folder())
        .output()
        .unwrap();
    let said = String::from_utf8(asked.stderr).unwrap();
    assert_eq!(asked.status.code(), Some(1), "{said}");
    assert!(said.contains("max_had"), "{said}");

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    gateway.write_config(&text.replace("listen = [\"127", &format!("listen = [\"{address}\", \"127")));
    let (output, _) = gateway.upgrade(&[]);
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(output.stderr.contains(&address.to_string()), "{output:?}");
    assert_nothing_failed(&gateway, load.stop());
}

/// Where the new process of [`successor_that_fails`] fails.
const MOMENT: &str = "PORTCULLIS_TEST_MOMENT";

#[test]
fn a_new_process_that_is_lost_in_the_middle_of_the_handover_costs_nothing() {
    let upstream = Upstream::start();
    let mut gateway = Gateway::start(config().upstream(&upstream));
    let load = under_load(&gateway);
    let this = std::env::current_exe().unwrap().display().to_string();
    for (moment, said) in [
        ("dies at once", "the new process"),
        ("dies when ready", "the new process"),
        ("dies with the log", "the new process"),
        ("says nonsense", "the new process"),
        ("hangs with the log", "was not there after 15 s"),
    ] {
        let lines = format!(
            "[ \"$1\" = --version ] && exec $GATEWAY --version\n\
             {MOMENT}='{moment}' exec '{this}' --ignored --exact upgrade::successor_that_fails"
        );
        let binary = program(&gateway, &lines);
        let (output, _) = gateway.upgrade(&["--binary", &binary]);
        assert_eq!(output.code, Some(1), "{moment}: {output:?}");
        assert!(output.stderr.contains(said), "{moment}: {output:?}");
        more_answers(&load, 50);
    }
    let (output, old) = gateway.upgrade(&[]);
    assert_eq!(output.code, Some(0), "{output:?}");
    gateway.wait_for_end(old);
    assert_nothing_failed(&gateway, load.stop());
}

/// Speaks the two processes' language on its standard input, as far as it gets.
#[test]
#[ignore = "this is no test but the new process of one"]
fn successor_that_fails() {
    let Ok(moment) = std::env::var(MOMENT) else { return };
    let mut link = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned().unwrap());
    let hear = |link: &mut UnixStream| {
        let mut length = [0; 4];
        link.read_exact(&mut length).unwrap();
        let mut text = vec![0; u32::from_le_bytes(length) as usize];
        link.read_exact(&mut text).unwrap();
        String::from_utf8(text).unwrap()
    };
    let say = |link: &mut UnixStream, text: &str| {
        let length = u32::try_from(text.len()).unwrap().to_le_bytes();
        link.write_all(&[&length[..], text.as_bytes()].concat()).unwrap();
    };
    let die =
        || rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap();
    assert!(hear(&mut link).contains("hello"));
    if moment == "dies at once" {
        die();
    }
    say(&mut link, "\"ready\"");
    if moment == "dies when ready" {
        die();
    }
    assert_eq!(hear(&mut link), "\"released\"");
    match moment.as_str() {
        "hangs with the log" => std::thread::sleep(Duration::from_secs(120)),
        "says nonsense" => say(&mut link, "\"ready\""),
        _ => die(),
    }
}

#[test]
fn what_is_open_goes_on_in_the_old_process_until_the_drain_limit() {
    let upstream = Upstream::start();
    let mut gateway = Gateway::start(config().upstream(&upstream).server("drain_timeout = \"6s\""));
    let stream = std::net::TcpStream::connect(gateway.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let (mut socket, _) =
        tungstenite::client(format!("ws://{}/websocket", gateway.address()), stream).unwrap();
    let mut download = gateway.client();
    download.write_request(&Request::get("/bytes/20000000"));
    let head = download.read_head();

    let (output, old) = gateway.upgrade(&[]);
    assert_eq!(output.code, Some(0), "{output:?}");
    let mut total = 0;
    download.read_body(&head, "GET", |part| total += part.len());
    assert_eq!(total, 20_000_000);
    socket.send(Message::text("still there?")).unwrap();
    assert_eq!(socket.read().unwrap(), Message::text("still there?"));
    assert_eq!(gateway.get("/").status(), 200, "meanwhile the new one serves");
    gateway.wait_for_end(old);
    socket.read().unwrap_err();
    // The rows of the old process are written by the new one.
    gateway.data().row_of("/bytes/20000000");
    gateway.data().row_of("/websocket");
    gateway.data().wait_for_count(3);
}

#[test]
fn idle_connections_are_told_with_their_next_answer() {
    let upstream = Upstream::start();
    let mut gateway = Gateway::start(config().upstream(&upstream));
    let mut client = gateway.client();
    assert_ne!(client.get("/").header("connection"), Some("close"));
    let (output, old) = gateway.upgrade(&[]);
    assert_eq!(output.code, Some(0), "{output:?}");
    let last = client.get("/last");
    assert_eq!((last.status(), last.header("connection")), (200, Some("close")));
    gateway.wait_for_end(old);
    gateway.data().wait_for_count(2);
}

#[test]
fn an_http2_connection_finishes_what_it_carries_and_is_then_closed() {
    let upstream = Upstream::start();
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let (cert, key) = authority.issue(&["gateway.test"]).write(folder.path(), "gateway");
    let section = format!(
        "[[server.tls]]\nlisten = \"127.0.0.1:0\"\ncertificates = [{{ cert = \"{}\", key = \"{}\" }}]",
        cert.display(),
        key.display()
    );
    let mut gateway = Gateway::start(config().upstream(&upstream).section(&section));
    let connect = |gateway: &Gateway| {
        H2Client::connect(gateway.tls_address(), "gateway.test", &client_config(&authority, &["h2"]))
    };
    let busy = connect(&gateway);
    let slow = std::thread::spawn(move || {
        let answers = busy.send_all(vec![H2Request::get("/slow/1500"); 8]);
        answers.into_iter().map(|answer| answer.unwrap().status()).collect::<Vec<_>>()
    });
    eventually("the requests are under way", || (upstream.requests() == 8).then_some(()));
    let (output, old) = gateway.upgrade(&[]);
    assert_eq!(output.code, Some(0), "{output:?}");
    assert_eq!(connect(&gateway).send(H2Request::get("/new")).unwrap().status(), 200);
    assert_eq!(slow.join().unwrap(), [200; 8]);
    gateway.wait_for_end(old);
    gateway.data().wait_for_count(9);
}

#[test]
fn an_upstream_that_the_new_process_cannot_find_stops_an_upgrade() {
    let upstream = Upstream::start();
    let mut gateway = Gateway::start(config().upstream(&upstream));
    let text = fs::read_to_string(gateway.config_file()).unwrap();
    gateway.write_config(&text.replace(&upstream.url(), "http://nobody.invalid:1"));
    let (output, _) = gateway.upgrade(&[]);
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(output.stderr.contains("upstream app: none of its servers has an address"), "{output:?}");
}

#[test]
fn the_service_manager_hears_of_start_reload_upgrade_and_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let hear = || {
        let mut bytes = [0; 256];
        let length = manager.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    };
    let upstream = Upstream::start();
    let mut gateway =
        Gateway::start(config().upstream(&upstream).env("NOTIFY_SOCKET", path.to_str().unwrap()));
    assert!(hear().contains(&format!("READY=1\nMAINPID={}", gateway.pid())));
    gateway.hang_up();
    let reloading = hear();
    assert!(reloading.contains("RELOADING=1") && reloading.contains("MONOTONIC_USEC="), "{reloading}");
    assert!(hear().contains("READY=1"));
    let (output, _) = gateway.upgrade(&[]);
    assert_eq!(output.code, Some(0), "{output:?}");
    assert!(hear().contains(&format!("READY=1\nMAINPID={}", gateway.pid())));
    gateway.begin_to_end();
    assert!(hear().contains("STOPPING=1"));
}

#[test]
fn nobody_to_ask_is_said_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_portcullis"))
        .args(["upgrade", "--data"])
        .arg(folder.path())
        .current_dir(folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("no gateway runs on the data folder"), "{said}");
}
