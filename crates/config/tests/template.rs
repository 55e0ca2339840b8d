//! The template is documentation that cannot rot: it is read, un-commented and compared here.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use portcullis_config::{Config, Overrides, TEMPLATE, load, parse};

fn read(text: &str) -> Config {
    read_in(Path::new(""), text)
}

fn read_in(base: &Path, text: &str) -> Config {
    parse(text, "portcullis.toml", base, &Overrides::default())
        .unwrap_or_else(|errors| panic!("{errors}\n{text}"))
}

/// Whether the line is a setting that shows its default, or goes on with one.
fn is_default(line: &str) -> bool {
    let Some(rest) = line.strip_prefix('#') else { return false };
    rest.starts_with(|c: char| c.is_ascii_lowercase()) || rest.starts_with("    \"") || rest.starts_with(']')
}

fn without_comment_signs() -> String {
    TEMPLATE.lines().map(|line| format!("{}\n", if is_default(line) { &line[1..] } else { line })).collect()
}

/// The indented blocks, each from its `[table]` on.
fn examples() -> String {
    let mut text = String::new();
    let mut inside = false;
    for line in TEMPLATE.lines() {
        inside = line.starts_with("#   [") || (inside && (line.starts_with("#   ") || line == "#"));
        if inside {
            text += line.trim_start_matches('#').trim_start();
            text += "\n";
        }
    }
    text
}

#[test]
fn the_template_is_valid() {
    let config = read(TEMPLATE);
    assert_eq!(config.limits.len(), 2);
    assert_eq!(config.upstreams.len(), 1);
}

#[test]
fn taking_the_comment_signs_away_changes_nothing() {
    let full = without_comment_signs();
    assert!(full.lines().filter(|line| line.contains(" = ") && !line.starts_with('#')).count() > 50);
    assert_eq!(read(&full), read(TEMPLATE));
}

#[test]
fn a_file_with_nothing_but_an_upstream_has_the_same_defaults_without_the_limits() {
    let bare = read("[[upstream]]\nname = \"app\"\nservers = [\"http://127.0.0.1:8000\"]\n");
    assert!(bare.limits.is_empty());
    assert_eq!(bare, Config { limits: Vec::new(), ..read(TEMPLATE) });
}

#[test]
fn the_examples_are_valid_too() {
    let dir = tempfile::tempdir().unwrap();
    for (name, kind) in
        [("cert.pem", "CERTIFICATE"), ("clients.pem", "CERTIFICATE"), ("key.pem", "PRIVATE KEY")]
    {
        fs::write(dir.path().join(name), format!("-----BEGIN {kind}-----\n")).unwrap();
    }
    fs::write(dir.path().join("smtp-password"), "secret\n").unwrap();
    let template = TEMPLATE
        .replace("#accept_terms = false", "accept_terms = true")
        .replace("#listen = [\"0.0.0.0:8080\"]", "listen = [\"0.0.0.0:8080\"]");
    // The health check belongs to the upstream that stands before it, as in the template.
    let (before, after) = template.split_once("# Ask each server").unwrap();
    let config = read_in(dir.path(), &format!("{before}\n{}\n# Ask each server{after}", examples()));
    assert_eq!(config.routes.len(), 2);
    assert_eq!(config.upstreams.len(), 2);
    assert_eq!(config.server.tls.len(), 1);
    assert_eq!((config.blocks.len(), config.allows.len()), (1, 1));
    assert_eq!((config.limits.len(), config.access.len()), (3, 2));
    assert_eq!((config.alerts.smtp.is_some(), config.alerts.webhooks.len()), (true, 1));
    assert_eq!((config.geo.sources.len(), config.geo_downloads.len()), (1, 1));
    assert_eq!(config.feeds.len(), 2);
    assert_eq!((config.bots.sources.len(), &*config.bots.table.last().unwrap().name), (1, "our-monitor"));
    let health = config.upstreams[0].health.as_ref().unwrap();
    // What the example shows is what an empty table means.
    let empty = read("[[upstream]]\nname = \"app\"\nservers = [\"a:1\"]\nhealth = {}\n");
    assert_eq!(empty.upstreams[0].health.as_ref(), Some(health));
    let breaker = config.upstreams[0].breaker.as_ref().unwrap();
    let empty = read("[[upstream]]\nname = \"app\"\nservers = [\"a:1\"]\nbreaker = {}\n");
    assert_eq!(empty.upstreams[0].breaker.as_ref(), Some(breaker));
}

/// Asks for the settings that are known in a section by misspelling one beyond recognition.
fn known_settings(text: &str) -> BTreeSet<String> {
    let errors = parse(text, "f", Path::new(""), &Overrides::default()).unwrap_err().to_string();
    let line = errors.lines().find(|line| line.contains("qqqqqqqqqqqq: unknown setting")).unwrap();
    let (_, list) = line.split_once("are: ").unwrap();
    list.split(", ").map(str::to_owned).collect()
}

#[test]
fn every_setting_is_in_the_template() {
    let sections = [
        "",
        "[server]",
        "[[server.tls]]",
        "[acme]",
        "[[upstream]]",
        "[[upstream]]\nname = \"a\"\n[upstream.health]",
        "[[upstream]]\nname = \"a\"\n[upstream.breaker]",
        "[[route]]",
        "[[limit]]",
        "[[access]]",
        "[[block]]",
        "[[allow]]",
        "[[feed]]",
        "[identity]",
        "[identity.jwt]",
        "[log]",
        "[privacy]",
        "[privacy.retention]",
        "[geo]",
        "[[geo.source]]",
        "[[geo.download]]",
        "[detection]",
        "[bots]",
        "[[bot]]",
        "[detection.actions]",
        "[alerts]",
        "[alerts.smtp]",
        "[[alerts.webhook]]",
        "[console]",
        "[metrics]",
        "[pages]",
        "[tasks]",
    ];
    let all = without_comment_signs() + &examples();
    for section in sections {
        for key in known_settings(&format!("{section}\nqqqqqqqqqqqq = 1\n")) {
            let shown =
                [format!("\n{key} = "), format!("\n[{key}]"), format!("\n[[{key}]]"), format!(".{key}]")];
            assert!(
                // Indented below the section's own header: an example of what has no default.
                shown.iter().any(|text| all.contains(text)) || TEMPLATE.contains(&format!("\n#   {key} = ")),
                "{section} {key} is missing in the template"
            );
        }
    }
}

#[test]
fn a_start_without_a_file_uses_the_template() {
    let overrides = Overrides { upstream: Some("http://127.0.0.1:8000".to_owned()), ..Overrides::default() };
    let loaded = load(None, &overrides).unwrap();
    assert_eq!(loaded.config, read(TEMPLATE));
    assert_eq!(loaded.source, None);
    assert!(loaded.notes.iter().any(|note| note.contains("no geo database")));
}
