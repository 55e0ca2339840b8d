//! Who a request is from: tokens that are verified, and sessions that the upstream was seen to issue.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use portcullis_testkit::tungstenite::http::Request as WebSocketRequest;
use portcullis_testkit::tungstenite::protocol::Message;
use portcullis_testkit::{
    Client, Gateway, GatewayConfig, H2Request, RawUpstream, Request, Response, Signer, Upstream, eventually,
    tungstenite,
};
use serde_json::{Value, json};

use crate::config;
use crate::tls::{Certificates, with_tls};

pub(crate) const SECRET: &str = "0123456789abcdef0123456789abcdef";
const WRONG: &str = "Please enter a correct username and password";

/// A site as Django has it.
pub(crate) const DJANGO: &str = r#"
[identity]
session_cookie = "sessionid"
login_paths = ["/accounts/login", "/admin/login"]
login_failure_text = "Please enter a correct username and password"
user_header = "X-Portcullis-User"
roles_header = "X-Portcullis-Roles"
"#;

pub(crate) fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64
}

pub(crate) fn claims(user: &str) -> Value {
    json!({ "sub": user, "exp": now() + 600 })
}

fn with_tokens(upstream: &Upstream) -> GatewayConfig {
    config().upstream(upstream).section(&format!(
        "[identity.jwt]\nfrom = [\"authorization\", \"cookie:token\"]\nkeys = [{{ algorithm = \"HS256\", secret = \
         \"{SECRET}\" }}]"
    ))
}

fn site(upstream: &Upstream) -> Gateway {
    Gateway::start(config().upstream(upstream).section(DJANGO))
}

/// A request to which the upstream gives this answer.
pub(crate) fn asking(
    method: &str,
    path: &str,
    status: u16,
    headers: &[(&str, &str)],
    body: &[&str],
) -> Request {
    let script = json!({ "status": status, "headers": headers, "parts": body });
    Request::new(method, path).header("X-Answer", &script.to_string())
}

pub(crate) fn log_in(client: &mut Client, cookie: &str) -> Response {
    let set = format!("sessionid={cookie}; HttpOnly; Path=/; SameSite=Lax");
    let csrf = "csrftoken=abc; Path=/";
    let headers = [("Location", "/home"), ("Set-Cookie", csrf), ("Set-Cookie", &set)];
    client.send(&asking("POST", "/accounts/login/", 302, &headers, &[]))
}

/// Visits a path of its own with the cookie; returns the user of its row.
pub(crate) fn user(gateway: &Gateway, client: &mut Client, cookie: &str, path: &str) -> String {
    let request = Request::get(path).header("Cookie", &format!("csrftoken=abc; sessionid={cookie}"));
    assert_eq!(client.send(&request).status(), 200);
    gateway.data().row_of(path).user
}

fn is_session(user: &str) -> bool {
    user.strip_prefix("session:").is_some_and(|hash| hash.len() == 8)
}

#[test]
fn a_verified_token_names_the_user_and_a_bad_one_leaves_a_stranger() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(with_tokens(&upstream));
    let signer = Signer::hs("HS256", SECRET.as_bytes());
    let good = signer.token(&claims("alice"));
    let expired = signer.token(&json!({ "sub": "alice", "exp": now() - 3_600 }));
    let unsigned = signer.token_with(&json!({ "alg": "none" }), &claims("alice"));
    let forged = Signer::hs("HS256", b"another secret of thirty-two byte").token(&claims("alice"));
    let mut client = gateway.client();
    for (n, (value, user)) in [
        (format!("Bearer {good}"), "alice"),
        (format!("bearer  {good}"), "alice"),
        (format!("Bearer {expired}"), ""),
        (format!("Bearer {unsigned}"), ""),
        (format!("Bearer {forged}"), ""),
        (format!("Basic {good}"), ""),
        ("Bearer nonsense".to_owned(), ""),
    ]
    .into_iter()
    .enumerate()
    {
        let path = format!("/echo/{n}");
        let answer = client.send(&Request::get(&path).header("Authorization", &value));
        // The site decides for itself what it makes of the token.
        assert_eq!(answer.status(), 200);
        assert_eq!(upstream.last().header("authorization"), value);
        assert_eq!(gateway.data().row_of(&path).user, user, "{value}");
    }
    let twice = Request::get("/echo/twice")
        .header("Authorization", &format!("Bearer {good}"))
        .header("Authorization", &format!("Bearer {good}"));
    client.send(&twice);
    assert_eq!(gateway.data().row_of("/echo/twice").user, "");
    client.send(&Request::get("/echo/cookie").header("Cookie", &format!("a=1; token={good}")));
    assert_eq!(gateway.data().row_of("/echo/cookie").user, "alice");
    let count =
        |outcome: &str| gateway.metric(&format!("portcullis_identity_tokens_total{{outcome=\"{outcome}\"}}"));
    let outcomes = ["accepted", "expired", "unsigned", "signature", "malformed", "ambiguous"].map(count);
    assert_eq!(outcomes, [3.0, 1.0, 1.0, 1.0, 1.0, 1.0]);
    assert_eq!(gateway.metric("portcullis_identity_tokens_remembered_total"), 2.0);
}

