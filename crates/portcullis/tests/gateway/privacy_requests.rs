//! People ask for their data, and want it gone: `portcullis privacy export` and `erase` over a real gateway.

use std::path::Path;

use portcullis_model::{BlockSource, Party, UnixMs};
use portcullis_privacy::is_pseudonym;
use portcullis_store::{NewPartyBlock, State};
use portcullis_testkit::{Gateway, GatewayConfig, Output, Request, Upstream, WebhookReceiver, eventually};

use crate::behind_proxy;
use crate::identity::{DJANGO, asking, log_in, user};
use crate::privacy::{files_with, scan};

const EVERY_SECOND: &str = "[detection]\ninterval = \"1s\"\nwindow = \"1h\"";

const GONE: &str = "203.0.113.66";
const NEIGHBOUR: &str = "198.51.100.20";

/// A gateway in front of an upstream that has left of one client all that a gateway leaves.
fn with_a_past(upstream: &Upstream, more: impl Fn(GatewayConfig) -> GatewayConfig) -> Gateway {
    let config = behind_proxy(upstream).limit("pages", "rate = \"40/1h\"").section(EVERY_SECOND);
    let gateway = Gateway::start(more(config));
    for n in 0..20 {
        gateway.client_of(NEIGHBOUR).get(&format!("/page/{}", n % 3));
    }
    // Somebody looks it up.
    gateway.client_of(NEIGHBOUR).get(&format!("/whois/{GONE}?of={GONE}"));
    for n in 0..45 {
        let request = Request::get(&format!("/private/{}", n % 5)).header("User-Agent", "HerOwnBrowser/7");
        gateway.client_of(GONE).send(&request);
    }
    scan(&gateway, GONE);
    eventually("she is blocked by the detector", || {
        (gateway.client_of(GONE).get("/").status() == 403).then_some(())
    });
    eventually("her limit events are there", || {
        let events = gateway.data().state().limit_events(UnixMs(0), 100).unwrap();
        (!events.is_empty()).then_some(())
    });
    gateway.cli_ok(&["allow", NEIGHBOUR, "--reason", &format!("not {GONE}")]);
    // Rows are written in the order in which requests end.
    gateway.client_of(NEIGHBOUR).get("/settled");
    gateway.data().row_of("/settled");
    gateway
}

fn without_trace(folder: &Path, when: &str) {
    for trace in [GONE, "HerOwnBrowser", "/private/"] {
        assert_eq!(files_with(folder, trace), Vec::<String>::new(), "{trace} {when}");
    }
}

fn receipt(output: &Output) -> serde_json::Value {
    assert_eq!(output.code, Some(0), "{output:?}");
    serde_json::from_str(&output.stdout).unwrap()
}

