//! Records the events that plans ask for, beside the reconciles: none of them waits for an event, and none fails with
//! it. What an event is and says is decided in `ropewalk-core`.
//!
//! kube's recorder is not used: it counts a later event of the same reason up and keeps the text of the first, and a
//! PipelineRun's progress is a series of texts under one reason.

use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Event as Object, ObjectReference};
use kube::api::PostParams;
use kube::core::Status;
use kube::{Api, Client, Resource};
use prometheus::IntCounter;
use ropewalk_core::events;
use ropewalk_core::plan::Event;
use tokio::sync::broadcast;
use tokio::time::{sleep, timeout};

/// Events that may wait: those of a hundred PipelineRuns with a task each that start and end at once. When there are
/// more, the API server is behind, and the oldest give way: the newest tell how things stand.
const WAITING: usize = 1024;

/// Events sent at once: enough for hundreds a second, few beside the reconciles' own requests.
const AT_ONCE: usize = 4;

/// How long one try may take.
const TRY: Duration = Duration::from_secs(10);

/// The waits before an event is tried again: the time an API server takes to hand over to another.
const AGAIN: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(5)];

/// Where events are handed in.
#[derive(Clone)]
pub(crate) struct Events {
    /// One place takes a pointer, not the kilobyte of an event: all of them are there from the start.
    queue: broadcast::Sender<Arc<Object>>,
}

impl Events {
    /// Somewhere to hand events in, and what records them until there is nobody left who could hand one in. `lost`
    /// counts those that were never recorded.
    pub(crate) fn start(client: Client, lost: IntCounter) -> (Self, impl Future<Output = ()> + Send) {
        let (queue, waiting) = broadcast::channel(WAITING);
        let recording = async move {
            let record = |event| record(&client, event, &lost);
            oldest_dropped(waiting, &lost).for_each_concurrent(AT_ONCE, record).await;
        };
        (Self { queue }, recording)
    }

    /// Hands in the events about a run; takes no time.
    pub(crate) fn tell<K: Resource<DynamicType = ()>>(&self, run: &K, events: &[Event]) {
        let mut now = Timestamp::now();
        let resource_version = run.meta().resource_version.clone();
        let run = ObjectReference { resource_version, ..run.object_ref(&()) };
        for event in events {
            // An error would say that nobody records any more: the process is ending.
            let _ = self.queue.send(Arc::new(events::object(event, run.clone(), now)));
            now = now.saturating_add(SignedDuration::from_nanos(1)).unwrap_or(now);
        }
    }
}

