//! A Pingora proxy that does nothing but forward: the yardstick.
//!
//! Owns no feature on purpose. Built with the gateway's profile and allocator, one worker thread, started
//! the way Pingora's own documentation does it.

use std::net::SocketAddr;

use async_trait::async_trait;
use clap::Parser;
use pingora::proxy::{ProxyHttp, Session, http_proxy_service};
use pingora::server::Server;
use pingora::server::configuration::ServerConf;
use pingora::upstreams::peer::HttpPeer;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Idle connections to the upstream that are kept, as many as the gateway keeps.
const KEPT_CONNECTIONS: usize = 1_024;

/// Forwards every request to one server.
#[derive(Parser)]
struct Options {
    #[arg(long)]
    listen: SocketAddr,
    #[arg(long)]
    upstream: SocketAddr,
}

struct Bare {
    upstream: SocketAddr,
}

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _: &mut Session, (): &mut ()) -> pingora::Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.upstream, false, String::new())))
    }
}

fn main() {
    let options = Options::parse();
    let conf = ServerConf {
        threads: 1,
        upstream_keepalive_pool_size: KEPT_CONNECTIONS,
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(1),
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let mut service = http_proxy_service(&server.configuration, Bare { upstream: options.upstream });
    service.add_tcp(&options.listen.to_string());
    server.add_service(service);
    server.run_forever();
}
