//! Random Pipelines in a world that crashes, lags and fails: what must hold whatever happens.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::World;
use crate::plan::{Resource, Write};

/// One pipeline task of a random Pipeline.
#[derive(Clone, Debug)]
struct Shape {
    /// Earlier tasks, modulo its position.
    after: Vec<usize>,
    /// An earlier task whose result it takes, modulo its position.
    reads: Option<usize>,
    /// The result stands in `when` instead of `params`.
    reads_in_when: bool,
    /// `when` is false.
    off: bool,
    /// `onError: continue`.
    ignores: bool,
    /// How many children its matrix makes; none has no matrix.
    fans: Option<usize>,
}

/// What happens next.
#[derive(Clone, Debug)]
enum Event {
    /// The running child of this number ends.
    End(usize, Ending),
    /// Seconds pass.
    Wait(u64),
    /// `spec.status` is set.
    Ask(&'static str),
    /// The next plan is cut off after so many writes.
    Crash(usize),
    /// The next plan does not see the child made last.
    Lag,
}

#[derive(Clone, Copy, Debug)]
enum Ending {
    Succeeds,
    SucceedsWithoutResult,
    Fails,
    IsCancelled,
}

fn shapes(max: usize) -> impl Strategy<Value = Vec<Shape>> {
    let shape = (
        prop::collection::vec(0_usize..8, 0..3),
        prop::option::of(0_usize..8),
        any::<bool>(),
        prop::bool::weighted(0.15),
        prop::bool::weighted(0.3),
        prop::option::weighted(0.25, 0_usize..4),
    );
    let shape = shape.prop_map(|(after, reads, reads_in_when, off, ignores, fans)| Shape {
        after,
        reads,
        reads_in_when,
        off,
        ignores,
        fans,
    });
    prop::collection::vec(shape, 1..max)
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let ending = prop_oneof![
        6 => Just(Ending::Succeeds),
        1 => Just(Ending::SucceedsWithoutResult),
        2 => Just(Ending::Fails),
        1 => Just(Ending::IsCancelled),
    ];
    let event = prop_oneof![
        10 => (0_usize..8, ending).prop_map(|(child, ending)| Event::End(child, ending)),
        2 => (0_u64..900).prop_map(Event::Wait),
        1 => prop::sample::select(vec!["Cancelled", "CancelledRunFinally", "StoppedRunFinally"]).prop_map(Event::Ask),
        2 => (0_usize..4).prop_map(Event::Crash),
        1 => Just(Event::Lag),
    ];
    prop::collection::vec(event, 0..30)
}

/// The spec of a Pipeline, and for each graph task those it waits for.
fn pipeline(graph: &[Shape], finally: usize) -> (Value, Vec<BTreeSet<usize>>) {
    let mut parents = Vec::new();
    let task_spec =
        json!({"results": [{"name": "r"}], "steps": [{"name": "s", "image": "i", "script": "true"}]});
    let mut tasks = Vec::new();
    for (position, shape) in graph.iter().enumerate() {
        let earlier = |number: &usize| (position > 0).then(|| number % position.max(1));
        let after: BTreeSet<usize> = shape.after.iter().filter_map(earlier).collect();
        let reads = shape.reads.as_ref().and_then(earlier);
        let reference = reads.map(|task| {
            let all = if graph[task].fans.is_some() { "[*]" } else { "" };
            format!("$(tasks.t{task}.results.r{all})")
        });
        let mut when = Vec::new();
        if shape.off {
            when.push(json!({"input": "a", "operator": "in", "values": ["b"]}));
        }
        let mut params = Vec::new();
        match reference {
            Some(reference) if shape.reads_in_when => {
                when.push(json!({"input": reference, "operator": "notin", "values": ["b"]}));
            }
            Some(reference) => params.push(json!({"name": "p", "value": reference})),
            None => {}
        }
        tasks.push(json!({
            "name": format!("t{position}"),
            "runAfter": after.iter().map(|task| format!("t{task}")).collect::<Vec<_>>(),
            "when": when,
            "params": params,
            "onError": if shape.ignores { "continue" } else { "" },
            "taskSpec": task_spec,
            "matrix": shape.fans.map(|count| {
                let values: Vec<String> = (0..count).map(|value| format!("v{value}")).collect();
                json!({"params": [{"name": "m", "value": values}]})
            }),
        }));
        parents.push(after.into_iter().chain(reads).collect());
    }
    let finally: Vec<Value> =
        (0..finally).map(|i| json!({"name": format!("f{i}"), "taskSpec": task_spec})).collect();
    (json!({"tasks": tasks, "finally": finally}), parents)
}

struct Trial {
    world: World,
    parents: Vec<BTreeSet<usize>>,
    ended: Option<Value>,
}

impl Trial {
    /// One plan, of which the first `limit` writes are made; the status is the last.
    fn round(&mut self, limit: usize, hide_newest: bool) {
        let mut snapshot = self.world.snapshot();
        if hide_newest && let Some(newest) = self.world.born.last() {
            snapshot.children.retain(|child| child.metadata.name.as_ref() != Some(newest));
        }
        let plan = super::plan(&snapshot);
        for write in plan.writes.iter().chain(&plan.status).take(limit) {
            match write {
                Write::Create { target, .. } if self.world.children.contains_key(&target.name) => {
                    assert!(hide_newest, "\"{}\" is made twice", target.name);
                }
                Write::Create { target, .. } if target.resource == Resource::TaskRun => {
                    self.check_birth(&target.name);
                    self.world.apply(write);
                }
                _ => self.world.apply(write),
            }
        }
    }

