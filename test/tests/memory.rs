//! Admission's memory is linear in the bytes it judges, whatever they are.

#![allow(clippy::unwrap_used, reason = "a test program")]

use peak_alloc::PeakAlloc;
use ropewalk_api::config::{ApiFields, Config};
use ropewalk_test::large;
use ropewalk_webhook::{Operation, Request, Settings, admit};
use serde_json::Value;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// What judging these bytes takes at the most, in bytes.
fn peak(bytes: &[u8], config: &Config) -> usize {
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let object: Value = serde_json::from_slice(bytes).unwrap();
    let request = Request {
        operation: Operation::Create,
        group: ropewalk_api::GROUP,
        kind: object["kind"].as_str().unwrap(),
        subresource: None,
        object: &object,
        old_object: None,
    };
    drop(admit(&request, config, &Settings::default()));
    MEMORY.peak_usage() - before
}

/// The most memory that any of the shapes takes, in bytes of it per byte of JSON. A value of one field takes sixty times its
/// text in serde's maps, and is there twice, as it was sent and as it is to be stored; a short element of a list becomes a
/// value of a type with all the fields that there are.
const FACTOR: usize = 320;

/// One test, as the allocator counts for all threads.
#[test]
fn four_times_the_bytes_take_no_more_than_some_four_times_the_memory() {
    const SMALL: usize = 60_000;
    let mut config = Config::default();
    config.features.enable_api_fields = ApiFields::Alpha;
    let bytes =
        |size| large::objects(size).into_iter().map(|(what, object)| (what, object.to_string().into_bytes()));
    for ((what, small), (_, large)) in bytes(SMALL).zip(bytes(4 * SMALL)) {
        // The first makes what a process has once.
        peak(&small, &config);
        let (less, more) = (peak(&small, &config), peak(&large, &config));
        println!("{what}: {} and {} times its bytes", less / small.len(), more / large.len());
        // A list that grows is there twice for a moment, so there are steps.
        assert!(more < 6 * less, "{what}: {less} and {more} bytes");
        assert!(more < FACTOR * large.len(), "{what}: {more} bytes for {}", large.len());
    }
}