#[test]
fn everything_about_an_address_can_be_exported_and_then_erased_while_the_gateway_runs() {
    let upstream = Upstream::start();
    let gateway = with_a_past(&upstream, |config| config);
    let folder = gateway.data().folder().to_owned();
    let before = files_with(&folder, GONE);
    assert!(before.iter().any(|file| file.starts_with("log.db")), "{before:?}");
    assert!(before.iter().any(|file| file.starts_with("state.db")), "{before:?}");

    let export: serde_json::Value =
        serde_json::from_str(&gateway.cli_ok(&["privacy", "export", GONE])).unwrap();
    let requests = export["requests"].as_array().unwrap();
    assert!(requests.len() > 50, "{}", requests.len());
    assert!(requests.iter().all(|row| row["ip"] == GONE));
    let tables: Vec<&String> = export["state"].as_object().unwrap().keys().collect();
    assert_eq!(tables, ["allows", "audit", "blocks", "findings", "limit_events"]);
    assert_eq!(export["state"]["findings"][0]["client"], GONE);
    let csv = gateway.folder().join("export");
    gateway.cli_ok(&["privacy", "export", GONE, "--format", "csv", "--out", &csv.to_string_lossy()]);
    let lines = std::fs::read_to_string(csv.join("requests.csv")).unwrap();
    assert_eq!(lines.lines().count(), requests.len() + 1);
    assert!(csv.join("blocks.csv").exists() && csv.join("limit_events.csv").exists());

    // Without --yes nothing happens.
    let look = gateway.cli(&["privacy", "erase", GONE]);
    assert_eq!(look.code, Some(3), "{look:?}");
    assert!(look.stdout.contains("Nothing has been erased"), "{look:?}");
    assert_eq!(files_with(&folder, GONE), before);

    let erased = receipt(&gateway.cli(&["privacy", "erase", GONE, "--yes", "--json"]));
    assert_eq!(
        (erased["log"]["requests"].as_u64(), &erased["left_in"]),
        (Some(requests.len() as u64), &serde_json::json!([]))
    );
    assert!(!erased.to_string().contains(GONE), "a receipt names nobody");
    without_trace(&folder, "while the gateway runs");

    // The others are as they were, and the gateway goes on.
    let paths: Vec<String> = gateway.data().rows().into_iter().map(|row| row.path).collect();
    assert_eq!(paths.iter().filter(|path| path.starts_with("/page/")).count(), 20);
    assert!(paths.contains(&"/whois/[erased]".to_owned()), "{paths:?}");
    assert_eq!(gateway.data().integrity(), ["ok", "ok"]);
    let audit = gateway.data().state().audit(UnixMs(0), 1).unwrap().remove(0);
    assert_eq!((&*audit.action, Some(&*audit.subject)), ("erase", erased["subject_hash"].as_str()));
    gateway.client_of(NEIGHBOUR).get("/after");
    gateway.data().row_of("/after");
    let ended = gateway.terminate();
    without_trace(&folder, "after the gateway");

    // The block went with the address.
    let again = ended.start_again();
    assert_ne!(again.client_of(GONE).get("/back").status(), 403, "the limit counts on, under a keyed hash");
    again.data().row_of("/back");
}

#[test]
fn an_address_is_erased_without_a_gateway_too() {
    let upstream = Upstream::start();
    let gateway = with_a_past(&upstream, |config| config);
    let folder = gateway.data().folder().to_owned();
    let ended = gateway.kill();
    assert!(!files_with(&folder, GONE).is_empty());
    let erased = receipt(&ended.cli(&["privacy", "erase", GONE, "--yes", "--json"]));
    assert!(erased["log"]["requests"].as_u64().unwrap() > 50, "{erased}");
    without_trace(&folder, "without a gateway");
    let gateway = ended.start_again();
    assert_eq!(gateway.data().integrity(), ["ok", "ok"]);
    assert_eq!(gateway.data().rows().iter().filter(|row| row.path.starts_with("/page/")).count(), 20);
}

/// Logs in by this cookie, and has the site say who that is.
fn log_in_as(gateway: &Gateway, name: &str, cookie: &str) {
    let mut client = gateway.client_of(NEIGHBOUR);
    log_in(&mut client, cookie);
    let says = [("X-Portcullis-User", name)];
    client.send(&asking("GET", "/home", 200, &says, &[]).header("Cookie", &format!("sessionid={cookie}")));
    assert_eq!(user(gateway, &mut client, cookie, &format!("/echo/{cookie}")), name);
    let file = gateway.data().folder().join("sessions.json");
    eventually("the session is saved", || {
        std::fs::read_to_string(&file).ok().filter(|saved| saved.contains(name))
    });
}

