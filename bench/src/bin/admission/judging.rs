//! How long the decision itself takes about objects as large as an API server takes them. Pure, but for the clock.

use std::time::Instant;

use anyhow::Result;
use ropewalk_api::config::{ApiFields, Config};
use ropewalk_bench::figures::{median, ms};
use ropewalk_test::large;
use ropewalk_webhook::{Decision, Operation, Request, Settings, admit};
use serde_json::Value;

/// Decisions about each object.
const TIMES: usize = 5;

/// Prints a row per object.
pub(crate) fn print() -> Result<()> {
    println!("{:<34} {:>9} {:>9}", "from bytes to verdict, ms", "median", "verdict");
    let mut config = Config::default();
    config.features.enable_api_fields = ApiFields::Alpha;
    for (what, object) in large::objects(large::SIZE) {
        let bytes = object.to_string().into_bytes();
        let mut times = Vec::new();
        let mut verdict = "";
        for _ in 0..TIMES {
            let begun = Instant::now();
            let object: Value = serde_json::from_slice(&bytes)?;
            let request = Request {
                operation: Operation::Create,
                group: ropewalk_api::GROUP,
                kind: object["kind"].as_str().unwrap_or_default(),
                subresource: None,
                object: &object,
                old_object: None,
            };
            let decision = admit(&request, &config, &Settings::default());
            times.push(begun.elapsed());
            verdict = if matches!(decision, Decision::Allow { .. }) { "admitted" } else { "refused" };
        }
        println!("{what:<34} {:>9.1} {verdict:>9}", ms(median(times)));
    }
    Ok(())
}
