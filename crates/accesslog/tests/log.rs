//! Whole logs: packed or not, cut off, broken, of bytes that nobody chose.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::fmt::Write as _;
use std::io::{self, Cursor, Read, Write as _};

use flate2::write::GzEncoder;
use portcullis_accesslog::{
    Batch, Choice, Compression, Counts, Format, Log, LogError, MAX_LINE, MAX_SHOWN, PROBE_LINES, Parser,
};
use proptest::prelude::*;

fn line(n: u64) -> String {
    format!(
        "192.0.2.{} - - [17/Oct/2022:14:{:02}:{:02} +0000] \"GET /page/{n}?n={n} HTTP/1.1\" 200 {n} \"-\" \"curl/8\"",
        n % 250,
        n / 60 % 60,
        n % 60
    )
}

fn text(lines: u64) -> String {
    (0..lines).fold(String::new(), |mut text, n| {
        writeln!(text, "{}", line(n)).unwrap();
        text
    })
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn open(bytes: Vec<u8>) -> Result<Log, LogError> {
    Log::open(Box::new(Cursor::new(bytes)), Choice::Auto, None)
}

/// The paths of all records, and what was counted.
fn read(mut log: Log) -> Result<(Vec<String>, Counts), LogError> {
    let (mut paths, mut batch) = (Vec::new(), Batch::default());
    loop {
        let is_more = log.fill(&mut batch)?;
        paths.extend(batch.iter().map(|record| record.path.into_owned()));
        batch.clear();
        if !is_more {
            return Ok((paths, log.counts().clone()));
        }
    }
}

#[test]
fn a_log_is_the_same_however_it_is_packed() {
    let plain = text(5_000);
    let (first, second) = plain.split_at(plain.len() / 3);
    let zstd = |text: &str| zstd::encode_all(text.as_bytes(), 1).unwrap();
    let forms = [
        (Compression::None, plain.clone().into_bytes()),
        (Compression::None, plain.replace('\n', "\r\n").into_bytes()),
        (Compression::None, plain.trim_end().as_bytes().to_vec()),
        (Compression::Gzip, gzip(plain.as_bytes())),
        (Compression::Gzip, [gzip(first.as_bytes()), gzip(second.as_bytes())].concat()),
        (Compression::Zstd, zstd(&plain)),
        (Compression::Zstd, [zstd(first), zstd(second)].concat()),
    ];
    for (compression, bytes) in forms {
        let log = open(bytes).unwrap();
        assert_eq!((log.compression(), log.format()), (compression, Some(Format::Combined)));
        let (paths, counts) = read(log).unwrap();
        assert_eq!((paths.len(), paths[4_999].as_str()), (5_000, "/page/4999"));
        assert_eq!((counts.records, counts.bad, counts.is_truncated), (5_000, 0, false));
    }
}

#[test]
fn what_came_of_a_log_that_was_cut_off_is_used() {
    let packed = gzip(text(5_000).as_bytes());
    for bytes in [packed[..packed.len() / 2].to_vec(), {
        let packed = zstd::encode_all(text(50_000).as_bytes(), 1).unwrap();
        packed[..packed.len() / 2].to_vec()
    }] {
        let (paths, counts) = read(open(bytes).unwrap()).unwrap();
        assert!(counts.is_truncated && paths.len() > 100, "{}", paths.len());
        assert!(counts.bad <= 1, "the line in which it ends");
    }
    let plain = text(10);
    let (paths, counts) = read(open(plain.as_bytes()[..plain.len() - 40].to_vec()).unwrap()).unwrap();
    assert_eq!((paths.len(), counts.bad, counts.is_truncated), (9, 1, false));
    assert_eq!(counts.shown[0].number, 10);
}

#[test]
fn bad_lines_are_counted_and_the_first_of_them_kept() {
    let mut mixed = String::new();
    for n in 0..100 {
        writeln!(mixed, "{}", line(n)).unwrap();
        if n % 4 == 0 {
            mixed.push_str("something else\n\n");
        }
    }
    mixed.push_str(&"x".repeat(MAX_LINE + 5));
    mixed.push('\n');
    let (paths, counts) = read(open(mixed.into_bytes()).unwrap()).unwrap();
    assert_eq!((paths.len(), counts.records, counts.bad, counts.lines), (100, 100, 26, 151));
    assert_eq!(counts.shown.len(), MAX_SHOWN);
    assert_eq!(counts.shown[0].to_string(), "line 2: it has no request in quotes");
    assert_eq!(counts.shown[0].text, "something else");
}

#[test]
fn a_log_of_mostly_bad_lines_is_an_error_that_names_the_format() {
    let bad = (0..PROBE_LINES).fold(String::new(), |mut text, n| {
        let written = if n % 3 == 0 { writeln!(text, "{}", line(n)) } else { writeln!(text, "rubbish {n}") };
        written.unwrap();
        text
    });
    let error = read(open(bad.into_bytes()).unwrap()).unwrap_err().to_string();
    assert!(error.contains("666 of its first 1000 lines are no requests as combined"), "{error}");
    assert!(error.contains("line 2: it has no request in quotes") && error.contains("--format"), "{error}");
    let unknown = open(b"a,b,c\n1,2,3\n".to_vec()).err().unwrap().to_string();
    assert!(unknown.contains("in no known format") && unknown.contains("--map"), "{unknown}");
    let mut only =
        Log::open(Box::new(Cursor::new(text(9).into_bytes())), Choice::Only(Format::Caddy), None).unwrap();
    let error = only.fill(&mut Batch::default()).unwrap_err().to_string();
    assert!(error.contains("9 of its first 9 lines are no requests as caddy"), "{error}");
}

#[test]
fn an_empty_log_and_one_of_other_messages_have_no_requests() {
    for bytes in [&b""[..], b"\n\r\n", b"{\"level\":\"info\",\"msg\":\"started\"}\n"] {
        let log = open(bytes.to_vec()).unwrap();
        assert_eq!(log.format(), None);
        assert_eq!(read(log).unwrap().1.records, 0);
    }
}

#[test]
fn a_reader_that_fails_is_an_error_and_no_end() {
    struct Fails;
    impl Read for Fails {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("the disk is gone"))
        }
    }
    let begun = Cursor::new(text(50_000).into_bytes()).chain(Fails);
    let log = Log::open(Box::new(begun), Choice::Auto, None).unwrap();
    assert_eq!(read(log).unwrap_err().to_string(), "the disk is gone");
    let mut damaged = gzip(text(5_000).as_bytes());
    let middle = damaged.len() / 2;
    damaged[middle..middle + 64].fill(0xff);
    let result = open(damaged).and_then(read);
    assert!(matches!(result, Err(LogError::Io(_))), "{result:?}");
}

