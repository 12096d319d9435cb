//! The images of a node: what a reference means here, and which of them are in use.

use std::path::Path;

use ropewalk_images::{Image, Limits, Reference, Store, StoreError};
use ropewalk_kubelet::image::{ImageConfig, ImageError, Origin, PullPolicy, Source, source};
use tokio::task::spawn_blocking;

use super::NodeError;

/// The images, which other processes may use at the same time.
#[derive(Clone)]
pub(super) struct Images {
    store: Store,
}

impl Images {
    pub(super) fn open(directory: &Path) -> Result<Self, NodeError> {
        Store::open(directory, Limits::default()).map(|store| Self { store }).map_err(NodeError::Images)
    }

    /// The image that a reference means now, pulled first if the policy asks for it.
    pub(super) async fn get(&self, reference: &str, policy: PullPolicy) -> Result<Image, ImageError> {
        let name: Result<Reference, _> = reference.parse();
        name.map_err(|error| ImageError::Name { image: reference.to_owned(), detail: error.to_string() })?;
        let failed = |detail: String| ImageError::Pull { image: reference.to_owned(), detail };
        let (store, wanted) = (self.store.clone(), reference.to_owned());
        let here = spawn_blocking(move || store.find(&wanted)).await;
        let here = here.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(chain(&error)))?;
        match (source(policy, here.as_ref().map(|_| Origin::Loaded)), here) {
            (Source::Here, Some(image)) => Ok(image),
            (Source::Nowhere, _) => Err(ImageError::NeverPull(reference.to_owned())),
            _ => Err(failed("it is not here; load it with \"ropewalk image load\"".to_owned())),
        }
    }

    /// Keeps an image from being removed for as long as there is something at the path. Blocks.
    pub(super) fn hold(&self, image: &Image, user: &Path) -> Result<(), ImageError> {
        self.store
            .hold(image, user)
            .map_err(|error| ImageError::Pull { image: image.reference.clone(), detail: chain(&error) })
    }
}

/// What an image says, in the words of the kubelet.
pub(super) fn config(image: &Image) -> ImageConfig {
    let config = image.config.clone();
    ImageConfig {
        env: config.env,
        user: config.user,
        entrypoint: config.entrypoint,
        cmd: config.cmd,
        working_dir: config.working_dir,
        stop_signal: config.stop_signal.unwrap_or_default(),
    }
}

fn chain(error: &StoreError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
