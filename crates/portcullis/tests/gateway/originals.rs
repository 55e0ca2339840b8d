//! What the three original projects kept, field by field, and what they did by the hour and by the day, as it is here.
//! docs/ORIGINALS.md names these tests. Features that have tests of their own elsewhere are not tested again.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use portcullis_model::{
    Finding, Protocol, Reason, RecordText, RequestId, RequestRecord, Severity, TextFields, UnixMs,
    VerdictKind,
};
use portcullis_store::{Log, LogSettings, NoEnrichment, State};
use portcullis_testkit::{
    Authority, Gateway, GeoService, Request, SmtpOptions, SmtpServer, Upstream, eventually,
};
use serde_json::Value;

use crate::mmdb::Field::{Double, List, Map, Number, Text};
use crate::mmdb::{Tree, Writer, names};
use crate::{behind_proxy, config};

const DAY: Duration = Duration::from_secs(86_400);

fn now() -> UnixMs {
    UnixMs::from_system(SystemTime::now())
}

fn json(gateway: &Gateway, args: &[&str]) -> Value {
    serde_json::from_str(&gateway.cli_ok(args)).unwrap()
}

/// A geo file in which 198.51.100.0/24 is in Mountain View and 192.0.2.0/24 in Germany; returns the section that names it.
fn atlas(folder: &tempfile::TempDir) -> String {
    let record = Map(vec![
        ("autonomous_system_number", Number(15_169)),
        ("autonomous_system_organization", Text("Google LLC")),
        ("city", Map(vec![("names", names("Mountain View"))])),
        ("country", Map(vec![("iso_code", Text("US"))])),
        ("location", Map(vec![("latitude", Double(37.4043)), ("longitude", Double(-122.0748))])),
        ("subdivisions", List(vec![Map(vec![("names", names("California"))])])),
    ]);
    let german = Map(vec![("country", Map(vec![("iso_code", Text("DE"))]))]);
    let atlas = Writer::new("Test", Tree::V4).with("198.51.100.0/24", record).with("192.0.2.0/24", german);
    let file = folder.path().join("atlas.mmdb");
    fs::write(&file, atlas.bytes()).unwrap();
    format!("[geo]\ndatabases = [{:?}]", file.to_str().unwrap())
}

/// Requests that the detector finds critical.
fn scan(gateway: &Gateway, client: &str) {
    let before = gateway.data().count();
    let paths =
        ["/.env", "/.git/config", "/wp-login.php", "/cgi-bin/luci", "/backup.sql", "/.aws/credentials"];
    let mut connection = gateway.client_of(client);
    for path in paths {
        connection.send(&Request::get(path).header("User-Agent", "sqlmap/1.8"));
    }
    gateway.data().wait_for_count(before + paths.len() as u64);
}

#[test]
fn every_field_of_request_log_is_a_column_of_the_view_and_filled() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = Upstream::start();
    let gateway = Gateway::start(behind_proxy(&upstream).section(&atlas(&folder)));
    let began = now();
    gateway.client_of("198.51.100.7").get("/admin/users");
    gateway.data().wait_for_count(1);
    gateway.cli_ok(&["detect"]);
    let text = |column: &str| {
        gateway.data().sql::<String>(&format!("SELECT CAST({column} AS TEXT) FROM request_log"))
    };
    for (column, value) in [
        ("ip", "198.51.100.7"),
        ("path", "/admin/users"),
        ("country", "US"),
        ("city", "Mountain View"),
        ("region", "California"),
        ("latitude", "37.4043"),
        ("longitude", "-122.0748"),
        ("isp", "Google LLC"),
        ("asn", "15169"),
        ("is_suspicious", "1"),
    ] {
        assert_eq!(text(column), value, "{column}");
    }
    let time: i64 = gateway.data().sql("SELECT time_ms FROM request_log");
    assert!(time >= began.0 && time <= now().0);
    assert!(text("time").ends_with('Z'), "{}", text("time"));
    // The same as an administrator filters them.
    let filter = ["--country", "us", "--path", "/admin/*", "--ip", "198.51.100.0/24"];
    let rows = gateway.cli_ok(&[&["logs", "--json"], &filter[..]].concat());
    let row: Value = serde_json::from_str(rows.lines().next().unwrap()).unwrap();
    assert_eq!((&row["ip"], &row["isp"]), (&"198.51.100.7".into(), &"Google LLC".into()), "{row}");
}

