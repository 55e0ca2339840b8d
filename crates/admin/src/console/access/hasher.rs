//! Hashing of passwords, two at a time: each takes 19 MiB and a core.
//! Must not know what is hashed.

use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::console::error::PageError;

/// Hashes at once.
pub(in crate::console) const MAX_HASHERS: usize = 2;
/// Sign-ins that wait for their turn; more are sent away.
const MAX_WAITING: usize = 32;
const WAIT: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Hasher {
    places: Semaphore,
    turns: Semaphore,
}

impl Hasher {
    pub(super) fn new() -> Self {
        Self { places: Semaphore::new(MAX_HASHERS + MAX_WAITING), turns: Semaphore::new(MAX_HASHERS) }
    }

    /// Runs it on a thread where it holds nobody up.
    ///
    /// # Errors
    /// Too many wait already, or for too long.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, PageError> {
        let Ok(_place) = self.places.try_acquire() else { return Err(PageError::Busy) };
        let Ok(Ok(_turn)) = timeout(WAIT, self.turns.acquire()).await else { return Err(PageError::Busy) };
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|panicked| PageError::Failed(format!("hashing failed: {panicked}")))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn more_than_can_wait_are_sent_away_at_once() {
        let hasher = Arc::new(Hasher::new());
        let (ends, end) = mpsc::channel::<()>();
        let end = Arc::new(parking_lot::Mutex::new(end));
        let mut running = Vec::new();
        for _ in 0..MAX_HASHERS + MAX_WAITING {
            let (hasher, end) = (Arc::clone(&hasher), Arc::clone(&end));
            running.push(tokio::spawn(async move { hasher.run(move || end.lock().recv().is_err()).await }));
        }
        while hasher.places.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert!(matches!(hasher.run(|| ()).await, Err(PageError::Busy)));
        drop(ends);
        for one in running {
            assert!(one.await.unwrap().is_ok());
        }
        assert!(hasher.run(|| ()).await.is_ok());
    }
}
