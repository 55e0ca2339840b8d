//! What reaches a terminal: escaped text, colours, wrapped fields, aligned tables, JSON.
//!
//! Owns the only way to standard output for the commands. Must not write a character that a client could
//! have chosen and that a terminal obeys: every piece of text passes [`escape`] here.

use std::borrow::Cow;
use std::io::{self, BufWriter, IsTerminal as _, Write};

use clap::ColorChoice;
use clap::builder::styling::{AnsiColor, Style};
use portcullis_notify::is_hidden;
pub(crate) use portcullis_notify::visible as escape;
use serde::Serialize;
use serde_json::Value;

use super::time;

pub(crate) use portcullis_notify::words::{bytes, count, number};

pub(crate) const PLAIN: Style = Style::new();
pub(crate) const BOLD: Style = Style::new().bold();
pub(crate) const DIM: Style = Style::new().dimmed();
pub(crate) const GREEN: Style = AnsiColor::Green.on_default();
pub(crate) const YELLOW: Style = AnsiColor::Yellow.on_default();
pub(crate) const RED: Style = AnsiColor::Red.on_default();
pub(crate) const MAGENTA: Style = AnsiColor::Magenta.on_default();

/// Fields are wrapped at this column at the latest: longer lines are hard to read.
const MAX_TEXT_WIDTH: usize = 110;
/// The column at which the text of a field begins.
const FIELD_INDENT: usize = 12;
/// Between two columns of a table.
const GAP: usize = 2;
/// Columns of an IPv6 address: one that is cut cannot be copied.
const MAX_ADDRESS: usize = 39;
/// A column of sentences that would be narrower stands below the others.
const MIN_BESIDE: usize = 40;

