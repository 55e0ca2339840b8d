//! Header compression (RFC 7541): every representation is read, every broken one ends the connection.

use super::cases::get;
use super::wire::*;
use super::{Accept, H2Case, run};
use crate::ground::Ground;

/// The library does not tell this error of a connection from others.
const BROKEN: Accept = Accept::Connection(&[COMPRESSION_ERROR, PROTOCOL_ERROR]);

/// A GET whose block has these bytes before and after it.
fn around(before: &[u8], after: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, 1, &[before, &get("/hpack"), after].concat())
}

fn after(bytes: &[u8]) -> Vec<u8> {
    around(&[], bytes)
}

fn good(name: &str, bytes: Vec<u8>) -> H2Case {
    H2Case::new(name, vec![bytes], &[Accept::Answer(1, 200)]).with_requests(1, 1)
}

fn broken(name: &str, bytes: Vec<u8>) -> H2Case {
    H2Case::new(name, vec![bytes], &[BROKEN]).with_requests(0, 1)
}

/// `user-agent`, in the static table.
const USER_AGENT: usize = 58;

fn cases() -> Vec<H2Case> {
    // "edge" in the code of appendix B: e is 00101, d 100100, g 100110, and ones fill the last byte.
    let huffman = [0x83, 0b0010_1100, 0b1001_0011, 0b0001_0111];
    let named = |first, prefix| [integer(first, prefix, USER_AGENT), vec![4], b"edge".to_vec()].concat();
    let coded = |first, prefix| [integer(first, prefix, USER_AGENT), huffman.to_vec()].concat();
    let new = |first: u8| literal(first, b"x-test", b"edge");
    let new_coded = |first: u8| [&[first, 6][..], b"x-test", &huffman].concat();
    let pseudo = [
        &[0x82, 0x87][..],
        &literal(0x40, b":path", b"/hpack"),
        &literal(0x40, b":authority", crate::ground::NAME.as_bytes()),
    ]
    .concat();
    let request = |stream, block: &[u8]| frame(HEADERS, END_HEADERS | END_STREAM, stream, block);
    vec![
        good("6.1: an indexed field", after(&integer(0x80, 7, USER_AGENT))),
        good("6.1: indexed pseudo-header fields", request(1, &pseudo)),
        good("6.2.1: with indexing, indexed name", after(&named(0x40, 6))),
        good("6.2.1: with indexing, indexed name, Huffman", after(&coded(0x40, 6))),
        good("6.2.1: with indexing, new name", after(&new(0x40))),
        good("6.2.1: with indexing, new name, Huffman", after(&new_coded(0x40))),
        good("6.2.2: without indexing, indexed name", after(&named(0, 4))),
        good("6.2.2: without indexing, indexed name, Huffman", after(&coded(0, 4))),
        good("6.2.2: without indexing, new name", after(&new(0))),
        good("6.2.2: without indexing, new name, Huffman", after(&new_coded(0))),
        good("6.2.3: never indexed, indexed name", after(&named(0x10, 4))),
        good("6.2.3: never indexed, indexed name, Huffman", after(&coded(0x10, 4))),
        good("6.2.3: never indexed, new name", after(&new(0x10))),
        good("6.2.3: never indexed, new name, Huffman", after(&new_coded(0x10))),
        good("6.3: a size update", around(&integer(0x20, 5, 0), &[])),
        good("6.3: two size updates", around(&[integer(0x20, 5, 0), integer(0x20, 5, 4_096)].concat(), &[])),
        good(
            "2.3.2: a field from the dynamic table",
            request(1, &[&pseudo[..], &literal(0x40, b"x-a", b"1"), &[0xbe]].concat()),
        ),
        H2Case::new(
            "2.3.2: the dynamic table lasts",
            vec![request(1, &pseudo), request(3, &[0x82, 0x87, 0xbf, 0xbe])],
            &[Accept::Answer(3, 200)],
        )
        .waiting(Accept::Answer(1, 200))
        .with_requests(2, 2),
        good("5.1: a long integer", after(&literal(0, b"x-long", &[b'x'; 5_000]))),
        good(
            "5.1: an integer with zeros behind",
            after(&[&[0x00, 6][..], b"x-test", &[0x7f, 0x80, 0x80, 0x00], &[b'v'; 127]].concat()),
        ),
        broken("2.3.3: an index beyond the tables", after(&integer(0x80, 7, 70))),
        broken("2.3.3: a large index", after(&integer(0x80, 7, 100_000))),
        broken(
            "2.3.3: a name's index beyond the tables",
            after(&[integer(0x40, 6, 70), vec![4], b"edge".to_vec()].concat()),
        ),
        broken("6.1: index 0", after(&[0x80])),
        broken("4.2: a size update at the end of a block", after(&integer(0x20, 5, 1))),
        broken("6.3: a size update beyond the setting", around(&integer(0x20, 5, 4_097), &[])),
        broken("6.3: a very large size update", around(&integer(0x20, 5, 1 << 30), &[])),
        broken(
            "5.1: an integer without an end",
            after(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]),
        ),
        broken(
            "5.2: padding of more than 7 bits",
            after(
                &[&[0x00, 6][..], b"x-test", &[0x84, 0b0010_1100, 0b1001_0011, 0b0001_0111, 0xff]].concat(),
            ),
        ),
        broken(
            "5.2: padding of zeros",
            after(&[&[0x00, 6][..], b"x-test", &[0x83, 0b0010_1100, 0b1001_0011, 0b0001_0100]].concat()),
        ),
        broken(
            "5.2: the end symbol in a string",
            after(&[&[0x00, 6][..], b"x-test", &[0x84, 0xff, 0xff, 0xff, 0xff]].concat()),
        ),
        broken(
            "5.2: a string longer than its block",
            after(&[&[0x00, 6][..], b"x-test", &[0x7f, 0x10, b'x']].concat()),
        ),
        broken("5.2: a name longer than its block", after(&[0x00, 0x7f, 0x10, b'x'])),
        broken("a block that ends after the first byte of a field", after(&[0x00])),
        broken("a block that ends before a value", after(&[&[0x00, 6][..], b"x-test"].concat())),
    ]
}

#[test]
fn header_blocks_are_read_by_the_letter() {
    run("hpack", &Ground::direct(), &cases());
}
