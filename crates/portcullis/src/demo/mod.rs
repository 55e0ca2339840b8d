//! The demonstration: a sample site, a crowd of visitors and attackers, and a table that shows what
//! the gateway between them does. Owns everything but the gateway itself, which the caller starts and
//! whose findings and blocks reach this module only as `DemoEvent`s.

mod attackers;
pub(crate) mod clients;
mod http_client;
mod ledger;
mod pages;
pub(crate) mod site;
mod summary;
mod table;

use std::collections::HashMap;
use std::io::{self, IsTerminal as _};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime};

use portcullis_model::{ClientIp, Severity, UnixMs};

pub(crate) use summary::{Guide, Summary};

use clients::Crowd;
use table::Screen;

/// The capacity for the channel of events: `std::sync::mpsc::sync_channel(EVENT_QUEUE)`.
pub(crate) const EVENT_QUEUE: usize = 1_024;

/// Clients whose findings and blocks are remembered; the one heard of longest ago makes room.
const MAX_STANDINGS: usize = 512;
const REDRAW_EVERY: Duration = Duration::from_millis(500);
/// How soon the end of the demo is noticed.
const WAKE_EVERY: Duration = Duration::from_millis(100);

/// What the command line asked for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DemoOptions {
    /// Ends by itself after so many seconds; `None` runs until it is told to stop.
    pub(crate) seconds: Option<u64>,
}

/// Something that the gateway did, for the table.
#[derive(Clone, Debug)]
pub(crate) enum DemoEvent {
    /// The detector found a client suspicious; also when it says so again.
    Finding {
        client: ClientIp,
        severity: Severity,
        /// The name of the strongest rule.
        reason: String,
        /// One sentence with the evidence.
        says: String,
    },
    /// The detector blocked a client, or the network that the client belongs to.
    Blocked { client: ClientIp, reason: String, expires: Option<UnixMs> },
    /// A run of the detector is over.
    DetectionRun { findings: u64, blocked: u64, took: Duration },
}

/// What the detector said of one client. Times are since the start of the demo.
#[derive(Clone, Debug, Default)]
struct Standing {
    flagged: Option<Flag>,
    blocked: Option<Ban>,
    heard_at: Duration,
}

#[derive(Clone, Debug)]
struct Flag {
    /// The first time.
    at: Duration,
    severity: Severity,
    reason: String,
}

#[derive(Clone, Debug)]
struct Ban {
    at: Duration,
    reason: String,
    /// `None` lasts until somebody removes it.
    lasts: Option<Duration>,
}

/// Everything that the gateway has told, by client.
#[derive(Debug, Default)]
struct Board {
    /// By the address under which the gateway counts: IPv6 by its /64.
    standings: HashMap<IpAddr, Standing>,
    runs: u64,
    last_run: Option<Run>,
}

#[derive(Clone, Copy, Debug)]
struct Run {
    findings: u64,
    blocked: u64,
    took: Duration,
}

impl Board {
    fn standing(&self, client: ClientIp) -> Option<&Standing> {
        self.standings.get(&client.limit_key())
    }

    /// Takes an event in; says whether it is news. The detector looks at the same hour again and again,
    /// so most of its findings are known.
    fn record(&mut self, event: &DemoEvent, at: Duration, now: UnixMs) -> bool {
        match event {
            DemoEvent::Finding { client, severity, reason, .. } => {
                let standing = self.standing_mut(*client, at);
                let known = standing.flagged.as_ref().map(|flag| (flag.at, flag.severity));
                let flag =
                    Flag { at: known.map_or(at, |k| k.0), severity: *severity, reason: reason.clone() };
                standing.flagged = Some(flag);
                known.is_none_or(|(_, before)| *severity > before)
            }
            DemoEvent::Blocked { client, reason, expires } => {
                let standing = self.standing_mut(*client, at);
                let is_new = standing.blocked.is_none();
                let lasts = expires.map(|end| end.since(now));
                let at = standing.blocked.as_ref().map_or(at, |ban| ban.at);
                standing.blocked = Some(Ban { at, reason: reason.clone(), lasts });
                is_new
            }
            DemoEvent::DetectionRun { findings, blocked, took } => {
                self.runs += 1;
                self.last_run = Some(Run { findings: *findings, blocked: *blocked, took: *took });
                true
            }
        }
    }

    fn standing_mut(&mut self, client: ClientIp, at: Duration) -> &mut Standing {
        let key = client.limit_key();
        if self.standings.len() >= MAX_STANDINGS && !self.standings.contains_key(&key) {
            let oldest = self.standings.iter().min_by_key(|(_, s)| s.heard_at).map(|(key, _)| *key);
            oldest.and_then(|oldest| self.standings.remove(&oldest));
        }
        let standing = self.standings.entry(key).or_default();
        standing.heard_at = at;
        standing
    }
}

