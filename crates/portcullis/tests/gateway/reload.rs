//! A new configuration while the gateway serves.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use portcullis_testkit::{Gateway, GatewayConfig, Request, Upstream, eventually};

use crate::behind_proxy;

fn reloads(gateway: &Gateway, outcome: &str) -> f64 {
    gateway.metric(&format!("portcullis_config_reloads_total{{outcome=\"{outcome}\"}}"))
}

/// Writes the file, sends SIGHUP, waits until the gateway has taken it or refused it.
fn reload(gateway: &Gateway, text: &str, outcome: &str) {
    let before = reloads(gateway, outcome);
    gateway.write_config(text);
    gateway.hang_up();
    eventually(&format!("the reload is {outcome}"), || (reloads(gateway, outcome) > before).then_some(()));
}

fn named(config: &GatewayConfig, brand: &str) -> String {
    config.clone().section(&format!("[pages]\nname = \"{brand}\"")).text()
}

#[test]
fn reloads_under_load_fail_no_request() {
    let upstream = Upstream::start();
    let config = behind_proxy(&upstream);
    let gateway = Gateway::start(config.clone());
    let (done, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for keep_alive in [true, false] {
            let (gateway, done, served) = (&gateway, &done, &served);
            scope.spawn(move || {
                let mut client = gateway.client();
                while !done.load(Ordering::Relaxed) {
                    if !keep_alive {
                        client = gateway.client();
                    }
                    assert_eq!(client.post("/echo", "body").status(), 200);
                    served.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for n in 0..20 {
            // Every other one gives the upstream other settings, so that its pool is made anew.
            let timeout = 5 + n % 2;
            let lines = format!("servers = [\"{}\"]\nconnect_timeout = \"{timeout}s\"", upstream.url());
            let changed = crate::config().upstream_with(&lines).behind_local_proxy();
            reload(&gateway, &named(&changed, &format!("Brand {n}")), "applied");
        }
        done.store(true, Ordering::Relaxed);
    });
    let served = served.load(Ordering::Relaxed) as u64;
    assert!(served > 20, "{served} requests are no load");
    assert_eq!(upstream.requests() as u64, served);
    gateway.data().wait_for_count(served);
}

#[test]
fn a_broken_configuration_changes_nothing_and_says_why() {
    let upstream = Upstream::start();
    let block = "[[block]]\nnetwork = \"203.0.113.9\"\nreason = \"test\"";
    let config = behind_proxy(&upstream).section(block);
    let gateway = Gateway::start(config.clone());
    for (broken, says) in [
        ("mode = \"enforce\"\nthis is no toml", "portcullis.toml:2:"),
        ("mdoe = \"enforce\"", "mdoe"),
        ("[[limit]]\nname = \"x\"\nrate = \"3-5m\"", "3-5m"),
        ("[[block]]\nnetwork = \"300.1.1.1\"", "300.1.1.1"),
    ] {
        reload(&gateway, broken, "rejected");
        eventually(&format!("{says} on stderr"), || gateway.stderr().contains(says).then_some(()));
        assert_eq!(gateway.client_of("203.0.113.9").get("/").status(), 403);
        assert_eq!(gateway.client_of("203.0.113.10").get("/").status(), 200);
        assert_eq!(gateway.metric("portcullis_config_last_reload_successful"), 0.0);
    }
    // Without the block, and good again.
    reload(&gateway, &behind_proxy(&upstream).text(), "applied");
    eventually("the block is gone", || {
        (gateway.client_of("203.0.113.9").get("/").status() == 200).then_some(())
    });
    assert_eq!(gateway.metric("portcullis_config_last_reload_successful"), 1.0);
}

#[test]
fn counts_and_blocks_survive_a_reload() {
    let upstream = Upstream::start();
    let limit = "paths = [\"/login\"]\nrate = \"3/5m\"";
    let config = behind_proxy(&upstream).limit("login", limit);
    let gateway = Gateway::start(config.clone());
    gateway.cli_ok(&["block", "203.0.113.9"]);
    eventually("the block is in force", || {
        (gateway.client_of("203.0.113.9").get("/").status() == 403).then_some(())
    });
    let mut client = gateway.client_of("203.0.113.10");
    for _ in 0..2 {
        assert_eq!(client.post("/login", "").status(), 200);
    }
    reload(&gateway, &named(&config.clone().limit("other", "rate = \"1000/1m\""), "New"), "applied");
    assert_eq!(gateway.client_of("203.0.113.9").get("/").status(), 403);
    assert_eq!(client.post("/login", "").status(), 200);
    let refused = client.send(&Request::post("/login", ""));
    assert_eq!(refused.status(), 429, "the counts of before are still there");
    assert!(refused.text().contains("New"), "the same connection sees the new page");
}

#[test]
fn a_file_that_is_saved_is_taken_over_by_itself() {
    let upstream = Upstream::start();
    let config = behind_proxy(&upstream);
    let gateway = Gateway::start(config.clone());
    let block = "[[block]]\nnetwork = \"203.0.113.9\"\nreason = \"test\"";
    gateway.write_config(&config.section(block).text());
    eventually("the new block is in force", || {
        (gateway.client_of("203.0.113.9").get("/").status() == 403).then_some(())
    });
    assert_eq!(reloads(&gateway, "applied"), 1.0);
}

#[test]
fn lists_of_the_file_and_of_the_command_do_not_disturb_each_other() {
    let upstream = Upstream::start();
    let config = behind_proxy(&upstream);
    let with = |network: &str| {
        config.clone().section(&format!("[[block]]\nnetwork = \"{network}\"\nreason = \"file\"")).text()
    };
    let gateway = Gateway::start(config.clone());
    gateway.cli_ok(&["block", "203.0.113.1"]);
    reload(&gateway, &with("203.0.113.2"), "applied");
    let status = |client: &str| gateway.client_of(client).get("/").status();
    eventually("both are blocked", || {
        (status("203.0.113.1") == 403 && status("203.0.113.2") == 403).then_some(())
    });
    reload(&gateway, &with("203.0.113.3"), "applied");
    eventually("the file's is exchanged", || {
        (status("203.0.113.2") == 200 && status("203.0.113.3") == 403).then_some(())
    });
    assert_eq!(status("203.0.113.1"), 403, "the command's stays");
}

#[test]
fn what_needs_a_restart_is_said_and_the_rest_is_applied() {
    let upstream = Upstream::start();
    let config = behind_proxy(&upstream);
    let gateway = Gateway::start(config.clone());
    let text = config.server("threads = 7").limit("all", "rate = \"1/1h\"").text();
    reload(&gateway, &text, "applied");
    eventually("the restart is asked for", || gateway.stderr().contains("server.threads").then_some(()));
    let mut client = gateway.client_of("203.0.113.9");
    assert_eq!([client.get("/").status(), client.get("/").status()], [200, 429]);
}

#[test]
fn a_hangup_as_soon_as_the_gateway_speaks_does_not_end_it() {
    let upstream = Upstream::start();
    for _ in 0..3 {
        let gateway = Gateway::start_and_hang_up_at_once(behind_proxy(&upstream));
        eventually("the configuration is looked at", || (reloads(&gateway, "unchanged") > 0.5).then_some(()));
        assert_eq!(gateway.get("/").status(), 200);
    }
}
