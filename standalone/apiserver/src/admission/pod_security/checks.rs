//! The Pod Security Standards, one function a rule, in the order and the words of kube-apiserver. Pure.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Level;
use crate::object;

/// One rule that a pod breaks.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Violation {
    pub(super) reason: String,
    pub(super) detail: String,
}

impl Violation {
    fn new(reason: &str, detail: String) -> Self {
        Self { reason: reason.to_owned(), detail }
    }
}

/// A pod, and the minor release whose rules hold.
struct Subject<'a> {
    annotations: Option<&'a Value>,
    spec: &'a Value,
    minor: u32,
}

struct Rule {
    level: Level,
    /// A stricter rule of the next level says the same and more.
    overlaps: bool,
    /// The minor release that brought it.
    since: u32,
    check: fn(&Subject<'_>) -> Option<Violation>,
}

const fn baseline(since: u32, check: fn(&Subject<'_>) -> Option<Violation>) -> Rule {
    Rule { level: Level::Baseline, overlaps: false, since, check }
}

const fn overlapping(check: fn(&Subject<'_>) -> Option<Violation>) -> Rule {
    Rule { level: Level::Baseline, overlaps: true, since: 0, check }
}

const fn restricted(since: u32, check: fn(&Subject<'_>) -> Option<Violation>) -> Rule {
    Rule { level: Level::Restricted, overlaps: false, since, check }
}

const RULES: [Rule; 18] = [
    baseline(0, app_armor),
    baseline(0, host_namespaces),
    baseline(0, host_ports),
    baseline(34, hosts_of_probes),
    baseline(0, privileged),
    baseline(0, proc_mount),
    baseline(0, se_linux),
    baseline(0, sysctls),
    baseline(0, host_process),
    overlapping(added_capabilities),
    overlapping(host_paths),
    overlapping(seccomp_if_set),
    restricted(8, escalation),
    restricted(22, capabilities),
    restricted(0, volume_types),
    restricted(0, run_as_non_root),
    restricted(23, run_as_user),
    restricted(19, seccomp),
];

/// What of the level's rules this pod, or template of pods, breaks.
pub(super) fn run(level: Level, minor: u32, pod: &Value) -> Vec<Violation> {
    let spec = pod.get("spec").unwrap_or(&Value::Null);
    let subject = Subject { annotations: object::at(pod, "metadata.annotations"), spec, minor };
    let holds = |rule: &&Rule| {
        rule.level <= level && rule.since <= minor && !(rule.overlaps && level == Level::Restricted)
    };
    RULES.iter().filter(holds).filter_map(|rule| (rule.check)(&subject)).collect()
}

/// All containers, in the order they are told of.
pub(super) fn containers(spec: &Value) -> impl Iterator<Item = &Value> {
    let lists = ["initContainers", "containers", "ephemeralContainers"].into_iter();
    lists.filter_map(|list| spec.get(list).and_then(Value::as_array)).flatten()
}

impl<'a> Subject<'a> {
    fn pod_context(&self) -> &'a Value {
        self.spec.get("securityContext").unwrap_or(&Value::Null)
    }

    fn list(&self, path: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
        object::at(self.spec, path).and_then(Value::as_array).into_iter().flatten()
    }

    /// Names of the containers of which this holds.
    fn named(&self, wanted: impl Fn(&Value) -> bool) -> Vec<&'a str> {
        containers(self.spec)
            .filter(|container| wanted(container))
            .map(|container| object::text(container, "name"))
            .collect()
    }

    /// Root inside a user namespace is nobody outside.
    fn has_users_of_its_own(&self) -> bool {
        self.minor >= 35 && self.spec.get("hostUsers") == Some(&Value::Bool(false))
    }

    /// `pod`, `container "a"`, `pod and containers "a", "b"`: who sets what the function finds wrong.
    fn setters(&self, wrong: impl Fn(&Value) -> bool) -> Option<String> {
        let mut setters = Vec::new();
        if wrong(self.pod_context()) {
            setters.push("pod".to_owned());
        }
        let named = self.named(|container| wrong(context(container)));
        if !named.is_empty() {
            setters.push(containers_called(&named));
        }
        (!setters.is_empty()).then(|| setters.join(" and "))
    }
}

fn context(container: &Value) -> &Value {
    container.get("securityContext").unwrap_or(&Value::Null)
}

fn strings<'a>(object: &'a Value, path: &str) -> impl Iterator<Item = &'a str> {
    let list = object::at(object, path).and_then(Value::as_array).into_iter().flatten();
    list.filter_map(Value::as_str)
}

fn plural<'a>(one: &'a str, many: &'a str, count: usize) -> &'a str {
    if count == 1 { one } else { many }
}

