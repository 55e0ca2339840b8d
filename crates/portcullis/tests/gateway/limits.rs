//! Limits and the access list over real sockets: criteria, keys, cost, burst, concurrency, events, the command.

use std::fs;
use std::path::PathBuf;

use portcullis_testkit::{Gateway, Request, Signer, Upstream, eventually, tungstenite};
use serde_json::Value;

use crate::identity::{SECRET, claims};
use crate::mmdb::Field::{Map, Number, Text};
use crate::mmdb::{Tree, Writer};
use crate::{behind_proxy, config};

/// 203.0.113.0/24 is in Germany and of AS64500, 198.51.100.0/24 in the United States, the rest nowhere.
fn atlas(folder: &tempfile::TempDir) -> PathBuf {
    let place = |code, asn| {
        Map(vec![("autonomous_system_number", Number(asn)), ("country", Map(vec![("iso_code", Text(code))]))])
    };
    let bytes = Writer::new("Test", Tree::V4)
        .with("203.0.113.0/24", place("DE", 64_500))
        .with("198.51.100.0/24", place("US", 64_501))
        .bytes();
    let file = folder.path().join("atlas.mmdb");
    fs::write(&file, bytes).unwrap();
    file
}

fn geo(file: &std::path::Path) -> String {
    format!("[geo]\ndatabases = [{:?}]\n", file.to_str().unwrap())
}

