//! Settings that are changed while the gateway runs; reloads, tasks and alerts by button.

use portcullis_model::UnixMs;
use portcullis_testkit::{Gateway, Request, SmtpOptions, SmtpServer, Upstream, eventually};

use crate::person::Person;
use crate::{alone, config, in_front_of};

/// The runs by command alone.
const RUNS: &str = "[detection]\nlive = false\nenabled = false\nrequests_per_hour = 500";

fn set(person: &mut Person, key: &str, value: &str) -> String {
    person.change("/settings/detection", &[("setting", key), ("value", value)])
}

/// Whether the next run finds somebody who has asked for 30 pages.
fn finds_thirty(gateway: &Gateway, client: &str) -> bool {
    let before = gateway.data().count();
    let mut connection = gateway.client_of(client);
    for n in 0..30 {
        let page = Request::get(&format!("/page/{}", n % 5)).header("User-Agent", "Mozilla/5.0");
        connection.send(&page);
    }
    gateway.data().wait_for_count(before + 30);
    gateway.cli_ok(&["detect"]);
    gateway.cli_ok(&["suspicious", "--json"]).contains(client)
}

#[test]
fn a_setting_changed_in_the_console_changes_the_next_run_and_survives_a_restart_until_it_is_taken_back() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(config().upstream(&upstream).behind_local_proxy().section(RUNS));
    let mut alice = Person::operator(&gateway);
    assert!(!finds_thirty(&gateway, "203.0.113.1"));
    let page = set(&mut alice, "detection.requests_per_hour", "20");
    for part in
        ["detection.requests_per_hour is 20 from now on; the file says 500.", "Back to the file", "Undo"]
    {
        assert!(page.contains(part), "{part:?} is not in\n{page}");
    }
    assert!(finds_thirty(&gateway, "203.0.113.2"));
    assert_eq!(gateway.metric("portcullis_config_overridden_settings"), 1.0);
    assert!(gateway.cli_ok(&["check"]).contains("detection.requests_per_hour = 20 was set while running"));
    let listed = gateway.cli_ok(&["settings"]);
    assert!(listed.contains("by alice in the console"), "{listed}");
    let audit = gateway.data().state().audit(UnixMs(0), 5).unwrap();
    let entry = audit.iter().find(|entry| entry.action == "set").unwrap();
    assert_eq!(
        (entry.actor.as_str(), entry.subject.as_str()),
        ("console:alice", "detection.requests_per_hour")
    );
    assert!(entry.origin.is_some());

    let gateway = gateway.terminate().start_again();
    assert!(finds_thirty(&gateway, "203.0.113.3"));
    let metric = || (gateway.metric("portcullis_config_overridden_settings") == 1.0).then_some(());
    eventually("the restarted gateway says so", metric);
    gateway.cli_ok(&["settings", "unset", "detection.requests_per_hour"]);
    let metric = || (gateway.metric("portcullis_config_overridden_settings") == 0.0).then_some(());
    eventually("the gateway has noticed", metric);
    assert!(!finds_thirty(&gateway, "203.0.113.4"));
}

