//! Whole images from registries into the store of a node. IO: sockets and files.
//!
//! A layer is unpacked upon those below it, one after the other, while it and the next ones are still coming: what comes goes
//! to a file without a name, and the unpacker reads after it. Registries are asked as `ropewalk-registry` does; what comes
//! is held against its digests by the store.

mod documents;
mod error;
mod layer;
pub mod machine;
mod progress;

use std::collections::HashMap;
use std::mem;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::{BoxFuture, Shared, WeakShared};
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use ropewalk_api::errors::chain;
use ropewalk_core::diagnosis::quoted;
use ropewalk_core::images::keyring::{Credential, Keyring};
use ropewalk_core::images::reference::{Digest, Reference};
use ropewalk_images::{Blob, Config, Image, Incoming, Layer, Origin, Store, StoreError};
use ropewalk_registry::{Access, Patience, Registries, Session, TRUST_HINT};
use tokio::sync::{Semaphore, oneshot, watch};

use documents::{Documents, documents};
use error::Cause;
pub use error::{Kind, PullError};
use layer::{Missing, blocking};
use progress::Counter;
pub use progress::Progress;

/// Pulls from one registry at once; further ones wait for their turn. One that does not answer holds up nobody else's.
const PULLS: usize = 4;
/// Layers of one image at once, as Docker and containerd have it. So many compressed layers may be on the disk besides what
/// was unpacked of them.
const LAYERS: usize = 3;
/// Compressed bytes of one image: ten times the largest ones that people publish.
const MAX_IMAGE: u64 = 128 << 30;

/// Where it says how registries are reached, below the data directory.
pub const HOSTS: &str = "certs.d";

/// Registries as a node reaches them: as [`HOSTS`] of its data directory says, if it exists.
pub fn registries(hosts: PathBuf) -> Registries {
    Registries::new(watch::channel(String::new()).1, TRUST_HINT, Some(hosts))
}

/// Pulls images into one store. A handle on what all share.
#[derive(Clone)]
pub struct Puller {
    shared: Arc<Inner>,
}

struct Inner {
    store: Store,
    registries: Registries,
    /// By the host of the registry.
    places: Mutex<HashMap<String, Arc<Semaphore>>>,
    under_way: Mutex<HashMap<Wanted, UnderWay>>,
}

/// What makes two pulls the same: what one may read with its credentials, another may only read with the same.
#[derive(Clone, Eq, Hash, PartialEq)]
struct Wanted {
    reference: String,
    credentials: Vec<Credential>,
}

struct UnderWay {
    outcome: WeakShared<BoxFuture<'static, Outcome>>,
    progress: watch::Receiver<Progress>,
}

type Outcome = Result<Image, Arc<PullError>>;

impl Puller {
    /// Pulls into this store, from registries as these reach them.
    pub fn new(store: Store, registries: Registries) -> Self {
        let (places, under_way) = (Mutex::default(), Mutex::default());
        Self { shared: Arc::new(Inner { store, registries, places, under_way }) }
    }

    /// Brings an image here, as its registry has it now, or a mirror. Layers that are here are not transferred. `advice` is for
    /// whoever has no credentials, see [`Access`]; `progress` is called when it is its turn, and now and then until it is
    /// here.
    ///
    /// Several who want the same with the same credentials wait for one transfer, which ends when none of them is left.
    pub async fn pull(
        &self,
        reference: &Reference,
        keyring: Keyring,
        advice: &str,
        mut progress: impl FnMut(Progress),
    ) -> Outcome {
        let (mut outcome, mut told) = self.join(reference, keyring, advice);
        loop {
            tokio::select! {
                outcome = &mut outcome => return outcome,
                Ok(()) = told.changed() => progress(*told.borrow_and_update()),
            }
        }
    }

    fn join(
        &self,
        reference: &Reference,
        keyring: Keyring,
        advice: &str,
    ) -> (Shared<BoxFuture<'static, Outcome>>, watch::Receiver<Progress>) {
        let wanted = Wanted {
            reference: reference.full_name(),
            credentials: keyring.credentials(reference).into_iter().cloned().collect(),
        };
        let mut under_way = self.shared.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that have ended, or that nobody waits for.
        under_way.retain(|_, it| it.outcome.upgrade().is_some_and(|outcome| outcome.peek().is_none()));
        if let Some(same) = under_way.get(&wanted)
            && let Some(outcome) = same.outcome.upgrade()
        {
            return (outcome, same.progress.clone());
        }
        let (sender, progress) = watch::channel(Progress::default());
        let (shared, reference, advice) = (Arc::clone(&self.shared), reference.clone(), advice.to_owned());
        let outcome = async move {
            let counter = Counter::new(sender);
            shared.pull(&reference, &keyring, &advice, &counter).await.map_err(Arc::new)
        };
        let outcome = outcome.boxed().shared();
        if let Some(weak) = outcome.downgrade() {
            under_way.insert(wanted, UnderWay { outcome: weak, progress: progress.clone() });
        }
        (outcome, progress)
    }
}

