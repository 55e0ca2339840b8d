//! The circuit breaker of one pool: while too many of its requests fail, nobody is asked.
//! The arithmetic takes instants that are passed in. Must not know what a failure is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use portcullis_config::CircuitBreaker;

/// Parts of the window; requests leave it one part at a time.
const SLOTS: usize = 10;
/// What a client is told when the probes are under way: their number is small, so it is soon.
const PROBING: Duration = Duration::from_secs(1);

/// How a request ended, as the breaker counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Answered,
    Failed,
    /// It says nothing about the servers: the client left, or none of them was asked.
    Unknown,
}

/// For the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CircuitState {
    Closed,
    HalfOpen,
    Open,
}

impl CircuitState {
    pub const ALL: [Self; 3] = [Self::Closed, Self::HalfOpen, Self::Open];

    /// The word in the metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half_open",
            Self::Open => "open",
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    requests: usize,
    failures: usize,
}

#[derive(Debug)]
enum State {
    Closed {
        slots: [Slot; SLOTS],
        /// The slot that is being filled, and when it began.
        current: usize,
        since: Instant,
    },
    Open {
        until: Instant,
    },
    HalfOpen {
        under_way: usize,
        answered: usize,
    },
}

/// The arithmetic.
#[derive(Debug)]
struct Circuit {
    state: State,
    /// Changes with every change of state: requests that were let in before say nothing about what is now.
    generation: u64,
}

impl Circuit {
    fn new(now: Instant) -> Self {
        Self { state: Self::closed(now), generation: 0 }
    }

    fn closed(now: Instant) -> State {
        State::Closed { slots: [Slot::default(); SLOTS], current: 0, since: now }
    }

    fn become_state(&mut self, state: State) {
        self.state = state;
        self.generation += 1;
    }

    /// The generation to come back with, or how long to stay away.
    fn enter(&mut self, now: Instant, settings: &CircuitBreaker) -> Result<u64, Duration> {
        if let State::Open { until } = self.state {
            if now < until {
                return Err(until - now);
            }
            self.become_state(State::HalfOpen { under_way: 0, answered: 0 });
        }
        if let State::HalfOpen { under_way, answered } = &mut self.state {
            if *under_way + *answered >= settings.probes {
                return Err(PROBING);
            }
            *under_way += 1;
        }
        Ok(self.generation)
    }

    /// True when the state changed.
    fn leave(&mut self, generation: u64, outcome: Outcome, now: Instant, settings: &CircuitBreaker) -> bool {
        if generation != self.generation {
            return false;
        }
        let open = State::Open { until: now + settings.open_for };
        match &mut self.state {
            State::Open { .. } => false,
            State::HalfOpen { under_way, answered } => {
                *under_way = under_way.saturating_sub(1);
                match outcome {
                    Outcome::Unknown => return false,
                    Outcome::Failed => self.become_state(open),
                    Outcome::Answered => {
                        *answered += 1;
                        if *answered < settings.probes {
                            return false;
                        }
                        self.become_state(Self::closed(now));
                    }
                }
                true
            }
            State::Closed { slots, current, since } => {
                if outcome == Outcome::Unknown {
                    return false;
                }
                advance(slots, current, since, now, settings.window / SLOTS as u32);
                slots[*current].requests += 1;
                if outcome == Outcome::Answered {
                    return false;
                }
                slots[*current].failures += 1;
                let requests: usize = slots.iter().map(|slot| slot.requests).sum();
                let failures: usize = slots.iter().map(|slot| slot.failures).sum();
                let is_too_much = requests >= settings.min_requests
                    && failures as f64 >= settings.error_share * requests as f64;
                if is_too_much {
                    self.become_state(open);
                }
                is_too_much
            }
        }
    }
}

/// Makes the slot of `now` the current one and empties those that time has passed by.
fn advance(
    slots: &mut [Slot; SLOTS],
    current: &mut usize,
    since: &mut Instant,
    now: Instant,
    length: Duration,
) {
    let passed = now.saturating_duration_since(*since).as_nanos() / length.as_nanos().max(1);
    if passed >= SLOTS as u128 {
        (*slots, *current, *since) = ([Slot::default(); SLOTS], 0, now);
        return;
    }
    for _ in 0..passed {
        *current = (*current + 1) % SLOTS;
        slots[*current] = Slot::default();
        *since += length;
    }
}

/// One pool's breaker, shared by its requests.
pub(super) struct Breaker {
    pool: Arc<str>,
    settings: CircuitBreaker,
    circuit: Mutex<Circuit>,
}

impl Breaker {
    pub(super) fn new(pool: Arc<str>, settings: CircuitBreaker, now: Instant) -> Self {
        Self { pool, settings, circuit: Mutex::new(Circuit::new(now)) }
    }

    pub(super) fn settings(&self) -> &CircuitBreaker {
        &self.settings
    }

    /// Lets a request in.
    ///
    /// # Errors
    /// How long the client should stay away.
    pub(super) fn enter(self: &Arc<Self>, now: Instant) -> Result<Permit, Duration> {
        let generation = self.circuit.lock().enter(now, &self.settings)?;
        Ok(Permit { breaker: Arc::clone(self), generation, is_told: false })
    }

