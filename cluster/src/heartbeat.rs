//! Whether a process gets on. Its main task says so as long as it is polled; what holds that up holds up everything.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Between two beats.
const EVERY: Duration = Duration::from_secs(1);

/// The silence after which a process counts as dead. Nothing that a task does at a stretch takes more than some
/// milliseconds, and on a machine that is too busy for a beat in this time, a new process would fare no better.
const SILENCE: Duration = Duration::from_secs(30);

/// When the main task was last seen.
#[derive(Clone, Debug)]
pub struct Heartbeat(Arc<Mutex<Instant>>);

impl Heartbeat {
    /// Of a process that begins now.
    #[expect(clippy::new_without_default, reason = "it looks at the clock")]
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    /// Beats as long as it is polled: in the task whose standstill is to be noticed, beside what that does. Never ends.
    pub async fn beat(&self) -> Infallible {
        loop {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
            sleep(EVERY).await;
        }
    }

    /// Whether there has been a beat lately.
    ///
    /// # Errors
    /// Since when there has been none.
    pub fn check(&self) -> Result<(), String> {
        let silent = self.0.lock().unwrap_or_else(PoisonError::into_inner).elapsed();
        if silent <= SILENCE {
            return Ok(());
        }
        Err(format!("the main task has stood still for {} s", silent.as_secs()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{advance, timeout};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_is_not_polled_is_dead_after_a_while() {
        let heart = Heartbeat::new();
        let beaten = timeout(Duration::from_mins(5), heart.beat()).await;
        assert!(beaten.is_err());
        assert_eq!(heart.check(), Ok(()));
        advance(Duration::from_secs(29)).await;
        assert_eq!(heart.check(), Ok(()));
        advance(Duration::from_secs(3)).await;
        let error = heart.check().expect_err("silence");
        assert!(error.starts_with("the main task has stood still for 3"), "{error}");
    }
}
