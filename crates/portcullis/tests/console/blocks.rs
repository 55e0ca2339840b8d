//! Blocks and allows in the console, and what the gateway makes of them.

use std::time::{Duration, Instant};

use portcullis_model::{BlockSource, UnixMs};
use portcullis_store::{NewBlock, State, StoredBlock};
use portcullis_testkit::{Gateway, Upstream, eventually};

use crate::in_front_of;
use crate::person::{Person, field};

const CLIENT: &str = "203.0.113.9";

fn status_of(gateway: &Gateway, client: &str) -> u16 {
    gateway.client_of(client).get("/").status()
}

/// Waits until a client is answered like this; a change holds within a second.
fn is_answered(gateway: &Gateway, client: &str, status: u16) {
    let began = Instant::now();
    eventually("the answer of the gateway", || (status_of(gateway, client) == status).then_some(()));
    assert!(began.elapsed() < Duration::from_secs(2), "it took {:?}", began.elapsed());
}

fn block_of(gateway: &Gateway, network: &str) -> Option<StoredBlock> {
    let blocks = gateway.data().state().recent_blocks(1_000).unwrap();
    blocks.into_iter().find(|stored| stored.block.network.to_string() == network)
}

fn in_force(gateway: &Gateway) -> usize {
    let now = UnixMs::from_system(std::time::SystemTime::now());
    gateway.data().state().active_blocks(now).unwrap().len()
}

#[test]
fn a_block_of_the_console_holds_within_a_second_and_is_lifted_and_undone() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    let mut alice = Person::operator(&gateway);
    assert_eq!(status_of(&gateway, CLIENT), 200);

    let fields = [("network", CLIENT), ("reason", "tries passwords"), ("expires", "+7d")];
    let page = alice.change("/blocks", &fields);
    assert!(page.contains("Blocked 203.0.113.9"), "{page}");
    is_answered(&gateway, CLIENT, 403);
    let block = block_of(&gateway, "203.0.113.9/32").unwrap();
    assert_eq!((block.block.source, block.block.reason.as_str()), (BlockSource::Console, "tries passwords"));
    let lasts = block.block.expires_at.unwrap().since(block.block.created_at);
    assert_eq!(lasts.as_secs_f64().round() as u64, 7 * 86_400);
    assert!(page.contains("alice") && page.contains("tries passwords"), "{page}");

    let id = block.block.id.to_string();
    let page = alice.change("/blocks/lift", &[("id", &id), ("back", "/blocks?q=203")]);
    assert!(page.contains("Lifted the block of 203.0.113.9"), "{page}");
    is_answered(&gateway, CLIENT, 200);

    // The undo blocks again: for the same reason, until the same time, from the same source.
    let page = alice.change("/undo", &[("key", &field(&page, "key"))]);
    assert!(page.contains("all is as it was before"), "{page}");
    is_answered(&gateway, CLIENT, 403);
    let again = block_of(&gateway, "203.0.113.9/32").unwrap().block;
    assert_ne!(again.id, block.block.id);
    assert_eq!(
        (again.expires_at, again.reason, again.source),
        (block.block.expires_at, block.block.reason, block.block.source)
    );

    let audit = gateway.data().state().audit(UnixMs(0), 10).unwrap();
    let acts: Vec<(&str, &str)> = audit
        .iter()
        .filter(|entry| entry.subject == "203.0.113.9/32")
        .map(|entry| (entry.actor.as_str(), entry.action.as_str()))
        .collect();
    let alices = "console:alice";
    assert_eq!(acts, [(alices, "block"), (alices, "unblock"), (alices, "block")]);
    assert!(audit.iter().all(|entry| entry.origin.is_some() || !entry.actor.starts_with("console:")));
}

#[test]
fn an_undo_works_once_and_only_for_whoever_did_it() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    let mut alice = Person::operator(&gateway);
    let page = alice.change("/blocks", &[("network", CLIENT), ("expires", "never")]);
    let key = field(&page, "key");
    let mut bob = Person::viewer(&gateway, &mut alice);
    assert_eq!(bob.post("/undo", &[("key", &key)]).status(), 403);
    assert!(!bob.page(&format!("/blocks?done={key}")).contains("Blocked 203.0.113.9 "));
    alice.change("/undo", &[("key", &key)]);
    is_answered(&gateway, CLIENT, 200);
    assert_eq!(alice.post("/undo", &[("key", &key)]).status(), 409);
}

