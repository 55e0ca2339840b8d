//! What is written is what is meant: settings, paths and the command line.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use portcullis_config::{Balance, Config, HostHeader, Loaded, Overrides, load, parse};
use portcullis_geo::Field;
use portcullis_model::Severity;
use portcullis_policy::{ClientIpSource, MAX_LIMIT_RULES, Mode, RequestFacts};

const APP: &str = "[[upstream]]\nname = \"app\"\nservers = [\"http://127.0.0.1:8000\"]\n";

fn try_read(text: &str, overrides: &Overrides) -> Result<Config, String> {
    parse(text, "f.toml", Path::new("/etc/portcullis"), overrides).map_err(|errors| errors.to_string())
}

fn read(text: &str) -> Config {
    try_read(text, &Overrides::default()).unwrap()
}

fn to(upstream: &str) -> Overrides {
    Overrides { upstream: Some(upstream.to_owned()), ..Overrides::default() }
}

#[test]
fn every_setting_arrives() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("c.pem"), "-----BEGIN CERTIFICATE-----").unwrap();
    fs::write(dir.path().join("k.pem"), "-----BEGIN EC PRIVATE KEY-----").unwrap();
    fs::write(dir.path().join("p.html"), "<p>{{ decision_id }}</p>").unwrap();
    fs::write(dir.path().join("g.mmdb"), "").unwrap();
    let text = r#"
        mode = "dry-run"
        data = "/var/lib/portcullis"
        [server]
        trusted_proxies = ["10.0.0.9/8", "::ffff:192.0.2.1"]
        client_ip_header = "CF-Connecting-IP"
        max_body = "10MB"
        [[server.tls]]
        listen = "[::]:8443"
        http2 = false
        certificates = [{ cert = "c.pem", key = "k.pem" }]
        [[upstream]]
        name = "api"
        servers = ["https://api.internal", { url = "http://[::1]:3000", weight = 3 }]
        balance = "consistent-hash"
        read_timeout = "5m"
        tls_name = "API.example"
        tls_ca = "c.pem"
        host_header = "upstream"
        max_fails = 0
        max_connections = 10
        queue = 0
        slow_start = "30s"
        [upstream.breaker]
        error_share = 1
        open_for = "500ms"
        [upstream.health]
        path = "/up?x=1"
        interval = "1s"
        expect = ["3xx", 204, "200-203", 201]
        [[route]]
        hosts = ["Example.com"]
        paths = ["/api/*"]
        upstream = "api"
        [[limit]]
        name = "login"
        paths = ["/login"]
        methods = ["post"]
        rate = "3/5m"
        mode = "dry-run"
        [[block]]
        network = "203.0.113.7/24"
        [[allow]]
        network = "198.51.100.7"
        reason = "office"
        [geo]
        databases = ["g.mmdb"]
        ask_for = ["country", "isp"]
        [[geo.source]]
        kind = "ipapi.co"
        url = "http://127.0.0.1:8080/"
        token = "t0k"
        daily = 0
        [[geo.source]]
        kind = "ipinfo.io"
        [[geo.download]]
        url = "https://account:key@example.com/city.mmdb.gz"
        file = "city.mmdb"
        interval = "1d"
        [detection]
        interval = "15s"
        error_rate = 1
        sensitive_paths = ["/Secret/"]
        block_severity = "never"
        block_for = "forever"
        [metrics]
        listen = "off"
        [pages]
        name = "Example"
        contact = "help@example.com"
        template = "p.html"
    "#;
    let config = parse(text, "f.toml", dir.path(), &Overrides::default()).unwrap();
    assert_eq!(config.mode, Mode::DryRun);
    assert_eq!(config.data, Path::new("/var/lib/portcullis"));
    let server = &config.server;
    assert!(server.listen.is_empty(), "with TLS alone there is no plain listener");
    assert_eq!(server.tls[0].listen, "[::]:8443".parse().unwrap());
    assert!(!server.tls[0].http2);
    assert_eq!(server.tls[0].certificates[0].key, dir.path().join("k.pem"));
    assert_eq!(server.trusted_proxies, ["10.0.0.0/8", "192.0.2.1/32"].map(|n| n.parse().unwrap()));
    assert_eq!(server.client_ip, ClientIpSource::Header("cf-connecting-ip".into()));
    assert_eq!(server.max_body, Some(10_000_000));
    assert!(server.threads >= 1);
    let upstream = &config.upstreams[0];
    let servers: Vec<_> = upstream.servers.iter().map(|s| (s.to_string(), s.weight)).collect();
    assert_eq!(servers, [("https://api.internal:443".to_owned(), 1), ("http://[::1]:3000".to_owned(), 3)]);
    assert_eq!((upstream.balance, upstream.host_header), (Balance::ConsistentHash, HostHeader::Upstream));
    assert_eq!(upstream.read_timeout, Duration::from_secs(300));
    assert_eq!(upstream.tls_name.as_deref(), Some("api.example"));
    assert_eq!((upstream.max_fails, upstream.max_connections, upstream.queue), (0, Some(10), 0));
    assert_eq!(
        (upstream.fail_timeout, upstream.slow_start),
        (Duration::from_secs(10), Duration::from_secs(30))
    );
    let breaker = upstream.breaker.as_ref().unwrap();
    assert_eq!((breaker.error_share, breaker.min_requests, breaker.probes), (1.0, 20, 3));
    assert_eq!(breaker.open_for, Duration::from_millis(500));
    let health = upstream.health.as_ref().unwrap();
    assert_eq!(health.expect, [200..=204, 300..=399]);
    assert!(health.expects(204) && !health.expects(205) && !health.expects(404));
    assert_eq!(health.timeout, Duration::from_secs(1), "the default is never longer than the interval");
    assert_eq!(config.routes[0].hosts[0].as_str(), "example.com");
    let limit = &config.limits[0];
    assert_eq!((limit.allowance(), limit.mode), ("3/5m".to_owned(), Mode::DryRun));
    let client = "192.0.2.1".parse().unwrap();
    assert!(limit.applies_to.matches(&RequestFacts::new(client, "POST", "any", "/login".into())));
    assert_eq!(
        config.blocks,
        [("203.0.113.0/24".parse().unwrap(), "blocked by the configuration".to_owned())]
    );
    assert_eq!(config.allows, [("198.51.100.7/32".parse().unwrap(), "office".to_owned())]);
    assert_eq!(config.geo.databases, [dir.path().join("g.mmdb")]);
    assert_eq!(config.geo.downloads, [dir.path().join("city.mmdb")]);
    assert_eq!(config.geo.wanted, [Field::Country, Field::Isp]);
    let [ipapi, ipinfo] = &config.geo.sources[..] else { panic!("{:?}", config.geo.sources) };
    assert_eq!((ipapi.url.as_str(), ipinfo.url.as_str()), ("http://127.0.0.1:8080", "https://ipinfo.io"));
    assert_eq!((ipapi.daily, ipapi.monthly, ipinfo.monthly), (None, Some(30_000), Some(50_000)));
    assert_eq!(ipapi.token.as_ref().map(|token| token.expose()), Some("t0k"));
    assert_eq!(config.geo_downloads[0].interval, Duration::from_secs(86_400));
    assert!(!format!("{config:?}").contains("t0k") && !format!("{config:?}").contains("key@"));
    let detection = &config.detection;
    assert_eq!(detection.interval, Duration::from_secs(15));
    assert_eq!((detection.error_rate, &*detection.sensitive_paths), (1.0, &["/secret".to_owned()][..]));
    assert_eq!((detection.block_severity, detection.block_for.as_slice()), (None, [None].as_slice()));
    assert_eq!(config.metrics, None);
    assert_eq!(config.pages.brand, "Example");
    assert_eq!(config.pages.template.as_deref(), Some("<p>{{ decision_id }}</p>"));
}