fn quoted<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    words.into_iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ")
}

fn containers_called(names: &[&str]) -> String {
    format!("{} {}", plural("container", "containers", names.len()), quoted(names.iter().copied()))
}

fn is_true(object: &Value, path: &str) -> bool {
    object::at(object, path) == Some(&Value::Bool(true))
}

fn app_armor(pod: &Subject<'_>) -> Option<Violation> {
    const ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";
    fn kind(context: &Value) -> &str {
        object::text(context, "appArmorProfile.type")
    }
    let wrong = |kind: &str| !matches!(kind, "" | "RuntimeDefault" | "Localhost");
    let contexts = containers(pod.spec).map(context).chain([pod.pod_context()]);
    let kinds: BTreeSet<&str> = contexts.map(kind).filter(|kind| wrong(kind)).collect();
    let mut setters: Vec<String> = pod.setters(|context| wrong(kind(context))).into_iter().collect();
    let annotated = pod.annotations.and_then(Value::as_object).into_iter().flatten();
    let annotated: BTreeSet<String> = annotated
        .filter(|(key, _)| key.starts_with(ANNOTATION))
        .map(|(key, value)| (key, value.as_str().unwrap_or_default()))
        .filter(|(_, value)| {
            !(value.is_empty() || *value == "runtime/default" || value.starts_with("localhost/"))
        })
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    if !annotated.is_empty() {
        setters.push(plural("annotation", "annotations", annotated.len()).to_owned());
    }
    if setters.is_empty() {
        return None;
    }
    let count = kinds.len() + annotated.len();
    let values = quoted(kinds.into_iter().chain(annotated.iter().map(String::as_str)));
    let detail = format!("{} must not set AppArmor profile type to {values}", setters.join(" and "));
    Some(Violation::new(plural("forbidden AppArmor profile", "forbidden AppArmor profiles", count), detail))
}

fn host_namespaces(pod: &Subject<'_>) -> Option<Violation> {
    let shared = ["hostNetwork", "hostPID", "hostIPC"].into_iter().filter(|field| is_true(pod.spec, field));
    let shared: Vec<String> = shared.map(|field| format!("{field}=true")).collect();
    (!shared.is_empty()).then(|| Violation::new("host namespaces", shared.join(", ")))
}

fn host_ports(pod: &Subject<'_>) -> Option<Violation> {
    fn of(container: &Value) -> impl Iterator<Item = i64> {
        let ports = container.get("ports").and_then(Value::as_array).into_iter().flatten();
        ports.filter_map(|port| port.get("hostPort")?.as_i64()).filter(|port| *port != 0)
    }
    let ports: BTreeSet<i64> = containers(pod.spec).flat_map(of).collect();
    let names = pod.named(|container| of(container).next().is_some());
    if names.is_empty() {
        return None;
    }
    let shown: Vec<String> = ports.iter().map(i64::to_string).collect();
    let (verb, noun) = (plural("uses", "use", names.len()), plural("hostPort", "hostPorts", ports.len()));
    Some(Violation::new(
        "hostPort",
        format!("{} {verb} {noun} {}", containers_called(&names), shown.join(", ")),
    ))
}

fn hosts_of_probes(pod: &Subject<'_>) -> Option<Violation> {
    const HANDLERS: [&str; 5] =
        ["livenessProbe", "readinessProbe", "startupProbe", "lifecycle.postStart", "lifecycle.preStop"];
    fn of(container: &Value) -> impl Iterator<Item = &str> {
        let handlers = HANDLERS.into_iter().filter_map(|handler| object::at(container, handler));
        let hosts = handlers
            .flat_map(|handler| ["httpGet.host", "tcpSocket.host"].map(|path| object::text(handler, path)));
        hosts.filter(|host| !host.is_empty())
    }
    let hosts: BTreeSet<&str> = containers(pod.spec).flat_map(of).collect();
    let mut names = pod.named(|container| of(container).next().is_some());
    names.sort_unstable();
    if names.is_empty() {
        return None;
    }
    let verb = plural("uses", "use", names.len());
    let noun = plural("probe or lifecycle host", "probe or lifecycle hosts", hosts.len());
    let detail = format!("{} {verb} {noun} {}", containers_called(&names), quoted(hosts));
    Some(Violation::new("probe or lifecycle host", detail))
}

fn privileged(pod: &Subject<'_>) -> Option<Violation> {
    let names = pod.named(|container| is_true(context(container), "privileged"));
    let detail = || format!("{} must not set securityContext.privileged=true", containers_called(&names));
    (!names.is_empty()).then(|| Violation::new("privileged", detail()))
}