const HOME_ONLY: &str = "
[[access]]
name = \"admin-from-home\"
paths = [\"/admin/*\"]
countries = [\"DE\"]
action = \"allow\"
[[access]]
name = \"no-admin\"
paths = [\"/admin/*\"]
action = \"deny\"
[[access]]
name = \"no-scanners\"
user_agents = [\"*sqlmap*\"]
action = \"deny\"
[[access]]
name = \"tried\"
asns = [64501]
action = \"deny\"
mode = \"dry-run\"
";

#[test]
fn the_access_list_knows_places_and_programs_and_names_its_rule() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = Upstream::start();
    let rules = geo(&atlas(&folder)) + HOME_ONLY;
    let gateway = Gateway::start(behind_proxy(&upstream).section(&rules).limit("all", "rate = \"2/1h\""));
    let get = |client: &str, path: &str| gateway.client_of(client).get(path);
    assert_eq!(get("203.0.113.9", "/admin/x").status(), 200);
    for client in ["198.51.100.7", "192.0.2.1"] {
        for path in ["/admin", "//ADMIN/x", "/%61dmin/"] {
            let denied = get(client, path);
            assert_eq!(denied.status(), 403, "{client} {path}");
            let row = gateway.data().row(&denied.decision_id());
            let why = (row.verdict.as_str(), &*row.reason);
            assert_eq!(why, ("blocked", "access:no-admin"), "{client} {path}");
        }
    }
    let agent = Request::get("/").header("User-Agent", "SQLmap/1.8 (https://sqlmap.org)");
    let denied = gateway.client_of("192.0.2.2").send(&agent);
    assert_eq!(denied.status(), 403);
    assert_eq!(gateway.data().row(&denied.decision_id()).reason, "access:no-scanners");
    // It is what it asks for, not its address.
    assert!(denied.text().contains("This request is not accepted here."), "{}", denied.text());
    let why = gateway.cli_ok(&["why", &denied.decision_id()]);
    assert!(why.contains("Refused with 403 by the access list."), "{why}");
    assert!(why.contains("\"no-scanners\" of the access list denies") && why.contains("*sqlmap*"), "{why}");
    // The trial refuses nobody, and the limit still holds for those that it means.
    let statuses: Vec<u16> = (0..3).map(|_| get("198.51.100.8", "/tried").status()).collect();
    assert_eq!(statuses, [200, 200, 429]);
    let row = gateway.data().row_where("the trial", |row| row.reason == "access:tried");
    assert_eq!((row.status, row.verdict.as_str()), (200, "would_block"));
    // An allow of the access list lifts no limit.
    let statuses: Vec<u16> = (0..2).map(|_| get("203.0.113.9", "/admin/y").status()).collect();
    assert_eq!(statuses, [200, 429]);
    assert_eq!(upstream.requests(), 4);
    let refused = |labels: &str| gateway.metric(&format!("portcullis_rule_refusals_total{{{labels}}}"));
    eventually("the metrics", || {
        (refused("kind=\"access\",rule=\"no-admin\",mode=\"enforce\"") == 6.0).then_some(())
    });
    assert_eq!(refused("kind=\"access\",rule=\"tried\",mode=\"dry-run\""), 2.0);
    assert_eq!(refused("kind=\"limit\",rule=\"all\",mode=\"enforce\""), 2.0);
}

#[test]
fn an_unknown_place_is_meant_only_where_the_rule_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = Upstream::start();
    let rule = |name: &str, path: &str, more: &str| {
        format!(
            "[[access]]\nname = {name:?}\npaths = [{path:?}]\ncountries = [\"US\"]\naction = \"deny\"\n{more}\n"
        )
    };
    let rules = [geo(&atlas(&folder)), rule("a", "/a", ""), rule("b", "/b", "unknown_place = true")].concat();
    let gateway = Gateway::start(behind_proxy(&upstream).section(&rules));
    for (client, path, status) in [
        ("192.0.2.1", "/a", 200),
        ("192.0.2.1", "/b", 403),
        ("2001:db8::1", "/b", 403),
        ("203.0.113.1", "/b", 200),
        ("198.51.100.1", "/a", 403),
    ] {
        assert_eq!(gateway.client_of(client).get(path).status(), status, "{client} {path}");
    }
}

#[test]
fn limits_count_by_network_header_and_path() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(
        behind_proxy(&upstream)
            .limit("net", "paths = [\"/net\"]\nkey = \"prefix\"\nprefix_v4 = 16\nrate = \"2/1h\"")
            .limit("api", "paths = [\"/api\"]\nkey = \"header:X-Api-Key\"\nrate = \"2/1h\"")
            .limit("page", "paths = [\"/page/*\"]\nkey = \"ip+path\"\nrate = \"1/1h\""),
    );
    let get = |client: &str, path: &str| gateway.client_of(client).get(path).status();
    assert_eq!([get("10.1.2.3", "/net"), get("10.1.255.1", "/net")], [200, 200]);
    assert_eq!([get("10.1.9.9", "/net"), get("10.2.0.1", "/net")], [429, 200]);
    assert_eq!(["/page/a", "/page/b", "/page//A"].map(|path| get("10.1.1.1", path)), [200, 200, 429]);

    let api = |client: &str, keys: &[&str]| {
        let request = keys.iter().fold(Request::get("/api"), |request, key| request.header("X-Api-Key", key));
        gateway.client_of(client).send(&request).status()
    };
    assert_eq!(
        [api("10.9.0.1", &["k1"]), api("10.9.0.2", &["k1"]), api("10.9.0.3", &["k1"])],
        [200, 200, 429]
    );
    assert_eq!(api("10.9.0.1", &["k2"]), 200, "another key from the same address");
    // Whoever sends none, or two, counts by address and gains nothing.
    let evading = [api("10.9.0.4", &[]), api("10.9.0.4", &["a", "k1"]), api("10.9.0.4", &["b", "k1"])];
    assert_eq!(evading, [200, 200, 429]);
    let data = gateway.data();
    let row = data.row_where("the network", |row| row.client.to_string() == "10.1.9.9");
    let why = gateway.cli_ok(&["why", &row.id.to_string()]);
    assert!(
        why.contains("2 requests of one network (/16, IPv6 /48)") && why.contains("10.1.0.0/16"),
        "{why}"
    );
    assert!(why.contains("had 2 requests served") || why.contains("had 2 served"), "{why}");
}

#[test]
fn a_burst_a_cost_and_the_strictest_of_several_limits_are_told_in_the_answer() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(
        behind_proxy(&upstream)
            .limit("burst", "paths = [\"/b\"]\nrate = \"100/1h\"\nburst = \"2/1m\"")
            .limit("cost", "paths = [\"/c\"]\nrate = \"10/1h\"\ncost = 4")
            .limit("minute", "paths = [\"/s\"]\nrate = \"1/1m\"")
            .limit("hour", "paths = [\"/s\"]\nrate = \"1/1h\""),
    );
    let mut client = gateway.client_of("203.0.113.9");
    let mut last = |path: &str, served: usize| {
        for n in 0..served {
            assert_eq!(client.get(path).status(), 200, "{path}, number {n}");
        }
        let refused = client.get(path);
        assert_eq!(refused.status(), 429, "{path}");
        refused
    };
    let wait = |seconds: &str| seconds.parse::<u64>().unwrap();

    let burst = last("/b", 2);
    assert_eq!(burst.header("ratelimit-policy"), Some("\"burst\";q=2;w=60"));
    assert!((50..=61).contains(&wait(burst.header("retry-after").unwrap())));
    assert_eq!(gateway.data().row(&burst.decision_id()).reason, "burst:burst");
    let why = gateway.cli_ok(&["why", &burst.decision_id()]);
    assert!(why.contains("The burst of the limit \"burst\" admits 2 requests"), "{why}");

    let cost = last("/c", 2);
    assert_eq!(cost.header("ratelimit-policy"), Some("\"cost\";q=10;w=3600"));

    let strictest = last("/s", 1);
    assert_eq!(strictest.header("ratelimit-policy"), Some("\"hour\";q=1;w=3600"));
    assert!(wait(strictest.header("retry-after").unwrap()) > 3_500);
    assert_eq!(gateway.data().row(&strictest.decision_id()).reason, "limit:hour");
}

