//! HTTP sources of locations that are slow, limited, broken or right, and files that are downloaded: rows get
//! their location, and no request ever waits for one.

use std::fs;
use std::io::Write as _;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use portcullis_testkit::{Gateway, GatewayConfig, GeoMood, GeoService, Upstream, eventually};
use serde_json::Value;

use crate::behind_proxy;
use crate::mmdb::{Field, Tree, Writer};

const HOUR: Duration = Duration::from_secs(3_600);

fn source(kind: &str, service: &GeoService, lines: &str) -> String {
    format!("[[geo.source]]\nkind = \"{kind}\"\nurl = \"{}\"\n{lines}", service.url())
}

fn with_source(upstream: &Upstream, service: &GeoService, lines: &str) -> GatewayConfig {
    behind_proxy(upstream).section(&source("ipapi.co", service, lines))
}

fn visit(gateway: &Gateway, client: &str, path: &str) {
    assert_eq!(gateway.client_of(client).get(path).status(), 200);
}

fn wait_for_country(gateway: &Gateway, path: &str) {
    gateway.data().row_where(&format!("{path} in PT"), |row| {
        row.path == path && row.location.country.as_deref() == Some("PT")
    });
}

fn status(gateway: &Gateway) -> Value {
    serde_json::from_str(&gateway.cli_ok(&["geo", "status", "--json"])).unwrap()
}

fn breaker(gateway: &Gateway) -> String {
    status(gateway)["sources"][0]["breaker"].as_str().unwrap().to_owned()
}

#[test]
fn a_row_shows_its_country_when_a_slow_source_has_answered_and_no_request_waits() {
    const CLIENTS: usize = 20;
    let (upstream, service) = (Upstream::start(), GeoService::start());
    service.set_mood(GeoMood::Slow(Duration::from_millis(700)));
    let gateway = Gateway::start(with_source(&upstream, &service, ""));
    for n in 1..=CLIENTS {
        visit(&gateway, &format!("8.8.4.{n}"), &format!("/{n}"));
        visit(&gateway, &format!("8.8.4.{n}"), &format!("/again/{n}"));
    }
    gateway.data().wait_for_count(2 * CLIENTS as u64);
    let located = |gateway: &Gateway| {
        gateway.data().sql::<i64>("SELECT count(*) FROM request_log WHERE country = 'PT'")
    };
    assert!(located(&gateway) < 2 * CLIENTS as i64, "the rows were there before the answers");
    eventually("all rows have a country", || (located(&gateway) == 2 * CLIENTS as i64).then_some(()));
    let row = gateway.data().row_of("/again/7");
    assert_eq!(row.location.city.as_deref(), Some("Lisbon"));
    assert_eq!((row.location.asn, row.location.isp.as_deref()), (Some(64_500), Some("Tejo Net")));
    assert_eq!(service.seen().len(), CLIENTS, "each address is asked about once");
    let located = "portcullis_geo_source_answers_total{source=\"ipapi.co\",outcome=\"located\"}";
    assert_eq!(gateway.metric(located), CLIENTS as f64);
    let coverage = &status(&gateway)["coverage"];
    assert_eq!((&coverage["clients"], &coverage["with_country"]), (&CLIENTS.into(), &CLIENTS.into()));
}

#[test]
fn the_next_source_answers_when_the_first_does_not() {
    let upstream = Upstream::start();
    for (n, mood) in [
        GeoMood::Fails,
        GeoMood::Garbage,
        GeoMood::Huge(10_000_000),
        GeoMood::Limits(3_600),
        GeoMood::Refuses,
        GeoMood::Slow(HOUR),
        GeoMood::Unknown,
    ]
    .into_iter()
    .enumerate()
    {
        let (first, second) = (GeoService::start(), GeoService::start());
        first.set_mood(mood.clone());
        let config = with_source(&upstream, &first, "timeout = \"300ms\"").section(&source(
            "ipinfo.io",
            &second,
            "token = \"t0k3n\"",
        ));
        let gateway = Gateway::start(config);
        visit(&gateway, "8.8.8.8", "/page");
        wait_for_country(&gateway, "/page");
        assert_eq!((first.asked_about("8.8.8.8"), second.asked_about("8.8.8.8")), (1, 1), "{n} {mood:?}");
        assert_eq!(second.seen()[0].authorization.as_deref(), Some("Bearer t0k3n"));
        let shown = gateway.cli_ok(&["geo", "lookup", "8.8.8.8"]);
        assert!(shown.contains("Lisbon") && shown.contains("ipinfo.io"), "{mood:?}: {shown}");
        if mood != GeoMood::Unknown {
            let error = &status(&gateway)["sources"][0]["last_error"]["says"];
            assert!(error.as_str().is_some_and(|error| !error.contains("8.8.8.8")), "{mood:?}: {error}");
        }
        assert!(!gateway.stderr().contains("t0k3n"));
    }
}

