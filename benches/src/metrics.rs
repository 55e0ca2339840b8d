//! Reads the gateway's own figures, as Prometheus would.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::Context as _;

const TIMEOUT: Duration = Duration::from_secs(10);
const MAX_BYTES: u64 = 4 << 20;

/// The text of `/metrics`.
///
/// # Errors
/// When nothing answers there.
pub fn read(address: SocketAddr) -> anyhow::Result<String> {
    let mut socket = TcpStream::connect_timeout(&address, TIMEOUT)
        .with_context(|| format!("cannot connect to the metrics at {address}"))?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    socket.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    socket.take(MAX_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

/// The value of a metric without labels.
pub fn value(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_found_by_its_whole_name() {
        let text = "# HELP a_total A\na_total_more 7\na_total 3\nb{x=\"1\"} 4\n";
        assert_eq!(value(text, "a_total"), Some(3.0));
        assert_eq!(value(text, "a"), None);
    }
}
