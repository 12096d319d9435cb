//! The commands that images bring with them, for steps that have neither command nor script (contract 5.4). Pure: what
//! registries say comes in with the snapshot, and a plan names the images that are still to be asked for.

pub mod keyring;
pub mod manifest;
pub mod reference;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::ser::{Serialize, SerializeMap, Serializer};

/// The variable in which a step's container finds the commands of its image, by platform.
pub const PLATFORM_COMMANDS: &str = "TEKTON_PLATFORM_COMMANDS";

/// An image whose own command has to be known before the pod can be made, and whose credentials may be used to ask.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Wanted {
    /// As the step has it, after substitution.
    pub image: String,
    /// The run's.
    pub namespace: String,
    /// The service account of the pod.
    pub service_account: String,
    /// `imagePullSecrets` of the pod, by name.
    pub pull_secrets: Vec<String>,
}

/// How far the look-up of one image is.
#[derive(Clone, Debug, PartialEq)]
pub enum Lookup {
    /// Its registry is being asked.
    Pending {
        /// When the run began to wait.
        since: Timestamp,
        /// Why it did not work so far.
        problem: Option<String>,
    },
    /// This is the image.
    Found(Image),
    /// There is no use in asking again: why, and what to do about it.
    Failed(String),
}

/// An image as its registry has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// `<repository>@<digest>`, of the index when there is one, so that every node takes its own platform from it.
    pub reference: String,
    /// What it runs.
    pub commands: Arc<Commands>,
}

/// What an image runs, by platform: `os/arch` or `os/arch/variant`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Commands(pub BTreeMap<String, Command>);

/// What an image runs on one platform.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Command {
    /// `ENTRYPOINT`
    pub entrypoint: Vec<String>,
    /// `CMD`
    pub cmd: Vec<String>,
}

impl Command {
    /// Nothing to run.
    pub fn is_empty(&self) -> bool {
        self.entrypoint.is_empty() && self.cmd.is_empty()
    }

    /// The words before a step's own arguments: those replace CMD, but not where CMD names the program.
    fn words(&self, step_has_args: bool) -> impl Iterator<Item = &String> {
        let with_cmd = self.entrypoint.is_empty() || !step_has_args;
        self.entrypoint.iter().chain(self.cmd.iter().filter(move |_| with_cmd))
    }
}

impl Commands {
    /// The value of [`PLATFORM_COMMANDS`]: JSON, with every `$` escaped because kubelets expand `$(...)` in values.
    pub fn render(&self, step_has_args: bool) -> String {
        // A map of strings always serializes.
        let json = serde_json::to_string(&Rendered { commands: self, step_has_args }).unwrap_or_default();
        json.replace('$', "\\u0024")
    }
}

struct Rendered<'a> {
    commands: &'a Commands,
    step_has_args: bool,
}

impl Serialize for Rendered<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.commands.0.len()))?;
        for (platform, command) in &self.commands.0 {
            map.serialize_entry(platform, &command.words(self.step_has_args).collect::<Vec<_>>())?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[rstest]
    #[case(&["/e", "-x"], &["c"], false, r#"{"linux/amd64":["/e","-x","c"]}"#)]
    #[case(&["/e", "-x"], &["c"], true, r#"{"linux/amd64":["/e","-x"]}"#)]
    #[case(&["/e"], &[], false, r#"{"linux/amd64":["/e"]}"#)]
    #[case(&[], &["/c", "d"], false, r#"{"linux/amd64":["/c","d"]}"#)]
    #[case(&[], &["/c", "d"], true, r#"{"linux/amd64":["/c","d"]}"#)]
    #[case(&[], &[], true, r#"{"linux/amd64":[]}"#)]
    #[case(&["sh", "-c", "echo $(HOME) $$"], &[], true, r#"{"linux/amd64":["sh","-c","echo \u0024(HOME) \u0024\u0024"]}"#)]
    fn a_steps_arguments_take_the_place_of_cmd(
        #[case] entrypoint: &[&str],
        #[case] cmd: &[&str],
        #[case] step_has_args: bool,
        #[case] expected: &str,
    ) {
        let command = Command { entrypoint: words(entrypoint), cmd: words(cmd) };
        let commands = Commands(BTreeMap::from([("linux/amd64".to_owned(), command)]));
        assert_eq!(commands.render(step_has_args), expected);
    }
}
