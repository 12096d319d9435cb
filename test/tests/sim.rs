//! The engine in simulated worlds: the same end whatever goes wrong on the way.
//!
//! `SIM_SEED=7 cargo test -p ropewalk-test --test sim faults` replays one seed, any number.

#![allow(clippy::panic, clippy::print_stdout, clippy::unwrap_used, reason = "a test program")]

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;

use ropewalk_test::sim::{Disturbance, Failure, Finished, Odds, Script, Setup, Sim, generate};
use serde_json::{Value, json};

/// Faults in all their kinds, each often enough to happen in most worlds.
const ODDS: Odds = Odds { crash: 30, lost_answer: 30, refused: 20, lost_pod: 50, broken_watch: 10 };

/// The documents of a file under `examples/`.
fn example(path: &str) -> Vec<Value> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(path);
    let text = std::fs::read_to_string(file).unwrap();
    serde_saphyr::from_multiple(&text).unwrap()
}

fn simulate(setup: Setup, documents: &[Value]) -> Result<Finished, Box<Failure>> {
    Sim::new(setup, documents).unwrap().run()
}

/// The world as it ends when nothing goes wrong.
fn undisturbed(script: &Script, documents: &[Value]) -> Finished {
    simulate(Setup { script: script.clone(), ..Setup::default() }, documents)
        .unwrap_or_else(|failure| panic!("{failure}"))
}

/// What a run's `Succeeded` condition says: status, reason and message.
fn condition<'a>(finished: &'a Finished, run: &str) -> [&'a str; 3] {
    let condition = &finished.ending[run]["condition"];
    [0, 1, 2].map(|index| condition[index].as_str().unwrap())
}

/// Asserts that two worlds ended alike, and shows only what differs.
fn assert_same(seen: &Finished, expected: &Finished, when: &str) {
    let names: BTreeSet<&String> = seen.ending.keys().chain(expected.ending.keys()).collect();
    let shown = |value: Option<&Value>| value.map_or("nothing".to_owned(), Value::to_string);
    let differences: Vec<String> = names
        .into_iter()
        .map(|name| (name, seen.ending.get(name), expected.ending.get(name)))
        .filter(|(_, seen, expected)| seen != expected)
        .map(|(name, seen, expected)| format!("{name}\n  {}\n  expected {}", shown(seen), shown(expected)))
        .collect();
    assert!(differences.is_empty(), "{when}:\n{}", differences.join("\n"));
}

/// Ends the world once for every write, with a crash after that write; `visible` takes out of an ending what may differ.
fn crash_after_every_write(script: &Script, documents: &[Value], visible: impl Fn(Finished) -> Finished) {
    let expected = undisturbed(script, documents);
    let writes = expected.traffic.writes;
    let expected = visible(expected);
    for after_writes in 1..=writes {
        let disturbance = Some(Disturbance::Crash { after_writes });
        let setup = Setup { script: script.clone(), disturbance, ..Setup::default() };
        let finished =
            simulate(setup, documents).unwrap_or_else(|failure| panic!("crash {after_writes}: {failure}"));
        assert_same(&visible(finished), &expected, &format!("after a crash at write {after_writes}"));
    }
}

#[test]
fn the_quickstart_ends_the_same_after_a_crash_at_any_write() {
    let (script, documents) = (Script::default(), example("quickstart.yaml"));
    let finished = undisturbed(&script, &documents);
    assert_eq!(
        condition(&finished, "PipelineRun quickstart"),
        ["True", "Completed", "Tasks Completed: 3 (Failed: 0, Cancelled 0), Skipped: 1"]
    );
    crash_after_every_write(&script, &documents, |finished| finished);
}

#[test]
fn features_end_the_same_after_a_crash_at_any_write() {
    let flaky = Script::default().step("fails", "fail", [(1, 1)]).step(
        "flaky",
        "second-time-lucky",
        [(1, 1), (1, 0)],
    );
    let results = Script::default().result("produce", "files", r#"["a.txt","b.txt"]"#).result(
        "produce",
        "image",
        r#"{"url":"registry.example/app","tag":"1.2.3"}"#,
    );
    for (file, script) in [
        ("features/finally.yaml", flaky),
        ("features/graph.yaml", Script::default()),
        ("features/results.yaml", results),
        ("features/sidecar.yaml", Script::default()),
        ("features/workspaces.yaml", Script::default()),
        ("features/failing/missing-task.yaml", Script::default()),
        ("features/failing/exit-code.yaml", Script::default()),
        ("features/failing/timeout.yaml", Script::default()),
    ] {
        println!("{file}");
        crash_after_every_write(&script, &example(file), |finished| finished);
    }
}

