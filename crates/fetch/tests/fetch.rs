//! The fetcher against servers on loopback that are slow, large, wrong, or lead astray.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use portcullis_fetch::{FetchError, Fetcher, Request, Settings};
use portcullis_testkit::{Authority, server_config};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

const MAX: u64 = 1000;

fn settings() -> Settings {
    Settings { timeout: Duration::from_secs(10), user_agent: "portcullis-test".to_owned(), ca: None }
}

fn fetcher() -> Fetcher {
    Fetcher::new(settings()).unwrap()
}

/// Reads the head of a request, and the body that its Content-Length announces.
fn read_request(stream: &mut impl std::io::Read) -> String {
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => text.push(byte[0]),
            _ => return String::new(),
        }
    }
    let head = String::from_utf8(text).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("0");
    let mut body = vec![0; length.trim().parse().unwrap()];
    stream.read_exact(&mut body).unwrap();
    head + &String::from_utf8(body).unwrap()
}

/// A server that hands each connection with its first request to `answer`; returns the requests too.
fn server(answer: impl Fn(&str, &mut TcpStream) + Send + 'static) -> (SocketAddr, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let request = read_request(&mut stream);
            answer(&request, &mut stream);
            if sender.send(request).is_err() {
                return;
            }
        }
    });
    (address, receiver)
}

fn fixed(answer: impl Into<Vec<u8>>) -> (SocketAddr, Receiver<String>) {
    let answer = answer.into();
    server(move |_, stream| {
        let _ = stream.write_all(&answer);
    })
}

fn redirect(to: &str) -> String {
    format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
}

fn get(address: SocketAddr) -> Result<portcullis_fetch::Response, FetchError> {
    fetcher().send(&Request::get(format!("http://{address}/list?token=hidden"), MAX))
}

fn tls_server(config: Arc<ServerConfig>, answer: String) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut tls = StreamOwned::new(connection, stream.unwrap());
            if !read_request(&mut tls).is_empty() {
                let _ = tls.write_all(answer.as_bytes());
                tls.conn.send_close_notify();
                let _ = tls.flush();
            }
        }
    });
    address
}

#[test]
fn an_answer_of_any_status_comes_with_its_headers_and_body() {
    let (address, seen) = fixed("HTTP/1.1 404 Not Found\r\nETag: \"v1\"\r\nContent-Length: 4\r\n\r\ngone");
    let request = Request::get(format!("http://user:p%40ss@{address}/a?b=c#d"), MAX).header("X-Key", "k1");
    let response = fetcher().send(&request).unwrap();
    assert_eq!(
        (response.status, response.header("etag"), response.is_success()),
        (404, Some("\"v1\""), false)
    );
    assert_eq!(response.body, b"gone");
    let seen = seen.recv().unwrap();
    assert!(seen.starts_with("GET /a?b=c HTTP/1.1\r\n"), "{seen}");
    for line in ["x-key: k1", "user-agent: portcullis-test", "authorization: Basic dXNlcjpwQHNz"] {
        assert!(seen.contains(&format!("{line}\r\n")), "{line} is missing in {seen}");
    }
}

#[test]
fn a_post_carries_its_body() {
    let (address, seen) = fixed("HTTP/1.1 204 No Content\r\n\r\n");
    let request = Request::post(format!("http://{address}/hook"), b"{\"a\":1}".to_vec(), MAX)
        .header("Content-Type", "application/json");
    assert!(fetcher().send(&request).unwrap().is_success());
    let seen = seen.recv().unwrap();
    assert!(seen.starts_with("POST /hook HTTP/1.1\r\n") && seen.ends_with("{\"a\":1}"), "{seen}");
}

#[test]
fn a_body_over_the_bound_is_refused_whether_it_is_announced_or_not() {
    let exact = format!("HTTP/1.1 200 OK\r\nContent-Length: {MAX}\r\n\r\n{}", "x".repeat(MAX as usize));
    assert_eq!(get(fixed(exact).0).unwrap().body.len() as u64, MAX);

    let announced = "HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n";
    let error = get(fixed(announced).0).unwrap_err();
    assert!(error.to_string().contains("larger than the 1000 bytes"), "{error}");

    let (endless, _seen) = server(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
        while stream.write_all(&[b'x'; 4096]).is_ok() {}
    });
    assert!(matches!(get(endless), Err(FetchError::TooLarge { max: MAX, .. })));
}

#[test]
fn a_server_that_drips_is_left_when_the_time_is_over() {
    let (address, _seen) = server(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n");
        while stream.write_all(b"x").is_ok() {
            thread::sleep(Duration::from_millis(20));
        }
    });
    let mut request = Request::get(format!("http://{address}/"), MAX);
    request.timeout = Some(Duration::from_millis(400));
    let start = Instant::now();
    let error = fetcher().send(&request).unwrap_err();
    assert!(matches!(error, FetchError::Timeout { .. }), "{error}");
    assert!(error.to_string().contains("within 0.4 s"), "{error}");
    // The whole body would take 18 seconds.
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[test]
fn the_time_bound_holds_for_all_redirects_together() {
    let (address, _seen) = server(|_, stream| {
        thread::sleep(Duration::from_millis(250));
        let _ = stream.write_all(redirect("/again").as_bytes());
    });
    let mut request = Request::get(format!("http://{address}/"), MAX);
    request.timeout = Some(Duration::from_millis(600));
    assert!(matches!(fetcher().send(&request), Err(FetchError::Timeout { .. })));
}