#[test]
fn a_limit_of_concurrency_holds_while_requests_and_websockets_last() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(behind_proxy(&upstream).limit("two", "concurrency = 2"));
    let begin = |client: &str, path: &str| {
        let mut client = gateway.client_of(client);
        client.write_request(&Request::get(path));
        client
    };
    let held = [begin("203.0.113.9", "/silent"), begin("203.0.113.9", "/silent")];
    eventually("two requests under way", || (upstream.requests() == 2).then_some(()));
    let refused = gateway.client_of("203.0.113.9").get("/");
    assert_eq!((refused.status(), refused.header("retry-after")), (429, Some("1")));
    assert_eq!(refused.header("ratelimit-policy"), Some("\"two\";q=2;qu=\"concurrent-requests\""));
    assert_eq!(gateway.data().row(&refused.decision_id()).reason, "concurrency:two");
    let why = gateway.cli_ok(&["why", &refused.decision_id()]);
    assert!(why.contains("lets 2 requests of one client be under way at once"), "{why}");
    assert_eq!(gateway.client_of("203.0.113.10").get("/").status(), 200, "another client");
    // Clients that go away in the middle give their places back.
    drop(held);
    let is_free = || (gateway.client_of("203.0.113.9").get("/").status() == 200).then_some(());
    eventually("the places are free", is_free);

    let websocket = || {
        let url = format!("ws://{}/websocket", gateway.address());
        let mut request = tungstenite::client::IntoClientRequest::into_client_request(url).unwrap();
        request.headers_mut().insert("x-forwarded-for", "203.0.113.9".parse().unwrap());
        let mut socket = tungstenite::client(request, gateway.client().socket()).ok()?.0;
        socket.send(tungstenite::Message::text("alive")).ok()?;
        socket.read().ok().map(|_| socket)
    };
    let open = [eventually("a websocket", websocket), eventually("another", websocket)];
    assert_eq!(gateway.client_of("203.0.113.9").get("/").status(), 429, "two sockets are open");
    drop(open);
    eventually("the sockets have ended", is_free);
}

/// The limits of `config/originals.toml`.
fn originals() -> String {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../config/originals.toml");
    let text = fs::read_to_string(file).unwrap();
    let (_, limits) = text.split_once("\n[[limit]]").unwrap();
    format!("[[limit]]{limits}\n")
}