    fn settle(&mut self) {
        for _ in 0..5 {
            if self.world.plan().is_empty() {
                self.check();
                return;
            }
            self.round(usize::MAX, false);
        }
        panic!("the plan never becomes empty: {:#?}", self.world.plan());
    }

    /// A child may be made only once everything before it is done or will never be run.
    fn check_birth(&self, name: &str) {
        assert!(self.ended.is_none(), "\"{name}\" is made after the end");
        let running = |task: usize| {
            let (only, many) = (format!("x-t{task}"), format!("x-t{task}-"));
            let children =
                self.world.children.iter().filter(|(name, _)| **name == only || name.starts_with(&many));
            children.into_iter().any(|(_, child)| !done(child))
        };
        if let Some(task) = name.strip_prefix("x-t") {
            let position = task.split('-').next().unwrap_or_default();
            let position: usize = position.parse().expect("a position");
            for parent in &self.parents[position] {
                assert!(!running(*parent), "\"t{position}\" is made before \"t{parent}\" is done");
            }
        } else {
            let open = (0..self.parents.len()).find(|task| running(*task));
            assert_eq!(open, None, "\"{name}\" is made before the graph is done");
        }
    }

    /// What holds of any settled run.
    fn check(&mut self) {
        let status = self.world.status();
        let listed: BTreeSet<&str> =
            status.child_references.iter().map(|child| child.name.as_str()).collect();
        assert_eq!(listed.len(), status.child_references.len(), "each child is listed once");
        let cancelled_outright = self.world.run["spec"]["status"] == "Cancelled";
        assert!(cancelled_outright || listed.len() == self.world.children.len(), "each child is listed");
        for skipped in &status.skipped_tasks {
            let run = status.child_references.iter().any(|child| child.pipeline_task_name == skipped.name);
            assert!(!run, "run and skipped: {skipped:?}");
        }
        let condition = self.world.condition();
        if condition.starts_with("Unknown/") {
            assert!(self.ended.is_none(), "an end is not final: {condition}");
            assert!(
                self.world.children.values().any(|child| !done(child)),
                "it goes on, and waits for nothing: {condition}"
            );
        } else {
            let seen = self.world.run["status"].clone();
            assert_eq!(self.ended.get_or_insert_with(|| seen.clone()), &seen, "an end is not final");
        }
    }
}

fn done(child: &ropewalk_api::TaskRun) -> bool {
    child.status.as_ref().is_some_and(|status| ropewalk_api::conditions::is_done(&status.conditions))
}

fn run_through(graph: &[Shape], finally: usize, events: Vec<Event>) -> Trial {
    let (spec, parents) = pipeline(graph, finally);
    let mut world = World::embedded("tasks: []");
    world.run["spec"] = json!({"pipelineSpec": spec, "timeouts": {"pipeline": "1h", "tasks": "30m"}});
    let mut trial = Trial { world, parents, ended: None };
    let mut settle = true;
    for event in events {
        if settle {
            trial.settle();
        }
        settle = true;
        match event {
            Event::End(number, ending) => {
                let running: Vec<String> = trial
                    .world
                    .children
                    .iter()
                    .filter(|(_, child)| !done(child))
                    .filter_map(|(name, _)| name.strip_prefix("x-").map(str::to_owned))
                    .collect();
                if let Some(task) = running.get(number % running.len().max(1)) {
                    let told = trial.world.child(task).spec.status == "TaskRunCancelled";
                    end(&mut trial.world, task, if told { Ending::IsCancelled } else { ending });
                }
            }
            Event::Wait(seconds) => trial.world.now += Duration::from_secs(seconds),
            Event::Ask(status) if trial.ended.is_none() && trial.world.run["spec"]["status"].is_null() => {
                trial.world.run["spec"]["status"] = json!(status);
            }
            Event::Ask(_) => {}
            Event::Crash(writes) => {
                trial.round(writes, false);
                settle = false;
            }
            Event::Lag => trial.round(usize::MAX, true),
        }
    }
    // Whatever still runs ends well, and so does the run.
    for _ in 0..40 {
        trial.settle();
        let Some(name) = trial.world.children.iter().find(|(_, child)| !done(child)).map(|(name, _)| name)
        else {
            break;
        };
        let task = name.strip_prefix("x-").expect("a child of x").to_owned();
        end(&mut trial.world, &task, Ending::Succeeds);
    }
    trial.settle();
    trial
}

fn end(world: &mut World, task: &str, ending: Ending) {
    if matches!(ending, Ending::Succeeds) {
        let results =
            vec![ropewalk_api::TaskRunResult { name: "r".into(), value: "v".into(), result_type: None }];
        world.child(task).status.get_or_insert_default().results = results;
    }
    let (status, reason) = match ending {
        Ending::Succeeds | Ending::SucceedsWithoutResult => (super::ConditionStatus::True, "Succeeded"),
        Ending::Fails => (super::ConditionStatus::False, "Failed"),
        Ending::IsCancelled => (super::ConditionStatus::False, "TaskRunCancelled"),
    };
    world.conclude(task, status, reason);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn every_run_ends_in_order(graph in shapes(7), finally in 0_usize..3, events in events()) {
        let trial = run_through(&graph, finally, events);
        prop_assert!(trial.ended.is_some(), "{}", trial.world.condition());
    }

    /// Crashes and late sight change nothing about where a run without timeouts ends.
    #[test]
    fn crashes_leave_no_trace(graph in shapes(7), finally in 0_usize..3, crashes in prop::collection::vec(0_usize..4, 0..12)) {
        let calm = run_through(&graph, finally, Vec::new());
        let crashes = crashes.into_iter().map(|writes| {
            if writes == 3 { Event::Lag } else { Event::Crash(writes) }
        });
        let wild = run_through(&graph, finally, crashes.collect());
        prop_assert_eq!(&calm.world.run["status"], &wild.world.run["status"]);
        prop_assert_eq!(calm.world.children, wild.world.children);
    }
}

/// Texts that mean something somewhere, right or wrong.
fn text() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "",
        "a",
        "b",
        "Not A Name",
        "$(params.a)",
        "$(params.a[7])",
        "$(params.a[*])",
        "$(params[\"a\"])",
        "$(tasks.a.results.r)",
        "$(tasks.b.results.r[99999999999])",
        "$(tasks.a.results.r.k)",
        "$(finally.a.results.r)",
        "$(tasks.a.status)",
        "$(tasks.status)",
        "$(workspaces.a.path)",
        "$(context.pipelineRun.name)",
        "$(",
        "é\u{0}",
        "continue",
    ])
    .prop_map(str::to_owned)
}

