//! When a channel's next message goes out: gathering, the cap per hour, the wait after a failure. Pure.

use std::time::Duration;

use portcullis_model::UnixMs;

/// The time over which messages are counted.
pub const HOUR: Duration = Duration::from_secs(3_600);
/// Before the end of the hour, the last message that may be sent in it goes out.
const LAST_CALL: Duration = Duration::from_secs(300);
/// The wait after the first failure, and the longest.
const FIRST_RETRY: Duration = Duration::from_secs(30);
/// Events that could not be told for so long are given up.
pub const GIVE_UP_AFTER: Duration = Duration::from_secs(3 * 86_400);
/// A clock that was put back by more than this is not held against anybody.
const CLOCK_SLACK: Duration = HOUR;

/// A channel and what waits for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Queue {
    /// When the first of the events that wait happened; `None` when none waits.
    pub oldest: Option<UnixMs>,
    /// When the messages of the last hour were sent, those included of which nobody knows whether they arrived;
    /// the oldest first.
    pub sent: Vec<UnixMs>,
    /// Not before then, because the last try failed.
    pub next_try: Option<UnixMs>,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Nothing,
    Wait(UnixMs),
    Send,
}

/// Of `max_per_hour` messages in any hour the last one waits for the end of that hour: it tells all that has come
/// until then.
pub fn next_step(queue: &Queue, gather: Duration, max_per_hour: u32, now: UnixMs) -> Step {
    let Some(oldest) = queue.oldest else { return Step::Nothing };
    if let Some(at) = pause(queue.next_try, now) {
        return Step::Wait(at);
    }
    let gathered = oldest.plus(gather);
    if gathered > now && gathered.since(now) <= gather {
        return Step::Wait(gathered);
    }
    let recent: Vec<UnixMs> = queue
        .sent
        .iter()
        .copied()
        .filter(|at| now.since(*at) < HOUR && at.since(now) <= CLOCK_SLACK)
        .collect();
    let free = (max_per_hour as usize).saturating_sub(recent.len());
    let free_at = match (free, recent.first()) {
        (0, Some(first)) => {
            // With a smaller cap than before there may be more of them than it allows.
            let frees = recent.get(recent.len() - max_per_hour.max(1) as usize).unwrap_or(first);
            frees.plus(HOUR)
        }
        (1, Some(first)) => first.plus(HOUR - LAST_CALL),
        _ => now,
    };
    if free_at > now { Step::Wait(free_at) } else { Step::Send }
}

/// Until when a channel that failed is left alone.
fn pause(next_try: Option<UnixMs>, now: UnixMs) -> Option<UnixMs> {
    next_try.filter(|at| *at > now && at.since(now) <= CLOCK_SLACK)
}

/// How long to wait after so many failures in a row, at least 1: half a minute, doubling, an hour at most; longer if
/// the receiver asks for it, but no more than an hour.
pub fn backoff(failures: u32, asked: Option<Duration>) -> Duration {
    let doubled =
        FIRST_RETRY.saturating_mul(1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX));
    doubled.max(asked.unwrap_or_default()).min(HOUR)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GATHER: Duration = Duration::from_secs(30);
    const T: i64 = 1_800_000_000_000;

    fn at(seconds: i64) -> UnixMs {
        UnixMs(T + seconds * 1_000)
    }

    fn queue(oldest: i64, sent: &[i64]) -> Queue {
        Queue { oldest: Some(at(oldest)), sent: sent.iter().map(|s| at(*s)).collect(), next_try: None }
    }

    #[test]
    fn events_are_gathered_before_they_are_told() {
        assert_eq!(next_step(&Queue::default(), GATHER, 12, at(0)), Step::Nothing);
        assert_eq!(next_step(&queue(0, &[]), GATHER, 12, at(29)), Step::Wait(at(30)));
        assert_eq!(next_step(&queue(0, &[]), GATHER, 12, at(30)), Step::Send);
    }

    #[test]
    fn the_last_message_of_an_hour_waits_for_its_end_and_none_follows() {
        let sent = [0, 60];
        assert_eq!(next_step(&queue(120, &sent), GATHER, 3, at(200)), Step::Wait(at(3_300)));
        assert_eq!(next_step(&queue(120, &sent), GATHER, 3, at(3_300)), Step::Send);
        let sent = [0, 60, 3_300];
        assert_eq!(next_step(&queue(3_301, &sent), GATHER, 3, at(3_400)), Step::Wait(at(3_600)));
        assert_eq!(next_step(&queue(3_301, &sent), GATHER, 3, at(3_599)), Step::Wait(at(3_600)));
        // Then the first is an hour old, and the next "last one" waits for the end of the second's hour.
        assert_eq!(next_step(&queue(3_301, &sent), GATHER, 3, at(3_600)), Step::Send);
        assert_eq!(next_step(&queue(0, &[0]), GATHER, 1, at(100)), Step::Wait(at(3_600)));
    }

    #[test]
    fn no_hour_of_any_storm_has_more_messages_than_the_cap() {
        for cap in 1..=12_u32 {
            let mut sent: Vec<i64> = Vec::new();
            let mut waiting: Option<i64> = None;
            for second in 0..4 * 3_600 {
                waiting = waiting.or(Some(second));
                let queue = queue(waiting.unwrap_or(second), &sent);
                if next_step(&queue, GATHER, cap, at(second)) == Step::Send {
                    sent.push(second);
                    waiting = None;
                }
                let in_the_hour = sent.iter().filter(|at| second - **at < 3_600).count();
                assert!(in_the_hour <= cap as usize, "{in_the_hour} at {second}");
            }
            assert!(sent.len() >= 4 * cap as usize - 3, "{cap}: {sent:?}");
        }
    }

    #[test]
    fn a_channel_that_failed_is_left_alone_and_a_clock_that_jumped_back_is_forgiven() {
        let failed = Queue { next_try: Some(at(100)), ..queue(0, &[]) };
        assert_eq!(next_step(&failed, GATHER, 12, at(60)), Step::Wait(at(100)));
        assert_eq!(next_step(&failed, GATHER, 12, at(100)), Step::Send);
        let year = 365 * 86_400;
        let jumped = Queue { next_try: Some(at(year)), ..queue(year, &[year]) };
        assert_eq!(next_step(&jumped, GATHER, 1, at(0)), Step::Send);
    }

    #[test]
    fn waits_double_up_to_an_hour() {
        let seconds: Vec<u64> = (1..=9).map(|n| backoff(n, None).as_secs()).collect();
        assert_eq!(seconds, [30, 60, 120, 240, 480, 960, 1_920, 3_600, 3_600]);
        assert_eq!(backoff(u32::MAX, None), HOUR);
        assert_eq!(backoff(1, Some(Duration::from_secs(90))).as_secs(), 90);
        assert_eq!(backoff(1, Some(Duration::MAX)), HOUR);
    }
}
