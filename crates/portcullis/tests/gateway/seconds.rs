//! What the detector does at request time: whoever gives itself away is refused from the very next request on, durably
//! and with an explanation, and nobody else is.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use portcullis_model::{BlockSource, ClientIp, FindingStatus, Party, Severity, UnixMs, VerdictKind};
use portcullis_privacy::is_pseudonym;
use portcullis_store::{FindingFilter, StoredBlock, StoredFinding};
use portcullis_testkit::{
    Gateway, GatewayConfig, Request, Response, Signer, Upstream, WebhookReceiver, eventually,
};

use crate::identity::{SECRET, claims};
use crate::{behind_proxy, config};

const BROWSER: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0";
const ATTACKER: &str = "203.0.113.66";
/// What scanners ask for; nothing of it is on the site.
const SECRETS: [&str; 12] = [
    "/.env",
    "/.git/config",
    "/.aws/credentials",
    "/wp-config.php.bak",
    "/id_rsa",
    "/backup.sql",
    "/.ssh/id_rsa",
    "/vendor/phpunit/phpunit/src/Util/PHP/eval-stdin.php",
    "/phpinfo.php",
    "/.svn/entries",
    "/server-status",
    "/actuator/env",
];

fn missing(path: &str) -> Request {
    let answer = r#"{"status": 404, "headers": [], "parts": ["not here"]}"#;
    Request::get(path).header("User-Agent", BROWSER).header("X-Answer", answer)
}

/// Asks for one secret after the other until it is refused. How many were answered by the site, and the refusal.
fn attack(send: impl FnMut(&Request) -> Response) -> (u64, Response) {
    attack_with("", send)
}

/// The same with a query.
fn attack_with(query: &str, mut send: impl FnMut(&Request) -> Response) -> (u64, Response) {
    for (n, path) in SECRETS.into_iter().enumerate() {
        let answer = send(&missing(&format!("{path}{query}")));
        match answer.status() {
            404 => {}
            403 => return (n as u64, answer),
            status => panic!("{path} was answered with {status}"),
        }
    }
    panic!("it was never refused");
}

fn attack_from(gateway: &Gateway, client: &str) -> (u64, Response) {
    let mut connection = gateway.client_of(client);
    attack(|request| connection.send(request))
}

fn ip(text: &str) -> ClientIp {
    text.parse().unwrap()
}

fn now() -> UnixMs {
    UnixMs::from_system(std::time::SystemTime::now())
}

fn findings(gateway: &Gateway) -> Vec<StoredFinding> {
    gateway.data().state().findings(&FindingFilter::default()).unwrap()
}

/// Waits for the block of this address.
fn block_of(gateway: &Gateway, client: &str) -> StoredBlock {
    let block = eventually("the row of the block", || {
        gateway.data().state().covering(ip(client), now()).unwrap().into_iter().next()
    });
    gateway.data().state().block(block.id).unwrap().unwrap()
}

/// Waits for the finding about this address, severe enough to block.
fn finding_of(gateway: &Gateway, client: &str) -> StoredFinding {
    eventually("the finding", || {
        let filter = FindingFilter {
            client: Some(ip(client)),
            min_severity: Some(Severity::High),
            ..FindingFilter::default()
        };
        gateway.data().state().findings(&filter).unwrap().pop()
    })
}