#[test]
fn relative_paths_start_at_the_folder_of_the_file() {
    assert_eq!(read(APP).data, Path::new("/etc/portcullis/portcullis-data"));
    let overrides = Overrides { data: Some(PathBuf::from("here")), ..Overrides::default() };
    assert_eq!(
        try_read(APP, &overrides).unwrap().data,
        Path::new("here"),
        "--data starts at the working directory"
    );
}

#[test]
fn the_detector_looks_at_every_request_whatever_the_window() {
    let detection = read(&format!("{APP}[detection]\nwindow = \"10m\"\n")).detection;
    assert_eq!(detection.interval, Duration::from_secs(600));
    assert_eq!(detection.block_severity, Some(Severity::High));
}

#[test]
fn an_upstream_on_the_command_line_takes_all_requests() {
    let text = format!(
        "{APP}read_timeout = \"7s\"\n[[upstream]]\nname = \"b\"\nservers = [\"b:1\"]\n[[route]]\nupstream = \"b\"\n"
    );
    let config = try_read(&text, &to("https://other.example")).unwrap();
    assert!(config.routes.is_empty());
    assert_eq!(config.upstreams.len(), 1);
    assert_eq!(config.upstreams[0].servers[0].to_string(), "https://other.example:443");
    assert_eq!(config.upstreams[0].read_timeout, Duration::from_secs(7), "the other settings stay");
    assert_eq!(try_read("", &to("localhost:3000")).unwrap().upstreams[0].servers[0].port, 3000);
}

