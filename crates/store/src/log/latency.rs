//! The buckets of the latency histogram: four to each doubling.
//!
//! Owns their bounds, which are stored with the log: another division would need another schema step. Must not count.

/// Up to about 19 hours; what takes longer is in the last one.
pub(crate) const BUCKETS: usize = 140;

/// The bucket of a latency. The first four hold one microsecond each.
pub(crate) fn bucket_of(us: u64) -> usize {
    if us < 4 {
        return us as usize;
    }
    let doubling = us.ilog2() as usize;
    let quarter = (us >> (doubling - 2)) as usize & 3;
    (4 * (doubling - 1) + quarter).min(BUCKETS - 1)
}

/// The longest latency in a bucket.
pub(crate) fn upper_us(bucket: usize) -> u64 {
    if bucket < 4 {
        return bucket as u64;
    }
    let (doubling, quarter) = (bucket / 4 + 1, bucket as u64 % 4);
    ((5 + quarter) << (doubling - 2)) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_latency_is_in_a_bucket_that_ends_at_most_a_quarter_later() {
        let doublings = (0..36).map(|n| 1_u64 << n);
        for us in (0..5_000).chain(doublings.flat_map(|us| [us - 1, us, us + 1, us + us / 4, us + us / 2])) {
            let bucket = bucket_of(us);
            let upper = upper_us(bucket);
            assert!(us <= upper && upper <= us + us / 4, "{us}: bucket {bucket} ends at {upper}");
            assert!(bucket == 0 || upper_us(bucket - 1) < us, "{us}: bucket {bucket}");
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }
}
