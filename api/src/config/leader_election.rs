//! `config-leader-election-controller` as a value.

use std::collections::BTreeMap;
use std::time::Duration;

use ropewalk_entrypoint_protocol::duration::GoDuration;

/// Upstream's most `buckets`. Here one holder owns all there is, however many are asked for.
const MAX_BUCKETS: u32 = 10;

/// How a lease is kept.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LeaderElection {
    /// `lease-duration`: how long a holder that is not heard of is respected.
    pub lease_duration: Duration,
    /// `renew-deadline`: how long a holder that cannot renew goes on working. Shorter, so that it has stopped when the
    /// next one begins.
    pub renew_deadline: Duration,
    /// `retry-period`: between two renewals, or two tries.
    pub retry_period: Duration,
}

impl Default for LeaderElection {
    /// As we ship them.
    fn default() -> Self {
        Self {
            lease_duration: Duration::from_secs(12),
            renew_deadline: Duration::from_secs(8),
            retry_period: Duration::from_secs(2),
        }
    }
}

/// Why the ConfigMap cannot be used.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum LeaderElectionError {
    /// A value is no length of time.
    #[error("\"{value}\" for the key \"{key}\" is no length of time, expected a form such as \"12s\"")]
    NoDuration {
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
    },
    /// There are that many leases at the most.
    #[error("\"{value}\" for the key \"buckets\" is not a whole number from 1 to {MAX_BUCKETS}")]
    Buckets {
        /// Its value.
        value: String,
    },
    /// A holder could not renew in time.
    #[error(
        "\"lease-duration\" has to be longer than \"renew-deadline\", and that longer than twice \"retry-period\", \
         which may not be zero"
    )]
    Order,
}

impl LeaderElection {
    /// The settings in the data of the ConfigMap; absent keys have their defaults.
    ///
    /// # Errors
    /// The first value that cannot be used. The webhook refuses such a ConfigMap; a process leads under the defaults.
    pub fn from_config_map(data: &BTreeMap<String, String>) -> Result<Self, LeaderElectionError> {
        let read = |key: &'static str, usual: Duration| match data.get(key).map(|value| value.trim()) {
            None | Some("") => Ok(usual),
            Some(value) => value
                .parse()
                .map(|duration: GoDuration| duration.as_std())
                .map_err(|_| LeaderElectionError::NoDuration { key, value: value.to_owned() }),
        };
        let buckets = data.get("buckets").map(|value| value.trim()).filter(|value| !value.is_empty());
        if let Some(value) = buckets
            && !value.parse().is_ok_and(|buckets| (1..=MAX_BUCKETS).contains(&buckets))
        {
            return Err(LeaderElectionError::Buckets { value: value.to_owned() });
        }
        let usual = Self::default();
        let settings = Self {
            lease_duration: read("lease-duration", usual.lease_duration)?,
            renew_deadline: read("renew-deadline", usual.renew_deadline)?,
            retry_period: read("retry-period", usual.retry_period)?,
        };
        let Self { lease_duration, renew_deadline, retry_period } = &settings;
        let ordered = lease_duration > renew_deadline
            && *renew_deadline > retry_period.saturating_mul(2)
            && !retry_period.is_zero();
        ordered.then_some(settings).ok_or(LeaderElectionError::Order)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(data: &[(&str, &str)]) -> Result<LeaderElection, LeaderElectionError> {
        let data = data.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        LeaderElection::from_config_map(&data)
    }

    #[test]
    fn absent_keys_have_their_defaults() {
        assert_eq!(read(&[]), Ok(LeaderElection::default()));
        assert_eq!(read(&[("buckets", "1"), ("retry-period", " ")]), Ok(LeaderElection::default()));
    }

    #[test]
    fn upstreams_values_are_read() {
        let expected = LeaderElection {
            lease_duration: Duration::from_mins(1),
            renew_deadline: Duration::from_secs(40),
            retry_period: Duration::from_secs(10),
        };
        let data = [("lease-duration", "1m"), ("renew-deadline", "40s"), ("retry-period", "10s")];
        assert_eq!(read(&data), Ok(expected));
    }

    #[test]
    fn a_value_that_is_no_time_is_quoted() {
        let error = read(&[("lease-duration", "12")]).expect_err("no unit");
        assert!(error.to_string().starts_with("\"12\" for the key \"lease-duration\""), "{error}");
    }

    #[rstest::rstest]
    #[case("0")]
    #[case("11")]
    #[case("many")]
    fn buckets_are_few(#[case] value: &str) {
        assert_eq!(read(&[("buckets", "10")]), Ok(LeaderElection::default()));
        let error = LeaderElectionError::Buckets { value: value.to_owned() };
        assert_eq!(read(&[("buckets", value)]), Err(error));
    }

    #[rstest::rstest]
    #[case(&[("lease-duration", "8s")])]
    #[case(&[("retry-period", "4s")])]
    #[case(&[("retry-period", "0s")])]
    #[case(&[("renew-deadline", "-8s")])]
    fn a_holder_must_be_able_to_renew(#[case] data: &[(&str, &str)]) {
        assert_eq!(read(data), Err(LeaderElectionError::Order));
    }
}