#[test]
fn traffic_is_counted_by_its_origin_with_what_was_refused() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = Upstream::start();
    let gateway =
        Gateway::start(behind_proxy(&upstream).section(&atlas(&folder)).limit("all", "rate = \"2/1h\""));
    for _ in 0..3 {
        gateway.client_of("198.51.100.7").get("/");
    }
    gateway.client_of("203.0.113.7").get("/");
    gateway.data().wait_for_count(4);
    let top = json(&gateway, &["top", "--by", "country", "--by", "asn", "--json"]);
    let of = |list: &str, key: &str| {
        let rows = top[list].as_array().unwrap();
        let row = rows.iter().find(|row| row["key"].to_string().contains(key));
        row.unwrap_or_else(|| panic!("no {key} in {top:#}")).clone()
    };
    for (list, key) in [("country", "US"), ("asn", "15169")] {
        let row = of(list, key);
        assert_eq!((&row["requests"], &row["refused"]), (&3.into(), &1.into()), "{row}");
    }
}

#[test]
fn every_field_of_blocked_ip_is_kept_and_shown() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(behind_proxy(&upstream));
    let began = now();
    gateway.cli_ok(&["block_ip", "192.168.1.101", "--expires", "+7d", "--reason", "Temporary block"]);
    gateway.cli_ok(&["block_ip", "192.168.1.100", "--reason", "Spam bot"]);
    for client in ["192.168.1.100", "192.168.1.101"] {
        eventually("the block", || (gateway.client_of(client).get("/").status() == 403).then_some(()));
    }
    let blocks = json(&gateway, &["blocks", "--json"]);
    let of = |network: &str| {
        let rows = blocks.as_array().unwrap();
        rows.iter().find(|row| row["network"] == network).unwrap_or_else(|| panic!("{blocks:#}")).clone()
    };
    let block = of("192.168.1.101/32");
    let time = |field: &str| {
        let text = block[field].as_str().unwrap_or_else(|| panic!("no {field} in {block}"));
        UnixMs(text.parse::<jiff::Timestamp>().unwrap().as_millisecond())
    };
    assert_eq!(block["reason"], "Temporary block");
    assert!(time("created_at") >= began.minus(Duration::from_secs(1)) && time("created_at") <= now());
    let lasts = time("expires_at").since(time("created_at"));
    assert!(
        lasts >= 7 * DAY - Duration::from_secs(9) && lasts <= 7 * DAY + Duration::from_secs(9),
        "{lasts:?}"
    );
    let forever = of("192.168.1.100/32");
    assert_eq!((&forever["reason"], &forever["expires_at"]), (&"Spam bot".into(), &Value::Null));
}

#[test]
fn every_field_of_suspicious_ip_is_kept_and_shown() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(behind_proxy(&upstream));
    scan(&gateway, "203.0.113.66");
    let mut visitor = gateway.client_of("203.0.113.9");
    visitor.get("/admin");
    gateway.data().wait_for_count(7);
    gateway.cli_ok(&["detect"]);
    let found = json(&gateway, &["suspicious", "--json"]);
    let of = |client: &str| {
        let rows = found.as_array().unwrap();
        rows.iter().find(|row| row["client"] == client).unwrap_or_else(|| panic!("{found:#}")).clone()
    };
    let (scanner, visitor) = (of("203.0.113.66"), of("203.0.113.9"));
    assert_eq!((&scanner["request_count"], &visitor["request_count"]), (&6.into(), &1.into()));
    assert_eq!((&visitor["reason"], &visitor["severity"]), (&"sensitive_paths".into(), &"low".into()));
    assert!(["high", "critical"].contains(&scanner["severity"].as_str().unwrap()), "{scanner:#}");
    assert!(scanner["details"]["rules"].as_array().is_some_and(|rules| !rules.is_empty()), "{scanner:#}");
    // The scale is that of the original.
    for severity in ["low", "medium", "high", "critical"] {
        gateway.cli_ok(&["suspicious", "--severity", severity]);
    }
    assert_eq!(gateway.cli(&["suspicious", "--severity", "urgent"]).code, Some(2));
}

