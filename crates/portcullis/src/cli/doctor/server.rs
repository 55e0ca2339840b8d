//! The gateway's own set-up: where it sends requests, its certificates, its limits, its mode.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use portcullis_model::UnixMs;
use portcullis_policy::Mode;
use portcullis_proxy::CertificateSource;

use super::facts::Facts;
use super::{Finding, Gravity};
use crate::certificates;
use crate::cli::output::{count, number};

/// A trial that goes on for longer was probably forgotten.
const LONG_TRIAL: Duration = Duration::from_secs(7 * 86_400);
/// An authority has issued a certificate by then, or will not.
const ISSUE_TIME: Duration = Duration::from_secs(3_600);
/// Files besides connections: databases, listeners, geo files.
const OTHER_FILES: u64 = 64;

/// An upstream that is the gateway itself: every request would go round until something gives way.
pub(super) fn own_upstream(facts: &Facts<'_>) -> Vec<Finding> {
    let server = &facts.config.server;
    let listeners = server.listen.iter().copied().chain(server.tls.iter().map(|listener| listener.listen));
    let listeners: Vec<SocketAddr> = listeners.collect();
    let mut findings = Vec::new();
    for upstream in &facts.config.upstreams {
        for target in &upstream.servers {
            if let Some(own) = listeners.iter().find(|own| leads_to(facts, &target.host, target.port, own)) {
                findings.push(Finding::new(
                    "own_upstream",
                    Gravity::Error,
                    format!(
                        "the upstream {:?} sends to {target}, where the gateway itself listens ({own})",
                        upstream.name
                    ),
                    "Name the site's own address and port in servers, or have the gateway listen elsewhere.",
                ));
            }
        }
    }
    findings
}

fn leads_to(facts: &Facts<'_>, host: &str, port: u16, own: &SocketAddr) -> bool {
    if port != own.port() {
        return false;
    }
    let Ok(ip) = host.parse::<IpAddr>() else { return host == "localhost" && listens_on_loopback(own.ip()) };
    let same_family_or_both = ip.is_ipv4() == own.is_ipv4() || own.is_ipv6();
    ip == own.ip()
        || own.ip().is_unspecified() && same_family_or_both && (ip.is_loopback() || facts.own.contains(&ip))
}

fn listens_on_loopback(ip: IpAddr) -> bool {
    ip.is_unspecified() || ip.is_loopback()
}

/// Certificates that have expired, soon will, or cannot be read.
pub(super) fn certificates(facts: &Facts<'_>) -> Vec<Finding> {
    let broken = facts.certificates.iter().filter_map(|certificate| {
        let problem = certificate.problem.as_ref()?;
        let remedy = match certificate.source {
            CertificateSource::File => {
                "Put a certificate chain and its key in PEM there; the gateway takes them over by itself."
            }
            // An authority takes its time, and asks while the gateway runs.
            CertificateSource::Acme | CertificateSource::Placeholder if !has_run_for(facts, ISSUE_TIME) => {
                return None;
            }
            CertificateSource::Acme | CertificateSource::Placeholder => {
                "The authority has not issued it: \"portcullis certs\" says why, and when the gateway tries again."
            }
        };
        let seen = format!("{}: {problem}", certificate.path.display());
        Some(Finding::new("certificates", Gravity::Error, seen, remedy))
    });
    // Those that are not there have been judged above.
    let usable: Vec<_> = facts.certificates.iter().filter(|found| found.problem.is_none()).cloned().collect();
    let noted = certificates::notes(&usable, facts.now).into_iter().map(|note| {
        Finding::new(
            "certificates",
            Gravity::Warning,
            note,
            "Renew it; the gateway takes the new files over by itself. One of an authority is renewed by itself: \
             \"portcullis certs\" says what is in the way.",
        )
    });
    broken.chain(noted).collect()
}

fn has_run_for(facts: &Facts<'_>, span: Duration) -> bool {
    facts.running().is_some_and(|status| facts.now.since(UnixMs(status.started_at)) > span)
}

/// Keys that every account of the machine may read.
pub(super) fn private_keys(facts: &Facts<'_>) -> Vec<Finding> {
    let listeners = facts.config.server.tls.iter();
    let keys: Vec<_> =
        listeners.flat_map(|listener| &listener.certificates).map(|files| &files.key).collect();
    let open = facts.private.iter().filter(|(path, mode)| keys.contains(&path) && mode & 0o004 != 0);
    open.map(|(path, mode)| {
        Finding::new(
            "private_keys",
            Gravity::Warning,
            format!("everybody on this machine may read the private key {} (mode {mode:o})", path.display()),
            "Take the right from others:",
        )
        .write(format!("chmod o-rwx {}", path.display()))
    })
    .collect()
}

/// A limit of open files that connections run into.
pub(super) fn open_files(facts: &Facts<'_>) -> Vec<Finding> {
    let Some(status) = facts.running() else { return Vec::new() };
    let Some(limit) = status.open_files_limit else { return Vec::new() };
    // A connection of a client has another one to the site.
    let files = |connections: u64| connections.saturating_mul(2).saturating_add(OTHER_FILES);
    let is_close = files(status.connections).saturating_mul(5) > limit.saturating_mul(4);
    let wanted = files(facts.config.server.max_connections as u64);
    if limit >= wanted && !is_close {
        return Vec::new();
    }
    vec![
        Finding::new(
            "open_files",
            if is_close { Gravity::Error } else { Gravity::Warning },
            format!(
                "the gateway may have {} open, enough for about {} at once, but server.max_connections is {}; {} are \
                 open now",
                count(limit, "file"),
                count(limit.saturating_sub(OTHER_FILES) / 2, "connection"),
                number(facts.config.server.max_connections as u64),
                number(status.connections)
            ),
            "Raise the limit where the gateway is started, for example in its systemd unit, and start it again:",
        )
        .write(format!("LimitNOFILE={}", wanted.next_power_of_two())),
    ]
}

