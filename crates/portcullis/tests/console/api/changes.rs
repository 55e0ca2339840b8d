//! What programs change, and its effect on the running gateway.

use portcullis_testkit::{Gateway, Request, Upstream, eventually};
use serde_json::{Value, json};

use super::{Program, id, problem};
use crate::in_front_of;

const CLIENT: &str = "203.0.113.9";

/// Waits until the client's next request is answered with this status.
fn answers(gateway: &Gateway, client: &str, status: u16) {
    eventually(&format!("{client} is answered with {status}"), || {
        (gateway.client_of(client).get("/").status() == status).then_some(())
    });
}

fn audit(program: &Program, action: &str) -> Value {
    program.read(&format!("/audit?actor=api:&action={action}"))["items"][0].clone()
}

#[test]
fn a_block_refuses_the_next_request_and_its_end_lets_it_in() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    let program = Program::writer(&gateway);
    answers(&gateway, CLIENT, 200);

    let asked = json!({ "network": CLIENT, "reason": "tries passwords", "expires_in": 3600 });
    let added = program.change("/blocks", &asked);
    let block = &added["block"];
    assert_eq!((&block["network"], &block["source"]), (&"203.0.113.9/32".into(), &"console".into()));
    assert_eq!((&block["in_force"], &block["reason"]), (&true.into(), &"tries passwords".into()));
    answers(&gateway, CLIENT, 403);
    let entry = audit(&program, "block");
    assert_eq!((&entry["actor"], &entry["origin"]), (&"api:writer".into(), &"127.0.0.1".into()));

    // The same again stands in its place.
    let again = program.change("/blocks", &json!({ "network": CLIENT }));
    let (old, new) = (id(block), id(&again["block"]));
    assert_ne!(old, new);
    assert_eq!(program.read(&format!("/blocks/{old}"))["removed_by"], "replaced");
    assert_eq!(program.all("/blocks?q=203.0.113.0/24", 1).len(), 1);

    let lifted = program.delete(&format!("/blocks/{new}"));
    assert_eq!(lifted.status(), 200, "{}", lifted.text());
    answers(&gateway, CLIENT, 200);
    problem(&program.delete(&format!("/blocks/{new}")), 404);
    problem(&program.delete("/blocks/4711"), 404);
    problem(&program.get("/blocks/4711"), 404);
    assert_eq!(program.all("/blocks?ended=true", 1).len(), 2);
}

#[test]
fn what_would_lock_people_out_has_to_be_insisted_on() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    let program = Program::writer(&gateway);
    for network in ["127.0.0.1", "0.0.0.0/0", "::1"] {
        let refused = problem(&program.post("/blocks", &json!({ "network": network })), 409);
        assert!(refused["detail"].as_str().unwrap().contains("\"force\": true"), "{refused}");
    }
    let import = json!({ "blocks": [{ "network": "198.51.100.1" }, { "network": "127.0.0.0/8" }] });
    problem(&program.post("/blocks/import", &import), 409);
    assert_eq!(program.all("/blocks", 10), [] as [Value; 0]);
    program.change("/blocks", &json!({ "network": "127.0.0.9", "force": true }));
    assert_eq!(program.all("/blocks", 10).len(), 1);
}

#[test]
fn a_list_is_imported_whole_and_again_changes_nothing() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    let program = Program::writer(&gateway);
    let blocks: Vec<Value> = (0..250)
        .map(|n| json!({ "network": format!("198.51.{n}.0/24"), "reason": "a list", "expires_in": 86400 }))
        .collect();
    let list = |rehearse: bool| json!({ "blocks": blocks, "rehearse": rehearse });
    let rehearsed = program.change("/blocks/import", &list(true));
    assert_eq!(rehearsed, json!({ "added": 250, "kept": 0, "rehearsed": true }));
    assert_eq!(program.all("/blocks", 1000), [] as [Value; 0]);
    let imported = program.change("/blocks/import", &list(false));
    assert_eq!((&imported["added"], &imported["kept"]), (&250.into(), &0.into()));
    answers(&gateway, "198.51.77.7", 403);
    let listed = program.all("/blocks?source=import", 100);
    assert_eq!(listed.len(), 250);
    let mut numbers: Vec<i64> = listed.iter().map(id).collect();
    numbers.dedup();
    assert_eq!(numbers.len(), 250);
    let longer = json!({ "blocks": [{ "network": "198.51.3.0/24" }, { "network": "198.51.4.0/24", "expires_in": 60 }] });
    let again = program.change("/blocks/import", &longer);
    assert_eq!((&again["added"], &again["kept"]), (&1.into(), &1.into()));
}