/// What waits, oldest first.
fn oldest_dropped(
    waiting: broadcast::Receiver<Arc<Object>>,
    lost: &IntCounter,
) -> impl Stream<Item = Arc<Object>> + Send {
    stream::unfold(waiting, move |mut waiting| async move {
        loop {
            match waiting.recv().await {
                Ok(event) => return Some((event, waiting)),
                Err(broadcast::error::RecvError::Lagged(count)) => lost.inc_by(count),
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    })
}

async fn record(client: &Client, event: Arc<Object>, lost: &IntCounter) {
    let namespace = event.metadata.namespace.as_deref().unwrap_or_default();
    let events: Api<Object> = Api::namespaced(client.clone(), namespace);
    let mut waits = AGAIN.into_iter();
    loop {
        let (error, may_pass) = match timeout(TRY, events.create(&PostParams::default(), &*event)).await {
            Ok(Ok(_)) => return,
            // An earlier try has arrived although its answer has not.
            Ok(Err(kube::Error::Api(status))) if status.code == 409 => return,
            // Events go with their namespace, and nobody would read this one.
            Ok(Err(kube::Error::Api(status))) if status.code == 404 || is_terminating(&status) => return,
            Ok(Err(kube::Error::Api(status))) => {
                (status.message.clone(), matches!(status.code, 408 | 429 | 500..))
            }
            Ok(Err(error)) => (error.to_string(), true),
            Err(_) => (format!("no answer within {TRY:?}"), true),
        };
        let Some(wait) = waits.next().filter(|_| may_pass) else {
            lost.inc();
            let run = event.involved_object.name.as_deref().unwrap_or_default();
            tracing::warn!(namespace, run, error, "cannot record an event");
            return;
        };
        sleep(wait).await;
    }
}

/// The namespace takes nothing new because it is being deleted.
fn is_terminating(status: &Status) -> bool {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating")
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Mutex;

    use http::{Request, Response};
    use http_body_util::BodyExt;
    use kube::client::Body;
    use ropewalk_api::TaskRun;
    use serde_json::{Value, json};

    use super::*;

    type Seen = Arc<Mutex<Vec<(String, Value)>>>;

    /// An API server that gives these answers, and then takes everything; and what it was sent.
    fn server(answers: Vec<u16>) -> (Client, Seen) {
        let (seen, answers) = (Seen::default(), Arc::new(Mutex::new(answers.into_iter())));
        let service = tower::service_fn({
            let seen = Arc::clone(&seen);
            move |request: Request<Body>| {
                let (seen, answers) = (Arc::clone(&seen), Arc::clone(&answers));
                async move {
                    let path = format!("{} {}", request.method(), request.uri().path());
                    let body = request.into_body().collect().await.expect("a body").to_bytes();
                    let body: Value = serde_json::from_slice(&body).expect("JSON");
                    seen.lock().expect("not poisoned").push((path, body.clone()));
                    let code = answers.lock().expect("not poisoned").next().unwrap_or(201);
                    let answer = match code {
                        201 => body,
                        code => json!({"kind": "Status", "status": "Failure", "message": "no", "code": code}),
                    };
                    let answer = Body::from(answer.to_string().into_bytes());
                    Ok::<_, Infallible>(Response::builder().status(code).body(answer).expect("an answer"))
                }
            }
        });
        (Client::new(service, "default"), seen)
    }

    fn run() -> TaskRun {
        let run = json!({
            "metadata": {"name": "run", "namespace": "ns", "uid": "u-1", "resourceVersion": "7"}, "spec": {}
        });
        serde_json::from_value(run).expect("a TaskRun")
    }

    fn event(reason: &str) -> Event {
        Event { warning: false, reason: reason.to_owned(), message: String::new() }
    }

    fn reasons(seen: &Seen) -> Vec<String> {
        let seen = seen.lock().expect("not poisoned");
        seen.iter().map(|(_, body)| body["reason"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// Hands these events in and waits until nothing is left to record.
    async fn told(client: Client, reasons: impl Iterator<Item = String>) -> u64 {
        let lost = IntCounter::new("lost", "Lost").expect("a counter");
        let (events, recording) = Events::start(client, lost.clone());
        for reason in reasons {
            events.tell(&run(), &[event(&reason)]);
        }
        drop(events);
        recording.await;
        lost.get()
    }

    #[tokio::test]
    async fn each_event_is_an_object_of_its_own() {
        let (client, seen) = server(vec![]);
        let lost = IntCounter::new("lost", "Lost").expect("a counter");
        let (events, recording) = Events::start(client, lost.clone());
        events.tell(&run(), &[event("Running"), event("Running")]);
        drop(events);
        recording.await;
        let seen = seen.lock().expect("not poisoned");
        let names: Vec<&Value> = seen.iter().map(|(_, body)| &body["metadata"]["name"]).collect();
        assert!(matches!(names[..], [first, second] if first != second), "{names:?}");
        for (path, body) in seen.iter() {
            assert_eq!(path, "POST /api/v1/namespaces/ns/events");
            assert_eq!(
                body["involvedObject"],
                json!({
                    "apiVersion": "tekton.dev/v1", "kind": "TaskRun", "namespace": "ns", "name": "run",
                    "uid": "u-1", "resourceVersion": "7",
                })
            );
        }
        assert_eq!(lost.get(), 0);
    }

    #[tokio::test]
    async fn more_than_can_wait_costs_the_oldest() {
        let (client, seen) = server(vec![]);
        let all = (0..WAITING + 3).map(|number| format!("Reason{number}"));
        assert_eq!(told(client, all).await, 3);
        let mut expected: Vec<String> = (3..WAITING + 3).map(|number| format!("Reason{number}")).collect();
        let mut seen = reasons(&seen);
        expected.sort();
        seen.sort();
        assert_eq!(seen, expected);
    }

    #[rstest::rstest]
    #[case::recovers(vec![503, 500], 3, 0)]
    #[case::arrived_before(vec![503, 409], 2, 0)]
    #[case::refused(vec![403], 1, 1)]
    #[case::down(vec![500, 503, 429], 3, 1)]
    #[tokio::test(start_paused = true)]
    async fn a_server_that_fails_is_asked_again(
        #[case] answers: Vec<u16>,
        #[case] tries: usize,
        #[case] lost: u64,
    ) {
        let (client, seen) = server(answers);
        assert_eq!(told(client, std::iter::once("Started".to_owned())).await, lost);
        assert_eq!(reasons(&seen).len(), tries);
    }

    #[tokio::test]
    async fn an_event_in_a_namespace_that_goes_is_not_missed() {
        let service = tower::service_fn(|_: Request<Body>| async {
            let answer = json!({
                "kind": "Status", "status": "Failure", "reason": "Forbidden", "code": 403,
                "message": "unable to create new content in namespace ns because it is being terminated",
                "details": {"causes": [{"reason": "NamespaceTerminating", "field": "metadata.namespace"}]},
            });
            let answer = Body::from(answer.to_string().into_bytes());
            Ok::<_, Infallible>(Response::builder().status(403).body(answer).expect("an answer"))
        });
        let client = Client::new(service, "default");
        assert_eq!(told(client, std::iter::once("Started".to_owned())).await, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_never_answers_is_given_up() {
        let service = tower::service_fn(|_: Request<Body>| {
            std::future::pending::<Result<Response<Body>, Infallible>>()
        });
        let client = Client::new(service, "default");
        assert_eq!(told(client, std::iter::once("Started".to_owned())).await, 1);
    }
}
