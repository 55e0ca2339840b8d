//! Writes small MMDB files for the tests: a search tree of 32-bit records, a data section, metadata.
//!
//! Follows the MaxMind DB format 2.0. Must not share code with what it tests.

use std::net::IpAddr;

/// Whether the tree starts at the first bit of IPv4 or of IPv6 (then IPv4 is at `::/96`).
#[derive(Clone, Copy)]
pub(crate) enum Tree {
    V4,
    V6,
}

pub(crate) enum Field {
    Text(&'static str),
    Short(u16),
    Number(u32),
    Long(u64),
    Float(f32),
    Double(f64),
    Bool(bool),
    List(Vec<Field>),
    Map(Vec<(&'static str, Field)>),
}

use Field::{Map, Text};

/// `{"en": name, "de": ...}`, as MaxMind names places.
pub(crate) fn names(name: &'static str) -> Field {
    Map(vec![("de", Text("auf Deutsch")), ("en", Text(name))])
}

pub(crate) struct Writer {
    kind: &'static str,
    tree: Tree,
    entries: Vec<(u128, u32, Field)>,
}

impl Writer {
    pub(crate) fn new(kind: &'static str, tree: Tree) -> Self {
        Self { kind, tree, entries: Vec::new() }
    }

    /// Adds a network such as `192.0.2.0/24`; networks must not overlap.
    pub(crate) fn with(mut self, network: &str, record: Field) -> Self {
        let (address, length) = network.split_once('/').unwrap();
        let length: u32 = length.parse().unwrap();
        let (bits, length) = match (address.parse().unwrap(), self.tree) {
            (IpAddr::V4(v4), Tree::V4) => (u128::from(v4.to_bits()) << 96, length),
            (IpAddr::V4(v4), Tree::V6) => (u128::from(v4.to_bits()), 96 + length),
            (IpAddr::V6(v6), Tree::V6) => (v6.to_bits(), length),
            (IpAddr::V6(_), Tree::V4) => panic!("an IPv6 network in an IPv4 tree"),
        };
        self.entries.push((bits, length, record));
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut data = Vec::new();
        let offsets: Vec<u32> = self
            .entries
            .iter()
            .map(|(_, _, record)| {
                let at = u32::try_from(data.len()).unwrap();
                encode(record, &mut data);
                at
            })
            .collect();
        let nodes = self.nodes();
        let count = u32::try_from(nodes.len()).unwrap();
        let mut file = Vec::new();
        for record in nodes.iter().flatten() {
            let number = match *record {
                Slot::Empty => count,
                Slot::Node(node) => node,
                Slot::Entry(entry) => count + 16 + offsets[entry],
            };
            file.extend(number.to_be_bytes());
        }
        file.extend([0; 16]);
        file.extend(data);
        file.extend(b"\xab\xcd\xefMaxMind.com");
        encode(&self.metadata(count), &mut file);
        file
    }

    fn nodes(&self) -> Vec<[Slot; 2]> {
        let mut nodes = vec![[Slot::Empty; 2]];
        for (entry, (bits, length, _)) in self.entries.iter().enumerate() {
            let mut node = 0;
            for depth in 0..*length {
                let side = usize::from(bits >> (127 - depth) & 1 == 1);
                if depth + 1 == *length {
                    nodes[node][side] = Slot::Entry(entry);
                } else {
                    if let Slot::Empty = nodes[node][side] {
                        nodes[node][side] = Slot::Node(u32::try_from(nodes.len()).unwrap());
                        nodes.push([Slot::Empty; 2]);
                    }
                    let Slot::Node(next) = nodes[node][side] else { panic!("networks overlap") };
                    node = next as usize;
                }
            }
        }
        nodes
    }

    fn metadata(&self, nodes: u32) -> Field {
        let version = match self.tree {
            Tree::V4 => 4,
            Tree::V6 => 6,
        };
        Map(vec![
            ("binary_format_major_version", Field::Short(2)),
            ("binary_format_minor_version", Field::Short(0)),
            ("build_epoch", Field::Long(1_790_000_000)),
            ("database_type", Text(self.kind)),
            ("description", Map(vec![("en", Text("a test"))])),
            ("ip_version", Field::Short(version)),
            ("languages", Field::List(vec![Text("en")])),
            ("node_count", Field::Number(nodes)),
            ("record_size", Field::Short(32)),
        ])
    }
}

#[derive(Clone, Copy)]
enum Slot {
    Empty,
    Node(u32),
    Entry(usize),
}

fn encode(field: &Field, out: &mut Vec<u8>) {
    match field {
        Text(text) => {
            control(2, text.len(), out);
            out.extend(text.bytes());
        }
        Field::Double(number) => {
            control(3, 8, out);
            out.extend(number.to_be_bytes());
        }
        Field::Short(number) => {
            control(5, 2, out);
            out.extend(number.to_be_bytes());
        }
        Field::Long(number) => {
            control(9, 8, out);
            out.extend(number.to_be_bytes());
        }
        Field::Number(number) => {
            control(6, 4, out);
            out.extend(number.to_be_bytes());
        }
        Map(entries) => {
            control(7, entries.len(), out);
            for (key, value) in entries {
                encode(&Text(key), out);
                encode(value, out);
            }
        }
        Field::List(items) => {
            control(11, items.len(), out);
            items.iter().for_each(|item| encode(item, out));
        }
        Field::Bool(flag) => control(14, usize::from(*flag), out),
        Field::Float(number) => {
            control(15, 4, out);
            out.extend(number.to_be_bytes());
        }
    }
}

/// Type and size; types above 7 have a byte of their own, sizes from 29 too.
fn control(kind: u8, size: usize, out: &mut Vec<u8>) {
    let (short, long) = match u8::try_from(size).unwrap() {
        size @ 0..29 => (size, None),
        size => (29, Some(size - 29)),
    };
    if kind <= 7 {
        out.push(kind << 5 | short);
    } else {
        out.extend([short, kind - 7]);
    }
    out.extend(long);
}
