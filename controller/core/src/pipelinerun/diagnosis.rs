//! What a run's tasks wait for, and why those that failed could not run: gathered from the diagnoses of its children.
//! Pure.

use ropewalk_api::TaskRun;
use ropewalk_api::conditions::{self, Condition, ConditionStatus};

use super::facts::{Facts, Node};
use crate::diagnosis::{MAX_QUOTED, TYPE, cut};

/// Children told of at once. Those of a wide matrix wait for the same thing as a rule.
const MAX_CHILDREN: usize = 3;

/// The text of the run's diagnosis; none while no child has one.
pub(super) fn of(facts: &Facts<'_>) -> Option<String> {
    let children = facts.nodes.iter().flat_map(|node| node.children().map(move |child| (node, child)));
    let mut diagnosed = children.filter_map(|(node, child)| Some(sentence(node, child, diagnosis(child)?)));
    let mut sentences: Vec<String> = diagnosed.by_ref().take(MAX_CHILDREN).collect();
    if diagnosed.next().is_some() {
        // Not how many: the number would change with every one of them.
        sentences.push("and more".to_owned());
    }
    (!sentences.is_empty()).then(|| sentences.join("; "))
}

fn diagnosis(child: &TaskRun) -> Option<&Condition> {
    conditions::find(&child.status.as_ref()?.conditions, TYPE)
}

fn sentence(node: &Node<'_>, child: &TaskRun, diagnosis: &Condition) -> String {
    let waits = diagnosis.status == ConditionStatus::Unknown.as_str();
    format!(
        "task \"{}\" (TaskRun \"{}\") {}: {}",
        node.task.name,
        child.metadata.name.as_deref().unwrap_or_default(),
        if waits { "waits" } else { "failed" },
        cut(&diagnosis.message, MAX_QUOTED)
    )
}
