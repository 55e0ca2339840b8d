//! `[geo]`: files of locations, where they are downloaded from, and services that are asked over HTTP.
//! Must not talk to anybody.

use std::path::PathBuf;
use std::time::Duration;

use portcullis_geo::{Field, MAX_DATABASES, MAX_LEFT_ALONE, Settings, SourceKind, SourceSettings};
use portcullis_model::Secret;
use url::Url;

use super::fields::{Section, Value, quoted};
use super::{DAY, HOUR, MILLISECOND, files, secret};
use crate::GeoDownload;

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(3);
const MAX_TIMEOUT: Duration = Duration::from_secs(30);
const DEFAULT_RETRY: Duration = Duration::from_secs(30);
const MAX_QUOTA: u64 = 1_000_000_000;
const DEFAULT_DOWNLOAD_INTERVAL: Duration = Duration::from_secs(7 * 86_400);
const DEFAULT_DOWNLOAD_BYTES: u64 = 512 << 20;

pub(super) fn read(root: &mut Section<'_>) -> (Settings, Vec<GeoDownload>) {
    let mut geo = root.section("geo");
    let default = Settings::default();
    let databases =
        geo.read("databases", default.databases, |value| value.list(MAX_DATABASES, files::readable));
    let wanted = geo.read("ask_for", default.wanted, wanted);
    let sources = sources(&mut geo);
    let downloads: Vec<GeoDownload> =
        geo.sections("download", MAX_DATABASES).into_iter().filter_map(download).collect();
    for (n, given) in downloads.iter().enumerate() {
        if downloads[..n].iter().any(|other| other.file == given.file) {
            geo.report(format!("two [[geo.download]] write {}", given.file.display()));
        }
    }
    let is_layer = |file: &PathBuf| databases.contains(file);
    let files = downloads.iter().map(|download| download.file.clone()).filter(|file| !is_layer(file));
    let files: Vec<PathBuf> = files.collect();
    if databases.len() + files.len() > MAX_DATABASES {
        geo.report(format!("at most {MAX_DATABASES} files are possible, those of [[geo.download]] included"));
    }
    geo.finish();
    let settings = Settings { databases, downloads: files, sources, wanted, ..Settings::default() };
    (settings, downloads)
}

fn wanted(value: &Value<'_>) -> Option<Vec<Field>> {
    if value.is_empty_list() {
        value.fail("names nothing, so that no source would ever be asked; leave out [[geo.source]] instead");
        return None;
    }
    value.list(Field::ALL.len(), |item| item.choice(&Field::ALL, Field::as_str))
}

fn sources(geo: &mut Section<'_>) -> Vec<SourceSettings> {
    let mut sources: Vec<SourceSettings> = Vec::new();
    for section in geo.sections("source", SourceKind::ALL.len()) {
        let place = section.place.clone();
        let Some(source) = source(section) else { continue };
        if sources.iter().any(|other| other.kind == source.kind) {
            geo.report(format!("{} is {} a second time", place.key, source.kind.as_str()));
            continue;
        }
        sources.push(source);
    }
    sources
}

fn source(mut source: Section<'_>) -> Option<SourceSettings> {
    let kind =
        source.required("kind", "\"ipinfo.io\"", |value| value.choice(&SourceKind::ALL, SourceKind::as_str));
    let url = source.read("url", None, |value| base_url(value).map(Some));
    let token = source.read("token", None, |value| secret::line(value).map(Some));
    // What both services give away to everybody.
    let (daily, monthly) = match kind {
        Some(SourceKind::IpapiCo) => (Some(1_000), Some(30_000)),
        Some(SourceKind::IpinfoIo) => (None, Some(50_000)),
        None => (None, None),
    };
    let daily = source.read("daily", daily, quota);
    let monthly = source.read("monthly", monthly, quota);
    let timeout =
        source.read("timeout", DEFAULT_TIMEOUT, |value| value.duration(100 * MILLISECOND..=MAX_TIMEOUT));
    let retry =
        source.read("retry", DEFAULT_RETRY, |value| value.duration(100 * MILLISECOND..=MAX_LEFT_ALONE));
    source.finish();
    let kind = kind?;
    let url = url.unwrap_or_else(|| kind.url().to_owned());
    Some(SourceSettings { kind, url, token, daily, monthly, timeout, retry })
}

/// 0 is no bound.
fn quota(value: &Value<'_>) -> Option<Option<u32>> {
    let number = value.integer(0..=MAX_QUOTA)?;
    Some(u32::try_from(number).ok().filter(|number| *number > 0))
}

/// A URL to which a path is added.
fn base_url(value: &Value<'_>) -> Option<String> {
    const WHAT: &str = "the http or https URL before /ADDRESS/json, such as \"https://ipinfo.io\"";
    value.parse_with(WHAT, |text| match Url::parse(text) {
        Ok(url) if is_fetched(&url) && url.query().is_none() && url.fragment().is_none() => {
            Ok(text.trim_end_matches('/').to_owned())
        }
        Ok(_) | Err(_) => Err(format!("expected {WHAT}, got {}", quoted(text))),
    })
}

fn is_fetched(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https") && url.has_host()
}

fn download(mut download: Section<'_>) -> Option<GeoDownload> {
    let url = download.required("url", "\"https://example.com/city.mmdb.gz\"", download_url);
    let file = download.required("file", "\"city.mmdb\"", mmdb_file);
    let sha256 = download.read("sha256", None, |value| checksum(value).map(Some));
    let interval =
        download.read("interval", DEFAULT_DOWNLOAD_INTERVAL, |value| value.duration(HOUR..=365 * DAY));
    let max_bytes = download.read("max_size", DEFAULT_DOWNLOAD_BYTES, |value| value.size(1 << 10..=2 << 30));
    download.finish();
    Some(GeoDownload { url: url?, file: file?, sha256, interval, max_bytes })
}

/// May hold an account or a licence key, so it is a secret as a whole.
fn download_url(value: &Value<'_>) -> Option<Secret> {
    let secret = secret::line(value)?;
    match Url::parse(secret.expose()) {
        Ok(url) if is_fetched(&url) => Some(secret),
        Ok(_) | Err(_) => {
            value.fail("expected an http or https URL such as \"https://example.com/city.mmdb.gz\"");
            None
        }
    }
}

/// Need not be there yet, but its folder must.
fn mmdb_file(value: &Value<'_>) -> Option<PathBuf> {
    let path = value.path()?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    match folder {
        _ if path.is_dir() => value.fail(format!("{} is a folder", path.display())),
        Some(folder) if !folder.is_dir() => value.fail(format!("there is no folder {}", folder.display())),
        Some(_) | None => return Some(path),
    }
    None
}

fn checksum(value: &Value<'_>) -> Option<String> {
    const WHAT: &str = "a SHA-256 checksum of 64 hexadecimal digits";
    let text = value.text(WHAT)?;
    if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Some(text.to_ascii_lowercase());
    }
    value.expected(WHAT)
}
