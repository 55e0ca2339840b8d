//! What is wrong with a configuration, all of it, each with its place.
//! Must not stop at the first: that is the point of the list.

use std::fmt;

/// The most errors that are listed; the rest is counted.
pub const MAX_ERRORS: usize = 100;

/// A line and a column, both from 1; the column counts characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub line: usize,
    pub column: usize,
}

/// One thing to correct.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// The file as it was named, or the option (`--upstream`) that the value came from.
    pub file: String,
    /// `None` when the whole file or an option is meant.
    pub position: Option<Position>,
    /// Starts with the setting's full name where there is one.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.position {
            Some(Position { line, column }) => {
                write!(f, "{}:{line}:{column}: {}", self.file, self.message)
            }
            None => write!(f, "{}: {}", self.file, self.message),
        }
    }
}

/// Every error of one configuration, in the order of the file; never empty. Prints one per line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors {
    errors: Vec<ConfigError>,
    omitted: usize,
}

impl ConfigErrors {
    /// At most [`MAX_ERRORS`], and how many more there were.
    pub(crate) fn new(errors: Vec<ConfigError>, omitted: usize) -> Self {
        Self { errors, omitted }
    }

    /// For a file or an option that cannot be used at all.
    pub(crate) fn whole(file: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(vec![ConfigError { file: file.into(), position: None, message: message.into() }], 0)
    }

    /// In the order of the file.
    pub fn errors(&self) -> &[ConfigError] {
        &self.errors
    }

    /// How many more there were than are listed.
    pub fn omitted(&self) -> usize {
        self.omitted
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, error) in self.errors.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        match self.omitted {
            0 => Ok(()),
            more => write!(f, "\nand {more} more"),
        }
    }
}
