//! From samples to printed figures. Pure.

use std::time::Duration;

/// The middle one, or half-way between the two in the middle. Zero of none.
pub fn median(times: impl IntoIterator<Item = Duration>) -> Duration {
    let mut times: Vec<_> = times.into_iter().collect();
    times.sort_unstable();
    let middle = times.len() / 2;
    match (times.get(middle), middle.checked_sub(1)) {
        (Some(upper), Some(lower)) if times.len().is_multiple_of(2) => (times[lower] + *upper) / 2,
        (Some(middle), _) => *middle,
        (None, _) => Duration::ZERO,
    }
}

/// The average. Zero of none.
pub fn mean(times: impl IntoIterator<Item = Duration>) -> Duration {
    let (sum, count) =
        times.into_iter().fold((Duration::ZERO, 0), |(sum, count), time| (sum + time, count + 1));
    sum / count.max(1)
}

/// The sample that so many per cent of the others do not exceed. Zero of none.
pub fn quantile(times: impl IntoIterator<Item = Duration>, percent: usize) -> Duration {
    let mut times: Vec<_> = times.into_iter().collect();
    times.sort_unstable();
    times.get(times.len() * percent / 100).or(times.last()).copied().unwrap_or_default()
}

/// Milliseconds, to be printed.
pub fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// How many times the floor.
pub fn ratio(time: Duration, floor: Duration) -> f64 {
    time.as_secs_f64() / floor.as_secs_f64()
}

/// So many in this time, by the second.
pub fn rate(count: usize, time: Duration) -> f64 {
    per(1.0, time.as_secs_f64()) * number(count)
}

/// The share of each of so many.
pub fn per(total: f64, count: f64) -> f64 {
    if count > 0.0 { total / count } else { 0.0 }
}

/// Counts here are far below the 2^52 from which on this would round.
#[expect(clippy::cast_precision_loss, reason = "counts are small")]
pub fn number(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_unsorted_samples() {
        let samples = |all: &[u64]| all.iter().copied().map(Duration::from_millis).collect::<Vec<_>>();
        assert_eq!(median(samples(&[3, 1, 2])), Duration::from_millis(2));
        assert_eq!(median(samples(&[9, 1, 4, 2])), Duration::from_millis(3));
        assert_eq!(mean(samples(&[9, 1, 4, 2])), Duration::from_millis(4));
        assert_eq!(mean([]), Duration::ZERO);
        assert_eq!(median([]), Duration::ZERO);
        assert_eq!(quantile(samples(&[5, 1, 2, 3, 4]), 99), Duration::from_millis(5));
        assert_eq!(quantile(samples(&[5, 1]), 100), Duration::from_millis(5));
    }

    #[test]
    fn rates_of_nothing_are_zero() {
        assert!((rate(10, Duration::from_secs(4)) - 2.5).abs() < 1e-9);
        assert!(rate(10, Duration::ZERO).abs() < 1e-9);
        assert!(per(1.0, 0.0).abs() < 1e-9);
    }
}
