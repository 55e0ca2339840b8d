//! From a file and the command line to a [`Config`]: the one way that `check`, start and reload take.
//! Must not know single settings; those are in `read/`.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::read;
use crate::units::format_size;
use crate::{Config, ConfigErrors};

/// The name that `init` writes and that a start without options looks for.
pub const FILE_NAME: &str = "portcullis.toml";

/// The largest configuration file, in bytes.
pub const MAX_FILE_BYTES: u64 = 16 << 20;

/// What `init` writes: every setting with its default and its unit. Also what a start with nothing but
/// an upstream uses, so that the safe defaults are written down in one place.
pub const TEMPLATE: &str = include_str!("../../../config/portcullis.toml");

/// What the command line says; it wins over the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `http://host:port`, `https://host` or `host:port`. All requests go there: the file's routes are
    /// left out, the other settings of its first upstream stay.
    pub upstream: Option<String>,
    /// Addresses for plain HTTP, in place of `server.listen`. Empty leaves the file's.
    pub listen: Vec<String>,
    /// In place of `data`; relative to the working directory.
    pub data: Option<PathBuf>,
    /// Sets the mode to dry-run.
    pub dry_run: bool,
}

/// A configuration that can be used.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    pub config: Config,
    /// The file that it came from; `None` when it was made from the defaults.
    pub source: Option<PathBuf>,
    /// Which state of the file was read; taken before it was, so that a change in between is seen later.
    pub stamp: Option<FileStamp>,
    /// Sentences on what is off or may surprise, such as "no geo database: ...".
    pub notes: Vec<String>,
}

/// Tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStamp {
    modified: SystemTime,
    bytes: u64,
}

impl FileStamp {
    /// `None` when there is no such file, or it cannot be looked at.
    pub fn of(path: &Path) -> Option<Self> {
        let file = std::fs::metadata(path).ok()?;
        Some(Self { modified: file.modified().ok()?, bytes: file.len() })
    }
}

/// Reads and checks a configuration, and all files that it names. Without a file the defaults are those
/// of [`TEMPLATE`], and `overrides` must name an upstream.
///
/// # Errors
/// Everything that is wrong, at once.
pub fn load(file: Option<&Path>, overrides: &Overrides) -> Result<Loaded, ConfigErrors> {
    let stamp = file.and_then(FileStamp::of);
    let config = match file {
        Some(path) => {
            let text = read_file(path)?;
            parse(&text, &path.display().to_string(), folder_of(path), overrides)?
        }
        None if overrides.upstream.is_none() => {
            return Err(ConfigErrors::whole(
                "portcullis",
                format!(
                    "no configuration: name the site to protect with --upstream http://HOST:PORT, or write a file \
                     with \"portcullis init\" and name it with --config {FILE_NAME}"
                ),
            ));
        }
        None => parse(TEMPLATE, "built-in defaults", Path::new(""), overrides)?,
    };
    let notes = read::notes(&config);
    Ok(Loaded { config, source: file.map(Path::to_path_buf), stamp, notes })
}

/// Reads a configuration from its text. `file_name` is for the messages, `base` is the folder that
/// relative paths start from. Looks at the files that the text names: certificates, keys, the page
/// template and the geo databases must be readable.
///
/// # Errors
/// Everything that is wrong, at once.
pub fn parse(
    text: &str,
    file_name: &str,
    base: &Path,
    overrides: &Overrides,
) -> Result<Config, ConfigErrors> {
    read::config(text, file_name, base, overrides)
}

fn folder_of(file: &Path) -> &Path {
    file.parent().unwrap_or(Path::new(""))
}

fn read_file(path: &Path) -> Result<String, ConfigErrors> {
    let fail = |message: String| ConfigErrors::whole(path.display().to_string(), message);
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|error| fail(format!("cannot be read: {error}")))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(fail(format!(
            "is larger than {}; put long lists of addresses into the database with \"portcullis block\"",
            format_size(MAX_FILE_BYTES)
        )));
    }
    String::from_utf8(bytes).map_err(|error| {
        fail(format!(
            "is not UTF-8 text: the first wrong byte is number {}",
            error.utf8_error().valid_up_to() + 1
        ))
    })
}
