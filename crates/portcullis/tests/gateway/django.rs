//! A real Django site behind the gateway: its own login, logout and session rotation are recognised, and the limits
//! of the original projects hold exactly, as `config/originals.toml` has them.

use std::thread;

use portcullis_testkit::{Browser, DjangoSite, Gateway, Request, Response, eventually};
use serde_json::Value;

use crate::config;

/// Started at once by each flood.
const CONCURRENT: usize = 200;

/// `None` where Django is not installed.
fn site(names_users: bool) -> Option<DjangoSite> {
    DjangoSite::start(env!("CARGO_BIN_EXE_portcullis"), names_users)
}

/// The file of the originals, from `[identity]` or from its first limit on.
fn originals(from: &str) -> &'static str {
    let file = include_str!("../../../../config/originals.toml");
    &file[file.find(&format!("\n{from}")).unwrap()..]
}

fn gateway(site: &DjangoSite, sections: &str) -> Gateway {
    let upstream = format!("servers = [\"{}\"]", site.url());
    Gateway::start(config().upstream_with(&upstream).behind_local_proxy().section(sections))
}

/// `[identity]` of the originals, with no limit that an ordinary walk through the site would meet.
fn identity_alone() -> String {
    let (identity, _) = originals("[identity]").split_once("\n[[limit]]").unwrap();
    identity.to_owned()
}

fn log_in(browser: &mut Browser, page: &str, user: &str) -> Response {
    let password = format!("{user}-password");
    browser.submit(page, page, &[("username", user), ("password", &password)])
}

/// Asks for a path of its own with this session; returns the user of its row.
fn user_of(gateway: &Gateway, session: &str, path: &str) -> String {
    let request = Request::get(path).header("Cookie", &format!("sessionid={session}"));
    gateway.client_of("198.51.100.20").send(&request);
    gateway.data().row_of(path).user
}

#[test]
fn the_gateway_recognises_djangos_login_logout_and_session_rotation() {
    let Some(site) = site(false) else { return };
    let gateway = gateway(&site, &identity_alone());
    let mut browser = Browser::new(gateway.client_of("203.0.113.9"));

    // A session from before the login is nobody's, and so is one that was made up.
    assert_eq!(browser.get("/basket/").status(), 200);
    let visitor = browser.cookie("sessionid").unwrap().to_owned();
    assert_eq!(user_of(&gateway, &visitor, "/visitor"), "");
    assert_eq!(user_of(&gateway, "abcdefghijklmnopqrstuvwxyz012345", "/made-up"), "");
    let sent_away = browser.get("/members/");
    assert_eq!(sent_away.header("location"), Some("/login/?next=/members/"));

    let wrong = browser.submit("/login/", "/login/", &[("username", "alice"), ("password", "guess")]);
    assert!(wrong.status() == 200 && wrong.text().contains("correct username and password"));
    let row = |reason: &str| gateway.data().row_where(reason, |row| row.reason == reason);
    assert_eq!(row("login:failed").path, "/login/");
    assert_eq!(user_of(&gateway, &visitor, "/after-failure"), "");

    // Django gives the session another key at login; the old one gets nobody in.
    assert_eq!(log_in(&mut browser, "/login/", "alice").status(), 302);
    let first = browser.cookie("sessionid").unwrap().to_owned();
    assert_ne!(first, visitor);
    assert_eq!(row("login:succeeded").path, "/login/");
    assert_eq!(browser.get("/members/").text(), "members only, alice");
    let known = gateway.data().row_where("members", |row| row.path == "/members/" && row.status == 200).user;
    assert!(known.starts_with("session:"), "{known}");
    assert_eq!(user_of(&gateway, &first, "/logged-in"), known);
    assert_eq!(user_of(&gateway, &visitor, "/visitor-again"), "");

    // And another one when the password changes.
    let new = "a-longer-password-9";
    let fields = [("old_password", "alice-password"), ("new_password1", new), ("new_password2", new)];
    assert_eq!(browser.submit("/password/", "/password/", &fields).status(), 302);
    let second = browser.cookie("sessionid").unwrap().to_owned();
    assert_ne!(second, first);
    assert_eq!(browser.get("/members/").text(), "members only, alice");
    // The old key counts for half a minute more, for what is on its way: crates/identity/tests/sessions.rs.
    assert_eq!(user_of(&gateway, &second, "/rotated"), known, "the same session goes on");

    assert_eq!(browser.submit("/", "/logout/", &[]).status(), 302);
    assert_eq!(browser.cookie("sessionid"), None);
    assert_eq!(user_of(&gateway, &second, "/logged-out"), "");
    assert_eq!(browser.get("/members/").status(), 302);

    // The admin has a login page and words of its own.
    let wrong = browser.submit(
        "/admin/login/",
        "/admin/login/",
        &[("username", "alice"), ("password", "a-longer-password-9")],
    );
    assert_eq!(wrong.status(), 200, "alice is no member of staff");
    gateway
        .data()
        .row_where("the admin's refusal", |row| row.path == "/admin/login/" && row.reason == "login:failed");
    let fields = [("username", "root"), ("password", "root-password"), ("next", "/admin/")];
    assert_eq!(browser.submit("/admin/login/", "/admin/login/", &fields).status(), 302);
    let root = browser.cookie("sessionid").unwrap().to_owned();
    assert!(user_of(&gateway, &root, "/root").starts_with("session:"));
}

