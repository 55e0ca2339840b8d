//! Access logs: whatever the lines are, reading ends, counts agree, and a record says nothing that is not in its line.

use std::io::Cursor;

use portcullis_accesslog::{Batch, Choice, Format, Log, Parser, Record};

/// A log, plain or packed, in each format.
pub fn access_log(data: &[u8]) {
    let choices = Format::ALL.map(Choice::Only);
    for choice in choices.into_iter().chain([Choice::Auto]) {
        whole(data, choice);
        let mut parser = Parser::new(choice, None);
        for line in data.split(|&b| b == b'\n') {
            if let Ok((record, _)) = parser.parse(line) {
                sound(&record, line.len());
            }
        }
    }
}

fn whole(data: &[u8], choice: Choice) {
    let Ok(mut log) = Log::open(Box::new(Cursor::new(data.to_vec())), choice, None) else { return };
    let mut batch = Batch::default();
    let mut records = 0;
    while let Ok(is_more) = log.fill(&mut batch) {
        records += batch.len() as u64;
        batch.clear();
        let counts = log.counts();
        assert_eq!(counts.records, records);
        assert_eq!(counts.formats.iter().sum::<u64>(), records);
        assert!(counts.records + counts.bad + counts.other <= counts.lines && counts.malformed <= records);
        if !is_more {
            break;
        }
    }
}

fn sound(record: &Record<'_>, line: usize) {
    assert!(record.status < 1_000 && record.time.0 > 0);
    assert!(record.is_malformed || (!record.method.is_empty() && !record.path.contains('?')));
    let texts =
        [&record.method, &record.host, &record.path, &record.query, &record.user_agent, &record.referer];
    for text in texts {
        // A byte that is no text becomes three.
        assert!(text.len() <= 3 * line + 3, "{text}");
    }
}
