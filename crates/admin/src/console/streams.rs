//! Answers that go on: what happens now, told to a page that listens (server-sent events).
//!
//! Owns how many there are at once and how long one lasts. Must not know what is told.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures_util::{Stream, StreamExt as _, stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

use super::error::PageError;

/// Streams at once, of all visitors.
pub(super) const MAX_STREAMS: usize = 16;
/// From one event to the next.
pub(super) const PERIOD: Duration = Duration::from_secs(1);
/// Then it ends, and the page asks again: whoever has signed out in the meantime hears no more.
const STREAM_TIME: Duration = Duration::from_secs(60);
/// How long the page waits before it asks again.
const RETRY: Duration = Duration::from_secs(1);

/// Tells `next` once per [`PERIOD`], as long as it has something to tell from. `None` is silence for once.
pub(super) fn tell<S, F, N>(streams: &Arc<Semaphore>, state: S, next: N) -> Result<Response, PageError>
where
    S: Send + 'static,
    F: Future<Output = (Option<Event>, S)> + Send + 'static,
    N: Fn(S) -> F + Clone + Send + 'static,
{
    let permit = Arc::clone(streams).try_acquire_owned().map_err(|_| PageError::Busy)?;
    let events = events(permit, state, next);
    let answer = Sse::new(events).keep_alive(KeepAlive::default());
    // Nothing between the page and here may gather events.
    Ok(([("x-accel-buffering", "no")], answer).into_response())
}

fn events<S, F, N>(
    permit: OwnedSemaphorePermit,
    state: S,
    next: N,
) -> impl Stream<Item = Result<Event, Infallible>> + Send
where
    S: Send + 'static,
    F: Future<Output = (Option<Event>, S)> + Send + 'static,
    N: Fn(S) -> F + Clone + Send + 'static,
{
    let mut clock = interval(PERIOD);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let end = Instant::now() + STREAM_TIME;
    let told = stream::unfold((state, clock, permit), move |(state, mut clock, permit)| {
        let next = next.clone();
        async move {
            timeout_at(end, clock.tick()).await.ok()?;
            let (event, state) = next(state).await;
            Some((event, (state, clock, permit)))
        }
    });
    let first = stream::once(async { Some(Event::default().retry(RETRY).comment("begins")) });
    first.chain(told).filter_map(async |event| event.map(Ok))
}
