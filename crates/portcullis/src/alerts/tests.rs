//! The sender against a real mail server, a real webhook receiver and a real database, on a clock of its own:
//! storms, outages, restarts and refusals, hours long, in seconds.

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;

use jiff::tz::TimeZone;
use portcullis_config::{Config, Overrides};
use portcullis_model::{Severity, UnixMs};
use portcullis_notify::{Digest, Event, Message};
use portcullis_store::{AlertChannel, State};
use portcullis_testkit::{Authority, Mail, SmtpOptions, SmtpServer, WebhookReceiver};

use super::{AlertStats, Lines, Sender, store};

const START: i64 = 1_800_000_000_000;

/// A data folder, its configuration, a clock, and a sender that can be started anew.
struct Scene {
    folder: tempfile::TempDir,
    config: Config,
    now: Cell<i64>,
    sender: Sender,
}

impl Scene {
    fn new(folder: tempfile::TempDir, alerts: &str) -> Self {
        let upstream = "[[upstream]]\nname = \"a\"\nservers = [\"http://127.0.0.1:1\"]\n";
        let text = format!("data = \"data\"\n{upstream}{alerts}");
        let config = portcullis_config::parse(&text, "test", folder.path(), &Overrides::default())
            .unwrap_or_else(|errors| panic!("{errors}\n{text}"));
        State::open(&config.data).unwrap();
        Self { folder, config, now: Cell::new(START), sender: sender() }
    }

    fn raise(&self, events: &[Event]) {
        let mut state = State::open_existing(&self.config.data).unwrap();
        let digest = Digest::of_all(events, UnixMs(self.now.get())).unwrap();
        store(&mut state, &self.config, &digest).unwrap();
    }

    fn tick(&mut self) {
        let Self { config, now, sender, .. } = self;
        sender.tick(config, &|| UnixMs(now.get()));
    }

    /// Lets time go by, with a look every `step` seconds.
    fn wait(&mut self, seconds: i64, step: i64) {
        let end = self.now.get() + seconds * 1_000;
        while self.now.get() < end {
            self.now.set((self.now.get() + step * 1_000).min(end));
            self.tick();
        }
    }

    /// As a process that is killed and started again.
    fn restart(&mut self) {
        self.sender = sender();
    }

    fn channel(&self, name: &str) -> AlertChannel {
        let state = State::open_read_only(&self.config.data).unwrap();
        state.alert_channels().unwrap().into_iter().find(|known| known.channel == name).unwrap()
    }
}

fn sender() -> Sender {
    Sender::new(TimeZone::UTC, Arc::new(AlertStats::default()))
}

fn finding(n: u32, says: &str) -> Event {
    Event::Finding {
        id: i64::from(n),
        client: std::net::IpAddr::from((0xcb00_0000 + n).to_be_bytes()).to_string().parse().unwrap(),
        user: None,
        severity: Severity::Critical,
        rule: "signatures".to_owned(),
        says: says.to_owned(),
        requests: 20,
    }
}

/// A server with STARTTLS and a login, and the lines that lead to it.
fn mail_server(folder: &Path) -> (SmtpServer, String) {
    let authority = Authority::new();
    std::fs::write(folder.join("ca.pem"), authority.pem()).unwrap();
    let server = SmtpServer::start(SmtpOptions {
        certificate: Some(authority.issue(&["localhost"])),
        login: Some(("gate".to_owned(), "s3cret".to_owned())),
        ..SmtpOptions::default()
    });
    let lines = smtp_lines(server.port());
    (server, lines)
}

fn smtp_lines(port: u16) -> String {
    format!(
        "[alerts.smtp]\nhost = \"localhost\"\nport = {port}\nca = \"ca.pem\"\nusername = \"gate\"\n\
         password = \"s3cret\"\nfrom = \"Gate <gate@example.com>\"\nto = [\"admin@example.com\"]\n"
    )
}

/// How many events a mail says that it stands for.
fn stands_for(mail: &Mail) -> u64 {
    let text = mail.text();
    let (_, rest) = text.split_once("This message stands for ").unwrap_or_else(|| panic!("{text}"));
    rest.split(' ').next().unwrap().replace(',', "").parse().unwrap()
}