#[test]
fn an_undo_of_a_block_that_replaced_another_brings_the_other_back() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    let mut alice = Person::operator(&gateway);
    gateway.cli_ok(&["block", CLIENT, "--reason", "first", "--expires", "+1h"]);
    let page = alice.change("/blocks", &[("network", CLIENT), ("reason", "second"), ("expires", "never")]);
    assert!(page.contains("in the place of block"), "{page}");
    alice.change("/undo", &[("key", &field(&page, "key"))]);
    let block = block_of(&gateway, "203.0.113.9/32").unwrap();
    assert_eq!((block.block.reason.as_str(), block.block.source), ("first", BlockSource::Cli));
    assert!(block.removed_at.is_none() && block.block.expires_at.is_some());
}

#[test]
fn a_block_of_oneself_or_the_machine_must_be_insisted_on() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    let mut alice = Person::operator(&gateway);
    for (network, objection) in [
        ("127.0.0.1", "loopback"),
        ("0.0.0.0/0", "a large part of the Internet"),
        ("127.0.0.0/8", "trusted_proxies"),
    ] {
        let answer = alice.post("/blocks", &[("network", network), ("expires", "+1h")]);
        assert_eq!(answer.status(), 422, "{network}");
        assert!(answer.text().contains(objection), "{network}: {}", answer.text());
        let check = alice.get(&format!("/blocks/check?network={network}")).json();
        assert!(check["objections"].to_string().contains(objection), "{check}");
    }
    assert_eq!(in_force(&gateway), 0);
    let answer = alice.post("/blocks", &[("network", "127.0.0.1"), ("expires", "+1h"), ("force", "yes")]);
    assert_eq!(answer.status(), 303);
    assert_eq!(in_force(&gateway), 1);
}

#[test]
fn what_is_wrong_with_a_block_stands_beside_its_field() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    let mut alice = Person::operator(&gateway);
    let long = "x".repeat(1_001);
    for (fields, problem) in [
        ([("network", "203.0.113"), ("reason", ""), ("until", "")], "expected an address or a prefix"),
        ([("network", CLIENT), ("reason", &long), ("until", "")], "at most 1000"),
        ([("network", CLIENT), ("reason", ""), ("until", "2020-01-01")], "not in the future"),
        ([("network", CLIENT), ("reason", ""), ("until", "soon")], "expected a time from now"),
    ] {
        let answer = alice.post("/blocks", &fields);
        assert_eq!(answer.status(), 422, "{fields:?}");
        let page = answer.text();
        assert!(page.contains(problem) && page.contains("aria-invalid=\"true\""), "{problem}: {page}");
        assert!(page.contains(&format!("value=\"{}\"", fields[0].1)), "what was typed stays: {page}");
    }
    assert_eq!(in_force(&gateway), 0);
}

#[test]
fn a_check_says_what_a_block_would_mean() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    let mut alice = Person::operator(&gateway);
    for _ in 0..3 {
        status_of(&gateway, CLIENT);
    }
    gateway.data().wait_for_count(3);
    gateway.cli_ok(&["block", "203.0.113.64/26"]);
    let says = |alice: &mut Person, network: &str| {
        let check = alice.get(&format!("/blocks/check?network={network}"));
        assert_eq!(check.status(), 200);
        check.json()
    };
    let wide = says(&mut alice, "203.0.113.77/24");
    assert_eq!(wide["problem"], serde_json::Value::Null);
    let text = wide["says"].to_string();
    assert!(text.contains("203.0.113.0/24: 3 requests in the last 24 h"), "{text}");
    assert!(text.contains("1 block inside of it"), "{text}");
    let covered = says(&mut alice, "203.0.113.70")["says"].to_string();
    assert!(covered.contains("of 203.0.113.64/26 covers it already"), "{covered}");
    assert!(says(&mut alice, "203.0.113")["problem"].as_str().unwrap().contains("expected an address"));
}

#[test]
fn an_allow_overrules_a_block_until_it_is_taken_back() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    let mut alice = Person::operator(&gateway);
    alice.change("/blocks", &[("network", "203.0.113.0/24"), ("expires", "never")]);
    is_answered(&gateway, CLIENT, 403);
    let page = alice.change("/allows", &[("network", CLIENT), ("reason", "our monitor")]);
    assert!(page.contains("It overrules block"), "{page}");
    is_answered(&gateway, CLIENT, 200);
    assert!(alice.page("/allows").contains("our monitor"));
    let page = alice.change("/allows/remove", &[("network", CLIENT)]);
    is_answered(&gateway, CLIENT, 403);
    alice.change("/undo", &[("key", &field(&page, "key"))]);
    is_answered(&gateway, CLIENT, 200);
    assert_eq!(alice.post("/allows", &[("network", "0.0.0.0/0")]).status(), 422);
}

