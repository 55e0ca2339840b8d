//! People are told: from a request that attacks to a mail and a message in a chat, and what the commands say about it.

use portcullis_testkit::{
    Authority, Gateway, GatewayConfig, Mail, Request, SmtpOptions, SmtpServer, Upstream, WebhookReceiver,
    eventually,
};

use crate::behind_proxy;

/// A mail server with STARTTLS and a login, the file of its authority, and the lines that lead to it.
fn mail_server(folder: &tempfile::TempDir, password: &str) -> (SmtpServer, String) {
    let authority = Authority::new();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, authority.pem()).unwrap();
    let server = SmtpServer::start(SmtpOptions {
        certificate: Some(authority.issue(&["localhost"])),
        login: Some(("gate".to_owned(), "s3cret".to_owned())),
        ..SmtpOptions::default()
    });
    let lines = format!(
        "[alerts.smtp]\nhost = \"localhost\"\nport = {}\nca = \"{}\"\nusername = \"gate\"\npassword = \"{password}\"\n\
         from = \"Gate <gate@example.com>\"\nto = [\"admin@example.com\", \"second@example.com\"]",
        server.port(),
        ca.display()
    );
    (server, lines)
}

fn guarded(upstream: &Upstream, alerts: &str, channels: &str) -> GatewayConfig {
    let runs = "[detection]\nlive = false";
    behind_proxy(upstream).section(runs).section(&format!("[alerts]\nname = \"shop\"\n{alerts}\n{channels}"))
}

/// Enough to be found critical, and blocked.
fn attack(gateway: &Gateway, client: &str) -> String {
    let before = gateway.data().count();
    let mut connection = gateway.client_of(client);
    let paths =
        ["/.env", "/.git/config", "/wp-login.php", "/cgi-bin/luci", "/backup.sql", "/.aws/credentials"];
    for path in paths {
        connection.send(&Request::get(&format!("/missing{path}")).header("User-Agent", "sqlmap/1.8"));
        connection.send(&Request::get(path).header("User-Agent", "sqlmap/1.8"));
    }
    gateway.data().wait_for_count(before + 2 * paths.len() as u64);
    gateway.cli_ok(&["detect"])
}

fn first_mail(server: &SmtpServer) -> Mail {
    eventually("a mail", || server.mails().into_iter().next())
}

#[test]
fn an_attack_that_the_detector_blocks_is_mailed_and_told_to_a_chat() {
    let folder = tempfile::tempdir().unwrap();
    let (server, smtp) = mail_server(&folder, "s3cret");
    let chat = WebhookReceiver::start(&[]);
    let webhook =
        format!("\n[[alerts.webhook]]\nname = \"chat\"\nkind = \"slack\"\nurl = \"{}\"", chat.url("/T0/B0"));
    let upstream = Upstream::start();
    let settings = "findings = \"high\"\ngather = \"200ms\"";
    let gateway = Gateway::start(guarded(&upstream, settings, &(smtp + &webhook)));
    // The command beside the gateway finds and blocks; the gateway sends.
    let said = attack(&gateway, "203.0.113.66");
    assert!(said.contains("203.0.113.66"), "{said}");

    let mail = first_mail(&server);
    assert!(mail.was_encrypted && mail.user.as_deref() == Some("gate"), "{mail:?}");
    assert_eq!((mail.from.as_str(), mail.to.len()), ("gate@example.com", 2));
    assert!(
        mail.subject().starts_with("[shop] ") && mail.subject().contains("1 finding, 1 block"),
        "{}",
        mail.subject()
    );
    for part in ["203.0.113.66", "was blocked", "portcullis unblock 203.0.113.66", "portcullis suspicious"] {
        assert!(mail.text().contains(part), "{part:?} is not in\n{}", mail.text());
        assert!(mail.html().contains(part), "{part:?} is not in\n{}", mail.html());
    }
    let posted = eventually("a message in the chat", || chat.posted().into_iter().next());
    assert!(posted.json()["text"].as_str().unwrap().contains("203.0.113.66"), "{}", posted.json());

    // The same again is no news.
    gateway.cli_ok(&["detect"]);
    let listed = gateway.cli_ok(&["alerts"]);
    for part in ["mail", "chat", "works", "admin@example.com", "1 finding, 1 block"] {
        assert!(listed.contains(part), "{part:?} is not in\n{listed}");
    }
    assert!(!listed.contains("/T0/B0"), "the path of a chat's URL is a secret:\n{listed}");
    let status: serde_json::Value = serde_json::from_str(&gateway.cli_ok(&["alerts", "--json"])).unwrap();
    assert_eq!(status["alerts"].as_array().unwrap().len(), 1, "{status}");
    assert_eq!(status["channels"][0]["waiting_events"], 0, "{status}");
    assert_eq!(server.mails().len(), 1);
    let sent = "portcullis_alerts_messages_total{channel=\"mail\",outcome=\"sent\"}";
    assert_eq!(gateway.metric(sent), 1.0);
}

