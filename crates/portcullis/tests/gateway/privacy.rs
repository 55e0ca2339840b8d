//! What of a request is written, and that protection goes on without what is not.

use portcullis_model::ClientIp;
use portcullis_privacy::{is_pseudonym, truncate};
use portcullis_store::LogRow;
use portcullis_testkit::{Gateway, Request, Response, Upstream, eventually};

use crate::{behind_proxy, in_front_of};

const BROWSER: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0";

fn client(text: &str) -> ClientIp {
    text.parse().unwrap()
}

/// One request as a browser sends it, with more header lines, and its row.
fn visit(gateway: &Gateway, from: &str, target: &str, headers: &[(&str, &str)]) -> (Response, LogRow) {
    let mut request =
        Request::get(target).header("User-Agent", BROWSER).header("Referer", "http://a.example/r?x=1");
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let before = gateway.data().rows().len();
    let answer = gateway.client_of(from).send(&request);
    let row = eventually("the row", || gateway.data().rows().into_iter().nth(before));
    (answer, row)
}

#[test]
fn secrets_in_a_query_reach_the_site_and_no_file() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    let secret = "S3cr3tValue";
    let target = format!("/cb;jsessionid={secret}?a=1&access_token={secret}&user%5BPassword%5D={secret}&b=2");
    let referer = format!("https://bob:{secret}@shop.example/x?code={secret}");
    let answer = gateway.client().send(&Request::get(&target).header("Referer", &referer));
    assert_eq!(answer.status(), 200);
    let seen = upstream.last().target;
    assert!(seen.contains(&format!("access_token={secret}")), "the site gets what was sent: {seen}");

    let row = gateway.data().row_where("the request", |row| row.path.starts_with("/cb"));
    assert_eq!(row.path, "/cb;jsessionid=[redacted]");
    assert_eq!(row.query, "a=1&access_token=[redacted]&user%5BPassword%5D=[redacted]&b=2");
    assert_eq!(row.referer, "https://[redacted]@shop.example/x?code=[redacted]");
    let folder = gateway.data().folder().to_owned();
    let _ended = gateway.terminate();
    assert_eq!(files_with(&folder, secret), Vec::<String>::new());
}

#[test]
fn an_injection_in_a_secret_is_still_evidence() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    gateway.get("/x?password=hunter2%27%20UNION%20SELECT%20name%20FROM%20users--");
    let row = gateway.data().row_of("/x");
    assert!(row.query.starts_with("password=[redacted]&[attack]="), "{}", row.query);
    assert!(!row.query.contains("hunter2"), "{}", row.query);
}

#[test]
fn the_list_of_secrets_can_be_changed_while_running() {
    let upstream = Upstream::start();
    let config = behind_proxy(&upstream).section("[privacy]\nredact = [\"email\"]");
    let gateway = Gateway::start(config);
    let query = |gateway: &Gateway| visit(gateway, "203.0.113.9", "/?email=a&token=b", &[]).1.query;
    assert_eq!(query(&gateway), "email=[redacted]&token=b");
    let text = std::fs::read_to_string(gateway.config_file()).unwrap();
    gateway.write_config(&text.replace("[\"email\"]", "[\"*token*\"]"));
    gateway.hang_up();
    eventually("the new list is in force", || (query(&gateway) == "email=a&token=[redacted]").then_some(()));
}

#[test]
fn what_is_switched_off_is_not_written() {
    let upstream = Upstream::start();
    let config = behind_proxy(&upstream)
        .section("[privacy]\nlog_query = false\nlog_user_agent = false\nlog_referer = false");
    let gateway = Gateway::start(config);
    let (_, row) = visit(&gateway, "203.0.113.9", "/a?b=c", &[]);
    assert_eq!((&*row.path, &*row.query, &*row.user_agent, &*row.referer), ("/a", "", "", ""));
    assert_eq!(row.client, client("203.0.113.9"));
}

#[test]
fn a_wish_not_to_be_tracked_is_heard_where_it_is_honoured() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(behind_proxy(&upstream).section("[privacy]\nhonour_gpc = true"));
    let (answer, row) = visit(&gateway, "203.0.113.9", "/a?b=c", &[("Sec-GPC", "1")]);
    assert_eq!((answer.status(), &*row.path, row.status), (200, "/a", 200));
    assert_eq!((&*row.query, &*row.user_agent, &*row.referer), ("", "", ""));
    assert!(is_pseudonym(row.client), "{}", row.client);
    let (_, again) = visit(&gateway, "203.0.113.9", "/b", &[("Sec-GPC", "1")]);
    assert_eq!(again.client, row.client, "one client stays one client for a day");
    // Honoured is what the configuration says, and a wish is a 1.
    for headers in [[("DNT", "1")], [("Sec-GPC", "0")]] {
        let (_, row) = visit(&gateway, "203.0.113.9", "/c", &headers);
        assert_eq!((row.client, &*row.user_agent), (client("203.0.113.9"), BROWSER));
    }
}

#[test]
fn some_paths_are_nobodys_business() {
    let upstream = Upstream::start();
    let config =
        behind_proxy(&upstream).section("[privacy]\nhonour_dnt = true\nopt_out_paths = [\"/health/*\"]");
    let gateway = Gateway::start(config);
    let (_, row) = visit(&gateway, "203.0.113.9", "/Health/leaflet?page=2", &[]);
    assert!(is_pseudonym(row.client) && row.query.is_empty() && row.user_agent.is_empty(), "{row:?}");
    let (_, row) = visit(&gateway, "203.0.113.9", "/healthy", &[]);
    assert_eq!(row.client, client("203.0.113.9"));
    let (_, row) = visit(&gateway, "203.0.113.9", "/x", &[("DNT", "1")]);
    assert!(is_pseudonym(row.client), "{row:?}");
}

