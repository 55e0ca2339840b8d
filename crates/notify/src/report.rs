//! The report of a day: figures with what they were before, tables, and what was found. As text, HTML and JSON.
//! Must not read anything: whoever makes one hands in the figures.

use jiff::tz::TimeZone;
use portcullis_model::UnixMs;
use serde_json::{Map, Value, json};

use crate::Message;
use crate::escape::line;
use crate::render::Page;
use crate::words::{bytes, iso, number, time};

/// Characters of a text in a table.
const MAX_CELL: usize = 90;

/// A day in figures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What the gateway is called.
    pub name: String,
    /// `2026-11-19`
    pub day: String,
    /// `Thursday`
    pub weekday: String,
    pub from: UnixMs,
    /// When the day ended, or when the report was made if that was before.
    pub until: UnixMs,
    pub is_over: bool,
    pub figures: Vec<Figure>,
    pub sections: Vec<Section>,
    /// What limits the figures.
    pub notes: Vec<String>,
}

/// A figure and what it was before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Figure {
    /// Its name in JSON.
    pub key: &'static str,
    pub title: &'static str,
    pub value: u64,
    pub is_bytes: bool,
    /// On the day before; `None` is not known.
    pub day_before: Option<u64>,
    /// On the same day of the week before.
    pub week_before: Option<u64>,
}

/// A table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// Its name in JSON.
    pub key: &'static str,
    pub title: &'static str,
    /// Names in JSON, and headings.
    pub columns: Vec<(&'static str, &'static str)>,
    pub rows: Vec<Vec<Cell>>,
}

/// What is in a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell {
    /// Whatever a client or a person chose.
    Text(String),
    Count(u64),
    Bytes(u64),
}

impl Cell {
    fn in_words(&self) -> String {
        match self {
            Self::Text(text) => line(text, MAX_CELL),
            Self::Count(n) => number(*n),
            Self::Bytes(n) => bytes(*n),
        }
    }

    fn as_json(&self) -> Value {
        match self {
            Self::Text(text) => json!(text),
            Self::Count(n) | Self::Bytes(n) => json!(n),
        }
    }
}

impl Figure {
    fn in_words(&self, value: u64) -> String {
        if self.is_bytes { bytes(value) } else { number(value) }
    }

    /// `1,234`, `+12 %`, `-3 %`: the figure and how it differs from the two days before.
    fn row(&self) -> Vec<String> {
        let title = self.title.to_owned();
        vec![
            title,
            self.in_words(self.value),
            change(self.value, self.day_before),
            change(self.value, self.week_before),
        ]
    }
}

/// By how much a figure differs from an earlier one.
fn change(now: u64, before: Option<u64>) -> String {
    match before {
        None => "?".to_owned(),
        Some(before) if before == now => "=".to_owned(),
        Some(0) => "new".to_owned(),
        Some(before) => {
            let percent = (now as f64 - before as f64) / before as f64 * 100.0;
            match percent {
                percent if percent > 999.0 => format!("x{:.0}", now as f64 / before as f64),
                percent => format!("{percent:+.0} %"),
            }
        }
    }
}

impl Report {
    /// The whole message.
    pub fn message(&self, zone: &TimeZone) -> Message {
        Message {
            id: format!("report-{}-{}", self.day, self.until.0),
            subject: format!(
                "[{}] report of {}, {}: {}",
                line(&self.name, 60),
                self.weekday,
                self.day,
                self.gist()
            ),
            text: self.text(zone),
            html: self.html(zone),
            data: Some(self.as_json()),
        }
    }

    /// The first two figures in words.
    fn gist(&self) -> String {
        let figures = self.figures.iter().take(2);
        let words: Vec<String> = figures
            .map(|figure| format!("{} {}", figure.in_words(figure.value), figure.title.to_lowercase()))
            .collect();
        words.join(", ")
    }

    fn span(&self, zone: &TimeZone) -> String {
        let span = format!("From {} to {}.", time(self.from, zone), time(self.until, zone));
        if self.is_over { span } else { format!("{span} The day is not over.") }
    }

    /// For a terminal and for the text part of a mail.
    pub fn text(&self, zone: &TimeZone) -> String {
        let title = format!("{}: {}, {}", line(&self.name, 60), self.weekday, self.day);
        let mut out = format!("{title}\n{}\n\n{}\n\n", "=".repeat(title.chars().count()), self.span(zone));
        let headings = ["", "that day", "day before", "week before"].map(str::to_owned).to_vec();
        let rows: Vec<Vec<String>> = self.figures.iter().map(Figure::row).collect();
        table(&mut out, &headings, &rows);
        for section in self.sections.iter().filter(|section| !section.rows.is_empty()) {
            out += &format!("\n{}\n{}\n", section.title, "-".repeat(section.title.chars().count()));
            let headings: Vec<String> =
                section.columns.iter().map(|(_, title)| (*title).to_owned()).collect();
            let rows: Vec<Vec<String>> =
                section.rows.iter().map(|row| row.iter().map(Cell::in_words).collect()).collect();
            table(&mut out, &headings, &rows);
        }
        for note in &self.notes {
            out += &format!("\n{note}\n");
        }
        out += &format!(
            "\nMore: portcullis top --since yesterday, portcullis suspicious, portcullis blocks\n\n-- \nPortcullis on {}\n",
            line(&self.name, 60)
        );
        out
    }

