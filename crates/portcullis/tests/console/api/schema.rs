//! The API held against its own document by Schemathesis: thousands of calls, right ones and wrong ones, of which none
//! may fail the gateway or be answered with what the document does not say. Needs `.ci/schemathesis target`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use portcullis_testkit::Upstream;
use serde_json::json;

use super::Program;
use crate::in_front_of;

/// Calls of one operation in one phase.
const EXAMPLES: &str = "25";

/// `None`, with a word about it, where it is not installed.
///
/// # Panics
/// Where it is not installed and `CI=true`.
fn program() -> Option<PathBuf> {
    let binary = Path::new(env!("CARGO_BIN_EXE_portcullis"));
    let found =
        binary.ancestors().map(|folder| folder.join("schemathesis/bin/st")).find(|file| file.is_file());
    if found.is_none() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "Schemathesis is not installed");
        eprintln!("not tested: Schemathesis is not installed (install it with: .ci/schemathesis target)");
    }
    found
}

#[test]
fn no_call_fails_the_gateway_or_is_answered_with_what_the_document_does_not_say() {
    let Some(schemathesis) = program() else { return };
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    let program = Program::writer(&gateway);
    for n in 0..50 {
        gateway.client_of(&format!("203.0.113.{}", n % 5)).get(&format!("/page/{n}"));
    }
    gateway.data().wait_for_count(50);
    program.change("/blocks", &json!({ "network": "198.51.100.7", "reason": "a test" }));
    program.change("/user-blocks", &json!({ "user": "mallory" }));
    program.change("/allows", &json!({ "network": "192.0.2.7" }));

    let output = Command::new(schemathesis)
        .args(["run", &format!("http://{}/api/v1/openapi.json", gateway.console())])
        .args(["--header", &format!("Authorization: Bearer {}", program.token)])
        .args(["--checks", "all", "--max-examples", EXAMPLES, "--seed", "20261120"])
        .args(["--continue-on-failure", "--no-shrink", "--no-color", "--workers", "2"])
        .current_dir(gateway.folder())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    // Not a gateway that refused everything.
    assert!(said.contains("Tested: "), "{said}");
    assert_eq!(program.get("/health").status(), 200);
    assert!(!gateway.stderr().contains("panicked"), "{}", gateway.stderr());
}