/// A trial that was forgotten.
pub(super) fn dry_run(facts: &Facts<'_>) -> Vec<Finding> {
    let trial = facts.config_changed.map(|changed| facts.now.since(changed));
    let Some(trial) = trial.filter(|trial| *trial > LONG_TRIAL) else { return Vec::new() };
    let days = count(trial.as_secs() / 86_400, "day");
    let gateway = (facts.config.mode == Mode::DryRun)
        .then(|| ("mode = \"dry-run\"".to_owned(), "nobody is blocked or limited".to_owned()));
    let limits = facts.config.limits.iter().filter(|limit| limit.mode == Mode::DryRun);
    let limits = limits
        .map(|limit| (format!("the limit \"{}\" in dry-run", limit.name), "it refuses nobody".to_owned()));
    let access = facts.config.access.iter().filter(|rule| rule.mode == Mode::DryRun).map(|rule| {
        (format!("the rule \"{}\" of the access list in dry-run", rule.name), "it refuses nobody".to_owned())
    });
    gateway
        .into_iter()
        .chain(limits)
        .chain(access)
        .map(|(what, effect)| {
            Finding::new(
                "dry_run",
                Gravity::Warning,
                format!("the configuration has had {what} for {days}: {effect}"),
                "If the log shows that it would have met the right ones (portcullis logs), enforce it:",
            )
            .write("mode = \"enforce\"")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::facts::tests::{config, healthy};
    use super::*;
    use portcullis_proxy::CertificateStatus;

    #[test]
    fn an_upstream_that_is_the_gateway_itself_is_an_error() {
        for (listen, server, is) in [
            ("0.0.0.0:8080", "http://127.0.0.1:8080", true),
            ("0.0.0.0:8080", "http://localhost:8080", true),
            ("0.0.0.0:8080", "http://192.0.2.10:8080", true),
            ("[::]:8080", "http://127.0.0.1:8080", true),
            ("192.0.2.10:8080", "http://192.0.2.10:8080", true),
            ("0.0.0.0:8080", "http://127.0.0.1:8000", false),
            ("0.0.0.0:8080", "http://192.0.2.11:8080", false),
            ("0.0.0.0:8080", "http://app:8080", false),
            ("192.0.2.10:8080", "http://127.0.0.1:8080", false),
        ] {
            let mut config = config(&format!("[server]\nlisten = [\"{listen}\"]"));
            config.upstreams[0].servers = config_with(server);
            assert_eq!(!own_upstream(&healthy(&config)).is_empty(), is, "{listen} {server}");
        }
    }

    fn config_with(server: &str) -> Vec<portcullis_config::UpstreamServer> {
        let text = format!(
            "[server]\nlisten = [\"127.0.0.1:1\"]\n[[upstream]]\nname = \"a\"\nservers = [\"{server}\"]"
        );
        let overrides = portcullis_config::Overrides::default();
        let parsed = portcullis_config::parse(&text, "test", std::path::Path::new(""), &overrides);
        parsed.unwrap().upstreams.remove(0).servers
    }

    #[test]
    fn a_trial_of_more_than_a_week_is_remembered() {
        let config = config("mode = \"dry-run\"");
        let mut facts = healthy(&config);
        assert_eq!(dry_run(&facts), Vec::new());
        facts.config_changed = Some(facts.now.minus(LONG_TRIAL * 2));
        assert!(dry_run(&facts)[0].seen.contains("14 days"));
    }

    #[test]
    fn few_open_files_are_found_only_where_a_gateway_runs() {
        let config = config("[server]\nmax_connections = 100");
        let mut facts = healthy(&config);
        let limit = |facts: &mut Facts<'_>, files, connections| {
            let status = facts.gateway.as_mut().unwrap();
            (status.open_files_limit, status.connections) = (files, connections);
            open_files(facts).first().map(|found| found.gravity)
        };
        assert_eq!(limit(&mut facts, Some(264), 10), None, "100 connections take 200 files");
        assert_eq!(limit(&mut facts, Some(263), 10), Some(Gravity::Warning));
        assert_eq!(limit(&mut facts, Some(264), 90), Some(Gravity::Error));
        assert_eq!(limit(&mut facts, None, 100_000), None);
        facts.gateway.as_mut().unwrap().written_at -= 3_600_000;
        assert_eq!(limit(&mut facts, Some(100), 10), None);
    }

    #[test]
    fn a_certificate_that_an_authority_has_yet_to_issue_is_given_an_hour() {
        let config = config("");
        let mut facts = healthy(&config);
        let status = |source| CertificateStatus {
            listen: SocketAddr::from(([0, 0, 0, 0], 8_443)),
            path: "a.pem".into(),
            source,
            facts: None,
            problem: Some("there is none yet".to_owned()),
        };
        for source in [CertificateSource::Acme, CertificateSource::Placeholder] {
            facts.certificates = vec![status(source)];
            let found = certificates(&facts);
            assert_eq!(found.len(), 1, "the gateway has run for a day, and said once is enough");
            assert_eq!(found[0].gravity, Gravity::Error);
        }
        facts.gateway.as_mut().unwrap().started_at = facts.now.minus(ISSUE_TIME / 2).0;
        assert_eq!(certificates(&facts), Vec::new());
        facts.certificates = vec![status(CertificateSource::File)];
        assert_eq!(certificates(&facts)[0].gravity, Gravity::Error);
    }
}
