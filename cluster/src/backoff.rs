//! Pauses between tries.

use std::time::Duration;

use kube::runtime::utils::Backoff;

/// Pauses that double from the first up to the longest, and start over after a success. No jitter: what fails together
/// waits in a queue of its own anyway.
#[derive(Clone, Debug)]
pub struct Doubling {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Doubling {
    /// Pauses between these two lengths.
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, next: first }
    }
}

impl Iterator for Doubling {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = self.next.min(self.longest);
        self.next = pause.saturating_mul(2);
        Some(pause)
    }
}

impl Backoff for Doubling {
    fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let mut pauses = Doubling::new(Duration::from_secs(1), Duration::from_secs(5));
        let seconds = |pauses: &mut Doubling| pauses.take(5).map(|pause| pause.as_secs()).collect::<Vec<_>>();
        assert_eq!(seconds(&mut pauses), [1, 2, 4, 5, 5]);
        pauses.reset();
        assert_eq!(seconds(&mut pauses), [1, 2, 4, 5, 5]);
    }
}
