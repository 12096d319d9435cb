//! What the processes may do, from one table: each rule names the code that needs it. Pure.
//!
//! Two shapes come of it. Cluster-wide, what concerns runs is a ClusterRole bound for all namespaces. For one namespace
//! the same rules are a Role there, and what concerns the cluster itself is left out.

use std::fmt::Write;

/// The namespace of the control plane.
const SYSTEM: &str = "tekton-pipelines";

/// The namespace whose runs are served in `config/overlays/single-namespace`.
const RUNS: &str = "ci";

/// Whom a rule is for.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Account {
    Controller,
    Webhook,
}

impl Account {
    fn name(self) -> &'static str {
        match self {
            Self::Controller => "tekton-pipelines-controller",
            Self::Webhook => "tekton-pipelines-webhook",
        }
    }

    fn component(self) -> &'static str {
        match self {
            Self::Controller => "controller",
            Self::Webhook => "webhook",
        }
    }
}

/// Where a rule applies.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Place {
    /// Where runs are served: all namespaces, or the one.
    Runs,
    /// The control plane's own namespace.
    System,
    /// Objects that have no namespace.
    Cluster,
}

/// One rule of one role.
struct Rule {
    account: Account,
    place: Place,
    /// The code that needs it, and for what.
    why: &'static str,
    group: &'static str,
    resources: &'static [&'static str],
    /// Only objects of these names; all when empty. `create` cannot be narrowed so.
    names: &'static [&'static str],
    verbs: &'static [&'static str],
}

const CONTROLLER: Account = Account::Controller;
const WEBHOOK: Account = Account::Webhook;

/// Every rule. Resources by name and verbs one by one: a wildcard would grow with what others install.
const RULES: &[Rule] = &[
    Rule {
        account: CONTROLLER,
        place: Place::Runs,
        why: "controller/src/world.rs watches runs; apply.rs creates children, cancels them, and reads what its caches lack.",
        group: "tekton.dev",
        resources: &["taskruns", "pipelineruns"],
        names: &[],
        verbs: &["get", "list", "watch", "create", "patch"],
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
        why: "Children block their owner's deletion, which clusters with OwnerReferencesPermissionEnforcement only let those ask for who may set the owner's finalizers.",
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
        why: "controller/src/world.rs watches pods; apply.rs creates them, marks them ready, ends their sidecars, and deletes those of cancelled runs.",
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
        why: "controller/src/images/pull_secrets.rs reads what registries are shown when they are asked for the command of an image.",
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
        why: "It takes, renews and releases it, and watches it while another holds it.",
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
        why: "controller/src/capabilities.rs reads there whether every node can mount an image volume.",
        group: "",
        resources: &["nodes"],
        names: &[],
        verbs: &["list"],
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
        why: "It renews them, and follows what another replica made.",
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
        why: "The same, for what validates.",
        group: "admissionregistration.k8s.io",
        resources: &["validatingwebhookconfigurations"],
        names: &["config.webhook.pipeline.tekton.dev", "validation.webhook.pipeline.tekton.dev"],
        verbs: &["get", "list", "watch", "patch"],
    },
];

/// Everything cluster-wide, as `config/rbac` has it: file name to text.
pub(crate) fn cluster_wide() -> Vec<(&'static str, String)> {
    let mut files: Vec<_> = [(CONTROLLER, "controller.yaml"), (WEBHOOK, "webhook.yaml")]
        .into_iter()
        .map(|(account, file)| {
            let cluster = format!("{}-cluster-access", account.name());
            let tenant = format!("{}-tenant-access", account.name());
            let mut text = String::new();
            role(&mut text, account, Place::Cluster, &cluster, None);
            role(&mut text, account, Place::Runs, &tenant, None);
            role(&mut text, account, Place::System, account.name(), Some(SYSTEM));
            (file, text)
        })
        .collect();
    let mut people = String::new();
    users(&mut people);
    people.push_str(INFO);
    files.push(("users.yaml", people));
    files
}

/// The same for one namespace: no process has a cluster-wide role, people's roles are as ever.
pub(crate) fn single_namespace() -> String {
    let mut text = String::new();
    for account in [CONTROLLER, WEBHOOK] {
        role(&mut text, account, Place::Runs, &format!("{}-tenant-access", account.name()), Some(RUNS));
        role(&mut text, account, Place::System, account.name(), Some(SYSTEM));
    }
    users(&mut text);
    text.push_str(INFO);
    text
}

