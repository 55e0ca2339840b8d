//! 200 users behind one address, and an attacker among them: the attacker is stopped, nobody else is refused.

use std::thread;
use std::time::SystemTime;

use portcullis_model::{BlockSource, Party, UnixMs};
use portcullis_store::{NewBlock, State};
use portcullis_testkit::{
    Client, Gateway, GatewayConfig, Request, Response, Signer, Upstream, eventually, tungstenite,
};
use serde_json::json;

use crate::identity::{SECRET, claims};
use crate::tls::{Certificates, with_tls};
use crate::{behind_proxy, config};

const OFFICE: &str = "203.0.113.7";
const BROWSER: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0";
const USERS: usize = 200;
/// Logins of anonymous clients that a block of them leaves in five minutes.
const ROOM: usize = 10;

fn with_tokens(config: GatewayConfig) -> GatewayConfig {
    config.section(&format!(
        "[identity.jwt]\nkeys = [{{ algorithm = \"HS256\", secret = \"{SECRET}\" }}]\n[detection]\nlive = false\nforest = false"
    ))
}

/// A site with limits that 200 users of one address would exceed if they were one client.
fn office(upstream: &Upstream) -> Gateway {
    let per_user = "key = \"user\"\nrate = \"60/1m\"";
    let logins = "paths = [\"/login\"]\nmethods = [\"POST\"]\nrate = \"30/5m\"";
    Gateway::start(
        with_tokens(behind_proxy(upstream))
            .limit("address", "rate = \"100/1m\"")
            .limit("user", per_user)
            .limit("login", logins),
    )
}

/// Somebody in the office.
struct Person {
    connection: Client,
    agent: &'static str,
    token: Option<String>,
}

impl Person {
    fn anonymous(gateway: &Gateway, agent: &'static str) -> Self {
        Self { connection: gateway.client_of(OFFICE), agent, token: None }
    }

    fn user(gateway: &Gateway, name: &str) -> Self {
        let token = Signer::hs("HS256", SECRET.as_bytes()).token(&claims(name));
        Self { token: Some(format!("Bearer {token}")), ..Self::anonymous(gateway, BROWSER) }
    }

    fn send(&mut self, request: Request) -> Response {
        let request = request.header("User-Agent", self.agent);
        let request = match &self.token {
            Some(token) => request.header("Authorization", token),
            None => request,
        };
        self.connection.send(&request)
    }

    fn get(&mut self, path: &str) -> u16 {
        self.send(Request::get(path)).status()
    }

    /// A login that the site answers with this status.
    fn log_in(&mut self, status: u16) -> u16 {
        let answer = json!({ "status": status, "headers": [["Location", "/home"]], "parts": [] });
        self.send(Request::new("POST", "/login").header("X-Answer", &answer.to_string())).status()
    }

    /// What a scanner asks for; how many requests that are.
    fn scan(&mut self) -> u64 {
        let paths =
            ["/.env", "/.git/config", "/.aws/credentials", "/wp-config.php.bak", "/id_rsa", "/backup.sql"];
        for path in paths {
            self.get(&format!("/missing{path}"));
            self.get(path);
        }
        2 * paths.len() as u64
    }
}

fn people(gateway: &Gateway) -> Vec<Person> {
    (0..USERS - 1).map(|n| Person::user(gateway, &format!("user-{n}"))).collect()
}

/// Everybody reads a page; how many are refused.
fn refused(people: &mut [Person], path: &str) -> usize {
    people.iter_mut().map(|person| person.get(path)).filter(|status| *status != 200).count()
}

/// Waits until so many blocks of this kind are in force. A client that asked until its answer changes would use up
/// its limits on a slow day, and get that answer for a minute.
fn wait_for_blocks(gateway: &Gateway, kind: &str, count: f64) {
    let name = format!("portcullis_blocks_active{{kind=\"{kind}\"}}");
    eventually(&name, || (gateway.metric(&name) == count).then_some(()));
}

fn now() -> UnixMs {
    UnixMs::from_system(SystemTime::now())
}