    /// For mail programs and browsers: no images, nothing from elsewhere.
    pub fn html(&self, zone: &TimeZone) -> String {
        let title = format!("{}, {}", self.weekday, self.day);
        let mut page = Page::new(&format!("{}: {title}", line(&self.name, 60)));
        page.banner(&format!("Report of {}", line(&self.name, 60)), &title);
        page.paragraph(&self.span(zone));
        let rows: Vec<Vec<String>> = self.figures.iter().map(Figure::row).collect();
        page.figures(&["", "that day", "day before", "week before"], &rows);
        for section in self.sections.iter().filter(|section| !section.rows.is_empty()) {
            page.heading(section.title);
            let headings: Vec<&str> = section.columns.iter().map(|(_, title)| *title).collect();
            let rows: Vec<Vec<String>> =
                section.rows.iter().map(|row| row.iter().map(Cell::in_words).collect()).collect();
            page.table(&headings, &rows);
        }
        for note in &self.notes {
            page.paragraph(note);
        }
        page.commands(&["portcullis top --since yesterday", "portcullis suspicious", "portcullis blocks"]);
        page.finish(&format!("Portcullis on {}", line(&self.name, 60)))
    }

    /// For programs: figures as they are, tables as lists of objects.
    pub fn as_json(&self) -> Value {
        let figures: Map<String, Value> = self
            .figures
            .iter()
            .map(|figure| {
                let Figure { key, value, day_before, week_before, .. } = figure;
                let value = json!({ "value": value, "day_before": day_before, "week_before": week_before });
                ((*key).to_owned(), value)
            })
            .collect();
        let mut document = json!({
            "gateway": self.name,
            "day": self.day,
            "from": iso(self.from),
            "until": iso(self.until),
            "is_over": self.is_over,
            "totals": figures,
            "notes": self.notes,
        });
        for section in &self.sections {
            let object = |row: &Vec<Cell>| -> Value {
                let keys = section.columns.iter().map(|(key, _)| (*key).to_owned());
                keys.zip(row.iter().map(Cell::as_json)).collect::<Map<_, _>>().into()
            };
            document[section.key] = section.rows.iter().map(object).collect();
        }
        document
    }
}

/// Columns under their headings; those after the first hold figures, so they end at the same column.
fn table(out: &mut String, headings: &[String], rows: &[Vec<String>]) {
    let width = |n: usize| {
        let cells = rows.iter().filter_map(|row| row.get(n)).chain(headings.get(n));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    for row in std::iter::once(headings).chain(rows.iter().map(Vec::as_slice)) {
        let mut text = String::new();
        for (n, cell) in row.iter().enumerate() {
            let width = widths.get(n).copied().unwrap_or(0);
            text += &if n == 0 { format!("  {cell:<width$}") } else { format!("  {cell:>width$}") };
        }
        out.push_str(text.trim_end());
        out.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let figure = |key, title, value, before| Figure {
            key,
            title,
            value,
            is_bytes: key == "bytes_out",
            day_before: before,
            week_before: None,
        };
        Report {
            name: "shop".to_owned(),
            day: "2026-11-19".to_owned(),
            weekday: "Thursday".to_owned(),
            from: UnixMs(0),
            until: UnixMs(86_400_000),
            is_over: true,
            figures: vec![
                figure("requests", "Requests", 12_345, Some(10_000)),
                figure("blocked", "Blocked", 7, Some(0)),
                figure("bytes_out", "Bytes sent", 3 << 30, Some(3 << 30)),
            ],
            sections: vec![
                Section {
                    key: "paths",
                    title: "Paths",
                    columns: vec![("path", "path"), ("requests", "requests")],
                    rows: vec![vec![Cell::Text("/<script>\r\n@all\u{202e}".to_owned()), Cell::Count(9)]],
                },
                Section { key: "limits", title: "Limits", columns: vec![("rule", "rule")], rows: Vec::new() },
            ],
            notes: vec!["The log has no rows of the week before.".to_owned()],
        }
    }

    #[test]
    fn figures_are_compared_with_the_days_before() {
        let text = report().text(&TimeZone::UTC);
        let line = |start: &str| {
            let line = text.lines().find(|line| line.trim_start().starts_with(start)).unwrap();
            line.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(line("Requests"), "Requests 12,345 +23 % ?");
        assert_eq!(line("Blocked"), "Blocked 7 new ?");
        assert_eq!(line("Bytes sent"), "Bytes sent 3.00 GiB = ?");
        assert!(!text.contains("Limits"), "a table without rows is left out:\n{text}");
        assert_eq!(change(50_000, Some(100)), "x500");
        assert_eq!(change(88, Some(100)), "-12 %");
    }

    #[test]
    fn what_clients_sent_is_text_in_every_form() {
        let message = report().message(&TimeZone::UTC);
        assert_eq!(message.subject, "[shop] report of Thursday, 2026-11-19: 12,345 requests, 7 blocked");
        assert!(message.text.contains("/<script>\\r\\n@all\\u{202e}"), "{}", message.text);
        assert!(!message.html.contains("<script") && message.html.contains("/&lt;script&gt;"));
        let json = report().as_json();
        assert_eq!(
            json["totals"]["requests"],
            json!({ "value": 12_345, "day_before": 10_000, "week_before": null })
        );
        assert_eq!(json["paths"][0]["requests"], 9);
        assert_eq!(json["limits"], json!([]));
    }
}
