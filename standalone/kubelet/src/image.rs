//! What a container takes from its image, and whether the image is to be pulled first. No IO.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Container;

use crate::env;

/// What an image says about containers that are made from it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ImageConfig {
    /// `NAME=VALUE`, in order.
    pub env: Vec<String>,
    /// `USER` or `USER:GROUP`, names or numbers; empty for root.
    pub user: String,
    /// The program and its first arguments.
    pub entrypoint: Vec<String>,
    /// Further arguments, or the program of images without `entrypoint`.
    pub cmd: Vec<String>,
    /// Absolute, or empty for `/`.
    pub working_dir: String,
    /// Paths that get a volume of the container's own, with what the image has there.
    pub volumes: Vec<String>,
    /// Name or number of the signal that asks its process to end; empty for TERM.
    pub stop_signal: String,
}

/// The words a container executes: its `command` takes the place of the image's entrypoint and cmd, its `args` only of
/// cmd. What the image says is not expanded.
pub fn command(
    container: &Container,
    config: &ImageConfig,
    variables: &BTreeMap<String, String>,
) -> Vec<String> {
    let expand = |words: &Option<Vec<String>>| -> Vec<String> {
        words.iter().flatten().map(|word| env::expand(word, variables)).collect()
    };
    let (command, args) = (expand(&container.command), expand(&container.args));
    if !command.is_empty() {
        [command, args].concat()
    } else if !args.is_empty() {
        [config.entrypoint.clone(), args].concat()
    } else {
        [config.entrypoint.clone(), config.cmd.clone()].concat()
    }
}

/// When an image is pulled.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PullPolicy {
    /// Each time: what is here may be outdated.
    Always,
    /// When it is not here.
    IfNotPresent,
    /// Not at all.
    Never,
}

impl PullPolicy {
    /// The given policy, or Kubernetes' default: tags that say "the newest" are asked for each time.
    pub fn of(given: Option<&str>, image: &str) -> Self {
        match given {
            Some("Always") => Self::Always,
            Some("Never") => Self::Never,
            Some("IfNotPresent") => Self::IfNotPresent,
            _ if image.contains('@') => Self::IfNotPresent,
            _ => match image.rsplit_once(':') {
                // A colon before a slash belongs to the registry's port.
                Some((_, tag)) if !tag.contains('/') && tag != "latest" => Self::IfNotPresent,
                _ => Self::Always,
            },
        }
    }
}

/// How an image came here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Origin {
    /// From the registry that its name says.
    Pulled,
    /// From a file, by hand.
    Loaded,
}

/// Where an image is taken from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Source {
    /// It is here and may be used as it is.
    Here,
    /// Its registry is asked first.
    Registry,
    /// It is not here and may not be pulled.
    Nowhere,
}

/// Where an image is taken from, `here` saying how it came if it is.
///
/// One that was loaded is never looked for in a registry: whoever loaded it under that name meant this one. No registry
/// may know it, and one that does may have something of somebody else's under that name.
pub fn source(policy: PullPolicy, here: Option<Origin>) -> Source {
    match (policy, here) {
        (_, Some(Origin::Loaded)) | (PullPolicy::IfNotPresent | PullPolicy::Never, Some(Origin::Pulled)) => {
            Source::Here
        }
        (PullPolicy::Never, None) => Source::Nowhere,
        (PullPolicy::Always, Some(Origin::Pulled))
        | (PullPolicy::Always | PullPolicy::IfNotPresent, None) => Source::Registry,
    }
}

/// Why an image cannot be had. The text is the kubelet's own, which users search for.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ImageError {
    /// Its name is none.
    #[error("Failed to apply default image tag \"{image}\": couldn't parse image name \"{image}\": {detail}")]
    Name {
        /// The reference.
        image: String,
        /// What is wrong with it.
        detail: String,
    },
    /// It is not here.
    #[error("Container image \"{0}\" is not present with pull policy of Never")]
    NeverPull(String),
    /// Its registry did not give it.
    #[error("{detail}")]
    Pull {
        /// The reference.
        image: String,
        /// In the registry's or our words.
        detail: String,
    },
}

