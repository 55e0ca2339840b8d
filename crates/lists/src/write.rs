//! From blocks to a list that another program reads. Reasons may come from a stranger's request: must not let
//! them end a line, begin a formula, or become a directive.

use std::io::{self, Write};

use ipnet::IpNet;
use jiff::Timestamp;
use portcullis_model::{UnixMs, bare};
use serde_json::json;

use crate::Format;

/// What a spreadsheet takes for the beginning of a formula.
pub(crate) const FORMULA_STARTS: [char; 11] =
    ['=', '+', '-', '@', '\t', '\r', '\n', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}'];

/// A block to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Writable<'a> {
    pub network: IpNet,
    pub reason: &'a str,
    pub source: &'a str,
    pub created_at: UnixMs,
    /// `None` is without an end.
    pub expires: Option<UnixMs>,
}

/// Writes the list. The plain form and nginx's have no place for an expiry: it is in the comment.
///
/// # Errors
/// Those of `out`.
pub fn write<'a>(
    format: Format,
    entries: impl IntoIterator<Item = Writable<'a>>,
    out: &mut dyn Write,
) -> io::Result<()> {
    match format {
        Format::Plain => entries
            .into_iter()
            .try_for_each(|entry| writeln!(out, "{}{}", bare(&entry.network), comment(&entry))),
        Format::Nginx => entries
            .into_iter()
            .try_for_each(|entry| writeln!(out, "deny {};{}", bare(&entry.network), comment(&entry))),
        Format::Csv => write_csv(entries, out),
        Format::Json => write_json(entries, out),
    }
}

fn write_csv<'a>(entries: impl IntoIterator<Item = Writable<'a>>, out: &mut dyn Write) -> io::Result<()> {
    let mut csv = csv::Writer::from_writer(out);
    csv.write_record(["network", "reason", "expires", "source", "created"])?;
    for entry in entries {
        csv.write_record([
            &*bare(&entry.network),
            &cell(entry.reason),
            &entry.expires.map(iso).unwrap_or_default(),
            &cell(entry.source),
            &iso(entry.created_at),
        ])?;
    }
    csv.flush()
}

/// One object per line, in an array, so that it can be read as a whole and compared line by line.
fn write_json<'a>(entries: impl IntoIterator<Item = Writable<'a>>, out: &mut dyn Write) -> io::Result<()> {
    let mut separator = "[\n";
    for entry in entries {
        let object = json!({
            "network": bare(&entry.network),
            "reason": harmless(entry.reason),
            "expires": entry.expires.map(iso),
            "source": entry.source,
            "created": iso(entry.created_at),
        });
        write!(out, "{separator}{object}")?;
        separator = ",\n";
    }
    writeln!(out, "{}", if separator == "[\n" { "[]" } else { "\n]" })
}

fn comment(entry: &Writable<'_>) -> String {
    let one_line = harmless(entry.reason);
    let until = entry.expires.map(|at| format!("until {}", iso(at))).unwrap_or_default();
    match (one_line.trim(), until.as_str()) {
        ("", "") => String::new(),
        ("", text) | (text, "") => format!(" # {text}"),
        (why, until) => format!(" # {why} ({until})"),
    }
}

fn cell(text: &str) -> String {
    let text = harmless(text);
    if text.starts_with(FORMULA_STARTS) { format!("'{text}") } else { text }
}

/// One line without what a terminal obeys, hides or reorders: control characters and Unicode's format ones.
fn harmless(text: &str) -> String {
    let is_format = |c: char| {
        matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
    };
    text.chars().map(|c| if c.is_control() || is_format(c) { ' ' } else { c }).collect()
}

fn iso(at: UnixMs) -> String {
    Timestamp::from_millisecond(at.0).map(|at| at.to_string()).unwrap_or_default()
}