#[test]
fn the_command_line_wins_over_the_file() {
    let overrides = Overrides {
        listen: vec!["127.0.0.1:1".to_owned(), "127.0.0.1:2".to_owned()],
        dry_run: true,
        ..Overrides::default()
    };
    let config = try_read(&format!("{APP}[server]\nlisten = [\"127.0.0.1:9\"]\n"), &overrides).unwrap();
    assert_eq!(config.server.listen, ["127.0.0.1:1", "127.0.0.1:2"].map(|a| a.parse().unwrap()));
    assert_eq!(config.mode, Mode::DryRun);
}

#[test]
fn wrong_options_are_reported_together_with_the_file() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let overrides = Overrides {
        upstream: Some("nonsense".to_owned()),
        listen: vec!["8080".to_owned(), "127.0.0.1:9611".to_owned()],
        data: Some(file.path().to_owned()),
        dry_run: false,
    };
    let errors = try_read("mode = \"on\"\n", &overrides).unwrap_err();
    let file = file.path().display();
    assert_eq!(
        errors.lines().collect::<Vec<_>>(),
        [
            "f.toml: metrics.listen: 127.0.0.1:9611 is taken already by 127.0.0.1:9611 of --listen; \
             choose another port or leave one out",
            "f.toml:1:8: mode: expected \"enforce\" or \"dry-run\", got \"on\"",
            &format!("--data: expected a folder for the databases, {file} is a file"),
            "--listen: expected ADDRESS:PORT such as \"0.0.0.0:8080\" or \"[::1]:8080\", got \"8080\"",
            "--upstream: expected a server such as \"http://127.0.0.1:8000\" or \"https://app.internal\", \
             without a path, got \"nonsense\"",
        ]
    );
}

#[test]
fn without_a_file_an_upstream_is_needed() {
    let message = load(None, &Overrides::default()).unwrap_err().to_string();
    assert!(
        message.contains("--upstream http://HOST:PORT") && message.contains("portcullis init"),
        "{message}"
    );
}

