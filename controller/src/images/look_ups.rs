//! The look-ups under way: who waits for which, how many at once, how often again.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::{self, BoxFuture};
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use jiff::Timestamp;
use kube::Client;
use kube::runtime::reflector::ObjectRef;
use lru::LruCache;
use ropewalk_api::TaskRun;
use ropewalk_api::errors::chain;
use ropewalk_core::diagnosis::quoted;
use ropewalk_core::images::reference::{Reference, Version};
use ropewalk_core::images::{Image, Lookup, Wanted, keyring};
use ropewalk_registry::{Access, Registries};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::digests::Digests;
use super::{ImageOptions, Local, pull_secrets, registry};

/// Runs whose look-ups are remembered: more than may wait for different images at once, and an evicted one asks again.
const RUNS: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");
/// Different look-ups waiting or under way. A run that finds no place comes back.
pub(super) const QUEUE: usize = 1024;
/// Look-ups at once. Each may hold a few bodies of at most 4 MiB.
const AT_ONCE: usize = 16;
/// Of which on one registry, so that one that does not answer leaves room for others.
pub(super) const AT_ONCE_PER_REGISTRY: usize = 4;
/// Of which for one namespace, so that whoever names registries that do not answer holds up nobody else's runs.
const AT_ONCE_PER_NAMESPACE: usize = 4;
/// Of which on one registry, so that one that does not answer leaves room in its namespace, too.
const AT_ONCE_PER_NAMESPACE_AND_REGISTRY: usize = AT_ONCE_PER_NAMESPACE - 1;
/// Different look-ups of one namespace waiting or under way, for the same reason.
pub(super) const QUEUE_PER_NAMESPACE: usize = QUEUE / 4;
/// One attempt with all its requests: those for a dozen platforms, four at a time, take a few seconds.
const ATTEMPT: Duration = Duration::from_secs(30);
/// Pauses before further attempts: a registry that restarts is back by then, a user still waits.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];
/// Where certificates go that are not trusted yet, unless a directory says how registries are reached.
pub(super) const TRUST_HINT: &str =
    "put the certificate of its authority under key \"cert\" of ConfigMap \"config-registry-cert\"";
/// Runs that may wait to be woken: the controller takes them at once.
const WOKEN: usize = 1024;

/// What the reconcilers see.
#[derive(Clone)]
pub(crate) struct LookUps {
    pub(super) shared: Arc<Shared>,
    /// Never holds more than are under way.
    asks: mpsc::UnboundedSender<Wanted>,
}

pub(super) struct Shared {
    state: Mutex<State>,
    digests: Digests,
}

struct State {
    /// By the UID of the run.
    runs: LruCache<String, HashMap<Wanted, Lookup>>,
    under_way: HashMap<Wanted, UnderWay>,
}

impl State {
    fn has_place(&self, namespace: &str) -> bool {
        let of_namespace = || self.under_way.keys().filter(|wanted| wanted.namespace == namespace).count();
        self.under_way.len() < QUEUE && of_namespace() < QUEUE_PER_NAMESPACE
    }
}

/// One look-up for all who want the same.
#[derive(Default)]
struct UnderWay {
    /// By their UID.
    waiting: BTreeMap<String, ObjectRef<TaskRun>>,
    problem: Option<String>,
}

/// The look-ups, what works them off for as long as it is polled, and the runs that are to look at what came of it.
pub(crate) fn start(
    client: &Client,
    options: Option<ImageOptions>,
) -> (Option<LookUps>, BoxFuture<'static, ()>, BoxStream<'static, ObjectRef<TaskRun>>) {
    let Some(options) = options else {
        return (None, future::pending().boxed(), stream::pending().boxed());
    };
    let state = State { runs: LruCache::new(RUNS), under_way: HashMap::new() };
    let shared = Arc::new(Shared { state: Mutex::new(state), digests: Digests::default() });
    // Nothing is in it that is not under way, of which there are at most QUEUE.
    let (asks, asked) = mpsc::unbounded_channel();
    let (wake, woken) = mpsc::channel(WOKEN);
    let hint = if options.registries.is_some() { ropewalk_registry::TRUST_HINT } else { TRUST_HINT };
    let worker = Arc::new(Worker {
        shared: Arc::clone(&shared),
        client: client.clone(),
        local: options.local,
        servers: Registries::new(options.extra_roots, hint, options.registries),
        all: Semaphore::new(AT_ONCE),
        registries: Places::of(AT_ONCE_PER_REGISTRY),
        namespaces: Places::of(AT_ONCE_PER_NAMESPACE),
        shares: Places::of(AT_ONCE_PER_NAMESPACE_AND_REGISTRY),
        wake,
    });
    let woken = stream::unfold(woken, |mut woken| async move { woken.recv().await.map(|run| (run, woken)) });
    (Some(LookUps { shared, asks }), work(worker, asked).boxed(), woken.boxed())
}

