//! The report of a day, as people get it: on the terminal, as a page, as JSON, by mail.

use portcullis_testkit::{Gateway, Request, SmtpOptions, SmtpServer, Upstream, WebhookReceiver, eventually};

use crate::behind_proxy;

/// A mail server on this machine, where nobody needs TLS or a login, and the lines that lead to it.
fn mail_server() -> (SmtpServer, String) {
    let server = SmtpServer::start(SmtpOptions::default());
    let lines = format!(
        "[alerts.smtp]\nhost = \"127.0.0.1\"\nport = {}\ntls = \"none\"\nfrom = \"gate@example.com\"\n\
         to = [\"admin@example.com\"]",
        server.port()
    );
    (server, lines)
}

#[test]
fn the_report_of_today_tells_what_was_served_and_decided() {
    let upstream = Upstream::start();
    let limit = "paths = [\"/login\"]\nrate = \"2/1h\"";
    let gateway =
        Gateway::start(behind_proxy(&upstream).limit("login", limit).section("[alerts]\nname = \"shop\""));
    let mut visitor = gateway.client_of("198.51.100.1");
    for _ in 0..5 {
        visitor.get("/");
    }
    visitor.send(&Request::get("/missing/x").header("User-Agent", "<script>alert(1)</script>"));
    let mut guesser = gateway.client_of("203.0.113.9");
    for _ in 0..4 {
        guesser.send(&Request::get("/login"));
    }
    gateway.cli_ok(&["block", "203.0.113.50"]);
    eventually("the block is in force", || {
        (gateway.client_of("203.0.113.50").get("/").status() == 403).then_some(())
    });
    eventually("all of it is in the log", || {
        let json: serde_json::Value =
            serde_json::from_str(&gateway.cli_ok(&["report", "--day", "today", "--json"])).unwrap();
        let totals = &json["totals"];
        let is_there = totals["limited"]["value"] == 2 && totals["blocked"]["value"].as_u64() >= Some(1);
        (is_there && json["limits"][0]["requests"] == 2).then_some(())
    });
    let json: serde_json::Value =
        serde_json::from_str(&gateway.cli_ok(&["report", "--day", "today", "--json"])).unwrap();
    assert_eq!((&json["gateway"], &json["is_over"]), (&"shop".into(), &false.into()));
    assert_eq!(json["totals"]["blocks_added"]["value"], 1);
    assert_eq!(json["totals"]["client_errors"]["value"], 1, "{json}");
    assert_eq!(json["totals"]["requests"]["day_before"], serde_json::Value::Null);
    assert_eq!(json["limits"][0]["rule"], "login");
    let programs = json["user_agents"].as_array().unwrap();
    assert!(programs.iter().any(|row| row["name"] == "<script>alert(1)</script>"), "{json}");

    let text = gateway.cli_ok(&["report", "--day", "today"]);
    for part in
        ["shop: ", "The day is not over", "Requests", "Limits that were met", "198.51.100.1", "/login"]
    {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    let html = gateway.cli_ok(&["report", "--day", "today", "--format", "html"]);
    assert!(html.starts_with("<!DOCTYPE html>") && !html.contains("<script"), "{html}");
    assert!(html.contains("&lt;script&gt;alert(1)&lt;/script&gt;"), "{html}");
    let future = gateway.cli(&["report", "--day", "2999-01-01"]);
    assert!(future.code == Some(2) && future.stderr.contains("has not come yet"), "{future:?}");
    assert_eq!(gateway.cli(&["report", "--send"]).code, Some(3), "nobody to send it to");
}

#[test]
fn the_task_sends_the_report_of_yesterday_through_every_channel() {
    let (server, smtp) = mail_server();
    let receiver = WebhookReceiver::start(&[]);
    let webhook = format!("\n[[alerts.webhook]]\nname = \"ops\"\nurl = \"{}\"", receiver.url("/r"));
    let upstream = Upstream::start();
    let gateway = Gateway::start(
        behind_proxy(&upstream).section(&format!("[alerts]\nname = \"shop\"\n{smtp}{webhook}")),
    );
    gateway.get("/");
    gateway.data().wait_for_count(1);
    let said = gateway.cli_ok(&["tasks", "run", "report"]);
    assert!(said.contains("goes to mail, ops"), "{said}");
    let mail = eventually("a mail", || server.mails().into_iter().next());
    assert!(mail.subject().starts_with("[shop] report of "), "{}", mail.subject());
    assert!(mail.text().contains("Requests") && mail.html().contains("Requests"), "{}", mail.text());
    let posted = eventually("a request", || receiver.posted().into_iter().next()).json();
    assert_eq!((&posted["kind"], &posted["report"]["gateway"]), (&"report".into(), &"shop".into()));
    assert_eq!(posted["report"]["totals"]["requests"]["value"], 0, "today's is not yesterday's");
}

#[test]
fn a_report_that_is_sent_by_hand_says_what_came_of_it() {
    let (mut server, smtp) = mail_server();
    let upstream = Upstream::start();
    let gateway = Gateway::start(behind_proxy(&upstream).section(&smtp));
    gateway.get("/");
    gateway.data().wait_for_count(1);
    assert!(gateway.cli_ok(&["report", "--day", "today", "--send"]).starts_with("sent"));
    assert_eq!(server.mails().len(), 1);
    server.stop();
    let output = gateway.cli(&["report", "--send"]);
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(output.stdout.contains("cannot reach the mail server 127.0.0.1"), "{output:?}");
}
