//! What a site is learned to own, and that it is bounded.

use portcullis_model::VerdictKind;

use super::*;
use crate::BotStatus;

fn request<'a>(client: &str, hour: i64, path: &'a str, status: u16) -> Observation<'a> {
    Observation {
        time: UnixMs(hour * HOUR_MS),
        client: client.parse().unwrap(),
        status,
        verdict: VerdictKind::Admitted,
        bytes_out: 100,
        method: "GET",
        host: "Shop.example:8443",
        path,
        query: "",
        user_agent: "Mozilla/5.0",
        referer: "",
        user: "",
        login: None,
        bot: BotStatus::None,
    }
}

fn teach(site: &mut Site, hour: i64, requests: &[(&str, &str, u16)], flagged: &[&str]) {
    for (client, path, status) in requests {
        site.observe(&Settings::default(), &request(client, hour, path, *status));
    }
    let flagged: Vec<IpAddr> = flagged.iter().map(|ip| ip.parse().unwrap()).collect();
    site.settle(UnixMs((hour + 1) * HOUR_MS), |key| flagged.contains(&key));
}

const VISITORS: [(&str, &str, u16); 3] =
    [("192.0.2.1", "/admin/", 200), ("198.51.100.1", "/admin", 304), ("203.0.113.1", "/ADMIN", 200)];

#[test]
fn a_path_is_the_sites_own_when_several_visitors_were_served_it_on_two_days() {
    let mut site = Site::new((1, 2));
    teach(&mut site, 0, &VISITORS, &[]);
    assert!(!site.owns_path("shop.example", "/admin"), "one day is not enough");
    teach(&mut site, 24, &VISITORS[..1], &[]);
    assert!(site.owns_path("shop.example", "/admin/") && site.owns_path("SHOP.example:80", "//admin"));
    assert!(!site.owns_path("other.example", "/admin"), "of another host nothing is known");
    assert!(!site.owns_path("shop.example", "/admin/setup.php"), "what is below has to be served itself");
    assert_eq!(site.path_counts(), (1, 0));
    teach(&mut site, 48, &VISITORS[..1], &[]);
    assert_eq!(site.named_paths()[0].name.as_ref(), "shop.example/admin");
}

#[test]
fn attackers_and_single_networks_teach_nothing() {
    let one_provider =
        [("192.0.2.1", "/admin", 200), ("192.0.2.2", "/admin", 200), ("192.0.2.3", "/admin", 200)];
    let mut site = Site::new((1, 2));
    for day in 0..5 {
        teach(&mut site, day * 24, &one_provider, &[]);
        teach(&mut site, day * 24 + 1, &VISITORS, &["198.51.100.1", "203.0.113.1"]);
        let missing = VISITORS.map(|(client, _, _)| (client, "/.env", 404));
        teach(&mut site, day * 24 + 2, &missing, &[]);
    }
    assert!(!site.owns_path("shop.example", "/admin") && !site.owns_path("shop.example", "/.env"));
}

#[test]
fn a_verified_user_is_witness_enough() {
    let mut site = Site::new((1, 2));
    for day in 0..2 {
        let seen = Observation { user: "alice", ..request("192.0.2.1", day * 24, "/admin/orders", 200) };
        site.observe(&Settings::default(), &seen);
        site.settle(UnixMs((day * 24 + 1) * HOUR_MS), |_| false);
    }
    assert!(site.owns_path("shop.example", "/admin/orders"));
}

#[test]
fn a_site_that_answers_everything_owns_nothing() {
    let mut site = Site::new((1, 2));
    for day in 0..3 {
        teach(&mut site, day * 24, &VISITORS, &[]);
    }
    let probes = ["/.env", "/.git/config", "/backup.sql", "/config.php.bak", "/.aws/credentials"];
    for path in probes {
        teach(&mut site, 80, &[("192.0.2.66", path, 200)], &["192.0.2.66"]);
        // What has been learned from is passed over.
        teach(&mut site, 60, &[("192.0.2.66", path, 404)], &[]);
    }
    assert!(site.owns_path("shop.example", "/admin"), "all in one hour that was settled before");
    let later: Vec<_> = probes.map(|path| ("192.0.2.66", path, 200)).into();
    teach(&mut site, 90, &later, &["192.0.2.66"]);
    assert!(!site.owns_path("shop.example", "/admin"));
    assert_eq!(site.soft_hosts().collect::<Vec<_>>(), ["shop.example"]);
    let gone: Vec<_> =
        ["/.a", "/.b", "/.c", "/.d", "/.e", "/.f"].map(|path| ("192.0.2.66", path, 404)).into();
    teach(&mut site, 91, &gone, &[]);
    assert!(site.owns_path("shop.example", "/admin"), "most of what is hidden is missing after all");
}

