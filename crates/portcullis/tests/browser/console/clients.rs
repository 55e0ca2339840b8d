//! A client's own page, and the limits: what they counted and what another rate would have refused.

use portcullis_testkit::Request;

use super::{open, past};

const DONE: &str = ".notice[role=status]";
const GUESSER: &str = "198.18.9.12";

#[test]
fn a_client_is_blocked_allowed_exported_and_erased_and_a_limit_is_tried_before_it_is_set() {
    open(past::a_day, async |scene| {
        let browser = &scene.browser;
        let before = scene.gateway.data().count();
        for _ in 0..8 {
            let guess = Request::post("/login", "name=ada").header("User-Agent", "python-requests/2.32.4");
            scene.gateway.client_of(GUESSER).send(&guess);
        }
        scene.gateway.data().wait_for_count(before + 8);

        scene.go("/limits").await;
        browser.wait_for("tbody", "login").await;
        browser.click_on(&format!("(//a[.='{GUESSER}'])[1]")).await;
        browser.wait_for("h1", GUESSER).await;
        browser.wait_for("main", "limit:login").await;
        scene.go("/limits").await;
        browser.fill("#what-if-rate", "often").await;
        browser.click_on("//button[.='Compute']").await;
        browser.wait_for("#what-if-problem", "often").await;
        browser.fill_anew("#what-if-rate", "2/1h").await;
        browser.click_on("//button[.='Compute']").await;
        // By itself, without loading the page again.
        browser.wait_for("#what-if-answer", "6 of 8 requests would have been refused").await;
        browser.wait_for("#what-if-answer", GUESSER).await;

        scene.go(&format!("/clients/{GUESSER}")).await;
        browser.fill("#reason", "guesses passwords").await;
        browser.click_on("//button[.='Block']").await;
        browser.wait_for(DONE, &format!("Blocked {GUESSER}")).await;
        scene.wait_for_status(GUESSER, 403);
        browser.click_on("//button[starts-with(., 'Lift block')]").await;
        browser.wait_for(DONE, "Lifted").await;
        scene.wait_for_status(GUESSER, 200);
        browser.click_on("//button[.='Allow it']").await;
        browser.wait_for(DONE, &format!("Allowed {GUESSER}")).await;
        browser.click_on("//button[.='Undo']").await;
        browser.wait_for(DONE, "Undone").await;

        browser.click_on("//*[self::a or self::button][starts-with(., 'Export all')]").await;
        let kept = browser.downloaded_text("");
        assert!(kept.contains(GUESSER) && kept.contains("/login"), "{kept}");
        browser.click_on("//button[starts-with(., 'Erase all')]").await;
        browser.wait_for(".notice.warning", "cannot be brought back").await;
        browser.click("input[name=sure]").await;
        browser.click_on("//button[.='Erase']").await;
        browser.wait_for(DONE, "Erased").await;
        assert!(!scene.gateway.data().rows().iter().any(|row| row.client.to_string() == GUESSER));
    });
}