#[test]
fn alerts_test_tries_every_channel_and_says_what_came_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let (server, smtp) = mail_server(&folder, "s3cret");
    let (json, discord) = (WebhookReceiver::start(&[]), WebhookReceiver::start(&["404 Not Found"]));
    let webhooks = format!(
        "\n[[alerts.webhook]]\nname = \"ops\"\nurl = \"{}\"\n[[alerts.webhook]]\nname = \"talk\"\nkind = \"discord\"\n\
         url = \"{}\"\n[[alerts.webhook]]\nname = \"gone\"\nurl = \"http://127.0.0.1:1/secret\"",
        json.url("/a"),
        discord.url("/b")
    );
    let upstream = Upstream::start();
    let gateway = Gateway::start(guarded(&upstream, "", &(smtp + &webhooks)));
    let output = gateway.cli(&["alerts", "test"]);
    assert_eq!(output.code, Some(1), "{output:?}");
    let line = |name: &str| {
        let line = output.stdout.lines().find(|line| line.contains(name));
        line.unwrap_or_else(|| panic!("{name} is not in\n{}", output.stdout)).to_owned()
    };
    assert!(line("mail:").starts_with("sent") && line("mail:").contains("second@example.com"));
    assert!(line("ops:").starts_with("sent"));
    assert!(line("talk:").starts_with("failed") && line("talk:").contains("answered 404"));
    assert!(line("gone:").starts_with("failed") && line("gone:").contains("refuses the connection"));
    assert!(!output.stdout.contains("secret"), "{}", output.stdout);
    assert!(first_mail(&server).subject().contains("this is a test"));
    let body = json.posted()[0].json();
    assert_eq!((&body["kind"], &body["gateway"]), (&"alert".into(), &"shop".into()));
    assert_eq!(discord.posted()[0].json()["allowed_mentions"]["parse"], serde_json::json!([]));
}

#[test]
fn without_channels_alerts_are_off_and_say_so() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(behind_proxy(&upstream));
    attack(&gateway, "203.0.113.66");
    assert!(gateway.cli_ok(&["alerts"]).contains("Nobody is told"));
    let output = gateway.cli(&["alerts", "test"]);
    assert_eq!(output.code, Some(3), "{output:?}");
    assert!(gateway.data().state().recent_alerts(portcullis_model::UnixMs(0), 9).unwrap().is_empty());
}

#[test]
fn wrong_credentials_are_one_clear_message_and_the_events_wait() {
    let folder = tempfile::tempdir().unwrap();
    let (server, smtp) = mail_server(&folder, "wrong");
    let upstream = Upstream::start();
    let gateway = Gateway::start(guarded(&upstream, "gather = \"200ms\"", &smtp));
    attack(&gateway, "203.0.113.66");
    eventually("the failure is known", || gateway.cli_ok(&["alerts"]).contains("failing").then_some(()));
    let listed = gateway.cli_ok(&["alerts"]);
    let clear = "does not let gate log in: 535 5.7.8 Authentication credentials invalid";
    assert!(listed.contains(clear), "{listed}");
    eventually("the log says it", || gateway.stderr().contains(clear).then_some(()));
    assert_eq!(gateway.stderr().matches("do not arrive").count(), 1, "{}", gateway.stderr());
    assert!(!gateway.stderr().contains("wrong"), "{}", gateway.stderr());
    assert!(server.mails().is_empty());
    eventually("the metrics say it", || {
        (gateway.metric("portcullis_alerts_failing{channel=\"mail\"}") > 0.5).then_some(())
    });
    assert!(gateway.metric("portcullis_alerts_waiting{channel=\"mail\"}") >= 1.0);
    // The site does not suffer.
    assert_eq!(gateway.client_of("198.51.100.1").get("/").status(), 200);
}

