//! The loop both controllers run for one object: observe, plan, apply, and again with what was refused.

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, future};
use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use kube::runtime::controller::{self, Action};
use kube::runtime::reflector;
use kube::{Api, Client, Resource, ResourceExt};
use ropewalk_core::plan::Plan;
use ropewalk_core::snapshot::{Lookup, Refusal};
use serde::de::DeserializeOwned;

use crate::attempts::Attempts;
use crate::events::Events;
use crate::images::LookUps;
use crate::metrics::{Metrics, Workqueue};
use crate::retries::{Failure, Retries};
use crate::superseded::Superseded;
use crate::world::View;
use crate::{Options, apply};

/// Runs reconciled at once by each controller. They spend their time waiting for the API server; more than this only
/// lengthens its queue.
pub(crate) const CONCURRENCY: u16 = 32;

/// How often one reconcile plans again after a refusal. Each refusal ends in a condition at the next plan, so two
/// rounds are the rule; a third leaves room for one more child.
const ROUNDS: usize = 3;

/// When there are too many look-ups of images already: some of them end in this time.
const WHEN_FULL: Duration = Duration::from_secs(5);

/// What every reconcile shares.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) options: Options,
    pub(crate) view: View,
    pub(crate) attempts: Attempts,
    pub(crate) retries: Retries,
    pub(crate) superseded: Superseded,
    pub(crate) look_ups: Option<LookUps>,
    events: Events,
}

impl Context {
    pub(crate) fn new(
        client: Client,
        options: Options,
        view: View,
        events: Events,
        look_ups: Option<LookUps>,
    ) -> Self {
        Self {
            client,
            options,
            view,
            attempts: Attempts::default(),
            retries: Retries::default(),
            superseded: Superseded::default(),
            look_ups,
            events,
        }
    }
}

impl Context {
    /// A run has changed, as its cache already shows. What is remembered of one that is gone goes with it.
    pub(crate) fn touched<K: Reconciled + Clone + 'static>(&self, run: &K, cache: &reflector::Store<K>) {
        let reference = reflector::ObjectRef::from_obj(run);
        K::queue(&self.options.metrics).touch(&reference, cache);
        if cache.get(&reference).is_none() {
            self.attempts.forget(run.meta().uid.as_deref().unwrap_or_default());
            self.retries.forget(&reference);
        }
    }
}

/// Why an object has to be reconciled again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Reading failed.
    #[error("cannot read {kind} \"{name}\"")]
    Observe { kind: String, name: String, source: Box<kube::Error> },
    /// Writing failed.
    #[error("cannot apply the plan for \"{name}\"")]
    Apply { name: String, source: apply::Error },
    /// Every round was refused.
    #[error("the API server refused every plan for \"{name}\": {message}")]
    Refused { name: String, message: String },
}

impl Error {
    /// The word under which it is counted.
    fn class(&self) -> &'static str {
        match self {
            Self::Observe { .. } => "observe",
            Self::Apply { source: apply::Error::Stale { .. }, .. } => "conflict",
            Self::Apply { .. } => "apply",
            Self::Refused { .. } => "refused",
        }
    }

    fn failure(&self) -> Failure {
        match self {
            Self::Apply { source: apply::Error::Stale { .. }, .. } => Failure::Conflict,
            _ => Failure::Outage,
        }
    }
}

/// A kind of run that the loop serves.
pub(crate) trait Reconciled: Resource<DynamicType = ()> + Sized {
    /// What a decision about it depends on.
    type Snapshot: Send + Sync;

    /// Gathers a snapshot; decides nothing.
    fn observe(
        run: &Arc<Self>,
        context: &Context,
        refusals: Vec<Refusal>,
    ) -> impl Future<Output = Result<Self::Snapshot, Error>> + Send;

    /// Decides.
    fn plan(snapshot: &Self::Snapshot) -> Plan;

    /// What is to be reconciled of this kind.
    fn queue(metrics: &Metrics) -> &Workqueue;
}

/// One turn for one run.
pub(crate) async fn reconcile<K: Reconciled>(run: Arc<K>, context: Arc<Context>) -> Result<Action, Error> {
    let reference = reflector::ObjectRef::from_obj(&*run);
    // What was listed before this process began to watch is not missing, it is only late.
    context.view.ready().await;
    let _work = K::queue(&context.options.metrics).take(&reference);
    if context.superseded.has(&run.uid().unwrap_or_default(), &run.resource_version().unwrap_or_default()) {
        return Ok(Action::await_change());
    }
    let name = run.name_any();
    let mut refusals = Vec::new();
    for _ in 0..ROUNDS {
        let plan = K::plan(&K::observe(&run, &context, refusals.clone()).await?);
        let applied = apply::apply(
            &context.client,
            &plan,
            &context.attempts,
            &context.superseded,
            &context.options.metrics,
        )
        .await;
        match applied.map_err(|source| Error::Apply { name: name.clone(), source })? {
            None => {
                context.retries.forget(&reference);
                context.options.metrics.record(&plan.measures);
                context.events.tell(&*run, &plan.events);
                let has_place = follow(&*run, &context, &plan);
                let requeue = if has_place { plan.requeue } else { Some(WHEN_FULL) };
                return Ok(requeue.map_or_else(Action::await_change, Action::requeue));
            }
            Some(refusal) => refusals.push(refusal),
        }
    }
    let message = refusals.pop().map(|refusal| refusal.message).unwrap_or_default();
    Err(Error::Refused { name, message })
}