/// What [`escape`] does, for JSON text, as JSON escapes. Outside of strings JSON has no such character but the line
/// feeds between its lines.
fn escape_json(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    let mut units = [0; 2];
    for c in json.chars() {
        if c == '\n' || !is_hidden(c) {
            escaped.push(c);
        } else {
            for unit in c.encode_utf16(&mut units) {
                escaped.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    escaped
}

/// Whether colours are wanted on a stream.
pub(crate) fn wants_colour(choice: ColorChoice, is_terminal: bool) -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    match choice {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        ColorChoice::Auto => {
            is_terminal && !is_set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
        }
    }
}

/// Standard output as the commands see it.
pub(crate) struct Screen {
    out: Box<dyn Write>,
    colour: bool,
    /// Columns of the terminal; `None` when there is none, and nothing is wrapped or cut.
    width: Option<usize>,
}

impl Screen {
    pub(crate) fn stdout(choice: ColorChoice) -> Self {
        let stdout = io::stdout();
        let is_terminal = stdout.is_terminal();
        let width = if is_terminal { terminal_width() } else { None };
        Self { out: Box::new(BufWriter::new(stdout)), colour: wants_colour(choice, is_terminal), width }
    }

    /// Whether there is a terminal, and it has fewer columns than that.
    pub(crate) fn is_narrower_than(&self, columns: usize) -> bool {
        self.width.is_some_and(|width| width < columns)
    }

    /// One line.
    pub(crate) fn line(&mut self, text: &str) -> io::Result<()> {
        self.spans(&[(PLAIN, text)])
    }

    /// One line of pieces with styles.
    pub(crate) fn spans(&mut self, spans: &[(Style, &str)]) -> io::Result<()> {
        for (style, text) in spans {
            self.piece(*style, text)?;
        }
        writeln!(self.out)
    }

    pub(crate) fn blank(&mut self) -> io::Result<()> {
        writeln!(self.out)
    }

    /// A line that stands out.
    pub(crate) fn title(&mut self, text: &str) -> io::Result<()> {
        self.spans(&[(BOLD, text)])
    }

    /// A label and a text beside it, wrapped on a terminal. Without a label the text goes on below the
    /// one before.
    pub(crate) fn field(&mut self, label: &str, text: &str) -> io::Result<()> {
        self.styled_field(label, PLAIN, text)
    }

    pub(crate) fn styled_field(&mut self, label: &str, style: Style, text: &str) -> io::Result<()> {
        let room = match self.width {
            Some(width) => width.min(MAX_TEXT_WIDTH).saturating_sub(FIELD_INDENT).max(20),
            None => usize::MAX,
        };
        let text = escape(text);
        for (n, line) in wrap(&text, room).into_iter().enumerate() {
            let label = if n == 0 { label } else { "" };
            self.piece(DIM, &pad(label, FIELD_INDENT, Align::Left))?;
            self.piece(style, &line)?;
            writeln!(self.out)?;
        }
        Ok(())
    }

    /// The rows that were added since the last time, and the heading before the first ones.
    pub(crate) fn table(&mut self, table: &mut Table) -> io::Result<()> {
        let rows = std::mem::take(&mut table.rows);
        for row in &rows {
            for (width, cell) in table.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.text.chars().count());
            }
        }
        if !std::mem::replace(&mut table.has_heading, true) {
            let heading: Vec<Cell> = table.columns.iter().map(|(name, _)| Cell::styled(name, DIM)).collect();
            self.row(table, &heading)?;
        }
        rows.iter().try_for_each(|row| self.row(table, row))
    }

    fn row(&mut self, table: &Table, row: &[Cell]) -> io::Result<()> {
        let Some((last, others)) = row.split_last() else { return Ok(()) };
        let mut used = table.indent;
        write!(self.out, "{:used$}", "")?;
        for (n, cell) in others.iter().enumerate() {
            let column = cut_width(table.widths[n], self.width);
            let text = cut(&cell.text, column);
            self.piece(cell.style, &pad(&text, column, table.columns[n].1))?;
            write!(self.out, "{:GAP$}", "")?;
            used += column + GAP;
        }
        match (table.columns[others.len()].1, self.width) {
            (Align::Right, _) => {
                self.piece(last.style, &pad(&last.text, table.widths[others.len()], Align::Right))?;
            }
            (Align::Left, None) => self.piece(last.style, &last.text)?,
            (Align::Left, Some(width)) if table.wraps => self.rest(last, used, width)?,
            // The last column takes what is left of the line.
            (Align::Left, Some(width)) => {
                let text = cut(&last.text, width.saturating_sub(used).max(8)).into_owned();
                self.piece(last.style, &text)?;
            }
        }
        writeln!(self.out)
    }

    /// A last column that is not cut: beside the others if there is room, or below them.
    fn rest(&mut self, cell: &Cell, used: usize, width: usize) -> io::Result<()> {
        const BELOW: usize = 6;
        let is_below = width < used + MIN_BESIDE && used + cell.text.chars().count() > width;
        let indent = if is_below { BELOW } else { used };
        for (n, line) in wrap(&cell.text, width.saturating_sub(indent).max(20)).into_iter().enumerate() {
            if n > 0 || is_below {
                write!(self.out, "\n{:indent$}", "")?;
            }
            self.piece(cell.style, &line)?;
        }
        Ok(())
    }

    /// A whole JSON document; instants become ISO 8601.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        let value = with_instants(serde_json::to_value(value)?);
        writeln!(self.out, "{}", escape_json(&serde_json::to_string_pretty(&value)?))
    }

    /// A piece of a JSON document that is written as it is read.
    pub(crate) fn json_text(&mut self, text: &str) -> io::Result<()> {
        write!(self.out, "{}", escape_json(text))
    }

    /// One JSON object in one line.
    pub(crate) fn json_line(&mut self, value: &impl Serialize) -> io::Result<()> {
        writeln!(self.out, "{}", escape_json(&serde_json::to_string(value)?))
    }

    /// Text that this program generates for another program: printed as it is.
    pub(crate) fn script(&mut self, script: &[u8]) -> io::Result<()> {
        self.out.write_all(script)
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn piece(&mut self, style: Style, text: &str) -> io::Result<()> {
        let text = escape(text);
        if self.colour && style != PLAIN && !text.trim().is_empty() {
            write!(self.out, "{style}{text}{style:#}")
        } else {
            write!(self.out, "{text}")
        }
    }
}

fn terminal_width() -> Option<usize> {
    terminal_size::terminal_size().map(|(width, _)| usize::from(width.0)).filter(|width| *width >= 20)
}

/// On which side of its column a text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
}

/// A text in a table, already escaped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    pub(crate) fn new(text: impl AsRef<str>) -> Self {
        Self::styled(text, PLAIN)
    }

    pub(crate) fn styled(text: impl AsRef<str>, style: Style) -> Self {
        Self { text: escape(text.as_ref()).into_owned(), style }
    }
}

/// Rows under a heading. Columns grow with what is in them and never shrink, so that rows that are
/// printed later stay aligned. On a terminal the last column is cut at the edge, others at a third
/// of it, but no address.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    columns: Vec<(&'static str, Align)>,
    widths: Vec<usize>,
    rows: Vec<Vec<Cell>>,
    has_heading: bool,
    indent: usize,
    wraps: bool,
}

