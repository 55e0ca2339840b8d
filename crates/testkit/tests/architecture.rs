//! The direction of dependencies between the crates, and which crate alone may know a library.
//!
//! Owns these rules, the reasons included; deny.toml repeats the second kind for transitive dependencies.
//! Reads manifests only; must not build anything.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// From the bottom up. A crate may depend on crates of lower layers only: crates of one layer get what
/// they need of each other handed in by the binary.
const LAYERS: &[&[&str]] = &[
    &["portcullis-model"],
    &[
        "portcullis-wire",
        "portcullis-policy",
        "portcullis-privacy",
        "portcullis-detect",
        "portcullis-geo",
        "portcullis-identity",
        "portcullis-store",
        "portcullis-notify",
        "portcullis-fetch",
        "portcullis-lists",
        "portcullis-accesslog",
    ],
    &["portcullis-config"],
    &["portcullis-proxy", "portcullis-admin", "portcullis-acme"],
    &["portcullis"],
];

/// Crates that may use anything and that nobody may ship.
const OUTSIDE: &[&str] =
    &["portcullis-testkit", "portcullis-benches", "portcullis-bench-detection", "portcullis-invariants"];

/// A library, the only crate that may know it, and what would be lost otherwise.
const EXCLUSIVE: &[(&str, &str, &str)] = &[
    ("rusqlite", "portcullis-store", "one writer thread owns the files; SQL elsewhere would bypass it"),
    ("pingora", "portcullis-proxy", "an upgrade of Pingora touches one crate"),
    ("axum", "portcullis-admin", "the web framework of the console stays replaceable"),
    ("toml", "portcullis-config", "every error in the configuration has one form with line and column"),
    ("maxminddb", "portcullis-geo", "schemas of geo databases are known in one place"),
    (
        "extended-isolation-forest",
        "portcullis-detect",
        "the model stays an implementation detail of detection",
    ),
    ("instant-acme", "portcullis-acme", "the protocol with certificate authorities is spoken in one place"),
    ("ureq", "portcullis-fetch", "where a request of our own may go is decided in one place"),
    ("lettre", "portcullis-notify", "mails are written in one place, where hostile text becomes text"),
    ("clap", "portcullis", "libraries do not read the command line"),
    ("croner", "portcullis-config", "what a schedule may say is checked where the file is read"),
];

/// Crates that decide and never wait: no runtime, no sockets, no SQL.
const PURE: &[&str] = &[
    "portcullis-model",
    "portcullis-policy",
    "portcullis-privacy",
    "portcullis-detect",
    "portcullis-identity",
    "portcullis-wire",
    "portcullis-lists",
    "portcullis-accesslog",
];
const IMPURE: &[&str] = &[
    "tokio",
    "async-trait",
    "hyper",
    "hyper-util",
    "axum",
    "pingora",
    "rusqlite",
    "rustls",
    "maxminddb",
    "ureq",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Shipped,
    Development,
}

