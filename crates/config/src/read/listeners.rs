//! Addresses to listen on, and whether two settings want the same one. Must not open sockets.

use std::net::SocketAddr;

use super::fields::{Context, Place, Value, quoted};

pub(super) const WHAT: &str = "ADDRESS:PORT such as \"0.0.0.0:8080\" or \"[::1]:8080\"";

/// Every address that the gateway shall listen on, in the order of the settings.
#[derive(Default)]
pub(super) struct Listeners(Vec<(SocketAddr, Place)>);

impl Listeners {
    /// An address and a port, remembered for `report_conflicts`.
    pub(super) fn read(&mut self, value: &Value<'_>) -> Option<SocketAddr> {
        let address = value.parse_with(WHAT, address)?;
        self.add(address, value.place.clone());
        Some(address)
    }

    pub(super) fn add(&mut self, address: SocketAddr, place: Place) {
        self.0.push((address, place));
    }

    /// Reports each address that an earlier setting has taken.
    pub(super) fn report_conflicts(&self, context: &Context<'_>) {
        for (n, (address, place)) in self.0.iter().enumerate() {
            if let Some((other, taken_by)) = self.0[..n].iter().find(|(other, _)| overlap(*address, *other)) {
                let by = if taken_by.key.is_empty() { "--listen" } else { &taken_by.key };
                context.report(
                    place,
                    format!(
                        "{address} is taken already by {other} of {by}; choose another port or leave one out"
                    ),
                );
            }
        }
    }
}

/// Reads an address and a port; the error says what was expected.
pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    text.trim().parse().map_err(|_| format!("expected {WHAT}, got {}", quoted(text)))
}

/// Whether the system would refuse to serve both. Port 0 is a new port each time.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let same_family = a.is_ipv4() == b.is_ipv4();
    let any = a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() != 0 && a.port() == b.port() && (a.ip() == b.ip() || (same_family && any))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_covers_another_overlaps_with_it() {
        let overlaps = |a: &str, b: &str| overlap(address(a).unwrap(), address(b).unwrap());
        assert!(overlaps("0.0.0.0:80", "127.0.0.1:80"));
        assert!(overlaps("127.0.0.1:80", "127.0.0.1:80"));
        assert!(overlaps("[::]:80", "[::1]:80"));
        assert!(!overlaps("127.0.0.1:80", "127.0.0.2:80"));
        assert!(!overlaps("127.0.0.1:80", "127.0.0.1:81"));
        assert!(!overlaps("127.0.0.1:0", "127.0.0.1:0"));
    }
}
