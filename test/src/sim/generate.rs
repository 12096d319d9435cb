//! Small pipelines by chance: graphs of two to eight tasks with results, order, when expressions, retries and finally.
//! No IO.

use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use super::Script;

/// The name of every generated PipelineRun.
pub const NAME: &str = "generated";

/// A world to be simulated.
#[derive(Clone, Debug)]
pub struct Generated {
    /// What is applied.
    pub documents: Vec<Value>,
    /// What its steps do.
    pub script: Script,
    /// Whether a task fails for good and stops the run. Which other tasks have begun by then is a matter of time, so
    /// only then may two worlds end differently.
    pub stops: bool,
}

/// The world of this seed.
pub fn generate(seed: u64) -> Generated {
    let mut generator =
        Generator { random: SmallRng::seed_from_u64(seed), script: Script::default(), stops: false };
    // Of two draws the smaller: large graphs cost most and find least.
    let count = usize::min(generator.random.random_range(2..=8), generator.random.random_range(2..=8));
    let may_stop = generator.one_in(4);
    let mut tasks: Vec<Value> = (0..count).map(|index| generator.task(index, may_stop)).collect();
    // The order they stand in says nothing about the order they run in.
    tasks.shuffle(&mut generator.random);
    let finally: Vec<Value> =
        (0..generator.random.random_range(0..3)).map(|index| generator.finally(index, count)).collect();
    let run = json!({
        "apiVersion": "tekton.dev/v1",
        "kind": "PipelineRun",
        "metadata": { "name": NAME },
        "spec": { "pipelineSpec": {
            "tasks": tasks,
            "finally": finally,
            "results": [{ "name": "first", "value": "$(tasks.t0.results.out)" }],
        }},
    });
    Generated { documents: vec![run], script: generator.script, stops: generator.stops }
}

struct Generator {
    random: SmallRng,
    script: Script,
    stops: bool,
}

impl Generator {
    fn one_in(&mut self, many: u32) -> bool {
        self.random.random_range(0..many) == 0
    }

    /// Task `index` of the graph, which may wait for those of a lower index.
    fn task(&mut self, index: usize, may_stop: bool) -> Value {
        let name = format!("t{index}");
        let (mut after, mut params, mut when) = (Vec::new(), Vec::new(), Vec::new());
        for earlier in (0..index).map(|earlier| format!("t{earlier}")) {
            let result = format!("$(tasks.{earlier}.results.out)");
            match self.random.random_range(0..10) {
                0 | 1 => after.push(earlier),
                2 | 3 => params.push(json!({ "name": format!("from-{earlier}"), "value": result })),
                4 => {
                    // Scripts write the name of a result as its value.
                    let value = if self.one_in(3) { "other" } else { "out" };
                    when.push(json!({ "input": result, "operator": "in", "values": [value] }));
                }
                _ => {}
            }
        }
        let mut task = self.body(&name, &params);
        task["runAfter"] = json!(after);
        task["when"] = json!(when);
        match self.random.random_range(0..8) {
            0 => {
                let retries = self.random.random_range(1..3);
                task["retries"] = json!(retries);
                let failures = (0..retries).map(|attempt| (attempt, 1));
                self.script = std::mem::take(&mut self.script).step(&name, "work", failures.chain([(1, 0)]));
            }
            1 => {
                task["onError"] = json!("continue");
                self.script = std::mem::take(&mut self.script).step(&name, "work", [(1, 7)]);
            }
            2 if may_stop => {
                self.stops = true;
                self.script = std::mem::take(&mut self.script).step(&name, "work", [(2, 3)]);
            }
            _ => {
                let seconds = self.random.random_range(0..5);
                self.script = std::mem::take(&mut self.script).step(&name, "work", [(seconds, 0)]);
            }
        }
        task
    }

    fn finally(&mut self, index: usize, count: usize) -> Value {
        let mut params = vec![json!({ "name": "outcome", "value": "$(tasks.status)" })];
        let of = self.random.random_range(0..count);
        if self.one_in(2) {
            params.push(json!({ "name": "status", "value": format!("$(tasks.t{of}.status)") }));
        }
        if self.one_in(3) {
            params.push(json!({ "name": "result", "value": format!("$(tasks.t{of}.results.out)") }));
        }
        self.body(&format!("f{index}"), &params)
    }

    /// A pipeline task with an embedded Task that takes these params and writes a result.
    fn body(&mut self, name: &str, params: &[Value]) -> Value {
        let declared: Vec<Value> = params.iter().map(|param| json!({ "name": param["name"] })).collect();
        let mut steps = vec![json!({ "name": "work", "image": "any", "script": "true" })];
        if self.one_in(4) {
            steps.push(json!({ "name": "more", "image": "any", "script": "true" }));
        }
        json!({
            "name": name,
            "params": params,
            "taskSpec": { "params": declared, "results": [{ "name": "out" }], "steps": steps },
        })
    }
}