#[test]
fn who_is_blocked_for_everybody_costs_no_signature_and_a_bad_token_costs_one() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(
        with_tokens(&upstream)
            .behind_local_proxy()
            .section("[[block]]\nnetwork = \"203.0.113.9\"\nreason = \"test\""),
    );
    let good = Signer::hs("HS256", SECRET.as_bytes()).token(&claims("alice"));
    let forged = Signer::hs("HS256", b"another secret of thirty-two byte").token(&claims("alice"));
    let signatures = || gateway.metric("portcullis_identity_signatures_total");
    let asks = |client: &str, token: &str| {
        let request = Request::get("/echo/a").header("Authorization", &format!("Bearer {token}"));
        gateway.client_of(client).send(&request).status()
    };
    for token in [&good, &forged] {
        assert_eq!(asks("203.0.113.9", token), 403);
    }
    assert_eq!(signatures(), 0.0);
    for _ in 0..3 {
        assert_eq!([asks("203.0.113.10", &forged), asks("203.0.113.10", &good)], [200; 2]);
    }
    assert_eq!(signatures(), 2.0);
}

#[test]
fn only_a_session_that_the_site_was_seen_to_begin_is_one() {
    let upstream = Upstream::start();
    let gateway = site(&upstream);
    let mut client = gateway.client();
    assert_eq!(user(&gateway, &mut client, "made-up", "/echo/1"), "");
    // What the site gives every visitor.
    client.send(&asking("GET", "/", 200, &[("Set-Cookie", "sessionid=visitor")], &["x"]));
    assert_eq!(user(&gateway, &mut client, "visitor", "/echo/2"), "");
    // Not by GET, not elsewhere, and not when the site leads back to the form.
    for (n, (method, path, location)) in [
        ("GET", "/accounts/login", "/home"),
        ("POST", "/elsewhere", "/home"),
        ("POST", "/accounts/login", "/accounts/login/?next=/home"),
        ("POST", "/accounts/login", "https://example.com/accounts/login"),
    ]
    .into_iter()
    .enumerate()
    {
        let set = format!("sessionid=stranger-{n}");
        client.send(&asking(method, path, 302, &[("Location", location), ("Set-Cookie", &set)], &[]));
        assert_eq!(user(&gateway, &mut client, &format!("stranger-{n}"), &format!("/echo/s{n}")), "");
    }
    log_in(&mut client, "real");
    let known = user(&gateway, &mut client, "real", "/echo/3");
    assert!(is_session(&known), "{known}");
    // Whoever else has the cookie is the same; whoever sends two is nobody.
    assert_eq!(user(&gateway, &mut gateway.client(), "real", "/echo/4"), known);
    assert_eq!(user(&gateway, &mut client, "real; sessionid=other", "/echo/5"), "");
    assert_eq!(user(&gateway, &mut client, "\"real\"", "/echo/6"), "");
    assert_eq!(gateway.metric("portcullis_identity_ambiguous_cookies_total"), 1.0);
    assert_eq!(gateway.metric("portcullis_identity_logins_total{outcome=\"succeeded\"}"), 1.0);
    assert_eq!(gateway.data().row_of("/accounts/login/").reason, "login:succeeded");
}