#[test]
fn a_server_may_redirect_to_itself_but_not_to_another_local_name() {
    let (address, seen) = server(|request, stream| {
        let answer = if request.starts_with("GET /list") {
            redirect("/new")
        } else {
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok".to_owned()
        };
        let _ = stream.write_all(answer.as_bytes());
    });
    assert_eq!(get(address).unwrap().body, b"ok");
    drop(seen);

    let port = address.port();
    for to in [
        format!("http://localhost:{port}/"),
        format!("http://[::ffff:127.0.0.1]:{port}/"),
        format!("http://[::1]:{port}/"),
        format!("http://127.0.0.2:{port}/"),
        format!("http://0x7f000002:{port}/"),
        "http://169.254.169.254/latest/meta-data".to_owned(),
        "http://10.0.0.1/".to_owned(),
        "file:///etc/passwd".to_owned(),
    ] {
        let error = get(fixed(redirect(&to)).0).unwrap_err();
        assert!(matches!(error, FetchError::Redirect { .. }), "{to}: {error}");
    }
}

#[test]
fn six_redirects_are_too_many() {
    let (address, seen) = fixed(redirect("/again"));
    let error = get(address).unwrap_err();
    assert!(error.to_string().contains("five redirects"), "{error}");
    // The server tells what it has seen when it has answered, which may be after the client has gone on.
    let told = || seen.recv_timeout(Duration::from_secs(1)).ok();
    assert_eq!(std::iter::from_fn(told).count(), 6);
}

#[test]
fn a_redirect_out_of_tls_is_refused() {
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, authority.pem()).unwrap();
    let (plain, _seen) = fixed("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let config = server_config(&authority.issue(&["127.0.0.1"]));
    let address = tls_server(config, redirect(&format!("http://{plain}/")));
    let fetcher = Fetcher::new(Settings { ca: Some(ca), ..settings() }).unwrap();
    let error = fetcher.send(&Request::get(format!("https://{address}/"), MAX)).unwrap_err();
    assert!(error.to_string().contains("leave TLS"), "{error}");
}

#[test]
fn tls_needs_a_certificate_that_is_trusted_and_names_the_host() {
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, authority.pem()).unwrap();
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let good = tls_server(server_config(&authority.issue(&["127.0.0.1"])), ok.to_owned());
    let wrong_name = tls_server(server_config(&authority.issue(&["example.com"])), ok.to_owned());
    let trusting = Fetcher::new(Settings { ca: Some(ca), ..settings() }).unwrap();
    let send = |fetcher: &Fetcher, at: SocketAddr| fetcher.send(&Request::get(format!("https://{at}/"), MAX));
    assert_eq!(send(&trusting, good).unwrap().body, b"ok");
    assert!(matches!(send(&trusting, wrong_name), Err(FetchError::Tls { .. })));
    assert!(matches!(send(&fetcher(), good), Err(FetchError::Tls { .. })));
}

#[test]
fn a_broken_file_of_certificates_is_an_error_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, "no certificate").unwrap();
    let error = Fetcher::new(Settings { ca: Some(ca), ..settings() }).err().unwrap();
    assert!(error.to_string().contains("expected PEM"), "{error}");
}

#[test]
fn headers_with_secrets_stay_with_their_origin() {
    let (target, seen) = fixed("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let (address, _first) = fixed(redirect(&format!("http://127.0.0.1:{}/", target.port())));
    let request = Request::get(format!("http://{address}/"), MAX)
        .header("Authorization", "Bearer secret")
        .header("X-Token", "secret")
        .header("If-None-Match", "\"v1\"");
    fetcher().send(&request).unwrap();
    let seen = seen.recv().unwrap();
    assert!(seen.contains("if-none-match: \"v1\"") && !seen.contains("secret"), "{seen}");
}

#[test]
fn what_is_posted_goes_to_no_other_place() {
    let (target, seen) = fixed("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    for status in ["302 Found", "307 Temporary Redirect"] {
        let to = format!("http://127.0.0.1:{}/", target.port());
        let (address, _first) = fixed(redirect(&to).replace("302 Found", status));
        let request = Request::post(format!("http://{address}/"), b"secret".to_vec(), MAX);
        assert!(matches!(fetcher().send(&request), Err(FetchError::Redirect { .. })), "{status}");
    }
    assert!(matches!(seen.try_recv(), Err(mpsc::TryRecvError::Empty)));
}

#[test]
fn garbage_is_named_as_such_and_never_an_answer() {
    for garbage in [
        "SSH-2.0-OpenSSH_9.6\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
        "",
    ] {
        let error = get(fixed(garbage).0).unwrap_err();
        assert!(
            matches!(error, FetchError::Protocol { .. } | FetchError::Broken { .. }),
            "{garbage:?}: {error:?}"
        );
        assert!(!error.to_string().contains("hidden"), "{error}");
    }
    let endless_head = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(200_000));
    assert!(matches!(
        get(fixed(endless_head).0),
        Err(FetchError::Protocol { .. } | FetchError::Broken { .. })
    ));
}

#[test]
fn a_server_that_is_not_there_is_one_sentence() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = get(address).unwrap_err();
    assert!(error.to_string().contains("refuses the connection"), "{error}");
    assert!(!error.to_string().contains("hidden"), "{error}");
    let error = fetcher().send(&Request::get("http://no-such-host.invalid/", MAX)).unwrap_err();
    assert!(matches!(error, FetchError::Dns { .. }), "{error}");
    for url in ["ftp://example.com/", "example.com/list", "http://"] {
        assert!(matches!(fetcher().send(&Request::get(url, MAX)), Err(FetchError::Url { .. })), "{url}");
    }
}

#[test]
fn a_connection_is_used_again() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // One connection only is ever accepted, so the second request must come on it.
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        for _ in 0..2 {
            read_request(&mut stream);
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
        }
    });
    let fetcher = fetcher();
    for _ in 0..2 {
        assert_eq!(fetcher.send(&Request::get(format!("http://{address}/"), MAX)).unwrap().body, b"ok");
    }
    server.join().unwrap();
}
