//! What can go wrong with upstreams, tried before a running gateway is replaced by one with this configuration.
//!
//! Owns the trial alone; nothing of it is kept. Must not open a connection.

use std::time::Instant;

use portcullis_config::Config;

use crate::EdgeError;
use crate::ruleset::Ruleset;

/// Reads the certificates of the upstreams and looks their names up: a gateway that runs has addresses that a new
/// one may not find any more.
///
/// # Errors
/// The first file that cannot be read, or upstream without an address.
pub fn rehearse(config: &Config) -> Result<(), EdgeError> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(EdgeError::Runtime)?;
    let rules = Ruleset::build(config, None)?;
    let result = runtime.block_on(async {
        for pool in &rules.pools {
            if !pool.resolve().await && pool.state(Instant::now()).servers.is_empty() {
                return Err(EdgeError::Unresolved { upstream: pool.name() });
            }
        }
        Ok(())
    });
    // A look-up that hangs must not hold up what comes of the others.
    runtime.shutdown_background();
    result
}