#[test]
fn a_user_is_erased_with_every_session() {
    let (alice, bob, carol) = ("alice-7f3", "bob-7f3", "carol-7f3");
    let upstream = Upstream::start();
    let gateway = Gateway::start(behind_proxy(&upstream).section(DJANGO));
    let folder = gateway.data().folder().to_owned();
    for (name, cookie) in [(alice, "one"), (alice, "two"), (bob, "three"), (carol, "four")] {
        log_in_as(&gateway, name, cookie);
    }
    let ask = |cookie: &str| {
        let request = Request::get("/asked").header("Cookie", &format!("sessionid={cookie}"));
        gateway.client_of(NEIGHBOUR).send(&request).status()
    };
    gateway.cli_ok(&["block", "--user", alice, "--reason", "too many orders"]);
    eventually("she is refused", || (ask("one") == 403).then_some(()));
    assert!(files_with(&folder, alice).contains(&"sessions.json".to_owned()));
    let export: serde_json::Value =
        serde_json::from_str(&gateway.cli_ok(&["privacy", "export", alice])).unwrap();
    assert!(export["files"].as_array().unwrap().contains(&"sessions.json".into()), "{export}");

    let erased = receipt(&gateway.cli(&["privacy", "erase", alice, "--yes", "--json"]));
    assert_eq!((&erased["sessions_ended"], &erased["left_in"]), (&2.into(), &serde_json::json!([])));
    assert_eq!(files_with(&folder, alice), Vec::<String>::new());
    let mut client = gateway.client_of(NEIGHBOUR);
    for cookie in ["one", "two"] {
        assert_eq!(user(&gateway, &mut client, cookie, &format!("/echo/after-{cookie}")), "");
    }
    // The others are who they were, and nobody comes back with a restart.
    assert_eq!(user(&gateway, &mut client, "three", "/echo/neighbour"), bob);
    let ended = gateway.terminate();
    assert_eq!(files_with(&folder, alice), Vec::<String>::new());

    // Without a gateway too.
    let erased = receipt(&ended.cli(&["privacy", "erase", bob, "--yes", "--json"]));
    assert_eq!((&erased["sessions_ended"], &erased["left_in"]), (&1.into(), &serde_json::json!([])));
    assert_eq!(files_with(&folder, bob), Vec::<String>::new());
    let gateway = ended.start_again();
    let mut client = gateway.client_of(NEIGHBOUR);
    for (cookie, name) in [("one", ""), ("three", ""), ("four", carol)] {
        assert_eq!(user(&gateway, &mut client, cookie, &format!("/echo/again-{cookie}")), name);
    }
}

#[test]
fn an_alert_that_waits_is_sent_without_who_was_erased() {
    let chat = WebhookReceiver::start(&[]);
    let upstream = Upstream::start();
    let config = |gather: &str| {
        let channel = format!("[[alerts.webhook]]\nname = \"chat\"\nurl = \"{}\"", chat.url("/T0"));
        behind_proxy(&upstream)
            .section(DJANGO)
            .section(&format!("[alerts]\nfindings = \"high\"\ngather = \"{gather}\"\n{channel}"))
    };
    let gateway = Gateway::start(config("1h"));
    let mallory = "mallory-7f3";
    log_in_as(&gateway, mallory, "one");
    scan(&gateway, GONE);
    for path in ["/.env", "/.git/config", "/.aws/credentials", "/wp-config.php.bak", "/id_rsa", "/backup.sql"]
    {
        let request = Request::get(&format!("/missing{path}")).header("Cookie", "sessionid=one");
        gateway.client_of("198.51.100.77").send(&request);
    }
    gateway.client_of(NEIGHBOUR).get("/settled");
    gateway.data().row_of("/settled");
    gateway.cli_ok(&["detect"]);
    let waits = || gateway.data().state().alerts_after(0).unwrap().remove(0).alert.body;
    let body = waits();
    for name in [GONE.to_owned(), format!("user {mallory}"), format!("--user {mallory}")] {
        assert!(body.contains(&name), "{name} is not in {body}");
    }

    receipt(&gateway.cli(&["privacy", "erase", GONE, "--yes", "--json"]));
    receipt(&gateway.cli(&["privacy", "erase", mallory, "--yes", "--json"]));
    for trace in [GONE, mallory] {
        assert_eq!(files_with(gateway.data().folder(), trace), Vec::<String>::new(), "{trace}");
    }
    assert!(waits().contains("[erased]"));
    gateway.write_config(&config("200ms").text());
    let posted = eventually("the message", || chat.posted().into_iter().next()).json().to_string();
    assert!(posted.contains("[erased]"), "{posted}");
    assert!(!posted.contains(GONE) && !posted.contains(mallory), "{posted}");
    assert!(!gateway.stderr().contains("cannot be read"), "{}", gateway.stderr());
}