    pub(super) fn state(&self, now: Instant) -> CircuitState {
        match self.circuit.lock().state {
            State::Closed { .. } => CircuitState::Closed,
            State::Open { until } if now < until => CircuitState::Open,
            // The next request will be a probe.
            State::Open { .. } | State::HalfOpen { .. } => CircuitState::HalfOpen,
        }
    }

    fn leave(&self, generation: u64, outcome: Outcome, now: Instant) {
        let name = &self.pool;
        if self.circuit.lock().leave(generation, outcome, now, &self.settings) {
            match outcome {
                Outcome::Failed => tracing::warn!(
                    "upstream {name}: too many requests fail; nobody is sent there for {:?}",
                    self.settings.open_for
                ),
                Outcome::Answered | Outcome::Unknown => tracing::info!("upstream {name}: it answers again"),
            }
        }
    }
}

/// One request that was let in; it comes back, with or without a word, when it is dropped.
pub(super) struct Permit {
    breaker: Arc<Breaker>,
    generation: u64,
    is_told: bool,
}

impl Permit {
    /// The first word counts.
    pub(super) fn tell(&mut self, outcome: Outcome, now: Instant) {
        if !std::mem::replace(&mut self.is_told, true) {
            self.breaker.leave(self.generation, outcome, now);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.is_told {
            // What says nothing needs no time.
            self.breaker.leave(self.generation, Outcome::Unknown, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn settings() -> CircuitBreaker {
        CircuitBreaker {
            error_share: 0.5,
            min_requests: 10,
            window: 10 * SECOND,
            open_for: 5 * SECOND,
            probes: 2,
        }
    }

    /// Lets one request in and out.
    fn pass(circuit: &mut Circuit, now: Instant, outcome: Outcome) -> bool {
        let generation = circuit.enter(now, &settings()).unwrap();
        circuit.leave(generation, outcome, now, &settings())
    }

    fn opened(now: Instant) -> Circuit {
        let mut circuit = Circuit::new(now);
        for _ in 0..9 {
            assert!(!pass(&mut circuit, now, Outcome::Failed), "too few to judge by");
        }
        assert!(pass(&mut circuit, now, Outcome::Failed));
        circuit
    }

    #[test]
    fn it_opens_at_the_share_and_not_before() {
        let now = Instant::now();
        let mut circuit = Circuit::new(now);
        for _ in 0..50 {
            assert!(!pass(&mut circuit, now, Outcome::Answered));
        }
        for _ in 0..49 {
            assert!(!pass(&mut circuit, now, Outcome::Failed));
        }
        assert!(pass(&mut circuit, now, Outcome::Failed), "50 of 100");
        assert_eq!(circuit.enter(now + SECOND, &settings()), Err(4 * SECOND));
    }

    #[test]
    fn what_is_older_than_the_window_does_not_count() {
        let start = Instant::now();
        let mut circuit = Circuit::new(start);
        for round in 0..200_u32 {
            // Nine failures in any ten seconds.
            let now = start + round * Duration::from_millis(1_250);
            assert!(!pass(&mut circuit, now, Outcome::Failed), "failure {round}");
        }
        let later = start + 1_000 * SECOND;
        assert!(!pass(&mut circuit, later, Outcome::Failed), "all the others are long gone");
    }

    #[test]
    fn probes_close_it_or_open_it_again() {
        let start = Instant::now();
        let due = start + 5 * SECOND;
        let mut circuit = opened(start);
        let [first, second] = [0, 1].map(|_| circuit.enter(due, &settings()).unwrap());
        assert_eq!(circuit.enter(due, &settings()), Err(PROBING), "two probes, not three");
        assert!(!circuit.leave(first, Outcome::Answered, due, &settings()));
        assert!(circuit.leave(second, Outcome::Answered, due, &settings()));
        assert!(!pass(&mut circuit, due, Outcome::Failed), "closed, and the old failures are forgotten");

        let mut circuit = opened(start);
        let [first, second] = [0, 1].map(|_| circuit.enter(due, &settings()).unwrap());
        assert!(circuit.leave(first, Outcome::Failed, due, &settings()));
        assert!(!circuit.leave(second, Outcome::Answered, due, &settings()), "of the time before");
        assert_eq!(circuit.enter(due, &settings()), Err(5 * SECOND));
    }

    #[test]
    fn a_probe_that_says_nothing_makes_room_for_another() {
        let start = Instant::now();
        let mut circuit = opened(start);
        for _ in 0..100 {
            assert!(!pass(&mut circuit, start + 5 * SECOND, Outcome::Unknown));
        }
    }

    #[test]
    fn a_request_that_is_let_in_always_comes_back() {
        let now = Instant::now();
        let breaker = Arc::new(Breaker::new("app".into(), settings(), now));
        for _ in 0..10 {
            breaker.enter(now).unwrap().tell(Outcome::Failed, now);
        }
        assert_eq!(breaker.state(now), CircuitState::Open);
        let due = now + 5 * SECOND;
        assert_eq!(breaker.state(due), CircuitState::HalfOpen);
        let probes = [0, 1].map(|_| breaker.enter(due));
        assert!(breaker.enter(due).is_err());
        drop(probes);
        assert!(breaker.enter(due).is_ok());
    }
}
