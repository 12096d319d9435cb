//! What runs ask of the API server. Reads its audit log and its metrics.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use kube::Client;
use ropewalk_test::harness::admission;
use ropewalk_test::harness::audit::{Audit, CONTROLLER, Request, WRITES};

use crate::figures::{number, per};

/// Nothing tells that nothing more comes after a run's end; events, which come last, take milliseconds.
const SETTLED: Duration = Duration::from_secs(3);

/// Counts from one moment on.
pub struct Counting {
    client: Client,
    audit: Audit,
    namespace: String,
    before: usize,
    calls: BTreeMap<String, u64>,
}

/// What was asked since.
pub struct Counts {
    requests: Vec<Request>,
    calls: BTreeMap<String, u64>,
}

impl Counting {
    /// From now on, in this namespace; calls of webhooks are the cluster's, whoever causes them.
    pub async fn start(client: &Client, audit: Audit, namespace: &str) -> Result<Self> {
        let before = audit.requests(namespace)?.len();
        let calls = admission::calls(client).await?;
        Ok(Self { client: client.clone(), audit, namespace: namespace.to_owned(), before, calls })
    }

    /// Until now.
    pub async fn end(self) -> Result<Counts> {
        tokio::time::sleep(SETTLED).await;
        let calls = admission::calls(&self.client).await?.into_iter().filter_map(|(name, count)| {
            let more = count.saturating_sub(self.calls.get(&name).copied().unwrap_or_default());
            (more > 0).then_some((name, more))
        });
        let mut requests = self.audit.requests(&self.namespace)?;
        Ok(Counts { requests: requests.split_off(self.before.min(requests.len())), calls: calls.collect() })
    }
}

impl Counts {
    /// Writes of the engine for each of so many runs, events aside; and its events.
    pub fn writes(&self, runs: usize) -> (f64, f64) {
        let ours = self.requests.iter().filter(|request| request.user == CONTROLLER);
        let writes = ours.filter(|request| WRITES.contains(&request.verb.as_str()));
        let (events, others): (Vec<_>, Vec<_>) = writes.partition(|request| request.resource == "events");
        let each = |count: usize| per(number(count), number(runs));
        (each(others.len()), each(events.len()))
    }

    /// Requests for each of so many runs, one line per user, verb and resource; what is asked less than once in ten runs
    /// is left out.
    pub fn lines(&self, runs: usize) -> Vec<String> {
        let mut counts = BTreeMap::<_, usize>::new();
        for Request { user, agent, verb, resource, .. } in &self.requests {
            // On test clusters many programs are one user.
            let who = if agent.is_empty() { user } else { agent };
            let who = who.rsplit(':').next().unwrap_or(who);
            *counts.entry((who, resource, verb)).or_default() += 1;
        }
        let requests = counts
            .into_iter()
            .map(|((who, resource, verb), count)| (count, format!("{who}  {verb} {resource}")));
        let calls = self.calls.iter().map(|(name, count)| {
            (usize::try_from(*count).unwrap_or(usize::MAX), format!("API server  calls {name}"))
        });
        let often = |(count, _): &(usize, String)| *count * 10 >= runs;
        let line =
            |(count, what): (usize, String)| format!("{:>7.1}  {what}", per(number(count), number(runs)));
        requests.chain(calls).filter(often).map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(user: &str, agent: &str, verb: &str, resource: &str) -> Request {
        let [user, agent, verb, resource] = [user, agent, verb, resource].map(str::to_owned);
        Request { user, agent, verb, resource, name: String::new(), code: 200, asked: Vec::new() }
    }

    #[test]
    fn writes_are_the_engine_s_and_events_are_apart() {
        let counts = Counts {
            requests: vec![
                request(CONTROLLER, "", "create", "pods"),
                request(CONTROLLER, "", "patch", "taskruns/status"),
                request(CONTROLLER, "", "create", "events"),
                request(CONTROLLER, "", "get", "taskruns"),
                request("admin", "kubelet", "patch", "pods/status"),
            ],
            calls: BTreeMap::from([("w".to_owned(), 4)]),
        };
        assert_eq!(counts.writes(2), (1.0, 0.5));
        assert_eq!(
            counts.lines(2),
            [
                "    0.5  kubelet  patch pods/status",
                "    0.5  tekton-pipelines-controller  create events",
                "    0.5  tekton-pipelines-controller  create pods",
                "    0.5  tekton-pipelines-controller  get taskruns",
                "    0.5  tekton-pipelines-controller  patch taskruns/status",
                "    2.0  API server  calls w",
            ]
        );
        assert_eq!(counts.lines(50).len(), 0);
    }
}
