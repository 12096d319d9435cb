use proptest::prelude::*;
use ropewalk_api::{Param, PipelineTask};

use super::*;

fn task(name: &str, run_after: &[&str]) -> PipelineTask {
    PipelineTask {
        name: name.to_owned(),
        run_after: run_after.iter().map(|&name| name.to_owned()).collect(),
        ..PipelineTask::default()
    }
}

#[test]
fn ties_are_broken_by_spec_order() {
    let dag = Dag::new(&[task("z", &["b"]), task("y", &[]), task("b", &[])]).expect("a graph");
    assert_eq!(dag.order(), [1, 2, 0]);
    assert_eq!(dag.parents(0).collect::<Vec<_>>(), [2]);
    assert_eq!(dag.children(2).collect::<Vec<_>>(), [0]);
}

#[test]
fn results_make_edges() {
    let mut reader = task("reader", &[]);
    reader.params.push(Param { name: "p".into(), value: "x $(tasks.writer.results.r) y".into() });
    let dag = Dag::new(&[reader, task("writer", &[])]).expect("a graph");
    assert_eq!(dag.parents(0).collect::<Vec<_>>(), [1]);
}

#[test]
fn errors_name_the_tasks() {
    let text = |tasks: &[PipelineTask]| Dag::new(tasks).expect_err("no graph").to_string();
    assert_eq!(text(&[task("a", &["b"]), task("b", &["a"])]), r#"cycle detected; task "a" depends on "b""#);
    assert_eq!(
        text(&[task("d", &["a"]), task("a", &["b"]), task("b", &["c"]), task("c", &["a"])]),
        r#"cycle detected; task "a" depends on "b" ("a" -> "b" -> "c" -> "a")"#
    );
    assert_eq!(text(&[task("a", &["a"])]), r#"cycle detected; task "a" depends on "a""#);
    assert_eq!(
        text(&[task("b", &["a"])]),
        "couldn't add link between b and a: task b depends on a but a wasn't present in Pipeline"
    );
    assert_eq!(text(&[task("a", &[]), task("a", &[])]), r#"duplicate pipeline task "a""#);
}

#[test]
fn a_long_chain_is_no_deep_recursion() {
    let names: Vec<String> = (0..50_000).map(|i| format!("t{i}")).collect();
    let mut tasks: Vec<PipelineTask> = names.iter().map(|name| task(name, &[])).collect();
    for i in 1..tasks.len() {
        tasks[i].run_after.push(names[i - 1].clone());
    }
    assert_eq!(Dag::new(&tasks).expect("a graph").order().len(), 50_000);
    tasks[0].run_after.push(names[49_999].clone());
    assert!(matches!(Dag::new(&tasks), Err(DagError::Cycle { path }) if path.len() == 50_001));
}

proptest! {
    /// Any set of edges is either ordered with every task after its parents, or refused with a cycle that is there.
    #[test]
    fn orders_or_finds_a_cycle(size in 1_usize..12, edges in prop::collection::vec((0_usize..12, 0_usize..12), 0..30)) {
        let mut tasks: Vec<PipelineTask> = (0..size).map(|i| task(&i.to_string(), &[])).collect();
        for (from, to) in edges {
            tasks[from % size].run_after.push((to % size).to_string());
        }
        match Dag::new(&tasks) {
            Ok(dag) => {
                let mut sorted = dag.order().to_vec();
                sorted.sort_unstable();
                prop_assert_eq!(sorted, (0..size).collect::<Vec<_>>());
                let place = |task: usize| dag.order().iter().position(|other| *other == task);
                for (task, spec) in tasks.iter().enumerate() {
                    for parent in &spec.run_after {
                        prop_assert!(place(parent.parse().expect("a position")) < place(task));
                    }
                }
            }
            Err(DagError::Cycle { path }) => {
                prop_assert!(path.len() > 1 && path.first() == path.last());
                for pair in path.windows(2) {
                    let waiting: usize = pair[0].parse().expect("a position");
                    prop_assert!(tasks[waiting].run_after.contains(&pair[1]));
                }
            }
            Err(other) => prop_assert!(false, "{other}"),
        }
    }

    /// Edges that only lead back in spec order can never be refused.
    #[test]
    fn no_cycle_is_made_up(edges in prop::collection::vec((0_usize..20, 0_usize..20), 0..60)) {
        let mut tasks: Vec<PipelineTask> = (0..20).map(|i| task(&i.to_string(), &[])).collect();
        for (a, b) in edges {
            if a != b {
                tasks[a.max(b)].run_after.push(a.min(b).to_string());
            }
        }
        prop_assert!(Dag::new(&tasks).is_ok());
    }
}