/// A pipeline whose first task takes longer than it, its tasks, or its finally tasks may.
fn slow(timeouts: &Value) -> (Script, Vec<Value>) {
    let task = |name: &str| json!({ "name": name, "taskSpec": { "steps": [{ "name": "work", "image": "any", "script": "true" }] } });
    let mut after = task("after");
    after["runAfter"] = json!(["slow"]);
    let run = json!({
        "apiVersion": "tekton.dev/v1",
        "kind": "PipelineRun",
        "metadata": { "name": "slow" },
        "spec": {
            "timeouts": timeouts,
            "pipelineSpec": { "tasks": [task("slow"), after], "finally": [task("last")] },
        },
    });
    (Script::default().step("slow", "work", [(300, 0)]).step("last", "work", [(30, 0)]), vec![run])
}

#[test]
fn runs_that_take_too_long_end_the_same_after_a_crash_at_any_write() {
    for (timeouts, reason, last) in [
        (json!({ "pipeline": "10s" }), "PipelineRunTimeout", None),
        (json!({ "pipeline": "10m", "tasks": "10s" }), "PipelineRunTimeout", Some("Succeeded")),
        (json!({ "pipeline": "20m", "finally": "10s" }), "Failed", Some("TaskRunCancelled")),
    ] {
        let (script, documents) = slow(&timeouts);
        let finished = undisturbed(&script, &documents);
        assert_eq!(condition(&finished, "PipelineRun slow")[1], reason, "{timeouts}");
        let seen = finished.ending.get("TaskRun slow-last").map(|run| run["condition"][1].clone());
        assert_eq!(seen, last.map(Value::from), "{timeouts}");
        // Tasks are skipped by what their parents were when the time was up (contract 7.1). A crash between telling a
        // child and saying so lets the child end first.
        crash_after_every_write(&script, &documents, |mut finished| {
            for told in finished.ending.values_mut() {
                told.as_object_mut().map(|told| told.remove("skipped"));
            }
            finished
        });
    }
}

#[test]
fn retries_and_ignored_failures_are_counted() {
    let script = Script::default().step("fails", "fail", [(1, 1)]).step(
        "flaky",
        "second-time-lucky",
        [(1, 1), (1, 0)],
    );
    let finished = undisturbed(&script, &example("features/finally.yaml"));
    let of = |suffix: &str| {
        let name = finished.ending.keys().find(|name| name.starts_with("TaskRun") && name.ends_with(suffix));
        let name = name.unwrap();
        (condition(&finished, name)[1], &finished.ending[name]["retries"])
    };
    assert_eq!(of("-fails"), ("FailureIgnored", &json!(0)));
    assert_eq!(of("-flaky"), ("Succeeded", &json!(1)));
    assert_eq!(of("-look"), ("Succeeded", &json!(0)));
}

/// A run that is cancelled at any moment ends, in a way that fits the moment.
fn cancel_at_every_change(how: &str, reasons: &[&str]) {
    let (script, documents) =
        (Script::default().step("measure", "check", [(3, 0)]), example("quickstart.yaml"));
    let changes = undisturbed(&script, &documents).changes;
    let mut seen = BTreeSet::new();
    for after_changes in 0..=changes {
        let disturbance = Some(Disturbance::Patch {
            after_changes,
            name: "quickstart".to_owned(),
            patch: json!({ "spec": { "status": how } }),
        });
        let setup = Setup { script: script.clone(), disturbance, ..Setup::default() };
        let finished =
            simulate(setup, &documents).unwrap_or_else(|failure| panic!("change {after_changes}: {failure}"));
        let [_, reason, _] = condition(&finished, "PipelineRun quickstart");
        assert!(reasons.contains(&reason), "{how} after change {after_changes} ends as {reason}");
        if how.ends_with("RunFinally") {
            let summary = finished.ending.get("TaskRun quickstart-summary");
            let succeeded = summary.is_some_and(|run| run["condition"][0] == "True");
            assert!(succeeded, "{how} after change {after_changes} runs finally: {summary:#?}");
        }
        seen.insert(reason.to_owned());
    }
    assert_eq!(seen.len(), reasons.len(), "{how} was seen to end as {seen:?}");
}