/// How many of 200 requests at once are served.
fn served_at_once(ask: &(dyn Fn(usize) -> u16 + Sync)) -> usize {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..200).map(|n| scope.spawn(move || ask(n))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).filter(|status| *status == 200).count()
    })
}

#[test]
fn two_hundred_requests_at_once_find_exactly_the_limit() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(behind_proxy(&upstream).section(&originals()));
    let pages = served_at_once(&|_| gateway.client_of("203.0.113.1").get("/page").status());
    assert_eq!(pages, 5, "anonymous: 5 in a minute");
    let logins = |_| gateway.client_of("203.0.113.2").post("/accounts/login/", "x").status();
    assert_eq!(served_at_once(&logins), 3, "login: 3 in 5 minutes");
    assert_eq!(upstream.requests(), 8);
}

#[test]
fn a_verified_user_has_one_limit_from_wherever_and_neighbours_have_theirs() {
    let upstream = Upstream::start();
    let jwt = format!("[identity.jwt]\nkeys = [{{ algorithm = \"HS256\", secret = {SECRET:?} }}]\n");
    let staff = "[[access]]\nname = \"staff\"\npaths = [\"/admin/*\"]\nidentity = [\"user:alice\"]\naction = \"allow\"\n\
                 [[access]]\nname = \"no-admin\"\npaths = [\"/admin/*\"]\naction = \"deny\"\n";
    let sections = [&jwt, staff, &originals()].concat();
    let gateway = Gateway::start(behind_proxy(&upstream).section(&sections));
    let signer = Signer::hs("HS256", SECRET.as_bytes());
    let ask = |client: &str, user: Option<&str>, path: &str| {
        let request = match user {
            Some(user) => {
                Request::get(path).header("Authorization", &format!("Bearer {}", signer.token(&claims(user))))
            }
            None => Request::get(path),
        };
        gateway.client_of(client).send(&request)
    };
    let alice = |n: usize| ask(&format!("203.0.113.{n}"), Some("alice"), "/page").status();
    assert_eq!(served_at_once(&alice), 10, "authenticated: 10 in a minute, from 200 addresses");
    let refused = ask("203.0.113.7", Some("alice"), "/page");
    assert_eq!(gateway.data().row(&refused.decision_id()).reason, "limit:authenticated");
    let why = gateway.cli_ok(&["why", &refused.decision_id()]);
    assert!(why.contains("10 requests of one user") && why.contains("the user alice had 10 served"), "{why}");
    assert_eq!(ask("203.0.113.7", Some("bob"), "/page").status(), 200, "another user at the same address");
    assert_eq!(served_at_once(&|_| ask("203.0.113.7", None, "/page").status()), 5, "strangers there");
    let denied = ask("203.0.113.8", Some("bob"), "/admin/x");
    assert_eq!(gateway.data().row(&denied.decision_id()).reason, "access:no-admin");
    assert_eq!(
        ask("203.0.113.8", Some("alice"), "/admin/x").status(),
        429,
        "let past the list, not past the limit"
    );
    assert_eq!(upstream.requests(), 16);
}