/// The attack was stopped by the request after the one that gave the attacker away, and the database says why.
fn assert_stopped(gateway: &Gateway, (admitted, refusal): &(u64, Response)) {
    let block = block_of(gateway, ATTACKER);
    assert_eq!(block.block.source, BlockSource::Detector);
    assert!(block.block.expires_at.is_some());
    let finding = gateway.data().state().finding(block.block.finding_id.unwrap()).unwrap().unwrap();
    assert_eq!(finding.block_id, Some(block.block.id));
    assert_eq!(finding.finding.request_count, *admitted, "of each request before the refusal, and no more");
    let row = gateway.data().row(&refusal.decision_id());
    assert_eq!(row.verdict, VerdictKind::Blocked);
    let rows = gateway.data().rows();
    let let_in = rows.iter().rfind(|row| row.client == ip(ATTACKER) && row.verdict == VerdictKind::Admitted);
    assert_eq!(let_in.map(|row| row.time()), Some(finding.finding.last_seen), "it gave itself away by that");

    let why = gateway.cli_ok(&["why", &refusal.decision_id()]);
    for part in [ATTACKER, "detector", "/.env", "unblock"] {
        assert!(why.contains(part), "{part:?} is not in\n{why}");
    }
    let rule = &finding.finding.reason;
    let details = finding.finding.details.to_string();
    assert!(why.contains(rule.as_str()) || why.contains("asked for"), "{rule}: {why}");
    assert!(details.contains("/.env"), "{details}");
}

#[test]
fn on_one_connection_the_request_after_the_one_that_gives_an_attacker_away_is_refused() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(behind_proxy(&upstream));
    let mut connection = gateway.client_of(ATTACKER);
    let outcome = attack(|request| connection.send(request));
    assert_eq!(upstream.requests() as u64, outcome.0, "the site never saw the refused one");
    for path in ["/", "/about"] {
        assert_eq!(connection.get(path).status(), 403);
    }
    assert_stopped(&gateway, &outcome);
    assert!(gateway.metric("portcullis_detector_alarms_written_total") >= 1.0);
    assert_eq!(gateway.metric("portcullis_detector_alarms_lost_total"), 0.0);
}

#[test]
fn on_new_connections_it_is_the_very_next_one_too() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(behind_proxy(&upstream));
    let outcome = attack(|request| gateway.client_of(ATTACKER).send(request));
    assert_stopped(&gateway, &outcome);
    assert_eq!(gateway.client_of(ATTACKER).get("/").status(), 403);
    assert_eq!(gateway.client_of("203.0.113.67").get("/").status(), 200, "the neighbour");
    // The run of every hour sees the same, and does nothing about it once more.
    let before = findings(&gateway);
    gateway.cli_ok(&["detect"]);
    let after = findings(&gateway);
    assert_eq!(after.len(), before.len(), "{after:?}");
    assert_eq!(gateway.data().state().active_blocks(now()).unwrap().len(), 1);
}

#[test]
fn the_block_survives_a_kill_of_the_gateway() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(behind_proxy(&upstream));
    attack_from(&gateway, ATTACKER);
    block_of(&gateway, ATTACKER);
    let gateway = gateway.kill().start_again();
    assert_eq!(gateway.client_of(ATTACKER).get("/").status(), 403);
    assert_eq!(gateway.client_of("203.0.113.67").get("/").status(), 200);
}

#[test]
fn who_is_unblocked_by_a_person_is_let_in_and_begins_anew() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(behind_proxy(&upstream));
    attack_from(&gateway, ATTACKER);
    block_of(&gateway, ATTACKER);
    gateway.cli_ok(&["unblock", ATTACKER]);
    eventually("it is let in", || (gateway.client_of(ATTACKER).get("/").status() == 200).then_some(()));
    assert_eq!(gateway.client_of(ATTACKER).send(&missing("/broken-link")).status(), 404);
    assert_eq!(gateway.client_of(ATTACKER).get("/").status(), 200, "one broken link is no attack");
}

#[test]
fn a_finding_that_a_person_dismissed_blocks_nobody_again() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(behind_proxy(&upstream));
    attack_from(&gateway, ATTACKER);
    let finding = finding_of(&gateway, ATTACKER);
    block_of(&gateway, ATTACKER);
    gateway.cli_ok(&["suspicious", &finding.id.to_string(), "--dismiss"]);
    gateway.cli_ok(&["unblock", ATTACKER]);
    let dismissed = "portcullis_detector_dismissed";
    eventually("the gateway hears of it", || (gateway.metric(dismissed) > 0.5).then_some(()));
    eventually("it is let in", || (gateway.client_of(ATTACKER).get("/").status() == 200).then_some(()));
    let mut connection = gateway.client_of(ATTACKER);
    for path in SECRETS {
        assert_eq!(connection.send(&missing(path)).status(), 404, "{path}");
    }
    assert_eq!(gateway.data().state().finding(finding.id).unwrap().unwrap().status, FindingStatus::Dismissed);
    assert_eq!(gateway.data().state().active_blocks(now()).unwrap(), []);
}

