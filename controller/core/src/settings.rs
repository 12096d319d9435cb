//! What one process is told at start-up and never changes.

/// Images and identity of this engine, and what the cluster can do. The default is that of the one process that is
/// everything.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The image of the `prepare` container; holds the entrypoint at [`Settings::entrypoint_path`].
    pub entrypoint_image: String,
    /// The entrypoint's path in its image.
    pub entrypoint_path: String,
    /// Whether the cluster's nodes mount images as volumes. No pod has an init container then: the entrypoint comes as
    /// a volume, and each container does for itself what `prepare` does otherwise.
    pub image_volumes: bool,
    /// An image whose container exits 0 at once; running sidecars are stopped by switching to it.
    pub nop_image: String,
    /// The release written into `pipeline.tekton.dev/release`.
    pub release: String,
    /// The `managedBy` value this engine serves besides the empty one.
    pub managed_by: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            entrypoint_image: "ropewalk.dev/entrypoint:embedded".to_owned(),
            entrypoint_path: "/entrypoint".to_owned(),
            image_volumes: true,
            nop_image: "ropewalk.dev/nop:embedded".to_owned(),
            release: env!("CARGO_PKG_VERSION").to_owned(),
            managed_by: "tekton.dev/pipeline".to_owned(),
        }
    }
}
