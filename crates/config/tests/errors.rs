//! Every fixture in `errors/` is a wrong configuration. The lines that begin with `#!` say exactly what
//! has to be reported, without the file's name; `{dir}` stands for the folder of the file.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::fs;
use std::path::Path;

use portcullis_config::{MAX_ERRORS, Overrides, load, parse};

/// Files that fixtures name.
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n";
const KEY: &str = "-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n";
const ENCRYPTED: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----\n-----END ENCRYPTED PRIVATE KEY-----\n";

fn reported(fixture: &Path) -> String {
    let dir = tempfile::tempdir().unwrap();
    for (name, contents) in [
        ("cert.pem", CERTIFICATE),
        ("key.pem", KEY),
        ("encrypted.pem", ENCRYPTED),
        ("plain.html", "<h1>{{title}}</h1>"),
        ("typo.html", "{{decision_id}} {{ reason }}"),
    ] {
        fs::write(dir.path().join(name), contents).unwrap();
    }
    fs::write(dir.path().join("binary.html"), [0xff, 0xfe]).unwrap();
    fs::write(dir.path().join("huge.html"), vec![b'x'; 70_000]).unwrap();
    let file = dir.path().join("portcullis.toml");
    fs::copy(fixture, &file).unwrap();
    let errors = load(Some(&file), &Overrides::default()).expect_err("the fixture must be refused");
    let folder = format!("{}/", dir.path().display());
    errors.to_string().replace(&format!("{folder}portcullis.toml:"), "").replace(&folder, "{dir}/")
}

#[test]
fn every_mistake_is_reported_at_once_with_its_line_and_column() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/errors");
    let mut wrong = String::new();
    let mut fixtures = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let expected: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("#! ")).collect();
        let got = reported(&path);
        if got.lines().ne(expected.iter().copied()) {
            let lines: Vec<String> = got.lines().map(|line| format!("#! {line}")).collect();
            wrong += &format!("\n{}: got\n{}\n", path.display(), lines.join("\n"));
        }
        fixtures += 1;
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(fixtures >= 10);
}

#[test]
fn a_flood_of_errors_is_cut_and_counted() {
    let text = "[[block]]\nnetwork = \"x\"\n".repeat(250);
    let errors = parse(&text, "f.toml", Path::new(""), &Overrides::default()).unwrap_err();
    assert_eq!(errors.errors().len(), MAX_ERRORS);
    // One more: there is no upstream.
    assert_eq!(errors.omitted(), 151);
    assert!(errors.to_string().ends_with("\nand 151 more"));
}

#[test]
fn a_file_that_cannot_be_read_is_one_clear_error() {
    let dir = tempfile::tempdir().unwrap();
    let message = |path: &Path| load(Some(path), &Overrides::default()).unwrap_err().to_string();
    assert!(message(&dir.path().join("none.toml")).contains("none.toml: cannot be read: No such file"));
    assert!(message(dir.path()).contains("cannot be read: Is a directory"));
    let latin1 = dir.path().join("latin1.toml");
    fs::write(&latin1, b"mode = \"enf\xf6rce\"").unwrap();
    assert!(message(&latin1).contains("is not UTF-8 text: the first wrong byte is number 12"));
}
