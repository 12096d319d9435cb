//! Waiting for what registries say of images whose own command a step runs (contract 5.4).

use std::collections::BTreeSet;

use ropewalk_api::conditions::ConditionStatus;

use super::creation::store;
use super::draft::Draft;
use super::reason;
use super::resolve::Resolved;
use super::waiting::QUIET;
use crate::images::{Lookup, Wanted};
use crate::pod;

/// The Task with its images looked up, or `None` while registries are being asked. Where nobody asks them, the Task as
/// it is.
pub(super) fn find(draft: &mut Draft<'_>, mut resolved: Resolved) -> Option<Resolved> {
    let Some(known) = &draft.snapshot.images else { return Some(resolved) };
    let images = pod::bare_images(&resolved.spec);
    let is_answered = |image: &String| matches!(known.get(image), Some(Lookup::Found(_) | Lookup::Failed(_)));
    if images.iter().all(is_answered) {
        let answers = images.into_iter().filter_map(|image| known.get(&image).map(|it| (image, it.clone())));
        resolved.images = answers.collect();
        if !resolved.images.is_empty() {
            // What it said while it waited.
            draft.diagnose(ConditionStatus::Unknown, None);
        }
        return Some(resolved);
    }
    draft.images = wanted(draft, &images, &resolved);
    let mut said = Vec::new();
    for image in &images {
        let text = match known.get(image) {
            Some(Lookup::Found(_) | Lookup::Failed(_)) => continue,
            None | Some(Lookup::Pending { problem: None, .. }) => {
                format!("asking the registry of image \"{image}\" for its entrypoint")
            }
            Some(Lookup::Pending { problem: Some(problem), .. }) => {
                format!("asking again for the entrypoint of image \"{image}\": {problem}")
            }
        };
        draft.wait(image, text.clone());
        if let Some(Lookup::Pending { since, .. }) = known.get(image) {
            let speaks = since.saturating_add(QUIET).unwrap_or(*since);
            if speaks <= draft.snapshot.now {
                said.push(text);
            } else {
                draft.look_at(speaks);
            }
        }
    }
    if !said.is_empty() {
        store(draft, resolved);
        if draft.condition().is_none() {
            draft.going_on(reason::STARTED, "");
        }
        draft.diagnose(ConditionStatus::Unknown, Some(&said.join("; ")));
    }
    None
}

fn wanted(draft: &Draft<'_>, images: &BTreeSet<String>, resolved: &Resolved) -> Vec<Wanted> {
    let template = resolved.pod_template.as_ref();
    let pull_secrets: Vec<String> = template
        .iter()
        .flat_map(|template| &template.image_pull_secrets)
        .map(|secret| secret.name.clone())
        .collect();
    let service_account = pod::service_account(&draft.snapshot.run, &draft.snapshot.config);
    let wanted = |image: &String| Wanted {
        image: image.clone(),
        namespace: draft.namespace().to_owned(),
        service_account: service_account.clone(),
        pull_secrets: pull_secrets.clone(),
    };
    images.iter().map(wanted).collect()
}