impl Table {
    pub(crate) fn new(columns: &[(&'static str, Align)]) -> Self {
        Self {
            columns: columns.to_vec(),
            widths: columns.iter().map(|(name, _)| name.chars().count()).collect(),
            rows: Vec::new(),
            has_heading: false,
            indent: 0,
            wraps: false,
        }
    }

    /// Moves the whole table to the right.
    pub(crate) fn indented(mut self, by: usize) -> Self {
        self.indent = by;
        self
    }

    /// Reserves room, in the order of the columns, for a table whose longest rows may come later.
    pub(crate) fn reserve(&mut self, widths: &[usize]) {
        for (width, least) in self.widths.iter_mut().zip(widths) {
            *width = (*width).max(*least);
        }
    }

    /// Wraps the last column, which holds sentences, instead of cutting it.
    pub(crate) fn wrapped(mut self) -> Self {
        self.wraps = true;
        self
    }

    /// Leaves out the heading.
    pub(crate) fn without_heading(mut self) -> Self {
        self.has_heading = true;
        self
    }

    pub(crate) fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }
}

/// The width of a column that is not the last one.
fn cut_width(width: usize, terminal: Option<usize>) -> usize {
    terminal.map_or(width, |terminal| width.min((terminal / 3).max(MAX_ADDRESS)))
}

fn cut(text: &str, width: usize) -> Cow<'_, str> {
    if text.chars().count() <= width {
        return Cow::Borrowed(text);
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect::<String>().into()
}

fn pad(text: &str, width: usize, align: Align) -> String {
    match align {
        Align::Left => format!("{text:<width$}"),
        Align::Right => format!("{text:>width$}"),
    }
}

/// Breaks at blanks; a word that is longer than a line is broken anywhere.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in text.split(' ') {
        let mut word = word;
        let mut length = word.chars().count();
        if used > 0 && length.saturating_add(used + 1) > width {
            lines.push(String::new());
            used = 0;
        }
        while length > width {
            let at = word.char_indices().nth(width).map_or(word.len(), |(at, _)| at);
            if let Some(line) = lines.last_mut() {
                line.push_str(&word[..at]);
            }
            lines.push(String::new());
            word = &word[at..];
            length -= width;
        }
        if let Some(line) = lines.last_mut() {
            if used > 0 {
                line.push(' ');
                used += 1;
            }
            line.push_str(word);
            used += length;
        }
    }
    lines
}

/// The names under which numbers are milliseconds since 1970.
const INSTANTS: &[&str] = &[
    "at",
    "created_at",
    "detected_at",
    "expires_at",
    "finished_at",
    "first_seen",
    "last_seen",
    "minute",
    "removed_at",
    "since",
    "started_at",
    "time",
    "until",
];

/// Instants as people and scripts read them: `2026-09-01T12:34:56.789Z`.
fn with_instants(value: Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .into_iter()
            .map(|(name, value)| {
                let instant = value.as_i64().filter(|_| INSTANTS.contains(&name.as_str()));
                let value = match instant {
                    Some(ms) => Value::String(time::iso(portcullis_model::UnixMs(ms))),
                    None => with_instants(value),
                };
                (name, value)
            })
            .collect::<serde_json::Map<_, _>>()
            .into(),
        Value::Array(items) => items.into_iter().map(with_instants).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value,
    }
}

/// Tells the person at the terminal something that is no result. A terminal that is gone is no failure.
pub(crate) fn tell(kind: &str, text: &str) {
    let mut stderr = io::stderr().lock();
    for line in text.lines() {
        // Nobody is left to tell.
        if writeln!(stderr, "{kind}{}", escape(line)).is_err() {
            return;
        }
    }
}

