//! Why a list is not used. Each message names the place and the remedy.

use crate::BadLine;

/// What is wrong with a list as a whole.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ListError {
    #[error("it has no entry: an empty answer, or another format than {format}")]
    Empty { format: &'static str },
    #[error("it has more than {max} entries; raise the bound if that is right")]
    TooManyEntries { max: usize },
    #[error(
        "{bad} of its {lines} lines are no entries, more than the {percent} % that may be; \
         the first is {first}"
    )]
    TooManyBad { bad: u64, lines: u64, percent: f64, first: BadLine },
    #[error("it is no valid JSON at line {line}, column {column}")]
    Json { line: usize, column: usize },
}