/// A value of any shape a param can have.
fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        text().prop_map(Value::from),
        prop::collection::vec(text(), 0..3).prop_map(Value::from),
        prop::collection::hash_map(text(), text(), 0..3).prop_map(|map| json!(map)),
    ]
}

fn hostile_task() -> impl Strategy<Value = Value> {
    let params = prop::collection::vec((text(), value()), 0..3);
    let when = prop::collection::vec((text(), text(), text()), 0..2);
    let after = prop::collection::vec(text(), 0..2);
    ((text(), text(), text(), text()), params, when, after, any::<bool>(), prop::option::of(-2_i64..3)).prop_map(
        |((name, script, reference, on_error), params, when, after, embedded, retries)| {
            let params: Vec<Value> =
                params.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
            let when: Vec<Value> = when
                .into_iter()
                .map(|(input, operator, value)| json!({"input": input, "operator": operator, "values": [value]}))
                .collect();
            let mut task = json!({
                "name": name,
                "params": params,
                "when": when,
                "runAfter": after,
                "onError": on_error,
                "retries": retries,
                "workspaces": [{"name": reference, "subPath": script}],
            });
            if embedded {
                task["taskSpec"] = json!({
                    "params": [{"name": "a"}],
                    "results": [{"name": "r"}],
                    "steps": [{"name": "s", "script": script}],
                });
            } else {
                task["taskRef"] = json!({ "name": reference });
            }
            task
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    /// Whatever a run says, there is a plan, it settles, and a run that starts nothing says why.
    #[test]
    fn hostile_runs_are_decided(
        tasks in prop::collection::vec(hostile_task(), 0..4),
        finally in prop::collection::vec(hostile_task(), 0..2),
        given in prop::collection::vec((text(), value()), 0..3),
        declared in prop::collection::vec((text(), prop::option::of(value())), 0..3),
        result in value(),
    ) {
        let given: Vec<Value> =
            given.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
        let declared: Vec<Value> =
            declared.into_iter().map(|(name, default)| json!({"name": name, "default": default})).collect();
        let mut world = World::embedded("tasks: []");
        let bound: Vec<Value> = ["", "a"].iter().map(|name| json!({"name": name, "emptyDir": {}})).collect();
        world.run["spec"] = json!({
            "params": given,
            "workspaces": bound,
            "pipelineSpec": {
                "params": declared,
                "tasks": tasks,
                "finally": finally,
                "results": [{"name": "o", "value": result}],
            },
        });
        world.settle();
        while let Some(name) = world.children.iter().find(|(_, child)| !done(child)).map(|(name, _)| name) {
            let task = name.strip_prefix("x-").expect("a child of x").to_owned();
            end(&mut world, &task, Ending::Succeeds);
            world.settle();
        }
        prop_assert!(!world.condition().starts_with("Unknown/"), "{}", world.condition());
    }
}