fn proc_mount(pod: &Subject<'_>) -> Option<Violation> {
    fn of(container: &Value) -> Option<&str> {
        Some(object::text(context(container), "procMount")).filter(|mount| !matches!(*mount, "" | "Default"))
    }
    if pod.has_users_of_its_own() {
        return None;
    }
    let mounts: BTreeSet<&str> = containers(pod.spec).filter_map(of).collect();
    let names = pod.named(|container| of(container).is_some());
    let detail = || {
        let names = containers_called(&names);
        format!("{names} must not set securityContext.procMount to {}", quoted(mounts.iter().copied()))
    };
    (!names.is_empty()).then(|| Violation::new("procMount", detail()))
}

fn se_linux(pod: &Subject<'_>) -> Option<Violation> {
    let allowed = |kind: &str| {
        matches!(kind, "" | "container_t" | "container_init_t" | "container_kvm_t")
            || kind == "container_engine_t" && pod.minor >= 31
    };
    let get =
        |context: &Value, field: &str| object::text(context, &format!("seLinuxOptions.{field}")).to_owned();
    let is_set = |context: &Value, field: &str| !get(context, field).is_empty();
    let wrong = |context: &Value| {
        !allowed(&get(context, "type")) || is_set(context, "user") || is_set(context, "role")
    };
    let setters = pod.setters(wrong)?;
    let contexts = || containers(pod.spec).map(context).chain([pod.pod_context()]);
    let types: BTreeSet<String> =
        contexts().map(|context| get(context, "type")).filter(|kind| !allowed(kind)).collect();
    let mut faults = Vec::new();
    if !types.is_empty() {
        let noun = plural("type", "types", types.len());
        faults.push(format!("{noun} {}", quoted(types.iter().map(String::as_str))));
    }
    for field in ["user", "role"] {
        if contexts().any(|context| is_set(context, field)) {
            faults.push(format!("{field} may not be set"));
        }
    }
    let detail = format!("{setters} set forbidden securityContext.seLinuxOptions: {}", faults.join("; "));
    Some(Violation::new("seLinuxOptions", detail))
}

/// The settings of the kernel that concern nobody else, and since when they are known not to.
const SYSCTLS: [(&str, u32); 12] = [
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_rmem", 32),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.tcp_wmem", 32),
];

fn sysctls(pod: &Subject<'_>) -> Option<Violation> {
    let allowed = |name: &str| SYSCTLS.iter().any(|(known, since)| *known == name && *since <= pod.minor);
    let names = pod.list("securityContext.sysctls").map(|sysctl| object::text(sysctl, "name"));
    let names: Vec<&str> = names.filter(|name| !allowed(name)).collect();
    (!names.is_empty()).then(|| Violation::new("forbidden sysctls", names.join(", ")))
}

fn host_process(pod: &Subject<'_>) -> Option<Violation> {
    let setters = pod.setters(|context| is_true(context, "windowsOptions.hostProcess"))?;
    let detail = format!("{setters} must not set securityContext.windowsOptions.hostProcess=true");
    Some(Violation::new("hostProcess", detail))
}

/// What the baseline standard lets containers add: its own list, which is not what an engine gives them by default.
const BASELINE_CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// `container "a" must not include "X" in securityContext.capabilities.add`
fn adds(pod: &Subject<'_>, allowed: &[&str]) -> Option<String> {
    let of =
        |container| strings(context(container), "capabilities.add").filter(|name| !allowed.contains(name));
    let added: BTreeSet<&str> = containers(pod.spec).flat_map(of).collect();
    let names = pod.named(|container| {
        strings(context(container), "capabilities.add").any(|name| !allowed.contains(&name))
    });
    (!names.is_empty()).then(|| {
        let names = containers_called(&names);
        format!("{names} must not include {} in securityContext.capabilities.add", quoted(added))
    })
}

fn added_capabilities(pod: &Subject<'_>) -> Option<Violation> {
    adds(pod, &BASELINE_CAPABILITIES).map(|detail| Violation::new("non-default capabilities", detail))
}

fn host_paths(pod: &Subject<'_>) -> Option<Violation> {
    let volumes = pod.list("volumes").filter(|volume| volume.get("hostPath").is_some());
    let names: Vec<&str> = volumes.map(|volume| object::text(volume, "name")).collect();
    let noun = plural("volume", "volumes", names.len());
    (!names.is_empty()).then(|| Violation::new("hostPath volumes", format!("{noun} {}", quoted(names))))
}

fn is_bad_seccomp(context: &Value) -> bool {
    context.get("seccompProfile").is_some() && !is_good_seccomp(context)
}

