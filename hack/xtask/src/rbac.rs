//! What the processes may do, as manifests: made from the rules of [`table`], for a cluster and for one namespace. Pure.
//!
//! Cluster-wide, what concerns runs is a ClusterRole bound for all namespaces. For one namespace the same rules are a Role
//! there, and what concerns the cluster itself is left out.

mod table;

use std::fmt::Write;

use table::{Account, Place, RULES, Rule};

/// The namespace of the control plane.
const SYSTEM: &str = "tekton-pipelines";

/// The namespace whose runs are served in `config/overlays/single-namespace`.
const RUNS: &str = "ci";

/// Everything cluster-wide, as `config/rbac` has it: file name to text.
pub(crate) fn cluster_wide() -> Vec<(&'static str, String)> {
    let mut files: Vec<_> = [(Account::Controller, "controller.yaml"), (Account::Webhook, "webhook.yaml")]
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
    files.push(("users.yaml", people));
    files
}

/// The same for one namespace: no process has a cluster-wide role, people's roles are as ever.
pub(crate) fn single_namespace() -> String {
    let mut text = String::new();
    for account in [Account::Controller, Account::Webhook] {
        role(&mut text, account, Place::Runs, &format!("{}-tenant-access", account.name()), Some(RUNS));
        role(&mut text, account, Place::System, account.name(), Some(SYSTEM));
    }
    users(&mut text);
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
    let mut object = |kind: &str| {
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
    object("Role");
    object("RoleBinding");
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

/// Kinds that roles for people say nothing of, as upstream's do not: a policy is there to bind those who may edit, and
/// requests are made by controllers.
const NOT_FOR_PEOPLE: [&str; 2] = ["resolutionrequests", "verificationpolicies"];

/// What people get: the kinds within the roles that clusters have for people.
fn users(text: &mut String) {
    let plurals = ropewalk_api::kinds::ALL.iter().map(|kind| kind.plural);
    let plurals: Vec<&str> = plurals.filter(|plural| !NOT_FOR_PEOPLE.contains(plural)).collect();
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn every_rule_names_code_that_is_there() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        for rule in RULES {
            let mut paths = rule.why.split(' ').filter(|word| word.contains('/')).peekable();
            assert!(paths.peek().is_some(), "no path in: {}", rule.why);
            for path in paths {
                assert!(root.join(path).exists(), "{path}");
            }
        }
    }

    #[test]
    fn a_comment_is_the_text_in_short_lines() {
        let text = "word ".repeat(60);
        let lines = wrapped(text.trim());
        assert!(lines.len() > 1 && lines.iter().all(|line| line.len() <= 110), "{lines:?}");
        assert_eq!(lines.join(" "), text.trim());
    }
}
