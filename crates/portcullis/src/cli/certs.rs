//! `portcullis certs`: the certificates that clients get, and how it is with those from an authority.
//! Must not ask the gateway: files and the folder of the authority's certificates say it all.

use std::collections::BTreeMap;

use clap::Args;
use serde_json::json;

use portcullis_acme::Progress;
use portcullis_model::UnixMs;
use portcullis_proxy::{CertificateSource, CertificateStatus, inspect_certificates};

use crate::certificates::{self, acme_name};

use super::context::Context;
use super::output::{Align, Cell, GREEN, RED, Screen, Table, YELLOW};
use super::time;
use super::{Format, Outcome};

const EXAMPLES: &str = "\
Examples:
  portcullis certs
  portcullis certs --json

Reads the files as they are now; a running gateway takes over what has changed
within seconds. For certificates of an authority ([acme]) it also shows the last
error and the next try. The data folder keeps their keys, so this may need the
user that runs the gateway.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Certs {
    #[command(flatten)]
    format: Format,
}

impl Certs {
    pub(super) fn run(self, context: &Context, screen: &mut Screen) -> anyhow::Result<Outcome> {
        let config = context.config()?;
        let certificates = inspect_certificates(&config.server);
        let progress = match &config.acme {
            Some(acme) => portcullis_acme::progress(&acme.folder)?,
            None => BTreeMap::new(),
        };
        if self.format.json {
            let shown = certificates.iter().map(|certificate| as_json(certificate, &progress));
            screen.json(&shown.collect::<Vec<_>>())?;
            return Ok(Outcome::Done);
        }
        if certificates.is_empty() {
            screen.line("No certificates: there is no [[server.tls]].")?;
            return Ok(Outcome::Done);
        }
        table(&certificates, context, screen)?;
        details(&certificates, &progress, context, screen)?;
        Ok(Outcome::Done)
    }
}

fn table(certificates: &[CertificateStatus], context: &Context, screen: &mut Screen) -> anyhow::Result<()> {
    let mut table = Table::new(&[
        ("listener", Align::Left),
        ("source", Align::Left),
        ("expires", Align::Left),
        ("issuer", Align::Left),
        ("names", Align::Left),
    ]);
    for certificate in certificates {
        let (expires, issuer, names) = match &certificate.facts {
            Some(facts) => (
                Cell::styled(
                    time::relative(facts.not_after, context.now),
                    expiry_style(facts.not_after, context),
                ),
                facts.issuer.clone(),
                facts.names.join(", "),
            ),
            None => (Cell::styled("-", RED), "-".to_owned(), acme_name(certificate).unwrap_or_default()),
        };
        table.row(vec![
            Cell::new(certificate.listen.to_string()),
            Cell::new(certificate.source.as_str()),
            expires,
            Cell::new(issuer),
            Cell::new(names),
        ]);
    }
    screen.table(&mut table)?;
    Ok(())
}

fn expiry_style(not_after: UnixMs, context: &Context) -> clap::builder::styling::Style {
    if not_after < context.now {
        RED
    } else if not_after.since(context.now) < certificates::SOON {
        YELLOW
    } else {
        GREEN
    }
}

/// What is wrong, and what the authority's client does about it.
fn details(
    certificates: &[CertificateStatus],
    progress: &BTreeMap<String, Progress>,
    context: &Context,
    screen: &mut Screen,
) -> anyhow::Result<()> {
    let mut lines = certificates::notes(certificates, context.now);
    for certificate in certificates {
        let known = acme_name(certificate).and_then(|name| Some((progress.get(&name)?, name)));
        if let Some((known, name)) = known {
            lines.extend(progress_in_words(&name, known, context));
        } else if let (CertificateSource::File, Some(problem)) = (certificate.source, &certificate.problem) {
            lines.push(problem.clone());
        }
    }
    if !lines.is_empty() {
        screen.blank()?;
    }
    for line in lines {
        screen.line(&line)?;
    }
    Ok(())
}

fn progress_in_words(name: &str, known: &Progress, context: &Context) -> Option<String> {
    let when = |at: Option<UnixMs>| at.map_or_else(|| "now".to_owned(), |at| context.time(at));
    match &known.last_error {
        Some(error) => Some(format!(
            "{name}: {error}; {} failed, the next try is due {}",
            super::output::count(u64::from(known.failures), "try"),
            when(known.next_try)
        )),
        None => known.renew_at.map(|at| format!("{name}: is renewed {}", context.time(at))),
    }
}

fn as_json(certificate: &CertificateStatus, progress: &BTreeMap<String, Progress>) -> serde_json::Value {
    let facts = certificate.facts.as_ref();
    json!({
        "listen": certificate.listen,
        "file": certificate.path,
        "source": certificate.source.as_str(),
        "names": facts.map(|facts| &facts.names),
        "issuer": facts.map(|facts| &facts.issuer),
        "not_before": facts.map(|facts| facts.not_before),
        "not_after": facts.map(|facts| facts.not_after),
        "problem": certificate.problem,
        "acme": acme_name(certificate).and_then(|name| progress.get(&name)),
    })
}