#[test]
fn every_refusal_is_an_event_with_its_limit_and_the_command_lists_them() {
    let upstream = Upstream::start();
    let limits = behind_proxy(&upstream)
        .limit("login", "paths = [\"/login\"]\nmethods = [\"POST\"]\nrate = \"3/5m\"")
        .limit("trial", "paths = [\"/page\"]\nrate = \"1/1h\"\nmode = \"dry-run\"");
    let gateway = Gateway::start(limits);
    for _ in 0..8 {
        gateway.client_of("203.0.113.9").post("/login", "x");
    }
    for _ in 0..3 {
        assert_eq!(gateway.client_of("203.0.113.10").get("/page").status(), 200);
    }
    let json = |args: &[&str]| serde_json::from_str::<Value>(&gateway.cli_ok(args)).unwrap();
    let events = eventually("the events", || {
        let events = json(&["limits", "events", "--json"]);
        let total: u64 = events.as_array().unwrap().iter().filter_map(|event| event["count"].as_u64()).sum();
        (total == 7).then_some(events)
    });
    let of = |rule: &str| events.as_array().unwrap().iter().find(|event| event["rule"] == rule).unwrap();
    let login = of("login");
    for (field, value) in
        [("client", "203.0.113.9"), ("endpoint", "/login"), ("bound", "3/5m"), ("action", "limited")]
    {
        assert_eq!(login[field], value, "{login}");
    }
    assert_eq!((&of("trial")["action"], &of("trial")["bound"]), (&"would_limit".into(), &"1/1h".into()));
    let list = json(&["limits", "--json"]);
    assert_eq!(list["limits"][0]["events"]["refused"], 5);
    assert_eq!(list["limits"][1]["events"]["would_have_refused"], 2);
    let text = gateway.cli_ok(&["limits"]);
    assert!(text.contains("login") && text.contains("POST requests to /login"), "{text}");
    let text = gateway.cli_ok(&["limits", "events", "--rule", "login"]);
    assert!(text.contains("3/5m") && !text.contains("trial"), "{text}");
}

#[test]
fn the_command_says_which_rules_a_request_would_meet_and_counts_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = Upstream::start();
    let rules = geo(&atlas(&folder)) + HOME_ONLY;
    let gateway = Gateway::start(
        behind_proxy(&upstream)
            .section(&rules)
            .limit("login", "paths = [\"/login\"]\nmethods = [\"POST\"]\nrate = \"1/5m\"")
            .limit("user", "identity = [\"authenticated\"]\nkey = \"user\"\nrate = \"10/1m\"")
            .limit("german", "countries = [\"DE\"]\nkey = \"prefix\"\nrate = \"9/1m\""),
    );
    let test = |args: &[&str]| {
        let all = [&["limits", "test", "--json"], args].concat();
        serde_json::from_str::<Value>(&gateway.cli_ok(&all)).unwrap()
    };
    for _ in 0..3 {
        let answer =
            test(&["--path", "//LOGIN", "--method", "POST", "--user", "alice", "--ip", "203.0.113.9"]);
        let met: Vec<_> = answer["limits"]
            .as_array()
            .unwrap()
            .iter()
            .map(|limit| {
                (
                    limit["limit"].as_str().unwrap().to_owned(),
                    limit["counted_for"].as_str().unwrap().to_owned(),
                )
            })
            .collect();
        let expected =
            [("login", "address 203.0.113.9"), ("user", "user alice"), ("german", "network 203.0.113.0/24")];
        assert_eq!(met, expected.map(|(name, subject)| (name.to_owned(), subject.to_owned())));
    }
    assert_eq!(gateway.client_of("203.0.113.9").post("/login", "x").status(), 200, "nothing was counted");
    assert_eq!(test(&["--path", "/admin", "--country", "FR"])["denied_by"], "no-admin");
    assert_eq!(test(&["--path", "/admin", "--country", "DE"])["denied_by"], Value::Null);
    let text = gateway.cli_ok(&["limits", "test", "--path", "/x", "--ip", "192.0.2.9"]);
    assert!(text.contains("none means this request"), "{text}");
    let hostile = gateway.cli(&["limits", "test", "--host", "a/b"]);
    assert_eq!(hostile.code, Some(2));
}

#[test]
fn a_country_rule_without_a_geo_database_is_told_at_the_check() {
    let upstream = Upstream::start();
    let rule = "[[access]]\nname = \"abroad\"\ncountries = [\"US\"]\naction = \"deny\"";
    let gateway = Gateway::start(config().upstream(&upstream).section(rule));
    let text = gateway.cli_ok(&["check"]);
    assert!(text.contains("access.abroad asks where clients are from"), "{text}");
    assert!(text.contains("abroad: deny all requests from US"), "{text}");
}