#[test]
fn a_session_is_carried_on_when_the_site_changes_its_cookie_and_ends_with_the_logout() {
    let upstream = Upstream::start();
    let gateway = site(&upstream);
    let mut client = gateway.client();
    log_in(&mut client, "one");
    let first = user(&gateway, &mut client, "one", "/echo/1");
    let rotation = asking("POST", "/password", 302, &[("Set-Cookie", "sessionid=two; Path=/")], &[]);
    client.send(&rotation.header("Cookie", "sessionid=one"));
    assert_eq!(user(&gateway, &mut client, "two", "/echo/2"), first);
    let gone = "sessionid=\"\"; expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0; Path=/; SameSite=Lax";
    let logout = asking("POST", "/leave", 302, &[("Set-Cookie", gone)], &[]);
    client.send(&logout.header("Cookie", "sessionid=two"));
    assert_eq!(user(&gateway, &mut client, "two", "/echo/3"), "");
    // A framework that gives out a stranger's session instead.
    log_in(&mut client, "three");
    let logout = asking("POST", "/accounts/logout/", 302, &[("Set-Cookie", "sessionid=four")], &[]);
    client.send(&logout.header("Cookie", "sessionid=three"));
    for (n, cookie) in ["three", "four"].into_iter().enumerate() {
        assert_eq!(user(&gateway, &mut client, cookie, &format!("/echo/out{n}")), "");
    }
}

#[test]
fn the_user_header_names_the_session_and_no_client_sees_or_sends_it() {
    let upstream = Upstream::start();
    let gateway = site(&upstream);
    let mut client = gateway.client();
    log_in(&mut client, "mine");
    let hidden = |answer: &Response| {
        assert_eq!(answer.header("x-portcullis-user").or(answer.header("x-portcullis-roles")), None);
    };
    let names = [("X-Portcullis-User", "alice"), ("x-portcullis-roles", "staff, editor")];
    let answer = client.send(&asking("GET", "/a", 200, &names, &["page"]).header("Cookie", "sessionid=mine"));
    hidden(&answer);
    assert_eq!(answer.text(), "page");
    assert_eq!(user(&gateway, &mut client, "mine", "/echo/1"), "alice");
    // Errors, unknown sessions, and answers without a body have it taken out too.
    for status in [200, 204, 302, 404, 500] {
        hidden(&client.send(&asking("GET", "/b", status, &names, &[])));
    }
    assert_eq!(user(&gateway, &mut client, "unknown", "/echo/2"), "");
    // What a client sends under these names goes no further.
    for name in ["X-Portcullis-User", "x_portcullis_user", "X-Portcullis_Roles"] {
        client.send(&Request::get("/echo/3").header(name, "admin"));
        let seen = upstream.last();
        assert!(!seen.headers.iter().any(|(name, _)| name.contains("portcullis")), "{seen:?}");
    }
    // Cookie and name in one answer, as single sign-on has it.
    let sso = [("X-Portcullis-User", "bob"), ("Set-Cookie", "sessionid=sso")];
    client.send(&asking("GET", "/callback", 302, &sso, &[]));
    assert_eq!(user(&gateway, &mut client, "sso", "/echo/4"), "bob");
    // Empty: the site does not know the session any more.
    client
        .send(&asking("GET", "/c", 200, &[("X-Portcullis-User", "")], &[]).header("Cookie", "sessionid=sso"));
    assert_eq!(user(&gateway, &mut client, "sso", "/echo/5"), "");
}

