//! The formats, and which of them a text is in. Must not parse more than is needed to tell.

use std::fmt;
use std::str::FromStr;

use portcullis_model::network_of;

/// How a list is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// An address, a prefix or a range per line; `#` and `;` begin comments. FireHOL netsets and Spamhaus
    /// DROP as text are that.
    Plain,
    /// `network,reason,expires`, with or without a heading.
    Csv,
    /// An array of texts or objects, an object that holds one, or an object per line (Spamhaus DROP).
    Json,
    /// `deny 192.0.2.0/24;`
    Nginx,
}

impl Format {
    pub const ALL: [Self; 4] = [Self::Plain, Self::Csv, Self::Json, Self::Nginx];

    /// The word that the configuration and the commands use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Csv => "csv",
            Self::Json => "json",
            Self::Nginx => "nginx",
        }
    }

    /// The format of a text, by its first line that says something. What nothing else claims is plain.
    pub fn detect(bytes: &[u8]) -> Self {
        /// Lines of comments that are read at most.
        const LOOK: usize = 10_000;
        let lines = bytes.split(|&b| b == b'\n').take(LOOK);
        let texts = lines.map(|line| String::from_utf8_lossy(&line[..line.len().min(1_000)]).into_owned());
        let said = texts.map(|text| text.trim_start_matches('\u{feff}').trim().to_owned());
        let mut said = said.filter(|text| !text.is_empty() && !text.starts_with(['#', ';']));
        let Some(first) = said.next() else { return Self::Plain };
        let word = first.split_whitespace().next().unwrap_or_default();
        if first.starts_with(['{', '[']) {
            Self::Json
        } else if matches!(word, "deny" | "allow") {
            Self::Nginx
        } else if first.split_once(',').is_some_and(|(cell, _)| is_csv_start(cell)) {
            Self::Csv
        } else {
            Self::Plain
        }
    }
}

fn is_csv_start(cell: &str) -> bool {
    let cell = cell.trim().trim_matches('"');
    network_of(cell).is_ok() || cell.chars().all(|c| c.is_ascii_alphabetic() || matches!(c, '_' | ' '))
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|format| format.as_str() == text)
            .ok_or_else(|| format!("expected \"plain\", \"csv\", \"json\" or \"nginx\", got {text:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_is_told_by_its_first_line_that_says_something() {
        for (text, format) in [
            ("# a netset\n\n192.0.2.1\n", Format::Plain),
            ("; Spamhaus DROP List\n192.0.2.0/24 ; SBL1\n", Format::Plain),
            ("network,reason,expires\n192.0.2.1,x,\n", Format::Csv),
            ("192.0.2.1,\"x, y\"\n", Format::Csv),
            ("  [\"192.0.2.1\"]", Format::Json),
            ("{\"cidr\":\"192.0.2.0/24\"}\n{\"cidr\":\"198.51.100.0/24\"}\n", Format::Json),
            ("# blocked\ndeny 192.0.2.1;\n", Format::Nginx),
            ("allow 192.0.2.1;\ndeny all;", Format::Nginx),
            ("<html><body>1, 2</body>", Format::Plain),
            ("", Format::Plain),
        ] {
            assert_eq!(Format::detect(text.as_bytes()), format, "{text}");
        }
    }
}
