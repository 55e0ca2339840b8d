//! What limits have counted survives the end of the gateway, however it ends.

use std::time::Duration;

use portcullis_testkit::{Gateway, GatewayConfig, Upstream, eventually};

use crate::{behind_proxy, config};

const LIMITED: &str = "203.0.113.7";
const JOURNAL: &str = "limits.journal";

/// A gateway at which a client has used up its limit.
fn used_up(upstream: &Upstream) -> Gateway {
    used_up_at(behind_proxy(upstream))
}

fn used_up_at(config: GatewayConfig) -> Gateway {
    let gateway = Gateway::start(config.limit("all", "rate = \"3/5m\""));
    let mut client = gateway.client_of(LIMITED);
    let statuses: Vec<u16> = (0..4).map(|_| client.get("/").status()).collect();
    assert_eq!(statuses, [200, 200, 200, 429]);
    gateway
}

fn status_of(gateway: &Gateway, client: &str) -> u16 {
    gateway.client_of(client).get("/").status()
}

#[test]
fn a_client_at_its_limit_is_refused_after_a_kill_that_comes_a_second_later() {
    let (upstream, data) = (Upstream::start(), tempfile::tempdir().unwrap());
    let gateway = used_up_at(behind_proxy(&upstream).data(data.path()));
    std::thread::sleep(Duration::from_millis(1_500));
    let gateway = gateway.kill().start_again();
    assert_eq!(status_of(&gateway, LIMITED), 429);
    assert_eq!(status_of(&gateway, "203.0.113.8"), 200, "nobody else");
    // And again, with what came in between.
    let mut other = gateway.client_of("203.0.113.9");
    (0..3).for_each(|_| assert_eq!(other.get("/").status(), 200));
    std::thread::sleep(Duration::from_millis(1_500));
    let gateway = gateway.kill().start_again();
    assert_eq!([LIMITED, "203.0.113.9"].map(|client| status_of(&gateway, client)), [429, 429]);
    assert_eq!(status_of(&gateway, "203.0.113.8"), 200);
}

#[test]
fn an_orderly_restart_forgets_no_request_at_all() {
    let upstream = Upstream::start();
    let gateway = used_up(&upstream);
    let gateway = gateway.terminate().start_again();
    assert_eq!(status_of(&gateway, LIMITED), 429);
}

#[test]
fn a_window_goes_on_while_no_gateway_runs() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(behind_proxy(&upstream).limit("all", "rate = \"1/4s\""));
    assert_eq!([LIMITED, LIMITED].map(|client| status_of(&gateway, client)), [200, 429]);
    let ended = gateway.terminate();
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(status_of(&ended.start_again(), LIMITED), 200);
}

#[test]
fn a_journal_that_cannot_be_read_is_set_aside_and_the_gateway_serves() {
    let upstream = Upstream::start();
    let ended = used_up(&upstream).terminate();
    let path = ended.data.folder().join(JOURNAL);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[0] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let gateway = ended.start_again();
    assert_eq!(status_of(&gateway, LIMITED), 200);
    assert_eq!(std::fs::read(path.with_extension("journal.unusable")).unwrap(), bytes);
    let warnings = gateway.stderr().matches("limits begin to count anew").count();
    assert_eq!(warnings, 1, "{}", gateway.stderr());
}

#[test]
fn the_journal_holds_no_address_and_nothing_is_written_without_a_limit() {
    let upstream = Upstream::start();
    let gateway = used_up(&upstream);
    let written = "portcullis_limiter_journal_written_bytes_total";
    eventually("the counts are written", || (gateway.metric(written) > 0.0).then_some(()));
    assert_eq!(gateway.metric("portcullis_limiter_journal_failing"), 0.0);
    let bytes = std::fs::read(gateway.data().folder().join(JOURNAL)).unwrap();
    let holds = |what: &[u8]| bytes.windows(what.len()).any(|part| part == what);
    assert!(!holds(LIMITED.as_bytes()) && !holds(&[203, 0, 113, 7]) && !holds(&[7, 113, 0, 203]));

    let unlimited = Gateway::start(config().upstream(&upstream));
    unlimited.get("/");
    assert!(!unlimited.terminate().data.folder().join(JOURNAL).exists());
}

#[test]
fn after_an_upgrade_the_new_process_writes_the_counts() {
    let upstream = Upstream::start();
    let mut gateway = used_up(&upstream);
    let (output, old) = gateway.upgrade(&[]);
    assert_eq!(output.code, Some(0), "{output:?}");
    gateway.wait_for_end(old);
    let mut other = gateway.client_of("203.0.113.9");
    (0..3).for_each(|_| assert_eq!(other.get("/").status(), 200));
    drop(other);
    let gateway = gateway.terminate().start_again();
    assert_eq!([LIMITED, "203.0.113.9"].map(|client| status_of(&gateway, client)), [429, 429]);
}
