//! Hooks of containers: what is done beside their commands once they have started and before they are told to end.

use std::fs::File;
use std::io;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::LifecycleHandler;
use tokio::time::{sleep, timeout};

use super::container::{Attempt, grace};
use super::{probe, report};

/// In an attempt's directory: the hook that follows its start has been begun, by this process or an earlier one.
const BEGUN: &str = "post-start";

/// What a container gets between the signal and its end even if the hook took all the time there was: a kubelet's.
const LEAST_SECONDS: u64 = 2;

/// Runs the hook that follows an attempt's start, once. One that fails ends the container. As in a kubelet nothing bounds the
/// time it takes (kubernetes/kubernetes#99761) but the container's end: whom it asks may be elsewhere, and never answer.
pub(super) async fn started(attempt: &Attempt) {
    let lifecycle = attempt.spec().and_then(|container| container.lifecycle.as_ref());
    let Some(hook) = lifecycle.and_then(|lifecycle| lifecycle.post_start.clone()) else { return };
    // Fails where it was begun before.
    if File::create_new(attempt.directory().join(BEGUN)).is_err() {
        return;
    }
    let done = tokio::select! {
        done = run(attempt, &hook) => done,
        () = attempt.over() => return,
    };
    if let Err(error) = done
        && attempt.is_running()
    {
        let message = format!("PostStartHook failed: {error}");
        report::warn(&attempt.node.client, &attempt.pod, "FailedPostStartHook", &message).await;
        stop(attempt, grace(&attempt.pod)).await;
    }
}

/// Ends an attempt: the hook before its end, then the signal, then the kill, all of it within the time given.
pub(super) async fn stop(attempt: &Attempt, grace_seconds: u64) {
    let lifecycle = attempt.spec().and_then(|container| container.lifecycle.as_ref());
    let hook = lifecycle.and_then(|lifecycle| lifecycle.pre_stop.clone()).filter(|_| grace_seconds > 0);
    let Some(hook) = hook else { return attempt.stop(grace_seconds) };
    let begun = Instant::now();
    let ended = timeout(Duration::from_secs(grace_seconds), run(attempt, &hook)).await;
    let failure = match ended {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some(format!("not done within {grace_seconds} s")),
    };
    if let Some(failure) = failure.filter(|_| attempt.is_running()) {
        let message = format!("PreStopHook failed: {failure}");
        report::warn(&attempt.node.client, &attempt.pod, "FailedPreStopHook", &message).await;
    }
    attempt.stop(grace_seconds.saturating_sub(begun.elapsed().as_secs()).max(LEAST_SECONDS));
}

async fn run(attempt: &Attempt, hook: &LifecycleHandler) -> io::Result<()> {
    if let Some(exec) = &hook.exec {
        let status = probe::execute(attempt, exec).await?;
        return if status.success() { Ok(()) } else { Err(io::Error::other(format!("{status}"))) };
    }
    if let Some(get) = &hook.http_get {
        // Whoever asks a probe takes an open port for an answer; of a hook it is wanted that it is done.
        if get.scheme.as_deref().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https")) {
            return Err(io::Error::other(
                "this node speaks no \"HTTPS\" to containers; use \"HTTP\" or \"exec\"",
            ));
        }
        let answered = probe::http_get(attempt, get).await?;
        return if answered { Ok(()) } else { Err(io::Error::other("the answer is no success")) };
    }
    if let Some(pause) = &hook.sleep {
        sleep(Duration::from_secs(u64::try_from(pause.seconds).unwrap_or_default())).await;
    }
    Ok(())
}
