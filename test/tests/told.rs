//! What the engine says and records about runs in simulated worlds: few events, and every end counted once.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test program")]

use ropewalk_test::sim::{Finished, Odds, Run, Setup, Sim};
use serde_json::{Value, json};

/// The events that a run may cost when all goes well: the API server keeps each for an hour.
const MOST_EVENTS: usize = 4;

fn one_step() -> Value {
    json!({ "steps": [{ "name": "work", "image": "any", "script": "true" }] })
}

fn task_run() -> Value {
    json!({
        "apiVersion": "tekton.dev/v1",
        "kind": "TaskRun",
        "metadata": { "name": "single" },
        "spec": { "taskSpec": one_step() },
    })
}

fn pipeline_run() -> Value {
    json!({
        "apiVersion": "tekton.dev/v1",
        "kind": "PipelineRun",
        "metadata": { "name": "parent" },
        "spec": { "pipelineSpec": { "tasks": [{ "name": "only", "taskSpec": one_step() }] } },
    })
}

fn simulate(setup: Setup) -> Finished {
    Sim::new(setup, &[task_run(), pipeline_run()])
        .unwrap()
        .run()
        .unwrap_or_else(|failure| panic!("{failure}"))
}

fn name(run: &Run) -> &str {
    match run {
        Run::TaskRun(key) | Run::PipelineRun(key) => &key.name,
    }
}

#[test]
fn a_run_that_goes_well_costs_few_events_and_counts_once() {
    let told = simulate(Setup::default()).traffic.told;
    let names: Vec<&str> = told.keys().map(name).collect();
    assert_eq!(names, ["parent-only", "single", "parent"]);
    for (run, told) in &told {
        // A PipelineRun's first status says already that it runs (contract 9.1: the first is `Started`).
        let expected: &[&str] = match run {
            Run::TaskRun(_) => &["Started", "Running", "Succeeded"],
            Run::PipelineRun(_) => &["Started", "Succeeded"],
        };
        assert_eq!(told.events, expected, "{run:?}");
        assert!(told.events.len() <= MOST_EVENTS);
        assert_eq!((told.ends, told.durations), (1, 1), "{run:?}");
    }
}

#[test]
fn whatever_fails_an_end_is_counted_once() {
    // Nothing that hides from the process that its write was carried out.
    let odds = Odds { refused: 60, lost_pod: 60, broken_watch: 40, ..Odds::default() };
    for seed in 0..40 {
        let told = simulate(Setup { seed: Some(seed), odds, ..Setup::default() }).traffic.told;
        assert_eq!(told.len(), 3);
        for (run, told) in told {
            assert_eq!((told.ends, told.durations), (1, 1), "{run:?} with seed {seed}");
        }
    }
}

#[test]
fn a_crash_or_a_lost_answer_counts_no_end_twice() {
    let odds = Odds { crash: 100, lost_answer: 100, ..Odds::default() };
    let mut missed = 0;
    for seed in 0..40 {
        for (run, told) in simulate(Setup { seed: Some(seed), odds, ..Setup::default() }).traffic.told {
            assert!(told.ends <= 1 && told.ends == told.durations, "{run:?} with seed {seed}: {told:?}");
            missed += usize::from(told.ends == 0);
        }
    }
    assert!(missed > 0, "no fault has hit an end: the odds are too low to prove anything");
}
