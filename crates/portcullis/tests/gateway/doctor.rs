//! What `portcullis doctor` says about real gateways. Must not repeat what the checks' own tests show.

use portcullis_testkit::{Gateway, Request, Upstream, eventually};

use crate::{behind_proxy, config};

const OK: i32 = 0;
const ERRORS: i32 = 2;

/// As the same address comes to the gateway from a proxy that it does not trust.
fn through_a_proxy(gateway: &Gateway, requests: u64) {
    let mut proxy = gateway.client();
    for n in 0..requests {
        let request = Request::get("/").header("X-Forwarded-For", &format!("198.51.100.{n}"));
        assert_eq!(proxy.send(&request).status(), 200);
    }
    gateway.data().wait_for_count(requests);
}

#[test]
fn the_doctor_finds_nothing_wrong_with_a_gateway_that_works_nor_with_none() {
    let upstream = Upstream::start();
    // What a machine's limit of open files allows is another matter.
    let gateway = Gateway::start(behind_proxy(&upstream).server("max_connections = 100"));
    for n in 0..80 {
        gateway.client_of(&format!("198.51.100.{n}")).get(&format!("/{n}"));
    }
    gateway.data().wait_for_count(80);
    let well = eventually("the gateway has said how it is", || {
        let output = gateway.cli(&["doctor"]);
        output.stdout.contains("the running gateway").then_some(output)
    });
    assert_eq!(well.code, Some(OK), "{well:?}");
    assert!(well.stdout.contains("Nothing is wrong") && well.stdout.contains("80 requests"), "{well:?}");
    let again = gateway.terminate().start_again();
    assert_eq!(again.cli(&["doctor"]).code, Some(OK));
}

#[test]
fn the_doctor_sees_a_proxy_that_nobody_trusts_and_names_the_line_to_write() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(config().upstream(&upstream));
    through_a_proxy(&gateway, 60);
    let sick = eventually("the doctor sees it", || {
        let output = gateway.cli(&["doctor", "--json"]);
        (output.code == Some(ERRORS)).then_some(output)
    });
    let said: serde_json::Value = serde_json::from_str(&sick.stdout).unwrap();
    let finding = &said["findings"][0];
    assert_eq!(
        (finding["check"].as_str(), finding["gravity"].as_str()),
        (Some("hidden_clients"), Some("error"))
    );
    let line = finding["write"].as_str().unwrap();
    assert_eq!(line, "trusted_proxies = [\"127.0.0.1\"]");
    assert!(finding["seen"].as_str().unwrap().contains("x-forwarded-for"), "{finding}");
    assert_eq!(gateway.metric("portcullis_forwarding_ignored_total{header=\"x-forwarded-for\"}"), 60.0);

    // It knows no less when the gateway is gone.
    let ended = gateway.terminate();
    let after = ended.cli(&["doctor"]);
    assert_eq!(after.code, Some(ERRORS), "{after:?}");
    assert!(after.stdout.contains(line) && after.stdout.contains("it does not run now"), "{after:?}");
}

#[test]
fn headers_from_a_trusted_proxy_are_no_sign_of_a_missing_one() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(behind_proxy(&upstream));
    through_a_proxy(&gateway, 60);
    assert_eq!(gateway.metric("portcullis_forwarding_ignored_total{header=\"x-forwarded-for\"}"), 0.0);
}
