//! The folder of labelled logs. Owns its layout and what labels mean; must not judge.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result};
use portcullis_model::ClientIp;
use serde::Deserialize;

use crate::judge::{Judge, Verdicts};

const LOG: &str = ".log.gz";
/// Kinds of malice that are attacks. The others are scanners of the whole Internet, garbage and proxy tests.
const ATTACKS: [&str; 11] =
    ["trav", "rce", "sqli", "xss", "sens", "pma", "php404", "wp", "dirscan", "brute", "probe"];
/// From so many requests in an hour on, an attacker is a busy one.
const BUSY: u64 = 5;

/// What a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Label {
    Attack { is_busy: bool },
    OtherMalice,
    Human,
    Bot,
    Unclear,
}

/// One log with its labels.
pub(crate) struct Site {
    pub(crate) labels: HashMap<ClientIp, Label>,
    pub(crate) verdicts: Verdicts,
    pub(crate) records: u64,
}

#[derive(Deserialize)]
struct Row {
    ip: String,
    label: String,
    why: String,
    requests_in_busiest_hour: u64,
}

/// The sites that have a log and labels, in order.
pub(crate) fn names(folder: &Path, only: &[String]) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut names = Vec::new();
    for entry in entries {
        let file = entry?.file_name();
        let name = file.to_str().and_then(|file| file.strip_suffix(LOG));
        names
            .extend(name.filter(|name| only.is_empty() || only.iter().any(|o| o == name)).map(str::to_owned));
    }
    names.retain(|name| labels_of(folder, name).is_file());
    names.sort();
    Ok(names)
}

pub(crate) fn read(folder: &Path, name: &str, judge: &Judge) -> Result<Site> {
    let labels = labels_of(folder, name);
    let labels = read_labels(&labels).with_context(|| labels.display().to_string())?;
    let log = folder.join(format!("{name}{LOG}"));
    let verdicts = judge.judge(&log).with_context(|| log.display().to_string())?;
    Ok(Site { labels, records: verdicts.records, verdicts })
}

fn labels_of(folder: &Path, name: &str) -> std::path::PathBuf {
    folder.join("labels").join(format!("{name}.csv"))
}

fn read_labels(file: &Path) -> Result<HashMap<ClientIp, Label>> {
    let mut labels = HashMap::new();
    for row in csv::Reader::from_path(file)?.deserialize() {
        let row: Row = row?;
        // Some servers log names.
        let Ok(client) = row.ip.parse() else { continue };
        labels.insert(client, label(&row.label, &row.why, row.requests_in_busiest_hour));
    }
    Ok(labels)
}

fn label(label: &str, why: &str, busiest: u64) -> Label {
    match label {
        "malicious" if why.split('+').any(|why| ATTACKS.contains(&why)) => {
            Label::Attack { is_busy: busiest >= BUSY }
        }
        "malicious" => Label::OtherMalice,
        "benign_human" => Label::Human,
        "benign_bot" => Label::Bot,
        _ => Label::Unclear,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_kinds_of_attack_count_as_attacks() {
        assert_eq!(label("malicious", "garbage+sqli", 4), Label::Attack { is_busy: false });
        assert_eq!(label("malicious", "sens", 5), Label::Attack { is_busy: true });
        assert_eq!(label("malicious", "garbage", 9), Label::OtherMalice);
        assert_eq!(label("benign_human", "", 9), Label::Human);
        assert_eq!(label("unclear", "", 1), Label::Unclear);
    }
}
