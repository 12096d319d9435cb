//! Who waits for what: the worker does not run here.

use futures::StreamExt;
use jiff::Timestamp;
use kube::Client;
use kube::runtime::reflector::ObjectRef;
use ropewalk_api::TaskRun;
use ropewalk_apiserver::{NoAdmission, ResourceTable, State};
use ropewalk_core::images::{Lookup, Wanted};
use ropewalk_standalone::server::{NoLogs, Server};

use super::super::look_ups::{LookUps, QUEUE, QUEUE_PER_NAMESPACE, start};
use super::*;
use crate::images::ImageOptions;

fn client() -> Client {
    let state = State::new(ResourceTable::built_in(), 1, Timestamp::UNIX_EPOCH);
    Server::new(state, Arc::new(NoAdmission), Arc::new(NoLogs)).client()
}

fn look_ups() -> (LookUps, impl Sized) {
    let options =
        ImageOptions { extra_roots: watch::channel(String::new()).1, registries: None, local: None };
    let (look_ups, worker, woken) = start(&client(), Some(options));
    (look_ups.expect("they are on"), (worker, woken))
}

fn wanted(image: &str) -> Wanted {
    Wanted {
        image: image.to_owned(),
        namespace: "ns".to_owned(),
        service_account: "default".to_owned(),
        pull_secrets: Vec::new(),
    }
}

fn run(name: &str) -> ObjectRef<TaskRun> {
    ObjectRef::new(name).within("ns")
}

fn pending(problem: Option<&str>) -> Lookup {
    Lookup::Pending { since: Timestamp::UNIX_EPOCH, problem: problem.map(str::to_owned) }
}

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

#[tokio::test]
async fn who_keeps_a_directory_of_registries_is_told_of_it_and_of_no_config_map() {
    let fake = Fake::start(Auth::None, Tls::Yes).await;
    let image = format!("{}/app:v1", fake.host);
    let options = ImageOptions {
        extra_roots: watch::channel(String::new()).1,
        registries: Some("/nowhere/certs.d".into()),
        local: None,
    };
    let (look_ups, worker, mut woken) = start(&client(), Some(options));
    let (look_ups, worker) = (look_ups.expect("they are on"), tokio::spawn(worker));
    assert!(look_ups.follow(&run("one"), "1", &[wanted(&image)], NOW));
    assert_eq!(woken.next().await, Some(run("one")));
    let known = look_ups.known("1").remove(&image);
    let Some(Lookup::Pending { problem: Some(text), .. } | Lookup::Failed(text)) = known else {
        panic!("it should be refused: {known:?}")
    };
    assert!(text.contains("certificate is refused"), "{text}");
    assert!(text.ends_with("\"certs.d/REGISTRY/ca.crt\" below the data directory"), "{text}");
    worker.abort();
}

#[tokio::test]
async fn runs_that_want_the_same_wait_for_one_look_up() {
    let (look_ups, _worker) = look_ups();
    let image = wanted("a");
    assert!(look_ups.follow(&run("one"), "1", &[image.clone(), wanted("b")], NOW));
    assert_eq!(look_ups.shared.report(&image, "no answer"), [run("one")]);
    assert!(look_ups.follow(&run("two"), "2", std::slice::from_ref(&image), NOW));
    for uid in ["1", "2"] {
        assert_eq!(look_ups.known(uid)["a"], pending(Some("no answer")));
    }
    assert_eq!(look_ups.known("1")["b"], pending(None));

    let outcome = Lookup::Failed("gone".to_owned());
    assert_eq!(look_ups.shared.finish(&image, &outcome), [run("one"), run("two")]);
    assert_eq!(look_ups.known("2")["a"], outcome);
    // Asked for again before it is told: the answer stays.
    assert!(look_ups.follow(&run("two"), "2", &[image], NOW));
    assert_eq!(look_ups.known("2")["a"], outcome);
}

#[tokio::test]
async fn a_run_that_wants_nothing_more_is_forgotten() {
    let (look_ups, _worker) = look_ups();
    let image = wanted("a");
    assert!(look_ups.follow(&run("one"), "1", std::slice::from_ref(&image), NOW));
    assert!(look_ups.follow(&run("one"), "1", &[], NOW));
    look_ups.shared.finish(&image, &Lookup::Failed("gone".to_owned()));
    assert!(look_ups.known("1").is_empty());
}

#[tokio::test]
async fn there_is_a_bound() {
    let (look_ups, _worker) = look_ups();
    let of = |namespace: &str, image: &str| Wanted { namespace: namespace.to_owned(), ..wanted(image) };
    for index in 0..QUEUE {
        let namespace = ["ns", "b", "c", "d"][index / QUEUE_PER_NAMESPACE];
        let image = of(namespace, &index.to_string());
        assert!(look_ups.follow(&run("wide"), &index.to_string(), &[image], NOW));
        if index + 1 == QUEUE_PER_NAMESPACE {
            assert!(
                !look_ups.follow(&run("late"), "late", &[wanted("late")], NOW),
                "others have places left"
            );
        }
    }
    assert!(!look_ups.follow(&run("late"), "late", &[of("e", "late")], NOW));
    assert!(!look_ups.follow(&run("late"), "late", &[wanted("late")], NOW));
    assert!(look_ups.known("late").is_empty());
    assert!(look_ups.follow(&run("same"), "same", &[wanted("0")], NOW));
    look_ups.shared.finish(&wanted("0"), &Lookup::Failed("gone".to_owned()));
    assert!(look_ups.follow(&run("late"), "late", &[wanted("late")], NOW));
}