#[test]
fn visitors_are_told_that_requests_are_logged() {
    let upstream = Upstream::start();
    let privacy =
        "[privacy]\nheader = true\npolicy_url = \"https://shop.example/privacy\"\nanonymise = \"truncate\"";
    let gateway = Gateway::start(behind_proxy(&upstream).section(privacy));
    gateway.cli_ok(&["block", "203.0.113.66"]);
    eventually("the block", || (gateway.client_of("203.0.113.66").get("/").status() == 403).then_some(()));
    for from in ["203.0.113.9", "203.0.113.66"] {
        let answer = gateway.client_of(from).get("/");
        assert_eq!(
            answer.header("X-Privacy-Notice"),
            Some("requests are logged; retention=30d; anonymise=truncate"),
            "{from}"
        );
        assert_eq!(answer.header("Link"), Some("<https://shop.example/privacy>; rel=\"privacy-policy\""));
    }
    let silent = in_front_of(&upstream).get("/");
    assert_eq!((silent.header("X-Privacy-Notice"), silent.header("Link")), (None, None));
}

/// What a scanner asks for, under its own name.
pub(crate) fn scan(gateway: &Gateway, from: &str) {
    let mut connection = gateway.client_of(from);
    for path in
        ["/.env", "/.git/config", "/wp-login.php", "/phpmyadmin/index.php", "/actuator/env", "/backup.sql"]
    {
        for prefix in ["", "/missing"] {
            connection.send(&Request::get(&format!("{prefix}{path}")).header("User-Agent", "sqlmap/1.8"));
        }
    }
}

/// The runs alone, and often.
const EVERY_SECOND: &str = "[detection]\nlive = false\ninterval = \"1s\"\nwindow = \"1h\"";

#[test]
fn an_attacker_whose_address_is_hashed_in_the_log_is_blocked_by_the_true_one() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(
        behind_proxy(&upstream).section("[privacy]\nanonymise = \"hash\"").section(EVERY_SECOND),
    );
    scan(&gateway, "203.0.113.66");
    scan(&gateway, "2001:db8:1:2::66");
    eventually("the attackers are refused", || {
        let refused = |from: &str| gateway.client_of(from).get("/").status() == 403;
        (refused("203.0.113.66") && refused("2001:db8:1:2::67")).then_some(())
    });
    for neighbour in ["203.0.113.67", "2001:db8:1:3::66"] {
        assert_eq!(gateway.client_of(neighbour).get("/").status(), 200, "{neighbour}");
    }
    assert!(gateway.data().rows().iter().all(|row| is_pseudonym(row.client)));
    // The log and the key alone.
    let folder = gateway.data().folder().to_owned();
    let _ended = gateway.terminate();
    let found = files_with(&folder, "203.0.113.66");
    assert!(
        found.iter().all(|file| file.starts_with("state.db")),
        "the block alone holds the address: {found:?}"
    );
}

#[test]
fn an_attacker_whose_address_is_truncated_is_blocked_if_it_is_the_only_one_there() {
    let upstream = Upstream::start();
    let config = behind_proxy(&upstream).section("[privacy]\nanonymise = \"truncate\"").section(EVERY_SECOND);
    let gateway = Gateway::start(config);
    // A visitor of the same network as the second attacker.
    visit(&gateway, "198.51.100.1", "/", &[]);
    scan(&gateway, "198.51.100.66");
    scan(&gateway, "203.0.113.66");
    eventually("the attacker that is alone is refused", || {
        (gateway.client_of("203.0.113.66").get("/").status() == 403).then_some(())
    });
    assert_eq!(gateway.client_of("203.0.113.67").get("/").status(), 200, "blocked is one address");
    for shared in ["198.51.100.1", "198.51.100.66"] {
        assert_eq!(
            gateway.client_of(shared).get("/").status(),
            200,
            "nobody is blocked on suspicion: {shared}"
        );
    }
    assert!(gateway.data().rows().iter().all(|row| truncate(row.client) == row.client));
}

#[test]
fn a_browsers_wish_is_no_way_around_the_detector() {
    let upstream = Upstream::start();
    let config = behind_proxy(&upstream).section("[privacy]\nhonour_dnt = true").section(EVERY_SECOND);
    let gateway = Gateway::start(config);
    let mut connection = gateway.client_of("203.0.113.66");
    for n in 0..12 {
        let target = format!("/item?id={n}%27%20UNION%20SELECT%20password%20FROM%20users--");
        connection.send(&Request::get(&target).header("User-Agent", "sqlmap/1.8").header("DNT", "1"));
    }
    eventually("the attacker is refused", || {
        (gateway.client_of("203.0.113.66").get("/").status() == 403).then_some(())
    });
}

#[test]
fn a_run_of_the_detector_beside_the_gateway_blocks_no_pseudonym() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(
        behind_proxy(&upstream)
            .section("[privacy]\nanonymise = \"hash\"")
            .section("[detection]\nlive = false"),
    );
    scan(&gateway, "203.0.113.66");
    gateway.data().wait_for_count(12);
    let said = gateway.cli_ok(&["detect"]);
    assert!(said.contains("anonymous in the log"), "{said}");
    assert_eq!(gateway.data().state().recent_blocks(10).unwrap(), []);
}

/// The files of a folder that hold these bytes, by their names.
pub(crate) fn files_with(folder: &std::path::Path, bytes: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(content) = std::fs::read(&path)
                && content.windows(bytes.len()).any(|window| window == bytes.as_bytes())
            {
                found.push(path.strip_prefix(folder).unwrap().to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    found
}
