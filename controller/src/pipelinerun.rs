//! The PipelineRun controller.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::Controller;
use kube::runtime::controller::Config;
use ropewalk_api::PipelineRun;
use ropewalk_core::pipelinerun::{self, Snapshot};
use ropewalk_core::plan::Plan;
use ropewalk_core::snapshot::Refusal;

use crate::metrics::{Metrics, Workqueue};
use crate::reconcile::{
    CONCURRENCY, Context, Error, Reconciled, children_of, drive, error_policy, look_up, reconcile,
};
use crate::world::PipelineRunTriggers;

/// Reconciles PipelineRuns until `shutdown`.
pub(crate) async fn controller(
    triggers: PipelineRunTriggers,
    context: &Arc<Context>,
    shutdown: impl Future<Output = ()> + Send + Sync + 'static,
) {
    let (queue, store) = (context.options.metrics.pipelineruns.clone(), triggers.store.clone());
    let runs = triggers.runs.inspect_ok({
        let (context, store) = (Arc::clone(context), store.clone());
        move |run| context.touched(run, &store)
    });
    let children = triggers.children.inspect(move |run| queue.touch(run, &store));
    let results = Controller::for_stream(runs, triggers.store)
        .reconcile_on(children)
        .with_config(Config::default().concurrency(CONCURRENCY))
        .graceful_shutdown_on(shutdown)
        .run(reconcile, error_policy, Arc::clone(context));
    drive(context, results).await;
}

impl Reconciled for PipelineRun {
    type Snapshot = Snapshot;

    async fn observe(
        run: &Arc<PipelineRun>,
        context: &Context,
        refusals: Vec<Refusal>,
    ) -> Result<Snapshot, Error> {
        let (client, view) = (&context.client, &context.view);
        let namespace = run.namespace().unwrap_or_default();
        let uid = run.uid().unwrap_or_default();
        let named =
            run.status.iter().flat_map(|status| &status.child_references).map(|child| child.name.as_str());
        let known = view.taskruns_of.children(&uid);
        let children = children_of(context, &view.taskruns, known, &namespace, &uid, named).await?;
        let pipeline = look_up(client, &view.pipelines, &namespace, pipelinerun::wants_pipeline(run)).await?;
        let mut tasks = BTreeMap::new();
        for name in pipelinerun::wants_tasks(run, pipeline.found(), &children) {
            let task = look_up(client, &view.tasks, &namespace, Some(&name)).await?;
            tasks.insert(name, task);
        }
        Ok(Snapshot {
            now: Timestamp::now(),
            config: Arc::clone(&context.options.config.borrow()),
            settings: Arc::clone(&context.options.settings.borrow()),
            run: Arc::clone(run),
            pipeline,
            tasks,
            children,
            refusals,
        })
    }

    fn plan(snapshot: &Snapshot) -> Plan {
        pipelinerun::plan(snapshot)
    }

    fn queue(metrics: &Metrics) -> &Workqueue {
        &metrics.pipelineruns
    }
}