#[test]
fn a_failed_login_is_recognised_by_status_or_page_and_its_answer_stays_as_it_is() {
    let upstream = Upstream::start();
    let gateway = site(&upstream);
    let mut client = gateway.client();
    let form = |parts: &[&str]| {
        asking("POST", "/admin/login/", 200, &[("Set-Cookie", "sessionid=early")], parts)
            .header("Accept-Encoding", "gzip, br")
    };
    let parts = ["<ul><li>Please enter a cor", "rect username", " and password. Note that", "</li>"];
    let answer = client.send(&form(&parts));
    assert_eq!((answer.status(), answer.text()), (200, parts.concat()));
    assert!(upstream.last().all("accept-encoding").is_empty(), "the page must come uncompressed");
    assert_eq!(gateway.data().row_of("/admin/login/").reason, "login:failed");
    assert_eq!(user(&gateway, &mut client, "early", "/echo/1"), "");

    client.send(&asking("POST", "/accounts/login", 401, &[], &["no"]));
    assert_eq!(gateway.data().row_of("/accounts/login").reason, "login:failed");
    // The same words elsewhere, or for who only looks at the form, are nothing.
    client.send(&asking("POST", "/forum", 200, &[], &[WRONG]));
    client.send(&asking("GET", "/admin/login", 200, &[], &[WRONG]).header("Accept-Encoding", "gzip"));
    assert_eq!(upstream.last().header("accept-encoding"), "gzip");
    for path in ["/forum", "/admin/login"] {
        assert_eq!(gateway.data().row_of(path).reason, "");
    }
    assert_eq!(gateway.metric("portcullis_identity_logins_total{outcome=\"failed\"}"), 2.0);
}

#[test]
fn a_redirect_back_to_the_login_page_begins_no_session_however_it_is_written() {
    let upstream = Upstream::start();
    let gateway = site(&upstream);
    let mut client = gateway.client();
    let mut led_to = |location: &str, cookie: &str| {
        let set = format!("sessionid={cookie}");
        let answer = [("Location", location), ("Set-Cookie", &set)];
        client.send(&asking("POST", "/accounts/login", 302, &answer, &[]));
        user(&gateway, &mut client, cookie, &format!("/echo/{cookie}"))
    };
    assert_eq!(led_to("/accounts/login/?next=http://site.example/home", "next"), "");
    assert_eq!(led_to("?wrong=1", "query"), "");
    assert_eq!(led_to("login/?wrong=1", "relative"), "");
    assert!(is_session(&led_to("../home", "in")));
}

#[test]
fn a_login_page_that_cannot_be_read_to_its_end_begins_no_session() {
    const API: &str = "[identity]\nsession_cookie = \"sessionid\"\nlogin_paths = [\"/login\"]\nlogin_success = \
                       [\"2xx\"]\nlogin_failure_text = \"wrong password\"";
    let upstream = Upstream::start();
    let gateway = Gateway::start(config().upstream(&upstream).section(API));
    let mut client = gateway.client();
    let mut log_in = |cookie: &str, more: &[(&str, &str)], parts: &[&str]| {
        let set = format!("sessionid={cookie}");
        let headers = [&[("Set-Cookie", &*set)], more].concat();
        client.send(&asking("POST", "/login", 200, &headers, parts));
        user(&gateway, &mut client, cookie, &format!("/echo/{cookie}"))
    };
    assert!(is_session(&log_in("good", &[], &["welcome"])));
    assert_eq!(log_in("bad", &[], &["wrong ", "password"]), "");
    assert_eq!(log_in("packed", &[("Content-Encoding", "gzip")], &["?"]), "");

    // One that is cut off, and one that repeats what was typed: that must not push the words out of sight.
    let long = format!("{}wrong password", "x".repeat(300 << 10));
    for (length, page) in [(99, "wrong"), (long.len(), &*long)] {
        let answer =
            format!("HTTP/1.1 200 OK\r\nSet-Cookie: sessionid=a\r\nContent-Length: {length}\r\n\r\n{page}");
        let upstream = RawUpstream::answering(&answer, Duration::from_millis(200));
        let servers = format!("servers = [\"{}\"]", upstream.url());
        let gateway = Gateway::start(config().upstream_with(&servers).section(API));
        for (method, path) in [("POST", "/login"), ("GET", "/echo")] {
            let mut client = gateway.client();
            client.write_request(&Request::new(method, path).header("Cookie", "sessionid=a"));
            let head = client.read_head();
            let read = client.try_read_body(&head, method, |_| {});
            assert_eq!(read.is_ok(), page.len() == length);
            assert_eq!(gateway.data().row_of(path).user, "", "{path} {length}");
        }
    }
}