#[test]
fn dry_run_lets_in_and_records_what_it_would_have_done() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(behind_proxy(&upstream).top("mode = \"dry-run\""));
    let mut connection = gateway.client_of(ATTACKER);
    for path in SECRETS {
        assert_eq!(connection.send(&missing(path)).status(), 404, "{path}");
    }
    let finding = finding_of(&gateway, ATTACKER);
    block_of(&gateway, ATTACKER);
    gateway.data().wait_for_count(SECRETS.len() as u64);
    let after = |row: &portcullis_store::LogRow| row.time() > finding.finding.first_seen;
    let verdicts: Vec<_> = gateway.data().rows().into_iter().filter(after).map(|row| row.verdict).collect();
    assert_eq!(verdicts.last(), Some(&VerdictKind::WouldBlock));
    assert!(verdicts.iter().all(|v| matches!(v, VerdictKind::Admitted | VerdictKind::WouldBlock)));
}

#[test]
fn a_kind_of_evidence_in_dry_run_is_let_in_and_recorded_without_a_block() {
    let upstream = Upstream::start();
    let kinds = "dry_run = [\"signatures\", \"errors\", \"paths\"]";
    let gateway = Gateway::start(behind_proxy(&upstream).section(&format!("[detection.actions]\n{kinds}")));
    let mut connection = gateway.client_of(ATTACKER);
    for path in SECRETS {
        assert_eq!(connection.send(&missing(path)).status(), 404, "{path}");
    }
    let finding = finding_of(&gateway, ATTACKER);
    gateway.data().wait_for_count(SECRETS.len() as u64);
    let last = gateway.data().rows().pop().unwrap();
    assert_eq!(
        (last.verdict, last.reason.starts_with("caught:")),
        (VerdictKind::WouldBlock, true),
        "{last:?}"
    );
    let why = gateway.cli_ok(&["why", &last.id.to_string()]);
    assert!(why.contains("dry-run") && why.contains("detector"), "{why}");
    let said = gateway.cli_ok(&["detect"]);
    assert!(said.contains("in dry-run"), "{said}");
    assert_eq!(gateway.data().state().active_blocks(now()).unwrap(), []);
    assert_eq!(gateway.data().state().finding(finding.id).unwrap().unwrap().block_id, None);
    // Another kind is blocked all the same.
    let scanner = Request::get("/").header("User-Agent", "sqlmap/1.8");
    let mut connection = gateway.client_of("203.0.113.67");
    let refused = (0..9).any(|_| connection.send(&scanner).status() == 403);
    assert!(refused, "a scanner by its own name");
}

#[test]
fn a_block_lasts_as_long_as_its_kind_of_evidence_says() {
    let upstream = Upstream::start();
    let actions = "[detection.actions]\nsignatures = { high = \"block 10m\", critical = \"block 10m\" }\n\
                   errors = { high = \"block 10m\", critical = \"block 10m\" }";
    let gateway = Gateway::start(behind_proxy(&upstream).section(actions));
    attack_from(&gateway, ATTACKER);
    let block = block_of(&gateway, ATTACKER).block;
    assert_eq!(block.expires_at.unwrap().since(block.created_at).as_secs(), 600);
}

#[test]
fn an_allowed_client_is_never_held() {
    let upstream = Upstream::start();
    let allow = format!("[[allow]]\nnetwork = \"{ATTACKER}\"\nreason = \"our own scanner\"");
    let gateway = Gateway::start(behind_proxy(&upstream).section(&allow));
    let mut connection = gateway.client_of(ATTACKER);
    for path in SECRETS {
        assert_eq!(connection.send(&missing(path)).status(), 404, "{path}");
    }
    // Somebody else's alarm comes behind any of its own.
    attack_from(&gateway, "203.0.113.67");
    finding_of(&gateway, "203.0.113.67");
    assert_eq!(findings(&gateway).len(), 1);
}

