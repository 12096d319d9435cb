//! The TaskRun controller.

use std::sync::Arc;

use jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::Controller;
use kube::runtime::controller::Config;
use ropewalk_api::TaskRun;
use ropewalk_core::plan::Plan;
use ropewalk_core::snapshot::Refusal;
use ropewalk_core::taskrun::{self, Snapshot};

use crate::reconcile::{
    CONCURRENCY, Context, Error, Reconciled, children_of, drive, error_policy, look_up, reconcile,
};
use crate::world::TaskRunTriggers;

/// Reconciles TaskRuns until `shutdown`.
pub(crate) async fn controller(
    triggers: TaskRunTriggers,
    context: &Arc<Context>,
    shutdown: impl Future<Output = ()> + Send + Sync + 'static,
) {
    let results = Controller::for_stream(triggers.runs, triggers.store)
        .owns_stream(triggers.pods)
        .with_config(Config::default().concurrency(CONCURRENCY))
        .graceful_shutdown_on(shutdown)
        .run(reconcile, error_policy, Arc::clone(context));
    drive(results).await;
}

impl Reconciled for TaskRun {
    type Snapshot = Snapshot;

    async fn observe(run: &Arc<Self>, context: &Context, refusals: Vec<Refusal>) -> Result<Snapshot, Error> {
        let view = &context.view;
        let namespace = run.namespace().unwrap_or_default();
        let uid = run.uid().unwrap_or_default();
        let named = run.status.iter().map(|status| status.pod_name.as_str());
        let known = view.pods_of.children(&uid);
        Ok(Snapshot {
            task: look_up(&context.client, &view.tasks, &namespace, taskrun::wants_task(run)).await?,
            pods: children_of(context, &view.pods, known, &namespace, &uid, named).await?,
            now: Timestamp::now(),
            config: Arc::clone(&context.options.config.borrow()),
            settings: Arc::clone(&context.options.settings),
            run: Arc::clone(run),
            images: None,
            refusals,
        })
    }

    fn plan(snapshot: &Snapshot) -> Plan {
        taskrun::plan(snapshot)
    }
}
