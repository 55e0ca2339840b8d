//! Findings in the console: looked at, judged, taken back.

use portcullis_model::{Finding, FindingStatus, Severity, UnixMs};
use portcullis_store::{FindingFilter, State, StoredFinding};
use portcullis_testkit::{Gateway, Request, Upstream, eventually};

use crate::config;
use crate::person::{Person, field};

const ATTACKER: &str = "203.0.113.66";
const OTHER: &str = "198.51.100.66";
const VISITOR: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0";

/// A gateway whose detector only looks when it is asked, and blocks nobody.
fn gateway(upstream: &Upstream) -> Gateway {
    let detection = "[detection]\nlive = false\nblock_severity = \"never\"";
    Gateway::start(config().upstream(upstream).behind_local_proxy().section(detection))
}

/// Requests that the detector flags for sensitive paths.
fn probe(gateway: &Gateway, client: &str) {
    let mut connection = gateway.client_of(client);
    for path in ["/", "/admin", "/about"] {
        connection.send(&Request::get(path).header("User-Agent", VISITOR));
    }
}

fn detect(gateway: &Gateway, requests: u64) {
    gateway.data().wait_for_count(requests);
    gateway.cli_ok(&["detect"]);
}

fn findings(gateway: &Gateway) -> Vec<StoredFinding> {
    gateway.data().state().findings(&FindingFilter::default()).unwrap()
}

fn finding_of(gateway: &Gateway, client: &str) -> StoredFinding {
    let found = findings(gateway).into_iter().find(|stored| stored.finding.client.to_string() == client);
    found.unwrap_or_else(|| panic!("{client} was not flagged"))
}

fn status(gateway: &Gateway, id: i64) -> FindingStatus {
    gateway.data().state().finding(id).unwrap().unwrap().status
}

#[test]
fn a_finding_is_shown_with_its_evidence_and_judged_and_undone() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream);
    let mut alice = Person::operator(&gateway);
    probe(&gateway, ATTACKER);
    detect(&gateway, 3);
    let id = finding_of(&gateway, ATTACKER).id;
    let list = alice.page("/findings");
    assert!(list.contains(ATTACKER) && list.contains("sensitive_paths"), "{list}");
    let whole = alice.page(&format!("/findings/{id}"));
    for wanted in ["sensitive_paths", "GET /admin", "What would have prevented it", "not blocked"] {
        assert!(whole.contains(wanted), "{wanted} is missing: {whole}");
    }

    let only = id.to_string();
    let page = alice.change("/findings", &[("only", &only), ("deed", "confirm")]);
    assert!(page.contains(&format!("Finding {id} is confirmed")), "{page}");
    assert_eq!(status(&gateway, id), FindingStatus::Confirmed);
    alice.change("/undo", &[("key", &field(&page, "key"))]);
    assert_eq!(status(&gateway, id), FindingStatus::Open);

    alice.change("/findings", &[("only", &only), ("deed", "dismiss")]);
    assert_eq!(status(&gateway, id), FindingStatus::Dismissed);
    assert!(!alice.page("/findings").contains(&format!("/findings/{id}\"")), "no longer to review");
    assert!(alice.page("/findings?status=dismissed").contains(ATTACKER));
    let audit = gateway.data().state().audit(UnixMs(0), 20).unwrap();
    let noted = |detail: &str| {
        audit
            .iter()
            .any(|entry| entry.actor == "console:alice" && entry.subject == only && entry.detail == detail)
    };
    assert!(noted("confirmed") && noted("open") && noted("dismissed"), "{audit:?}");
    assert_eq!(alice.get("/findings/4711").status(), 404);
}

