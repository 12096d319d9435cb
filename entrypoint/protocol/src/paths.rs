//! The files and directories every step sees (contract 5.2 to 5.5). Pure: names only.

/// Root of the layout.
pub const ROOT: &str = "/tekton";
/// One directory per step, `<i>/out` and `<i>/status` in it.
pub const RUN_DIR: &str = "/tekton/run";
/// Directory of the entrypoint binary.
pub const BIN: &str = "/tekton/bin";
/// The entrypoint binary: the command of every step container.
pub const ENTRYPOINT: &str = "/tekton/bin/entrypoint";
/// Script files of steps and sidecars.
pub const SCRIPTS: &str = "/tekton/scripts";
/// Links `<container>` and `<i>` to each step's status directory.
pub const STEPS: &str = "/tekton/steps";
/// Task results, one file each.
pub const RESULTS: &str = "/tekton/results";
/// Artifact provenance of the task.
pub const ARTIFACTS: &str = "/tekton/artifacts";
/// `terminationMessagePath` of every step.
pub const TERMINATION: &str = "/tekton/termination";
/// Directory of the downward API volume.
pub const DOWNWARD: &str = "/tekton/downward";
/// Non-empty once the sidecars are ready; what the first step waits for.
pub const DOWNWARD_READY: &str = "/tekton/downward/ready";
/// Credentials of the step.
pub const CREDS: &str = "/tekton/creds";
/// Directory of the secrets that become credentials, each in a directory of its name.
pub const CREDS_SECRETS: &str = "/tekton/creds-secrets";
/// An empty directory steps may use as HOME.
pub const HOME: &str = "/tekton/home";
/// Working directory of steps that name none, and parent of default workspace mounts.
pub const WORKSPACE: &str = "/workspace";

/// Ending of the post file of a step that failed or was skipped because an earlier one failed.
pub const ERR_SUFFIX: &str = ".err";
/// Directory of step results inside a status directory.
pub const STEP_RESULTS: &str = "results";
/// Directory of step artifacts inside a status directory.
pub const STEP_ARTIFACTS: &str = "artifacts";
/// File with the step's exit code inside a status directory.
pub const EXIT_CODE: &str = "exitCode";

/// Directory of step `index` (0-based) that only this step can write to.
pub fn run_dir(index: usize) -> String {
    format!("{RUN_DIR}/{index}")
}

/// File step `index` creates when it is done; the next step waits for it.
pub fn run_out(index: usize) -> String {
    format!("{RUN_DIR}/{index}/out")
}

/// Directory in which the step's container finds the keys of `secret`.
pub fn creds_secret(secret: &str) -> String {
    format!("{CREDS_SECRETS}/{secret}")
}

/// Directory with exit code, results and artifacts of step `index`.
pub fn status_dir(index: usize) -> String {
    format!("{RUN_DIR}/{index}/status")
}

/// File of the task result `name`.
pub fn result(name: &str) -> String {
    format!("{RESULTS}/{name}")
}

/// File of the result `name` of the step run by `container` (`step-<name>`).
pub fn step_result(container: &str, name: &str) -> String {
    format!("{STEPS}/{container}/{STEP_RESULTS}/{name}")
}

/// File with the exit code of the step run by `container` (`step-<name>`).
pub fn step_exit_code(container: &str) -> String {
    format!("{STEPS}/{container}/{EXIT_CODE}")
}
