//! The kubelet's decisions as pure functions: which container of a pod starts next ([`machine`]), what its
//! environment ([`env`]), user ([`user`], [`account`]), volumes ([`volume`]) and OCI `config.json` ([`oci`]) are, what
//! of that its image says ([`image`]), and what the pod's status says ([`status`]).
//!
//! No IO here: no files, no clock (`now` is an argument), no randomness, no tokio. The shell that mounts, runs
//! and reports is `ropewalk_standalone::node`.

pub mod account;
pub mod env;
pub mod facts;
pub mod fields;
pub mod image;
pub mod isolation;
pub mod machine;
pub mod node;
pub mod objects;
pub mod oci;
pub mod resolver;
pub mod seccomp;
pub mod status;
pub mod storage;
pub mod user;
pub mod volume;

pub use facts::HostFacts;
pub use objects::{ConfigError, Objects};

/// The one image a node always has: a root file system that holds the injected binary at
/// [`ENTRYPOINT_PATH`] and nothing else.
pub const ENTRYPOINT_IMAGE: &str = "ropewalk.dev/entrypoint:embedded";

/// Where [`ENTRYPOINT_IMAGE`] keeps the injected binary.
pub const ENTRYPOINT_PATH: &str = "/entrypoint";

/// An image whose container exits 0 at once. A sidecar is stopped by giving it this image: the kubelet kills
/// the old container and the new one ends `Completed` (contract 5.7). No process is started for it.
pub const NOP_IMAGE: &str = "ropewalk.dev/nop:embedded";

/// What a pod's termination messages may hold together, in bytes (contract 5.6).
pub const TERMINATION_MESSAGES_PER_POD: usize = 12 * 1024;

/// What one container's termination message may hold, in bytes (contract 5.6).
pub const TERMINATION_MESSAGE_MAX: usize = 4096;

/// How many bytes of termination message each container of a pod with `containers` containers may report.
pub fn termination_message_limit(containers: usize) -> usize {
    (TERMINATION_MESSAGES_PER_POD / containers.max(1)).min(TERMINATION_MESSAGE_MAX)
}

#[cfg(test)]
mod tests {
    use super::termination_message_limit;

    #[test]
    fn termination_messages_share_twelve_kib() {
        for (containers, limit) in [(0, 4096), (1, 4096), (3, 4096), (4, 3072), (12, 1024)] {
            assert_eq!(termination_message_limit(containers), limit, "{containers} containers");
        }
    }
}
