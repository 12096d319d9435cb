//! What caches leave out of objects: everything that no decision reads, which of runs that are done is nearly all.
//! Memory so follows active runs and not finished ones. Pure.
//!
//! A slim object is never written: writes are patches, of what a decision changes only.

use k8s_openapi::api::core::v1::{Container, Event, Pod, PodSpec};
use kube::core::Resource;
use ropewalk_api::{
    Pipeline, PipelineRun, PipelineRunSpec, PipelineRunStatus, Task, TaskRun, TaskRunSpec, TaskRunStatus,
    conditions,
};

/// An object as caches keep it.
pub trait Cached: Resource {
    /// Drops what no decision reads.
    fn slim(&mut self) {
        self.meta_mut().managed_fields = None;
    }
}

impl Cached for Event {}

impl Cached for Pipeline {}

impl Cached for Task {}

impl Cached for Pod {
    /// Of a pod that has ended, its containers' names and images stay of the spec, and all of the status: its run may
    /// not know yet. While it runs, a patch may need the whole list of containers.
    fn slim(&mut self) {
        self.metadata.managed_fields = None;
        let phase = self.status.as_ref().and_then(|status| status.phase.as_deref());
        if !matches!(phase, Some("Succeeded" | "Failed")) {
            return;
        }
        self.metadata.labels = None;
        self.metadata.annotations = None;
        let Some(spec) = self.spec.take() else { return };
        self.spec = Some(PodSpec {
            containers: named(spec.containers),
            init_containers: spec.init_containers.map(named),
            ..PodSpec::default()
        });
    }
}

fn named(containers: Vec<Container>) -> Vec<Container> {
    let named = |container: Container| Container {
        name: container.name,
        image: container.image,
        ..Container::default()
    };
    containers.into_iter().map(named).collect()
}

impl Cached for TaskRun {
    /// Of a run that is done, what its PipelineRun reads stays, and what tells whether its pod has to be stopped.
    fn slim(&mut self) {
        self.metadata.managed_fields = None;
        let Some(status) = done(self.status.as_mut(), |status| &status.conditions) else { return };
        // How many there were tells the name of a pod that was never seen.
        for attempt in &mut status.retries_status {
            *attempt = TaskRunStatus::default();
        }
        let status = std::mem::take(status);
        self.status = Some(TaskRunStatus {
            observed_generation: status.observed_generation,
            conditions: status.conditions,
            pod_name: status.pod_name,
            start_time: status.start_time,
            completion_time: status.completion_time,
            retries_status: status.retries_status,
            results: status.results,
            sidecars: status.sidecars,
            ..TaskRunStatus::default()
        });
        self.metadata.annotations = None;
        let spec = std::mem::take(&mut self.spec);
        self.spec = TaskRunSpec {
            status: spec.status,
            status_message: spec.status_message,
            managed_by: spec.managed_by,
            ..TaskRunSpec::default()
        };
    }
}

impl Cached for PipelineRun {
    /// Of a run that is done, nothing is read but that, why, and by whom. Its children are known by their owner.
    fn slim(&mut self) {
        self.metadata.managed_fields = None;
        let Some(status) = done(self.status.as_mut(), |status| &status.conditions) else { return };
        let status = std::mem::take(status);
        self.status = Some(PipelineRunStatus {
            observed_generation: status.observed_generation,
            conditions: status.conditions,
            start_time: status.start_time,
            completion_time: status.completion_time,
            ..PipelineRunStatus::default()
        });
        self.metadata.annotations = None;
        let spec = std::mem::take(&mut self.spec);
        self.spec = PipelineRunSpec {
            status: spec.status,
            managed_by: spec.managed_by,
            ..PipelineRunSpec::default()
        };
    }
}

