//! What has to happen to the certificates now, and when to look again. Pure.
//!
//! A rotation refuses no request: a new authority comes into the Secret with its predecessor beside it, so that API
//! servers trust both; every replica goes on presenting its old leaf until they do; and the old authority goes when the
//! last leaf it signed has expired.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;

use super::Service;
use super::configuration::{Configuration, Kind};
use super::stored::{self, Certificate, Flaw, Leaf, Stored};

/// Life of an authority. Long, because where the webhook may not write the configurations, an administrator does by
/// hand; its key never leaves the namespace.
pub(crate) const AUTHORITY_LIFE: SignedDuration = SignedDuration::from_hours(10 * 365 * 24);

/// Life of a leaf. Renewed after two thirds of it, which leaves a month for mending what keeps it from being renewed.
pub(crate) const LEAF_LIFE: SignedDuration = SignedDuration::from_hours(90 * 24);

/// How far certificates begin in the past: clocks of API servers that are this much slow accept them.
pub(crate) const BACKDATED: SignedDuration = SignedDuration::from_hours(1);

/// From a configuration that trusts an authority to an API server that does: they follow configurations by watches, and
/// a lagging one of several gets a generous multiple of what that takes.
const SETTLED: SignedDuration = SignedDuration::from_secs(10);

/// The longest wait. Clocks that are set do not move timers; an hour is nothing beside a month.
const LONGEST_WAIT: SignedDuration = SignedDuration::from_hours(1);

/// The least time between two attempts to mend the Secret, so that one that is spoilt again and again, or cannot be
/// written, costs a few requests a minute.
const BETWEEN_ISSUES: SignedDuration = SignedDuration::from_secs(10);

/// How many authorities stay trusted beside a new one: its predecessor, and the predecessor's if that was replaced within
/// the life of a leaf.
const RETIRED: usize = 2;

/// What is known of an object.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) enum View<T> {
    /// Nothing yet.
    #[default]
    Unknown,
    /// This process may not read it.
    Forbidden,
    /// There is none.
    Absent,
    /// This is its newest state.
    Present(T),
}

impl<T> View<T> {
    /// The same of a part of it.
    pub(crate) fn map<U>(self, part: impl FnOnce(T) -> U) -> View<U> {
        match self {
            Self::Unknown => View::Unknown,
            Self::Forbidden => View::Forbidden,
            Self::Absent => View::Absent,
            Self::Present(object) => View::Present(part(object)),
        }
    }
}

/// Everything a plan depends on.
pub(crate) struct Snapshot<'a> {
    /// The Secret.
    pub(crate) secret: &'a View<Secret>,
    /// The webhook configurations.
    pub(crate) configurations: &'a [View<Configuration>],
    /// What the plan before left.
    pub(crate) memory: Memory,
    /// How API servers call us.
    pub(crate) service: &'a Service,
    /// Now.
    pub(crate) now: Timestamp,
}

/// What a process carries from plan to plan.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    /// What is presented to clients.
    pub(crate) served: Option<Leaf>,
    /// The signer of the Secret's leaf, and since when all configurations have trusted it.
    trust: Option<(Certificate, Timestamp)>,
    /// When certificates were issued last.
    issued: Option<Timestamp>,
}

/// What to do.
pub(crate) struct Plan {
    /// Certificates to be made and written, and why.
    pub(crate) issue: Option<(Issue, Why)>,
    /// PEM text for the configurations, which have to be patched where they have another, see [`Configuration::patch`].
    pub(crate) ca_bundle: Option<String>,
    /// What to present, and what to remember.
    pub(crate) memory: Memory,
    /// Why no request can be answered, if so.
    pub(crate) waiting: Option<String>,
    /// When to plan again if nothing happens.
    pub(crate) wake: Timestamp,
}

/// Certificates to be made.
pub(crate) enum Issue {
    /// A new authority and a leaf.
    Authority {
        /// Who is trusted along with it.
        retired: Vec<Certificate>,
    },
    /// A leaf by the authority there is.
    Leaf {
        /// The authority's key, PEM.
        key: String,
        /// The end of the authority.
        until: Timestamp,
    },
    /// No new ones, but fewer authorities to trust.
    Trust {
        /// Those that stay.
        authorities: Vec<Certificate>,
    },
}