#[test]
fn a_hundred_thousand_findings_in_an_hour_are_twelve_mails_and_the_last_says_how_many_it_stands_for() {
    const STEPS: u32 = 360;
    let folder = tempfile::tempdir().unwrap();
    let (server, lines) = mail_server(folder.path());
    let mut scene = Scene::new(folder, &lines);
    let mut raised = 0;
    for step in 1..=STEPS {
        let until = 100_000 * step / STEPS;
        let events: Vec<Event> = (raised..until).map(|n| finding(n % 5_000, "it scans")).collect();
        raised = until;
        scene.raise(&events);
        scene.wait(10, 10);
        if step % 90 == 0 {
            scene.restart();
        }
    }
    assert_eq!(raised, 100_000);
    let mails = server.mails();
    assert_eq!(mails.len(), 12, "max_per_hour");
    let last = mails.last().unwrap();
    assert!(stands_for(last) > 50_000, "{}", last.text());
    assert!(last.text().contains("findings") && last.text().contains("all others"), "{}", last.text());
    // What came after it is told when the hour is over, and then there is nothing left.
    scene.wait(7_200, 30);
    let mails = server.mails();
    assert_eq!(mails.len(), 13);
    assert_eq!(mails.iter().map(stands_for).sum::<u64>(), 100_000);
    assert!(mails.iter().all(|mail| mail.was_encrypted && mail.user.as_deref() == Some("gate")));
}

#[test]
fn nothing_is_lost_while_the_mail_server_is_away_and_one_mail_tells_it_all() {
    let folder = tempfile::tempdir().unwrap();
    let (mut server, lines) = mail_server(folder.path());
    let mut scene = Scene::new(folder, &lines);
    server.stop();
    for n in 0..60 {
        scene.raise(&[finding(n, "it scans")]);
        scene.wait(60, 20);
    }
    scene.restart();
    let mail = scene.channel("mail");
    assert!(mail.failures >= 5 && mail.failures <= 9, "the wait doubles: {mail:?}");
    let error = mail.last_error.unwrap();
    let clear = format!("cannot reach the mail server localhost:{}: Connection refused", server.port());
    assert!(error.starts_with(&clear), "{error}");
    server.listen();
    scene.wait(3_700, 20);
    let mails = server.mails();
    assert_eq!(mails.iter().map(stands_for).collect::<Vec<_>>(), [60]);
    let mail = scene.channel("mail");
    assert_eq!((mail.failures, mail.last_error, mail.sent, mail.lost), (0, None, 1, 0));
}

#[test]
fn a_wrong_password_is_named_and_a_right_one_sends_what_waited() {
    let folder = tempfile::tempdir().unwrap();
    let (server, lines) = mail_server(folder.path());
    let mut scene = Scene::new(folder, &lines);
    server.change(|options| options.login = Some(("gate".to_owned(), "other".to_owned())));
    scene.raise(&[finding(1, "it scans")]);
    scene.wait(40, 10);
    let error = scene.channel("mail").last_error.unwrap();
    assert!(error.contains("does not let gate log in: 535"), "{error}");
    assert!(!error.contains("s3cret"), "{error}");
    assert_eq!((server.mails().len(), server.wrong_logins()), (0, 1));
    server.change(|options| {
        options.login = Some(("gate".to_owned(), "s3cret".to_owned()));
        options.only_login = true;
    });
    scene.wait(120, 10);
    assert_eq!(server.mails().iter().map(stands_for).collect::<Vec<_>>(), [1]);
}

#[test]
fn what_could_not_be_told_for_three_days_is_given_up_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let (mut server, lines) = mail_server(folder.path());
    let mut scene = Scene::new(folder, &lines);
    server.stop();
    scene.raise(&[finding(1, "it scans"), finding(2, "it scans")]);
    scene.wait(3 * 86_400 + 600, 600);
    assert_eq!(scene.channel("mail").lost, 2);
    scene.raise(&[finding(3, "it scans")]);
    server.listen();
    scene.wait(7_200, 60);
    assert_eq!(server.mails().iter().map(stands_for).collect::<Vec<_>>(), [1]);
}

