//! PROXY headers: no prefix says anything else than the whole, and what is read can be written again.

use portcullis_wire::proxy_protocol::{MAX_V1, MAX_V2, Proxied, parse};

/// Prefixes that are tried; a header of version 1 ends before.
const PREFIXES: usize = 2 * MAX_V1;

/// The bytes at the start of a connection.
pub fn proxy_header(data: &[u8]) {
    let whole = parse(data);
    for len in 0..data.len().min(PREFIXES) {
        let part = parse(&data[..len]);
        assert!(part == Ok(None) || part == whole, "{part:?} after {len}, then {whole:?}");
    }
    let Ok(Some((len, said))) = whole else {
        assert!(data.len() < MAX_V2 || whole.is_err(), "it ends somewhere");
        return;
    };
    assert!(len <= data.len() && len <= if data[0] == b'P' { MAX_V1 } else { MAX_V2 });
    assert_eq!(parse(&data[..len]), whole, "what follows is not read");
    assert_eq!(parse(&data[..len - 1]), Ok(None), "it ends no sooner");
    if let Proxied::Client { source, destination } = said {
        assert_eq!(source.is_ipv4(), destination.is_ipv4());
        let protocol = if source.is_ipv4() { "TCP4" } else { "TCP6" };
        let (from, to) = (source.ip(), destination.ip());
        let line = format!("PROXY {protocol} {from} {to} {} {}\r\n", source.port(), destination.port());
        assert_eq!(parse(line.as_bytes()), Ok(Some((line.len(), said))));
    }
}