/// The reason for new certificates.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum Why {
    /// The Secret is not there.
    #[error("there is none")]
    Absent,
    /// Its contents cannot be used.
    #[error(transparent)]
    Flawed(Flaw),
    /// Two thirds of the life of the authority or the leaf are over.
    #[error("it is time to renew them")]
    Due,
    /// Everything an old authority signed has expired.
    #[error("a former authority is not needed any more")]
    Retired,
}

/// Decides. Total: whatever is in the Secret, there is a plan.
pub(crate) fn plan(snapshot: Snapshot<'_>) -> Plan {
    let Snapshot { secret, configurations, memory, service, now } = snapshot;
    let stored = match secret {
        View::Present(secret) => Some(stored::read(secret.data.as_ref(), service, now)),
        _ => None,
    };
    let issue = match (secret, &stored) {
        // Whom API servers trust so far may have to be kept.
        _ if configurations.contains(&View::Unknown) => None,
        (View::Absent, _) => Some((authority(&[], configurations, &memory, now), Why::Absent)),
        (_, Some(Err(flaw))) => {
            Some((authority(&[], configurations, &memory, now), Why::Flawed(flaw.clone())))
        }
        (_, Some(Ok(stored))) => renewal(stored, configurations, &memory, now),
        _ => None,
    };
    let paused = memory.issued.map(|issued| issued + BETWEEN_ISSUES).filter(|until| *until > now);
    let issue = issue.filter(|_| paused.is_none());
    let issued = if issue.is_some() { Some(now) } else { memory.issued };
    let stored = stored.and_then(Result::ok);
    let leaf = stored.as_ref().and_then(|stored| stored.leaf.as_ref().ok());
    let trust = leaf.and_then(|leaf| trust(&leaf.signer, configurations, memory.trust, now));
    let served = served(stored.as_ref(), memory.served, trust.as_ref(), now);
    Plan {
        issue,
        ca_bundle: stored.as_ref().map(|stored| stored::to_pem(&stored.trusted)),
        waiting: waiting(secret, configurations, served.as_ref(), now),
        wake: wake(stored.as_ref(), served.as_ref(), trust.as_ref(), paused, now),
        memory: Memory { served, trust, issued },
    }
}

fn present(configurations: &[View<Configuration>]) -> impl Iterator<Item = &Configuration> {
    configurations.iter().filter_map(|view| match view {
        View::Present(configuration) => Some(configuration),
        _ => None,
    })
}

fn renewal(
    stored: &Stored,
    configurations: &[View<Configuration>],
    memory: &Memory,
    now: Timestamp,
) -> Option<(Issue, Why)> {
    let why = match &stored.leaf {
        _ if stored.authority().renew_at() <= now => {
            return Some((authority(&stored.trusted, configurations, memory, now), Why::Due));
        }
        Err(flaw) => Why::Flawed(flaw.clone()),
        Ok(leaf) if leaf.certificate.renew_at() <= now => Why::Due,
        Ok(_) => {
            let trust = || Issue::Trust { authorities: vec![stored.authority().clone()] };
            return retires_at(stored).is_some_and(|at| at <= now).then(|| (trust(), Why::Retired));
        }
    };
    let issue = match &stored.authority_key {
        Some(key) => Issue::Leaf { key: key.clone(), until: stored.authority().not_after },
        None => authority(&stored.trusted, configurations, memory, now),
    };
    Some((issue, why))
}

/// A new authority. Trust in whatever others may still present stays: what the Secret says, what this replica presents,
/// and what the configurations trusted so far.
fn authority(
    stored: &[Certificate],
    configurations: &[View<Configuration>],
    memory: &Memory,
    now: Timestamp,
) -> Issue {
    let served = memory.served.iter().map(|leaf| leaf.signer.clone());
    let observed = present(configurations).flat_map(|configuration| &configuration.entries);
    let observed = observed.flat_map(super::configuration::Entry::trusted);
    let mut retired: Vec<Certificate> = Vec::new();
    for known in stored.iter().cloned().chain(served).chain(observed) {
        if retired.len() < RETIRED && known.in_force(now) && !retired.contains(&known) {
            retired.push(known);
        }
    }
    Issue::Authority { retired }
}

