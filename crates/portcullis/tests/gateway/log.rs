//! Every request has its row, whatever became of it and however the gateway ends.

use std::thread;
use std::time::{Duration, Instant};

use portcullis_testkit::{Client, Gateway, Request, Upstream, exchange};

use crate::{behind_proxy, config, in_front_of};

#[test]
fn the_log_has_as_many_rows_as_there_were_answers() {
    const CONNECTIONS: usize = 4;
    const REQUESTS: usize = 5_000;
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    thread::scope(|scope| {
        for _ in 0..CONNECTIONS {
            scope.spawn(|| {
                let mut client = gateway.client();
                for n in 0..REQUESTS {
                    assert_eq!(client.get(&format!("/item/{}?n={n}", n % 100)).status(), 200);
                }
            });
        }
    });
    gateway.data().wait_for_count((CONNECTIONS * REQUESTS) as u64);
    let paths: i64 = gateway.data().sql("SELECT count(DISTINCT path) FROM request_log WHERE status = 200");
    assert_eq!(paths, 100);
    assert_eq!(gateway.metric("portcullis_log_rows_lost_total"), 0.0);
    assert_eq!(gateway.metric("portcullis_log_rows_written_total"), (CONNECTIONS * REQUESTS) as f64);
    assert_eq!(upstream.requests(), CONNECTIONS * REQUESTS);
}

#[test]
fn every_refusal_and_every_malformed_request_has_its_row() {
    let upstream = Upstream::start();
    let block = "[[block]]\nnetwork = \"203.0.113.9\"\nreason = \"test\"";
    let config = behind_proxy(&upstream).section(block).limit("page", "paths = [\"/page\"]\nrate = \"2/1h\"");
    let gateway = Gateway::start(config);
    for _ in 0..10 {
        gateway.client_of("203.0.113.9").get("/blocked");
    }
    for _ in 0..10 {
        gateway.client_of("203.0.113.10").get("/page");
    }
    for _ in 0..10 {
        exchange(gateway.address(), b"this is no request\r\n\r\n");
    }
    gateway.data().wait_for_count(30);
    let of = |verdict: &str| {
        gateway.data().sql::<i64>(&format!("SELECT count(*) FROM request_log WHERE verdict = '{verdict}'"))
    };
    assert_eq!([of("blocked"), of("limited"), of("admitted"), of("malformed")], [10, 8, 2, 10]);
    let counted = |verdict: &str, class: &str| {
        gateway.metric(&format!("portcullis_requests_total{{verdict=\"{verdict}\",class=\"{class}\"}}"))
    };
    assert_eq!([counted("blocked", "4xx"), counted("admitted", "2xx")], [10.0, 2.0]);
    let shown = gateway.cli(&["logs"]).stdout;
    let rows = |verdict: &str| shown.lines().filter(|line| line.contains(verdict)).count();
    assert_eq!(
        [rows(" blocked "), rows(" limited "), rows(" malformed:bad_request ")],
        [10, 8, 10],
        "{shown}"
    );
}

#[test]
fn a_stopped_gateway_has_written_everything() {
    let upstream = Upstream::start();
    // Nothing is written before the end, unless the batch is full.
    let gateway = Gateway::start(config().upstream(&upstream).section("[log]\nflush_interval = \"10s\""));
    let mut client = gateway.client();
    for _ in 0..700 {
        client.get("/");
    }
    drop(client);
    let ended = gateway.terminate();
    assert_eq!((ended.code, ended.data.count()), (Some(0), 700));
    assert_eq!(ended.data.integrity(), ["ok", "ok"]);
}

#[test]
fn an_open_request_is_finished_before_the_gateway_ends() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    let mut client = gateway.client();
    client.write_request(&Request::get("/slow/1500"));
    portcullis_testkit::eventually("the upstream has the request", || {
        (upstream.requests() == 1).then_some(())
    });
    gateway.begin_to_end();
    assert_eq!(client.read_response("GET").text(), "slow");
    let ended = gateway.terminate();
    assert_eq!((ended.code, ended.data.count()), (Some(0), 1));
}

#[test]
fn idle_connections_do_not_hold_up_the_end() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(config().upstream(&upstream).server("grace_period = \"60s\""));
    let mut idle = gateway.client();
    idle.get("/");
    let silent = gateway.client();
    // Waits less than the grace period.
    let ended = gateway.terminate();
    assert_eq!((ended.code, ended.data.count()), (Some(0), 1));
    drop(silent);
}

#[test]
fn kill_9_loses_no_row_that_is_older_than_the_flush_interval() {
    // The flush interval, and what a busy machine may add.
    const MAY_BE_LOST: Duration = Duration::from_millis(100 + 1_500);
    let upstream = Upstream::start();
    let gateway = Gateway::start(config().upstream(&upstream).section("[log]\nflush_interval = \"100ms\""));
    let mut client = gateway.client();
    let mut answered = Vec::new();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(3) {
        let n = answered.len();
        client.get(&format!("/{n}"));
        answered.push(Instant::now());
        thread::sleep(Duration::from_millis(3));
    }
    let killed = Instant::now();
    let ended = gateway.kill();
    let safe = answered.iter().filter(|at| killed - **at > MAY_BE_LOST).count();
    assert!(safe > 0);
    let gateway = ended.start_again();
    assert_eq!(gateway.data().integrity(), ["ok", "ok"]);
    let rows = gateway.data().rows();
    assert!((safe..=answered.len()).contains(&rows.len()), "{} of {} rows", rows.len(), answered.len());
    for (n, row) in rows.iter().enumerate() {
        assert_eq!(row.path, format!("/{n}"), "what is lost is the end, and nothing in between");
    }
    gateway.get("/after");
    gateway.data().row_of("/after");
}

#[test]
fn the_log_can_be_read_while_it_is_written() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    thread::scope(|scope| {
        let writing = scope.spawn(|| {
            let mut client = gateway.client();
            (0..2_000).for_each(|_| assert_eq!(client.get("/").status(), 200));
        });
        let mut last = 0;
        while !writing.is_finished() {
            let count = gateway.data().count();
            assert!(count >= last, "rows vanished: {last}, then {count}");
            last = count;
        }
    });
    gateway.data().wait_for_count(2_000);
}

#[test]
fn hostile_text_is_logged_as_text() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    let agent = "x'); DROP TABLE slices; --\u{1b}[31m<script>";
    let mut client = Client::connect(gateway.address());
    let request =
        format!("GET /a'b HTTP/1.1\r\nHost: a\r\nUser-Agent: {}\r\n\r\n", agent.replace('\u{1b}', ""));
    client.write(request.as_bytes());
    assert_eq!(client.read_response("GET").status(), 200);
    let row = gateway.data().row_of("/a'b");
    assert_eq!(row.user_agent, agent.replace('\u{1b}', ""));
    let shown = gateway.cli_ok(&["logs"]);
    assert!(shown.contains("/a'b"), "{shown}");
}