#[test]
fn a_mail_that_a_server_does_not_want_goes_without_what_clients_had_a_hand_in() {
    let folder = tempfile::tempdir().unwrap();
    let (server, lines) = mail_server(folder.path());
    let mut scene = Scene::new(folder, &lines);
    server.change(|options| options.refuse_mails = Some("554 5.7.1 looks like spam".to_owned()));
    scene.raise(&[finding(1, "it asked for /cheap-pills")]);
    scene.wait(300, 10);
    let mail = scene.channel("mail");
    assert_eq!(mail.failures, 4);
    assert!(mail.last_error.unwrap().contains("554 5.7.1 looks like spam"));
    server.change(|options| options.refuse_mails = None);
    scene.wait(900, 10);
    let mails = server.mails();
    assert_eq!(mails.iter().map(stands_for).collect::<Vec<_>>(), [1]);
    assert!(
        !mails[0].data.contains("cheap-pills") && mails[0].subject().contains("1 finding"),
        "{}",
        mails[0].data
    );
}

#[test]
fn a_receiver_whom_the_server_does_not_know_keeps_the_others_from_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (server, lines) = mail_server(folder.path());
    let lines = lines
        .replace("\"admin@example.com\"", "\"admin@example.com\", \"gone@example.com\", \"c@example.com\"");
    let mut scene = Scene::new(folder, &lines);
    server.change(|options| options.unknown_receiver = Some("gone@example.com".to_owned()));
    scene.raise(&[finding(1, "it scans")]);
    scene.wait(600, 10);
    let to: Vec<Vec<String>> = server.mails().into_iter().map(|mail| mail.to).collect();
    assert_eq!(to, [["admin@example.com"], ["c@example.com"]]);
    assert_eq!((scene.channel("mail").sent, scene.channel("mail").failures), (1, 0));
    // Once nobody is known it is an outage like any other.
    server.change(|options| options.unknown_receiver = Some("example.com".to_owned()));
    scene.raise(&[finding(2, "it scans")]);
    scene.wait(100, 10);
    let error = scene.channel("mail").last_error.unwrap();
    assert!(error.contains("550 5.1.1 no such user here"), "{error}");
    server.change(|options| options.unknown_receiver = None);
    scene.wait(600, 10);
    assert_eq!(server.mails().last().unwrap().to.len(), 3);
}

#[test]
fn a_message_that_a_killed_process_may_have_sent_counts_and_is_sent_again() {
    let folder = tempfile::tempdir().unwrap();
    let (server, lines) = mail_server(folder.path());
    let mut scene = Scene::new(folder, &format!("[alerts]\nmax_per_hour = 1\n{lines}"));
    scene.raise(&[finding(1, "it scans")]);
    // Killed right before the mail server answered.
    let mut state = State::open_existing(&scene.config.data).unwrap();
    state.begin_alert("mail", 1, 1, UnixMs(START)).unwrap();
    scene.restart();
    scene.wait(3_500, 50);
    assert!(server.mails().is_empty(), "there may have been one in this hour");
    scene.wait(200, 50);
    assert_eq!(server.mails().iter().map(stands_for).collect::<Vec<_>>(), [1]);
}

#[test]
fn a_webhook_that_is_busy_or_broken_gets_the_same_events_later() {
    let receiver = WebhookReceiver::start(&["429 Too Many Requests\r\nRetry-After: 300", "500 Oops"]);
    let lines = format!(
        "[[alerts.webhook]]\nname = \"ops\"\nurl = \"{}\"\nsecret = \"Jefe\"\n\
         headers = [{{ name = \"X-Team\", value = \"red\" }}]\n",
        receiver.url("/hooks/1")
    );
    let mut scene = Scene::new(tempfile::tempdir().unwrap(), &lines);
    scene.raise(&[finding(1, "it scans"), finding(2, "it scans")]);
    scene.wait(60, 10);
    assert_eq!(receiver.posted().len(), 1);
    let error = scene.channel("ops").last_error.unwrap();
    assert_eq!(error, "the webhook ops answered 429, to be tried again in 300 s");
    scene.wait(240, 10);
    assert_eq!(receiver.posted().len(), 1, "it asked to be left alone for five minutes");
    scene.wait(300, 10);
    let posted = receiver.posted();
    assert_eq!(posted.len(), 3);
    let last = posted.last().unwrap();
    assert_eq!((last.path.as_str(), last.header("x-team")), ("/hooks/1", Some("red")));
    assert_eq!(last.header("content-type"), Some("application/json"));
    let body = last.json();
    assert_eq!((&body["events"], &body["events_by_kind"]["finding"]), (&2.into(), &2.into()));
    let signature = last.header("x-portcullis-signature").unwrap();
    let (seconds, hex) = signature.strip_prefix("t=").unwrap().split_once(",v1=").unwrap();
    let signed = [format!("{seconds}.").as_bytes(), &last.body].concat();
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"Jefe");
    let expected: String =
        ring::hmac::sign(&key, &signed).as_ref().iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(hex, expected);
    assert_eq!(seconds.parse::<i64>().unwrap() / 600, START / 1_000 / 600);
}

