//! How every page looks: light and dark, wide and narrow, without barriers, within its budgets.
//!
//! The pictures are in `target/screenshots/console`, for people to look at.

use std::time::Duration;

use serde_json::json;

use super::axe::{self, Rules};
use super::places::{self, Place};
use super::{Scene, open, past};

const WIDE: u32 = 1_280;
const NARROW: u32 = 390;
const HEIGHT: u32 = 900;
/// Pages are pictured down to here.
const MAX_PICTURE: u64 = 6_000;
/// Bytes that the overview may transfer to a browser that has nothing of it yet.
const MAX_TRANSFER: u64 = 150_000;
/// So long a page may shift what it shows; the figures of the overview come in this time.
const SHIFT_TIME: Duration = Duration::from_millis(1_500);

#[test]
fn every_page_is_without_barriers_and_keeps_still_in_light_and_dark_on_wide_and_narrow_screens() {
    open(past::a_day, async |scene| {
        places::live(scene);
        let axe = axe::find();
        let mut faults = Vec::new();
        for place in places::all(scene) {
            for fault in look_at(scene, &place, axe.as_deref()).await {
                faults.push(format!("{} ({}): {fault}", place.name, place.address));
            }
        }
        assert!(faults.is_empty(), "\n{}", faults.join("\n"));
    });
}

async fn look_at(scene: &Scene, place: &Place, axe: Option<&str>) -> Vec<String> {
    let mut faults = Vec::new();
    for (width, name) in [(WIDE, "wide"), (NARROW, "narrow")] {
        scene.prefer("light").await;
        scene.resize(width, HEIGHT).await;
        scene.go(&place.address).await;
        if place.name == "overview" {
            tokio::time::sleep(SHIFT_TIME).await;
        }
        scene.settle().await;
        faults.extend(scene.faults().await.into_iter().map(|fault| format!("{name}: {fault}")));
        for (scheme, rules) in [("light", Rules::All), ("dark", Rules::Colours)] {
            scene.prefer(scheme).await;
            if let (Some(axe), WIDE) = (axe, width) {
                faults.extend(axe::violations(&scene.browser, axe, rules).await);
            }
            picture(scene, width, &format!("console/{}-{scheme}-{name}", place.name)).await;
        }
    }
    faults
}

/// The whole page, as far as it goes.
async fn picture(scene: &Scene, width: u32, name: &str) {
    let height = scene.browser.script("return document.documentElement.scrollHeight").await;
    let height = height.as_u64().unwrap().clamp(u64::from(HEIGHT), MAX_PICTURE);
    scene.resize(width, height as u32).await;
    scene.settle().await;
    scene.browser.screenshot(name).await;
}

#[test]
fn the_overview_is_light() {
    open(past::a_day, async |scene| {
        places::live(scene);
        scene.browser.devtools("Network.clearBrowserCache", json!({})).await;
        scene.go("/").await;
        let of =
            "performance.getEntriesByType('navigation').concat(performance.getEntriesByType('resource'))";
        let parts = scene
            .browser
            .script(&format!("return {of}.map((entry) => [entry.name, entry.transferSize])"))
            .await;
        let sum: u64 = parts.as_array().unwrap().iter().map(|part| part[1].as_u64().unwrap_or(0)).sum();
        println!("the overview transfers {sum} bytes: {parts}");
        assert!((20_000..MAX_TRANSFER).contains(&sum), "{sum}: {parts:#}");
    });
}
