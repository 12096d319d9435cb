//! The images of a node: what a reference means here, and which of them are in use.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use ropewalk_api::errors::chain;
use ropewalk_controller::{Local, pull_secrets};
use ropewalk_core::diagnosis::quoted;
use ropewalk_core::images::{self, Command, Commands, Wanted, keyring};
use ropewalk_images::{Image, Limits, Origin, Reference, Store};
use ropewalk_kubelet::image::{self as rules, ImageConfig, ImageError, PullPolicy, Source};
use ropewalk_kubelet::machine::{Event, Pull};
use ropewalk_pull::{Progress, Puller, machine};
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;

use super::{NodeConfig, NodeError};

/// The pulls that are under way: how far each is, by the image as pods name it.
pub type Pulls = BTreeMap<String, Progress>;

/// The images, which other processes may use at the same time.
#[derive(Clone)]
pub(super) struct Images {
    client: Client,
    store: Store,
    puller: Puller,
    /// Credentials of this machine, besides those of pods.
    credentials: Option<Arc<Path>>,
    pulls: watch::Sender<Pulls>,
    /// Bytes of data beyond which pulled images go that nothing runs with.
    room: u64,
}

impl Images {
    /// Opens a node's images. Blocks.
    pub(super) fn open(client: Client, config: &NodeConfig) -> Result<Self, NodeError> {
        let store = Store::open(&config.images, Limits::default()).map_err(NodeError::Images)?;
        let puller = Puller::new(store.clone(), ropewalk_pull::registries(config.registries.clone()));
        let credentials = machine::file(|name| std::env::var_os(name)).map(Arc::from);
        let (pulls, room) = (config.pulls.clone(), config.image_bytes);
        Ok(Self { client, store, puller, credentials, pulls, room })
    }

    /// The image that a reference of the pod means now, pulled first if the policy asks for it, which `events` hears of. A
    /// pull goes on for as long as somebody waits for it.
    pub(super) async fn get(
        &self,
        pod: &Pod,
        reference: &str,
        policy: PullPolicy,
        events: &mpsc::Sender<Event>,
    ) -> Result<Image, ImageError> {
        let invalid = |detail: String| ImageError::Name { image: reference.to_owned(), detail };
        let name: Reference = reference.parse().map_err(|error| invalid(chain(&error)))?;
        // What a registry sent is quoted in there, which may be anything.
        let failed =
            |detail: String| ImageError::Pull { image: reference.to_owned(), detail: quoted(&detail) };
        let (store, wanted) = (self.store.clone(), reference.to_owned());
        let here = spawn_blocking(move || store.find(&wanted)).await;
        let here = here.map_err(|error| failed(chain(&error)))?.map_err(|error| failed(chain(&error)))?;
        let tell = async |pull| {
            // Fails only when the pod's task has ended, and then nobody is interested.
            let _ = events.send(Event::Pull { image: reference.to_owned(), pull }).await;
        };
        match (rules::source(policy, here.as_ref().map(origin)), here) {
            (Source::Here, Some(image)) => {
                tell(Pull::Unneeded).await;
                Ok(image)
            }
            (Source::Nowhere, _) => Err(ImageError::NeverPull(reference.to_owned())),
            _ => {
                tell(Pull::Begun).await;
                let begun = Instant::now();
                let (image, turn) = self.pull(pod, reference, &name).await.map_err(failed)?;
                let (took, with_waiting) = (turn.unwrap_or(begun).elapsed(), begun.elapsed());
                tell(Pull::Done { took, with_waiting, bytes: image.size }).await;
                Ok(image)
            }
        }
    }

    /// The image, and when it was its turn.
    async fn pull(
        &self,
        pod: &Pod,
        image: &str,
        name: &Reference,
    ) -> Result<(Image, Option<Instant>), String> {
        let wanted = wanted(pod, image);
        let mut keyring = pull_secrets(&self.client, &wanted).await.map_err(|error| chain(&error))?;
        if let Some(file) = self.credentials.clone() {
            let add = move || {
                machine::add(&mut keyring, &file);
                keyring
            };
            keyring = spawn_blocking(add).await.map_err(|error| chain(&error))?;
        }
        let advice = keyring::advice(&wanted.service_account);
        let (pod, image) = (pod.metadata.name.as_deref().unwrap_or_default(), image);
        tracing::info!(pod, image, "pulling an image");
        let (shown, mut turn) = (Shown { pulls: &self.pulls, image }, None);
        let tell = |progress| {
            turn.get_or_insert_with(Instant::now);
            shown.tell(progress);
        };
        let pulled = self.puller.pull(name, keyring, &advice, tell).await;
        drop(shown);
        let image = pulled.map_err(|error| chain(&*error))?;
        let (store, room, newest) = (self.store.clone(), self.room, image.clone());
        match spawn_blocking(move || store.prune_pulled(room, &newest)).await {
            Ok(Ok(removed)) if removed.images.is_empty() => {}
            Ok(Ok(removed)) => tracing::info!(images = ?removed.images, "removed images to make room"),
            // The image is here all the same.
            Ok(Err(error)) => tracing::warn!(error = chain(&error), "cannot make room among the images"),
            Err(error) => tracing::warn!(error = chain(&error), "cannot make room among the images"),
        }
        Ok((image, turn))
    }

    /// Keeps an image from being removed for as long as there is something at the path. Blocks.
    pub(super) fn hold(&self, image: &Image, user: &Path) -> Result<(), ImageError> {
        self.store
            .hold(image, user)
            .map_err(|error| ImageError::Pull { image: image.reference.clone(), detail: chain(&error) })
    }
}

/// A pull among those that are under way, until it is dropped.
struct Shown<'a> {
    pulls: &'a watch::Sender<Pulls>,
    image: &'a str,
}

impl Shown<'_> {
    fn tell(&self, progress: Progress) {
        self.pulls.send_modify(|pulls| {
            pulls.insert(self.image.to_owned(), progress);
        });
    }
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        self.pulls.send_if_modified(|pulls| pulls.remove(self.image).is_some());
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
        volumes: config.volumes,
        stop_signal: config.stop_signal.unwrap_or_default(),
    }
}

/// What the images in a directory run, for controllers: those that a pod would be started from as they are. What there is of
/// others may be outdated.
pub fn local_images(directory: &Path) -> Result<Local, NodeError> {
    let store = Store::open(directory, Limits::default()).map_err(NodeError::Images)?;
    Ok(Local::new(move |reference| {
        let image = store.find(reference).ok()??;
        let policy = PullPolicy::of(None, reference);
        if rules::source(policy, Some(origin(&image))) != Source::Here {
            return None;
        }
        let command = Command { entrypoint: image.config.entrypoint, cmd: image.config.cmd };
        let commands = Commands([(ropewalk_images::machine(), command)].into());
        Some(images::Image { reference: image.pinned, commands: Arc::new(commands) })
    }))
}

/// Whose credentials may be used.
fn wanted(pod: &Pod, image: &str) -> Wanted {
    let spec = pod.spec.clone().unwrap_or_default();
    let secrets = spec.image_pull_secrets.into_iter().flatten().map(|secret| secret.name);
    Wanted {
        image: image.to_owned(),
        namespace: pod.metadata.namespace.clone().unwrap_or_default(),
        service_account: spec.service_account_name.unwrap_or_else(|| "default".to_owned()),
        pull_secrets: secrets.collect(),
    }
}

/// How it came, in the words of the kubelet.
fn origin(image: &Image) -> rules::Origin {
    match image.origin {
        Origin::Pulled => rules::Origin::Pulled,
        Origin::Loaded => rules::Origin::Loaded,
    }
}
