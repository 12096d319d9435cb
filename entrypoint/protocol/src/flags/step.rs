//! Flags of a step's container. Pure.

use super::FlagError;
use super::credential::{Credential, CredentialKind};
use super::go::{Reader, bad, push};
use super::script::{self, Script};
use crate::duration::GoDuration;
use crate::gojson;
use crate::when::WhenExpression;

/// What happens to the task when the step's command fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// The step counts as successful, its exit code is recorded, the next step runs.
    Continue,
    /// The step and the task fail.
    StopAndFail,
}

impl OnError {
    /// The word used in specs and flags.
    pub fn as_str(self) -> &'static str {
        match self {
            OnError::Continue => "continue",
            OnError::StopAndFail => "stopAndFail",
        }
    }
}

/// What the entrypoint needs to know about one step.
///
/// Names in the lists contain no comma, as the lists are joined with one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepFlags {
    /// Files that must exist before the command starts.
    pub wait_files: Vec<String>,
    /// Wait until the files are not empty, too.
    pub wait_file_content: bool,
    /// File to create when done; on failure with the ending `.err`.
    pub post_file: String,
    /// File of the termination message.
    pub termination_path: String,
    /// Directory that gets `exitCode`, `results` and `artifacts`.
    pub step_metadata_dir: String,
    /// Secrets to lay out as credentials, in the order of the service account.
    pub credentials: Vec<Credential>,
    /// What a failing command means; absent is the same as [`OnError::StopAndFail`].
    pub on_error: Option<OnError>,
    /// Limit on the command's run time; none when absent or zero.
    pub timeout: Option<GoDuration>,
    /// File that gets a copy of the command's standard output.
    pub stdout_path: Option<String>,
    /// File that gets a copy of the command's standard error.
    pub stderr_path: Option<String>,
    /// Names of the step's own results.
    pub step_results: Vec<String>,
    /// Guards; the command runs only if all hold.
    pub when_expressions: Vec<WhenExpression>,
    /// Names of the task results to report; `None` when the task declares none.
    pub results: Option<Vec<String>>,
    /// Container names of all steps, in order; the step makes the links to their status itself. Empty when an init
    /// container did.
    pub steps: Vec<String>,
    /// Directories to make before anything runs, where they can be made.
    pub make_dirs: Vec<String>,
    /// Directory the command starts in, made if missing; absent when the container's own is right.
    pub working_dir: Option<String>,
    /// The step's script, unless an init container wrote it.
    pub script: Option<Script>,
    /// The command itself; absent when the image decides.
    pub entrypoint: Option<String>,
    /// Directory standing in for `/tekton`, outside pods.
    pub root: Option<String>,
    /// Rest of the command, and its arguments.
    pub args: Vec<String>,
}

impl StepFlags {
    /// The arguments of the container, in upstream's order; those upstream lacks stand before the command.
    pub fn render(&self) -> Vec<String> {
        let mut out = Vec::new();
        if !self.wait_files.is_empty() {
            push(&mut out, "-wait_file", &self.wait_files.join(","));
        }
        if self.wait_file_content {
            out.push("-wait_file_content".to_owned());
        }
        push(&mut out, "-post_file", &self.post_file);
        push(&mut out, "-termination_path", &self.termination_path);
        push(&mut out, "-step_metadata_dir", &self.step_metadata_dir);
        out.extend(self.credentials.iter().map(Credential::render));
        if let Some(on_error) = self.on_error {
            push(&mut out, "-on_error", on_error.as_str());
        }
        if let Some(timeout) = self.timeout {
            push(&mut out, "-timeout", &timeout.to_string());
        }
        if let Some(path) = &self.stdout_path {
            push(&mut out, "-stdout_path", path);
        }
        if let Some(path) = &self.stderr_path {
            push(&mut out, "-stderr_path", path);
        }
        if !self.step_results.is_empty() {
            push(&mut out, "-step_results", &self.step_results.join(","));
        }
        if !self.when_expressions.is_empty() {
            // Strings alone always encode. Two dashes, as upstream has them here and nowhere else.
            push(&mut out, "--when_expressions", &gojson::encode(&self.when_expressions).unwrap_or_default());
        }
        if let Some(results) = &self.results {
            push(&mut out, "-results", &results.join(","));
        }
        if let Some(root) = &self.root {
            push(&mut out, "-tekton_root", root);
        }
        if !self.steps.is_empty() {
            push(&mut out, "-steps", &self.steps.join(","));
        }
        for dir in &self.make_dirs {
            push(&mut out, "-make_dir", dir);
        }
        if let Some(dir) = &self.working_dir {
            push(&mut out, "-working_dir", dir);
        }
        if let Some(script) = &self.script {
            script.push(&mut out);
        }
        if let Some(entrypoint) = &self.entrypoint {
            push(&mut out, "-entrypoint", entrypoint);
        }
        out.push("--".to_owned());
        out.extend_from_slice(&self.args);
        out
    }