#[test]
fn what_waited_when_the_gateway_was_killed_is_sent_by_the_next_one_once() {
    let folder = tempfile::tempdir().unwrap();
    let (server, smtp) = mail_server(&folder, "s3cret");
    let upstream = Upstream::start();
    let gateway = Gateway::start(guarded(&upstream, "gather = \"4s\"", &smtp));
    attack(&gateway, "203.0.113.66");
    let ended = gateway.kill();
    let sent_before = server.mails().len();
    assert_eq!(sent_before, 0, "events are gathered first");
    let _gateway = ended.start_again();
    first_mail(&server);
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert_eq!(server.mails().len(), 1);
}

#[test]
fn a_disk_that_is_nearly_full_is_told_once() {
    let folder = tempfile::tempdir().unwrap();
    let (server, smtp) = mail_server(&folder, "s3cret");
    let upstream = Upstream::start();
    // More than any disk of a test machine has.
    let _gateway = Gateway::start(guarded(&upstream, "gather = \"200ms\"\nmin_free = \"1000000GiB\"", &smtp));
    let mail = first_mail(&server);
    assert!(mail.subject().contains("are free on the disk of the data folder"), "{}", mail.subject());
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert_eq!(server.mails().len(), 1);
}

#[test]
fn a_run_that_cannot_note_whom_to_tell_blocks_nobody_and_the_next_one_does_both() {
    let chat = WebhookReceiver::start(&[]);
    let webhook = format!("[[alerts.webhook]]\nname = \"chat\"\nurl = \"{}\"", chat.url("/T0"));
    let upstream = Upstream::start();
    let gateway = Gateway::start(guarded(&upstream, "gather = \"200ms\"", &webhook));
    let attacker = "203.0.113.66";
    // The last thing that a run writes fails, as if the process had been killed just before.
    gateway.data().execute(
        "state.db",
        "CREATE TRIGGER full BEFORE INSERT ON alerts BEGIN SELECT RAISE(ABORT, 'no room'); END",
    );
    let mut connection = gateway.client_of(attacker);
    let paths =
        ["/.env", "/.git/config", "/.aws/credentials", "/wp-config.php.bak", "/id_rsa", "/backup.sql"];
    paths.iter().for_each(|path| drop(connection.get(&format!("/missing{path}"))));
    gateway.data().wait_for_count(paths.len() as u64);
    let failed = gateway.cli(&["detect"]);
    assert!(failed.code == Some(1) && failed.stderr.contains("no room"), "{failed:?}");
    let state = gateway.data().state();
    let now = portcullis_model::UnixMs::from_system(std::time::SystemTime::now());
    assert_eq!(state.active_blocks(now).unwrap(), []);
    assert_eq!(state.findings(&Default::default()).unwrap(), []);

    gateway.data().execute("state.db", "DROP TRIGGER full");
    gateway.cli_ok(&["detect"]);
    let posted = eventually("a message", || chat.posted().into_iter().next()).json().to_string();
    assert!(posted.contains(&format!("{attacker} was blocked")), "{posted}");
    assert_eq!(connection_status(&gateway, attacker), 403);
}

fn connection_status(gateway: &Gateway, client: &str) -> u16 {
    eventually("the block is in force", || {
        let status = gateway.client_of(client).get("/").status();
        (status != 200).then_some(status)
    })
}
