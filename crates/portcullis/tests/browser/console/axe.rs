//! axe-core, which finds what keeps people from using a page: contrast, labels, order, names.
//!
//! Owns how it is found and run. It is fetched by `.ci/axe target`, and is no part of the repository.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::driver::Browser;

/// What is found in everything, and what depends on the colours alone.
#[derive(Clone, Copy)]
pub(super) enum Rules {
    All,
    Colours,
}

/// The source of axe-core. `None`, after saying so, where it was not fetched.
///
/// # Panics
/// Where the test must not be left out: with `CI=true` or `BROWSER=1`.
pub(super) fn find() -> Option<String> {
    let places =
        Path::new(env!("CARGO_BIN_EXE_portcullis")).ancestors().map(|folder| folder.join("axe/axe.min.js"));
    if let Some(file) = places.into_iter().find(|file: &PathBuf| file.is_file()) {
        return Some(fs::read_to_string(file).unwrap());
    }
    let is_set = |name: &str, value: &str| std::env::var(name).is_ok_and(|is| is == value);
    let missing = "axe-core is needed to look for barriers (fetch it with: .ci/axe target)";
    assert!(!is_set("CI", "true") && !is_set("BROWSER", "1"), "{missing}");
    let _ = writeln!(io::stderr(), "\nNOT TESTED: {missing}");
    None
}

/// Serious and critical violations on the page that is open, each with its places.
pub(super) async fn violations(browser: &Browser, axe: &str, rules: Rules) -> Vec<String> {
    if browser.script("return typeof axe").await == "undefined" {
        browser.script(axe).await;
    }
    let only = match rules {
        Rules::All => "{ resultTypes: ['violations'] }",
        Rules::Colours => {
            "{ resultTypes: ['violations'], runOnly: ['color-contrast', 'link-in-text-block'] }"
        }
    };
    let script = format!(
        "const done = arguments[0]; axe.run(document, {only}).then((found) => done(found.violations
           .filter((rule) => ['serious', 'critical'].includes(rule.impact))
           .flatMap((rule) => rule.nodes.map((node) =>
             `${{rule.id}} (${{rule.impact}}): ${{node.html.slice(0, 200)}} ${{node.failureSummary?.slice(0, 300)}}`))),
         (error) => done([`axe failed: ${{error}}`]));"
    );
    let found = browser.script_that_waits(&script).await;
    let Value::Array(found) = found else { panic!("axe says {found}") };
    found.iter().map(|text| text.as_str().unwrap_or("?").to_owned()).collect()
}