fn done<S>(status: Option<&mut S>, of: impl Fn(&S) -> &Vec<conditions::Condition>) -> Option<&mut S> {
    status.filter(|status| conditions::is_done(of(status)))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn slim<K: Cached + serde::de::DeserializeOwned + serde::Serialize>(object: Value) -> Value {
        let mut object: K = serde_json::from_value(object).expect("an object");
        object.slim();
        serde_json::to_value(object).expect("JSON")
    }

    fn condition(status: &str) -> Value {
        json!([{ "type": "Succeeded", "status": status, "reason": "R" }])
    }

    fn taskrun(status: &str) -> Value {
        json!({
            "apiVersion": "tekton.dev/v1",
            "kind": "TaskRun",
            "metadata": {
                "name": "run",
                "labels": { "tekton.dev/pipelineTask": "t" },
                "annotations": { "a": "b" },
                "managedFields": [{ "manager": "kubectl" }],
            },
            "spec": { "params": [{ "name": "p", "value": "v" }], "statusMessage": "m" },
            "status": {
                "conditions": condition(status),
                "podName": "",
                "retriesStatus": [{ "podName": "run-pod", "steps": [{ "name": "s" }] }],
                "results": [{ "name": "r", "type": "string", "value": "v" }],
                "steps": [{ "name": "s" }],
                "taskSpec": { "steps": [{ "name": "s", "image": "i" }] },
            },
        })
    }

    #[test]
    fn a_run_that_goes_on_loses_only_managed_fields() {
        let slimmed = slim::<TaskRun>(taskrun("Unknown"));
        assert_eq!(slimmed["metadata"]["managedFields"], Value::Null);
        assert_eq!(slimmed["metadata"]["annotations"]["a"], "b");
        assert_eq!(slimmed["spec"], taskrun("Unknown")["spec"]);
        assert_eq!(slimmed["status"]["taskSpec"]["steps"][0]["image"], "i");
    }

    #[test]
    fn of_a_done_task_run_stays_what_its_pipeline_run_reads() {
        let slimmed = slim::<TaskRun>(taskrun("True"));
        assert_eq!(slimmed["spec"], json!({ "statusMessage": "m" }));
        let expected = json!({
            "conditions": condition("True"),
            "podName": "",
            "results": [{ "name": "r", "type": "string", "value": "v" }],
            "retriesStatus": [{ "podName": "" }],
        });
        assert_eq!(slimmed["status"], expected);
        assert_eq!(slimmed["metadata"]["labels"]["tekton.dev/pipelineTask"], "t");
    }

    #[test]
    fn of_a_done_pipeline_run_stays_how_it_ended() {
        let run = json!({
            "apiVersion": "tekton.dev/v1",
            "kind": "PipelineRun",
            "metadata": { "name": "run" },
            "spec": { "pipelineRef": { "name": "p" }, "status": "Cancelled" },
            "status": {
                "conditions": condition("False"),
                "pipelineSpec": { "tasks": [{ "name": "t" }] },
                "childReferences": [{ "name": "run-t" }],
            },
        });
        let slimmed = slim::<PipelineRun>(run);
        assert_eq!(slimmed["spec"], json!({ "status": "Cancelled" }));
        assert_eq!(slimmed["status"], json!({ "conditions": condition("False") }));
    }

    #[test]
    fn of_an_ended_pod_stays_what_its_containers_are_called() {
        let pod = |phase: &str| {
            json!({
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": { "name": "run-pod", "annotations": { "a": "b" } },
                "spec": {
                    "containers": [{ "name": "step-s", "image": "i", "env": [{ "name": "E", "value": "v" }] }],
                    "volumes": [{ "name": "v" }],
                },
                "status": { "phase": phase, "containerStatuses": [{
                    "name": "step-s", "image": "i", "imageID": "d", "ready": false, "restartCount": 0,
                }] },
            })
        };
        assert_eq!(slim::<Pod>(pod("Running")), pod("Running"));
        let slimmed = slim::<Pod>(pod("Failed"));
        assert_eq!(slimmed["spec"], json!({ "containers": [{ "name": "step-s", "image": "i" }] }));
        assert_eq!(slimmed["status"], pod("Failed")["status"]);
        assert_eq!(slimmed["metadata"], json!({ "name": "run-pod" }));
    }
}
