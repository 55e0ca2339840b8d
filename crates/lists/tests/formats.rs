//! Lists in every format, good and bad, in and out.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use portcullis_lists::{Entry, Format, Limits, ListError, MAX_SHOWN, Summary, Writable, read, write};
use portcullis_model::UnixMs;
use proptest::prelude::*;

const LIMITS: Limits = Limits { max_entries: 1_000, max_bad: 0.05 };

fn try_read(text: &str, limits: Limits) -> Result<(Vec<Entry>, Summary), ListError> {
    let mut entries = Vec::new();
    let format = Format::detect(text.as_bytes());
    let summary = read(format, text.as_bytes(), limits, &mut |entry| entries.push(entry))?;
    Ok((entries, summary))
}

fn networks(text: &str) -> Vec<String> {
    try_read(text, LIMITS).unwrap().0.iter().map(|entry| entry.network.to_string()).collect()
}

#[test]
fn lists_as_they_are_published_are_read() {
    let drop = "; Spamhaus DROP List 2026/11/20\n; Last-Modified: x\n1.10.16.0/20 ; SBL256894\n1.19.0.0/16 ; SBL434604\n";
    assert_eq!(networks(drop), ["1.10.16.0/20", "1.19.0.0/16"]);
    assert_eq!(try_read(drop, LIMITS).unwrap().0[0].reason.as_deref(), Some("SBL256894"));

    let drop_json = "{\"cidr\":\"1.10.16.0/20\",\"sblid\":\"SBL256894\",\"rir\":\"apnic\"}\n\
                     {\"cidr\":\"2a06:f680::/29\",\"sblid\":\"SBL1\",\"rir\":\"ripencc\"}\n\
                     {\"type\":\"metadata\",\"timestamp\":1763600000,\"size\":2,\"records\":2}\n";
    assert_eq!(networks(drop_json), ["1.10.16.0/20", "2a06:f680::/29"]);
    assert_eq!(try_read(drop_json, LIMITS).unwrap().0[1].reason.as_deref(), Some("SBL1"));

    let netset = "#\n# firehol_level1\n#\n# Maintainer: x\n\n1.10.16.0/20\r\n5.188.10.0/23\r\n";
    assert_eq!(networks(netset), ["1.10.16.0/20", "5.188.10.0/23"]);

    assert_eq!(networks("192.0.2.1\t7\n192.0.2.2\t3\n"), ["192.0.2.1/32", "192.0.2.2/32"]);
    assert_eq!(
        networks("192.0.2.0-192.0.2.127\n192.0.2.128 - 192.0.2.130\n"),
        ["192.0.2.0/25", "192.0.2.128/31", "192.0.2.130/32"]
    );
    assert_eq!(networks("::ffff:192.0.2.1\n192.0.2.77/24\n"), ["192.0.2.1/32", "192.0.2.0/24"]);
    let published = "{\"createDate\":\"x\",\"prefixes\":[{\"ip_prefix\":\"192.0.2.0/24\",\"region\":\"x\"}],\
                     \"ipv6_prefixes\":[{\"ipv6_prefix\":\"2001:db8::/32\"}]}";
    assert_eq!(networks(published), ["192.0.2.0/24", "2001:db8::/32"]);
    assert_eq!(networks("[\"192.0.2.1\",\n \"2001:db8::/32\"]"), ["192.0.2.1/32", "2001:db8::/32"]);
}

#[test]
fn nginx_denies_are_read_and_its_allows_left_out() {
    let text = "# managed by us\nallow 203.0.113.5;\ndeny 192.0.2.1; # scans\n  deny   198.51.100.0/24 ;deny 2001:db8::1;\n";
    let (entries, summary) = try_read(text, LIMITS).unwrap();
    assert_eq!(entries.len(), 3);
    assert_eq!(entries[0].reason.as_deref(), Some("scans"));
    assert_eq!(summary.allows, 1);
    let error = try_read("deny all;\n", LIMITS).unwrap_err();
    assert!(error.to_string().contains("deny all"), "{error}");
}

#[test]
fn csv_columns_are_found_by_their_names_or_their_places() {
    let text = "id,reason,IP,expires_at\n1,\"a, \"\"b\"\"\",192.0.2.1,2026-12-31T00:00:00Z\n2,,192.0.2.2,\n3,x,192.0.2.3,2026-12-31\n";
    let (entries, _) = try_read(text, LIMITS).unwrap();
    assert_eq!(entries[0].reason.as_deref(), Some("a, \"b\""));
    assert_eq!(entries[0].expires, Some(UnixMs(1_798_675_200_000)));
    assert_eq!((entries[1].reason.as_deref(), entries[1].expires), (None, None));
    assert_eq!(entries[2].expires, entries[0].expires);
    let (entries, _) = try_read("192.0.2.1,bad one,1798675200\n192.0.2.2\n", LIMITS).unwrap();
    assert_eq!(
        (entries[0].reason.as_deref(), entries[0].expires),
        (Some("bad one"), Some(UnixMs(1_798_675_200_000)))
    );
    assert_eq!(entries.len(), 2);
}

fn with_bad(good: usize, bad: usize) -> String {
    let good = (0..good).map(|n| format!("192.0.2.{n}\n"));
    let bad = (0..bad).map(|n| format!("<p>garbage {n}\u{1b}[2J</p>\n"));
    good.chain(bad).collect()
}

