//! What users are told by events: each thing once, and never more than a kubelet would send. No IO, no clock.

use jiff::{SignedDuration, Timestamp};

use super::{Command, PodState};

/// Events of one pod at once, as a kubelet has it.
const BURST: u32 = 25;

/// After which time there may be one more.
const REFILL: SignedDuration = SignedDuration::from_mins(5);

/// `type` of an event.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Severity {
    /// Nothing is wrong.
    Normal,
    /// Something may have to be done.
    Warning,
}

impl Severity {
    /// The API's spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// The events that a pod may still have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowance {
    left: u32,
    /// Since when `left` is what it is.
    since: Option<Timestamp>,
}

impl Default for Allowance {
    fn default() -> Self {
        Self { left: BURST, since: None }
    }
}

impl Allowance {
    fn take(&mut self, now: Timestamp) -> bool {
        let since = *self.since.get_or_insert(now);
        let more = now.duration_since(since).as_secs() / REFILL.as_secs();
        if more > 0 {
            self.left = self.left.saturating_add(u32::try_from(more).unwrap_or(BURST)).min(BURST);
            self.since = Some(now);
        }
        let is_allowed = self.left > 0;
        self.left = self.left.saturating_sub(1);
        is_allowed
    }
}

/// Tells something that was not told before, as long as the pod has not had its share.
pub(super) fn announce(
    state: &mut PodState,
    severity: Severity,
    reason: &'static str,
    message: String,
    now: Timestamp,
    commands: &mut Vec<Command>,
) {
    if !state.announced.contains(&message) && state.allowance.take(now) {
        state.announced.insert(message.clone());
        commands.push(Command::Announce { severity, reason, message });
    }
}

/// [`announce`]s what is wrong.
pub(super) fn warn(
    state: &mut PodState,
    reason: &'static str,
    message: String,
    now: Timestamp,
    commands: &mut Vec<Command>,
) {
    announce(state, Severity::Warning, reason, message, now, commands);
}