#[test]
fn the_detector_counts_logins_that_fail_with_200() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(
        config()
            .upstream(&upstream)
            .behind_local_proxy()
            .section(DJANGO)
            .section("[detection]\nlive = false\nforest = false"),
    );
    let attempts = |client: &str, parts: &[&str]| {
        let mut client = gateway.client_of(client);
        for _ in 0..12 {
            client.send(&asking("POST", "/accounts/login/", 200, &[], parts).header("Referer", "http://a/"));
        }
    };
    attempts("203.0.113.9", &[WRONG]);
    // The same with a page that does not say so: an API, perhaps.
    attempts("203.0.113.10", &["welcome"]);
    gateway.data().wait_for_count(24);
    gateway.cli_ok(&["detect"]);
    let found: Value = serde_json::from_str(&gateway.cli_ok(&["suspicious", "--json"])).unwrap();
    let reasons: Vec<(&str, &str)> = found.as_array().unwrap().iter().map(reason_and_client).collect();
    // Twelve logins in a second are worth a finding, and no block where none is known to have failed.
    assert_eq!(reasons, [("login_burst", "203.0.113.10"), ("login_failures", "203.0.113.9")], "{found:#}");
    assert_eq!(found[0]["severity"], "medium", "{found:#}");
}

fn reason_and_client(finding: &Value) -> (&str, &str) {
    (finding["reason"].as_str().unwrap(), finding["client"].as_str().unwrap())
}

#[test]
fn a_login_is_known_as_one_whatever_else_its_row_says() {
    let upstream = Upstream::start();
    let config = config()
        .upstream(&upstream)
        .behind_local_proxy()
        .section(DJANGO)
        .section("[detection]\nlive = false\nforest = false")
        .section("[[allow]]\nnetwork = \"203.0.113.20\"")
        .limit("login", "rate = \"3/1h\"\nmode = \"dry-run\"\nmethods = [\"POST\"]");
    let gateway = Gateway::start(config);
    let wrong = asking("POST", "/accounts/login/", 200, &[], &[WRONG]);
    let mut allowed = gateway.client_of("203.0.113.20");
    allowed.send(&wrong);
    let mut guesses = gateway.client_of("203.0.113.9");
    for _ in 0..12 {
        guesses.send(&wrong);
    }
    gateway.data().wait_for_count(13);
    let rows = gateway.data().rows();
    let count = |reason: &str| rows.iter().filter(|row| row.reason == reason).count();
    assert_eq!(count("login:failed"), 3, "{rows:#?}");
    assert_eq!(count("limit:login login:failed"), 9);
    let of_allow = rows.iter().find(|row| row.verdict.as_str() == "allowed").unwrap();
    assert!(
        of_allow.reason.starts_with("allow:") && of_allow.reason.ends_with(" login:failed"),
        "{of_allow:?}"
    );
    let limited = rows.iter().find(|row| row.reason == "limit:login login:failed").unwrap();
    let why = gateway.cli_ok(&["why", &limited.id.to_string()]);
    assert!(why.contains("refused the name or the password") && why.contains("3/1h"), "{why}");
    gateway.cli_ok(&["detect"]);
    let found: Value = serde_json::from_str(&gateway.cli_ok(&["suspicious", "--json"])).unwrap();
    let clients: Vec<&str> =
        found.as_array().unwrap().iter().filter_map(|one| one["client"].as_str()).collect();
    assert_eq!(clients, ["203.0.113.9"], "in dry-run too; an allow is never scored: {found:#}");
}