#[test]
fn more_limits_than_the_policy_looks_at_are_refused() {
    let limits = |count: usize| -> String {
        (0..count).map(|n| format!("[[limit]]\nname = \"l{n}\"\nrate = \"1/s\"\n")).collect()
    };
    assert_eq!(read(&(APP.to_owned() + &limits(MAX_LIMIT_RULES))).limits.len(), MAX_LIMIT_RULES);
    let errors =
        try_read(&(APP.to_owned() + &limits(MAX_LIMIT_RULES + 1)), &Overrides::default()).unwrap_err();
    let expected = format!("limit: at most {MAX_LIMIT_RULES} are possible, got {}", MAX_LIMIT_RULES + 1);
    assert!(errors.ends_with(&expected), "{errors}");
}

#[test]
fn notes_say_what_is_off_or_surprising() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("portcullis.toml");
    fs::write(
        &file,
        r#"
        [[upstream]]
        name = "app"
        servers = ["https://a"]
        tls_verify = false
        [[upstream]]
        name = "forgotten"
        servers = ["http://b"]
        [[route]]
        paths = ["/x"]
        upstream = "app"
        [[allow]]
        network = "::/0"
        [server]
        hsts = "365d"
        max_connections = 100
        [detection]
        enabled = false
        [metrics]
        listen = "0.0.0.0:9611"
        "#,
    )
    .unwrap();
    let Loaded { notes, source, .. } = load(Some(&file), &Overrides::default()).unwrap();
    assert_eq!(source.as_deref(), Some(&*file));
    for part in [
        "no TLS",
        "hsts has no effect",
        "one client may take every connection there is: max_connections_per_client is 256, max_connections 100",
        "no limits",
        "no geo database",
        "the detector is off",
        "metrics are readable from other machines",
        "an [[allow]] covers every address",
        "the certificates of upstream \"app\" are not verified",
        "no request goes to upstream \"forgotten\"",
        "requests that match no [[route]] get 502",
    ] {
        assert!(notes.iter().any(|note| note.starts_with(part)), "{part:?} is missing in {notes:#?}");
    }
    assert_eq!(notes.len(), 11);
}

#[test]
fn a_rule_by_country_is_no_surprise_where_places_are_known_without_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("f.toml");
    let told = |geo: &str| {
        let rule = "[[access]]\nname = \"abroad\"\ncountries = [\"US\"]\naction = \"deny\"\n";
        fs::write(&file, format!("{APP}{rule}{geo}")).unwrap();
        let notes = load(Some(&file), &Overrides::default()).unwrap().notes;
        notes.iter().any(|note| note.starts_with("access.abroad asks where clients are from"))
    };
    assert!(told(""));
    assert!(!told("[[geo.source]]\nkind = \"ipinfo.io\"\n"));
}

#[test]
fn notes_tell_of_blocks_that_meet_our_own_side() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("portcullis.toml");
    let text = |networks: [&str; 2]| {
        let [a, b] = networks.map(|network| format!("[[block]]\nnetwork = \"{network}\"\n"));
        format!(
            "[server]\ntrusted_proxies = [\"10.0.0.7\"]\n[[upstream]]\nname = \"app\"\nservers = [\"http://a\"]\n{a}{b}"
        )
    };
    let about_blocks = |networks| {
        fs::write(&file, text(networks)).unwrap();
        let notes = load(Some(&file), &Overrides::default()).unwrap().notes;
        notes.into_iter().filter(|note| note.contains("[[block]]")).collect::<Vec<_>>()
    };
    let notes = about_blocks(["10.0.0.0/8", "::1"]);
    assert_eq!(notes.len(), 2, "{notes:?}");
    assert!(notes[0].contains("10.0.0.7/32 of trusted_proxies") && notes[1].contains("::1/128"), "{notes:?}");
    assert_eq!(about_blocks(["203.0.113.9", "2001:db8::/32"]), Vec::<String>::new());
}