#[test]
fn what_is_dismissed_for_good_is_not_found_again_until_it_is_taken_back() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream);
    let mut alice = Person::operator(&gateway);
    probe(&gateway, ATTACKER);
    detect(&gateway, 3);
    let first = finding_of(&gateway, ATTACKER);
    let path = format!("/findings/{}/dismiss", first.id);
    let wrong = [("never", "path"), ("rule", "high_frequency")];
    assert_eq!(alice.post(&path, &wrong).status(), 422);
    let fields = [("never", "path"), ("rule", &*first.finding.reason), ("path", "/admin"), ("note", "ours")];
    let page = alice.change(&path, &fields);
    assert!(page.contains("Never again: sensitive_paths for /admin"), "{page}");
    assert_eq!(status(&gateway, first.id), FindingStatus::Dismissed);

    probe(&gateway, OTHER);
    detect(&gateway, 6);
    let flags = |gateway: &Gateway| {
        findings(gateway).iter().any(|stored| {
            stored.finding.client.to_string() == OTHER && stored.finding.reason == "sensitive_paths"
        })
    };
    assert!(!flags(&gateway), "{:?}", findings(&gateway));

    assert!(alice.page("/findings/never").contains("ours"));
    let undone = alice.change("/undo", &[("key", &field(&page, "key"))]);
    assert!(undone.contains("all is as it was before"), "{undone}");
    assert_eq!(status(&gateway, first.id), FindingStatus::Open);
    assert!(gateway.data().state().nevers().unwrap().is_empty());
    detect(&gateway, 6);
    assert!(flags(&gateway), "the rule speaks again: {:?}", findings(&gateway));
}

#[test]
fn a_dismissal_for_good_is_listed_and_removed_and_the_removal_undone() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream);
    let mut alice = Person::operator(&gateway);
    probe(&gateway, ATTACKER);
    detect(&gateway, 3);
    let id = finding_of(&gateway, ATTACKER).id;
    alice.change(&format!("/findings/{id}/dismiss"), &[("never", "client"), ("note", "our monitor")]);
    let never = gateway.data().state().nevers().unwrap().pop().unwrap();
    assert_eq!(never.network.unwrap().to_string(), format!("{ATTACKER}/32"));
    let page = alice.change("/findings/never", &[("only", &never.id.to_string())]);
    assert!(gateway.data().state().nevers().unwrap().is_empty());
    alice.change("/undo", &[("key", &field(&page, "key"))]);
    assert_eq!(gateway.data().state().nevers().unwrap().len(), 1);
}

#[test]
fn many_findings_are_dismissed_and_their_clients_blocked_at_once() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream);
    let mut alice = Person::operator(&gateway);
    probe(&gateway, ATTACKER);
    probe(&gateway, OTHER);
    detect(&gateway, 6);
    let ids = [ATTACKER, OTHER].map(|client| finding_of(&gateway, client).id);
    let texts = ids.map(|id| id.to_string());
    let ticked = [("id", texts[0].as_str()), ("id", texts[1].as_str())];

    let page = alice.change("/findings", &[&ticked[..], &[("deed", "dismiss")]].concat());
    assert!(page.contains("2 findings: now dismissed"), "{page}");
    alice.change("/undo", &[("key", &field(&page, "key"))]);
    assert_eq!(ids.map(|id| status(&gateway, id)), [FindingStatus::Open; 2]);

    let page = alice.change("/findings", &[&ticked[..], &[("deed", "block"), ("expires", "+1h")]].concat());
    assert_eq!(ids.map(|id| status(&gateway, id)), [FindingStatus::Confirmed; 2]);
    for client in [ATTACKER, OTHER] {
        eventually("the block has changed", || {
            (gateway.client_of(client).get("/").status() == 403).then_some(())
        });
    }
    let stored = finding_of(&gateway, ATTACKER);
    let block = gateway.data().state().block(stored.block_id.unwrap()).unwrap().unwrap().block;
    assert_eq!((block.finding_id, block.reason.as_str()), (Some(stored.id), "sensitive_paths"));
    assert!(alice.page("/blocks").contains(&format!("/findings/{}", stored.id)));

    alice.change("/undo", &[("key", &field(&page, "key"))]);
    assert_eq!(ids.map(|id| status(&gateway, id)), [FindingStatus::Open; 2]);
    for client in [ATTACKER, OTHER] {
        eventually("the block has changed", || {
            (gateway.client_of(client).get("/").status() == 200).then_some(())
        });
    }
}

