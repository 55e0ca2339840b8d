//! Findings as people review them, and decisions as they look them up.

use std::time::Duration;

use portcullis_model::{Finding, FindingStatus, Severity};
use portcullis_store::{FindingFilter, State};
use portcullis_testkit::eventually;

use super::{open, past};

const DONE: &str = ".notice[role=status]";
/// Findings that are there from the beginning, each about a client of its own.
const OLD: u8 = 7;

fn old_findings(data: &std::path::Path) {
    std::fs::create_dir_all(data).unwrap();
    let mut state = State::open(data).unwrap();
    for number in 1..=OLD {
        let at = past::now().minus(Duration::from_secs(600));
        let finding = Finding {
            client: format!("198.18.6.{number}").parse().unwrap(),
            user: None,
            reason: "high_frequency".to_owned(),
            severity: Severity::Medium,
            request_count: 120,
            first_seen: at,
            last_seen: at,
            detected_at: at,
            details: serde_json::json!({ "summary": "120 requests in an hour", "rules": [], "features": {} }),
        };
        state.save_finding(&finding).unwrap();
    }
}

#[test]
fn findings_are_dismissed_for_good_blocked_and_judged_many_at_once_with_a_way_back() {
    open(old_findings, async |scene| {
        let browser = &scene.browser;
        scene.scan("203.0.113.66");
        let with = |status: FindingStatus| {
            let filter = FindingFilter { status: Some(status), limit: 100, ..FindingFilter::default() };
            scene.gateway.data().state().findings(&filter).unwrap()
        };
        eventually("the scanner's finding", || {
            (with(FindingStatus::Open).len() > usize::from(OLD)).then_some(())
        });

        // Many at once.
        scene.go("/findings?severity=&client=").await;
        browser.click("input[data-select-all]").await;
        browser.click("button[value=dismiss]").await;
        browser.wait_for(DONE, "8 findings: now dismissed.").await;
        assert_eq!(with(FindingStatus::Open).len(), 0);
        browser.wait_for(".empty", "Nothing to review").await;
        browser.click_on("//button[.='Undo']").await;
        browser.wait_for(DONE, "Undone").await;
        assert_eq!(with(FindingStatus::Open).len(), 8);

        // One, blocked from its page.
        browser.click_on("//tr[contains(., '198.18.6.3')]/th/a").await;
        browser.wait_for("h1", "Finding").await;
        browser.click_on("//button[.='Block the client']").await;
        browser.wait_for(DONE, "Blocked 198.18.6.3").await;
        scene.wait_for_status("198.18.6.3", 403);

        // Another one, never again.
        scene.go("/findings?client=203.0.113.66").await;
        browser.click_on("//tr[contains(., '203.0.113.66')]/th/a").await;
        browser.wait_for("main", "sensitive_files").await;
        browser.click_on("//summary[contains(., 'never flag this again')]").await;
        browser.choose("#never-what", "about 203").await;
        browser.click("form[action$='/dismiss'] button").await;
        browser.wait_for(DONE, "is dismissed. Never again").await;
        scene.go("/findings/never").await;
        browser.wait_for("tbody", "203.0.113.66").await;
        browser.click_on("//button[.='Let it speak again']").await;
        browser.wait_for(DONE, "The rule speaks again").await;

        // The decision that the refused visitor complains about.
        let refused = scene.gateway.client_of("198.18.6.3").get("/complaint");
        let id = refused.decision_id();
        scene.gateway.data().row(&id);
        scene.go("/decision").await;
        browser.fill("#id", &id).await;
        browser.click_on("//button[.='Explain']").await;
        browser.wait_for("h1", &id).await;
        browser.wait_for("main", "/complaint").await;
        browser.wait_for("main", "198.18.6.3").await;
        scene.go("/decision?id=nonsense").await;
        browser.wait_for("#id-problem", "neither a decision ID").await;
    });
}
