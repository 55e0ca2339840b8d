//! The API held against its own document by Schemathesis: thousands of calls, right ones and wrong ones, of which none
//! may fail the gateway or be answered with what the document does not say. Needs `.ci/schemathesis target`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use portcullis_model::{Finding, Severity, UnixMs};
use portcullis_testkit::{Gateway, Upstream};
use serde_json::json;

use super::{Program, writable};
use crate::in_front_of;

const CONFIG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/schemathesis/schemathesis.toml");

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

/// Something to be judged: the first finding of this gateway.
fn finding(gateway: &Gateway) {
    let now = UnixMs::from_system(SystemTime::now());
    let sample = json!({ "time": now, "method": "GET", "path": "/.env", "status": 404 });
    let finding = Finding {
        client: "198.51.100.66".parse().unwrap(),
        user: None,
        reason: "sensitive_files".to_owned(),
        severity: Severity::Medium,
        request_count: 3,
        first_seen: now,
        last_seen: now,
        detected_at: now,
        details: json!({
            "summary": "It asked for secrets.",
            "rules": [{ "rule": "sensitive_files", "severity": "medium", "says": "secrets", "samples": [sample] }],
        }),
    };
    assert_eq!(writable(gateway).save_finding(&finding).unwrap(), 1);
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

    finding(&gateway);
    let decision = gateway.data().rows()[0].id.to_string();

    let output = Command::new(schemathesis)
        .args(["--config-file", CONFIG, "run"])
        .arg(format!("http://{}/api/v1/openapi.json", gateway.console()))
        .args(["--header", &format!("Authorization: Bearer {}", program.token)])
        .env("DECISION", decision)
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