/// Appends a role with an account's rules for a place, and its binding; nothing when there is no such rule.
fn role(text: &mut String, account: Account, place: Place, name: &str, namespace: Option<&str>) {
    let rules: Vec<&Rule> =
        RULES.iter().filter(|rule| rule.account == account && rule.place == place).collect();
    if rules.is_empty() {
        return;
    }
    let prefix = if namespace.is_some() { "" } else { "Cluster" };
    let mut head = |kind: &str| {
        let _ = write!(
            text,
            "---\napiVersion: rbac.authorization.k8s.io/v1\nkind: {prefix}{kind}\nmetadata:\n  name: {name}\n"
        );
        if let Some(namespace) = namespace {
            let _ = writeln!(text, "  namespace: {namespace}");
        }
        let _ = write!(
            text,
            "  labels:\n    app.kubernetes.io/component: {}\n    app.kubernetes.io/instance: default\n    \
             app.kubernetes.io/part-of: tekton-pipelines\n",
            account.component()
        );
        if kind == "Role" {
            text.push_str("rules:\n");
            for rule in &rules {
                append(text, rule);
            }
        } else {
            let _ = write!(
                text,
                "roleRef:\n  apiGroup: rbac.authorization.k8s.io\n  kind: {prefix}Role\n  name: {name}\n\
                 subjects:\n- kind: ServiceAccount\n  name: {}\n  namespace: {SYSTEM}\n",
                account.name()
            );
        }
    };
    head("Role");
    head("RoleBinding");
}

fn append(text: &mut String, rule: &Rule) {
    for line in wrapped(rule.why) {
        let _ = writeln!(text, "# {line}");
    }
    let _ = writeln!(text, "- apiGroups: [\"{}\"]", rule.group);
    let _ = writeln!(text, "  resources: {}", list(rule.resources));
    if !rule.names.is_empty() {
        let _ = writeln!(text, "  resourceNames: {}", list(rule.names));
    }
    let _ = writeln!(text, "  verbs: {}", list(rule.verbs));
}

fn list(items: &[&str]) -> String {
    let quoted: Vec<String> = items.iter().map(|item| format!("\"{item}\"")).collect();
    format!("[{}]", quoted.join(", "))
}

/// Words in lines short enough for a comment.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.len() + word.len() < 110 => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// What people get: the kinds within the roles that clusters have for people, and the version for everybody.
fn users(text: &mut String) {
    let plurals: Vec<&str> = ropewalk_api::kinds::ALL.iter().map(|kind| kind.plural).collect();
    let view = ["get", "list", "watch"];
    let edit = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
    for (name, into, verbs) in [
        ("tekton-aggregate-edit", &["edit", "admin"][..], &edit[..]),
        ("tekton-aggregate-view", &["view"][..], &view[..]),
    ] {
        let _ = write!(
            text,
            "---\n# Those who may {} the objects of a namespace may do so with ours.\n\
             apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata:\n  name: {name}\n  labels:\n\
             \x20   app.kubernetes.io/instance: default\n    app.kubernetes.io/part-of: tekton-pipelines\n",
            into[0]
        );
        for role in into {
            let _ = writeln!(text, "    rbac.authorization.k8s.io/aggregate-to-{role}: \"true\"");
        }
        let _ = write!(
            text,
            "rules:\n- apiGroups: [\"{}\"]\n  resources: {}\n  verbs: {}\n",
            ropewalk_api::GROUP,
            list(&plurals),
            list(verbs)
        );
    }
}

/// Clients ask which version they talk to before anything else.
const INFO: &str = "---
# tkn and the Dashboard read the version, whoever uses them.
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: tekton-pipelines-info
  namespace: tekton-pipelines
  labels:
    app.kubernetes.io/instance: default
    app.kubernetes.io/part-of: tekton-pipelines
rules:
- apiGroups: [\"\"]
  resources: [\"configmaps\"]
  resourceNames: [\"pipelines-info\"]
  verbs: [\"get\"]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: tekton-pipelines-info
  namespace: tekton-pipelines
  labels:
    app.kubernetes.io/instance: default
    app.kubernetes.io/part-of: tekton-pipelines
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: tekton-pipelines-info
subjects:
- apiGroup: rbac.authorization.k8s.io
  kind: Group
  name: system:authenticated
";
