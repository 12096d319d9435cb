//! The step template beneath a step (contract 1.2). Pure.

use std::collections::BTreeSet;

use crate::{Step, StepTemplate};

/// The step with its template's fields where it sets none of its own: `env` merges by name, `volumeMounts` by mount path,
/// anything else is taken whole. A step that refers to a StepAction stays as it is until that is resolved.
pub(crate) fn step_with_template(step: &Step, template: Option<&StepTemplate>) -> Step {
    let mut merged = step.clone();
    let Some(template) = template.filter(|_| step.step_ref.is_none()) else { return merged };
    let or = |own: &mut String, other: &String| {
        if own.is_empty() {
            own.clone_from(other);
        }
    };
    or(&mut merged.image, &template.image);
    or(&mut merged.working_dir, &template.working_dir);
    for (own, other) in [(&mut merged.command, &template.command), (&mut merged.args, &template.args)] {
        if own.is_empty() {
            own.clone_from(other);
        }
    }
    let own: BTreeSet<&str> = step.env.iter().map(|env| env.name.as_str()).collect();
    merged.env.extend(template.env.iter().filter(|env| !own.contains(env.name.as_str())).cloned());
    let own: BTreeSet<&str> = step.volume_mounts.iter().map(|mount| mount.mount_path.as_str()).collect();
    let mounts = template.volume_mounts.iter().filter(|mount| !own.contains(mount.mount_path.as_str()));
    merged.volume_mounts.extend(mounts.cloned());
    merged
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_step_wins() {
        let template: StepTemplate = serde_json::from_value(json!({
            "image": "template", "command": ["t"], "workingDir": "/t",
            "env": [{"name": "A", "value": "t"}, {"name": "B", "value": "t"}],
            "volumeMounts": [{"name": "t", "mountPath": "/m"}, {"name": "t", "mountPath": "/n"}],
        }))
        .unwrap();
        let step: Step = serde_json::from_value(json!({
            "name": "s", "image": "own",
            "env": [{"name": "A", "value": "own"}],
            "volumeMounts": [{"name": "own", "mountPath": "/m"}],
        }))
        .unwrap();
        assert_eq!(
            serde_json::to_value(step_with_template(&step, Some(&template))).unwrap(),
            json!({
                "name": "s", "image": "own", "command": ["t"], "workingDir": "/t",
                "env": [{"name": "A", "value": "own"}, {"name": "B", "value": "t"}],
                "volumeMounts": [{"name": "own", "mountPath": "/m"}, {"name": "t", "mountPath": "/n"}],
            })
        );
    }
}
