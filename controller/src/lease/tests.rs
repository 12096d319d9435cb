//! Two candidates on an API server in this process, on tokio's clock.

use std::sync::Arc;

use ropewalk_apiserver::{NoAdmission, ResourceTable, State};
use ropewalk_standalone::server::{NoLogs, Server};

use super::*;

fn client() -> Client {
    let state = State::new(ResourceTable::built_in(), 1, Timestamp::UNIX_EPOCH);
    Server::new(state, Arc::new(NoAdmission), Arc::new(NoLogs)).client()
}

fn candidate(client: &Client, identity: &str) -> Candidate {
    Candidate::new(client.clone(), "default", identity.to_owned(), LeaderElection::default())
}

async fn lease(client: &Client) -> Lease {
    Api::default_namespaced(client.clone()).get(NAME).await.expect("a lease")
}

async fn holder(client: &Client) -> Option<String> {
    decision::holder(&lease(client).await).map(str::to_owned)
}

#[tokio::test(start_paused = true)]
async fn a_killed_holder_is_replaced_when_its_lease_ends() {
    let client = client();
    let mut first = candidate(&client, "first").acquire().await;
    let second = tokio::spawn(candidate(&client, "second").acquire());
    let settings = LeaderElection::default();

    // Several renewals, during which the other must wait.
    let kept = timeout(3 * settings.lease_duration, first.keep()).await;
    assert!(kept.is_err(), "a lease that is renewed is not lost");
    assert!(!second.is_finished());
    assert_eq!(holder(&client).await.as_deref(), Some("first"));

    let killed = Instant::now();
    drop(first);
    second.await.expect("it takes over");
    let took = killed.elapsed();
    assert!(took <= settings.lease_duration + settings.retry_period, "it took {took:?}");
    assert!(took + settings.retry_period >= settings.lease_duration, "it took only {took:?}");
    assert_eq!(holder(&client).await.as_deref(), Some("second"));
    assert_eq!(lease(&client).await.spec.and_then(|spec| spec.lease_transitions), Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_released_lease_is_taken_at_once() {
    let client = client();
    let first = candidate(&client, "first").acquire().await;
    let second = tokio::spawn(candidate(&client, "second").acquire());
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(!second.is_finished());

    let stopped = Instant::now();
    first.release().await;
    second.await.expect("it takes over");
    let took = stopped.elapsed();
    assert!(took < Duration::from_secs(1), "it took {took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_released_after_a_renewal_without_an_answer() {
    let client = client();
    let mut held = candidate(&client, "first").acquire().await;
    let before = held.lease.clone();
    assert!(timeout(Duration::from_secs(3), held.keep()).await.is_err());
    held.lease = before;
    held.release().await;
    assert_eq!(holder(&client).await, None);
}

#[tokio::test(start_paused = true)]
async fn the_lease_of_another_is_not_released() {
    let client = client();
    let held = candidate(&client, "first").acquire().await;
    let api: Api<Lease> = Api::default_namespaced(client.clone());
    let patch = json!({ "spec": { "holderIdentity": "thief" } });
    api.patch(NAME, &PatchParams::default(), &Patch::Merge(patch)).await.expect("a patch");
    held.release().await;
    assert_eq!(holder(&client).await.as_deref(), Some("thief"));
}

#[tokio::test(start_paused = true)]
async fn whoever_comes_back_under_its_name_takes_its_lease_at_once() {
    let client = client();
    drop(candidate(&client, "pod").acquire().await);
    let restarted = Instant::now();
    candidate(&client, "pod").acquire().await;
    assert!(restarted.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn one_of_many_gets_it() {
    let client = client();
    let mut all: Vec<_> =
        (0..5).map(|index| tokio::spawn(candidate(&client, &index.to_string()).acquire())).collect();
    let (won, _, rest) = futures::future::select_all(all.drain(..)).await;
    let mut won = won.expect("one gets it");
    assert_eq!(holder(&client).await.as_ref(), Some(&won.candidate.identity));
    assert!(timeout(Duration::from_mins(1), won.keep()).await.is_err());
    assert!(rest.iter().all(|other| !other.is_finished()));
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_somebody_else_has_is_lost() {
    let client = client();
    let mut held = candidate(&client, "first").acquire().await;
    let api: Api<Lease> = Api::default_namespaced(client.clone());
    let patch = json!({ "spec": { "holderIdentity": "thief" } });
    api.patch(NAME, &PatchParams::default(), &Patch::Merge(patch)).await.expect("a patch");
    let lost = held.keep().await;
    assert!(matches!(&lost, Lost::Taken { holder } if holder == "thief"), "{lost}");
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_only_got_a_label_is_kept() {
    let client = client();
    let mut held = candidate(&client, "first").acquire().await;
    let api: Api<Lease> = Api::default_namespaced(client.clone());
    let patch = json!({ "metadata": { "labels": { "a": "b" } } });
    api.patch(NAME, &PatchParams::default(), &Patch::Merge(patch)).await.expect("a patch");
    let before = lease(&client).await.metadata.resource_version;
    assert!(timeout(Duration::from_secs(30), held.keep()).await.is_err());
    assert_ne!(lease(&client).await.metadata.resource_version, before, "it was renewed");
}