    pub(super) fn parse(args: &[String]) -> Result<Self, FlagError> {
        let (mut flags, mut scripts) = (StepFlags::default(), Vec::new());
        let mut reader = Reader::new(args);
        while let Some(flag) = reader.next_flag()? {
            match flag.name {
                "wait_file" => flags.wait_files = list(reader.value(&flag)?),
                "wait_file_content" => flags.wait_file_content = flag.boolean("wait_file_content")?,
                "post_file" => reader.value(&flag)?.clone_into(&mut flags.post_file),
                "termination_path" => reader.value(&flag)?.clone_into(&mut flags.termination_path),
                "step_metadata_dir" => reader.value(&flag)?.clone_into(&mut flags.step_metadata_dir),
                "on_error" => flags.on_error = Some(on_error(reader.value(&flag)?)?),
                "timeout" => flags.timeout = Some(timeout(reader.value(&flag)?)?),
                "stdout_path" => flags.stdout_path = Some(reader.value(&flag)?.to_owned()),
                "stderr_path" => flags.stderr_path = Some(reader.value(&flag)?.to_owned()),
                "step_results" => flags.step_results = list(reader.value(&flag)?),
                "when_expressions" => flags.when_expressions = when_expressions(reader.value(&flag)?)?,
                "results" => flags.results = Some(list(reader.value(&flag)?)),
                "tekton_root" => flags.root = Some(reader.value(&flag)?.to_owned()),
                "steps" => flags.steps = list(reader.value(&flag)?),
                "make_dir" => flags.make_dirs.push(reader.value(&flag)?.to_owned()),
                "working_dir" => flags.working_dir = Some(reader.value(&flag)?.to_owned()),
                "script" => script::read(&mut scripts, reader.value(&flag)?)?,
                "entrypoint" => flags.entrypoint = Some(reader.value(&flag)?.to_owned()),
                other => {
                    let kind = CredentialKind::of_flag(other);
                    let kind = kind.ok_or_else(|| FlagError::Unknown(other.to_owned()))?;
                    flags.credentials.push(Credential::read(kind, reader.value(&flag)?)?);
                }
            }
        }
        flags.script = script::at_most_one(scripts)?;
        flags.args = reader.rest().to_vec();
        Ok(flags)
    }
}

fn list(value: &str) -> Vec<String> {
    value.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn on_error(value: &str) -> Result<OnError, FlagError> {
    [OnError::Continue, OnError::StopAndFail]
        .into_iter()
        .find(|known| known.as_str() == value)
        .ok_or_else(|| bad("on_error", value, &"expected \"continue\" or \"stopAndFail\""))
}

fn timeout(value: &str) -> Result<GoDuration, FlagError> {
    value.parse().map_err(|error| bad("timeout", value, &error))
}

fn when_expressions(value: &str) -> Result<Vec<WhenExpression>, FlagError> {
    serde_json::from_str(value).map_err(|error| bad("when_expressions", value, &error))
}
