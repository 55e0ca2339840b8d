//! Cases that fail, each with the reason why that is known and not mended yet. It is meant to be empty.

/// Table, case, reason.
pub(crate) const KNOWN: &[(&str, &str, &str)] = &[];

/// Why a case may fail.
pub(crate) fn reason(table: &str, case: &str) -> Option<&'static str> {
    let entry = KNOWN.iter().find(|(of, name, _)| *of == table && *name == case);
    entry.map(|&(_, _, reason)| reason)
}