#[test]
fn a_django_site_that_names_its_users_has_them_in_the_log() {
    let Some(site) = site(true) else { return };
    let gateway = gateway(&site, &identity_alone());
    let mut sessions = Vec::new();
    for client in ["203.0.113.9", "198.51.100.7"] {
        let mut browser = Browser::new(gateway.client_of(client));
        assert_eq!(log_in(&mut browser, "/login/", "alice").status(), 302);
        let page = browser.get("/members/");
        assert_eq!((page.text().as_str(), page.header("x-portcullis-user")), ("members only, alice", None));
        sessions.push(browser);
    }
    for (n, browser) in sessions.iter().enumerate() {
        let user = user_of(&gateway, browser.cookie("sessionid").unwrap(), &format!("/session-{n}"));
        assert_eq!(user, "alice");
    }
    let old = sessions[0].cookie("sessionid").unwrap().to_owned();
    assert_eq!(sessions[0].submit("/", "/logout/", &[]).status(), 302);
    assert_eq!(user_of(&gateway, &old, "/logged-out"), "");
    let other = sessions[1].cookie("sessionid").unwrap();
    assert_eq!(user_of(&gateway, other, "/still-in"), "alice", "the other session has not ended");
    let rows =
        "SELECT group_concat(DISTINCT path) FROM request_log WHERE user = 'alice' AND ip = '203.0.113.9'";
    let paths: String = eventually("the last row", || {
        let paths: String = gateway.data().sql(rows);
        paths.contains("/logout/").then_some(paths)
    });
    // The page that leads to it has the form.
    assert_eq!(paths, "/members/,/,/logout/");
}