#[test]
fn a_finding_that_was_a_mistake_is_allowed_and_undone() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream);
    let mut alice = Person::operator(&gateway);
    probe(&gateway, ATTACKER);
    detect(&gateway, 3);
    let id = finding_of(&gateway, ATTACKER).id;
    let page = alice.change("/findings", &[("only", &id.to_string()), ("deed", "allow")]);
    assert_eq!(status(&gateway, id), FindingStatus::Dismissed);
    assert_eq!(gateway.data().state().allows().unwrap().len(), 1);
    alice.change("/undo", &[("key", &field(&page, "key"))]);
    assert_eq!(status(&gateway, id), FindingStatus::Open);
    assert!(gateway.data().state().allows().unwrap().is_empty());
}

#[test]
fn a_finding_about_this_machine_blocks_nobody_by_a_button() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream);
    let mut alice = Person::operator(&gateway);
    let at = UnixMs::from_system(std::time::SystemTime::now());
    let finding = Finding {
        client: "127.0.0.1".parse().unwrap(),
        user: None,
        reason: "sensitive_paths".to_owned(),
        severity: Severity::High,
        request_count: 1,
        first_seen: at,
        last_seen: at,
        detected_at: at,
        details: serde_json::json!({}),
    };
    let id =
        State::open_existing(gateway.data().folder()).unwrap().save_finding(&finding).unwrap().to_string();
    let answer = alice.post("/findings", &[("only", &id), ("deed", "block"), ("expires", "+1h")]);
    assert_eq!(answer.status(), 409);
    assert!(answer.text().contains("loopback"), "{}", answer.text());
    assert!(gateway.data().state().active_blocks(at).unwrap().is_empty());
    // What another version of the gateway left out is no reason to fail.
    assert!(alice.page(&format!("/findings/{id}")).contains("sensitive_paths"));
}

#[test]
fn findings_are_filtered() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream);
    let mut alice = Person::operator(&gateway);
    probe(&gateway, ATTACKER);
    detect(&gateway, 3);
    for (query, has) in [
        ("client=203.0.113.66", true),
        ("client=203.0.113.67", false),
        ("rule=sensitive_paths", true),
        ("rule=login_failures", false),
        ("severity=low&since=1h", true),
        ("severity=critical", false),
        ("status=all", true),
        ("status=confirmed", false),
        ("before=1-1", false),
    ] {
        let page = alice.page(&format!("/findings?{query}"));
        assert_eq!(page.contains("/clients/203.0.113.66"), has, "{query}: {page}");
    }
    for wrong in ["severity=mild", "status=x", "client=nobody", "since=soon", "before=x"] {
        assert_eq!(alice.get(&format!("/findings?{wrong}")).status(), 422, "{wrong}");
    }
}

#[test]
fn a_viewer_judges_nothing() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream);
    let mut alice = Person::operator(&gateway);
    probe(&gateway, ATTACKER);
    detect(&gateway, 3);
    let id = finding_of(&gateway, ATTACKER).id.to_string();
    let mut bob = Person::viewer(&gateway, &mut alice);
    assert!(bob.page("/findings").contains(ATTACKER));
    assert!(!bob.page(&format!("/findings/{id}")).contains("What do you make of it"));
    for deed in ["confirm", "dismiss", "reopen", "block", "allow"] {
        assert_eq!(bob.post("/findings", &[("only", &id), ("deed", deed)]).status(), 403, "{deed}");
    }
    assert_eq!(bob.post(&format!("/findings/{id}/dismiss"), &[("never", "rule")]).status(), 403);
    assert_eq!(bob.post("/findings/never", &[("only", "1")]).status(), 403);
}