/// When the last leaf of a former authority expires: none has been signed since its successor was made. Authorities
/// beside one that is not ours are left alone.
fn retires_at(stored: &Stored) -> Option<Timestamp> {
    let signs = stored.leaf.as_ref().is_ok_and(|leaf| leaf.signer == *stored.authority());
    let ours = stored.authority_key.is_some() && signs && stored.trusted.len() > 1;
    ours.then(|| stored.authority().not_before + BACKDATED + LEAF_LIFE)
}

/// Since when the authority has been trusted wherever we are called. Unknown where we may not look.
fn trust(
    authority: &Certificate,
    configurations: &[View<Configuration>],
    before: Option<(Certificate, Timestamp)>,
    now: Timestamp,
) -> Option<(Certificate, Timestamp)> {
    let trusted = configurations.iter().all(|view| match view {
        View::Unknown | View::Forbidden => false,
        View::Absent => true,
        View::Present(configuration) => configuration.trusts(authority),
    });
    let since = before.filter(|(known, _)| known == authority).map_or(now, |(_, since)| since);
    trusted.then(|| (authority.clone(), since))
}

/// What to present: the Secret's leaf, unless the one before is still good and API servers might not accept the new one
/// yet.
fn served(
    stored: Option<&Stored>,
    before: Option<Leaf>,
    trust: Option<&(Certificate, Timestamp)>,
    now: Timestamp,
) -> Option<Leaf> {
    let Some((stored, leaf)) = stored.and_then(|stored| Some((stored, stored.leaf.as_ref().ok()?))) else {
        return before;
    };
    let settled = trust.is_some_and(|(known, since)| *known == leaf.signer && *since + SETTLED <= now);
    let accepted =
        |before: &Leaf| before.certificate.in_force(now) && stored.trusted.contains(&before.signer);
    before
        .filter(|before| before.signer != leaf.signer && accepted(before) && !settled)
        .or_else(|| Some(leaf.clone()))
}

fn waiting(
    secret: &View<Secret>,
    configurations: &[View<Configuration>],
    served: Option<&Leaf>,
    now: Timestamp,
) -> Option<String> {
    let Some(leaf) = served else {
        return Some(match secret {
            View::Forbidden => {
                "this service account may not read the Secret with the certificates".to_owned()
            }
            _ => "there is no certificate yet".to_owned(),
        });
    };
    if !leaf.certificate.in_force(now) {
        return Some("the certificate has expired".to_owned());
    }
    if configurations.contains(&View::Unknown) {
        return Some("the webhook configurations and definitions are not known yet".to_owned());
    }
    let doubting = present(configurations).find(|configuration| !configuration.trusts(&leaf.signer))?;
    let kind = match doubting.kind {
        Kind::Mutating | Kind::Validating => "webhook configuration",
        Kind::Definition => "definition",
    };
    Some(format!("the {kind} \"{}\" does not trust our certificate", doubting.name))
}

fn wake(
    stored: Option<&Stored>,
    served: Option<&Leaf>,
    trust: Option<&(Certificate, Timestamp)>,
    paused: Option<Timestamp>,
    now: Timestamp,
) -> Timestamp {
    let mut times = vec![now + LONGEST_WAIT];
    times.extend(paused);
    times.extend(trust.map(|(_, since)| *since + SETTLED));
    times.extend(served.map(|leaf| leaf.certificate.not_after + SignedDuration::from_secs(1)));
    if let Some(stored) = stored {
        times.push(stored.authority().renew_at());
        times.extend(stored.trusted.iter().map(|known| known.not_after + SignedDuration::from_secs(1)));
        times.extend(stored.leaf.iter().map(|leaf| leaf.certificate.renew_at()));
        times.extend(retires_at(stored));
    }
    times.into_iter().filter(|time| *time > now).min().unwrap_or(now + LONGEST_WAIT)
}

#[cfg(test)]
mod tests;