/// The first `max` characters, escaped, with a mark where something is missing.
pub(crate) fn short(text: &str, max: usize) -> String {
    cut(&escape(text), max).into_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    const HOSTILE: &[&str] = &[
        "\u{1b}[2J\u{1b}[H",
        "\u{1b}]0;owned\u{7}",
        "a\r\nSet-Cookie: x",
        "\u{9b}31m",
        "\u{9d}0;x\u{9c}",
        "\u{0}\u{8}\u{7f}",
        "evil\u{202e}txt.exe",
        "\u{2066}x\u{2069}\u{61c}\u{200f}",
        "zero\u{200b}width\u{feff}\u{2060}",
        "tag\u{e0041}\u{ad}",
        "line\u{2028}separator",
    ];

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn printed(colour: bool, width: Option<usize>, print: impl FnOnce(&mut Screen)) -> String {
        let out = Shared::default();
        let mut screen = Screen { out: Box::new(out.clone()), colour, width };
        print(&mut screen);
        screen.flush().unwrap();
        let bytes = out.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn no_hostile_string_reaches_the_terminal_by_any_way() {
        for hostile in HOSTILE {
            let all = printed(false, Some(60), |screen| {
                screen.line(hostile).unwrap();
                screen.title(hostile).unwrap();
                screen.field(hostile, hostile).unwrap();
                screen.spans(&[(RED, hostile)]).unwrap();
                let mut table = Table::new(&[("a", Align::Left), ("b", Align::Right)]);
                table.row(vec![Cell::new(hostile), Cell::styled(hostile, RED)]);
                screen.table(&mut table).unwrap();
                screen.json(&serde_json::json!({ "key": hostile, *hostile: [1] })).unwrap();
                screen.json_line(hostile).unwrap();
            });
            assert!(!all.chars().any(|c| c != '\n' && is_hidden(c)), "{all:?}");
        }
    }

    #[test]
    fn escaped_text_says_what_was_there() {
        assert_eq!(escape("/a\u{1b}[1m"), "/a\\u{1b}[1m");
        assert_eq!(escape("a\r\n\tb"), "a\\r\\n\\tb");
        assert!(matches!(escape("/straße?q=日本"), Cow::Borrowed(_)));
    }

    #[test]
    fn escaped_json_reads_back_as_the_original() {
        for hostile in HOSTILE {
            let json = printed(false, None, |screen| screen.json_line(hostile).unwrap());
            assert_eq!(serde_json::from_str::<String>(&json).unwrap(), *hostile);
        }
    }

    #[test]
    fn colours_appear_only_when_they_are_wanted() {
        let print = |colour| printed(colour, None, |screen| screen.spans(&[(RED, "no")]).unwrap());
        assert_eq!(print(false), "no\n");
        assert_eq!(print(true), "\u{1b}[31mno\u{1b}[0m\n");
        assert!(!wants_colour(ColorChoice::Auto, false));
        assert!(wants_colour(ColorChoice::Always, false));
        assert!(!wants_colour(ColorChoice::Never, true));
    }

    #[test]
    fn fields_are_wrapped_at_the_edge_of_the_terminal() {
        let text = printed(false, Some(40), |screen| {
            screen.field("because", "it asked for twelve files that no visitor asks for").unwrap();
        });
        assert_eq!(text, "because     it asked for twelve files\n            that no visitor asks for\n");
        assert_eq!(wrap("abcdefgh ij", 3), ["abc", "def", "gh", "ij"]);
        assert_eq!(wrap("", 3), [""]);
    }

    #[test]
    fn later_rows_of_a_table_stay_aligned() {
        let text = printed(false, None, |screen| {
            let mut table = Table::new(&[("ip", Align::Left), ("n", Align::Right), ("path", Align::Left)]);
            table.row(vec![Cell::new("192.0.2.1"), Cell::new("12"), Cell::new("/")]);
            screen.table(&mut table).unwrap();
            table.row(vec![Cell::new("::1"), Cell::new("3"), Cell::new("/b")]);
            screen.table(&mut table).unwrap();
        });
        assert_eq!(text, "ip          n  path\n192.0.2.1  12  /\n::1         3  /b\n");
    }

    #[test]
    fn a_terminal_cuts_the_last_column_and_a_pipe_does_not() {
        let print = |width| {
            printed(false, width, |screen| {
                let mut table = Table::new(&[("a", Align::Left), ("path", Align::Left)]);
                table.row(vec![Cell::new("x"), Cell::new("/".repeat(50))]);
                screen.table(&mut table).unwrap();
            })
        };
        assert!(print(Some(30)).lines().all(|line| line.chars().count() <= 30));
        assert!(print(None).contains(&"/".repeat(50)));
    }

    #[test]
    fn sentences_in_a_table_are_never_cut() {
        let print = |width| {
            printed(false, Some(width), |screen| {
                let mut table = Table::new(&[("id", Align::Right), ("reason", Align::Left)]).wrapped();
                table.row(vec![Cell::new("1"), Cell::new("asked for twelve files that no visitor asks for")]);
                screen.table(&mut table).unwrap();
            })
        };
        assert_eq!(print(46), "id  reason\n 1  asked for twelve files that no visitor\n    asks for\n");
        assert_eq!(
            print(34),
            "id  reason\n 1  \n      asked for twelve files that\n      no visitor asks for\n"
        );
    }

    #[test]
    fn instants_in_json_are_iso_8601_and_other_numbers_are_not_touched() {
        let value = serde_json::json!({
            "created_at": 0, "expires_at": null, "count": 5,
            "list": [{ "time": 1_000, "status": 404 }],
        });
        assert_eq!(
            with_instants(value),
            serde_json::json!({
                "created_at": "1970-01-01T00:00:00.000Z", "expires_at": null, "count": 5,
                "list": [{ "time": "1970-01-01T00:00:01.000Z", "status": 404 }],
            })
        );
    }
}
