//! `portcullis init`: a commented configuration to start from.
//! Must not overwrite what somebody wrote, unless told to.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;

use portcullis_config::{FILE_NAME, Overrides, TEMPLATE, load};

use super::Outcome;
use super::context::{Context, Misuse, quoted};
use super::output::Screen;

const EXAMPLES: &str = "\
Examples:
  portcullis init --upstream http://127.0.0.1:8000
      writes ./portcullis.toml for a site on port 8000
  portcullis init /etc/portcullis/portcullis.toml";

/// The line of the template that names the site.
const SERVERS: &str = "servers = [\"http://127.0.0.1:8000\"]";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Init {
    /// The site to protect: http://HOST:PORT, https://HOST or HOST:PORT
    #[arg(long, value_name = "URL", value_hint = clap::ValueHint::Url)]
    upstream: Option<String>,

    /// Overwrite the file if it exists
    #[arg(long)]
    force: bool,

    /// The file to write
    #[arg(value_name = "FILE", default_value = FILE_NAME, value_hint = clap::ValueHint::FilePath)]
    file: PathBuf,
}

impl Init {
    pub(super) fn run(self, context: &Context, screen: &mut Screen) -> anyhow::Result<Outcome> {
        let file = match context.named_config() {
            Some(named) if self.file == Path::new(FILE_NAME) => named.to_path_buf(),
            _ => self.file,
        };
        // In the file, a relative folder starts from the file's own.
        let data = match context.named_data() {
            Some(data) if file.parent().is_some_and(|folder| folder != Path::new("")) => {
                Some(std::path::absolute(data).context("cannot tell the working directory")?)
            }
            data => data.map(Path::to_path_buf),
        };
        let text = content(self.upstream.as_deref(), data.as_deref())?;
        write(&file, &text, self.force)?;

        let option = match file == Path::new(FILE_NAME) {
            true => String::new(),
            false => format!(" --config {}", quoted(&file.to_string_lossy())),
        };
        screen.line(&format!("Wrote {}. Every setting is in it, with its default.", file.display()))?;
        screen.blank()?;
        let look = match self.upstream {
            Some(_) => "look through it, then see what would run",
            None => "name your site in it (servers = ...), then see what would run",
        };
        screen.line(&format!("  1. {look}:"))?;
        screen.line(&format!("       portcullis check{option}"))?;
        screen.line("  2. start the gateway:")?;
        screen.line(&format!("       portcullis run{option}"))?;
        Ok(Outcome::Done)
    }
}

/// The template with what is known already filled in.
fn content(upstream: Option<&str>, data: Option<&Path>) -> anyhow::Result<String> {
    let mut text = TEMPLATE.to_owned();
    if let Some(url) = upstream {
        // Refuses what is no URL, in the words that `run` would use.
        load(None, &Overrides { upstream: Some(url.to_owned()), ..Overrides::default() })?;
        let url = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
        text = text.replacen(SERVERS, &format!("servers = [{}]", toml_string(&url)), 1);
    }
    if let Some(data) = data {
        let line = format!("data = {}", toml_string(&data.to_string_lossy()));
        text = text.replacen("#data = \"portcullis-data\"", &line, 1);
    }
    Ok(text)
}

fn write(file: &Path, text: &str, force: bool) -> anyhow::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true);
    // Without --force the file must not exist, also not a moment later.
    if force {
        options.create(true).truncate(true)
    } else {
        options.create_new(true)
    };
    match options.open(file) {
        Ok(mut opened) => {
            opened.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", file.display()))
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(Misuse(format!(
            "{} exists already and is left as it is; name another file, or overwrite it with --force",
            file.display()
        ))
        .into()),
        Err(error) => Err(error).with_context(|| format!("cannot write {}", file.display())),
    }
}

/// A TOML basic string.
fn toml_string(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_written_file_is_valid_and_names_the_site_and_the_folder() {
        let text = content(Some("127.0.0.1:3000"), Some(Path::new("/tmp/a \"b\""))).unwrap();
        let config = portcullis_config::parse(&text, "test", Path::new(""), &Overrides::default()).unwrap();
        assert_eq!(config.upstreams[0].servers[0].to_string(), "http://127.0.0.1:3000");
        assert_eq!(config.data, Path::new("/tmp/a \"b\""));
        assert_ne!(text, TEMPLATE);
    }

    #[test]
    fn without_a_site_the_template_is_written_as_it_is() {
        assert_eq!(content(None, None).unwrap(), TEMPLATE);
        assert!(TEMPLATE.contains(SERVERS));
    }
}
