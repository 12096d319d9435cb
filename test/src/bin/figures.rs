//! Prints what runs cost: the requests that the controllers write, by verb and resource.

#![expect(clippy::print_stdout, reason = "this is what it is for")]

use std::path::Path;

use anyhow::Context as _;
use ropewalk_test::sim::{Finished, Setup, Sim};
use serde_json::{Value, json};

fn main() -> anyhow::Result<()> {
    let lone = json!({
        "apiVersion": "tekton.dev/v1",
        "kind": "TaskRun",
        "metadata": { "name": "lone" },
        "spec": { "taskSpec": { "steps": [{ "name": "work", "image": "any", "script": "true" }] } },
    });
    print("a TaskRun with one step", &simulate(&[lone])?);
    let quickstart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/quickstart.yaml");
    let text = std::fs::read_to_string(&quickstart)
        .with_context(|| format!("cannot read \"{}\"", quickstart.display()))?;
    let documents: Vec<Value> = serde_saphyr::from_multiple(&text)?;
    print("examples/quickstart.yaml", &simulate(&documents)?);
    Ok(())
}

fn simulate(documents: &[Value]) -> anyhow::Result<Finished> {
    Ok(Sim::new(Setup::default(), documents)?.run()?)
}

fn print(what: &str, finished: &Finished) {
    println!("{what}: {} writes", finished.traffic.writes);
    for ((resource, verb), count) in &finished.traffic.tally {
        println!("  {count:>3}  {verb} {resource}");
    }
}