/// Has the images looked up that a plan waits for, and forgets those of earlier plans. False when there is no place.
fn follow<K: Resource<DynamicType = ()>>(run: &K, context: &Context, plan: &Plan) -> bool {
    let (Some(look_ups), Some(uid)) = (&context.look_ups, run.uid()) else { return true };
    let reference = reflector::ObjectRef::new(&run.name_any()).within(&run.namespace().unwrap_or_default());
    look_ups.follow(&reference, &uid, &plan.images, Timestamp::now())
}

/// When to look again after an error.
#[expect(clippy::needless_pass_by_value, reason = "the shape kube-runtime asks for")]
pub(crate) fn error_policy<K: Reconciled>(run: Arc<K>, error: &Error, context: Arc<Context>) -> Action {
    context.options.metrics.errors.with_label_values(&[K::kind(&()).as_ref(), error.class()]).inc();
    K::queue(&context.options.metrics).retry();
    Action::requeue(context.retries.pause(&reflector::ObjectRef::from_obj(&*run), error.failure()))
}

/// What a controller's stream tells of one turn.
type Turn<K> =
    Result<(reflector::ObjectRef<K>, Action), controller::Error<Error, kube::runtime::watcher::Error>>;

/// Drives a controller's stream and logs what it says.
pub(crate) async fn drive<K: Resource<DynamicType = ()>>(
    context: &Context,
    turns: impl futures::Stream<Item = Turn<K>>,
) {
    let follow = |turn: Turn<K>| match turn {
        Ok(_) => {}
        // Deleted; whoever was about to look again need not.
        Err(controller::Error::ObjectNotFound(object)) => {
            let namespace = object.namespace.as_deref().unwrap_or_default();
            context.retries.forget(&reflector::ObjectRef::<K>::new(&object.name).within(namespace));
        }
        Err(controller::Error::ReconcilerFailed(error, object)) if error.failure() == Failure::Conflict => {
            tracing::debug!(%object, error = &error as &dyn std::error::Error, "observing again");
        }
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "reconcile to be tried again");
        }
    };
    turns
        .for_each(|turn| {
            follow(turn);
            future::ready(())
        })
        .await;
}

/// An object that a run refers to: from the cache, and when it is not there from the API server, because a cache that
/// has not caught up must not fail a run.
pub(crate) async fn look_up<K>(
    client: &Client,
    cache: &reflector::Store<K>,
    namespace: &str,
    name: Option<&str>,
) -> Result<Lookup<K>, Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug,
{
    let Some(name) = name else { return Ok(Lookup::NotNeeded) };
    if let Some(object) = cache.get(&reflector::ObjectRef::new(name).within(namespace)) {
        return Ok(Lookup::Found(object));
    }
    Ok(match read(client, namespace, name).await? {
        Some(object) => Lookup::Found(Arc::new(object)),
        None => Lookup::Missing,
    })
}

/// The objects that `uid` controls, as the cache has them, and from the API server those of `named`, and of our own
/// latest attempts, that it lacks.
pub(crate) async fn children_of<K>(
    context: &Context,
    cache: &reflector::Store<K>,
    known: Vec<String>,
    namespace: &str,
    uid: &str,
    named: impl Iterator<Item = &str>,
) -> Result<Vec<Arc<K>>, Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug,
{
    let mut children: std::collections::BTreeMap<String, Arc<K>> = known
        .into_iter()
        .filter_map(|name| {
            let child = cache.get(&reflector::ObjectRef::new(&name).within(namespace))?;
            Some((name, child))
        })
        .collect();
    let attempted = context.attempts.of(uid);
    for name in attempted.iter().filter(|name| children.contains_key(*name)) {
        context.attempts.settle(uid, name);
    }
    for name in named.filter(|name| !name.is_empty()).map(str::to_owned).chain(attempted) {
        if children.contains_key(&name) {
            continue;
        }
        match read::<K>(&context.client, namespace, &name).await? {
            Some(child) => drop(children.insert(name, Arc::new(child))),
            None => context.attempts.settle(uid, &name),
        }
    }
    children.retain(|_, child| crate::owners::controller_uid(child.as_ref()) == Some(uid));
    Ok(children.into_values().collect())
}

async fn read<K>(client: &Client, namespace: &str, name: &str) -> Result<Option<K>, Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    api.get_opt(name).await.map_err(|source| Error::Observe {
        kind: K::kind(&()).into_owned(),
        name: name.to_owned(),
        source: Box::new(source),
    })
}
