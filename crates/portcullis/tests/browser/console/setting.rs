//! Settings, tasks and alerts, changed and tried while the gateway runs.

use portcullis_testkit::eventually;

use super::open;

const DONE: &str = ".notice[role=status]";

#[test]
fn settings_are_changed_and_taken_back_tasks_run_and_alerts_arrive() {
    open(
        |_| (),
        async |scene| {
            let browser = &scene.browser;
            scene.go("/settings").await;
            browser.fill_anew("#detection-requests_per_hour", "many").await;
            browser.click("section[aria-labelledby=detection-requests_per_hour-name] button").await;
            browser.wait_for(".notice.warning", "Nothing was changed").await;
            browser.wait_for(".field-error", "many").await;
            browser.fill_anew("#detection-requests_per_hour", "70").await;
            browser.click("section[aria-labelledby=detection-requests_per_hour-name] button").await;
            browser.wait_for(DONE, "detection.requests_per_hour is 70 from now on; the file says 100").await;
            // It is in force: the next run flags with it.
            let mut visitor = scene.gateway.client_of("198.51.100.70");
            for n in 0..75 {
                visitor.get(&format!("/shop/{}", n % 7));
            }
            scene.gateway.data().wait_for_count(75);
            scene.go("/settings/tasks").await;
            browser.click_on("//tr[contains(., 'detect')]//button").await;
            eventually("the run is noted", || {
                let runs = scene.gateway.data().state().task_runs(Some("detect"), 1).unwrap();
                runs.first().is_some_and(|run| run.succeeded).then_some(())
            });
            browser.wait_for("#tasks", "done").await;
            scene.go("/findings?client=198.51.100.70").await;
            browser.wait_for("tbody", "198.51.100.70").await;

            scene.go("/settings").await;
            browser
                .click_on("//section[@aria-labelledby='detection-requests_per_hour-name']//form[2]//button")
                .await;
            browser.wait_for(DONE, "detection.requests_per_hour is 100 from now on, as the file says").await;

            scene.go("/settings/alerts").await;
            browser.click_on("//button[contains(., 'Send a test')]").await;
            browser.wait_for(DONE, "A test message has arrived").await;
            assert!(!scene.webhook.posted().is_empty());

            scene.go("/settings/configuration").await;
            browser.click_on("//button[.='Reload now']").await;
            browser.wait_for("section[aria-labelledby=reload]", "nothing had changed").await;
            scene.go("/settings/audit?actor=console%3Aalice").await;
            for act in ["reload", "test", "run", "login"] {
                browser.wait_for("tbody", act).await;
            }
        },
    );
}