fn is_good_seccomp(context: &Value) -> bool {
    matches!(object::text(context, "seccompProfile.type"), "RuntimeDefault" | "Localhost")
}

fn seccomp_if_set(pod: &Subject<'_>) -> Option<Violation> {
    // Before 1.19 there was an annotation instead, which no node heeds any more.
    let setters = pod.setters(is_bad_seccomp).filter(|_| pod.minor >= 19)?;
    let contexts = containers(pod.spec).map(context).chain([pod.pod_context()]);
    let kinds: BTreeSet<&str> = contexts
        .filter(|context| is_bad_seccomp(context))
        .map(|context| object::text(context, "seccompProfile.type"))
        .collect();
    let detail = format!("{setters} must not set securityContext.seccompProfile.type to {}", quoted(kinds));
    Some(Violation::new("seccompProfile", detail))
}

fn escalation(pod: &Subject<'_>) -> Option<Violation> {
    let allowed = Some(&Value::Bool(false));
    let names = pod.named(|container| context(container).get("allowPrivilegeEscalation") != allowed);
    let detail =
        || format!("{} must set securityContext.allowPrivilegeEscalation=false", containers_called(&names));
    (!names.is_empty()).then(|| Violation::new("allowPrivilegeEscalation != false", detail()))
}

fn capabilities(pod: &Subject<'_>) -> Option<Violation> {
    let keeping =
        pod.named(|container| !strings(context(container), "capabilities.drop").any(|name| name == "ALL"));
    let mut faults = Vec::new();
    if !keeping.is_empty() {
        let names = containers_called(&keeping);
        faults.push(format!("{names} must set securityContext.capabilities.drop=[\"ALL\"]"));
    }
    faults.extend(adds(pod, &["NET_BIND_SERVICE"]));
    (!faults.is_empty()).then(|| Violation::new("unrestricted capabilities", faults.join("; ")))
}

fn volume_types(pod: &Subject<'_>) -> Option<Violation> {
    const ALLOWED: [&str; 9] = [
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "image",
        "persistentVolumeClaim",
        "projected",
        "secret",
    ];
    let (mut names, mut types) = (Vec::new(), BTreeSet::new());
    for volume in pod.list("volumes") {
        let mut keys = volume.as_object().into_iter().flatten().map(|(key, _)| key.as_str());
        let kind = keys.find(|key| *key != "name").unwrap_or("unknown");
        if !ALLOWED.contains(&kind) {
            names.push(object::text(volume, "name"));
            types.insert(kind);
        }
    }
    if names.is_empty() {
        return None;
    }
    let (noun, verb) = (plural("volume", "volumes", names.len()), plural("uses", "use", names.len()));
    let what = plural("restricted volume type", "restricted volume types", types.len());
    let detail = format!("{noun} {} {verb} {what} {}", quoted(names), quoted(types));
    Some(Violation::new("restricted volume types", detail))
}

fn run_as_non_root(pod: &Subject<'_>) -> Option<Violation> {
    const REASON: &str = "runAsNonRoot != true";
    if pod.has_users_of_its_own() {
        return None;
    }
    let refuses = Some(&Value::Bool(false));
    if let Some(setters) = pod.setters(|context| context.get("runAsNonRoot") == refuses) {
        return Some(Violation::new(
            REASON,
            format!("{setters} must not set securityContext.runAsNonRoot=false"),
        ));
    }
    if is_true(pod.pod_context(), "runAsNonRoot") {
        return None;
    }
    let silent = pod.named(|container| context(container).get("runAsNonRoot").is_none());
    let detail =
        || format!("pod or {} must set securityContext.runAsNonRoot=true", containers_called(&silent));
    (!silent.is_empty()).then(|| Violation::new(REASON, detail()))
}

fn run_as_user(pod: &Subject<'_>) -> Option<Violation> {
    if pod.has_users_of_its_own() {
        return None;
    }
    let is_root = |context: &Value| context.get("runAsUser").and_then(Value::as_i64) == Some(0);
    let setters = pod.setters(is_root)?;
    Some(Violation::new("runAsUser=0", format!("{setters} must not set runAsUser=0")))
}

fn seccomp(pod: &Subject<'_>) -> Option<Violation> {
    if let Some(violation) = seccomp_if_set(pod) {
        return Some(violation);
    }
    if is_good_seccomp(pod.pod_context()) {
        return None;
    }
    let silent = pod.named(|container| context(container).get("seccompProfile").is_none());
    let detail = || {
        let names = containers_called(&silent);
        format!(
            "pod or {names} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\""
        )
    };
    (!silent.is_empty()).then(|| Violation::new("seccompProfile", detail()))
}