#[test]
fn every_field_of_rate_limit_log_is_kept_and_shown() {
    let upstream = Upstream::start();
    let login = "paths = [\"*/login\"]\nmethods = [\"POST\"]\nrate = \"3/5m\"";
    let gateway = Gateway::start(behind_proxy(&upstream).limit("login", login));
    let began = now();
    let statuses = [0; 4].map(|_| gateway.client_of("203.0.113.9").post("/login", "x").status());
    assert_eq!(statuses, [200, 200, 200, 429]);
    let event = eventually("the event", || {
        let events = json(&gateway, &["limits", "events", "--json"]);
        events.as_array().unwrap().first().cloned()
    });
    for (field, value) in [
        ("client", "203.0.113.9"),
        ("endpoint", "/login"),
        ("rule", "login"),
        ("bound", "3/5m"),
        ("action", "limited"),
    ] {
        assert_eq!(event[field], value, "{event}");
    }
    let minute: jiff::Timestamp = event["minute"].as_str().unwrap().parse().unwrap();
    let minute = UnixMs(minute.as_millisecond());
    assert!(minute <= now() && minute.plus(Duration::from_secs(120)) >= began, "{event}");
    assert_eq!(event["count"], 1);
}

#[test]
fn every_field_of_geolocation_cache_is_kept_and_shown() {
    let (upstream, service) = (Upstream::start(), GeoService::start());
    let source = format!("[[geo.source]]\nkind = \"ipapi.co\"\nurl = \"{}\"", service.url());
    let gateway = Gateway::start(behind_proxy(&upstream).section(&source));
    let began = now();
    gateway.client_of("8.8.8.8").get("/");
    gateway.data().row_of("/");
    let location = "SELECT coalesce(city || ' ' || isp, '') FROM request_log";
    eventually("the location", || {
        (gateway.data().sql::<String>(location) == "Lisbon Tejo Net").then_some(())
    });
    // From the table, by another process, without a question to anybody.
    let kept = json(&gateway, &["geo", "lookup", "8.8.8.8", "--json"]);
    let answer = &kept["sources"][0];
    assert_eq!((&kept["ip"], &answer["outcome"]), (&"8.8.8.8".into(), &"kept".into()), "{kept:#}");
    assert_eq!(answer["location"]["city"], "Lisbon", "{kept:#}");
    let fetched: jiff::Timestamp = answer["at"].as_str().unwrap_or_default().parse().unwrap();
    assert!(fetched.as_millisecond() >= began.0 && fetched.as_millisecond() <= now().0, "{kept:#}");
    assert_eq!(service.asked_about("8.8.8.8"), 1);
    gateway.cli_ok(&["geo", "refresh", "8.8.8.8"]);
    assert_eq!(service.asked_about("8.8.8.8"), 2, "on demand");
}

#[test]
fn the_settings_of_anomaly_detection_config_are_changed_while_the_gateway_runs() {
    let upstream = Upstream::start();
    let plain = behind_proxy(&upstream).section("[detection]\nlive = false\nforest = false");
    let gateway = Gateway::start(plain.clone());
    let mut staff = gateway.client_of("203.0.113.9");
    (0..5).for_each(|n| drop(staff.get(&format!("/staff-only/{n}"))));
    gateway.data().wait_for_count(5);
    scan(&gateway, "203.0.113.66");
    let settings = "requests_per_hour = 4\nsensitive_paths = [\"/staff-only\"]\nblock_severity = \"never\"";
    let text = plain.text().replace("forest = false", &format!("forest = false\n{settings}"));
    gateway.write_config(&text);
    gateway.hang_up();
    gateway.cli_ok(&["tasks", "run", "detect"]);
    let found = json(&gateway, &["suspicious", "--json"]);
    let staff = found.as_array().unwrap().iter().find(|row| row["client"] == "203.0.113.9");
    let staff = staff.unwrap_or_else(|| panic!("{found:#}")).to_string();
    assert!(staff.contains("high_frequency") && staff.contains("sensitive_paths"), "{staff}");
    assert_eq!(json(&gateway, &["blocks", "--json"]), Value::Array(Vec::new()), "auto_block is off");
    // And on, from this severity up.
    gateway.write_config(&text.replace("\"never\"", "\"low\""));
    gateway.hang_up();
    gateway.cli_ok(&["tasks", "run", "detect"]);
    for client in ["203.0.113.9", "203.0.113.66"] {
        eventually("the block", || (gateway.client_of(client).get("/").status() == 403).then_some(()));
    }
    gateway.write_config(&text.replace("\"never\"", "\"sometimes\""));
    let check = gateway.cli(&["check"]);
    assert!(check.code == Some(2) && check.stderr.contains("detection.block_severity"), "{check:?}");
}

