//! Secrets: text, `{ file = "..." }` or `{ env = "NAME" }`. Must not repeat any of them in a message.

use portcullis_model::Secret;

use super::fields::{Value, quoted};
use super::files;

/// The longest secret, in bytes: keys in PEM fit.
const MAX_BYTES: usize = 16 << 10;
const WHAT: &str = "a secret: text in quotes, { file = \"PATH\" } or { env = \"NAME\" }";

/// A secret that is one line, as passwords and tokens are.
pub(super) fn line(value: &Value<'_>) -> Option<Secret> {
    let text = if value.is_table() { from_elsewhere(value)? } else { written(value)? };
    match () {
        () if text.is_empty() => value.fail("the secret is empty"),
        () if text.len() > MAX_BYTES => value.fail(format!("the secret is longer than {MAX_BYTES} bytes")),
        () if text.chars().any(char::is_control) => {
            value.fail("the secret has a line break or another control character");
        }
        () => return Some(Secret::new(&text)),
    }
    None
}

fn written(value: &Value<'_>) -> Option<String> {
    if !value.is_text() {
        value.fail(format!("expected {WHAT}"));
        return None;
    }
    value.text(WHAT).map(str::to_owned)
}

fn from_elsewhere(value: &Value<'_>) -> Option<String> {
    let mut table = value.section(WHAT)?;
    let file = table.get("file");
    let variable = table.get("env");
    let secret = match (file, variable) {
        (Some(file), None) => of_file(&file),
        (None, Some(variable)) => of_variable(&variable),
        (None, None) | (Some(_), Some(_)) => {
            table.report(format!("expected {WHAT}"));
            None
        }
    };
    table.finish();
    secret
}

/// Without the line break that editors put at the end.
fn of_file(file: &Value<'_>) -> Option<String> {
    let text = files::text(file, MAX_BYTES as u64 + 2)?;
    Some(text.trim_end_matches(['\r', '\n']).to_owned())
}

fn of_variable(variable: &Value<'_>) -> Option<String> {
    let name = variable.text("the name of an environment variable")?;
    match std::env::var(name) {
        Ok(text) => Some(text),
        Err(std::env::VarError::NotPresent) => {
            variable.fail(format!("there is no environment variable {}", quoted(name)));
            None
        }
        Err(std::env::VarError::NotUnicode(_)) => {
            variable.fail(format!("the environment variable {} is not UTF-8 text", quoted(name)));
            None
        }
    }
}
