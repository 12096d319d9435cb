//! One lease that says which of several processes does the work. What a candidate does next is decided by pure
//! functions; the rest sends it to the API server.
//!
//! Nobody's clock is compared with anybody else's: a candidate counts the time since it saw the lease change, and the
//! holder the time since it sent the last renewal that was taken.

mod decision;

use std::time::Duration;

use futures::{Stream, StreamExt};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use ropewalk_api::config::LeaderElection;
use ropewalk_cluster::follow::follow;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until, timeout};

use decision::{Next, next};

/// The name of the lease; Tekton's tools and documents know it by that of the Deployment.
pub const NAME: &str = "tekton-pipelines-controller";

/// How long a release may take. Without it the others wait until the lease expires.
const RELEASE: Duration = Duration::from_secs(2);

/// Somebody who would hold the lease.
#[derive(Clone)]
pub struct Candidate {
    api: Api<Lease>,
    identity: String,
    settings: LeaderElection,
}

/// The lease, held.
pub struct Held {
    candidate: Candidate,
    lease: Lease,
    /// When the renewal that was taken last set out.
    renewed: Instant,
}

/// Why a lease is held no more.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    /// Somebody else has it.
    #[error("\"{holder}\" has taken the lease \"{NAME}\"")]
    Taken {
        /// Who.
        holder: String,
    },
    /// The API server has not taken a renewal for too long.
    #[error("cannot renew the lease \"{NAME}\" for {deadline:?}")]
    Expired {
        /// How long it was tried.
        deadline: Duration,
    },
}

/// What a candidate has seen.
struct Seen {
    lease: Option<Lease>,
    /// When its content was first seen.
    since: Instant,
}

impl Seen {
    /// Takes news. What is the same as before, as after a watch that was begun anew, is not a sign of life.
    fn update(&mut self, lease: Option<Lease>, now: Instant) {
        let spec = |lease: &Option<Lease>| lease.as_ref().and_then(|lease| lease.spec.clone());
        if spec(&self.lease) != spec(&lease) {
            self.since = now;
        }
        self.lease = lease;
    }
}

impl Candidate {
    /// A candidate for the lease in this namespace. No two processes that live at the same time may have one
    /// `identity`.
    pub fn new(client: Client, namespace: &str, identity: String, settings: LeaderElection) -> Self {
        Self { api: Api::namespaced(client, namespace), identity, settings }
    }

    /// Waits for the lease: for its release, its end, or the end of its holder.
    pub async fn acquire(self) -> Held {
        let mut changes = Box::pin(follow(self.api.clone(), NAME));
        let mut seen = None;
        news(&mut changes, &mut seen).await;
        loop {
            let now = Instant::now();
            let Some(Seen { lease, since }) = &seen else {
                news(&mut changes, &mut seen).await;
                continue;
            };
            let wait = match next(lease.as_ref(), &self.identity, now - *since) {
                Next::Claim => match self.claim(lease.as_ref()).await {
                    Ok(lease) => {
                        tracing::info!(identity = self.identity, "holding the lease");
                        return Held { candidate: self, lease, renewed: now };
                    }
                    Err(error) => {
                        tracing::info!(error = &error as &dyn std::error::Error, "did not get the lease");
                        // A claim on a lease that has changed is refused, and the watch may be what is late.
                        if let Ok(Ok(lease)) = timeout(self.attempt(), self.api.get_opt(NAME)).await {
                            let now = Instant::now();
                            seen.get_or_insert(Seen { lease: None, since: now }).update(lease, now);
                        }
                        self.settings.retry_period
                    }
                },
                Next::Wait(wait) => wait,
            };
            tokio::select! {
                () = news(&mut changes, &mut seen) => {}
                () = sleep_until(now + wait) => {}
            }
        }
    }

    /// Writes this candidate into the lease that was seen; refused when that has changed.
    async fn claim(&self, seen: Option<&Lease>) -> Result<Lease, Unclaimed> {
        let spec = decision::claim(seen, &self.identity, self.settings.lease_duration, Timestamp::now());
        timeout(self.attempt(), self.write(seen, spec))
            .await
            .map_err(|_| Unclaimed::NoAnswer)?
            .map_err(Into::into)
    }

    async fn write(&self, seen: Option<&Lease>, spec: Value) -> kube::Result<Lease> {
        let Some(seen) = seen else {
            let lease = json!({ "metadata": { "name": NAME }, "spec": spec });
            let lease = serde_json::from_value(lease).map_err(kube::Error::SerdeError)?;
            return self.api.create(&PostParams::default(), &lease).await;
        };
        let version = &seen.metadata.resource_version;
        let patch = json!({ "metadata": { "resourceVersion": version }, "spec": spec });
        self.api.patch(NAME, &PatchParams::default(), &Patch::Merge(patch)).await
    }