#[test]
fn an_erased_user_is_in_no_saved_session_whether_the_gateway_runs_or_not() {
    let upstream = Upstream::start();
    let identity = "[identity]\nsession_cookie = \"sessionid\"\nlogin_paths = [\"/login\"]\n\
                    user_header = \"X-User\"";
    let gateway = Gateway::start(behind_proxy(&upstream).section(identity));
    let log_in = |gateway: &Gateway, user: &str| {
        let set = format!("sessionid=of-{user}; Path=/");
        let headers = [["Location", "/home"], ["Set-Cookie", &set], ["X-User", user]];
        let answer = serde_json::json!({ "status": 302, "headers": headers, "parts": [] });
        let request = Request::new("POST", "/login").header("X-Answer", &answer.to_string());
        assert_eq!(gateway.client_of(NEIGHBOUR).send(&request).status(), 302);
    };
    let folder = gateway.data().folder().to_owned();
    let saved = |user: &str| files_with(&folder, &format!("\"user\":\"{user}\""));
    let in_the_file = |user: &str| {
        eventually("the session is saved", || (saved(user) == ["sessions.json"]).then_some(()));
    };
    log_in(&gateway, "alice");
    log_in(&gateway, "bob");
    in_the_file("alice");
    in_the_file("bob");
    let erased = receipt(&gateway.cli(&["privacy", "erase", "alice", "--yes", "--json"]));
    assert_eq!(erased["left_in"], serde_json::json!([]));
    assert_eq!((saved("alice").len(), saved("bob").len()), (0, 1));
    let home = Request::get("/home").header("Cookie", "sessionid=of-alice");
    gateway.client_of(NEIGHBOUR).send(&home);
    assert_eq!(gateway.data().row_of("/home").user, "", "nobody knows whose it was");

    log_in(&gateway, "alice");
    in_the_file("alice");
    let ended = gateway.terminate();
    let erased = receipt(&ended.cli(&["privacy", "erase", "alice", "--yes", "--json"]));
    assert_eq!(erased["left_in"], serde_json::json!([]));
    assert_eq!((saved("alice").len(), saved("bob").len()), (0, 1));
}

#[test]
fn a_block_goes_on_under_a_hash_when_that_is_asked_for() {
    let upstream = Upstream::start();
    let gateway = with_a_past(&upstream, |config| config);
    gateway.cli_ok(&["block", "2001:db8:1:2::/64"]);
    let folder = gateway.data().folder().to_owned();
    let erase = |gateway: &Gateway, whom: &str| {
        receipt(&gateway.cli(&["privacy", "erase", whom, "--keep-blocks-hashed", "--yes", "--json"]))
    };
    assert_eq!(erase(&gateway, GONE)["blocks_kept_hashed"], 1);
    assert_eq!(erase(&gateway, "2001:db8:1:2::5")["blocks_kept_hashed"], 1);
    for trace in [GONE, "2001:db8:1:2:"] {
        assert_eq!(files_with(&folder, trace), Vec::<String>::new(), "{trace}");
    }
    let refused = |gateway: &Gateway, whom: &str| gateway.client_of(whom).get("/x").status() == 403;
    eventually("both are refused still", || {
        (refused(&gateway, GONE) && refused(&gateway, "2001:db8:1:2::77")).then_some(())
    });
    assert!(
        !refused(&gateway, NEIGHBOUR)
            && !refused(&gateway, "2001:db8:1:3::5")
            && !refused(&gateway, "203.0.113.67")
    );

    // After a restart too, and a person can lift it like any other.
    let ended = gateway.terminate();
    let gateway = ended.start_again();
    assert!(refused(&gateway, GONE));
    let now = UnixMs::from_system(std::time::SystemTime::now());
    let kept = gateway.data().state().active_blocks(now).unwrap();
    assert_eq!(kept.len(), 2, "{kept:?}");
    for block in kept {
        assert!(is_pseudonym(block.network.addr().into()), "{block:?}");
        gateway.cli_ok(&["unblock", &block.network.to_string()]);
    }
    eventually("they are let in", || (!refused(&gateway, GONE)).then_some(()));
}

