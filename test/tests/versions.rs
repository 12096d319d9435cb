//! Objects in either version, in one process. A cluster is asked the same by the end-to-end test *objects in either
//! version*.

#![allow(clippy::unwrap_used, reason = "a test program")]

use std::sync::Arc;

use jiff::Timestamp;
use ropewalk_apiserver::State;
use ropewalk_core::settings::Settings;
use ropewalk_standalone::admission::Webhooks;
use ropewalk_standalone::server::{NoLogs, Server};
use ropewalk_test::versions;

#[tokio::test]
async fn every_kind_reads_back_in_both_versions_listed_and_watched_too() {
    let state = State::new(ropewalk_standalone::resources().unwrap(), 1, Timestamp::UNIX_EPOCH);
    let webhooks = Webhooks::new(Arc::default(), &Settings::default());
    let client = Server::new(state, Arc::new(webhooks), Arc::new(NoLogs)).client();
    versions::check(&client, "default").await.unwrap();
}
