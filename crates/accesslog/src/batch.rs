//! Records by the thousand in two allocations, to be handed to another thread. Must not parse.

use std::borrow::Cow;

use portcullis_model::{ClientIp, UnixMs};

use crate::Record;

const TEXTS: usize = 6;

/// Records in their order, each text once.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    text: String,
    rows: Vec<Row>,
}

#[derive(Clone, Debug)]
struct Row {
    time: UnixMs,
    client: ClientIp,
    bytes_out: u64,
    /// Where in the text it begins; a batch is far smaller than 4 GiB.
    start: u32,
    lengths: [u32; TEXTS],
    status: u16,
    is_malformed: bool,
}

impl Batch {
    /// Copies a record to the end.
    pub fn push(&mut self, record: &Record<'_>) {
        let texts =
            [&record.method, &record.host, &record.path, &record.query, &record.user_agent, &record.referer];
        self.rows.push(Row {
            time: record.time,
            client: record.client,
            bytes_out: record.bytes_out,
            start: self.text.len() as u32,
            lengths: texts.map(|text| text.len() as u32),
            status: record.status,
            is_malformed: record.is_malformed,
        });
        texts.into_iter().for_each(|text| self.text.push_str(text));
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Bytes of all texts.
    pub fn text_bytes(&self) -> usize {
        self.text.len()
    }

    pub fn clear(&mut self) {
        self.text.clear();
        self.rows.clear();
    }

    /// The time of the record at `n`, if there is one.
    pub fn time(&self, n: usize) -> Option<UnixMs> {
        self.rows.get(n).map(|row| row.time)
    }

    /// The record at `n`, if there is one.
    pub fn get(&self, n: usize) -> Option<Record<'_>> {
        self.rows.get(n).map(|row| self.record(row))
    }

    pub fn iter(&self) -> impl Iterator<Item = Record<'_>> {
        self.rows.iter().map(|row| self.record(row))
    }

    fn record(&self, row: &Row) -> Record<'_> {
        let mut rest = &self.text[row.start as usize..];
        let mut next = |n: usize| {
            let (text, after) = rest.split_at(row.lengths[n] as usize);
            rest = after;
            Cow::Borrowed(text)
        };
        Record {
            time: row.time,
            client: row.client,
            status: row.status,
            bytes_out: row.bytes_out,
            is_malformed: row.is_malformed,
            method: next(0),
            host: next(1),
            path: next(2),
            query: next(3),
            user_agent: next(4),
            referer: next(5),
        }
    }
}
