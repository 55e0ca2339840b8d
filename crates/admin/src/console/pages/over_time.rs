//! Requests over time by verdict, as a chart whose bars lead to their requests.
//! Must not read the log.

use maud::Markup;
use portcullis_model::{UnixMs, VerdictKind};
use portcullis_store::{Bucket, Traffic};

use crate::console::charts::{Bar, Bars, Kind};
use crate::console::words::address;

/// What the bars are divided into, from the bottom to the top.
const KINDS: [Kind; 5] = [
    Kind { name: "served", class: "accent" },
    Kind { name: "would refuse", class: "noted" },
    Kind { name: "malformed", class: "calm" },
    Kind { name: "limited", class: "warn" },
    Kind { name: "blocked", class: "bad" },
];

fn by_kind(traffic: &Traffic) -> [u64; KINDS.len()] {
    let mut counts = [0; KINDS.len()];
    for verdict in VerdictKind::ALL {
        let kind = match verdict {
            VerdictKind::Admitted | VerdictKind::Allowed => 0,
            VerdictKind::WouldBlock | VerdictKind::WouldLimit => 1,
            VerdictKind::Malformed => 2,
            VerdictKind::Limited => 3,
            VerdictKind::Blocked => 4,
        };
        counts[kind] += traffic.with_verdict(verdict);
    }
    counts
}

/// The chart; `filter` is what the requests behind a bar are filtered by besides their time.
pub(super) fn chart(label: &str, series: &[Bucket], bucket_ms: i64, filter: &[(&str, &str)]) -> Markup {
    let bars = series.iter().map(|bucket| {
        let (since, until) = (moment(bucket.start), moment(UnixMs(bucket.start.0 + bucket_ms)));
        let span = [("since", since.as_str()), ("until", until.as_str())];
        let link = address("/requests", &[filter, &span].concat());
        Bar { start: bucket.start, counts: by_kind(&bucket.traffic), link }
    });
    Bars { label, kinds: KINDS, bars: bars.collect(), bar_ms: bucket_ms }.draw()
}

/// As an address has it; UTC. Buckets begin with a minute.
pub(super) fn moment(at: UnixMs) -> String {
    jiff::Timestamp::from_millisecond(at.0)
        .map(|at| at.strftime("%Y-%m-%dT%H:%MZ").to_string())
        .unwrap_or_default()
}