#[test]
fn http2_and_websockets_carry_identities_too() {
    let upstream = Upstream::start();
    let certificates = Certificates::new();
    let jwt = format!("[identity.jwt]\nkeys = [{{ algorithm = \"HS256\", secret = \"{SECRET}\" }}]");
    let sections = config().upstream(&upstream).section(DJANGO).section(&jwt);
    let gateway = with_tls(sections, &certificates, &["example.com"]);
    let client = certificates.h2_client(&gateway, "example.com");
    let script = json!({ "status": 303, "headers": [["Location", "/"], ["Set-Cookie", "sessionid=two"]] });
    let login =
        H2Request::post("/accounts/login", b"user=a&password=b").header("x-answer", &script.to_string());
    assert_eq!(client.send(login).unwrap().status(), 303);
    // A cookie line for each.
    let split = H2Request::get("/echo/h2").header("cookie", "a=1").header("cookie", "sessionid=two");
    assert_eq!(client.send(split.header("cookie", "b=2")).unwrap().status(), 200);
    let user = gateway.data().row_of("/echo/h2").user;
    assert!(is_session(&user), "{user}");
    let token = Signer::hs("HS256", SECRET.as_bytes()).token(&claims("alice"));
    let bearer = H2Request::get("/echo/token").header("authorization", &format!("Bearer {token}"));
    client.send(bearer).unwrap();
    assert_eq!(gateway.data().row_of("/echo/token").user, "alice");

    let url = format!("ws://{}/websocket", gateway.address());
    let request = WebSocketRequest::get(&url)
        .header("Host", "example.com")
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", tungstenite::handshake::client::generate_key())
        .header("Cookie", "sessionid=two")
        .body(())
        .unwrap();
    let (mut socket, _) = tungstenite::client(request, gateway.client().socket()).unwrap();
    socket.send(Message::text("hello")).unwrap();
    assert_eq!(socket.read().unwrap(), Message::text("hello"));
    drop(socket);
    assert_eq!(gateway.data().row_of("/websocket").user, user);
}

