//! What a candidate makes of the lease it sees. Pure.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use serde_json::{Value, json};

/// How long a lease without a length of its own is respected: as long as upstream's, the longest in use.
const UNKNOWN: Duration = Duration::from_mins(1);

/// What a candidate does next.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Next {
    /// Writes itself into the lease.
    Claim,
    /// Waits for a change of the lease, and for this long.
    Wait(Duration),
}

/// What to do about a lease that was last seen to change this long ago.
pub(super) fn next(lease: Option<&Lease>, identity: &str, unchanged: Duration) -> Next {
    let Some(holder) = lease.and_then(holder) else { return Next::Claim };
    // One's own name: this process has died as its container, and was started again.
    if holder == identity {
        return Next::Claim;
    }
    let seconds = lease.and_then(|lease| lease.spec.as_ref()?.lease_duration_seconds);
    let length = seconds.and_then(|seconds| u64::try_from(seconds).ok()).map_or(UNKNOWN, Duration::from_secs);
    match length.checked_sub(unchanged) {
        None | Some(Duration::ZERO) => Next::Claim,
        Some(rest) => Next::Wait(rest),
    }
}

/// Who holds the lease; nobody when it was released.
pub(super) fn holder(lease: &Lease) -> Option<&str> {
    lease.spec.as_ref()?.holder_identity.as_deref().filter(|holder| !holder.is_empty())
}

/// The `spec` with which a candidate takes or renews the lease it saw.
pub(super) fn claim(seen: Option<&Lease>, identity: &str, length: Duration, now: Timestamp) -> Value {
    // A lease counts whole seconds; what a holder claims is never less than it means.
    let seconds = length.as_secs() + u64::from(length.subsec_nanos() > 0);
    let mut spec = json!({
        "holderIdentity": identity,
        "leaseDurationSeconds": seconds,
        "renewTime": micro_time(now),
    });
    if seen.and_then(holder) != Some(identity) {
        let transitions = seen.and_then(|lease| lease.spec.as_ref()?.lease_transitions);
        spec["acquireTime"] = micro_time(now).into();
        spec["leaseTransitions"] = transitions.map_or(0, |before| before.saturating_add(1)).into();
    }
    spec
}

/// The `spec` with which a holder gives up the lease. Its length is for candidates that look at nothing else.
pub(super) fn release(now: Timestamp) -> Value {
    json!({ "holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": micro_time(now) })
}

/// A time as a lease has it: with exactly six digits, which old API servers insist on.
fn micro_time(now: Timestamp) -> String {
    format!("{now:.6}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn lease(spec: &Value) -> Lease {
        serde_json::from_value(json!({ "spec": spec })).expect("a lease")
    }

    #[rstest::rstest]
    #[case::nobody(None, 0, Next::Claim)]
    #[case::released(Some(json!({ "holderIdentity": "", "leaseDurationSeconds": 1 })), 0, Next::Claim)]
    #[case::never_held(Some(json!({})), 0, Next::Claim)]
    #[case::own(Some(json!({ "holderIdentity": "me", "leaseDurationSeconds": 12 })), 0, Next::Claim)]
    #[case::fresh(
        Some(json!({ "holderIdentity": "you", "leaseDurationSeconds": 12 })),
        5,
        Next::Wait(7 * SECOND)
    )]
    #[case::expired(Some(json!({ "holderIdentity": "you", "leaseDurationSeconds": 12 })), 12, Next::Claim)]
    #[case::long_expired(Some(json!({ "holderIdentity": "you", "leaseDurationSeconds": 12 })), 99, Next::Claim)]
    #[case::no_length(Some(json!({ "holderIdentity": "you" })), 0, Next::Wait(UNKNOWN))]
    #[case::negative(
        Some(json!({ "holderIdentity": "you", "leaseDurationSeconds": -1 })),
        0,
        Next::Wait(UNKNOWN)
    )]
    fn a_candidate_waits_while_somebody_else_lives(
        #[case] spec: Option<Value>,
        #[case] unchanged: u64,
        #[case] expected: Next,
    ) {
        let lease = spec.as_ref().map(lease);
        assert_eq!(next(lease.as_ref(), "me", Duration::from_secs(unchanged)), expected);
    }

    #[test]
    fn times_in_the_lease_decide_nothing() {
        let spec = json!({
            "holderIdentity": "you",
            "leaseDurationSeconds": 12,
            "renewTime": "1970-01-01T00:00:00.000000Z",
        });
        assert_eq!(next(Some(&lease(&spec)), "me", Duration::ZERO), Next::Wait(12 * SECOND));
    }

    #[test]
    fn taking_over_counts_and_renewing_does_not() {
        let now = Timestamp::from_nanosecond(1_500_000_001_999).expect("a time");
        let time = "1970-01-01T00:25:00.000001Z";
        let base = json!({ "holderIdentity": "me", "leaseDurationSeconds": 13, "renewTime": time });
        let length = Duration::from_millis(12_001);

        let mut first = base.clone();
        first["acquireTime"] = time.into();
        first["leaseTransitions"] = 0.into();
        assert_eq!(claim(None, "me", length, now), first);

        let yours = lease(&json!({ "holderIdentity": "you", "leaseTransitions": 4 }));
        let mut taken = first;
        taken["leaseTransitions"] = 5.into();
        assert_eq!(claim(Some(&yours), "me", length, now), taken);

        let mine = lease(&json!({ "holderIdentity": "me", "leaseTransitions": 4 }));
        assert_eq!(claim(Some(&mine), "me", length, now), base);
    }

    #[test]
    fn a_released_lease_is_nobodys() {
        let released = lease(&release(Timestamp::UNIX_EPOCH));
        assert_eq!(holder(&released), None);
        assert_eq!(next(Some(&released), "me", Duration::ZERO), Next::Claim);
    }
}