#[test]
fn a_change_is_undone_and_a_wrong_value_is_refused_with_its_sentence() {
    let gateway = alone();
    let mut alice = Person::operator(&gateway);
    let page = set(&mut alice, "detection.sensitive_paths", "/private\r\n /office \r\n\r\n");
    assert!(page.contains("[&quot;/private&quot;, &quot;/office&quot;]"), "{page}");
    let page = set(&mut alice, "detection.block_for", "1h, 2d, forever");
    assert!(page.contains("[&quot;1h&quot;, &quot;2d&quot;, &quot;forever&quot;]"), "{page}");
    alice.change("/undo", &[("key", &crate::person::field(&page, "key"))]);
    let shown = gateway.cli_ok(&["settings", "--json"]);
    assert_eq!(shown.matches("\"is_changed\": true").count(), 1, "{shown}");
    for (key, value, says) in [
        ("detection.requests_per_hour", "0", "expected a whole number from 1"),
        ("detection.error_rate", "<i>2</i>", "got &quot;&lt;i&gt;2&lt;/i&gt;&quot;"),
        ("detection.sensitive_paths", "admin", "expected a path such as"),
        ("detection.window", "10m", "is longer than detection.window"),
        ("server.threads", "4", "cannot be changed while running"),
    ] {
        let answer = alice.post("/settings/detection", &[("setting", key), ("value", value)]);
        assert_eq!(answer.status(), 422, "{key}");
        assert!(answer.text().contains(says), "{says:?} is not in\n{}", answer.text());
    }
    assert_eq!(gateway.cli_ok(&["settings", "--json"]), shown);
    let mut bob = Person::viewer(&gateway, &mut alice);
    assert!(!bob.page("/settings").contains("Save"));
    let fields = [("setting", "detection.enabled"), ("value", "false")];
    assert_eq!(bob.post("/settings/detection", &fields).status(), 403);
}

#[test]
fn a_reload_by_button_says_what_changed_or_why_it_could_not() {
    let upstream = Upstream::start();
    let text =
        |brand: &str| config().upstream(&upstream).section(&format!("[pages]\nname = \"{brand}\"")).text();
    let gateway = Gateway::start(config().upstream(&upstream));
    let mut alice = Person::operator(&gateway);
    assert!(alice.page("/settings/configuration").contains("server.threads"));
    gateway.write_config(&text("Shop"));
    let page = alice.change("/settings/reload", &[]);
    assert!(page.contains("applied") || page.contains("unchanged"), "{page}");
    gateway.write_config(&text("Shop").replace("[pages]", "[pages]\nname_of = 3"));
    let page = alice.change("/settings/reload", &[]);
    for part in ["rejected", "pages.name_of: unknown setting", "the old configuration stays"] {
        assert!(page.contains(part), "{part:?} is not in\n{page}");
    }
}

#[test]
fn a_task_run_by_button_is_recorded_with_who_asked_for_it() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    let mut alice = Person::operator(&gateway);
    assert!(alice.page("/settings/tasks").contains("cleanup"));
    alice.change("/settings/tasks/run", &[("task", "cleanup")]);
    let run = eventually("the run", || gateway.data().state().task_runs(Some("cleanup"), 1).unwrap().pop());
    assert!(run.succeeded, "{run:?}");
    assert!(alice.page("/settings/tasks").contains(&run.summary));
    let audit = gateway.data().state().audit(UnixMs(0), 5).unwrap();
    assert!(audit.iter().any(|entry| entry.action == "run" && entry.subject == "cleanup"), "{audit:?}");
    assert_eq!(alice.post("/settings/tasks/run", &[("task", "nonsense")]).status(), 409);
}

#[test]
fn a_test_of_the_alerts_arrives_and_a_failure_says_why() {
    let mut server = SmtpServer::start(SmtpOptions::default());
    let lines = format!(
        "[alerts.smtp]\nhost = \"127.0.0.1\"\nport = {}\ntls = \"none\"\nfrom = \"gate@example.com\"\n\
         to = [\"admin@example.com\"]\ntimeout = \"2s\"",
        server.port()
    );
    let upstream = Upstream::start();
    let gateway = Gateway::start(config().upstream(&upstream).section(&lines));
    let mut alice = Person::operator(&gateway);
    assert!(alice.page("/settings/alerts").contains("admin@example.com"));
    let page = alice.post("/settings/alerts/test", &[]);
    assert!(page.text().contains("has arrived by mail"), "{}", page.text());
    assert_eq!(server.mails().len(), 1);
    server.stop();
    let page = alice.post("/settings/alerts/test", &[]);
    assert!(page.text().contains("The test by mail failed"), "{}", page.text());
    assert!(alice.page("/settings/sources").contains("Feeds of addresses"));
}
