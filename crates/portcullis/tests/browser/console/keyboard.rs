//! The console without a mouse.

use fantoccini::key::Key;
use serde_json::Value;

use super::{Scene, open, past, places};

/// What has the focus, and whether that can be seen.
const FOCUSED: &str = "
  const element = document.activeElement;
  const style = getComputedStyle(element);
  const seen = element.getBoundingClientRect();
  return [
    element.getAttribute('aria-label') ?? (element.labels?.[0]?.innerText || element.innerText || element.name || element.tagName),
    style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2,
    seen.width > 0 && seen.height > 0,
  ];";
/// More presses of the tab key than any walk here needs.
const MAX_STEPS: usize = 120;

/// Presses the tab key until something has the focus whose name begins so; returns what was passed.
async fn tab_to(scene: &Scene, wanted: &str) -> Vec<String> {
    let mut passed = Vec::new();
    for _ in 0..MAX_STEPS {
        scene.browser.press(Key::Tab).await;
        let focused = scene.browser.script(FOCUSED).await;
        let name = focused[0].as_str().unwrap_or("?").trim().to_owned();
        assert_eq!(focused[1], true, "the focus on {name:?} is not seen");
        assert_eq!(focused[2], true, "{name:?} has the focus and no size");
        let is_there = name.starts_with(wanted);
        passed.push(name);
        if is_there {
            return passed;
        }
    }
    panic!("{wanted:?} is not reached: {passed:?}");
}

#[test]
fn everything_is_reached_by_the_keyboard_and_the_focus_is_seen() {
    open(past::a_day, async |scene| {
        places::live(scene);
        let browser = &scene.browser;
        scene.go("/blocks").await;
        let first = tab_to(scene, "To the content").await;
        assert_eq!(first.len(), 1, "the way past the navigation comes first");
        browser.press(Key::Enter).await;
        let next = tab_to(scene, "").await;
        assert!(next[0].starts_with("Blocks"), "{next:?} comes after the way past the navigation");

        scene.go("/requests").await;
        let passed = tab_to(scene, "Client").await;
        for name in
            ["Overview", "Requests", "Findings", "Blocks", "Limits", "Decision", "Settings", "Sign out"]
        {
            assert!(passed.iter().any(|passed| passed == name), "{name} is not among {passed:?}");
        }
        for key in "203.0.113.66".chars() {
            browser.press_char(key).await;
        }
        browser.press(Key::Enter).await;
        browser.wait_for(".pager", "shown").await;
        let query = async || browser.url().await.query().map(str::to_owned);
        while query().await.as_deref() != Some("ip=203.0.113.66") {}

        // A block from its field to its undo.
        scene.go("/blocks").await;
        tab_to(scene, "Address or prefix").await;
        for key in "203.0.113.99".chars() {
            browser.press_char(key).await;
        }
        browser.press(Key::Enter).await;
        browser.wait_for(".notice", "Blocked 203.0.113.99").await;
        tab_to(scene, "Undo").await;
        browser.press(Key::Enter).await;
        browser.wait_for(".notice", "Undone").await;
        let passed = tab_to(scene, "Lift 203.0.113.66").await;
        assert!(passed.iter().any(|name| name.starts_with("Tick ")), "{passed:?}");
        assert!(matches!(browser.script("return document.activeElement.tabIndex").await, Value::Number(_)));
    });
}
