//! The overview and the log, as somebody watches them.

use portcullis_model::VerdictKind;
use portcullis_testkit::Request;
use serde_json::Value;

use super::{Scene, open, past};

async fn rows(scene: &Scene) -> u64 {
    scene.browser.script("return document.querySelectorAll('[data-rows] tr').length").await.as_u64().unwrap()
}

async fn value(scene: &Scene, selector: &str) -> String {
    let script = format!("return document.querySelector({selector:?}).textContent");
    scene.browser.script(&script).await.as_str().unwrap().to_owned()
}

#[test]
fn the_overview_moves_by_itself_stops_when_told_and_leads_to_the_requests() {
    open(past::a_day, async |scene| {
        let browser = &scene.browser;
        scene.go("/").await;
        browser.wait_for("[data-live-state]", "Live").await;
        let mut visitor = scene.gateway.client_of("198.51.100.9");
        let mut moved = false;
        for _ in 0..200 {
            visitor.get("/shop");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            let rate = value(scene, "[data-live-figure=requests]").await;
            moved |= rate.parse::<f64>().is_ok_and(|rate| rate > 0.0);
            if moved {
                break;
            }
        }
        assert!(moved, "the figures do not move");
        assert!(
            browser.script("return document.querySelectorAll('[data-live-spark] rect').length").await != 0
        );
        browser.click("[data-live-pause]").await;
        browser.wait_for("[data-live-state]", "Paused").await;
        let before = value(scene, "[data-live]").await;
        for _ in 0..60 {
            visitor.get("/shop");
            tokio::time::sleep(std::time::Duration::from_millis(25)).await;
        }
        assert_eq!(value(scene, "[data-live]").await, before, "paused figures stand still");
        browser.click("[data-live-pause]").await;
        browser.wait_for("[data-live-state]", "Live").await;

        // The map, for traffic and for what was refused, leads to the requests of a country.
        scene.go("/?range=day").await;
        let country = "return document.querySelector('.map a[href*=\"country=DE\"]')?.getAttribute('href')";
        let Value::String(link) = browser.script(country).await else { panic!("Germany is not on the map") };
        browser.click(".map a[href*='country=DE']").await;
        browser.wait_for("h1", "Requests").await;
        assert!(link.starts_with("/requests?"), "{link}");
        assert_eq!(browser.script("return document.querySelector('[name=country]').value").await, "DE");
        assert!(rows(scene).await > 10);
        for (range, least) in [("hour", 50), ("day", 3_000), ("week", 3_000), ("month", 3_000)] {
            scene.go(&format!("/?range={range}")).await;
            let total = value(scene, "a.total .figure").await.replace([',', '\u{202f}', ' ', '.'], "");
            assert!(total.parse::<u64>().unwrap() >= least, "{range}: {total}");
        }
    });
}

#[test]
fn the_log_is_filtered_paged_followed_and_exported() {
    open(past::a_day, async |scene| {
        let browser = &scene.browser;
        let log = || scene.gateway.data().rows();
        let all = log().len();
        scene.go("/requests").await;
        assert_eq!(rows(scene).await, 100);
        // Older ones, to the very first.
        browser.click("a[rel=next]").await;
        browser.wait_for(".pager", "Back to the newest").await;
        assert_eq!(rows(scene).await, 100);
        // A cell leads to its filter.
        browser.click_on("(//tbody//a[contains(@href, 'status=404')])[1]").await;
        browser.wait_for("h1", "Requests").await;
        let missing = log().iter().filter(|row| row.status == 404).count();
        assert!(missing > 100 && missing < all);

        // While it is typed; the address goes along, and a wrong value is told beside its field.
        scene.go("/requests").await;
        browser.fill("#filter-path", "/id_rsa").await;
        let of_path = log().iter().filter(|row| row.path == "/id_rsa").count() as u64;
        browser.wait_for(".pager", &format!("{of_path} shown")).await;
        assert_eq!(browser.url().await.query(), Some("path=%2Fid_rsa"));
        browser.choose("#filter-verdict", "would block").await;
        let would =
            |row: &&portcullis_store::LogRow| row.path == "/id_rsa" && row.verdict == VerdictKind::WouldBlock;
        let refused = log().iter().filter(would).count();
        browser.wait_for(".pager", &format!("{refused} shown")).await;
        browser.fill("#filter-ip", "nonsense").await;
        browser.wait_for("#wrong-ip", "nonsense").await;
        browser.fill_anew("#filter-ip", "198.51.100.0/24").await;
        browser.wait_for(".pager", "shown").await;

        // The export is of the filter, whole, and says how far it came.
        scene.go("/requests?country=DE&verdict=admitted").await;
        let of_filter = |row: &&portcullis_store::LogRow| {
            row.location.country.as_deref() == Some("DE") && row.verdict == VerdictKind::Admitted
        };
        let wanted = log().iter().filter(of_filter).count();
        browser.click_on("//a[.='CSV']").await;
        browser.wait_for("[data-progress-text]", "Done").await;
        let csv = browser.downloaded_text("requests");
        let mut reader = csv::Reader::from_reader(csv.as_bytes());
        let path = reader.headers().unwrap().iter().position(|name| name == "path").unwrap();
        let paths: Vec<String> = reader.records().map(|record| record.unwrap()[path].to_owned()).collect();
        assert_eq!(paths.len(), wanted);
        assert!(paths.iter().all(|path| path.starts_with('/')));
        browser.click("[data-progress-cancel]").await;
        browser.click_on("//a[.='JSON lines']").await;
        browser.wait_for("[data-progress-text]", "Done").await;
        let lines = browser.downloaded_text("requests");
        let rows_of = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        assert_eq!(rows_of.filter(|row| row["country"] == "DE").count(), wanted);

        // The live tail, of this filter alone.
        scene.go("/requests?path=%2Flive%2F*").await;
        browser.wait_for("main", "No request matches").await;
        browser.click("[data-tail]").await;
        browser.wait_for("[data-tail-state]", "Live").await;
        let mut visitor = scene.gateway.client_of("198.51.100.9");
        visitor.send(&Request::get("/other/thing"));
        visitor.send(&Request::get("/live/lantern?wick=new"));
        browser.wait_for("[data-rows]", "/live/lantern").await;
        assert_eq!(rows(scene).await, 1);
        browser.click("[data-tail]").await;
        browser.wait_for("[data-tail-state]", "Paused").await;

        // What is typed into the head of any page.
        browser.fill("#find", "/live/lantern").await;
        browser.press(fantoccini::key::Key::Enter).await;
        browser.wait_for("tbody", "/live/lantern").await;
    });
}
