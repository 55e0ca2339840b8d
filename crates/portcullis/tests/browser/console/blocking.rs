//! Blocks and allows made in the console, and what the running gateway makes of them.

use portcullis_testkit::eventually;

use super::{Scene, open};

const VISITOR: &str = "203.0.113.9";

/// The notice of what was just done.
const DONE: &str = ".notice[role=status]";

async fn add(scene: &Scene, whom: &str, reason: &str) {
    scene.browser.fill("#whom", whom).await;
    scene.browser.fill("#reason", reason).await;
    scene.browser.click("section[aria-labelledby=add] .fields button").await;
}

/// The answer to the next request, not of a page that is still open.
fn is_refused(scene: &Scene, client: &str) -> bool {
    scene.status_of(client) == 403
}

#[test]
fn a_block_in_the_console_refuses_the_next_request_until_it_is_lifted() {
    open(
        |_| (),
        async |scene| {
            let browser = &scene.browser;
            assert_eq!(scene.status_of(VISITOR), 200);
            scene.gateway.data().wait_for_count(1);
            scene.go("/blocks").await;
            // While it is typed.
            browser.fill("#whom", "203.0.113.300").await;
            browser.wait_for("#whom-problem", "203.0.113.300").await;
            browser.fill_anew("#whom", "127.0.0.0/8").await;
            browser.wait_for("#check", "Mind that").await;
            browser.fill_anew("#whom", VISITOR).await;
            browser.wait_for("#check", "1 request in the last 24 h").await;
            browser.fill("#reason", "tries the door").await;
            browser.click("section[aria-labelledby=add] .fields button").await;
            browser.wait_for(DONE, &format!("Blocked {VISITOR}")).await;
            scene.wait_for_status(VISITOR, 403);

            browser.click(&format!("button[aria-label='Lift {VISITOR}']")).await;
            browser.wait_for(DONE, &format!("Lifted the block of {VISITOR}")).await;
            scene.wait_for_status(VISITOR, 200);
            browser.click_on("//button[.='Undo']").await;
            browser.wait_for(DONE, "Undone: all is as it was before.").await;
            scene.wait_for_status(VISITOR, 403);
            browser.wait_for("tbody", "tries the door").await;

            scene.go("/allows").await;
            add(scene, VISITOR, "is one of us").await;
            browser.wait_for(DONE, "It overrules block").await;
            scene.wait_for_status(VISITOR, 200);
            browser
                .click(&format!("button[aria-label='Take back {VISITOR}'], tbody button[name=only]"))
                .await;
            browser.wait_for(DONE, "is not allowed any more").await;
            scene.wait_for_status(VISITOR, 403);

            // What would lock the operator out is asked about, and not done.
            scene.go("/blocks").await;
            add(scene, "127.0.0.1", "myself").await;
            browser.wait_for(".notice.warning", "Nothing was changed yet").await;

            // A user; and the one whose block has ended.
            scene.go("/blocks/users").await;
            add(scene, "mallory", "sells what is not theirs").await;
            browser.wait_for("tbody", "mallory").await;
            scene.go("/blocks").await;
            browser.click(&format!("input[aria-label='Tick {VISITOR}']")).await;
            browser.click_on("//button[.='Lift what is ticked']").await;
            browser.wait_for(DONE, "Lifted the block").await;
            scene.go("/blocks/ended").await;
            browser.wait_for("tbody", "lifted by console:alice").await;
            assert!(!is_refused(scene, VISITOR));
        },
    );
}

#[test]
fn a_list_is_rehearsed_imported_searched_paged_exported_and_taken_back() {
    open(
        |_| (),
        async |scene| {
            let browser = &scene.browser;
            scene.go("/blocks/import").await;
            let file = scene.gateway.folder().join("list.txt");
            let list: String = (1..=120).map(|n| format!("198.18.7.{n} # number {n}\n")).collect();
            std::fs::write(&file, list).unwrap();
            browser.fill("#file", &file.display().to_string()).await;
            let is_read = "return document.querySelector('#list').value.includes('198.18.7.120')";
            while browser.script(is_read).await != true {}
            browser.click("button[value=rehearse]").await;
            browser.wait_for("main", "120").await;
            assert_eq!(scene.status_of("198.18.7.77"), 200);
            browser.click("button[value=import]").await;
            browser.wait_for(DONE, "Imported 120 blocks").await;
            scene.wait_for_status("198.18.7.77", 403);

            let rows = async || browser.script("return document.querySelectorAll('tbody tr').length").await;
            assert_eq!(rows().await, 50);
            browser.click("a[rel=next]").await;
            browser.wait_for("tbody", "198.18.7.70").await;
            browser.click("a[rel=next]").await;
            browser.wait_for("tbody", "198.18.7.20").await;
            assert_eq!(rows().await, 20);
            browser.fill("#q", "number 77").await;
            browser.click("form[role=search][action='/blocks'] button").await;
            browser.wait_for("tbody", "198.18.7.77").await;
            assert_eq!(rows().await, 1);

            scene.go("/blocks").await;
            browser.click_on("//a[.='CSV']").await;
            let csv = browser.downloaded_text("blocks");
            let records = csv::Reader::from_reader(csv.as_bytes()).into_records();
            let records: Vec<_> = records.collect::<Result<_, _>>().unwrap();
            assert_eq!(records.len(), 120);

            scene.go("/blocks").await;
            browser.click("input[data-select-all]").await;
            let ticked = "return document.querySelectorAll('input[name=id]:checked').length";
            assert_eq!(browser.script(ticked).await, 50);
            browser.click_on("//button[.='Lift what is ticked']").await;
            browser.wait_for(DONE, "Lifted 50 blocks").await;
            browser.click_on("//button[.='Undo']").await;
            browser.wait_for(DONE, "Undone").await;
            eventually("all are blocked again", || {
                ["198.18.7.1", "198.18.7.120"].iter().all(|client| is_refused(scene, client)).then_some(())
            });
        },
    );
}