    /// How long one request may take: short enough for a second one on another connection before the deadline.
    fn attempt(&self) -> Duration {
        self.settings.renew_deadline / 2
    }
}

/// Why a claim failed.
#[derive(Debug, thiserror::Error)]
enum Unclaimed {
    #[error("no answer from the API server in time")]
    NoAnswer,
    #[error("the API server did not take it")]
    Refused(#[from] kube::Error),
}

impl Held {
    /// Renews the lease until it is lost. May be dropped and called again at any time.
    pub async fn keep(&mut self) -> Lost {
        let LeaderElection { renew_deadline, retry_period, .. } = self.candidate.settings;
        let mut tried = self.renewed;
        loop {
            let deadline = self.renewed + renew_deadline;
            sleep_until((tried + retry_period).min(deadline)).await;
            tried = Instant::now();
            if tried >= deadline {
                return Lost::Expired { deadline: renew_deadline };
            }
            let renewal = self.renew();
            match tokio::time::timeout_at(deadline, renewal).await {
                Ok(Ok(lease)) => {
                    self.lease = lease;
                    self.renewed = tried;
                }
                Ok(Err(NotRenewed::Lost(lost))) => return lost,
                Ok(Err(NotRenewed::Unclaimed(error))) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "cannot renew the lease, trying again");
                }
                Err(_) => return Lost::Expired { deadline: renew_deadline },
            }
        }
    }

    async fn renew(&self) -> Result<Lease, NotRenewed> {
        let identity = &self.candidate.identity;
        let error = match self.candidate.claim(Some(&self.lease)).await {
            Ok(lease) => return Ok(lease),
            Err(error) => error,
        };
        let Unclaimed::Refused(kube::Error::Api(status)) = &error else { return Err(error.into()) };
        if !matches!(status.code, 404 | 409) {
            return Err(error.into());
        }
        // Somebody has changed or deleted it, or an answer to an earlier renewal was lost.
        let now = timeout(self.candidate.attempt(), self.candidate.api.get_opt(NAME)).await;
        let lease = now.map_err(|_| Unclaimed::NoAnswer)?.map_err(Unclaimed::Refused)?;
        match lease.as_ref().and_then(decision::holder) {
            Some(holder) if holder != identity => Err(Lost::Taken { holder: holder.to_owned() }.into()),
            _ => Ok(self.candidate.claim(lease.as_ref()).await?),
        }
    }

    /// Gives the lease up, so that others need not wait for its end. To be called when no work is under way any more.
    pub async fn release(self) {
        match timeout(RELEASE, self.give_up()).await {
            Ok(Ok(())) => tracing::info!("lease released"),
            Ok(Err(error)) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "cannot release the lease");
            }
            Err(_) => tracing::warn!("no answer to the release of the lease within {RELEASE:?}"),
        }
    }

    async fn give_up(self) -> kube::Result<()> {
        let Self { candidate, mut lease, .. } = self;
        loop {
            match candidate.write(Some(&lease), decision::release(Timestamp::now())).await {
                // A renewal may have been under way when the work ended.
                Err(kube::Error::Api(status)) if status.is_conflict() => {
                    match candidate.api.get_opt(NAME).await? {
                        Some(now) if decision::holder(&now) == Some(&candidate.identity) => lease = now,
                        _ => return Ok(()),
                    }
                }
                written => return written.map(drop),
            }
        }
    }
}

/// Why a renewal failed.
enum NotRenewed {
    /// For good.
    Lost(Lost),
    /// Not for good.
    Unclaimed(Unclaimed),
}

impl From<Lost> for NotRenewed {
    fn from(lost: Lost) -> Self {
        Self::Lost(lost)
    }
}

impl From<Unclaimed> for NotRenewed {
    fn from(unclaimed: Unclaimed) -> Self {
        Self::Unclaimed(unclaimed)
    }
}

/// Waits for the next change of the lease and takes note of it.
async fn news(changes: &mut (impl Stream<Item = Option<Lease>> + Unpin), seen: &mut Option<Seen>) {
    // The stream never ends.
    let Some(lease) = changes.next().await else { return std::future::pending().await };
    let now = Instant::now();
    seen.get_or_insert(Seen { lease: None, since: now }).update(lease, now);
}

#[cfg(test)]
mod tests;
