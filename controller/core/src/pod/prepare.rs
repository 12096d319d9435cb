//! The one init container (contract 5.2, there three), for clusters whose nodes do not mount images as volumes.

use k8s_openapi::api::core::v1::{Capabilities, Container, SeccompProfile, SecurityContext};
use ropewalk_api::Step;
use ropewalk_api::config::Config;
use ropewalk_entrypoint_protocol::flags::PrepareFlags;
use ropewalk_entrypoint_protocol::paths;

use super::scripts::Placed;
use super::{PREPARE, step, step_containers, volumes};
use crate::settings::Settings;

/// The container; `steps` have their template beneath them.
pub(super) fn container(steps: &[Step], scripts: &Placed, config: &Config, settings: &Settings) -> Container {
    let working_dirs = step::working_dirs(steps);
    let mounts = volumes::of_prepare(!scripts.is_empty(), !working_dirs.is_empty());
    let flags = PrepareFlags {
        copy_to: Some(paths::ENTRYPOINT.to_owned()),
        steps: step_containers(steps),
        scripts: scripts.files(),
        working_dirs: working_dirs.iter().map(|dir| step::literal(dir)).collect(),
        ..PrepareFlags::default()
    };
    Container {
        name: PREPARE.to_owned(),
        image: Some(settings.entrypoint_image.clone()),
        command: Some(vec![settings.entrypoint_path.clone()]),
        args: Some(flags.render()),
        working_dir: Some("/".to_owned()),
        volume_mounts: Some(mounts),
        security_context: config.features.set_security_context.then(restricted),
        ..Container::default()
    }
}

/// What the "restricted" Pod Security Standard asks of a container (contract 5.2).
fn restricted() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
        run_as_non_root: Some(true),
        seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
        ..SecurityContext::default()
    }
}
