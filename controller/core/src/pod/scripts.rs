//! Scripts of steps and sidecars as files (contract 5.2).

use ropewalk_api::TaskSpec;
use ropewalk_api::names::short_hash;
use ropewalk_entrypoint_protocol::flags::Script;
use ropewalk_entrypoint_protocol::paths;

use super::PodError;

/// The file each step and each sidecar runs, where it has a script.
pub(super) struct Placed {
    steps: Vec<Option<Script>>,
    sidecars: Vec<Option<Script>>,
}

impl Placed {
    /// The script of the step at this index.
    pub(super) fn of_step(&self, index: usize) -> Option<&Script> {
        self.steps.get(index)?.as_ref()
    }

    /// The script of the sidecar at this index.
    pub(super) fn of_sidecar(&self, index: usize) -> Option<&Script> {
        self.sidecars.get(index)?.as_ref()
    }

    /// The indexes of the sidecars that have a script.
    pub(super) fn sidecars(&self) -> impl Iterator<Item = usize> {
        self.sidecars.iter().enumerate().filter(|(_, script)| script.is_some()).map(|(index, _)| index)
    }

    /// All files, steps first.
    pub(super) fn files(&self) -> Vec<Script> {
        self.steps.iter().chain(&self.sidecars).flatten().cloned().collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.steps.iter().chain(&self.sidecars).flatten().next().is_none()
    }
}

/// Gives every script its file. The name carries a hash of the text, so that the same run always has the same pod.
pub(super) fn place(spec: &TaskSpec) -> Result<Placed, PodError> {
    let steps = spec
        .steps
        .iter()
        .enumerate()
        .map(|(index, step)| file("script", index, &step.name, &step.script))
        .collect::<Result<_, _>>()?;
    let sidecars = spec
        .sidecars
        .iter()
        .enumerate()
        .map(|(index, sidecar)| file("sidecar-script", index, &sidecar.name, &sidecar.script))
        .collect::<Result<_, _>>()?;
    Ok(Placed { steps, sidecars })
}

fn file(kind: &str, index: usize, owner: &str, script: &str) -> Result<Option<Script>, PodError> {
    if script.is_empty() {
        return Ok(None);
    }
    let trimmed = script.trim_start();
    if trimmed.starts_with("#!win") {
        return Err(PodError::WindowsScript(owner.to_owned()));
    }
    // A kernel honours a shebang in the first two bytes only, so blanks before one go.
    let content =
        if trimmed.starts_with("#!") { trimmed.to_owned() } else { format!("#!/bin/sh\nset -e\n{script}") };
    let path = format!("{}/{kind}-{index}-{}", paths::SCRIPTS, short_hash(&content, 5));
    Ok(Some(Script { path, content }))
}
