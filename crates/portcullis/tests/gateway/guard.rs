//! How many connections there may be, whom the blocklist keeps out before a byte is read, and how slow a
//! client may be.

use std::time::Duration;

use portcullis_testkit::{
    Client, Gateway, Request, Upstream, eventually, exchange, parse_response, tungstenite,
};

use crate::tls::{Certificates, with_tls};
use crate::{behind_proxy, config};

#[test]
fn a_client_with_too_many_connections_gets_no_more_and_the_others_do() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(config().upstream(&upstream).server("max_connections_per_client = 3"));
    let mut open: Vec<Client> = (0..3).map(|_| gateway.client()).collect();
    assert!(open.iter_mut().all(|client| client.get("/").status() == 200));
    let answer = parse_response(&exchange(gateway.address(), b"GET /shed HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert_eq!((answer.status(), answer.header("retry-after")), (503, Some("5")));
    let row = gateway.data().row_where("the shed one", |row| row.reason == "connections:per_client");
    assert_eq!((row.status, row.verdict.as_str()), (503, "limited"));
    assert_eq!(gateway.metric("portcullis_connections_shed_total{limit=\"per_client\"}"), 1.0);
    let mut other = Client::connect_from("127.0.0.2", gateway.address());
    assert_eq!(other.get("/").status(), 200);
    // Each that ends makes room for one.
    drop(open.pop());
    eventually("room for another", || (gateway.client().get("/").status() == 200).then_some(()));
}

#[test]
fn all_clients_together_may_have_so_many_connections_and_a_trusted_proxy_its_share() {
    let upstream = Upstream::start();
    let settings = "max_connections = 3\nmax_connections_per_client = 1";
    let gateway = Gateway::start(behind_proxy(&upstream).server(settings));
    let mut open: Vec<Client> = (0..3).map(|_| gateway.client_of("203.0.113.9")).collect();
    assert!(open.iter_mut().all(|client| client.get("/").status() == 200), "a proxy may open many");
    exchange(gateway.address(), b"GET /shed HTTP/1.1\r\nHost: a\r\n\r\n");
    gateway.data().row_where("the shed one", |row| row.reason == "connections:total");
}

#[test]
fn a_blocked_client_is_dropped_before_the_tls_handshake_and_recorded() {
    let upstream = Upstream::start();
    let certificates = Certificates::new();
    let block = "[[block]]\nnetwork = \"127.0.0.2\"\nreason = \"test\"";
    let gateway = with_tls(config().upstream(&upstream).section(block), &certificates, &["a.example"]);
    let mut blocked = Client::connect_from("127.0.0.2", gateway.tls_address());
    assert_eq!(blocked.read_to_end(), b"", "nothing was said");
    let row = gateway.data().row_where("the drop", |row| row.client.to_string() == "127.0.0.2");
    assert_eq!((row.status, row.verdict.as_str()), (0, "blocked"));
    assert!(row.reason.starts_with("block:"), "{row:?}");
    assert_eq!(gateway.metric("portcullis_connections_dropped_total"), 1.0);
    assert_eq!(certificates.client(&gateway, "a.example").get("/").status(), 200);
    // Over plaintext the page says why.
    let mut plain = Client::connect_from("127.0.0.2", gateway.address());
    assert_eq!(plain.get("/").status(), 403);
}

#[test]
fn a_websocket_ends_when_its_client_is_blocked() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(behind_proxy(&upstream));
    let connect = |client: &str| {
        let mut request = tungstenite::client::IntoClientRequest::into_client_request(format!(
            "ws://{}/websocket",
            gateway.address()
        ))
        .unwrap();
        request.headers_mut().insert("x-forwarded-for", client.parse().unwrap());
        tungstenite::client(request, gateway.client().socket()).unwrap().0
    };
    // Pingora ends a WebSocket at once whose site agrees to it before Pingora has looked at the end of the
    // request, which happens to a gateway that is short of CPU. What is tested here are those that live.
    let open = |client: &str| {
        eventually("a websocket that lives", || {
            let mut socket = connect(client);
            socket.send(tungstenite::Message::text("alive")).ok()?;
            socket.read().ok().map(|_| socket)
        })
    };
    let (mut blocked, mut other) = (open("203.0.113.9"), open("203.0.113.10"));
    gateway.cli_ok(&["block", "203.0.113.9", "--reason", "test"]);
    assert!(blocked.read().is_err(), "it stayed open");
    let row = gateway.data().row_where("the websocket", |row| row.reason.starts_with("block:"));
    assert_eq!((row.status, row.verdict.as_str()), (101, "blocked"), "{row:?}");
    assert_eq!(row.client.to_string(), "203.0.113.9");
    other.send(tungstenite::Message::text("still here")).unwrap();
    let echo = other.read().unwrap_or_else(|error| panic!("{error}: {:?}", gateway.data().rows()));
    assert_eq!(echo, tungstenite::Message::text("still here"));
}

