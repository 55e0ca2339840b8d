//! CSV with a heading that names the columns, or without: network, reason, expiry.

use csv::{ReaderBuilder, StringRecord};
use portcullis_model::network_of;

use super::cells::{EXPIRES, NETWORK, REASON, expiry};
use super::{Entry, Reading, reason};
use crate::ListError;

/// Which column is which.
#[derive(Clone, Copy)]
struct Columns {
    network: usize,
    reason: Option<usize>,
    expires: Option<usize>,
}

pub(super) fn read(bytes: &[u8], reading: &mut Reading<'_>) -> Result<(), ListError> {
    let mut reader =
        ReaderBuilder::new().has_headers(false).flexible(true).comment(Some(b'#')).from_reader(bytes);
    let mut columns = None;
    let mut raw = csv::ByteRecord::new();
    loop {
        // Reading from memory, with any number of cells: there is nothing that could fail but the end.
        match reader.read_byte_record(&mut raw) {
            Ok(true) => {}
            Ok(false) | Err(_) => return Ok(()),
        }
        let line = raw.position().map_or(0, csv::Position::line);
        let record = StringRecord::from_byte_record_lossy(raw.clone());
        if record.iter().all(|cell| cell.trim().is_empty()) {
            continue;
        }
        let is_first = columns.is_none();
        let columns = *columns.get_or_insert_with(|| heading(&record).unwrap_or(WITHOUT_HEADING));
        if is_first && heading(&record).is_some() {
            continue;
        }
        swallowed(&record, line, reading);
        reading.line();
        match entry(&record, columns) {
            Ok(entry) => reading.entry(entry)?,
            Err(problem) => {
                reading.bad(line, &record.iter().collect::<Vec<_>>().join(","), problem);
            }
        }
    }
}

/// A quote that nobody closes takes the lines behind it into its cell: each that begins with an address is an entry
/// that is missing.
fn swallowed(record: &StringRecord, first: u64, reading: &mut Reading<'_>) {
    for cell in record {
        for (line, text) in (first..).zip(cell.lines()).skip(1) {
            let start = text.split(',').next().unwrap_or_default().trim().trim_matches('"');
            if network_of(start).is_ok() {
                reading.line();
                reading.bad(line, text, "it stands inside the quotes of an entry before it");
            }
        }
    }
}

const WITHOUT_HEADING: Columns = Columns { network: 0, reason: Some(1), expires: Some(2) };

/// The columns, if the record is a heading.
fn heading(record: &StringRecord) -> Option<Columns> {
    let names: Vec<String> = record.iter().map(|cell| unescaped(cell).to_ascii_lowercase()).collect();
    let find = |known: &[&str]| known.iter().find_map(|name| names.iter().position(|cell| cell == name));
    Some(Columns { network: find(NETWORK)?, reason: find(REASON), expires: find(EXPIRES) })
}

fn entry(record: &StringRecord, columns: Columns) -> Result<Entry, String> {
    let cell = |column: usize| unescaped(record.get(column).unwrap_or_default());
    Ok(Entry {
        network: network_of(cell(columns.network))?,
        reason: columns.reason.and_then(|column| reason(cell(column))),
        expires: columns.expires.map_or(Ok(None), |column| expiry(cell(column)))?,
    })
}

/// Takes back the quote that keeps a spreadsheet from reading a formula.
fn unescaped(cell: &str) -> &str {
    let cell = cell.trim().trim_start_matches('\u{feff}');
    match cell.strip_prefix('\'') {
        Some(rest) if rest.starts_with(crate::write::FORMULA_STARTS) => rest,
        _ => cell,
    }
}