/// Sends requests at once, each on a connection of its own; returns the statuses of those that were admitted.
/// Every other one must be a 429 with `Retry-After` in this range: the window, and the second that rounds it up.
fn flood(
    gateway: &Gateway,
    clients: &[&str],
    request: &Request,
    wait: std::ops::RangeInclusive<u64>,
) -> Vec<u16> {
    let ask = |n: usize| gateway.client_of(clients[n % clients.len()]).send(request);
    let ask = &ask;
    let answers: Vec<Response> = thread::scope(|scope| {
        let threads: Vec<_> = (0..CONCURRENT).map(|n| scope.spawn(move || ask(n))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let (refused, admitted): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status() == 429);
    for answer in refused {
        let after: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!(wait.contains(&after), "Retry-After: {after}");
    }
    admitted.iter().map(|answer| answer.status()).collect()
}

#[test]
fn the_originals_limits_hold_exactly_before_django_under_200_concurrent_requests() {
    let Some(site) = site(true) else { return };
    // A burst of 200 logins is an attack too, and a detector that blocks would answer in the limit's place.
    let sections = format!("{}\n[detection]\nlive = false\n", originals("[identity]"));
    let gateway = gateway(&site, &sections);

    let page = Request::get("/");
    assert_eq!(flood(&gateway, &["203.0.113.1"], &page, 1..=61), [200; 5], "anonymous: 5 in a minute");
    assert_eq!(gateway.client_of("203.0.113.2").send(&page).status(), 200, "another client");

    let mut browser = Browser::new(gateway.client_of("203.0.113.3"));
    let guess = browser.form("/login/", "/login/", &[("username", "alice"), ("password", "guess")]);
    let guess = guess.header("Cookie", &browser.cookies());
    assert_eq!(flood(&gateway, &["203.0.113.3"], &guess, 1..=301), [200; 3], "login: 3 in 5 minutes");

    // Two sessions of one user at two addresses; two users at one address.
    let clients = ["203.0.113.4", "203.0.113.5"];
    let [mut alice, alice_too, bob] = [(clients[0], "alice"), (clients[1], "alice"), (clients[0], "bob")]
        .map(|(client, user)| {
            let mut browser = Browser::new(gateway.client_of(client));
            assert_eq!(log_in(&mut browser, "/login/", user).status(), 302, "{user}");
            browser
        });
    // The two at this address have used four of the anonymous five there: forms and logins.
    let strangers = [0, 1].map(|_| gateway.client_of(clients[0]).send(&page).status());
    assert_eq!(strangers, [200, 429], "an address with users on it has its five all the same");

    let members = |browser: &Browser| Request::get("/members/").header("Cookie", &browser.cookies());
    let admitted = flood(&gateway, &clients, &members(&alice), 1..=61);
    assert_eq!(admitted, [200; 10], "authenticated: 10 in a minute");
    let other_session = gateway.client_of(clients[1]).send(&members(&alice_too));
    assert_eq!(other_session.status(), 429, "counted by user, not by session or address");
    assert_eq!(flood(&gateway, &clients, &members(&bob), 1..=61), [200; 10], "bob has ten of his own");
    assert_eq!(alice.get("/").status(), 429);

    each_refusal_is_an_event(&gateway);
}

fn each_refusal_is_an_event(gateway: &Gateway) {
    let expected =
        [("anonymous", "203.0.113.1", "5/1m", "/", 195), ("login", "203.0.113.3", "3/5m", "/login/", 197)];
    let total = |events: &Value, is: &dyn Fn(&Value) -> bool| -> u64 {
        let events = events.as_array().unwrap().iter().filter(|event| is(event));
        events.filter_map(|event| event["count"].as_u64()).sum()
    };
    // 195 + 197 of strangers and one more; of alice 190 + 1 + 1, of bob 190.
    let events = eventually("all events", || {
        let text = gateway.cli_ok(&["limits", "events", "--json", "--limit", "1000"]);
        let events = serde_json::from_str::<Value>(&text).unwrap();
        (total(&events, &|_| true) == 775).then_some(events)
    });
    for (rule, client, bound, endpoint, count) in expected {
        let is = |event: &Value| {
            event["rule"] == rule
                && event["client"] == client
                && event["bound"] == bound
                && event["endpoint"] == endpoint
                && event["action"] == "limited"
        };
        assert_eq!(total(&events, &is), count, "{rule}: {events:#}");
    }
    let of = |rule: &str| total(&events, &|event: &Value| event["rule"] == rule);
    assert_eq!([of("anonymous"), of("login"), of("authenticated")], [196, 197, 382]);
    // And each has a row with its user.
    let rows =
        |sql: &str| gateway.data().sql::<i64>(&format!("SELECT count(*) FROM request_log WHERE {sql}"));
    eventually("all rows", || (rows("status = 429") == 775).then_some(()));
    let of_user = |user: &str, more: &str| rows(&format!("user = '{user}' AND {more}"));
    assert_eq!(of_user("alice", "status = 200 AND path = '/members/'"), 10);
    assert_eq!(of_user("alice", "status = 429 AND reason = 'limit:authenticated'"), 192);
    assert_eq!(of_user("bob", "status = 429"), 190);
}