#[test]
fn an_allow_wins_until_it_is_taken_back() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    let program = Program::writer(&gateway);
    program.change("/blocks", &json!({ "network": "203.0.113.0/24" }));
    answers(&gateway, CLIENT, 403);
    let added = program.change("/allows", &json!({ "network": CLIENT, "reason": "our office" }));
    answers(&gateway, CLIENT, 200);
    answers(&gateway, "203.0.113.10", 403);
    assert!(added["text"].as_str().unwrap().contains("overrules"), "{added}");
    let number = id(&added["allow"]);
    assert_eq!(program.all("/allows", 10).len(), 1);
    let standing = program.read(&format!("/clients/{CLIENT}"))["standing"].clone();
    assert_eq!(
        (id(&standing["allows"][0]), standing["blocks"][0]["network"].as_str()),
        (number, Some("203.0.113.0/24"))
    );
    assert_eq!(program.delete(&format!("/allows/{number}")).status(), 200);
    answers(&gateway, CLIENT, 403);
    problem(&program.delete(&format!("/allows/{number}")), 404);
    assert_eq!(program.read(&format!("/allows/{number}"))["in_force"], false);
}

#[test]
fn a_user_is_blocked_by_name_and_let_in_again() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    let program = Program::writer(&gateway);
    let added = program.change("/user-blocks", &json!({ "user": "mallory", "expires_in": 60 }));
    let number = id(&added["block"]);
    assert_eq!((&added["block"]["user"], &added["block"]["network"]), (&"mallory".into(), &Value::Null));
    assert_eq!(program.all("/user-blocks?q=mallory", 1).len(), 1);
    // It is no block of an address, and is not lifted as one.
    problem(&program.get(&format!("/blocks/{number}")), 404);
    problem(&program.delete(&format!("/blocks/{number}")), 404);
    assert_eq!(program.read(&format!("/user-blocks/{number}"))["in_force"], true);
    assert_eq!(program.delete(&format!("/user-blocks/{number}")).status(), 200);
    assert_eq!(program.read(&format!("/user-blocks/{number}"))["in_force"], false);
    problem(&program.post("/user-blocks", &json!({ "user": "" })), 422);
}

/// Asks for what no visitor asks for until it is refused.
fn attack(gateway: &Gateway, client: &str) {
    let missing = r#"{"status": 404, "headers": [], "parts": ["not here"]}"#;
    for path in ["/.env", "/.git/config", "/.aws/credentials", "/wp-config.php.bak", "/id_rsa", "/backup.sql"]
    {
        gateway.client_of(client).send(&Request::get(path).header("X-Answer", missing));
    }
    answers(gateway, client, 403);
}

#[test]
fn a_finding_is_judged_acted_upon_and_never_made_again() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    let program = Program::writer(&gateway);
    attack(&gateway, "203.0.113.66");
    let finding = eventually("the finding is recorded", || {
        program.all("/findings?client=203.0.113.66&min_severity=high&status=open", 10).pop()
    });
    let number = id(&finding);
    assert_eq!(program.read(&format!("/findings/{number}"))["client"], "203.0.113.66");
    assert!(finding["details"]["rules"].is_array(), "{finding}");
    let block = finding["block_id"].as_i64().expect("the detector blocks it");
    assert_eq!(program.read(&format!("/blocks/{block}"))["finding_id"], number);

    let act = |what: &str, body: &Value| program.change(&format!("/findings/{number}/{what}"), body);
    assert_eq!(act("confirm", &json!({}))["finding"]["status"], "confirmed");
    assert_eq!(act("reopen", &json!({}))["finding"]["status"], "open");
    let dismissed = act("dismiss", &json!({ "never": "client", "note": "our scanner" }));
    assert_eq!(dismissed["finding"]["status"], "dismissed");
    assert!(dismissed["text"].as_str().unwrap().contains("still in force"), "{dismissed}");
    let never = program.read("/nevers")["items"][0].clone();
    assert_eq!((&never["network"], &never["note"]), (&"203.0.113.66/32".into(), &"our scanner".into()));
    assert_eq!(never["created_by"], "api:writer");
    assert_eq!(program.delete(&format!("/nevers/{}", id(&never))).status(), 200);
    problem(&program.delete(&format!("/nevers/{}", id(&never))), 404);

    assert_eq!(program.delete(&format!("/blocks/{block}")).status(), 200);
    answers(&gateway, "203.0.113.66", 200);
    let blocked = act("block", &json!({ "expires_in": 600 }));
    assert_eq!(blocked["finding"]["block_id"].as_i64().map(|new| new > block), Some(true), "{blocked}");
    answers(&gateway, "203.0.113.66", 403);

    problem(&program.post("/findings/4711/confirm", &json!({})), 404);
    let wrong = problem(
        &program.post(&format!("/findings/{number}/dismiss"), &json!({ "never": "path", "path": "x" })),
        422,
    );
    assert!(wrong["detail"].as_str().unwrap().contains("path"), "{wrong}");
}

