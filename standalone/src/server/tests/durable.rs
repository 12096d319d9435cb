//! A server that keeps its objects: what was answered is there when the next one starts.

use std::path::Path;

use futures::future::try_join_all;
use kube::api::WatchParams;

use super::*;
use crate::server::tokens::Keys;
use crate::store::{self, File};

/// A server over this file, as the process makes one.
fn open(path: &Path) -> Server {
    let (mut file, kept) = File::open(path).expect("opened");
    let now = Timestamp::now();
    let (mut state, unknown) = State::restore(ResourceTable::built_in(), 1, now, kept.version, kept.objects);
    assert_eq!(unknown, Vec::<String>::new());
    let deltas = state.take_fresh();
    file.commit(state.version(), &store::changes(state.table(), &deltas)).expect("written");
    let (signing, admin) = (Keys::signing_key().expect("a key"), Keys::admin_token().expect("a token"));
    let keys = Keys::new(&signing, &admin).expect("keys");
    Server::durable(state, Arc::new(NoAdmission), Arc::new(NoLogs), keys, file).expect("a thread")
}

async fn listed(server: &Server) -> (u64, Vec<ConfigMap>) {
    let list = config_maps(&server.client()).list(&ListParams::default()).await.expect("listed");
    (list.metadata.resource_version.expect("a version").parse().expect("a number"), list.items)
}

#[tokio::test]
async fn objects_are_there_again() {
    let root = tempfile::tempdir().expect("a directory");
    let path = root.path().join("objects.redb");
    let server = open(&path);
    let api = config_maps(&server.client());
    for name in ["changed", "deleted", "kept"] {
        api.create(&PostParams::default(), &config_map(name, "1")).await.expect("created");
    }
    api.delete("deleted", &DeleteParams::default()).await.expect("deleted");
    let patch = Patch::Merge(json!({ "data": { "key": "2" } }));
    api.patch("changed", &PatchParams::default(), &patch).await.expect("patched");
    let before = listed(&server).await;
    server.close().await;
    let closed = api.create(&PostParams::default(), &config_map("late", "")).await.expect_err("refused");
    assert_eq!(api_error(&closed).0, 507);

    let server = open(&path);
    assert_eq!(listed(&server).await, before);
    let api = config_maps(&server.client());
    let later = api.create(&PostParams::default(), &config_map("later", "")).await.expect("created");
    assert_eq!(later.resource_version(), Some((before.0 + 1).to_string()));
    // Who watched from the end goes on, who was behind lists again.
    for (since, expected) in [(before.0, 201), (before.0 - 1, 410)] {
        let watch = api.watch(&WatchParams::default(), &since.to_string()).await.expect("a watch");
        let event = watch.boxed().try_next().await.expect("an event").expect("one");
        let code = match event {
            kube::core::WatchEvent::Added(object) => {
                assert_eq!(object.name_any(), "later");
                201
            }
            kube::core::WatchEvent::Error(status) => status.code,
            other => panic!("{other:?}"),
        };
        assert_eq!(code, expected, "{since}");
    }
    server.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_share_transactions_and_watches_see_all_in_order() {
    const WRITERS: usize = 8;
    const WRITES: usize = 25;
    let root = tempfile::tempdir().expect("a directory");
    let path = root.path().join("objects.redb");
    let server = open(&path);
    let (since, _) = listed(&server).await;
    let api = config_maps(&server.client());
    let watch = api.watch(&WatchParams::default(), &since.to_string()).await.expect("a watch");
    let writer = async |writer: usize| {
        for write in 0..WRITES {
            let made =
                api.create(&PostParams::default(), &config_map(&format!("m{writer}-{write}"), "")).await?;
            // What one has been told, one reads.
            assert_eq!(api.get(&made.name_any()).await?.uid(), made.uid());
        }
        Ok::<_, kube::Error>(())
    };
    try_join_all((0..WRITERS).map(writer)).await.expect("written");
    let seen = watch.take(WRITERS * WRITES).map(|event| match event.expect("an event") {
        kube::core::WatchEvent::Added(object) => {
            object.resource_version().expect("a version").parse::<u64>().expect("a number")
        }
        other => panic!("{other:?}"),
    });
    let seen: Vec<u64> = tokio::time::timeout(PATIENCE, seen.collect()).await.expect("all of them");
    let expected: Vec<u64> = (since + 1..).take(WRITERS * WRITES).collect();
    assert_eq!(seen, expected);
    server.close().await;
    let (_, kept) = File::open(&path).expect("opened");
    assert_eq!(kept.version, since + (WRITERS * WRITES) as u64);
    let maps = kept.objects.iter().filter(|object| object["kind"] == "ConfigMap");
    assert_eq!(maps.count(), WRITERS * WRITES);
}