impl ImageError {
    /// `state.waiting.reason`.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Name { .. } => "InvalidImageName",
            Self::NeverPull(_) => "ErrImageNeverPull",
            Self::Pull { .. } => ERR_IMAGE_PULL,
        }
    }
}

/// The reason of a container whose image was just asked for in vain.
pub const ERR_IMAGE_PULL: &str = "ErrImagePull";

/// The reason of a container whose image will be asked for again later.
pub const IMAGE_PULL_BACK_OFF: &str = "ImagePullBackOff";

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn command_and_args_against_entrypoint_and_cmd() {
        let both =
            ImageConfig { entrypoint: words(&["/e", "$(A)"]), cmd: words(&["c"]), ..Default::default() };
        let cmd_only = ImageConfig { cmd: words(&["/c", "d"]), ..Default::default() };
        let neither = ImageConfig::default();
        let variables = [("A".to_owned(), "1".to_owned())].into();
        for (image, command_, args, expected) in [
            (&both, json!(null), json!(null), &["/e", "$(A)", "c"][..]),
            (&both, json!(null), json!(["x", "$(A)"]), &["/e", "$(A)", "x", "1"]),
            (&both, json!(["/k"]), json!(null), &["/k"]),
            (&both, json!(["/k", "$$(A)"]), json!(["x"]), &["/k", "$(A)", "x"]),
            (&both, json!([]), json!([]), &["/e", "$(A)", "c"]),
            (&cmd_only, json!(null), json!(null), &["/c", "d"]),
            (&cmd_only, json!(null), json!(["x"]), &["x"]),
            (&cmd_only, json!(["/k"]), json!(null), &["/k"]),
            (&neither, json!(null), json!(null), &[]),
            (&neither, json!(["/k"]), json!(["x"]), &["/k", "x"]),
        ] {
            let container: Container =
                serde_json::from_value(json!({"name": "c", "command": command_, "args": args}))
                    .expect("a container");
            assert_eq!(command(&container, image, &variables), words(expected), "{command_} {args}");
        }
    }

    #[test]
    fn the_default_policy_follows_the_tag() {
        use PullPolicy::{Always, IfNotPresent, Never};
        for (given, image, expected) in [
            (None, "app", Always),
            (None, "app:latest", Always),
            (None, "app:1", IfNotPresent),
            (None, "r.example:5000/app", Always),
            (None, "r.example:5000/app:latest", Always),
            (None, "r.example:5000/app:v1", IfNotPresent),
            (None, "app@sha256:00", IfNotPresent),
            (None, "app:latest@sha256:00", IfNotPresent),
            (Some(""), "app", Always),
            (Some("Never"), "app", Never),
            (Some("IfNotPresent"), "app:latest", IfNotPresent),
            (Some("Always"), "app:1", Always),
        ] {
            assert_eq!(PullPolicy::of(given, image), expected, "{given:?} {image}");
        }
    }

    #[test]
    fn where_an_image_comes_from() {
        use Origin::{Loaded, Pulled};
        use PullPolicy::{Always, IfNotPresent, Never};
        for (policy, here, expected) in [
            (Always, None, Source::Registry),
            (Always, Some(Pulled), Source::Registry),
            (Always, Some(Loaded), Source::Here),
            (IfNotPresent, None, Source::Registry),
            (IfNotPresent, Some(Pulled), Source::Here),
            (IfNotPresent, Some(Loaded), Source::Here),
            (Never, None, Source::Nowhere),
            (Never, Some(Pulled), Source::Here),
            (Never, Some(Loaded), Source::Here),
        ] {
            assert_eq!(source(policy, here), expected, "{policy:?} {here:?}");
        }
    }
}
