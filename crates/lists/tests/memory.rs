//! What a list may cost while it is read. Alone in its process, which is what is measured.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::fs;

use portcullis_lists::{Format, Limits, ListError, read};

/// The most memory that this process has had at once, in bytes.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
}

#[test]
fn json_that_nests_millions_of_values_where_an_entry_belongs_costs_no_more_than_its_text() {
    const VALUES: usize = 4_000_000;
    let values = "0,".repeat(VALUES);
    let fields: String = (0..VALUES / 8).map(|n| format!("\"field-{n}\":0,")).collect();
    let texts = [
        format!("[[{values}0]]"),
        format!("[{{\"ip\":\"x\",\"a\":[{values}0]}}]"),
        format!("{{\"other\":[{values}0]}}\n"),
        format!("[{{{fields}\"last\":0}}]"),
    ];
    let longest = texts.iter().map(|text| text.len() as u64).max().unwrap();
    let before = peak();
    for text in &texts {
        let limits = Limits { max_entries: 10, max_bad: 1.0 };
        let result = read(Format::Json, text.as_bytes(), limits, &mut |_| {});
        assert!(matches!(result, Err(ListError::Empty { .. })), "{result:?}");
    }
    let grown = peak() - before;
    assert!(grown < 2 * longest, "{grown} bytes for a text of {longest}");
}