impl Inner {
    async fn pull(
        &self,
        reference: &Reference,
        keyring: &Keyring,
        advice: &str,
        counter: &Counter,
    ) -> Result<Image, PullError> {
        let places = self.places(&reference.host);
        // Never closed.
        let _place = places.acquire().await;
        counter.begin(0);
        let image = reference.full_name();
        let mut mirrors = Vec::new();
        let sessions = match self.registries.sessions(reference, Access { keyring, advice }) {
            Ok(sessions) => sessions,
            Err(error) => return Err(PullError { image, cause: error.into(), mirrors }),
        };
        for mirror in &sessions.mirrors {
            match self.pull_from(mirror, Patience::none(), reference, counter).await {
                Ok(image) => return Ok(image),
                // Nobody else can help.
                Err(cause @ Cause::Store(StoreError::File { .. })) => {
                    return Err(PullError { image, cause, mirrors });
                }
                Err(cause) => {
                    // What it sent is quoted in there, which may be anything.
                    let cause = quoted(&chain(&cause));
                    tracing::info!(image, cause, "a mirror does not have an image");
                    mirrors.push(cause);
                }
            }
        }
        let pulled = self.pull_from(&sessions.registry, Patience::default(), reference, counter).await;
        pulled.map_err(|cause| PullError { image, cause, mirrors })
    }

    fn places(&self, host: &str) -> Arc<Semaphore> {
        let mut all = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, places| Arc::strong_count(places) > 1);
        Arc::clone(all.entry(host.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(PULLS))))
    }

    async fn pull_from(
        &self,
        session: &Session<'_>,
        mut patience: Patience,
        reference: &Reference,
        counter: &Counter,
    ) -> Result<Image, Cause> {
        if let Some(image) = self.known(session, &mut patience, reference).await? {
            return Ok(image);
        }
        let Documents { names, manifest, config } = documents(session, &mut patience, reference).await?;
        let parsed = Config::parse(&config)?;
        let layers = manifest.layers(&parsed)?;
        let whole = layers
            .iter()
            .filter_map(|it| it.blob.as_ref())
            .try_fold(0_u64, |sum, blob| sum.checked_add(blob.size));
        if whole.is_none_or(|whole| whole > MAX_IMAGE) {
            return Err(Cause::TooLarge);
        }
        let store = self.store.clone();
        let incoming = Arc::new(blocking(move || store.begin()).await?);
        add_layers(session, &incoming, layers, counter).await?;
        // The threads that had it have ended.
        let incoming = Arc::into_inner(incoming).ok_or(Cause::Broken)?;
        blocking(move || incoming.finish(&names, &config, Origin::Pulled)).await
    }

    /// The image, if it is here and the reference still means it.
    async fn known(
        &self,
        session: &Session<'_>,
        patience: &mut Patience,
        reference: &Reference,
    ) -> Result<Option<Image>, Cause> {
        let digest = loop {
            match session.digest(&reference.version).await {
                Ok(digest) => break digest,
                Err(error) => patience.wait(error).await?,
            }
        };
        let Some(digest) = digest else { return Ok(None) };
        let (store, by_name) = (self.store.clone(), reference.full_name());
        let by_digest = documents::by_digest(reference, &digest).full_name();
        blocking(move || {
            let Some(image) = store.find(&by_name)? else { return Ok(None) };
            let is_same = store.find(&by_digest)?.is_some_and(|it| it.id == image.id);
            Ok(Some(image).filter(|image| is_same && image.origin == Origin::Pulled))
        })
        .await
    }
}

/// Brings those layers here that are not.
async fn add_layers(
    session: &Session<'_>,
    incoming: &Arc<Incoming>,
    layers: Vec<Layer>,
    counter: &Counter,
) -> Result<(), Cause> {
    let held = Arc::clone(incoming);
    let absent = blocking(move || absent(&held, layers)).await?;
    counter.begin(absent.iter().map(|(_, _, blob)| blob.size).sum());
    let (first, mut turn) = oneshot::channel();
    let _ = first.send(());
    let mut missing = Vec::with_capacity(absent.len());
    for (below, layer, blob) in absent {
        let (done, next) = oneshot::channel();
        missing.push(Missing { below, layer, blob, turn: mem::replace(&mut turn, next), done });
    }
    stream::iter(missing)
        .map(|missing| layer::add(session, incoming, missing, counter))
        .buffered(LAYERS)
        .try_collect()
        .await
}

/// The layers that are not here, each with those below it.
fn absent(incoming: &Incoming, layers: Vec<Layer>) -> Result<Vec<(Vec<Digest>, Layer, Blob)>, StoreError> {
    let (mut below, mut absent) = (Vec::new(), Vec::new());
    for layer in layers {
        let diff_id = layer.diff_id.clone();
        if !incoming.has_layer(&below, &diff_id)?
            && let Some(blob) = layer.blob.clone()
        {
            absent.push((below.clone(), layer, blob));
        }
        below.push(diff_id);
    }
    Ok(absent)
}