#[test]
fn a_websocket_whose_client_takes_nothing_is_given_up() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(config().upstream(&upstream).server("body_timeout = \"1s\""));
    let url = format!("ws://{}/websocket", gateway.address());
    let mut socket = tungstenite::client(url, gateway.client().socket()).unwrap().0;
    // Idle for longer than that is fine.
    std::thread::sleep(Duration::from_millis(1_500));
    // Each comes back, and nobody reads it.
    while socket.send(tungstenite::Message::binary(vec![0; 64 << 10])).is_ok() {}
    let row = gateway.data().row_of("/websocket");
    assert_eq!((row.status, row.verdict.as_str(), &*row.reason), (101, "malformed", "malformed:slow_read"));
}

#[test]
fn what_a_refused_client_goes_on_to_send_is_not_read_for_ever() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(config().upstream(&upstream).limit("all", "rate = \"1/1h\""));
    assert_eq!(gateway.get("/").status(), 200);
    let mut client = gateway.client();
    client.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000000\r\n\r\n");
    assert_eq!(client.read_response("POST").status(), 429);
    eventually("the connection ends", || client.try_write(&[b'x'; 100]).is_err().then_some(()));
}

#[test]
fn a_download_ends_when_its_client_is_blocked() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(behind_proxy(&upstream));
    let mut client = gateway.client_of("203.0.113.9");
    client.write_request(&Request::get("/events"));
    client.read_until("data: open\n\n");
    gateway.cli_ok(&["block", "203.0.113.9", "--reason", "test"]);
    client.read_to_end();
    let row = gateway.data().row_of("/events");
    assert_eq!((row.status, row.verdict.as_str()), (200, "blocked"));
}

#[test]
fn a_client_that_does_not_take_its_answer_is_given_up() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(config().upstream(&upstream).server("body_timeout = \"1s\""));
    let mut client = gateway.client();
    client.write_request(&Request::get("/bytes/100000000"));
    client.read_head();
    let row = gateway.data().row_of("/bytes/100000000");
    assert_eq!((row.status, row.verdict.as_str(), &*row.reason), (200, "malformed", "malformed:slow_read"));
}

#[test]
fn a_body_below_the_least_rate_is_given_up_and_one_above_is_not() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(config().upstream(&upstream).server("min_rate = \"1KiB\""));
    let send = |path: &str, bytes: usize| {
        let mut client = gateway.client();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            bytes * 40
        );
        client.write(head.as_bytes());
        for _ in 0..40 {
            if client.try_write(&vec![b'x'; bytes]).is_err() {
                break;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        parse_response(&client.read_to_end())
    };
    std::thread::scope(|scope| {
        let fast = scope.spawn(|| send("/upload", 2_048));
        let slow = send("/slowly", 10);
        assert_eq!(slow.status(), 408);
        assert_eq!(gateway.data().row(&slow.decision_id()).reason, "malformed:incomplete_body");
        assert_eq!(fast.join().unwrap().status(), 200);
    });
}