/// Shows the crowd and the gateway at work on standard output until `ended` is set or the time is up,
/// then sends the crowd home and sums up. Blocks the calling thread.
///
/// # Errors
/// Standard output cannot be written.
pub(crate) fn watch(
    mut crowd: Crowd,
    events: &Receiver<DemoEvent>,
    ended: &AtomicBool,
    options: DemoOptions,
    guide: &Guide,
) -> io::Result<Summary> {
    // Not locked for the whole demo: other threads may have something to print.
    let stdout = io::stdout();
    let is_terminal = stdout.is_terminal();
    let colour = is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let mut screen = Screen::new(stdout, is_terminal, colour);
    let mut board = Board::default();
    screen.say(&guide.introduction())?;

    let started = Instant::now();
    let deadline = options.seconds.and_then(|seconds| started.checked_add(Duration::from_secs(seconds)));
    let mut next_draw = started;
    loop {
        let now = Instant::now();
        if ended.load(Ordering::Relaxed) || deadline.is_some_and(|end| now >= end) {
            break;
        }
        if now >= next_draw {
            screen.draw(&crowd.snapshot(), &board, table::terminal_size())?;
            next_draw = now + REDRAW_EVERY;
        }
        match events.recv_timeout(WAKE_EVERY) {
            Ok(event) => take_in(&event, &crowd, &mut board, &mut screen)?,
            Err(RecvTimeoutError::Timeout) => {}
            // Nobody will tell anything any more; the table goes on with what the clients see.
            Err(RecvTimeoutError::Disconnected) => std::thread::sleep(WAKE_EVERY),
        }
    }

    crowd.stop();
    for event in events.try_iter().take(EVENT_QUEUE) {
        take_in(&event, &crowd, &mut board, &mut screen)?;
    }
    let last = crowd.snapshot();
    screen.draw(&last, &board, table::terminal_size())?;
    Ok(summary::sum_up(&last, &board, guide, colour))
}

fn take_in(
    event: &DemoEvent,
    crowd: &Crowd,
    board: &mut Board,
    screen: &mut Screen<impl io::Write>,
) -> io::Result<()> {
    let snapshot = crowd.snapshot();
    let is_news = board.record(event, snapshot.elapsed, UnixMs::from_system(SystemTime::now()));
    if is_news { screen.tell(event, &snapshot) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(client: &str, severity: Severity) -> DemoEvent {
        let client = client.parse().unwrap();
        DemoEvent::Finding { client, severity, reason: "path_probing".into(), says: "40 paths".into() }
    }

    #[test]
    fn a_finding_is_news_the_first_time_and_when_it_gets_worse() {
        let mut board = Board::default();
        let mut record =
            |severity, at| board.record(&finding("192.0.2.1", severity), Duration::from_secs(at), UnixMs(0));
        assert!(record(Severity::Medium, 15));
        assert!(!record(Severity::Medium, 30));
        assert!(record(Severity::High, 45));
        let standing = board.standing("192.0.2.1".parse().unwrap()).unwrap();
        assert_eq!(standing.flagged.as_ref().unwrap().at, Duration::from_secs(15));
        assert_eq!(standing.flagged.as_ref().unwrap().severity, Severity::High);
    }

    #[test]
    fn addresses_of_one_64_share_a_standing() {
        let mut board = Board::default();
        board.record(&finding("2001:db8:1:2::7", Severity::High), Duration::ZERO, UnixMs(0));
        assert!(board.standing("2001:db8:1:2::8".parse().unwrap()).is_some());
        assert!(board.standing("2001:db8:1:3::7".parse().unwrap()).is_none());
    }

    #[test]
    fn the_board_stays_bounded_and_forgets_the_oldest() {
        let mut board = Board::default();
        for n in 0..=MAX_STANDINGS {
            let client = format!("10.0.{}.{}", n / 256, n % 256);
            board.record(&finding(&client, Severity::Low), Duration::from_secs(n as u64), UnixMs(0));
        }
        assert_eq!(board.standings.len(), MAX_STANDINGS);
        assert!(board.standing("10.0.0.0".parse().unwrap()).is_none());
    }

    #[test]
    fn a_block_says_how_long_it_lasts_from_now() {
        let mut board = Board::default();
        let client = "192.0.2.1".parse().unwrap();
        let event = DemoEvent::Blocked { client, reason: "x".into(), expires: Some(UnixMs(61_000)) };
        assert!(board.record(&event, Duration::ZERO, UnixMs(1_000)));
        assert!(!board.record(&event, Duration::ZERO, UnixMs(1_000)));
        let ban = board.standing(client).unwrap().blocked.clone().unwrap();
        assert_eq!(ban.lasts, Some(Duration::from_secs(60)));
    }
}