#[test]
fn of_200_users_behind_one_address_the_one_who_attacks_is_stopped_and_no_other_is_refused() {
    let upstream = Upstream::start();
    let gateway = office(&upstream);
    let mut others = people(&gateway);
    assert_eq!(refused(&mut others, "/inbox"), 0, "600 in a minute are more than 100");
    assert_eq!(refused(&mut others, "/inbox/2"), 0);
    let mut mallory = Person::user(&gateway, "mallory");
    let mut requests = 2 * others.len() as u64 + mallory.scan();
    for _ in 0..20 {
        mallory.log_in(401);
        requests += 1;
    }
    gateway.data().wait_for_count(requests);
    let said = gateway.cli_ok(&["detect"]);
    assert!(said.contains("mallory at 203.0.113.7") && said.contains("blocked user mallory"), "{said}");

    wait_for_blocks(&gateway, "user", 1.0);
    let answer = mallory.send(Request::get("/"));
    assert_eq!(answer.status(), 403);
    // Attacker and users at once.
    thread::scope(|scope| {
        let attack = scope.spawn(|| (0..100).filter(|_| mallory.log_in(401) != 403).count());
        assert_eq!(refused(&mut others, "/inbox/3"), 0);
        assert_eq!(attack.join().unwrap(), 0, "requests of the attacker that went through");
    });
    assert_eq!(Person::anonymous(&gateway, BROWSER).get("/"), 200, "somebody who is no user yet");
    let elsewhere = Request::get("/").header("Authorization", mallory.token.as_deref().unwrap());
    assert_eq!(gateway.client_of("198.51.100.9").send(&elsewhere).status(), 403, "from another address");

    let state = gateway.data().state();
    assert_eq!(state.active_blocks(now()).unwrap(), [], "the address is not blocked");
    let blocks = state.active_party_blocks(now()).unwrap();
    assert_eq!(blocks.iter().map(|block| &block.party).collect::<Vec<_>>(), [&Party::User("mallory".into())]);
    gateway.data().row(&answer.decision_id());
    let why = gateway.cli_ok(&["why", &answer.decision_id()]);
    for part in
        ["Refused with 403: user mallory was blocked.", "by the detector", "/.env", "unblock --user mallory"]
    {
        assert!(why.contains(part), "{part:?} is not in\n{why}");
    }
    gateway.cli_ok(&["unblock", "--user", "mallory"]);
    wait_for_blocks(&gateway, "user", 0.0);
    assert_eq!(mallory.get("/"), 200);
}

#[test]
fn an_anonymous_attacker_behind_the_address_is_stopped_and_newcomers_still_log_in() {
    let upstream = Upstream::start();
    let gateway = office(&upstream);
    let mut users = people(&gateway);
    assert_eq!(refused(&mut users, "/inbox"), 0);
    let mut attacker = Person::anonymous(&gateway, "guesser/1.0");
    let mut requests = users.len() as u64 + attacker.scan();
    for _ in 0..40 {
        attacker.log_in(401);
        requests += 1;
    }
    gateway.data().wait_for_count(requests);
    let said = gateway.cli_ok(&["detect"]);
    assert!(said.contains("blocked anonymous clients of 203.0.113.7"), "{said}");
    wait_for_blocks(&gateway, "anonymous", 1.0);
    assert_eq!(attacker.get("/"), 403);

    thread::scope(|scope| {
        let attack = scope.spawn(|| {
            (0..100)
                .filter(|n| if n % 2 == 0 { attacker.log_in(401) } else { attacker.get("/") } != 403)
                .count()
        });
        assert_eq!(refused(&mut users, "/inbox/2"), 0);
        // More of them than the room holds: each who has come makes room for the next.
        for n in 0..2 * ROOM {
            let mut newcomer = Person::anonymous(&gateway, BROWSER);
            assert_eq!((newcomer.get("/login"), newcomer.log_in(302)), (200, 302), "newcomer {n}");
            assert_eq!(Person::user(&gateway, &format!("newcomer-{n}")).get("/home"), 200, "newcomer {n}");
        }
        assert_eq!(attack.join().unwrap(), 0, "requests of the attacker that went through");
    });

    // Under another name it may look at pages like anybody, but neither scan nor guess.
    let mut disguised = Person::anonymous(&gateway, BROWSER);
    assert_eq!((disguised.get("/"), disguised.get("/.env")), (200, 403));
    let guesses = (0..50).filter(|_| disguised.log_in(401) == 401).count();
    assert!(guesses <= ROOM, "{guesses} logins went through");
    assert_eq!(refused(&mut users, "/inbox/3"), 0, "users never wait");
    assert_eq!(gateway.data().state().active_blocks(now()).unwrap(), []);
    let why = gateway.cli_ok(&["why", OFFICE]);
    assert!(why.contains("anonymous clients of 203.0.113.7") && why.contains("unblock 203.0.113.7"), "{why}");
    gateway.cli_ok(&["unblock", OFFICE]);
    wait_for_blocks(&gateway, "anonymous", 0.0);
    assert_eq!(attacker.get("/"), 200);
}

