//! How often a registry is asked again, and after which pauses. The clock is tokio's.

use std::time::Duration;

use crate::Error;

/// Pauses before further attempts: a connection that broke is soon made again, a registry that restarts is back within
/// half a minute.
const PAUSES: [Duration; 5] = [
    Duration::from_millis(200),
    Duration::from_secs(1),
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(16),
];
/// What a registry may ask to be left alone for; whoever wants more is told to the user at once.
const MAX_PAUSE: Duration = Duration::from_mins(1);

/// What is left of it.
#[derive(Debug, Default)]
pub struct Patience {
    failures: usize,
}

impl Patience {
    /// None at all: somebody else can be asked.
    pub fn none() -> Self {
        Self { failures: PAUSES.len() }
    }

    /// Waits before the next attempt. Fails with the error if there is no use in one, or if there were enough.
    pub async fn wait(&mut self, error: Error) -> Result<(), Error> {
        let Some(pause) = self.pause(&error) else { return Err(error) };
        self.failures += 1;
        tracing::debug!(%error, ?pause, "a registry is asked again");
        tokio::time::sleep(pause).await;
        Ok(())
    }

    /// Something came of the last attempt.
    pub(crate) fn restore(&mut self) {
        self.failures = 0;
    }

    fn pause(&self, error: &Error) -> Option<Duration> {
        if !error.is_transient() {
            return None;
        }
        let pause = *PAUSES.get(self.failures)?;
        match error.retry_after() {
            Some(asked) if asked > MAX_PAUSE => None,
            Some(asked) => Some(pause.max(asked)),
            None => Some(pause),
        }
    }
}

#[cfg(test)]
mod tests {
    use reqwest::StatusCode;

    use super::*;

    fn status(status: StatusCode, retry_after: Option<u64>) -> Error {
        let retry_after = retry_after.map(Duration::from_secs);
        Error::Status { host: "r.example".to_owned(), status, retry_after }
    }

    #[test]
    fn a_registry_says_when_it_wants_to_be_asked_again() {
        let first = Patience::default();
        let pause = |status, retry_after| first.pause(&self::status(status, retry_after));
        assert_eq!(pause(StatusCode::TOO_MANY_REQUESTS, Some(7)), Some(Duration::from_secs(7)));
        assert_eq!(pause(StatusCode::TOO_MANY_REQUESTS, Some(0)), Some(PAUSES[0]));
        assert_eq!(pause(StatusCode::SERVICE_UNAVAILABLE, None), Some(PAUSES[0]));
        assert_eq!(pause(StatusCode::TOO_MANY_REQUESTS, Some(3600)), None);
        assert_eq!(pause(StatusCode::BAD_REQUEST, Some(1)), None);
    }

    #[test]
    fn attempts_end() {
        let error = status(StatusCode::BAD_GATEWAY, None);
        let last = Patience { failures: PAUSES.len() - 1 };
        assert_eq!(last.pause(&error), Some(PAUSES[PAUSES.len() - 1]));
        assert_eq!(Patience { failures: PAUSES.len() }.pause(&error), None);
    }
}