#[test]
fn the_hours_of_a_week_tell_what_is_usual() {
    let mut site = Site::new((1, 2));
    assert_eq!(site.expected(UnixMs(0)), None);
    for day in 0..21_i64 {
        let count = if day % 7 == 0 { 40 } else { 100 + day % 3 };
        for _ in 0..count {
            site.observe(&Settings::default(), &request("192.0.2.1", day * 24 + 9, "/", 200));
        }
        site.settle(UnixMs((day * 24 + 10) * HOUR_MS), |_| false);
    }
    let usual = |day: i64| site.expected(UnixMs((day * 24 + 9) * HOUR_MS + 60_000)).unwrap();
    assert_eq!((usual(21).requests, usual(21).hours), (40.0, 3), "the same weekday");
    assert_eq!(usual(22).requests, 101.0);
    assert!(usual(22).is_far_below(501) && !usual(22).is_far_below(499) && site.spikes().is_empty());
    for _ in 0..600 {
        site.observe(&Settings::default(), &request("192.0.2.1", 22 * 24 + 9, "/", 200));
    }
    site.settle(UnixMs((22 * 24 + 10) * HOUR_MS), |_| false);
    let spikes: Vec<_> = site.spikes().iter().map(|spike| (spike.at, spike.requests)).collect();
    assert_eq!(spikes, [(UnixMs((22 * 24 + 9) * HOUR_MS), 600)]);
    let usual = |day: i64| site.expected(UnixMs((day * 24 + 9) * HOUR_MS + 60_000)).unwrap();
    assert!((10.0..=10.2).contains(&usual(22).spread), "{:?}", usual(22));
    assert_eq!(site.expected(UnixMs((22 * 24 + 3) * HOUR_MS)), None, "nothing ever came at three");
}

#[test]
fn errors_of_attackers_are_not_the_sites_usual_ones() {
    let mut site = Site::new((1, 2));
    let requests = [
        ("192.0.2.1", "/", 200),
        ("192.0.2.1", "/a.css", 200),
        ("192.0.2.1", "/b", 200),
        ("192.0.2.1", "/c", 200),
        ("192.0.2.1", "/old", 404),
        ("192.0.2.66", "/.env", 404),
    ];
    teach(&mut site, 0, &requests, &["192.0.2.66"]);
    assert_eq!((site.error_share(), site.asset_share()), (Some(0.25), Some(0.2)));
    assert_eq!(site.hours().map(|(_, totals)| totals.requests).collect::<Vec<_>>(), [6]);
}

#[test]
fn logins_are_noted_where_there_is_something_to_log_in_to() {
    let mut site = Site::new((1, 2));
    let post = |path, status| Observation { method: "POST", ..request("192.0.2.1", 0, path, status) };
    for seen in [post("/login", 302), post("/login", 401), post("/wp-login.php", 404), post("/cart", 200)] {
        site.observe(&Settings::default(), &seen);
    }
    let logins: Vec<_> = site.logins().map(|(path, login)| (path, login.attempts, login.refused)).collect();
    assert_eq!(logins, [("shop.example/login", 2, 1)]);
}

#[test]
fn stored_knowledge_is_the_same_and_can_be_taken_back() {
    let mut site = Site::new((3, 4));
    for day in 0..3 {
        teach(&mut site, day * 24, &VISITORS, &[]);
    }
    let mut again = Site::from_bytes(&site.to_bytes()).unwrap();
    assert_eq!(again.to_bytes(), site.to_bytes());
    assert!(again.owns_path("shop.example", "/admin"));
    assert_eq!(again.learned_until(), UnixMs(49 * HOUR_MS));
    assert_eq!(again.forget("/nowhere") + again.forget("other.example/admin"), 0);
    assert_eq!(again.forget("/admin/"), 1);
    assert!(!again.owns_path("shop.example", "/admin"));
    assert!(Site::from_bytes(b"{}").is_err());
    let other = String::from_utf8(site.to_bytes()).unwrap().replacen("\"format\":1", "\"format\":9", 1);
    assert!(Site::from_bytes(other.as_bytes()).unwrap_err().to_string().contains("format 9"));
}

#[test]
fn a_flood_of_paths_pushes_out_other_floods_and_nothing_that_is_owned() {
    let mut site = Site::new((1, 2));
    for day in 0..2 {
        teach(&mut site, day * 24, &VISITORS, &[]);
    }
    for hour in 25..40_i64 {
        for n in 0..100_u32 {
            let client = format!("10.0.{hour}.{n}");
            for page in 0..MAX_PENDING_PATHS + 5 {
                let path = format!("/page/{hour}/{n}/{page}");
                site.observe(&Settings::default(), &request(&client, hour, &path, 200));
            }
        }
        site.settle(UnixMs((hour + 1) * HOUR_MS), |_| false);
    }
    let (owned, others) = site.path_counts();
    assert!(owned == 1 && others < MAX_PATHS, "{owned} {others}");
    assert!(site.owns_path("shop.example", "/admin"));
}
