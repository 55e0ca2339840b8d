//! The pages of the console, with something on each.
//!
//! Owns what was done before somebody looks. Must not test what it does: others do.

use portcullis_store::FindingFilter;
use portcullis_testkit::{Request, eventually};

use super::Scene;

/// A page by the name of its picture, and its address.
pub(super) struct Place {
    pub(super) name: &'static str,
    pub(super) address: String,
}

const LIMITED: &str = "198.18.9.12";
const SCANNER: &str = "203.0.113.66";
const ENDED: &str = "198.18.10.44";

/// Fills every list: traffic, findings, blocks, allows, limits, users, tokens.
pub(super) fn live(scene: &Scene) {
    let gateway = &scene.gateway;
    scene.scan(SCANNER);
    scene.scan("198.18.10.40");
    let guess =
        Request::post("/login", "name=ada&password=guess").header("User-Agent", "python-requests/2.32.4");
    for _ in 0..8 {
        gateway.client_of(LIMITED).send(&guess);
    }
    gateway.cli_ok(&[
        "block",
        "198.18.20.0/28",
        "--reason",
        "asks for price lists all night",
        "--expires",
        "+7d",
    ]);
    gateway.cli_ok(&["block", "2001:db8:77::/48", "--reason", "open proxies"]);
    gateway.cli_ok(&["block", ENDED, "--reason", "by mistake"]);
    gateway.cli_ok(&["unblock", ENDED]);
    gateway.cli_ok(&["block", "--user", "mallory@lamps.example", "--reason", "sells what is not theirs"]);
    gateway.cli_ok(&["allow", "198.51.100.7", "--reason", "the office"]);
    gateway.cli_ok(&["detect"]);
    eventually("findings", || (!findings(scene).is_empty()).then_some(()));
}

fn findings(scene: &Scene) -> Vec<portcullis_store::StoredFinding> {
    scene.gateway.data().state().findings(&FindingFilter { limit: 100, ..FindingFilter::default() }).unwrap()
}

/// Every page that there is.
pub(super) fn all(scene: &Scene) -> Vec<Place> {
    let data = scene.gateway.data();
    let found = findings(scene);
    let of_scanner = found.iter().find(|stored| stored.finding.client.to_string() == SCANNER).unwrap();
    let limited = data.row_where("a limited login", |row| row.status == 429);
    let blocked = data.row_where("a blocked request", |row| row.status == 403);
    let place = |name, address: &str| Place { name, address: address.to_owned() };
    vec![
        place("overview", "/"),
        place("overview-week", "/?range=week&map=blocks"),
        place("requests", "/requests"),
        place(
            "requests-filtered",
            "/requests?verdict=limited&column=time&column=ip&column=path&column=reason",
        ),
        place("requests-wrong", "/requests?ip=nonsense&since=whenever"),
        place("requests-none", "/requests?path=%2Fnothing-like-it"),
        place("client", &format!("/clients/{SCANNER}")),
        place("findings", "/findings?status=all"),
        place("finding", &format!("/findings/{}", of_scanner.id)),
        place("findings-never", "/findings/never"),
        place("blocks", "/blocks"),
        place("blocks-users", "/blocks/users"),
        place("blocks-ended", "/blocks/ended"),
        place("blocks-import", "/blocks/import"),
        place("allows", "/allows"),
        place("limits", "/limits"),
        place("decision-ask", "/decision"),
        place("decision-limited", &format!("/decision/{}", limited.id)),
        place("decision-blocked", &format!("/decision/{}", blocked.id)),
        place("settings-detection", "/settings"),
        place("settings-configuration", "/settings/configuration"),
        place("settings-sources", "/settings/sources"),
        place("settings-tasks", "/settings/tasks"),
        place("settings-alerts", "/settings/alerts"),
        place("settings-users", "/settings/users"),
        place("settings-tokens", "/settings/tokens"),
        place("settings-audit", "/settings/audit"),
        place("account", "/account"),
        place("found-nothing", "/find?q=lanterns"),
        place("nowhere", "/no-such-page"),
        place("api", "/api"),
        place("login", "/login"),
    ]
}