#[test]
fn the_daily_cleanup_deletes_old_suspicious_addresses_and_keeps_new_ones() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(behind_proxy(&upstream));
    let mut state = State::open(gateway.data().folder()).unwrap();
    for (client, days) in [("203.0.113.9", 100), ("203.0.113.10", 1)] {
        let at = now().minus(days * DAY);
        let finding = Finding {
            client: client.parse().unwrap(),
            user: None,
            reason: "high_frequency".to_owned(),
            severity: Severity::Medium,
            request_count: 120,
            first_seen: at,
            last_seen: at,
            detected_at: at,
            details: Value::Null,
        };
        state.save_finding(&finding).unwrap();
    }
    let said = gateway.cli_ok(&["tasks", "run", "cleanup"]);
    assert!(said.contains("deleted 1 findings"), "{said}");
    let left = json(&gateway, &["suspicious", "--status", "open", "--json"]);
    let clients: Vec<&str> =
        left.as_array().unwrap().iter().filter_map(|row| row["client"].as_str()).collect();
    assert_eq!(clients, ["203.0.113.10"]);
}

#[test]
fn requests_older_than_the_retention_are_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let log = Log::start(folder.path(), LogSettings::default(), Box::new(NoEnrichment)).unwrap();
    for number in 0..10 {
        let record = RequestRecord {
            id: RequestId::new(now().minus(Duration::from_secs(2 * 3_600)), number),
            client: "203.0.113.9".parse().unwrap(),
            protocol: Protocol::Http11,
            status: 200,
            bytes_in: 0,
            bytes_out: 100,
            latency_us: 1_000,
            verdict: VerdictKind::Admitted,
            reason: Reason::None,
            login: None,
            text: RecordText::new(TextFields { path: b"/old", ..TextFields::default() }),
        };
        assert!(log.recorder().offer(record));
    }
    log.flusher().flush().unwrap();
    log.shutdown();
    let upstream = Upstream::start();
    let gateway =
        Gateway::start(behind_proxy(&upstream).data(folder.path()).section("[log]\nretention = \"1h\""));
    eventually("the old rows are gone", || (gateway.data().count() == 0).then_some(()));
    gateway.get("/new");
    gateway.data().row_of("/new");
}

#[test]
fn visitors_from_a_region_that_opted_out_are_logged_without_their_address() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = Upstream::start();
    let privacy = "[privacy]\nopt_out_countries = [\"US\"]";
    let gateway = Gateway::start(behind_proxy(&upstream).section(&atlas(&folder)).section(privacy));
    for (client, path) in [("198.51.100.7", "/from-there"), ("192.0.2.7", "/from-elsewhere")] {
        assert_eq!(gateway.client_of(client).get(path).status(), 200);
    }
    let there = gateway.data().row_of("/from-there");
    assert_ne!(there.client.to_string(), "198.51.100.7");
    assert_eq!(there.user_agent, "");
    assert_eq!(gateway.data().row_of("/from-elsewhere").client.to_string(), "192.0.2.7");
}

#[test]
fn mail_goes_out_over_tls_from_the_first_byte_too() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let ca = folder.path().join("ca.pem");
    fs::write(&ca, authority.pem()).unwrap();
    let server = SmtpServer::start(SmtpOptions {
        certificate: Some(authority.issue(&["localhost"])),
        implicit_tls: true,
        login: Some(("gate".to_owned(), "s3cret".to_owned())),
        ..SmtpOptions::default()
    });
    let secret = folder.path().join("password");
    fs::write(&secret, "s3cret\n").unwrap();
    let smtp = format!(
        "[alerts.smtp]\nhost = \"localhost\"\nport = {}\ntls = \"tls\"\nca = \"{}\"\nusername = \"gate\"\n\
         password = {{ file = {secret:?} }}\nfrom = \"gate@example.com\"\nto = [\"admin@example.com\"]",
        server.port(),
        ca.display()
    );
    let upstream = Upstream::start();
    let gateway = Gateway::start(config().upstream(&upstream).section(&smtp));
    gateway.cli_ok(&["alerts", "test"]);
    let mail = eventually("the mail", || server.mails().into_iter().next());
    assert!(mail.was_encrypted && mail.user.as_deref() == Some("gate"), "{mail:?}");
    assert_eq!(
        (mail.from.as_str(), mail.to.as_slice()),
        ("gate@example.com", ["admin@example.com".to_owned()].as_slice())
    );
}

#[test]
fn the_data_folder_is_for_its_owner_alone() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(behind_proxy(&upstream));
    gateway.get("/");
    gateway.data().wait_for_count(1);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let folder = gateway.data().folder();
    assert_eq!(mode(folder), 0o700);
    for name in ["log.db", "state.db"] {
        assert_eq!(mode(&folder.join(name)), 0o600, "{name}");
    }
}