#[test]
fn feeds_are_read_and_their_mistakes_named_without_a_token() {
    let base = "[[upstream]]\nname = \"app\"\nservers = [\"http://a\"]\n";
    let good = "[[feed]]\nname = \"drop\"\nurl = \"https://a.example/x?token=hidden\"\nmax_age = \"7d\"\n\
                [[feed]]\nname = \"ours\"\nfile = \"ours.txt\"\nformat = \"nginx\"\nmode = \"dry-run\"\n";
    let config = read(&format!("{base}{good}"));
    assert_eq!(config.feeds.len(), 2);
    assert_eq!(config.feeds[0].max_age, Some(Duration::from_secs(7 * 86_400)));
    assert!(!format!("{config:?}").contains("hidden"));
    for (lines, message) in [
        ("url = \"https://a.example/\"", "name: is missing"),
        ("name = \"a\"", "expected either url"),
        ("name = \"a\"\nurl = \"https://a.example/\"\nfile = \"x\"", "expected either url"),
        ("name = \"a\"\nurl = \"ftp://a.example/hidden\"", "expected a URL"),
        ("name = \"a\"\nfile = \"x\"\nformat = \"yaml\"", "expected \"auto\", \"plain\""),
        ("name = \"a\"\nfile = \"x\"\ninterval = \"1s\"", "a duration from 1m to 30d"),
        ("name = \"../a\"\nfile = \"x\"", "a name of at most 64"),
        ("name = \"a\"\nfile = \"x\"\n[[feed]]\nname = \"a\"\nfile = \"y\"", "named \"a\" already"),
    ] {
        let text = format!("{base}[[feed]]\n{lines}\n");
        let errors = parse(&text, "f", Path::new(""), &Overrides::default()).unwrap_err().to_string();
        assert!(errors.contains(message) && !errors.contains("hidden"), "{errors}");
    }
}

#[test]
fn what_is_done_about_findings_is_said_by_severity_and_by_kind_of_evidence() {
    use portcullis_detect::{Action, Actions, Evidence};

    let actions = |lines: &str| read(&format!("{APP}[detection.actions]\n{lines}\n")).detection;
    assert_eq!(actions("").actions, Actions::blocking_from(Some(Severity::High)));
    let earlier = actions("medium = \"block\"");
    assert_eq!(earlier.block_severity, Some(Severity::Medium));
    assert_eq!(earlier.actions, Actions::blocking_from(Some(Severity::Medium)));
    let mut expected = Actions::default();
    expected.set(Evidence::Logins, Severity::Medium, Action::Block(Some(Duration::from_secs(1_800))));
    expected.set_dry_run(Evidence::Company);
    let own = actions("logins = { medium = \"block 30m\" }\ndry_run = [\"company\"]");
    assert_eq!((own.actions, own.block_severity), (expected, Some(Severity::High)));
}

#[test]
fn the_console_listens_on_loopback_unless_it_has_a_certificate() {
    let console = |lines: &str| {
        let text =
            format!("[[upstream]]\nname = \"a\"\nservers = [\"http://127.0.0.1:1\"]\n[console]\n{lines}\n");
        parse(&text, "f", Path::new(""), &Overrides::default()).map(|config| config.console)
    };
    assert_eq!(console("").unwrap().unwrap().listen.to_string(), "127.0.0.1:9612");
    assert_eq!(console("listen = \"off\"").unwrap(), None);
    for (lines, said) in [
        ("listen = \"0.0.0.0:9612\"", "passwords would cross the network in the clear"),
        ("listen = \"127.0.0.1:9611\"", "is taken already by 127.0.0.1:9611 of metrics.listen"),
        ("url = \"console.example.com\"", "expected the address that people type"),
        ("url = \"https://console.example.com/path\"", "expected the address that people type"),
        ("certificate = { cert = \"nowhere.pem\", key = \"nowhere.key\" }", "there is no file"),
        ("idle_timeout = \"1s\"", "console.idle_timeout"),
    ] {
        let errors = console(lines).unwrap_err().to_string();
        assert!(errors.contains(said), "{lines}: {errors}");
    }
    let url = console("url = \"https://Console.example.com/\"").unwrap().unwrap().url.unwrap();
    assert_eq!((url.is_https, &*url.authority), (true, "console.example.com"));
}
