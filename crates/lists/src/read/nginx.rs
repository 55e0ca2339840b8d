//! The `deny` lines of an nginx configuration. `allow` lines are counted and left out: what they let in there
//! depends on the order of the lines, and here an allow always wins.

use portcullis_model::network_of;

use super::{Entry, Reading, lines, reason};
use crate::ListError;

pub(super) fn read(bytes: &[u8], reading: &mut Reading<'_>) -> Result<(), ListError> {
    for (number, line) in lines(bytes) {
        let (said, comment) = line.split_once('#').unwrap_or((&line, ""));
        for statement in said.split(';').map(str::trim).filter(|statement| !statement.is_empty()) {
            reading.line();
            let (word, subject) = statement.split_once(char::is_whitespace).unwrap_or((statement, ""));
            let network = match word {
                "deny" if subject.trim() == "all" => {
                    Err("\"deny all\" with its exceptions is no list of addresses".to_owned())
                }
                "deny" => network_of(subject),
                "allow" => {
                    reading.allow();
                    continue;
                }
                _ => Err("expected \"deny ADDRESS;\"".to_owned()),
            };
            match network {
                Ok(network) => reading.entry(Entry { network, reason: reason(comment), expires: None })?,
                Err(problem) => reading.bad(number, statement, problem),
            }
        }
    }
    Ok(())
}
