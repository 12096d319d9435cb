//! The TaskRun controller.

use std::sync::Arc;

use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::Controller;
use kube::runtime::controller::Config;
use kube::runtime::reflector::ObjectRef;
use ropewalk_api::{TaskRun, conditions};
use ropewalk_core::plan::Plan;
use ropewalk_core::snapshot::Refusal;
use ropewalk_core::taskrun::{self, Snapshot};

use crate::credentials;
use crate::metrics::{Metrics, Workqueue};
use crate::pod_events;
use crate::reconcile::{
    CONCURRENCY, Context, Error, Reconciled, children_of, drive, error_policy, look_up, reconcile,
};
use crate::world::TaskRunTriggers;

/// Reconciles TaskRuns until `shutdown`.
pub(crate) async fn controller(
    triggers: TaskRunTriggers,
    answered: BoxStream<'static, ObjectRef<TaskRun>>,
    context: &Arc<Context>,
    shutdown: impl Future<Output = ()> + Send + Sync + 'static,
) {
    let (queue, store) = (context.options.metrics.taskruns.clone(), triggers.store.clone());
    let runs = triggers.runs.inspect_ok({
        let (context, store) = (Arc::clone(context), store.clone());
        move |run| context.touched(run, &store)
    });
    let pods = triggers.pods.inspect_ok(move |pod| {
        let namespace = pod.metadata.namespace.as_deref();
        let mut owners = pod.owner_references().iter();
        if let Some(run) = owners.find_map(|owner| ObjectRef::from_owner_ref(namespace, owner, ())) {
            queue.touch(&run, &store);
        }
    });
    let (queue, store) = (context.options.metrics.taskruns.clone(), triggers.store.clone());
    let warned = pod_events::wakes(triggers.warnings, Arc::clone(context));
    let warned = warned.inspect(move |run| queue.touch(run, &store));
    let results = Controller::for_stream(runs, triggers.store)
        .owns_stream(pods)
        .reconcile_on(warned)
        .reconcile_on(answered)
        .with_config(Config::default().concurrency(CONCURRENCY))
        .graceful_shutdown_on(shutdown)
        .run(reconcile, error_policy, Arc::clone(context));
    drive(context, results).await;
}

impl Reconciled for TaskRun {
    type Snapshot = Snapshot;

    async fn observe(run: &Arc<Self>, context: &Context, refusals: Vec<Refusal>) -> Result<Snapshot, Error> {
        let view = &context.view;
        let namespace = run.namespace().unwrap_or_default();
        let uid = run.uid().unwrap_or_default();
        // The pod of a run that is done is not missed: its user may have removed it.
        let going_on = run.status.iter().filter(|status| !conditions::is_done(&status.conditions));
        let named = going_on.map(|status| status.pod_name.as_str());
        let known = view.pods_of.children(&uid);
        let pods = children_of(context, &view.pods, known, &namespace, &uid, named).await?;
        let config = Arc::clone(&context.options.config.borrow());
        let settings = Arc::clone(&context.options.settings.borrow());
        let account = taskrun::wants_account(run, &pods, &config, &settings);
        Ok(Snapshot {
            task: look_up(&context.client, &view.tasks, &namespace, taskrun::wants_task(run)).await?,
            account: credentials::look_up(&context.client, &namespace, account, &config.features).await?,
            warnings: pods.iter().filter_map(|pod| pod.uid()).flat_map(|uid| view.said.of(&uid)).collect(),
            pods,
            now: Timestamp::now(),
            config,
            settings,
            run: Arc::clone(run),
            images: context.look_ups.as_ref().map(|look_ups| look_ups.known(&uid)),
            refusals,
        })
    }

    fn plan(snapshot: &Snapshot) -> Plan {
        taskrun::plan(snapshot)
    }

    fn queue(metrics: &Metrics) -> &Workqueue {
        &metrics.taskruns
    }
}