#[test]
fn many_blocks_are_lifted_and_brought_back_at_once() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    let mut alice = Person::operator(&gateway);
    for n in 1..=3 {
        gateway.cli_ok(&["block", &format!("203.0.113.{n}"), "--expires", "+1h"]);
    }
    let blocks = gateway.data().state().recent_blocks(10).unwrap();
    let ids: Vec<String> = blocks.iter().map(|stored| stored.block.id.to_string()).collect();
    let fields: Vec<(&str, &str)> = ids.iter().take(2).map(|id| ("id", id.as_str())).collect();
    let page = alice.change("/blocks/lift", &fields);
    assert!(page.contains("Lifted 2 blocks"), "{page}");
    assert_eq!(in_force(&gateway), 1);
    alice.change("/undo", &[("key", &field(&page, "key"))]);
    assert_eq!(in_force(&gateway), 3);
    is_answered(&gateway, "203.0.113.3", 403);
    let answer = alice.post("/blocks/lift", &[]);
    assert_eq!(answer.status(), 422);
    assert!(answer.text().contains("Nothing was ticked"));
}

#[test]
fn an_import_is_rehearsed_and_a_bad_line_changes_nothing() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    let mut alice = Person::operator(&gateway);
    gateway.cli_ok(&["block", "203.0.113.1", "--reason", "short", "--expires", "+1h"]);
    // As a textarea sends it.
    let list = "203.0.113.1\r\n203.0.113.2 # scans\r\n127.0.0.1\r\n198.51.100.0/24\r\n";
    let bad = format!("{list}not an address\n");

    let answer = alice.post("/blocks/import", &[("list", &bad), ("expires", "never"), ("step", "import")]);
    assert_eq!(answer.status(), 422);
    assert!(answer.text().contains("line 5"), "{}", answer.text());
    assert_eq!(in_force(&gateway), 1);

    let answer = alice.post("/blocks/import", &[("list", list), ("expires", "never"), ("step", "rehearse")]);
    assert_eq!(answer.status(), 200);
    let page = answer.text();
    assert!(page.contains("3 blocks would be added"), "{page}");
    assert!(page.contains("1 entry refused") && page.contains("127.0.0.1"), "{page}");
    assert_eq!(in_force(&gateway), 1);

    let fields = [("list", list), ("reason", "a list"), ("expires", "never"), ("step", "import")];
    let page = alice.change("/blocks/import", &fields);
    assert!(page.contains("Imported 3 blocks"), "{page}");
    is_answered(&gateway, "203.0.113.2", 403);
    assert_eq!(block_of(&gateway, "203.0.113.2/32").unwrap().block.reason, "scans");
    assert_eq!(block_of(&gateway, "198.51.100.0/24").unwrap().block.source, BlockSource::Import);

    // What the import replaced is back, and nothing else.
    alice.change("/undo", &[("key", &field(&page, "key"))]);
    assert_eq!(in_force(&gateway), 1);
    let first = block_of(&gateway, "203.0.113.1/32").unwrap();
    assert_eq!((first.block.reason.as_str(), first.removed_at), ("short", None));
    is_answered(&gateway, "203.0.113.2", 200);

    let fields = [("list", bad.as_str()), ("expires", "never"), ("leave-out-bad", "yes"), ("step", "import")];
    assert!(alice.change("/blocks/import", &fields).contains("Imported 3 blocks"));
}

#[test]
fn a_user_is_blocked_and_lifted() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    let mut alice = Person::operator(&gateway);
    let page = alice.change("/blocks/users", &[("user", "mallory <b>"), ("expires", "+1h"), ("reason", "x")]);
    assert!(page.contains("Blocked user mallory &lt;b&gt;"), "{page}");
    let blocks = gateway.data().state().recent_party_blocks(10).unwrap();
    assert_eq!(blocks[0].block.source, BlockSource::Console);
    let page = alice.change("/blocks/lift", &[("user", "mallory <b>")]);
    assert!(page.contains("Lifted the block of user mallory"), "{page}");
    assert!(gateway.data().state().recent_party_blocks(10).unwrap()[0].removed_at.is_some());
    assert!(alice.page("/blocks/ended").contains("mallory"));
}

