//! Every permission, and the code that needs it.

/// Whom a rule is for.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(super) enum Account {
    Controller,
    Webhook,
}

impl Account {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Controller => "tekton-pipelines-controller",
            Self::Webhook => "tekton-pipelines-webhook",
        }
    }

    pub(super) fn component(self) -> &'static str {
        match self {
            Self::Controller => "controller",
            Self::Webhook => "webhook",
        }
    }
}

/// Where a rule applies.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(super) enum Place {
    /// Where runs are served: all namespaces, or the one.
    Runs,
    /// The control plane's own namespace.
    System,
    /// Objects that have no namespace.
    Cluster,
}

/// One rule of one role.
pub(super) struct Rule {
    pub(super) account: Account,
    pub(super) place: Place,
    /// The code that needs it, and for what.
    pub(super) why: &'static str,
    pub(super) group: &'static str,
    pub(super) resources: &'static [&'static str],
    /// Only objects of these names; all when empty. `create` cannot be narrowed so.
    pub(super) names: &'static [&'static str],
    pub(super) verbs: &'static [&'static str],
}

const CONTROLLER: Account = Account::Controller;
const WEBHOOK: Account = Account::Webhook;

/// Every rule. Resources by name and verbs one by one: a wildcard would grow with what others install.
pub(super) const RULES: &[Rule] = &[
    Rule {
        account: CONTROLLER,
        place: Place::Runs,
        why: "controller/src/world.rs watches TaskRuns; controller/src/apply.rs creates those of PipelineRuns, cancels them, and adds the labels of their Tasks; controller/src/reconcile.rs reads what caches lack.",
        group: "tekton.dev",
        resources: &["taskruns"],
        names: &[],
        verbs: &["get", "list", "watch", "create", "patch"],
    },
    Rule {
        account: CONTROLLER,
        place: Place::Runs,
        why: "controller/src/world.rs watches PipelineRuns; controller/src/apply.rs adds the labels of their Pipelines.",
        group: "tekton.dev",
        resources: &["pipelineruns"],
        names: &[],
        verbs: &["list", "watch", "patch"],
    },
    Rule {
        account: CONTROLLER,
        place: Place::Runs,
        why: "controller/src/apply.rs writes statuses.",
        group: "tekton.dev",
        resources: &["taskruns/status", "pipelineruns/status"],
        names: &[],
        verbs: &["patch"],
    },
    Rule {
        account: CONTROLLER,
        place: Place::Runs,
        why: "controller/core/src/pod.rs and controller/core/src/pipelinerun/children.rs let children hold back their owner's deletion; with OwnerReferencesPermissionEnforcement only those may do so who may set the owner's finalizers.",
        group: "tekton.dev",
        resources: &["taskruns/finalizers", "pipelineruns/finalizers"],
        names: &[],
        verbs: &["update"],
    },
    Rule {
        account: CONTROLLER,
        place: Place::Runs,
        why: "controller/src/world.rs watches what runs refer to.",
        group: "tekton.dev",
        resources: &["tasks", "pipelines"],
        names: &[],
        verbs: &["get", "list", "watch"],
    },
    Rule {
        account: CONTROLLER,
        place: Place::Runs,
        why: "controller/src/world.rs watches pods; controller/src/apply.rs creates them, marks them ready, ends their sidecars, and deletes those of cancelled runs.",
        group: "",
        resources: &["pods"],
        names: &[],
        verbs: &["get", "list", "watch", "create", "patch", "delete"],
    },
    Rule {
        account: CONTROLLER,
        place: Place::Runs,
        why: "controller/src/apply.rs makes the claims of volumeClaimTemplates, and reads one that is there already.",
        group: "",
        resources: &["persistentvolumeclaims"],
        names: &[],
        verbs: &["get", "create"],
    },
    Rule {
        account: CONTROLLER,
        place: Place::Runs,
        why: "controller/src/pod_events.rs watches what nodes say of pods that wait; the statuses of their runs quote it. controller/src/events.rs records what becomes of runs.",
        group: "",
        resources: &["events"],
        names: &[],
        verbs: &["list", "watch", "create"],
    },
    Rule {
        account: CONTROLLER,
        place: Place::Runs,
        why: "controller/src/credentials.rs reads which secrets a service account lends to steps, by type and annotation; controller/src/images/pull_secrets.rs reads what registries are shown when they are asked for the command of an image.",
        group: "",
        resources: &["serviceaccounts", "secrets"],
        names: &[],
        verbs: &["get"],
    },
    Rule {
        account: CONTROLLER,
        place: Place::System,
        why: "controller/src/lease.rs makes the lease when there is none.",
        group: "coordination.k8s.io",
        resources: &["leases"],
        names: &[],
        verbs: &["create"],
    },
    Rule {
        account: CONTROLLER,
        place: Place::System,
        why: "controller/src/lease.rs takes, renews and releases it, and watches it while another holds it.",
        group: "coordination.k8s.io",
        resources: &["leases"],
        names: &["tekton-pipelines-controller"],
        verbs: &["get", "list", "watch", "patch"],
    },
    Rule {
        account: CONTROLLER,
        place: Place::System,
        why: "cluster/src/config_maps.rs follows these, each by its name.",
        group: "",
        resources: &["configmaps"],
        names: &["config-defaults", "config-observability", "config-registry-cert", "feature-flags"],
        verbs: &["list", "watch"],
    },
    Rule {
        account: CONTROLLER,
        place: Place::System,
        why: "controller/src/main.rs reads at the start how to stand for the lease.",
        group: "",
        resources: &["configmaps"],
        names: &["config-leader-election-controller"],
        verbs: &["get"],
    },
    Rule {
        account: CONTROLLER,
        place: Place::System,
        why: "controller/src/capabilities.rs asks whether the server has image volumes, by a pod with one that is never stored.",
        group: "",
        resources: &["pods"],
        names: &[],
        verbs: &["create"],
    },
    Rule {
        account: CONTROLLER,
        place: Place::Cluster,
        why: "controller/src/capabilities.rs follows there whether every node can mount an image volume.",
        group: "",
        resources: &["nodes"],
        names: &[],
        verbs: &["list", "watch"],
    },
    Rule {
        account: WEBHOOK,
        place: Place::System,
        why: "cluster/src/config_maps.rs follows these, each by its name.",
        group: "",
        resources: &["configmaps"],
        names: &["config-defaults", "config-observability", "feature-flags"],
        verbs: &["list", "watch"],
    },
    Rule {
        account: WEBHOOK,
        place: Place::System,
        why: "webhook/src/certificates makes the Secret with its authority and certificate when there is none.",
        group: "",
        resources: &["secrets"],
        names: &[],
        verbs: &["create"],
    },
    Rule {
        account: WEBHOOK,
        place: Place::System,
        why: "webhook/src/certificates renews them, and follows what another replica made.",
        group: "",
        resources: &["secrets"],
        names: &["webhook-certs"],
        verbs: &["get", "list", "watch", "patch"],
    },
    Rule {
        account: WEBHOOK,
        place: Place::Cluster,
        why: "webhook/src/certificates puts the authority where API servers look for what to trust, and sees when it is gone.",
        group: "admissionregistration.k8s.io",
        resources: &["mutatingwebhookconfigurations"],
        names: &["webhook.pipeline.tekton.dev"],
        verbs: &["get", "list", "watch", "patch"],
    },
    Rule {
        account: WEBHOOK,
        place: Place::Cluster,
        why: "webhook/src/certificates does the same for what validates.",
        group: "admissionregistration.k8s.io",
        resources: &["validatingwebhookconfigurations"],
        names: &["config.webhook.pipeline.tekton.dev", "validation.webhook.pipeline.tekton.dev"],
        verbs: &["get", "list", "watch", "patch"],
    },
    Rule {
        account: WEBHOOK,
        place: Place::Cluster,
        why: "webhook/src/certificates does the same for the kinds whose versions the webhook converts.",
        group: "apiextensions.k8s.io",
        resources: &["customresourcedefinitions"],
        names: &[
            "pipelineruns.tekton.dev",
            "pipelines.tekton.dev",
            "resolutionrequests.resolution.tekton.dev",
            "taskruns.tekton.dev",
            "tasks.tekton.dev",
        ],
        verbs: &["get", "list", "watch", "patch"],
    },
];