#[test]
fn the_breaker_opens_after_three_failures_and_closes_when_the_source_is_back() {
    let (upstream, service) = (Upstream::start(), GeoService::start());
    service.set_mood(GeoMood::Fails);
    let gateway = Gateway::start(with_source(&upstream, &service, "retry = \"2s\""));
    for n in 1..=3 {
        visit(&gateway, &format!("8.8.4.{n}"), &format!("/{n}"));
    }
    eventually("the breaker is open", || (breaker(&gateway) == "open").then_some(()));
    let says = gateway.cli(&["geo", "lookup", "1.1.1.1", "--refresh"]);
    assert!(says.stdout.contains("left alone until"), "{says:?}");
    assert_eq!((says.code, service.asked_about("1.1.1.1")), (Some(3), 0));
    service.set_mood(GeoMood::Lisbon);
    for n in 1..=3 {
        wait_for_country(&gateway, &format!("/{n}"));
    }
    assert_eq!(breaker(&gateway), "closed");
}

#[test]
fn a_source_that_limits_is_left_alone_as_long_as_it_asks_also_after_a_restart() {
    let (upstream, service) = (Upstream::start(), GeoService::start());
    service.set_mood(GeoMood::Limits(3_600));
    let gateway = Gateway::start(with_source(&upstream, &service, "retry = \"100ms\""));
    visit(&gateway, "8.8.8.8", "/1");
    eventually("the breaker is open", || (breaker(&gateway) == "open").then_some(()));
    service.set_mood(GeoMood::Lisbon);
    let gateway = gateway.terminate().start_again();
    visit(&gateway, "8.8.4.4", "/2");
    let refreshed = gateway.cli(&["geo", "refresh"]);
    assert!(refreshed.stdout.contains("is left alone until"), "{refreshed:?}");
    assert_eq!((refreshed.code, service.seen().len()), (Some(1), 1));
}

#[test]
fn a_quota_holds_across_commands_and_restarts() {
    let (upstream, service) = (Upstream::start(), GeoService::start());
    let gateway = Gateway::start(with_source(&upstream, &service, "daily = 3"));
    for n in 1..=6 {
        visit(&gateway, &format!("8.8.4.{n}"), &format!("/{n}"));
    }
    let used = |gateway: &Gateway| status(gateway)["sources"][0]["used_today"].as_u64();
    eventually("the quota is used up", || (used(&gateway) == Some(3)).then_some(()));
    let output = gateway.cli(&["geo", "refresh", "1.1.1.1"]);
    assert!(output.stdout.contains("has had its 3 requests of the day"), "{output:?}");
    let gateway = gateway.terminate().start_again();
    visit(&gateway, "1.0.0.1", "/late");
    gateway.data().row_of("/late");
    assert_eq!((used(&gateway), service.seen().len()), (Some(3), 3));
}

#[test]
fn private_and_reserved_addresses_are_never_named_to_anybody() {
    let (upstream, service) = (Upstream::start(), GeoService::start());
    let gateway = Gateway::start(with_source(&upstream, &service, ""));
    for client in
        ["10.1.2.3", "127.0.0.1", "192.0.2.7", "203.0.113.9", "100.64.0.1", "fd00::1", "2001:db8::1"]
    {
        visit(&gateway, client, "/private");
        gateway.cli(&["geo", "lookup", client, "--refresh"]);
    }
    gateway.cli(&["geo", "refresh"]);
    visit(&gateway, "8.8.8.8", "/public");
    wait_for_country(&gateway, "/public");
    let seen = service.seen();
    assert!(seen.iter().all(|question| question.target == "/8.8.8.8/json/"), "{seen:?}");
}

