//! How long the decision itself takes about objects as large as an API server takes them. Pure, but for the clock.

use std::time::{Duration, Instant};

use anyhow::Result;
use ropewalk_api::config::{ApiFields, Config};
use ropewalk_bench::figures::{median, ms, ratio};
use ropewalk_test::large;
use ropewalk_webhook::{Decision, Operation, Request, Settings, admit};
use serde_json::Value;

/// Decisions about each object.
const TIMES: usize = 5;

/// What each may take, in milliseconds.
const BOUND: f64 = 50.0;

struct Row {
    what: &'static str,
    /// Until the bytes are a [`Value`], which is the least that any judge of JSON does.
    floor: Duration,
    /// Until there is a verdict, the floor included.
    time: Duration,
    verdict: &'static str,
}

/// Prints a row per object, the slowest first.
pub(crate) fn print() -> Result<()> {
    let mut config = Config::default();
    config.features.enable_api_fields = ApiFields::Alpha;
    let rows: Result<Vec<Row>> =
        large::objects(large::SIZE).into_iter().map(|(what, object)| judge(what, &object, &config)).collect();
    let mut rows = rows?;
    rows.sort_by_key(|row| std::cmp::Reverse(row.time));
    println!(
        "{:<40} {:>9} {:>9} {:>9} {:>9}",
        "from bytes to verdict, ms", "median", "its floor", "times", "verdict"
    );
    for Row { what, floor, time, verdict } in &rows {
        let times = ratio(*time, *floor);
        println!("{what:<40} {:>9.1} {:>9.1} {times:>9.1} {verdict:>9}", ms(*time), ms(*floor));
    }
    let within = rows.iter().filter(|row| ms(row.time) < BOUND).count();
    println!("{within} of {} in under {BOUND} ms", rows.len());
    Ok(())
}

fn judge(what: &'static str, object: &Value, config: &Config) -> Result<Row> {
    let bytes = object.to_string().into_bytes();
    let (mut floors, mut times) = (Vec::new(), Vec::new());
    let mut verdict = "";
    for _ in 0..TIMES {
        let begun = Instant::now();
        let object: Value = serde_json::from_slice(&bytes)?;
        floors.push(begun.elapsed());
        let request = Request {
            operation: Operation::Create,
            group: ropewalk_api::GROUP,
            kind: object["kind"].as_str().unwrap_or_default(),
            subresource: None,
            object: &object,
            old_object: None,
        };
        let decision = admit(&request, config, &Settings::default());
        times.push(begun.elapsed());
        verdict = if matches!(decision, Decision::Allow { .. }) { "admitted" } else { "refused" };
    }
    Ok(Row { what, floor: median(floors), time: median(times), verdict })
}