#[test]
fn a_setting_is_in_force_at_once_and_goes_back_to_the_file() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    let program = Program::writer(&gateway);
    let path = "/settings/detection.requests_per_hour";
    let setting = || {
        let all = program.read("/settings")["items"].clone();
        let named = |one: &&Value| one["key"] == "detection.requests_per_hour";
        all.as_array().unwrap().iter().find(named).unwrap().clone()
    };
    let in_file = setting()["in_file"].clone();
    let put = |value: &str| {
        let body = json!({ "value": value }).to_string();
        let request = Request::new("PUT", &format!("/api/v1{path}")).body(body);
        program.send(request.header("Content-Type", "application/json"))
    };
    let set = put("77").json();
    assert_eq!((&set["value"], &set["in_file"], &set["is_changed"]), (&"77".into(), &in_file, &true.into()));
    assert_eq!(set["changed_by"], "api:writer");
    assert_eq!(setting()["value"], "77");
    let shown = gateway.cli_ok(&["settings", "--json"]);
    assert!(shown.contains("77"), "{shown}");

    let wrong = problem(&put("many"), 422);
    assert_eq!(wrong["errors"][0]["field"], "value", "{wrong}");
    let unknown = Request::new("PUT", "/api/v1/settings/server.listen").body("{\"value\": \"1\"}");
    problem(&program.send(unknown.header("Content-Type", "application/json")), 422);
    assert_eq!(program.delete(path).json()["value"], in_file);
    problem(&program.delete(path), 404);
}

#[test]
fn a_task_is_run_and_its_run_recorded() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    let program = Program::writer(&gateway);
    let names: Vec<String> = program.read("/tasks")["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|task| task["task"].as_str().unwrap().to_owned())
        .collect();
    assert!(names.contains(&"cleanup".to_owned()), "{names:?}");
    let begun = program.post("/tasks/cleanup/run", &json!({}));
    assert_eq!(begun.status(), 202, "{}", begun.text());
    let run = eventually("the run is recorded", || {
        program.read("/tasks/cleanup/runs")["items"].as_array().unwrap().first().cloned()
    });
    assert_eq!((&run["task"], &run["succeeded"]), (&"cleanup".into(), &true.into()));
    let unknown = problem(&program.post("/tasks/nothing/run", &json!({})), 404);
    assert!(unknown["detail"].as_str().unwrap().contains("cleanup"), "{unknown}");
}

#[test]
fn a_reload_tells_what_has_changed_and_every_mistake() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    let program = Program::writer(&gateway);
    assert_eq!(program.change("/reload", &json!({})), json!({ "changed": [], "waiting": [] }));
    let good = std::fs::read_to_string(gateway.config_file()).unwrap();
    gateway.write_config(&format!("{good}\n[[limit]]\nname = \"new\"\nrate = \"often\"\n"));
    let refused = problem(&program.post("/reload", &json!({})), 409);
    assert!(refused["detail"].as_str().unwrap().contains("rate"), "{refused}");
    assert!(program.read("/configuration")["last_reload"]["problem"].is_string());
    gateway.write_config(&format!("{good}\n[[limit]]\nname = \"new\"\nrate = \"9/1m\"\n"));
    eventually("the limit is in force", || {
        program.post("/reload", &json!({}));
        let limits = program.read("/limits");
        limits["items"].as_array().unwrap().iter().any(|limit| limit["name"] == "new").then_some(())
    });
}

#[test]
fn all_that_is_kept_about_a_client_is_handed_out_and_erased() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    let (program, reader) = (Program::writer(&gateway), Program::reader(&gateway));
    for n in 0..5 {
        gateway.client_of(CLIENT).get(&format!("/secret/{n}"));
        gateway.client_of("203.0.113.90").get(&format!("/other/{n}"));
    }
    gateway.data().wait_for_count(10);
    program.change("/blocks", &json!({ "network": CLIENT, "reason": "for a while" }));

    let path = format!("/clients/{CLIENT}/data");
    problem(&reader.get(&path), 403);
    problem(&reader.delete(&path), 403);
    let kept = program.read(&path);
    assert_eq!(kept["requests"].as_array().unwrap().len(), 5, "{kept}");
    assert!(kept["state"]["blocks"].is_array(), "{kept}");

    let erased = program.delete(&path);
    assert_eq!(erased.status(), 200, "{}", erased.text());
    let erased = erased.json();
    assert_eq!((&erased["requests"], &erased["blocks_lifted"]), (&5.into(), &1.into()));
    assert_eq!(erased["left_in"], json!([]));
    assert!(!erased["receipt"].as_str().unwrap().contains(CLIENT));
    assert_eq!(program.all(&format!("/requests?ip={CLIENT}"), 10), [] as [Value; 0]);
    assert_eq!(program.all("/requests?ip=203.0.113.90", 10).len(), 5);
    answers(&gateway, CLIENT, 200);
}
