//! What a reload would change, and whether it can be done while running. Pure.
//! Must not act: the binary carries it out.

use std::net::SocketAddr;

use portcullis_store::LogSettings;

use crate::{Config, Server, TlsListener};

/// The difference of two configurations. Settings are named as in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Diff {
    Unchanged,
    /// All of it takes effect without a restart.
    Live {
        changed: Vec<&'static str>,
    },
    /// `fields` take effect with the next start only; `live` could be applied now.
    RestartRequired {
        fields: Vec<&'static str>,
        live: Vec<&'static str>,
    },
}

/// Compares two configurations setting by setting, lists such as `[[limit]]` as a whole.
pub fn diff(old: &Config, new: &Config) -> Diff {
    let (restart, live) = compare_all(old, new, Wanted::Changed);
    match (restart.is_empty(), live.is_empty()) {
        (true, true) => Diff::Unchanged,
        (true, false) => Diff::Live { changed: live },
        (false, _) => Diff::RestartRequired { fields: restart, live },
    }
}

/// When each setting takes effect, by its name in the file; lists such as `[[limit]]` as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakesEffect {
    pub at_once: Vec<&'static str>,
    pub at_the_next_start: Vec<&'static str>,
}

/// When a change of each setting takes effect.
pub fn takes_effect(config: &Config) -> TakesEffect {
    let (at_the_next_start, at_once) = compare_all(config, config, Wanted::All);
    TakesEffect { at_once, at_the_next_start }
}

/// Those that need a restart, and those that do not.
fn compare_all(old: &Config, new: &Config, wanted: Wanted) -> (Vec<&'static str>, Vec<&'static str>) {
    let mut restart = Changes { names: Vec::new(), wanted };
    let mut live = Changes { names: Vec::new(), wanted };
    compare(old, new, &mut restart, &mut live);
    compare_server(&old.server, &new.server, &mut restart, &mut live);
    compare_log(&old.log, &new.log, &mut restart, &mut live);
    (restart.names, live.names)
}

#[derive(Clone, Copy)]
enum Wanted {
    Changed,
    All,
}

struct Changes {
    names: Vec<&'static str>,
    wanted: Wanted,
}

impl Changes {
    fn note<T: PartialEq>(&mut self, name: &'static str, old: &T, new: &T) {
        let is_wanted = match self.wanted {
            Wanted::Changed => old != new,
            Wanted::All => true,
        };
        if is_wanted {
            self.names.push(name);
        }
    }
}

// The structs are taken apart without `..`, so that a new setting does not compile until it is sorted
// into one of the two classes.

fn compare(old: &Config, new: &Config, restart: &mut Changes, live: &mut Changes) {
    let Config {
        mode,
        data,
        server: _,
        acme,
        upstreams,
        routes,
        identity,
        limits,
        access,
        blocks,
        allows,
        feeds,
        log: _,
        privacy,
        geo,
        geo_downloads,
        detection,
        // What is in force counts.
        detection_in_file: _,
        overridden: _,
        bots,
        alerts,
        metrics,
        console,
        pages,
        tasks,
    } = old;
    restart.note("data", data, &new.data);
    restart.note("metrics.listen", metrics, &new.metrics);
    restart.note("console", console, &new.console);
    live.note("mode", mode, &new.mode);
    live.note("acme", acme, &new.acme);
    live.note("upstream", upstreams, &new.upstreams);
    live.note("route", routes, &new.routes);
    live.note("identity", identity, &new.identity);
    live.note("limit", limits, &new.limits);
    live.note("access", access, &new.access);
    live.note("block", blocks, &new.blocks);
    live.note("allow", allows, &new.allows);
    live.note("feed", feeds, &new.feeds);
    live.note("privacy", privacy, &new.privacy);
    live.note("geo", geo, &new.geo);
    live.note("geo.download", geo_downloads, &new.geo_downloads);
    live.note("detection", detection, &new.detection);
    live.note("bots", bots, &new.bots);
    live.note("alerts", alerts, &new.alerts);
    live.note("pages", pages, &new.pages);
    live.note("tasks", tasks, &new.tasks);
}

fn compare_server(old: &Server, new: &Server, restart: &mut Changes, live: &mut Changes) {
    let Server {
        listen,
        tls,
        proxy_protocol,
        threads,
        trusted_proxies,
        client_ip,
        redirect_to_https,
        hsts,
        forwarded_header,
        grace_period,
        drain_timeout,
        max_body,
        max_head,
        max_headers,
        max_uri,
        escaped_slashes,
        head_timeout,
        keepalive_timeout,
        body_timeout,
        min_rate,
        max_connections,
        max_connections_per_client,
        max_stalled,
    } = old;
    restart.note("server.listen", listen, &new.listen);
    let listen = |tls: &[TlsListener]| tls.iter().map(|tls| tls.listen).collect::<Vec<_>>();
    let (old_listen, new_listen) = (listen(tls), listen(&new.tls));
    restart.note("server.tls.listen", &old_listen, &new_listen);
    live.note("server.tls", &in_common(tls, &new_listen), &in_common(&new.tls, &old_listen));
    restart.note("server.proxy_protocol", proxy_protocol, &new.proxy_protocol);
    restart.note("server.threads", threads, &new.threads);
    restart.note("server.grace_period", grace_period, &new.grace_period);
    live.note("server.drain_timeout", drain_timeout, &new.drain_timeout);
    live.note("server.trusted_proxies", trusted_proxies, &new.trusted_proxies);
    live.note("server.client_ip_header", client_ip, &new.client_ip);
    live.note("server.redirect_to_https", redirect_to_https, &new.redirect_to_https);
    live.note("server.hsts", hsts, &new.hsts);
    live.note("server.forwarded_header", forwarded_header, &new.forwarded_header);
    live.note("server.max_body", max_body, &new.max_body);
    live.note("server.max_head", max_head, &new.max_head);
    live.note("server.max_headers", max_headers, &new.max_headers);
    live.note("server.max_uri", max_uri, &new.max_uri);
    live.note("server.escaped_slashes", escaped_slashes, &new.escaped_slashes);
    live.note("server.head_timeout", head_timeout, &new.head_timeout);
    live.note("server.keepalive_timeout", keepalive_timeout, &new.keepalive_timeout);
    live.note("server.body_timeout", body_timeout, &new.body_timeout);
    live.note("server.min_rate", min_rate, &new.min_rate);
    live.note("server.max_connections", max_connections, &new.max_connections);
    live.note(
        "server.max_connections_per_client",
        max_connections_per_client,
        &new.max_connections_per_client,
    );
    live.note("server.max_stalled", max_stalled, &new.max_stalled);
}

/// The listeners that are among those of the other configuration too.
fn in_common<'a>(tls: &'a [TlsListener], others: &[SocketAddr]) -> Vec<&'a TlsListener> {
    tls.iter().filter(|tls| others.contains(&tls.listen)).collect()
}

fn compare_log(old: &LogSettings, new: &LogSettings, restart: &mut Changes, live: &mut Changes) {
    let LogSettings { retention, max_bytes, queue, fields, flush_interval } = old;
    restart.note("log.queue", queue, &new.queue);
    live.note("log.retention", retention, &new.retention);
    live.note("privacy.retention", fields, &new.fields);
    live.note("log.max_size", max_bytes, &new.max_bytes);
    live.note("log.flush_interval", flush_interval, &new.flush_interval);
}