#[test]
fn an_error_page_of_any_size_is_no_success() {
    let receiver = WebhookReceiver::start(&[
        "404 Not Found\r\nContent-Length: 900000\r\n\r\n<html>",
        "200 OK\r\nContent-Length: 900000\r\n\r\n<html>",
    ]);
    let lines = format!("[[alerts.webhook]]\nname = \"ops\"\nurl = \"{}\"\n", receiver.url("/gone"));
    let mut scene = Scene::new(tempfile::tempdir().unwrap(), &lines);
    scene.raise(&[finding(1, "it scans")]);
    scene.wait(40, 10);
    let ops = scene.channel("ops");
    assert_eq!(ops.last_error.as_deref(), Some("the webhook ops answered 404"), "{ops:?}");
    scene.wait(600, 10);
    assert_eq!((receiver.posted().len(), scene.channel("ops").sent), (2, 1));
}

#[test]
fn a_server_without_starttls_or_with_a_strange_certificate_gets_nothing() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("ca.pem"), Authority::new().pem()).unwrap();
    let stranger = Authority::new().issue(&["localhost"]);
    let server = SmtpServer::start(SmtpOptions::default());
    let mut scene = Scene::new(folder, &smtp_lines(server.port()));
    scene.raise(&[finding(1, "it scans")]);
    scene.wait(40, 10);
    let error = scene.channel("mail").last_error.unwrap();
    assert!(error.contains("offers no STARTTLS"), "{error}");
    server.change(|options| options.certificate = Some(stranger));
    scene.wait(60, 10);
    let error = scene.channel("mail").last_error.unwrap();
    assert!(error.contains("TLS with the mail server") && error.contains("certificate"), "{error}");
    assert_eq!((server.mails().len(), server.wrong_logins()), (0, 0));
    assert!(scene.folder.path().join("data/alerts.lock").exists());
}

#[test]
fn a_report_waits_while_the_server_is_away_and_one_that_it_refuses_keeps_nothing_else_from_being_sent() {
    let folder = tempfile::tempdir().unwrap();
    let (mut server, lines) = mail_server(folder.path());
    let mut scene = Scene::new(folder, &lines);
    let put = |scene: &Scene, name: &str| {
        let message = Message {
            id: String::new(),
            subject: name.to_owned(),
            text: "figures".to_owned(),
            html: "<p>figures</p>".to_owned(),
            data: None,
        };
        let mut state = State::open_existing(&scene.config.data).unwrap();
        let lines = serde_json::to_string(&Lines::of(message)).unwrap();
        state.add_to_outbox(&["mail"], name, &lines, UnixMs(scene.now.get())).unwrap();
    };
    server.stop();
    put(&scene, "report-1");
    scene.wait(600, 10);
    scene.restart();
    server.listen();
    scene.wait(600, 10);
    let subjects = |server: &SmtpServer| server.mails().iter().map(Mail::subject).collect::<Vec<_>>();
    assert_eq!(subjects(&server), ["report-1"]);
    server.change(|options| options.refuse_mails = Some("552 5.3.4 too large".to_owned()));
    put(&scene, "report-2");
    scene.wait(10, 10);
    server.change(|options| options.refuse_mails = None);
    scene.raise(&[finding(1, "it scans")]);
    put(&scene, "report-3");
    scene.wait(60, 10);
    let subjects = subjects(&server);
    assert_eq!(subjects.len(), 3, "{subjects:?}");
    assert!(
        subjects.contains(&"report-3".to_owned()) && !subjects.contains(&"report-2".to_owned()),
        "{subjects:?}"
    );
}