#[test]
fn sessions_survive_a_restart_and_a_kill_without_a_cookie_on_disk() {
    let upstream = Upstream::start();
    let folder = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(config().upstream(&upstream).section(DJANGO).data(folder.path()));
    log_in(&mut gateway.client(), "restart-cookie-value");
    let known = user(&gateway, &mut gateway.client(), "restart-cookie-value", "/echo/1");
    let gateway = gateway.terminate().start_again();
    assert_eq!(user(&gateway, &mut gateway.client(), "restart-cookie-value", "/echo/2"), known);

    log_in(&mut gateway.client(), "kill-cookie-value");
    let saved = gateway.data().folder().join("sessions.json");
    eventually("the new session is saved", || {
        let text = fs::read_to_string(&saved).unwrap();
        (text.matches("\"hash\"").count() == 2).then_some(())
    });
    let ended = gateway.kill();
    for file in fs::read_dir(ended.data.folder()).unwrap() {
        let path = file.unwrap().path();
        let bytes = fs::read(&path).unwrap_or_default();
        let holds = |text: &str| bytes.windows(text.len()).any(|part| part == text.as_bytes());
        assert!(!holds("cookie-value"), "{}", path.display());
    }
    for name in ["sessions.json", "identity.key"] {
        let mode = fs::metadata(ended.data.folder().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let gateway = ended.start_again();
    for (n, cookie) in ["restart-cookie-value", "kill-cookie-value"].into_iter().enumerate() {
        assert!(is_session(&user(&gateway, &mut gateway.client(), cookie, &format!("/echo/k{n}"))));
    }
    // Without the key, or with another, nobody is known; and a damaged file stops nothing.
    let ended = gateway.terminate();
    fs::remove_file(ended.data.folder().join("identity.key")).unwrap();
    let gateway = ended.start_again();
    assert_eq!(user(&gateway, &mut gateway.client(), "kill-cookie-value", "/echo/no-key"), "");
    let ended = gateway.terminate();
    fs::write(&saved, "{\"version\":1,\"sess").unwrap();
    let gateway = ended.start_again();
    assert!(gateway.stderr().contains("sessions begin anew"), "{}", gateway.stderr());
    log_in(&mut gateway.client(), "after");
    assert!(is_session(&user(&gateway, &mut gateway.client(), "after", "/echo/after")));
}

#[test]
fn an_upgrade_takes_the_sessions_along_also_those_that_come_late() {
    let upstream = Upstream::start();
    let mut gateway = site(&upstream);
    log_in(&mut gateway.client(), "before");
    log_in(&mut gateway.client(), "leaves-late");
    let known = user(&gateway, &mut gateway.client(), "before", "/echo/1");
    // These connections stay with the old process.
    let (mut logs_in, mut logs_out) = (gateway.client(), gateway.client());
    logs_in.get("/echo/open");
    logs_out.get("/echo/open");
    let (output, old) = gateway.upgrade(&[]);
    assert_eq!(output.code, Some(0), "{output:?}");
    assert_eq!(user(&gateway, &mut gateway.client(), "before", "/echo/2"), known);
    log_in(&mut logs_in, "late");
    let logout = asking("POST", "/accounts/logout", 302, &[], &[]).header("Cookie", "sessionid=leaves-late");
    logs_out.send(&logout);
    drop((logs_in, logs_out));
    gateway.wait_for_end(old);
    let mut n = 0;
    let mut is_known = |cookie: &str| {
        n += 1;
        is_session(&user(&gateway, &mut gateway.client(), cookie, &format!("/echo/late{n}")))
    };
    eventually("the new process knows what the old one learned", || {
        std::thread::sleep(Duration::from_millis(100));
        (is_known("late") && !is_known("leaves-late")).then_some(())
    });
    assert!(is_known("before"));
}

#[test]
fn identity_is_switched_on_and_off_while_the_gateway_runs_and_the_command_shows_it() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(config().upstream(&upstream));
    assert!(gateway.cli_ok(&["identity"]).contains("Everybody is anonymous"));
    let text = fs::read_to_string(gateway.config_file()).unwrap();
    gateway.write_config(&format!("{text}{DJANGO}"));
    gateway.hang_up();
    eventually("sessions are known", || {
        let cookie = format!("n{}", gateway.data().count());
        log_in(&mut gateway.client(), &cookie);
        let path = format!("/echo/{cookie}");
        is_session(&user(&gateway, &mut gateway.client(), &cookie, &path)).then_some(())
    });
    eventually("the command has seen a login", || {
        let shown: Value = serde_json::from_str(&gateway.cli_ok(&["identity", "--json"])).unwrap();
        assert_eq!(shown["sessions"]["cookie"], "sessionid");
        let (logins, sessions) = (&shown["seen"]["logins"]["succeeded"], &shown["seen"]["sessions"]);
        (logins.as_u64() > Some(0) && sessions.as_u64() > Some(0)).then_some(())
    });
    assert!(gateway.cli_ok(&["identity"]).contains("by the cookie \"sessionid\""));
    gateway.write_config(&text);
    gateway.hang_up();
    eventually("nobody is known", || {
        let path = format!("/echo/off{}", gateway.data().count());
        (user(&gateway, &mut gateway.client(), "n0", &path)).is_empty().then_some(())
    });
}

#[test]
fn a_login_takes_a_visitor_from_the_limit_of_strangers_to_that_of_users() {
    let upstream = Upstream::start();
    let limits = "[[limit]]\nname = \"anonymous\"\nidentity = [\"anonymous\"]\nrate = \"5/1h\"\n\
                  [[limit]]\nname = \"authenticated\"\nidentity = [\"authenticated\"]\nkey = \"user\"\nrate = \"10/1h\"";
    let gateway = Gateway::start(config().upstream(&upstream).section(DJANGO).section(limits));
    let served = |cookie: &str| {
        let mut client = gateway.client();
        let visit = || Request::get("/echo").header("Cookie", &format!("sessionid={cookie}"));
        (0..15).filter(|_| client.send(&visit()).status() == 200).count()
    };
    // The login itself is a stranger's request.
    log_in(&mut gateway.client(), "mine");
    assert_eq!(served("made-up"), 4);
    assert_eq!(served("mine"), 10);
    assert_eq!((served("made-up"), served("mine")), (0, 0));
}
