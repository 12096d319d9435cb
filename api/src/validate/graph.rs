//! The graph of a Pipeline's tasks, as far as admission looks at it: unknown dependencies and cycles (contract 2.3).

use std::collections::BTreeMap;

use petgraph::algo::{astar, kosaraju_scc};
use petgraph::graph::{DiGraph, NodeIndex};

use super::errors::shown;
use super::{FieldError, FieldErrors};
use crate::strict::Hints;
use crate::{PipelineTask, references};

/// Errors name the whole way round a cycle, which upstream's do not.
///
/// Edges lead from a task to those it depends on. The path is `tasks`.
pub(super) fn validate(tasks: &[PipelineTask]) -> FieldErrors {
    let mut graph: DiGraph<&str, ()> = DiGraph::new();
    let nodes: Vec<NodeIndex> = tasks.iter().map(|task| graph.add_node(task.name.as_str())).collect();
    // Of tasks of one name, which is refused elsewhere, the first is meant.
    let by_name: BTreeMap<&str, NodeIndex> = nodes.iter().rev().map(|node| (graph[*node], *node)).collect();
    let (mut errors, hints) = (FieldErrors::default(), Hints::default());
    for (index, (task, node)) in tasks.iter().zip(&nodes).enumerate() {
        for dependency in references::dependencies(task) {
            if let Some(target) = by_name.get(dependency.as_str()) {
                graph.add_edge(*node, *target, ());
            } else {
                let name = shown(&task.name);
                let error = FieldError::invalid(
                    format!(
                        "couldn't add link between {name} and {dependency}: task {name} depends on {dependency} but \
                         {dependency} wasn't present in Pipeline"
                    ),
                    "tasks",
                );
                let hint = hints.nearest(&dependency, by_name.keys().copied());
                let hint = hint.map_or_else(String::new, |known| format!("did you mean \"{known}\"?"));
                errors.push(error.place(format!("tasks[{index}]")).culprit(dependency).hint(hint));
            }
        }
    }
    // Not `tarjan_scc`: it recurses as deep as the graph, which the user decides.
    for component in kosaraju_scc(&graph) {
        // Looking for a way round from every task of a long chain would take time with the square of its length.
        if let [alone] = component.as_slice()
            && !graph.contains_edge(*alone, *alone)
        {
            continue;
        }
        // Spec order decides where the cycle is shown to begin.
        let first = component.into_iter().min();
        let at = first.map_or(0, NodeIndex::index);
        let cycle = first.and_then(|first| cycle_through(&graph, first));
        if let Some([first, second, rest @ ..]) = cycle.as_deref() {
            let mut text = format!("cycle detected; task \"{first}\" depends on \"{second}\"");
            if let (Some(cycle), false) = (&cycle, rest.is_empty()) {
                let names: Vec<_> = cycle.iter().map(|name| format!("\"{name}\"")).collect();
                text = format!("{text} ({})", names.join(" -> "));
            }
            errors.push(FieldError::invalid(text, "tasks").place(format!("tasks[{at}]")));
        }
    }
    errors
}

/// The shortest way from a task back to itself, both ends included.
fn cycle_through<'a>(graph: &DiGraph<&'a str, ()>, start: NodeIndex) -> Option<Vec<&'a str>> {
    let (_, path) = astar(graph, start, |at| graph.contains_edge(at, start), |_| 1, |_| 0)?;
    Some(path.into_iter().chain([start]).map(|node| graph[node]).collect())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    #[rstest]
    #[case(json!([]), "")]
    #[case(json!([{"name": "a"}, {"name": "b", "runAfter": ["a"]}]), "")]
    #[case(
        json!([{"name": "b", "runAfter": ["a"]}]),
        "invalid value: couldn't add link between b and a: task b depends on a but a wasn't present in Pipeline: tasks"
    )]
    #[case(
        json!([{"name": "b", "params": [{"name": "p", "value": "$(tasks.a.results.r)"}]}]),
        "invalid value: couldn't add link between b and a: task b depends on a but a wasn't present in Pipeline: tasks"
    )]
    #[case(
        json!([{"name": "a", "runAfter": ["a"]}]),
        "invalid value: cycle detected; task \"a\" depends on \"a\": tasks"
    )]
    #[case(
        json!([
            {"name": "x", "runAfter": ["c"]},
            {"name": "a", "runAfter": ["c"]},
            {"name": "b", "runAfter": ["a"]},
            {"name": "c", "when": [{"input": "$(tasks.b.results.r)", "operator": "in", "values": ["v"]}]},
        ]),
        "invalid value: cycle detected; task \"a\" depends on \"c\" (\"a\" -> \"c\" -> \"b\" -> \"a\"): tasks"
    )]
    fn graphs(#[case] tasks: Value, #[case] text: &str) {
        let tasks: Vec<PipelineTask> = serde_json::from_value(tasks).unwrap();
        assert_eq!(validate(&tasks).to_string(), text);
    }

    /// As many tasks as one request can hold: no deep recursion, and no time with the square of their number.
    #[test]
    fn a_long_chain_is_looked_through_once() {
        let mut tasks: Vec<PipelineTask> =
            (0..30_000).map(|i| PipelineTask { name: i.to_string(), ..PipelineTask::default() }).collect();
        for (i, task) in tasks.iter_mut().enumerate().skip(1) {
            task.run_after.push((i - 1).to_string());
        }
        assert_eq!(validate(&tasks).to_string(), "");
        tasks[0].run_after.push("29999".into());
        assert!(validate(&tasks).to_string().contains("cycle detected"));
    }

    #[test]
    fn every_cycle_is_named() {
        let tasks: Vec<PipelineTask> = serde_json::from_value(json!([
            {"name": "a", "runAfter": ["b"]}, {"name": "b", "runAfter": ["a"]},
            {"name": "c", "runAfter": ["d"]}, {"name": "d", "runAfter": ["c"]},
        ]))
        .unwrap();
        let errors = validate(&tasks).merged();
        assert_eq!(errors.len(), 2);
    }
}