#[test]
fn bad_lines_are_counted_and_named_and_the_rest_used_up_to_the_bound() {
    let (entries, summary) = try_read(&with_bad(95, 5), LIMITS).unwrap();
    assert_eq!((entries.len(), summary.lines, summary.bad), (95, 100, 5));
    assert_eq!((summary.shown.len(), summary.shown[0].line), (5, 96));
    let error = try_read(&with_bad(94, 6), LIMITS).unwrap_err().to_string();
    assert!(
        error.contains("6 of its 100 lines") && error.contains("5 %") && error.contains("line 95"),
        "{error}"
    );
    assert!(!error.contains('\u{1b}'), "{error}");
    let all = Limits { max_bad: 1.0, ..LIMITS };
    assert_eq!(try_read(&with_bad(1, 50), all).unwrap().1.shown.len(), MAX_SHOWN);
}

#[test]
fn what_is_no_list_is_refused_as_a_whole() {
    for text in
        ["", "# nothing\n\n", "{}", "[]", "{\"error\":\"rate limited\"}", "<!DOCTYPE html>\n<html></html>\n"]
    {
        assert!(try_read(text, LIMITS).is_err(), "{text:?}");
    }
    let cut = "[\"192.0.2.1\",\n\"192.0.2.";
    assert_eq!(try_read(cut, LIMITS).unwrap_err(), ListError::Json { line: 2, column: 9 });
    assert!(try_read(&"[".repeat(100_000), LIMITS).is_err());
    for text in [with_bad(100, 0), format!("[{}\"192.0.2.1\"]", "\"192.0.2.1\",".repeat(99))] {
        let few = Limits { max_entries: 99, ..LIMITS };
        assert_eq!(try_read(&text, few).unwrap_err(), ListError::TooManyEntries { max: 99 });
    }
    // A range of a handful of characters must not become a million entries.
    assert!(
        try_read(
            "::1-ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe\n192.0.2.1\n",
            Limits { max_bad: 0.5, ..LIMITS }
        )
        .is_ok()
    );
}

fn written(format: Format, entries: &[Writable<'_>]) -> String {
    let mut out = Vec::new();
    write(format, entries.iter().copied(), &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn writable<'a>(network: &str, reason: &'a str, expires: Option<i64>) -> Writable<'a> {
    Writable {
        network: network.parse().unwrap(),
        reason,
        source: "cli",
        created_at: UnixMs(1_700_000_000_000),
        expires: expires.map(UnixMs),
    }
}

#[test]
fn what_was_written_is_read_back() {
    let entries = [
        writable("192.0.2.1/32", "a, \"b\"", Some(1_798_675_200_000)),
        writable("2001:db8::/32", "", None),
        writable("198.51.100.0/24", "=cmd()", None),
    ];
    for format in [Format::Csv, Format::Json] {
        let (back, _) = try_read(&written(format, &entries), LIMITS).unwrap();
        for (entry, back) in entries.iter().zip(&back) {
            assert_eq!((entry.network, entry.expires), (back.network, back.expires));
            assert_eq!(entry.reason, back.reason.as_deref().unwrap_or_default());
        }
        assert_eq!(back.len(), entries.len());
    }
    for format in [Format::Plain, Format::Nginx] {
        let text = written(format, &entries);
        assert_eq!(Format::detect(text.as_bytes()), format);
        assert_eq!(networks(&text), ["192.0.2.1/32", "2001:db8::/32", "198.51.100.0/24"]);
    }
    assert_eq!(written(Format::Json, &[]), "[]\n");
}

#[test]
fn a_strangers_reason_stays_a_comment_and_no_formula() {
    let reason = "x\nallow all;\r\n=1+1";
    let entries = [writable("192.0.2.1/32", reason, None), writable("192.0.2.2/32", "=HYPERLINK(1)", None)];
    assert_eq!(written(Format::Nginx, &entries).lines().count(), 2);
    assert_eq!(written(Format::Plain, &entries).lines().count(), 2);
    assert!(written(Format::Csv, &entries).contains(",'=HYPERLINK(1),"));
    let (back, _) = try_read(&written(Format::Json, &entries), LIMITS).unwrap();
    assert!(!back[0].reason.as_deref().unwrap().contains('\n'));
}

proptest! {
    #[test]
    fn no_bytes_make_a_reader_panic_or_pass_its_bounds(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        for format in Format::ALL {
            let mut count = 0;
            let limits = Limits { max_entries: 5, max_bad: 1.0 };
            let result = read(format, &bytes, limits, &mut |_| count += 1);
            prop_assert!(count <= 5);
            if let Ok(summary) = result {
                prop_assert_eq!(summary.entries, count);
            }
        }
    }

    #[test]
    fn no_text_of_lists_makes_a_reader_panic(text in "([0-9./:;,#\"{}\\[\\] \n-]|deny |cidr|192.0.2.1){0,60}") {
        for format in Format::ALL {
            let _ = read(format, text.as_bytes(), LIMITS, &mut |_| ());
        }
    }
}

#[test]
fn a_quote_that_is_not_closed_does_not_hide_the_rest_of_a_list() {
    let rest: String = (0..100).map(|n| format!("198.51.100.{n},scans\n")).collect();
    let list = format!("192.0.2.1,ok\n192.0.2.2,\"><script>\n{rest}");
    let error = try_read(&list, LIMITS).unwrap_err();
    let ListError::TooManyBad { bad, lines, first, .. } = &error else { panic!("{error}") };
    assert_eq!((*bad, *lines, first.line), (100, 102, 3), "{error}");
    // Two lines in one cell are no reason to doubt a list.
    let honest = "192.0.2.1,\"seen twice,\nthen never again\"\n192.0.2.2,ok\n";
    assert_eq!(networks(honest), ["192.0.2.1/32", "192.0.2.2/32"]);
}