#[test]
fn an_open_websocket_of_a_user_ends_with_the_users_block_and_not_with_the_addresss() {
    let upstream = Upstream::start();
    let gateway = office(&upstream);
    let open = |user: &str| {
        // See `guard.rs` for those that do not live.
        eventually("a websocket that lives", || {
            let to = format!("ws://{}/websocket", gateway.address());
            let mut request = tungstenite::client::IntoClientRequest::into_client_request(to).unwrap();
            let token = Person::user(&gateway, user).token.unwrap();
            request.headers_mut().insert("x-forwarded-for", OFFICE.parse().unwrap());
            request.headers_mut().insert("authorization", token.parse().unwrap());
            let mut socket = tungstenite::client(request, gateway.client().socket()).unwrap().0;
            socket.send(tungstenite::Message::text("alive")).ok()?;
            socket.read().ok().map(|_| socket)
        })
    };
    let (mut alice, mut mallory) = (open("alice"), open("mallory"));
    let mut state = State::open(gateway.data().folder()).unwrap();
    state.add_block(block(&format!("{OFFICE}/32"), BlockSource::Detector), "test").unwrap();
    wait_for_blocks(&gateway, "address", 1.0);
    assert_eq!(Person::anonymous(&gateway, BROWSER).get("/"), 403);
    gateway.cli_ok(&["block", "--user", "mallory"]);
    // By then the watch has looked at all connections with both blocks in force.
    assert!(mallory.read().is_err(), "it stayed open");
    alice.send(tungstenite::Message::text("still here")).unwrap();
    assert_eq!(alice.read().unwrap(), tungstenite::Message::text("still here"));
}

fn block(network: &str, source: BlockSource) -> NewBlock {
    NewBlock {
        network: network.parse().unwrap(),
        reason: "test".to_owned(),
        source,
        created_at: now(),
        expires_at: None,
        finding_id: None,
    }
}

#[test]
fn login_paths_alone_make_no_users_for_whom_a_blocked_address_would_be_heard() {
    let upstream = Upstream::start();
    let certificates = Certificates::new();
    let logins = config().upstream(&upstream).section("[identity]\nlogin_paths = [\"/login\"]");
    let gateway = with_tls(logins, &certificates, &["a.example"]);
    let mut state = State::open(gateway.data().folder()).unwrap();
    state.add_block(block("127.0.0.1/32", BlockSource::Detector), "test").unwrap();
    let mut plain = gateway.client();
    eventually("the block is in force", || (plain.get("/").status() == 403).then_some(()));
    let mut dropped = Client::connect(gateway.tls_address());
    assert_eq!(dropped.read_to_end(), b"", "nothing was said");
    assert_eq!(gateway.metric("portcullis_connections_dropped_total"), 1.0);
}

#[test]
fn a_blocked_address_reaches_the_decision_over_tls_where_users_can_be_known() {
    let upstream = Upstream::start();
    let certificates = Certificates::new();
    let gateway = with_tls(with_tokens(config().upstream(&upstream)), &certificates, &["a.example"]);
    let mut state = State::open(gateway.data().folder()).unwrap();
    state.add_block(block("127.0.0.1/32", BlockSource::Detector), "test").unwrap();
    let anonymous = || certificates.client(&gateway, "a.example").get("/").status();
    eventually("strangers are refused", || (anonymous() == 403).then_some(()));
    let token = Signer::hs("HS256", SECRET.as_bytes()).token(&claims("alice"));
    let request = Request::get("/").header("Authorization", &format!("Bearer {token}"));
    let mut alice = certificates.client(&gateway, "a.example");
    assert_eq!(alice.send(&request).status(), 200);
    assert_eq!(gateway.metric("portcullis_connections_dropped_total"), 0.0);

    // What a person wrote down means her too.
    state.add_block(block("127.0.0.1/32", BlockSource::Cli), "test").unwrap();
    eventually("alice is refused", || (alice.send(&request).status() == 403).then_some(()));
    let mut dropped = Client::connect(gateway.tls_address());
    assert_eq!(dropped.read_to_end(), b"", "nothing was said");
}
