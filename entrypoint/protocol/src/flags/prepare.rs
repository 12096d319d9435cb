//! Flags of the pod's one init container. Pure.

use super::go::{Reader, push};
use super::script::{self, Script};
use super::{FlagError, PREPARE};

/// What must be in place before the first step: the binary, the links to the steps' status, the
/// scripts, the working directories. Every part may be absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrepareFlags {
    /// Where the binary copies itself to.
    pub copy_to: Option<String>,
    /// Container names of the steps, in order.
    pub steps: Vec<String>,
    /// Script files of steps and sidecars, each with a path of its own.
    pub scripts: Vec<Script>,
    /// Working directories to create; those outside the workspace are left alone.
    pub working_dirs: Vec<String>,
    /// Directory standing in for `/tekton`, outside pods.
    pub root: Option<String>,
    /// Directory standing in for `/workspace`, outside pods.
    pub workspace: Option<String>,
}

impl PrepareFlags {
    /// The arguments of the container.
    pub fn render(&self) -> Vec<String> {
        let mut out = vec![PREPARE.to_owned()];
        if let Some(root) = &self.root {
            push(&mut out, "-tekton_root", root);
        }
        if let Some(workspace) = &self.workspace {
            push(&mut out, "-workspace_root", workspace);
        }
        if let Some(copy_to) = &self.copy_to {
            push(&mut out, "-copy_to", copy_to);
        }
        for step in &self.steps {
            push(&mut out, "-step", step);
        }
        for script in &self.scripts {
            script.push(&mut out);
        }
        for dir in &self.working_dirs {
            push(&mut out, "-working_dir", dir);
        }
        out
    }

    pub(super) fn parse(args: &[String]) -> Result<Self, FlagError> {
        let mut flags = PrepareFlags::default();
        let mut reader = Reader::new(args);
        while let Some(flag) = reader.next_flag()? {
            match flag.name {
                "tekton_root" => flags.root = Some(reader.value(&flag)?.to_owned()),
                "workspace_root" => flags.workspace = Some(reader.value(&flag)?.to_owned()),
                "copy_to" => flags.copy_to = Some(reader.value(&flag)?.to_owned()),
                "step" => flags.steps.push(reader.value(&flag)?.to_owned()),
                "script" => script::read(&mut flags.scripts, reader.value(&flag)?)?,
                "working_dir" => flags.working_dirs.push(reader.value(&flag)?.to_owned()),
                other => return Err(FlagError::Unknown(other.to_owned())),
            }
        }
        match reader.rest().first() {
            Some(argument) => Err(FlagError::Unexpected(argument.clone())),
            None => Ok(flags),
        }
    }
}