#[test]
fn blocks_are_searched_and_paged_by_key() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    let mut alice = Person::operator(&gateway);
    let now = UnixMs::from_system(std::time::SystemTime::now());
    let blocks = (0..120_u8).map(|n| NewBlock {
        network: format!("198.51.100.{n}/32").parse().unwrap(),
        reason: format!("reason {n}"),
        source: if n % 2 == 0 { BlockSource::Import } else { BlockSource::Detector },
        created_at: now,
        expires_at: None,
        finding_id: None,
    });
    State::open_existing(gateway.data().folder()).unwrap().add_blocks(blocks, "cli:ann").unwrap();
    let page = alice.page("/blocks");
    assert!(page.contains("Blocks (120)") && page.contains(">198.51.100.119<"), "{page}");
    assert!(!page.contains(">198.51.100.69<"));
    let (_, rest) = page.split_once("rel=\"next\" href=\"").unwrap();
    let next = rest.split('"').next().unwrap().replace("&amp;", "&");
    let older = alice.page(&next);
    assert!(older.contains(">198.51.100.69<") && !older.contains(">198.51.100.70<"), "{older}");
    let found = alice.page("/blocks?q=198.51.100.7");
    assert!(found.contains(">198.51.100.7<") && !found.contains(">198.51.100.70<"), "{found}");
    let found = alice.page("/blocks?q=reason+11&source=import");
    assert!(found.contains(">198.51.100.118<") && !found.contains(">198.51.100.119<"), "{found}");
    assert_eq!(alice.get("/blocks?source=nobody").status(), 422);
    assert_eq!(alice.get("/blocks?before=x").status(), 422);
}

#[test]
fn exports_are_lists_for_other_programs_and_start_no_formula() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    let mut alice = Person::operator(&gateway);
    alice.change("/blocks", &[("network", CLIENT), ("reason", "=cmd|' /C calc'!A0"), ("expires", "never")]);
    let csv = alice.page("/blocks/export?format=csv");
    assert!(csv.contains(CLIENT) && csv.contains("'=cmd|"), "{csv}");
    assert!(alice.page("/blocks/export?format=plain").contains(CLIENT));
    assert!(alice.page("/blocks/export?format=nginx").contains("deny 203.0.113.9;"));
    let json: serde_json::Value = serde_json::from_str(&alice.page("/blocks/export?format=json")).unwrap();
    assert_eq!(json.as_array().unwrap().len(), 1);
    assert_eq!(alice.get("/blocks/export?format=exe").status(), 422);
}

#[test]
fn hostile_reasons_stay_text() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    let mut alice = Person::operator(&gateway);
    let reason = "\"><script>alert(1)</script>\u{202e}\u{1b}[31m{{7*7}}";
    let page = alice.change("/blocks", &[("network", CLIENT), ("reason", reason), ("expires", "never")]);
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"), "{page}");
    assert!(!page.contains("<script>alert") && !page.contains('\u{202e}') && !page.contains('\u{1b}'));
    let query = "/blocks?q=%22%3E%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E";
    assert!(!alice.page(query).contains("<img src=x"));
}

#[test]
fn a_viewer_looks_and_changes_nothing() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    let mut alice = Person::operator(&gateway);
    alice.change("/blocks", &[("network", CLIENT), ("expires", "never")]);
    let mut bob = Person::viewer(&gateway, &mut alice);
    let page = bob.page("/blocks");
    assert!(page.contains(CLIENT) && !page.contains("action=\"/blocks/lift\""), "{page}");
    let id = block_of(&gateway, "203.0.113.9/32").unwrap().block.id.to_string();
    for (path, fields) in [
        ("/blocks", vec![("network", "198.51.100.1")]),
        ("/blocks/users", vec![("user", "carol")]),
        ("/blocks/lift", vec![("id", id.as_str())]),
        ("/allows", vec![("network", CLIENT)]),
        ("/allows/remove", vec![("network", CLIENT)]),
        ("/blocks/import", vec![("list", "198.51.100.1"), ("step", "import")]),
    ] {
        assert_eq!(bob.post(path, &fields).status(), 403, "{path}");
    }
    assert_eq!(in_force(&gateway), 1);
}