#[test]
fn a_cancelled_run_ends() {
    cancel_at_every_change("Cancelled", &["Cancelled", "Completed"]);
}

#[test]
fn a_run_cancelled_gracefully_ends_with_finally() {
    cancel_at_every_change("CancelledRunFinally", &["Cancelled", "Completed"]);
}

#[test]
fn a_run_stopped_gracefully_ends_with_finally() {
    cancel_at_every_change("StoppedRunFinally", &["Cancelled", "Completed"]);
}

/// These seeds and those that once found something, or the one that `SIM_SEED` asks for.
fn seeds(range: Range<u64>, found: &[u64]) -> Vec<u64> {
    match std::env::var("SIM_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => range.chain(found.iter().copied()).collect(),
    }
}

/// Random pipelines in worlds where everything goes wrong.
fn faults(range: Range<u64>) {
    for seed in seeds(range, &[]) {
        let world = generate::generate(seed);
        let replay = format!("replay with SIM_SEED={seed}");
        let expected = simulate(Setup { script: world.script.clone(), ..Setup::default() }, &world.documents)
            .unwrap_or_else(|failure| panic!("{replay}, undisturbed: {failure}"));
        let setup = Setup { seed: Some(seed), odds: ODDS, script: world.script, ..Setup::default() };
        let finished =
            simulate(setup, &world.documents).unwrap_or_else(|failure| panic!("{replay}: {failure}"));
        if world.stops {
            let run = format!("PipelineRun {}", generate::NAME);
            let (seen, wanted) = (condition(&finished, &run), condition(&expected, &run));
            assert_eq!(seen[..2], wanted[..2], "{replay}");
        } else {
            assert_same(&finished, &expected, &replay);
        }
    }
}

#[test]
fn faults_change_no_ending_1() {
    faults(0..100);
}

#[test]
fn faults_change_no_ending_2() {
    faults(100..200);
}

#[test]
fn faults_strike_and_caches_are_stale() {
    let (mut faults, mut conflicts) = (0, 0);
    for seed in 0..5 {
        let world = generate::generate(seed);
        let setup = Setup { seed: Some(seed), odds: ODDS, script: world.script, ..Setup::default() };
        let finished = simulate(setup, &world.documents).unwrap_or_else(|failure| panic!("{failure}"));
        faults += finished.faults;
        conflicts += finished.traffic.conflicts;
    }
    assert!(faults > 5 && conflicts > 5, "{faults} faults, {conflicts} conflicts");
}

/// Whatever goes wrong around it, a cancelled run ends, and leaves nothing running.
#[test]
fn a_run_cancelled_amid_faults_ends() {
    for seed in seeds(0..60, &[201, 337]) {
        let world = generate::generate(seed);
        let how =
            ["Cancelled", "CancelledRunFinally", "StoppedRunFinally"][usize::try_from(seed % 3).unwrap()];
        let disturbance = Some(Disturbance::Patch {
            after_changes: usize::try_from(seed * 7 % 40).unwrap(),
            name: generate::NAME.to_owned(),
            patch: json!({ "spec": { "status": how } }),
        });
        let setup =
            Setup { seed: Some(seed), odds: ODDS, script: world.script, disturbance, ..Setup::default() };
        let finished = simulate(setup, &world.documents)
            .unwrap_or_else(|failure| panic!("replay with SIM_SEED={seed}: {failure}"));
        let run = format!("PipelineRun {}", generate::NAME);
        let [_, reason, _] = condition(&finished, &run);
        let legitimate = ["Cancelled", "Completed", "Failed", "Succeeded"];
        assert!(legitimate.contains(&reason), "replay with SIM_SEED={seed}: {how} ends as {reason}");
    }
}