#[test]
fn of_clients_that_stay_anonymous_a_source_hears_the_network_alone() {
    let (upstream, service) = (Upstream::start(), GeoService::start());
    let config = with_source(&upstream, &service, "").section("[privacy]\nanonymise = \"truncate\"");
    let gateway = Gateway::start(config);
    visit(&gateway, "8.8.4.7", "/page");
    visit(&gateway, "8.8.4.8", "/other");
    wait_for_country(&gateway, "/page");
    wait_for_country(&gateway, "/other");
    let seen: Vec<String> = service.seen().into_iter().map(|question| question.target).collect();
    assert_eq!(seen, ["/8.8.4.0/json/"]);
}

#[test]
fn an_answer_is_kept_across_a_restart() {
    let (upstream, service) = (Upstream::start(), GeoService::start());
    let gateway = Gateway::start(with_source(&upstream, &service, ""));
    visit(&gateway, "8.8.8.8", "/before");
    wait_for_country(&gateway, "/before");
    let gateway = gateway.terminate().start_again();
    // The slice of the log knows this client; a new one shows that the answer is known.
    let shown: Value =
        serde_json::from_str(&gateway.cli_ok(&["geo", "lookup", "8.8.8.8", "--json"])).unwrap();
    assert_eq!(
        (&shown["location"]["country"], &shown["from"]["country"]),
        (&"PT".into(), &"ipapi.co".into())
    );
    assert_eq!(shown["sources"][0]["outcome"], "kept");
    visit(&gateway, "8.8.8.8", "/after");
    wait_for_country(&gateway, "/after");
    assert_eq!(service.seen().len(), 1);
}

#[test]
fn what_a_command_finds_out_shows_in_the_rows_of_the_running_gateway() {
    let (upstream, service) = (Upstream::start(), GeoService::start());
    service.set_mood(GeoMood::Unknown);
    let gateway = Gateway::start(with_source(&upstream, &service, ""));
    visit(&gateway, "8.8.8.8", "/page");
    eventually("the source has answered", || (status(&gateway)["answers_kept"] == 1).then_some(()));
    assert_eq!(gateway.data().row_of("/page").location.country, None);
    let missing = gateway.cli(&["geo", "refresh"]);
    assert!(missing.stdout.contains("1 that no source knows"), "{missing:?}");
    service.set_mood(GeoMood::Lisbon);
    gateway.cli_ok(&["geo", "refresh", "8.8.8.8"]);
    wait_for_country(&gateway, "/page");
    gateway.cli_ok(&["tasks", "run", "geo-refresh"]);
    assert_eq!(service.seen().len(), 2);
}

#[test]
fn sources_come_and_go_with_a_reload() {
    let (upstream, service) = (Upstream::start(), GeoService::start());
    let plain = behind_proxy(&upstream);
    let with = with_source(&upstream, &service, "");
    let gateway = Gateway::start(plain.clone());
    visit(&gateway, "8.8.8.8", "/1");
    gateway.write_config(&with.text());
    gateway.hang_up();
    eventually("the source is in force", || gateway.metrics().contains("source=\"ipapi.co\"").then_some(()));
    visit(&gateway, "8.8.4.4", "/2");
    wait_for_country(&gateway, "/2");
    // The client that came before is found by the look for what is missing.
    wait_for_country(&gateway, "/1");
    gateway.write_config(&plain.text());
    gateway.hang_up();
    eventually("the source is gone", || (!gateway.metrics().contains("source=\"ipapi.co\"")).then_some(()));
    visit(&gateway, "1.1.1.1", "/3");
    gateway.data().row_of("/3");
    assert_eq!(service.seen().len(), 2);
}

