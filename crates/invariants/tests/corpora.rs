//! Every input that the fuzzer is to begin with, and every one that once broke something.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::fs;
use std::path::{Path, PathBuf};

use portcullis_invariants::TARGETS;

const MAX_FILES: usize = 300;
const MAX_BYTES: u64 = 300 * 1024;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

fn inputs(target: &str) -> Vec<PathBuf> {
    let folder = fuzz().join("corpus").join(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries.map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn every_kept_input_keeps_the_invariants() {
    for (target, check) in TARGETS {
        let inputs = inputs(target);
        assert!(inputs.len() >= 5, "{target} has hardly any corpus");
        for input in inputs {
            // Seen only when the check fails.
            println!("{}", input.display());
            check(&fs::read(input).unwrap());
        }
    }
}

#[test]
fn every_target_has_its_driver() {
    for (target, _) in TARGETS {
        let driver = fs::read_to_string(fuzz().join(format!("fuzz_targets/{target}.rs"))).unwrap();
        assert!(driver.contains(&format!("portcullis_invariants::{target}(data)")), "{target}");
        let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
        assert!(manifest.contains(&format!("name = \"{target}\"")), "{target}");
    }
}

#[test]
fn the_corpora_stay_small() {
    let files: Vec<PathBuf> = TARGETS.iter().flat_map(|(target, _)| inputs(target)).collect();
    let bytes: u64 = files.iter().map(|file| fs::metadata(file).unwrap().len()).sum();
    assert!(files.len() <= MAX_FILES && bytes <= MAX_BYTES, "{} files, {bytes} bytes", files.len());
}