#[test]
fn hashed_blocks_without_their_key_are_told_of_and_hold_again_when_it_is_back() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(behind_proxy(&upstream));
    gateway.cli_ok(&["block", GONE]);
    gateway.cli_ok(&["privacy", "erase", GONE, "--keep-blocks-hashed", "--yes"]);
    let refused = |gateway: &Gateway| gateway.client_of(GONE).get("/x").status() == 403;
    eventually("the block holds under its hash", || refused(&gateway).then_some(()));
    let unenforced = |gateway: &Gateway| gateway.metric("portcullis_blocks_unenforced");
    assert_eq!(unenforced(&gateway), 0.0);

    let (key, away) = (gateway.data().folder().join("privacy.key"), gateway.data().folder().join("away"));
    std::fs::rename(&key, &away).unwrap();
    let gateway = gateway.terminate().start_again();
    let says = || gateway.stderr().matches("REFUSE NOBODY").count();
    assert_eq!(says(), 1, "{}", gateway.stderr());
    assert_eq!(unenforced(&gateway), 1.0);
    let doctor = gateway.cli(&["doctor"]);
    assert_eq!(doctor.code, Some(2), "{doctor:?}");
    assert!(doctor.stdout.contains("1 block under a hash is not enforced"), "{doctor:?}");
    for _ in 0..20 {
        assert!(!refused(&gateway));
    }
    assert_eq!(says(), 1, "not a line per request: {}", gateway.stderr());

    std::fs::rename(&away, &key).unwrap();
    eventually("the block holds again", || refused(&gateway).then_some(()));
    assert_eq!(unenforced(&gateway), 0.0);
    assert!(gateway.stderr().contains("blocks that are kept under a hash are in force"));
}

#[test]
fn blocks_that_cannot_go_on_under_a_hash_are_named_before_they_are_lifted() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(behind_proxy(&upstream).section(DJANGO));
    gateway.cli_ok(&["block", "--user", "alice"]);
    let now = UnixMs::from_system(std::time::SystemTime::now());
    let anonymous = Party::Anonymous { network: format!("{GONE}/32").parse().unwrap(), agents: Vec::new() };
    let block = NewPartyBlock {
        party: anonymous.clone(),
        reason: String::new(),
        source: BlockSource::Detector,
        created_at: now,
        expires_at: None,
        finding_id: None,
    };
    let folder = gateway.data().folder().to_owned();
    State::open_existing(&folder).unwrap().add_party_block(block, "detect").unwrap();

    for (whom, named) in [(GONE, anonymous.to_string()), ("alice", "user alice".to_owned())] {
        let erase = ["privacy", "erase", whom, "--keep-blocks-hashed", "--yes"];
        let look = gateway.cli(&erase[..4]).stderr;
        assert!(look.contains(&named) && look.contains("would be lifted"), "{look}");
        assert!(!gateway.data().state().active_party_blocks(now).unwrap().is_empty());
        let done = gateway.cli(&erase).stderr;
        assert!(done.contains(&named) && done.contains("is lifted"), "{done}");
        let silent = gateway.cli(&["privacy", "erase", whom, "--yes"]).stderr;
        assert!(!silent.contains("lifted"), "{silent}");
    }
    assert_eq!(gateway.data().state().active_party_blocks(now).unwrap(), []);
}