#[test]
fn this_machine_and_trusted_proxies_are_never_blocked() {
    let upstream = Upstream::start();
    for config in [behind_proxy(&upstream), config().upstream(&upstream)] {
        let gateway = Gateway::start(config);
        let mut connection = gateway.client();
        for path in SECRETS {
            assert_eq!(connection.send(&missing(path)).status(), 404, "{path}");
        }
        finding_of(&gateway, "127.0.0.1");
        assert_eq!(connection.get("/").status(), 200);
        assert_eq!(gateway.data().state().active_blocks(now()).unwrap(), []);
    }
}

#[test]
fn without_the_live_detector_nobody_is_refused_before_the_next_run() {
    let upstream = Upstream::start();
    for off in ["live = false", "enabled = false"] {
        let gateway = Gateway::start(behind_proxy(&upstream).section(&format!("[detection]\n{off}")));
        let mut connection = gateway.client_of(ATTACKER);
        for path in SECRETS {
            assert_eq!(connection.send(&missing(path)).status(), 404, "{path}");
        }
        assert_eq!(gateway.metric("portcullis_detector_clients"), 0.0, "{off}");
        assert_eq!(findings(&gateway), []);
    }
}

fn with_tokens(config: GatewayConfig) -> GatewayConfig {
    config.section(&format!("[identity.jwt]\nkeys = [{{ algorithm = \"HS256\", secret = \"{SECRET}\" }}]"))
}

#[test]
fn a_user_behind_a_shared_address_is_stopped_alone() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(with_tokens(behind_proxy(&upstream)));
    let token = |user: &str| {
        let token = Signer::hs("HS256", SECRET.as_bytes()).token(&claims(user));
        format!("Bearer {token}")
    };
    let (alice, mallory) = (token("alice"), token("mallory"));
    let reads =
        |token: &str| Request::get("/inbox").header("User-Agent", BROWSER).header("Authorization", token);
    assert_eq!(gateway.client_of(ATTACKER).send(&reads(&alice)).status(), 200);
    let (_, refusal) = attack(|request| {
        gateway.client_of(ATTACKER).send(&request.clone().header("Authorization", &mallory))
    });
    let elsewhere = gateway.client_of("198.51.100.9").send(&reads(&mallory));
    assert_eq!(elsewhere.status(), 403, "from another address");
    assert_eq!(
        gateway.client_of(ATTACKER).send(&reads(&alice)).status(),
        200,
        "her neighbour on the address"
    );
    assert_eq!(gateway.client_of(ATTACKER).get("/").status(), 200, "who still has to log in");
    let blocks = eventually("the row of the block", || {
        Some(gateway.data().state().active_party_blocks(now()).unwrap()).filter(|blocks| !blocks.is_empty())
    });
    assert_eq!(blocks.iter().map(|block| &block.party).collect::<Vec<_>>(), [&Party::User("mallory".into())]);
    assert_eq!(gateway.data().state().active_blocks(now()).unwrap(), [], "the address is not blocked");
    gateway.data().row(&refusal.decision_id());
    let why = gateway.cli_ok(&["why", &refusal.decision_id()]);
    assert!(why.contains("mallory") && why.contains("unblock --user mallory"), "{why}");
}

#[test]
fn what_privacy_keeps_out_of_the_log_is_not_in_a_finding_either() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(behind_proxy(&upstream).section("[privacy]\nanonymise = \"hash\""));
    let mut connection = gateway.client_of(ATTACKER);
    let query = "?token=S3cr3tValue&id=1%27%20UNION%20SELECT%20name%20FROM%20users--";
    attack_with(query, |request| connection.send(request));
    block_of(&gateway, ATTACKER);
    let found = findings(&gateway);
    assert!(!found.is_empty());
    for stored in &found {
        let text = serde_json::to_string(stored).unwrap();
        assert!(is_pseudonym(stored.finding.client), "{text}");
        assert!(!text.contains(ATTACKER) && !text.contains("S3cr3t"), "{text}");
        assert!(text.contains("/.env?token=[redacted]&id=1"), "{text}");
    }
    assert_eq!(connection.get("/").status(), 403, "the true address is refused");
}