impl LookUps {
    /// How far the look-ups are that this run waits for.
    pub(crate) fn known(&self, uid: &str) -> BTreeMap<String, Lookup> {
        let mut state = self.shared.lock();
        let known = state.runs.get(uid).into_iter().flatten();
        known.map(|(wanted, lookup)| (wanted.image.clone(), lookup.clone())).collect()
    }

    /// Starts the look-ups that a run waits for now and forgets the others. False when there are too many already: come
    /// back later.
    pub(crate) fn follow(
        &self,
        run: &ObjectRef<TaskRun>,
        uid: &str,
        wanted: &[Wanted],
        now: Timestamp,
    ) -> bool {
        let mut state = self.shared.lock();
        if wanted.is_empty() {
            state.runs.pop(uid);
            return true;
        }
        let followed = state.runs.get_or_insert_mut(uid.to_owned(), HashMap::new);
        followed.retain(|known, _| wanted.contains(known));
        for wanted in wanted {
            let has_place = state.under_way.contains_key(wanted) || state.has_place(&wanted.namespace);
            let State { runs, under_way } = &mut *state;
            let followed = runs.get_or_insert_mut(uid.to_owned(), HashMap::new);
            if followed.contains_key(wanted) {
                continue;
            }
            if !has_place {
                return false;
            }
            if !under_way.contains_key(wanted) {
                if self.asks.send(wanted.clone()).is_err() {
                    return false;
                }
                under_way.insert(wanted.clone(), UnderWay::default());
            }
            let Some(common) = under_way.get_mut(wanted) else { continue };
            common.waiting.insert(uid.to_owned(), run.clone());
            followed.insert(wanted.clone(), Lookup::Pending { since: now, problem: common.problem.clone() });
        }
        true
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells everyone who waits why it takes longer, and returns them.
    pub(super) fn report(&self, wanted: &Wanted, text: &str) -> Vec<ObjectRef<TaskRun>> {
        let mut state = self.lock();
        let State { runs, under_way } = &mut *state;
        let Some(common) = under_way.get_mut(wanted) else { return Vec::new() };
        common.problem = Some(text.to_owned());
        for uid in common.waiting.keys() {
            if let Some(Lookup::Pending { problem, .. }) =
                runs.peek_mut(uid).and_then(|followed| followed.get_mut(wanted))
            {
                *problem = Some(text.to_owned());
            }
        }
        common.waiting.values().cloned().collect()
    }

    /// Gives the outcome to everyone who waits, and returns them.
    pub(super) fn finish(&self, wanted: &Wanted, outcome: &Lookup) -> Vec<ObjectRef<TaskRun>> {
        let mut state = self.lock();
        let State { runs, under_way } = &mut *state;
        let Some(common) = under_way.remove(wanted) else { return Vec::new() };
        for uid in common.waiting.keys() {
            if let Some(lookup) = runs.peek_mut(uid).and_then(|followed| followed.get_mut(wanted)) {
                lookup.clone_from(outcome);
            }
        }
        common.waiting.into_values().collect()
    }
}

struct Worker {
    shared: Arc<Shared>,
    client: Client,
    local: Option<Local>,
    servers: Registries,
    all: Semaphore,
    /// By host.
    registries: Places,
    namespaces: Places,
    /// By namespace and host.
    shares: Places,
    wake: mpsc::Sender<ObjectRef<TaskRun>>,
}

/// So many at once for each name; the places of those nobody uses are dropped.
struct Places {
    each: usize,
    by_name: Mutex<HashMap<String, Arc<Semaphore>>>,
}

impl Places {
    fn of(each: usize) -> Self {
        Self { each, by_name: Mutex::default() }
    }

    fn named(&self, name: &str) -> Arc<Semaphore> {
        let mut by_name = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        by_name.retain(|_, places| Arc::strong_count(places) > 1);
        Arc::clone(by_name.entry(name.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(self.each))))
    }
}

/// Ends a look-up for those who wait for it, come what may: otherwise nobody could ever have that image again.
struct Started<'a> {
    worker: &'a Worker,
    wanted: &'a Wanted,
}

