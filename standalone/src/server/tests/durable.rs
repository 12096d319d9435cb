//! A server that keeps its objects: what was answered is there when the next one starts.

use std::collections::BTreeSet;
use std::path::Path;

use futures::future::try_join_all;
use kube::api::WatchParams;

use super::*;
use crate::server::tokens::Keys;
use crate::store::testing::Disk;
use crate::store::{self, File, Kept};

/// A server over this file, as the process makes one.
fn open(path: &Path) -> Server {
    let (file, kept) = File::open(path).expect("opened");
    serve(file, kept)
}

fn serve(mut file: File, kept: Kept) -> Server {
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

fn values(maps: &[ConfigMap]) -> BTreeMap<String, String> {
    maps.iter().map(|map| (map.name_any(), map.data.clone().expect("data")["key"].clone())).collect()
}

/// Wherever in a transaction the disk fails: who asked for it is told so, nobody has seen it, and it never was.
#[tokio::test]
async fn what_cannot_be_written_is_refused_and_taken_back() {
    let mut refused = 0;
    for step in 0..40 {
        let disk = Disk::new(&[], usize::MAX);
        let (file, kept) = File::on(&disk);
        let server = serve(file, kept);
        let api = config_maps(&server.client());
        for name in ["changed", "deleted"] {
            api.create(&PostParams::default(), &config_map(name, "1")).await.expect("created");
        }
        let (before, maps) = listed(&server).await;
        let mut expected = values(&maps);
        let watch = api.watch(&WatchParams::default(), &before.to_string()).await.expect("a watch");

        disk.set_left(step);
        let patch = Patch::Merge(json!({ "data": { "key": "2" } }));
        let params = (PatchParams::default(), DeleteParams::default(), PostParams::default());
        let new = config_map("made", "1");
        let (changed, deleted, made, seen) = tokio::join!(
            api.patch("changed", &params.0, &patch),
            api.delete("deleted", &params.1),
            api.create(&params.2, &new),
            api.get("changed"),
        );
        let mut told = Vec::new();
        for (name, value, answer) in [
            ("changed", Some("2"), changed.map(drop)),
            ("deleted", None, deleted.map(drop)),
            ("made", Some("1"), made.map(drop)),
        ] {
            match (answer, value) {
                (Ok(()), Some(value)) => drop(expected.insert(name.to_owned(), value.to_owned())),
                (Ok(()), None) => drop(expected.remove(name)),
                (Err(error), _) => {
                    assert_eq!(api_error(&error), (507, "InsufficientStorage".into()), "step {step}");
                    refused += 1;
                    continue;
                }
            }
            told.push(name);
        }
        match seen {
            // It was handled after the change was, or after that was taken back.
            Ok(seen) => {
                let seen = &seen.data.expect("data")["key"];
                assert!(seen == "1" || *seen == expected["changed"], "step {step}: {seen}");
            }
            Err(error) => assert_eq!(api_error(&error).0, 507, "step {step}"),
        }
        let (version, maps) = listed(&server).await;
        assert_eq!((version, values(&maps)), (before + told.len() as u64, expected.clone()), "step {step}");

        disk.set_left(usize::MAX);
        let later = api.create(&PostParams::default(), &config_map("later", "")).await.expect("created");
        assert_eq!(later.resource_version(), Some((version + 1).to_string()), "step {step}");
        told.push("later");
        let seen = watch.take(told.len()).map(|event| match event.expect("an event") {
            kube::core::WatchEvent::Added(map)
            | kube::core::WatchEvent::Modified(map)
            | kube::core::WatchEvent::Deleted(map) => map.name_any(),
            other => panic!("{other:?}"),
        });
        let seen: Vec<String> = tokio::time::timeout(PATIENCE, seen.collect()).await.expect("all of them");
        // Whose request came first is nobody's to say, but for the one that came later.
        assert_eq!(seen.last().map(String::as_str), Some("later"), "step {step}");
        let sets: [BTreeSet<&str>; 2] =
            [seen.iter().map(String::as_str).collect(), told.into_iter().collect()];
        assert_eq!(sets[0], sets[1], "step {step}");
        let after = listed(&server).await;
        server.close().await;
        let disk = Disk::new(&disk.after_kill(), usize::MAX);
        let (file, kept) = File::on(&disk);
        assert_eq!(listed(&serve(file, kept)).await, after, "step {step}");
    }
    assert!(refused > 10, "the disk failed only {refused} times");
}

/// Prints how long a start takes; an unoptimized build takes a multiple of what a released one does.
#[test]
fn ten_thousand_objects_are_there_at_the_start() {
    const OBJECTS: usize = 10_000;
    let root = tempfile::tempdir().expect("a directory");
    let path = root.path().join("objects.redb");
    let (mut state, _) = State::restore(ResourceTable::built_in(), 1, Timestamp::now(), 0, []);
    let mut deltas = state.take_fresh();
    let context = ropewalk_apiserver::Context { now: Timestamp::now(), admission: &NoAdmission };
    let data = "x".repeat(4096);
    for index in 0..OBJECTS {
        let object = json!({ "metadata": { "name": format!("m{index}") }, "data": { "key": data } });
        let request = http::Request::post("/api/v1/namespaces/default/configmaps")
            .header("content-type", "application/json")
            .body(object.to_string())
            .expect("a request");
        deltas.extend(ropewalk_apiserver::handle(&mut state, &request, &context).deltas);
    }
    let (mut file, _) = File::open(&path).expect("opened");
    file.commit(state.version(), &store::changes(state.table(), &deltas)).expect("written");
    drop(file);
    let started = std::time::Instant::now();
    let (file, kept) = File::open(&path).expect("opened");
    let read = started.elapsed();
    let now = Timestamp::now();
    let (again, _) = State::restore(ResourceTable::built_in(), 1, now, kept.version, kept.objects);
    let took = started.elapsed();
    assert_eq!(again.version(), state.version());
    let mib = file.bytes() >> 20;
    eprintln!(
        "start with {OBJECTS} objects, {mib} MiB: {took:.2?}, of which {read:.2?} to check and read the file"
    );
}
