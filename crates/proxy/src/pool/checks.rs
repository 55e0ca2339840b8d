//! Active health checks: asks every server of a pool regularly, all at the same time.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use http::header::{HOST, USER_AGENT};
use pingora::connectors::http::Connector;
use pingora::http::RequestHeader;
use portcullis_config::HealthCheck;
use tokio::task::JoinSet;

use super::Pool;
use super::server::Server;

/// The most checks of one pool at once.
const MAX_AT_ONCE: usize = 128;
/// Rounds begin this much earlier or later, as a part of the interval, so that several gateways do not all
/// ask at the same moment.
const JITTER: f64 = 0.1;

impl Pool {
    /// Returns when nobody holds the pool any more.
    pub(super) async fn keep_checking(pool: Weak<Self>, connector: Arc<Connector>) {
        loop {
            let interval = match pool.upgrade() {
                Some(pool) => match &pool.settings.health {
                    Some(health) => {
                        pool.check_all(health, &connector).await;
                        health.interval
                    }
                    None => return,
                },
                None => return,
            };
            tokio::time::sleep(jittered(interval, fastrand::f64())).await;
        }
    }

    /// A server that does not answer holds up no other one, unless very many do not.
    async fn check_all(&self, health: &HealthCheck, connector: &Arc<Connector>) {
        let mut servers = self.servers.load_full().as_ref().clone().into_iter();
        let mut checks = JoinSet::new();
        loop {
            while checks.len() < MAX_AT_ONCE
                && let Some(server) = servers.next()
            {
                let (health, connector) = (health.clone(), Arc::clone(connector));
                checks.spawn(async move {
                    let result = check(&server, &health, &connector).await;
                    judge(&server, &health, result, Instant::now());
                });
            }
            match checks.join_next().await {
                None => return,
                Some(Ok(())) => {}
                Some(Err(error)) => tracing::error!("a health check ended in the middle: {error}"),
            }
        }
    }
}

/// `lot` is from 0 to 1.
fn jittered(interval: Duration, lot: f64) -> Duration {
    interval.mul_f64(1.0 - JITTER + 2.0 * JITTER * lot)
}

async fn check(server: &Server, health: &HealthCheck, connector: &Connector) -> Result<(), String> {
    match tokio::time::timeout(health.timeout, ask(server, health, connector)).await {
        Ok(Ok(status)) if health.expects(status) => Ok(()),
        Ok(Ok(status)) => Err(format!("it answered {} with status {status}", health.path)),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {:?}", health.timeout)),
    }
}

/// The status of the answer.
async fn ask(server: &Server, health: &HealthCheck, connector: &Connector) -> pingora::Result<u16> {
    let mut peer = server.peer.clone();
    // A kept connection would hide that no new one can be made.
    peer.options.idle_timeout = Some(Duration::ZERO);
    let (mut session, _) = connector.get_http_session(&peer).await?;
    let mut request = RequestHeader::build("GET", health.path.as_bytes(), Some(2))?;
    request.insert_header(HOST, &server.authority)?;
    request.insert_header(USER_AGENT, "portcullis-health-check")?;
    session.write_request_header(Box::new(request)).await?;
    session.finish_request_body().await?;
    session.read_response_header().await?;
    Ok(session.response_header().map_or(0, |answer| answer.status.as_u16()))
}

fn judge(server: &Server, health: &HealthCheck, result: Result<(), String>, now: Instant) {
    let state = &server.state;
    let is_good = result.is_ok();
    if is_good == state.is_healthy() {
        state.contrary.store(0, Ordering::Relaxed);
        return;
    }
    let needed = if is_good { health.healthy_after } else { health.unhealthy_after };
    if state.contrary.fetch_add(1, Ordering::Relaxed) + 1 < needed {
        return;
    }
    state.contrary.store(0, Ordering::Relaxed);
    if is_good {
        state.came_back(now);
    }
    state.healthy.store(is_good, Ordering::Relaxed);
    match result {
        Ok(()) => tracing::info!("upstream {}: {} is healthy again", server.pool, server.address),
        Err(why) => tracing::warn!("upstream {}: {} is unhealthy: {why}", server.pool, server.address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_are_a_tenth_early_or_late_at_most() {
        let interval = Duration::from_secs(10);
        for (lot, millis) in [(0.0, 9_000), (0.5, 10_000), (1.0, 11_000)] {
            let apart = jittered(interval, lot).as_secs_f64() - f64::from(millis) / 1e3;
            assert!(apart.abs() < 1e-6, "{lot}: {apart}");
        }
    }
}