impl Drop for Started<'_> {
    fn drop(&mut self) {
        // After an outcome nobody is left here.
        let broken = Lookup::Failed("the look-up broke off: a defect".to_owned());
        for run in self.worker.shared.finish(self.wanted, &broken) {
            // One that is not told looks again when its timeout comes.
            let _ = self.worker.wake.try_send(run);
        }
    }
}

/// Ends, and with it every look-up, when it is dropped.
async fn work(worker: Arc<Worker>, mut asked: mpsc::UnboundedReceiver<Wanted>) {
    let mut look_ups = JoinSet::new();
    loop {
        tokio::select! {
            wanted = asked.recv() => match wanted {
                Some(wanted) => drop(look_ups.spawn(Arc::clone(&worker).serve(wanted))),
                None => return,
            },
            Some(_) = look_ups.join_next() => {}
        }
    }
}

impl Worker {
    async fn serve(self: Arc<Self>, wanted: Wanted) {
        let _started = Started { worker: &self, wanted: &wanted };
        let outcome = self.look_up(&wanted).await;
        self.wake(self.shared.finish(&wanted, &outcome)).await;
    }

    async fn wake(&self, runs: Vec<ObjectRef<TaskRun>>) {
        for run in runs {
            // The receiver is gone only while the process ends.
            self.wake.send(run).await.ok();
        }
    }

    async fn look_up(&self, wanted: &Wanted) -> Lookup {
        let reference: Reference = match wanted.image.parse() {
            Ok(reference) => reference,
            Err(error) => return Lookup::Failed(error.to_string()),
        };
        if let Some(image) = self.local(&wanted.image).await {
            return match registry::check(&image.commands) {
                Ok(()) => Lookup::Found(image),
                Err(error) => Lookup::Failed(described(&error)),
            };
        }
        if let Version::Digest(digest) = &reference.version
            && let Some(commands) = self.shared.digests.get(wanted, &reference, digest)
        {
            return Lookup::Found(Image { reference: reference.at(digest), commands });
        }
        let mut pauses = PAUSES.into_iter();
        loop {
            let trouble = match self.attempt(wanted, &reference).await {
                Ok(image) => return Lookup::Found(image),
                Err(trouble) => trouble,
            };
            let Some(pause) = pauses.next().filter(|_| trouble.is_transient) else {
                tracing::info!(image = wanted.image, text = trouble.text, "an image could not be looked up");
                return Lookup::Failed(trouble.text);
            };
            self.wake(self.shared.report(wanted, &trouble.text)).await;
            tokio::time::sleep(pause).await;
        }
    }

    async fn local(&self, image: &str) -> Option<Image> {
        let (Local(find), image) = (self.local.clone()?, image.to_owned());
        // One that panics has not found any.
        tokio::task::spawn_blocking(move || find(&image)).await.ok()?
    }

    async fn attempt(&self, wanted: &Wanted, reference: &Reference) -> Result<Image, Trouble> {
        let share = self.shares.named(&format!("{}/{}", wanted.namespace, reference.host));
        let namespace = self.namespaces.named(&wanted.namespace);
        let registry = self.registries.named(&reference.host);
        // None is ever closed. The namespace's own come first: who waits for these holds no place of others.
        let _place = share.acquire().await;
        let _place = namespace.acquire().await;
        let _place = registry.acquire().await;
        let _place = self.all.acquire().await;
        let answer = async {
            let keyring = pull_secrets::read(&self.client, wanted)
                .await
                .map_err(|error| Trouble { text: described(&error), is_transient: true })?;
            let advice = keyring::advice(&wanted.service_account);
            let access = Access { keyring: &keyring, advice: &advice };
            registry::look_up(&self.servers, wanted, reference, access, &self.shared.digests)
                .await
                .map_err(|error| Trouble { text: described(&error), is_transient: error.is_transient() })
        };
        tokio::time::timeout(ATTEMPT, answer).await.unwrap_or_else(|_| {
            let text = format!("registry \"{}\": no answer within {} s", reference.host, ATTEMPT.as_secs());
            Err(Trouble { text, is_transient: true })
        })
    }
}

/// Why an attempt came to nothing.
struct Trouble {
    text: String,
    is_transient: bool,
}

/// An error with its causes, for a status. Parsers quote what a registry sent, which may be anything.
pub(super) fn described(error: &dyn std::error::Error) -> String {
    quoted(&chain(error))
}