/// Lines that are nearly right.
fn hostile_line() -> impl Strategy<Value = Vec<u8>> {
    let pieces = prop_oneof![
        Just(&b"192.0.2.1 - - [17/Oct/2022:14:14:21 +0000] \"GET /a HTTP/1.1\" 200 1 \"-\" \"x\""[..]),
        Just(&b"{\"ip\":\"192.0.2.1\",\"uri\":\"/\",\"time\":1666016061,\"status\":200}"[..]),
        Just(&b"1.2.3.4:5 [17/Oct/2022:14:14:21.885] f b/s 0/0/0/1/1 200 1 - - ---- 1/1/1/1/0 0/0 \"GET / HTTP/1.1\""[..]),
        Just(&b"[17/Oct/2022:14:14:21 +0000] - 200 200 - GET http a \"/\" [Client 1.2.3.4] [Length 1] \"a\" \"b\""[..]),
        Just(&b"\\x"[..]),
        Just(&b"\"["[..]),
        Just(&b": | "[..]),
    ];
    (proptest::collection::vec(pieces, 1..4), any::<prop::sample::Index>(), any::<u8>()).prop_map(
        |(pieces, at, byte)| {
            let mut line = pieces.concat();
            let at = at.index(line.len());
            line[at] = byte;
            line
        },
    )
}

proptest! {
    #[test]
    fn no_bytes_make_a_log_panic(
        bytes in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..600),
            proptest::collection::vec(hostile_line(), 1..8).prop_map(|lines| lines.join(&b'\n')),
        ]
    ) {
        if let Ok((paths, counts)) = open(bytes).and_then(read) {
            prop_assert_eq!(paths.len() as u64, counts.records);
            prop_assert!(counts.records + counts.bad + counts.other <= counts.lines);
        }
    }

    #[test]
    fn a_batch_gives_back_what_it_was_given(lines in proptest::collection::vec(hostile_line(), 1..20)) {
        let mut batch = Batch::default();
        let mut parser = Parser::new(Choice::Auto, None);
        let mut given = Vec::new();
        for line in &lines {
            if let Ok((record, _)) = parser.parse(line) {
                batch.push(&record);
                given.push(format!("{record:?}"));
            }
        }
        let back: Vec<String> = batch.iter().map(|record| format!("{record:?}")).collect();
        prop_assert_eq!(back, given);
    }
}