#[test]
fn the_time_that_the_site_takes_is_not_the_clients() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(config().upstream(&upstream).server("body_timeout = \"300ms\""));
    assert_eq!(gateway.client().post("/slow/1500", "a body").status(), 200);
    let mut client = gateway.client();
    client.write_request(&Request::get("/events"));
    client.read_until("data: open\n\n");
    std::thread::sleep(Duration::from_millis(1_500));
    assert_eq!(upstream.send_event("late"), 1);
    client.read_until("data: late\n\n");
}

#[test]
fn of_too_many_stalled_connections_those_that_wait_the_longest_end() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(config().upstream(&upstream).server("max_stalled = 2"));
    let mut stalled: Vec<Client> = (0..5)
        .map(|n| {
            let mut client = gateway.client();
            client
                .write(format!("POST /{n} HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nsome").as_bytes());
            std::thread::sleep(Duration::from_millis(150));
            client
        })
        .collect();
    for client in &mut stalled[..3] {
        let answer = parse_response(&client.read_to_end());
        assert_eq!(answer.status(), 503);
        let row = gateway.data().row(&answer.decision_id());
        assert_eq!((row.verdict.as_str(), &*row.reason), ("limited", "connections:stalled"));
    }
    for client in &mut stalled[3..] {
        client.write(b" bytes");
        assert_eq!(client.read_response("POST").status(), 200);
    }
}

#[test]
fn a_body_that_never_begins_does_not_reach_the_site() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(config().upstream(&upstream).server("body_timeout = \"500ms\""));
    let mut client = gateway.client();
    client.write(b"POST /drip HTTP/1.1\r\nHost: a\r\nUser-Agent: dripper\r\nContent-Length: 10\r\n\r\nsome");
    let answer = parse_response(&client.read_to_end());
    assert_eq!(answer.status(), 408);
    let row = gateway.data().row(&answer.decision_id());
    assert_eq!((row.path.as_str(), row.user_agent.as_str()), ("/drip", "dripper"));
    assert_eq!((row.verdict.as_str(), &*row.reason), ("malformed", "malformed:incomplete_body"));
    assert_eq!(upstream.requests(), 0);
}

#[test]
fn a_body_that_goes_on_slowly_reaches_the_site_as_it_comes() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(config().upstream(&upstream));
    let mut client = gateway.client();
    client.write(b"POST /stream HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nsome\r\n");
    eventually("the request at the site", || (upstream.connections() == 1).then_some(()));
    client.write(b"6\r\n bytes\r\n0\r\n\r\n");
    assert_eq!(client.read_response("POST").status(), 200);
}

/// Clients that ask for a large answer and read nothing of it.
fn stallers(gateway: &Gateway, count: usize) -> Vec<Client> {
    let staller = |_| {
        let mut client = gateway.client();
        client.write(b"GET /bytes/100000000 HTTP/1.1\r\nHost: a\r\n\r\n");
        client
    };
    (0..count).map(staller).collect()
}

#[test]
fn clients_that_take_nothing_keep_out_neither_newcomers_nor_those_who_were_there() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(config().upstream(&upstream).server("max_stalled = 4"));
    let mut known = gateway.client();
    assert_eq!(known.get("/").status(), 200);
    let stalled = stallers(&gateway, 60);
    assert_eq!(known.get("/known").status(), 200);
    assert_eq!(gateway.client().get("/new").status(), 200);
    drop(stalled);
    let left = "SELECT count(*) FROM request_log WHERE path = '/bytes/100000000'";
    eventually("a row for each", || (gateway.data().sql::<i64>(left) == 60).then_some(()));
}

#[test]
fn a_newcomer_that_finds_no_seat_in_time_is_told_and_recorded() {
    let upstream = Upstream::start();
    let settings = "max_stalled = 1\nhead_timeout = \"1s\"";
    let gateway = Gateway::start(config().upstream(&upstream).server(settings));
    let _stalled = stallers(&gateway, 60);
    let row = gateway.data().row_where("one without a seat", |row| row.reason == "connections:crowded");
    assert_eq!((row.status, row.verdict.as_str(), row.path.as_str()), (503, "limited", "/bytes/100000000"));
}