#[derive(Clone, Debug)]
struct Dependency {
    from: String,
    to: String,
    kind: Kind,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The manifests of all members, as cargo understands them; needs neither network nor a lock file.
fn metadata() -> Value {
    let output = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["metadata", "--offline", "--no-deps", "--format-version", "1", "--manifest-path"])
        .arg(root().join("Cargo.toml"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn members(metadata: &Value) -> Vec<String> {
    metadata["packages"].as_array().unwrap().iter().map(|package| text(&package["name"])).collect()
}

fn dependencies(metadata: &Value) -> Vec<Dependency> {
    let of_package = |package: &Value| -> Vec<Dependency> {
        let edge = |dependency: &Value| Dependency {
            from: text(&package["name"]),
            to: text(&dependency["name"]),
            kind: if dependency["kind"] == "dev" { Kind::Development } else { Kind::Shipped },
        };
        package["dependencies"].as_array().unwrap().iter().map(edge).collect()
    };
    metadata["packages"].as_array().unwrap().iter().flat_map(of_package).collect()
}

fn layer(name: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&name))
}

fn is_outside(name: &str) -> bool {
    OUTSIDE.contains(&name)
}

/// What is wrong with one dependency, if anything.
fn complaint(Dependency { from, to, kind }: &Dependency) -> Option<String> {
    if is_outside(from) {
        return None;
    }
    if is_outside(to) {
        return (*kind == Kind::Shipped).then(|| format!("{from} ships with {to}, which is for tests"));
    }
    if let (Some(above), Some(below)) = (layer(from), layer(to))
        && above <= below
    {
        return Some(format!("{from} may not import {to}: dependencies go down the layers only"));
    }
    if *kind == Kind::Development {
        return None;
    }
    if PURE.contains(&from.as_str()) && IMPURE.contains(&to.as_str()) {
        return Some(format!("{from} decides and does no I/O, so it may not know {to}"));
    }
    EXCLUSIVE
        .iter()
        .find(|(library, owner, _)| library == to && owner != from)
        .map(|(library, owner, why)| format!("{from} may not know {library}, only {owner} may: {why}"))
}

#[test]
fn every_crate_has_its_place() {
    let homeless: Vec<String> =
        members(&metadata()).into_iter().filter(|name| layer(name).is_none() && !is_outside(name)).collect();
    assert!(homeless.is_empty(), "add these crates to a layer: {homeless:?}");
}

#[test]
fn dependencies_go_down_and_each_library_has_one_owner() {
    let complaints: Vec<String> = dependencies(&metadata()).iter().filter_map(complaint).collect();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn each_owner_uses_what_it_owns() {
    let dependencies = dependencies(&metadata());
    for (library, owner, _) in EXCLUSIVE {
        let used = dependencies.iter().any(|d| d.to == *library && d.from == *owner);
        assert!(used, "{owner} does not use {library}; drop the rule or correct its name");
    }
}

#[test]
fn every_crate_inherits_the_lints() {
    for package in metadata()["packages"].as_array().unwrap() {
        let manifest = fs::read_to_string(text(&package["manifest_path"])).unwrap();
        assert!(manifest.contains("[lints]\nworkspace = true"), "{}", package["name"]);
    }
}

#[test]
fn every_source_file_says_what_it_owns() {
    let mut silent = Vec::new();
    for folder in ["crates", "benches"] {
        visit(&root().join(folder), &mut |path| {
            if !fs::read_to_string(path).unwrap().starts_with("//! ") {
                silent.push(path.to_owned());
            }
        });
    }
    assert!(silent.is_empty(), "these files do not open with `//! `: {silent:#?}");
}

fn visit(folder: &Path, seen: &mut impl FnMut(&Path)) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            visit(&path, seen);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            seen(&path);
        }
    }
}

#[test]
fn the_rules_find_each_kind_of_breach() {
    let edge = |from: &str, to: &str, kind| Dependency { from: from.into(), to: to.into(), kind };
    for (from, to) in [
        ("portcullis-policy", "portcullis-store"),
        ("portcullis-model", "portcullis-policy"),
        ("portcullis-geo", "portcullis-config"),
        ("portcullis-admin", "portcullis-proxy"),
        ("portcullis-proxy", "portcullis"),
        ("portcullis", "portcullis-testkit"),
        ("portcullis", "rusqlite"),
        ("portcullis-config", "axum"),
        ("portcullis-policy", "tokio"),
    ] {
        assert!(complaint(&edge(from, to, Kind::Shipped)).is_some(), "{from} -> {to}");
    }
    for (from, to, kind) in [
        ("portcullis-proxy", "portcullis-config", Kind::Shipped),
        ("portcullis-store", "rusqlite", Kind::Shipped),
        ("portcullis", "portcullis-testkit", Kind::Development),
        ("portcullis", "rusqlite", Kind::Development),
        ("portcullis-benches", "pingora", Kind::Shipped),
    ] {
        assert_eq!(complaint(&edge(from, to, kind)), None, "{from} -> {to}");
    }
}
