//! Containers without their images, and what is told about pulls, in the kubelet's words. No IO, no clock.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::announce::{Severity, announce, warn};
use super::state::{Phase, PodState};
use super::{Command, backoff};
use crate::image::{ERR_IMAGE_PULL, IMAGE_PULL_BACK_OFF, ImageError};

/// How long a container shows why its image could not be pulled before it shows that it waits. Long enough for whoever
/// watches to be told both; a task run waits for the second.
const SHOWN: SignedDuration = SignedDuration::from_secs(1);

/// How far a pull is. Each is told once of an image of a pod, not once of a container: an event is a write.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Pull {
    /// There is none: the image is here, and its policy asks for no other.
    Unneeded,
    /// It begins, or waits for its turn.
    Begun,
    /// The image is here.
    Done {
        /// How long it took once it was its turn.
        took: Duration,
        /// How long it took with the time it waited.
        with_waiting: Duration,
        /// Bytes of data in the image.
        bytes: u64,
    },
}

impl Pull {
    /// Reason and message of the event.
    pub(super) fn words(self, image: &str) -> (&'static str, String) {
        match self {
            // In the words of Kubernetes 1.34 and later, which asks who may use an image that somebody else has pulled.
            Self::Unneeded => {
                let words = "already present on machine and can be accessed by the pod";
                ("Pulled", format!("Container image \"{image}\" {words}"))
            }
            Self::Begun => ("Pulling", format!("Pulling image \"{image}\"")),
            Self::Done { took, with_waiting, bytes } => {
                let (took, with_waiting) = (in_words(took), in_words(with_waiting));
                let message = format!(
                    "Successfully pulled image \"{image}\" in {took} ({with_waiting} including waiting). Image size: {bytes} bytes."
                );
                ("Pulled", message)
            }
        }
    }
}

/// Whole milliseconds as Go writes them: `0s`, `12ms`, `1.5s`, `2m0.25s`.
fn in_words(duration: Duration) -> String {
    let (seconds, millis) = (duration.as_secs(), duration.subsec_millis());
    if seconds == 0 {
        return if millis == 0 { "0s".to_owned() } else { format!("{millis}ms") };
    }
    let fraction = format!(".{millis:03}");
    let rest = format!("{}{}s", seconds % 60, fraction.trim_end_matches('0').trim_end_matches('.'));
    match (seconds / 3600, seconds / 60 % 60) {
        (0, 0) => rest,
        (0, minutes) => format!("{minutes}m{rest}"),
        (hours, minutes) => format!("{hours}h{minutes}m{rest}"),
    }
}

/// An image is asked for again after a pause of its container's own: objects that change say nothing about images.
pub(super) fn missing(
    state: &mut PodState,
    name: &str,
    error: &ImageError,
    now: Timestamp,
    commands: &mut Vec<Command>,
) {
    let (reason, message) = match error {
        ImageError::Name { .. } => ("InspectFailed", error.to_string()),
        ImageError::NeverPull(_) => ("ErrImageNeverPull", error.to_string()),
        ImageError::Pull { image, .. } => ("Failed", format!("Failed to pull image \"{image}\": {error}")),
    };
    warn(state, reason, message, now, commands);
    warn(state, "Failed", format!("Error: {}", error.reason()), now, commands);
    if let Some(record) = state.records.iter_mut().find(|record| record.name == name) {
        record.phase = Phase::Waiting(Some((error.reason(), error.to_string())));
        record.pull_at = now.checked_add(backoff(record.pull_failures)).ok();
        record.shown_until = now.checked_add(SHOWN).ok().filter(|_| matches!(error, ImageError::Pull { .. }));
        record.pull_failures += 1;
        state.urgent = true;
    }
}

/// What the time that passed means for containers without their images.
pub(super) fn wait(state: &mut PodState, now: Timestamp, commands: &mut Vec<Command>) {
    let mut backing_off = Vec::new();
    for record in &mut state.records {
        if record.pull_at.is_some_and(|pull_at| pull_at <= now) {
            record.pull_at = None;
            record.shown_until = None;
            record.phase = Phase::Waiting(None);
        } else if record.shown_until.is_some_and(|until| until <= now)
            && let Phase::Waiting(Some((reason, message))) = &mut record.phase
        {
            let words = format!("Back-off pulling image \"{}\"", record.image);
            *reason = IMAGE_PULL_BACK_OFF;
            *message = format!("{words}: {ERR_IMAGE_PULL}: {message}");
            record.shown_until = None;
            state.urgent = true;
            backing_off.push(words);
        }
    }
    for words in backing_off {
        announce(state, Severity::Normal, "BackOff", words, now, commands);
        warn(state, "Failed", format!("Error: {IMAGE_PULL_BACK_OFF}"), now, commands);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_go_does() {
        for (millis, expected) in [
            (0, "0s"),
            (12, "12ms"),
            (1_500, "1.5s"),
            (1_594, "1.594s"),
            (60_000, "1m0s"),
            (120_250, "2m0.25s"),
            (3_723_004, "1h2m3.004s"),
        ] {
            assert_eq!(in_words(Duration::from_millis(millis)), expected);
        }
        assert_eq!(in_words(Duration::from_nanos(1_999_999)), "1ms", "cut off, not rounded");
    }
}