fn database(country: &'static str) -> Vec<u8> {
    let record = Field::Map(vec![("country", Field::Map(vec![("iso_code", Field::Text(country))]))]);
    Writer::new("GeoLite2-Country", Tree::V6).with("203.0.113.0/24", record).bytes()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// An archive as publishers make them: a folder, a licence, the file.
fn tar(bytes: &[u8]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, kind, contents) in [
        ("GeoLite2-Country_20261120/", b'5', &b""[..]),
        ("GeoLite2-Country_20261120/LICENSE.txt", b'0', b"some words"),
        ("GeoLite2-Country_20261120/GeoLite2-Country.mmdb", b'0', bytes),
    ] {
        let mut header = [0_u8; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[124..135].copy_from_slice(format!("{:011o}", contents.len()).as_bytes());
        header[156] = kind;
        header[257..262].copy_from_slice(b"ustar");
        archive.extend(header);
        archive.extend(contents);
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    archive.resize(archive.len() + 1_024, 0);
    archive
}

#[test]
fn a_downloaded_file_is_checked_and_swapped_in_and_a_bad_one_leaves_the_last_good_one() {
    let (upstream, service) = (Upstream::start(), GeoService::start());
    let url = format!("{}/files/country", service.url());
    let section = |more: &str| format!("[[geo.download]]\nurl = \"{url}\"\nfile = \"country.mmdb\"\n{more}");
    let gateway = Gateway::start(behind_proxy(&upstream).section(&section("max_size = \"2MiB\"")));
    let file = gateway.folder().join("country.mmdb");
    assert!(gateway.cli_ok(&["geo", "status"]).contains("not there yet"));
    let country = |gateway: &Gateway| {
        let shown = gateway.cli(&["geo", "lookup", "203.0.113.9", "--json"]).stdout;
        serde_json::from_str::<Value>(&shown).unwrap()["location"]["country"].clone()
    };
    // In each form in which publishers have it.
    for (code, bytes) in
        [("DE", database("DE")), ("FR", gzip(&database("FR"))), ("IT", gzip(&tar(&database("IT"))))]
    {
        service.set_file("country", bytes);
        let done = gateway.cli_ok(&["geo", "update"]);
        assert!(done.contains("GeoLite2-Country"), "{done}");
        assert_eq!(country(&gateway), code);
    }
    eventually("the gateway has it too", || {
        visit(&gateway, "203.0.113.9", "/page");
        let sql = "SELECT count(*) FROM request_log WHERE country = 'IT'";
        visit(&gateway, &format!("203.0.113.{}", gateway.data().count() % 250), "/other");
        (gateway.data().sql::<i64>(sql) > 0).then_some(())
    });

    let good = fs::read(&file).unwrap();
    let mut cut = database("SE");
    cut.truncate(cut.len() / 2);
    for (bytes, says) in [
        (b"<html>Log in to the hotel's network</html>".to_vec(), "corrupt or no MMDB file"),
        (cut, "corrupt or no MMDB file"),
        (gzip(&tar(b"")), "corrupt or no MMDB file"),
        (gzip(&vec![0; 3 << 20]), "larger than 2MiB unpacked"),
    ] {
        service.set_file("country", bytes);
        let output = gateway.cli(&["geo", "update"]);
        assert_eq!(output.code, Some(1), "{output:?}");
        assert!(output.stdout.contains(says), "{says}: {output:?}");
        assert_eq!(fs::read(&file).unwrap(), good);
    }
    let left: Vec<_> =
        fs::read_dir(gateway.folder()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains("download")), "{left:?}");

    service.set_file("country", database("SE"));
    let wrong = section(&format!("sha256 = \"{}\"", "0".repeat(64)));
    for (section, says) in [(wrong, "SHA-256"), (section("max_size = \"1KiB\""), "larger than")] {
        gateway.write_config(&behind_proxy(&upstream).section(&section).text());
        let output = gateway.cli(&["geo", "update", "--json"]);
        assert!(output.code == Some(1) && output.stdout.contains(says), "{output:?}");
        assert_eq!(country(&gateway), "IT");
    }
}

#[test]
fn the_task_downloads_what_is_missing_and_leaves_alone_what_is_new() {
    let (upstream, service) = (Upstream::start(), GeoService::start());
    service.set_file("country", database("DE"));
    let url = format!("{}/files/country", service.url());
    let section = format!("[[geo.download]]\nurl = \"{url}\"\nfile = \"country.mmdb\"\n");
    let gateway = Gateway::start(behind_proxy(&upstream).section(&section));
    let first = gateway.cli_ok(&["tasks", "run", "geo-update"]);
    assert!(first.contains("is new"), "{first}");
    let second = gateway.cli_ok(&["tasks", "run", "geo-update"]);
    assert!(second.contains("no file is old enough"), "{second}");
    assert_eq!(service.seen().len(), 1);
}
