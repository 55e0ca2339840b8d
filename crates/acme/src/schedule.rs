//! When the next try is due: pure, from what is known of a name. Must not read clocks or files.

use std::time::Duration;

use portcullis_config::Acme;
use portcullis_model::UnixMs;

use crate::Progress;
use crate::certificate::Validity;

/// The longest wait between two tries.
const MAX_BACK_OFF: Duration = Duration::from_secs(86_400);
/// The least wait after the authority has said that there were too many orders.
const RATE_LIMITED: Duration = Duration::from_secs(3_600);

/// When to try the next time. `validity` is that of the certificate that there is.
pub(crate) fn due(progress: &Progress, validity: Option<Validity>, settings: &Acme) -> UnixMs {
    let is_other = !progress.issued_by.is_empty() && progress.issued_by != settings.directory;
    let wanted = match validity {
        None => UnixMs(0),
        Some(_) if is_other => UnixMs(0),
        Some(validity) => progress.renew_at.unwrap_or_else(|| last_third(validity)),
    };
    // What failed with other settings says nothing about these.
    let has_failed =
        progress.directory == settings.directory && progress.challenge == settings.challenge.as_str();
    let not_before = progress.next_try.filter(|_| has_failed).unwrap_or_default();
    wanted.max(not_before)
}

fn last_third(validity: Validity) -> UnixMs {
    validity.not_after.minus(validity.not_after.since(validity.not_before) / 3)
}

/// Whether a certificate that has just been issued would have to be renewed now.
pub(crate) fn is_due_already(validity: Validity, now: UnixMs) -> bool {
    last_third(validity) <= now
}

/// When to renew a new certificate: when a third of its time is left, spread a little, so that those that were
/// issued together do not fall due together for ever.
pub(crate) fn renewal(validity: Validity, random: &mut fastrand::Rng) -> UnixMs {
    let spread = validity.not_after.since(validity.not_before) / 30;
    last_third(validity).plus(spread.mul_f64(random.f64()))
}

/// The wait after so many failures in a row: doubled each time, a fifth more or less by chance.
pub(crate) fn back_off(first: Duration, failures: u32, random: &mut fastrand::Rng) -> Duration {
    let doublings = failures.saturating_sub(1).min(20);
    first.saturating_mul(1 << doublings).min(MAX_BACK_OFF).mul_f64(0.8 + 0.4 * random.f64())
}

/// The wait after the authority has refused an order as one too many.
pub(crate) fn rate_limited(wait: Duration) -> Duration {
    wait.max(RATE_LIMITED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_config::AcmeChallenge;

    const DAY: Duration = Duration::from_secs(86_400);

    fn settings() -> Acme {
        Acme {
            directory: "https://acme.example/directory".to_owned(),
            contact: Vec::new(),
            challenge: AcmeChallenge::Http01,
            directory_ca: None,
            external_account: None,
            retry: Duration::from_secs(300),
            folder: "acme".into(),
            certificates: Vec::new(),
        }
    }

    fn day(n: u32) -> UnixMs {
        UnixMs(0).plus(DAY * n)
    }

    const NINETY: Option<Validity> =
        Some(Validity { not_before: UnixMs(0), not_after: UnixMs(90 * 86_400_000) });

    fn tried(next_try: UnixMs) -> Progress {
        let Acme { directory, challenge, .. } = settings();
        let challenge = challenge.as_str().to_owned();
        Progress { directory, challenge, next_try: Some(next_try), ..Progress::default() }
    }

    #[test]
    fn a_name_without_a_certificate_is_due_at_once_and_after_a_failure_when_its_wait_is_over() {
        assert_eq!(due(&Progress::default(), None, &settings()), UnixMs(0));
        assert_eq!(due(&tried(day(3)), None, &settings()), day(3));
    }

    #[test]
    fn a_certificate_is_renewed_when_a_third_of_its_time_is_left() {
        assert_eq!(due(&Progress::default(), NINETY, &settings()), day(60));
        assert_eq!(due(&tried(day(61)), NINETY, &settings()), day(61));
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..100 {
            let at = NINETY.map(|validity| renewal(validity, &mut random)).unwrap();
            assert!(at >= day(60) && at <= day(63), "{at:?}");
        }
    }

    #[test]
    fn a_clock_that_is_wrong_makes_no_order_without_end() {
        let ninety = NINETY.unwrap();
        assert!(!is_due_already(ninety, day(0)));
        assert!(is_due_already(ninety, day(400)), "the clock was put forward");
    }

    #[test]
    fn other_settings_do_not_wait_for_failures_of_before() {
        let staging = Progress { directory: "https://staging.example".to_owned(), ..tried(day(9)) };
        assert_eq!(due(&staging, None, &settings()), UnixMs(0));
        let by_tls = Progress { challenge: "tls-alpn-01".to_owned(), ..tried(day(9)) };
        assert_eq!(due(&by_tls, None, &settings()), UnixMs(0));
        let issued = Progress { issued_by: "https://staging.example".to_owned(), ..Progress::default() };
        assert_eq!(
            due(&issued, NINETY, &settings()),
            UnixMs(0),
            "a certificate of another authority is replaced"
        );
    }

    #[test]
    fn waits_double_up_to_a_day_and_are_never_alike() {
        let mut random = fastrand::Rng::with_seed(7);
        let minutes = Duration::from_secs(60);
        for (failures, least, most) in
            [(1, 4, 6), (2, 8, 12), (3, 16, 24), (20, 1_152, 1_728), (u32::MAX, 1_152, 1_728)]
        {
            let wait = back_off(5 * minutes, failures, &mut random);
            assert!(wait >= least * minutes && wait <= most * minutes, "{failures}: {wait:?}");
        }
        let first = Duration::from_secs(300);
        assert_ne!(back_off(first, 1, &mut random), back_off(first, 1, &mut random));
        assert_eq!(rate_limited(first), RATE_LIMITED);
    }
}
