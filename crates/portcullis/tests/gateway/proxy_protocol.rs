//! Listeners that expect a PROXY header: who is believed, and what becomes of everything else.

use std::time::{Duration, Instant};

use portcullis_testkit::{Client, Gateway, GatewayConfig, Upstream, parse_response};

use crate::{config, in_front_of};

const REQUEST: &str =
    "GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Forwarded-For: 198.51.100.66\r\n\r\n";

fn expecting_a_header(upstream: &Upstream) -> GatewayConfig {
    config()
        .upstream(upstream)
        .server("trusted_proxies = [\"127.0.0.1\", \"10.0.0.0/8\"]\nproxy_protocol = [\"127.0.0.1:0\"]")
}

/// The fixed part and the addresses of a header of version 2.
fn version_2(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend([0x20 | command, family]);
    header.extend(u16::try_from(addresses.len()).unwrap().to_be_bytes());
    header.extend_from_slice(addresses);
    header
}

const FROM_9_OVER_IPV4: [u8; 12] = [203, 0, 113, 9, 192, 0, 2, 1, 0x13, 0x88, 0, 80];

#[test]
fn the_source_that_a_trusted_peer_names_is_the_client() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(expecting_a_header(&upstream));
    let mut v6 = Vec::new();
    v6.extend("2001:db8::9".parse::<std::net::Ipv6Addr>().unwrap().octets());
    v6.extend("2001:db8::1".parse::<std::net::Ipv6Addr>().unwrap().octets());
    v6.extend([0x13, 0x88, 0, 80]);
    for (header, client) in [
        (b"PROXY TCP4 203.0.113.9 192.0.2.1 5000 80\r\n".to_vec(), "203.0.113.9"),
        (b"PROXY TCP6 2001:db8::9 2001:db8::1 5000 80\r\n".to_vec(), "2001:db8::9"),
        (version_2(1, 0x11, &FROM_9_OVER_IPV4), "203.0.113.9"),
        (version_2(1, 0x21, &v6), "2001:db8::9"),
        // A source that is itself a trusted proxy: what it says in its own header is believed.
        (b"PROXY TCP4 10.0.0.1 192.0.2.1 5000 80\r\n".to_vec(), "198.51.100.66"),
        // The load balancer's own checks, for which it is itself the client: trusted, as over plain TCP.
        (version_2(0, 0x00, &[]), "198.51.100.66"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "198.51.100.66"),
    ] {
        let shown = String::from_utf8_lossy(&header).into_owned();
        let mut connection = gateway.client();
        connection.write(&[&header[..], REQUEST.as_bytes()].concat());
        let answer = parse_response(&connection.read_to_end());
        assert_eq!(answer.status(), 200, "{shown:?}");
        assert_eq!(upstream.last().header("x-forwarded-for"), client, "{shown:?}");
    }
    gateway.data().wait_for_count(7);
    let clients: Vec<String> = gateway.data().rows().iter().map(|row| row.client.to_string()).collect();
    assert_eq!(clients.iter().filter(|client| *client == "203.0.113.9").count(), 2, "{clients:?}");
}

#[test]
fn a_header_that_comes_in_pieces_is_read_and_a_blocked_source_refused() {
    let upstream = Upstream::start();
    let block = "[[block]]\nnetwork = \"203.0.113.9\"\nreason = \"test\"";
    let gateway = Gateway::start(expecting_a_header(&upstream).section(block));
    let mut connection = gateway.client();
    for part in ["PROX", "Y TCP4 203.0.1", "13.9 192.0.2.1 5000 8", "0\r", "\nGET /x HT", &REQUEST[9..]] {
        connection.write(part.as_bytes());
        std::thread::sleep(Duration::from_millis(20));
    }
    let answer = parse_response(&connection.read_to_end());
    assert_eq!(answer.status(), 403);
    assert_eq!(gateway.data().row(&answer.decision_id()).client.to_string(), "203.0.113.9");
}

#[test]
fn a_connection_without_a_valid_header_is_closed_and_recorded() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(expecting_a_header(&upstream));
    let long = format!("PROXY TCP4 {}\r\n", "1".repeat(107));
    let bad: [&[u8]; 8] = [
        REQUEST.as_bytes(),
        b"PROXY TCP4 203.0.113.9 192.0.2.1 5000\r\n",
        b"PROXY TCP4 203.0.113.999 192.0.2.1 5000 80\r\n",
        b"PROXY UDP4 203.0.113.9 192.0.2.1 5000 80\r\n",
        b"PROXY TCP4 203.0.113.9 192.0.2.1 5000 80\n",
        long.as_bytes(),
        &version_2(7, 0x11, &FROM_9_OVER_IPV4),
        &version_2(1, 0x11, &FROM_9_OVER_IPV4[..8]),
    ];
    for bytes in bad {
        let mut connection = gateway.client();
        let _ = connection.try_write(bytes);
        assert_eq!(connection.read_to_end(), b"", "{:?}", String::from_utf8_lossy(bytes));
    }
    gateway.data().wait_for_count(bad.len() as u64);
    for row in gateway.data().rows() {
        assert_eq!((row.status, &*row.reason), (0, "malformed:proxy_protocol"));
        assert_eq!(row.client.to_string(), "127.0.0.1");
    }
    assert_eq!(upstream.requests(), 0);
}

#[test]
fn a_header_that_drips_is_given_up_within_three_seconds() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(expecting_a_header(&upstream));
    let mut connection = gateway.client();
    let began = Instant::now();
    for byte in b"PROXY TCP4 203.0.113.9" {
        if connection.try_write(&[*byte]).is_err() {
            break;
        }
        std::thread::sleep(Duration::from_millis(400));
    }
    assert_eq!(connection.read_to_end(), b"");
    assert!(began.elapsed() < Duration::from_secs(22 * 4 / 10), "it was closed before the end came");
    gateway.data().row_where("the row", |row| row.reason == "malformed:proxy_protocol");
}

#[test]
fn a_header_of_an_untrusted_peer_is_not_believed() {
    let upstream = Upstream::start();
    let settings = "trusted_proxies = [\"10.0.0.0/8\"]\nproxy_protocol = [\"127.0.0.1:0\"]";
    let gateway = Gateway::start(config().upstream(&upstream).server(settings));
    let mut connection = gateway.client();
    let header = "PROXY TCP4 203.0.113.9 192.0.2.1 5000 80\r\n";
    let _ = connection.try_write(format!("{header}{REQUEST}").as_bytes());
    assert_eq!(connection.read_to_end(), b"");
    let row = gateway.data().row_where("the row", |row| row.reason == "malformed:proxy_protocol");
    assert_eq!(row.client.to_string(), "127.0.0.1");
    assert_eq!(upstream.requests(), 0);
    // Without a byte there is nothing to record.
    drop(Client::connect(gateway.address()));
}

#[test]
fn a_header_on_a_plain_listener_is_no_request() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    for header in
        [b"PROXY TCP4 203.0.113.9 192.0.2.1 5000 80\r\n".to_vec(), version_2(1, 0x11, &FROM_9_OVER_IPV4)]
    {
        let mut connection = gateway.client();
        let _ = connection.try_write(&[&header[..], REQUEST.as_bytes()].concat());
        let answer = parse_response(&connection.read_to_end());
        assert_eq!(answer.status(), 400);
        assert_eq!(gateway.data().row(&answer.decision_id()).client.to_string(), "127.0.0.1");
    }
    assert_eq!(upstream.requests(), 0);
}