#[test]
fn what_was_hashed_today_belongs_to_its_client_today() {
    let upstream = Upstream::start();
    let config = behind_proxy(&upstream).section("[privacy]\nanonymise = \"hash\"");
    let gateway = Gateway::start(config);
    for n in 0..5 {
        gateway.client_of(GONE).get(&format!("/{n}"));
        gateway.client_of(NEIGHBOUR).get(&format!("/{n}"));
    }
    gateway.data().wait_for_count(10);
    let export: serde_json::Value =
        serde_json::from_str(&gateway.cli_ok(&["privacy", "export", GONE])).unwrap();
    assert_eq!(export["requests"].as_array().unwrap().len(), 5);
    let erased = receipt(&gateway.cli(&["privacy", "erase", GONE, "--yes", "--json"]));
    assert_eq!(erased["log"]["requests"], 5);
    assert_eq!(gateway.data().count(), 5);
}

#[test]
fn who_has_opted_out_is_not_logged_by_name_and_nothing_says_who_that_is() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(behind_proxy(&upstream));
    let row = |gateway: &Gateway, whom: &str, path: &str| {
        gateway
            .client_of(whom)
            .send(&Request::get(&format!("{path}?q=1")).header("User-Agent", "HerOwnBrowser/7"));
        gateway.data().row_of(path)
    };
    gateway.cli_ok(&["privacy", "opt-out", "2001:db8:1:2::5"]);
    let mut n = 0;
    let hidden = eventually("the opt-out is in force", || {
        n += 1;
        let row = row(&gateway, "2001:db8:1:2::77", &format!("/{n}"));
        is_pseudonym(row.client).then_some(row)
    });
    assert_eq!((&*hidden.query, &*hidden.user_agent, hidden.status), ("", "", 200));
    assert_eq!(row(&gateway, NEIGHBOUR, "/neighbour").user_agent, "HerOwnBrowser/7");
    assert!(gateway.cli_ok(&["privacy", "opt-outs"]).contains("address"));
    for file in ["state.db", "state.db-wal"] {
        let bytes = std::fs::read(gateway.data().folder().join(file)).unwrap();
        assert!(!bytes.windows(13).any(|window| window == b"2001:db8:1:2:"), "{file}");
    }
    // After a restart too, until it is taken back.
    let ended = gateway.terminate();
    let gateway = ended.start_again();
    assert!(is_pseudonym(row(&gateway, "2001:db8:1:2::5", "/again").client));
    gateway.cli_ok(&["privacy", "opt-out", "2001:db8:1:2::5", "--undo"]);
    eventually("she is logged again", || {
        n += 1;
        (!is_pseudonym(row(&gateway, "2001:db8:1:2::5", &format!("/back/{n}")).client)).then_some(())
    });
    assert_eq!(gateway.cli(&["privacy", "opt-out", "2001:db8:1:2::5", "--undo"]).code, Some(3));
}

#[test]
fn a_damaged_database_that_was_kept_is_named_and_not_forgotten() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(behind_proxy(&upstream));
    gateway.client_of(GONE).get("/");
    gateway.data().wait_for_count(1);
    let old = gateway.data().folder().join("log.db.corrupt-1");
    std::fs::write(&old, format!("damaged {GONE}")).unwrap();
    let output = gateway.cli(&["privacy", "erase", GONE, "--yes"]);
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(output.stdout.contains("log.db.corrupt-1"), "{output:?}");
    std::fs::remove_file(old).unwrap();
    assert_eq!(gateway.cli(&["privacy", "erase", GONE, "--yes"]).code, Some(0));
}
