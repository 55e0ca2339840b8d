//! The files that settings name: are they there, readable, and of the right kind?
//! Must not interpret more of them than it takes to name the mistake.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use crate::units::format_size;

use super::fields::Value;

/// The largest certificate chain or key, in bytes.
const MAX_PEM_BYTES: u64 = 1 << 20;

/// The path of a PEM file with certificates.
pub(super) fn certificates(value: &Value<'_>) -> Option<PathBuf> {
    checked(value, |path| {
        let text = contents(path, MAX_PEM_BYTES)?;
        if text.contains("-----BEGIN CERTIFICATE-----") {
            return Ok(());
        }
        let hint = if text.contains("PRIVATE KEY-----") { "; it is a private key" } else { "" };
        Err(format!("{} holds no PEM certificate (-----BEGIN CERTIFICATE-----){hint}", path.display()))
    })
}

/// The path of a PEM file with a private key.
pub(super) fn private_key(value: &Value<'_>) -> Option<PathBuf> {
    checked(value, |path| {
        let text = contents(path, MAX_PEM_BYTES)?;
        if text.contains("BEGIN ENCRYPTED PRIVATE KEY") {
            return Err(format!(
                "{} is protected by a passphrase; write it without one (openssl pkey -in FILE -out NEW)",
                path.display()
            ));
        }
        if text.contains("PRIVATE KEY-----") {
            return Ok(());
        }
        let hint = if text.contains("BEGIN CERTIFICATE") { "; it is a certificate" } else { "" };
        Err(format!("{} holds no PEM private key (-----BEGIN PRIVATE KEY-----){hint}", path.display()))
    })
}

/// The path of a file that can be opened.
pub(super) fn readable(value: &Value<'_>) -> Option<PathBuf> {
    checked(value, |path| open(path).map(drop))
}

/// The text of a file of at most `max` bytes.
pub(super) fn text(value: &Value<'_>, max: u64) -> Option<String> {
    let path = value.path()?;
    contents(&path, max).map_err(|message| value.fail(message)).ok()
}

fn checked(value: &Value<'_>, check: impl FnOnce(&Path) -> Result<(), String>) -> Option<PathBuf> {
    let path = value.path()?;
    check(&path).map_err(|message| value.fail(message)).ok()?;
    Some(path)
}

fn contents(path: &Path, max: u64) -> Result<String, String> {
    let mut bytes = Vec::new();
    open(path)?
        .take(max + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    if bytes.len() as u64 > max {
        return Err(format!("{} is larger than {}", path.display(), format_size(max)));
    }
    String::from_utf8(bytes).map_err(|_| format!("{} is not UTF-8 text", path.display()))
}

fn open(path: &Path) -> Result<File, String> {
    let shown = path.display();
    // Asked before opening: opening a pipe would wait for somebody to write to it.
    let is_file = path.metadata().map(|metadata| metadata.is_file());
    match is_file.and_then(|is_file| if is_file { File::open(path).map(Some) } else { Ok(None) }) {
        Ok(Some(file)) => Ok(file),
        Ok(None) => Err(format!("{shown} is not a file")),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(format!("there is no file {shown}")),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            Err(format!("{shown} cannot be read; let the user that runs the gateway read it"))
        }
        Err(error) => Err(format!("{shown} cannot be read: {error}")),
    }
}