#[test]
fn a_client_that_opts_out_is_stopped_all_the_same_and_named_nowhere_but_in_its_block() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(behind_proxy(&upstream).section("[privacy]\nhonour_gpc = true"));
    let mut connection = gateway.client_of(ATTACKER);
    attack(|request| connection.send(&request.clone().header("Sec-GPC", "1")));
    block_of(&gateway, ATTACKER);
    for stored in findings(&gateway) {
        let text = serde_json::to_string(&stored).unwrap();
        assert!(is_pseudonym(stored.finding.client) && !text.contains(ATTACKER), "{text}");
    }
}

#[test]
fn an_attacker_whose_network_alone_is_in_the_log_is_stopped_and_its_neighbours_are_not() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(behind_proxy(&upstream).section("[privacy]\nanonymise = \"truncate\""));
    assert_eq!(gateway.client_of("203.0.113.1").get("/").status(), 200);
    attack_from(&gateway, ATTACKER);
    assert_eq!(block_of(&gateway, ATTACKER).block.network.to_string(), format!("{ATTACKER}/32"));
    assert_eq!(gateway.client_of("203.0.113.1").get("/").status(), 200);
    let found = findings(&gateway);
    assert_eq!(found.iter().map(|stored| stored.finding.client).collect::<Vec<_>>(), [ip("203.0.113.0")]);
    assert!(!serde_json::to_string(&found).unwrap().contains(ATTACKER), "{found:?}");
}

#[test]
fn people_are_told_of_an_alarm_once() {
    let chat = WebhookReceiver::start(&[]);
    let webhook = format!("[[alerts.webhook]]\nname = \"chat\"\nurl = \"{}\"", chat.url("/T0"));
    let upstream = Upstream::start();
    let alerts = format!("[alerts]\nfindings = \"high\"\ngather = \"200ms\"\n{webhook}");
    let gateway = Gateway::start(behind_proxy(&upstream).section(&alerts));
    attack_from(&gateway, ATTACKER);
    block_of(&gateway, ATTACKER);
    let blocked = format!("{ATTACKER} was blocked");
    let told = || chat.posted().iter().filter(|post| post.json().to_string().contains(&blocked)).count();
    eventually("a message", || (told() == 1).then_some(()));
    gateway.cli_ok(&["detect"]);
    attack_from(&gateway, "203.0.113.67");
    let other = "203.0.113.67 was blocked";
    eventually("the next message", || {
        chat.posted().iter().any(|post| post.json().to_string().contains(other)).then_some(())
    });
    assert_eq!(told(), 1, "the run that came in between had nothing new to say");
}

#[test]
fn an_ordinary_visitor_is_never_refused_while_somebody_else_attacks() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(behind_proxy(&upstream));
    let pages = ["/", "/products", "/style.css", "/logo.png", "/missing/old-page", "/about", "/login"];
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let visitor = scope.spawn(|| {
            let mut statuses = Vec::new();
            let mut rounds = 0;
            while !is_over.load(Ordering::Relaxed) || rounds < 3 {
                rounds += 1;
                let mut connection = gateway.client_of("198.51.100.1");
                for page in pages {
                    let request = Request::get(page).header("User-Agent", BROWSER);
                    statuses
                        .push(connection.send(&request.header("Referer", "http://shop.example/")).status());
                }
            }
            statuses
        });
        for n in 1..=8 {
            let attacker = format!("203.0.113.{n}");
            attack_from(&gateway, &attacker);
            assert_eq!(gateway.client_of(&attacker).get("/").status(), 403);
        }
        is_over.store(true, Ordering::Relaxed);
        let statuses = visitor.join().unwrap();
        assert!(statuses.iter().all(|status| matches!(status, 200 | 404)), "{statuses:?}");
    });
}
