//! Cells of CSV files (RFC 4180), harmless to spreadsheets.
//! Must not know what is exported.

/// What makes a spreadsheet read a cell as a formula; the last four are the wide forms, which some take for the same.
const FORMULA: [char; 11] =
    ['=', '+', '-', '@', '\t', '\r', '\n', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}'];

/// Appends a cell: quoted where it must be, and with an apostrophe where a spreadsheet would compute something.
pub(super) fn cell(text: &str, out: &mut String) {
    let is_formula = text.starts_with(FORMULA) && !is_number(text);
    if !is_formula && !text.contains(['"', ',', '\n', '\r']) {
        out.push_str(text);
        return;
    }
    out.push('"');
    if is_formula {
        out.push('\'');
    }
    for c in text.chars() {
        if c == '"' {
            out.push('"');
        }
        out.push(c);
    }
    out.push('"');
}

/// A negative number in digits.
fn is_number(text: &str) -> bool {
    let Some(digits) = text.strip_prefix('-') else { return false };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    [whole, fraction].iter().all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> String {
        let mut out = String::new();
        cell(text, &mut out);
        out
    }

    #[test]
    fn a_spreadsheet_computes_nothing() {
        for start in FORMULA {
            let text = format!("{start}cmd|' /C calc'!A0");
            assert_eq!(written(&text), format!("\"'{text}\""));
        }
        assert_eq!(written("-2+3"), "\"'-2+3\"");
        assert_eq!(written("-"), "\"'-\"");
        assert_eq!((written("-33.8"), written("-7")), ("-33.8".to_owned(), "-7".to_owned()));
    }

    #[test]
    fn quotes_commas_and_line_ends_stay_inside_their_cell() {
        for (text, want) in [
            ("a", "a"),
            ("", ""),
            ("a,b", "\"a,b\""),
            ("a\"b", "\"a\"\"b\""),
            ("a\nb", "\"a\nb\""),
            ("a=b", "a=b"),
        ] {
            assert_eq!(written(text), want);
        }
    }
}
