//! The OCI `config.json` of a container and the root file system beneath it, as a function of the pod and of
//! what the other modules resolved. No IO: paths are the shell's, they are only written down here.
//!
//! Cgroups are absent on purpose: libcontainer can only use one path for all controllers of cgroup v1, while a
//! process may live in a different one per controller, so the shell places the container itself.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Component, Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod};
use oci_spec::OciSpecError;
pub use oci_spec::runtime::Spec;
use oci_spec::runtime::{
    Capability, LinuxBuilder, LinuxCapabilitiesBuilder, LinuxDevice, LinuxNamespace, LinuxNamespaceBuilder,
    LinuxNamespaceType, Mount, MountBuilder, ProcessBuilder, RootBuilder, SpecBuilder, UserBuilder,
};
use ropewalk_quantity::Quantity;
use serde::{Deserialize, Serialize};

use crate::account::Person;
use crate::image::{self, ImageConfig};
use crate::user::Identity;
use crate::volume::{Use, plain_name};
use crate::{ConfigError, HostFacts, env, fields, isolation, resolver};

/// Kernel interfaces a container must not read; every container engine masks these.
const MASKED: [&str; 10] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];

/// Kernel interfaces a container must not write.
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Volumes that one image may ask for: several times what any database does.
const MAX_IMAGE_VOLUMES: usize = 64;

/// Where the termination message goes unless the container says otherwise.
pub const DEFAULT_TERMINATION_PATH: &str = "/dev/termination-log";

/// Paths of one container on the machine.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Root file system, mounted by the shim.
    pub rootfs: PathBuf,
    /// The file the container's termination message is written to.
    pub termination_log: PathBuf,
    /// The network namespace it joins, mounted there; none for the machine's own.
    pub network: Option<PathBuf>,
    /// Directory (or file, for a hostPath) of each volume of the pod.
    pub volumes: BTreeMap<String, PathBuf>,
    /// Directory the shim binds sub paths into: the i-th [`SubPath`] appears as `<i>` in it.
    pub sub_paths: PathBuf,
    /// Directory for the volumes that images ask for: that of the i-th [`ImageVolume`] is `<i>` in it.
    pub image_volumes: PathBuf,
    /// The machine's devices; only privileged containers get them.
    pub devices: Vec<LinuxDevice>,
    /// Whether all this happens in a user namespace. What belongs to namespaces of the machine cannot be mounted anew there:
    /// the container sees what the machine has mounted.
    pub in_user_namespace: bool,
}

/// A volume's sub path, to be resolved inside the volume's root and bound where the spec expects it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct SubPath {
    /// Root of the volume.
    pub root: PathBuf,
    /// Path below it; made if missing.
    pub path: String,
    /// Where to bind it.
    pub target: PathBuf,
}

/// A volume that an image asks for, to be made with what the root file system has at its path.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ImageVolume {
    /// Absolute, in the root file system.
    pub path: PathBuf,
    /// Where to make it.
    pub target: PathBuf,
}

/// The working directory, to be made when it is missing.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct WorkingDir {
    /// Directory on the machine that `path` is resolved in: a volume's or the root file system's.
    pub root: PathBuf,
    /// Path below it.
    pub path: PathBuf,
}

/// A throw-away root file system: read-only layers beneath one that the container writes to, with some of them hidden.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Rootfs {
    /// Read-only layers, the topmost first; none for an image without any.
    pub lowers: Vec<PathBuf>,
    /// Where the layer above them is kept.
    pub upper: Upper,
    /// Paths that do not exist for the container; only with one lower layer.
    pub hidden: Vec<String>,
    /// Directories that are empty for the container, with their mode; only with one lower layer.
    pub empty: BTreeMap<String, u32>,
    /// Files written over the layers.
    pub files: BTreeMap<String, String>,
}

/// Where the layer is that a container writes to.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Upper {
    /// In memory, bounded.
    Memory,
    /// On the node's disk, as what builds install is often larger than memory.
    Disk,
}

/// What a root file system is made of.
#[derive(Clone, Copy, Debug)]
pub enum Base<'a> {
    /// The embedded image, in this directory.
    Embedded(&'a Path),
    /// An image's layers, the topmost first.
    Image(&'a [PathBuf]),
    /// The machine's own root, without what is private; these are the directories of this program.
    Host(&'a [&'a str]),
}

/// Cgroup limits of a container.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Limits {
    /// Memory in bytes.
    pub memory: Option<u64>,
    /// CPU time in microseconds per 100 ms.
    pub cpu_quota: Option<u64>,
    /// Share of CPU time where it is short, in 1024ths of a core, from 2 on.
    pub cpu_shares: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
}

/// Everything the shim needs to make one container.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// The OCI document.
    pub spec: Spec,
    /// Sub paths to bind first.
    pub sub_paths: Vec<SubPath>,
    /// Volumes to make first, before anything is made in them.
    pub image_volumes: Vec<ImageVolume>,
    /// Working directory to make first.
    pub working_dir: Option<WorkingDir>,
    /// Cgroup limits.
    pub limits: Limits,
}

/// What of the machine a step must not see, beyond what `own` (the data root) holds.
const HIDDEN: [&str; 35] = [
    "/etc/shadow",
    "/etc/shadow-",
    "/etc/gshadow",
    "/etc/gshadow-",
    "/etc/sudoers",
    "/etc/sudoers.d",
    "/etc/ssh",
    "/etc/ssl/private",
    "/etc/kubernetes",
    "/etc/rancher",
    "/etc/wireguard",
    "/etc/NetworkManager",
    "/etc/cloud",
    "/etc/krb5.keytab",
    "/etc/letsencrypt",
    "/etc/security/opasswd",
    "/swap.img",
    "/swapfile",
    "/var/backups",
    "/var/cache/debconf",
    "/var/crash",
    "/var/lib/cloud",
    "/var/lib/containerd",
    "/var/lib/docker",
    "/var/lib/jenkins",
    "/var/lib/kubelet",
    "/var/lib/mysql",
    "/var/lib/postgresql",
    "/var/lib/private",
    "/var/lib/rancher",
    "/var/lib/redis",
    "/var/lib/sudo",
    "/var/lib/systemd/coredump",
    "/var/log",
    "/var/spool/cron",
];

/// Directories a step finds empty: homes, sockets and what others left behind.
const EMPTY: [(&str, u32); 9] = [
    ("/home", 0o755),
    ("/root", 0o700),
    ("/run", 0o755),
    ("/tmp", 0o1777),
    ("/var/tmp", 0o1777),
    ("/mnt", 0o755),
    ("/media", 0o755),
    ("/srv", 0o755),
    ("/boot", 0o755),
];

/// The root file system of a container of `pod`; `resolv_conf` is what its resolver goes by unless it says more.
pub fn rootfs(pod: &Pod, base: Base<'_>, resolv_conf: &str, facts: &HostFacts) -> Rootfs {
    let mut files = BTreeMap::from([
        ("/etc/hostname".to_owned(), format!("{}\n", env::hostname(pod))),
        ("/etc/hosts".to_owned(), hosts(pod, facts)),
        ("/etc/resolv.conf".to_owned(), resolver::resolv_conf(pod, resolv_conf)),
    ]);
    if !matches!(base, Base::Image(_)) {
        // Tools such as buildah ask this file whether they run in a container; in images made for them they know.
        files.insert("/run/.containerenv".to_owned(), String::new());
    }
    match base {
        Base::Embedded(directory) => {
            files.insert(
                "/etc/passwd".to_owned(),
                "root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/:/sbin/nologin\n"
                    .to_owned(),
            );
            Rootfs {
                lowers: vec![directory.to_owned()],
                upper: Upper::Memory,
                hidden: Vec::new(),
                empty: BTreeMap::from([("/tmp".to_owned(), 0o1777), ("/root".to_owned(), 0o700)]),
                files,
            }
        }
        Base::Image(layers) => Rootfs {
            lowers: layers.to_vec(),
            upper: Upper::Disk,
            hidden: Vec::new(),
            empty: BTreeMap::new(),
            files,
        },
        // The layer cannot lie on the file system of its base: the kernel refuses one that is below the other.
        Base::Host(own) => Rootfs {
            lowers: vec![PathBuf::from("/")],
            upper: Upper::Memory,
            hidden: own.iter().chain(&HIDDEN).map(|&path| path.to_owned()).collect(),
            empty: EMPTY.iter().map(|&(path, mode)| (path.to_owned(), mode)).collect(),
            files,
        },
    }
}

fn hosts(pod: &Pod, facts: &HostFacts) -> String {
    let own = ["127.0.0.1\tlocalhost".to_owned(), "::1\tlocalhost ip6-localhost ip6-loopback".to_owned()];
    let named = facts.pod_ip.iter().map(|ip| format!("{ip}\t{}", env::hostname(pod)));
    let aliases = pod.spec.iter().flat_map(|spec| spec.host_aliases.iter().flatten());
    let aliases = aliases
        .map(|alias| format!("{}\t{}", alias.ip, alias.hostnames.clone().unwrap_or_default().join("\t")));
    own.into_iter().chain(named).chain(aliases).map(|line| line + "\n").collect()
}

/// The bundle of one container, whose user is still to be said by [`run_as`]. `image` is what its image says, if it runs
/// from one; `variables` are those the pod gives it.
pub fn bundle(
    pod: &Pod,
    container: &Container,
    image: Option<&ImageConfig>,
    variables: &BTreeMap<String, String>,
    identity: &Identity,
    uses: &[Use],
    layout: &Layout,
) -> Result<Bundle, ConfigError> {
    plain_name(&container.name)?;
    let nothing = ImageConfig::default();
    let config = image.unwrap_or(&nothing);
    let args = image::command(container, config, variables);
    if args.is_empty() {
        let why =
            if image.is_some() { "has neither ENTRYPOINT nor CMD" } else { "gives none with --rootfs host" };
        let image = container.image.clone().unwrap_or_default();
        return Err(ConfigError::NoCommand { container: container.name.clone(), image, why });
    }

    let mut sub_paths = Vec::new();
    let mut volume_mounts = Vec::new();
    let mut roots = vec![(PathBuf::from("/"), layout.rootfs.clone(), identity.read_only_root)];
    for found in uses {
        let root = layout
            .volumes
            .get(&found.volume)
            .ok_or_else(|| ConfigError::NoSuchVolume(found.volume.clone()))?;
        let source = match &found.sub_path {
            None => root.clone(),
            Some(path) => {
                let target = layout.sub_paths.join(sub_paths.len().to_string());
                sub_paths.push(SubPath { root: root.clone(), path: path.clone(), target: target.clone() });
                target
            }
        };
        roots.push((PathBuf::from(&found.destination), source.clone(), found.read_only));
        volume_mounts.push((found.destination.clone(), source, found.read_only));
    }

    let mut image_volumes = Vec::new();
    for path in wanted_volumes(container, config, uses)? {
        let target = layout.image_volumes.join(image_volumes.len().to_string());
        roots.push((path.clone(), target.clone(), false));
        volume_mounts.push((path.to_string_lossy().into_owned(), target.clone(), false));
        image_volumes.push(ImageVolume { path, target });
    }
    volume_mounts.sort_by_key(|(at, ..)| Path::new(at).components().count());

    let cwd = container.working_dir.as_ref().filter(|dir| !dir.is_empty()).unwrap_or(&config.working_dir);
    let cwd = PathBuf::from("/").join(cwd);
    let deepest =
        roots.iter().filter(|(at, ..)| cwd.starts_with(at)).max_by_key(|(at, ..)| at.components().count());
    // A missing directory in a read-only place stays missing; starting the container then fails and says so.
    let working_dir = deepest.filter(|(at, _, read_only)| !read_only && *at != cwd).map(|(at, root, _)| {
        WorkingDir { root: root.clone(), path: cwd.strip_prefix(at).map(Path::to_owned).unwrap_or_default() }
    });

    let build = |error: OciSpecError| ConfigError::Oci {
        container: container.name.clone(),
        detail: error.to_string(),
    };
    let variables = env::complete(variables, &config.env, &env::hostname(pod));
    let mut spec =
        document(container, args, &variables, identity, &cwd, &volume_mounts, layout, pod).map_err(build)?;
    isolation::isolate(&mut spec, pod, container, identity, &layout.devices)?;
    Ok(Bundle { spec, sub_paths, image_volumes, working_dir, limits: limits(container)? })
}

/// The paths at which the image asks for a volume and the pod has none, as containerd's runtime for Kubernetes gives them.
fn wanted_volumes(
    container: &Container,
    config: &ImageConfig,
    uses: &[Use],
) -> Result<BTreeSet<PathBuf>, ConfigError> {
    let taken: BTreeSet<PathBuf> = uses.iter().map(|found| cleaned(&found.destination)).collect();
    let mut wanted: BTreeSet<PathBuf> = config.volumes.iter().map(|path| cleaned(path)).collect();
    wanted.retain(|path| path != Path::new("/") && !taken.contains(path));
    if wanted.len() > MAX_IMAGE_VOLUMES {
        let image = container.image.as_deref().unwrap_or_default();
        return Err(ConfigError::Unsupported {
            what: format!("{} volumes of image \"{image}\"", wanted.len()),
            hint: "use an image that declares fewer",
        });
    }
    Ok(wanted)
}

/// The absolute path that is meant, whatever `.` and `..` are in it.
fn cleaned(path: &str) -> PathBuf {
    let mut parts = Vec::new();
    for part in Path::new(path).components() {
        match part {
            Component::Normal(part) => parts.push(part),
            Component::ParentDir => drop(parts.pop()),
            _ => {}
        }
    }
    Path::new("/").join(parts.into_iter().collect::<PathBuf>())
}

/// Says whom the container runs as: its user and groups, and `HOME` where nobody set it.
pub fn run_as(spec: &mut Spec, person: &Person) {
    let Some(process) = spec.process_mut() else { return };
    let groups: Vec<u32> = person.groups.iter().copied().collect();
    process
        .user_mut()
        .set_uid(person.uid)
        .set_gid(person.gid)
        .set_additional_gids(Some(groups).filter(|groups| !groups.is_empty()));
    let variables = process.env_mut().get_or_insert_default();
    if !variables.iter().any(|variable| variable.starts_with("HOME=")) {
        variables.push(format!("HOME={}", person.home.as_deref().unwrap_or("/")));
    }
}

fn limits(container: &Container) -> Result<Limits, ConfigError> {
    let resources = container.resources.as_ref();
    let limits = resources.and_then(|resources| resources.limits.as_ref());
    let requests = resources.and_then(|resources| resources.requests.as_ref());
    let most = |name| limits.and_then(|list| list.get(name)).map(fields::amount).transpose();
    // What is not asked for is what may be had at most, as the API server fills it in.
    let asked = requests.and_then(|list| list.get("cpu")).or_else(|| limits.and_then(|list| list.get("cpu")));
    let asked = asked.map(fields::amount).transpose()?.map_or(0, Quantity::millis);
    let positive = |value: i128| u64::try_from(value).ok().filter(|value| *value > 0);
    Ok(Limits {
        memory: most("memory")?.and_then(|memory| positive(memory.units())),
        // One core is 100,000 µs in every 100 ms; the kernel refuses less than 1 ms.
        cpu_quota: most("cpu")?.and_then(|cpu| positive(cpu.millis() * 100)).map(|quota| quota.max(1000)),
        // As a kubelet: who asks for nothing gets what others leave. The kernel takes 2 to 2^18.
        cpu_shares: positive((asked * 1024 / 1000).clamp(2, 1 << 18)),
        pids: None,
    })
}

#[expect(clippy::too_many_arguments, reason = "one call site; a struct would only name the same list twice")]
fn document(
    container: &Container,
    args: Vec<String>,
    variables: &BTreeMap<String, String>,
    identity: &Identity,
    cwd: &Path,
    volume_mounts: &[(String, PathBuf, bool)],
    layout: &Layout,
    pod: &Pod,
) -> Result<Spec, OciSpecError> {
    let capabilities: HashSet<Capability> = identity
        .capabilities
        .iter()
        .filter_map(|name| serde_json::from_value(serde_json::Value::String(format!("CAP_{name}"))).ok())
        .collect();
    let mut process = ProcessBuilder::default()
        .terminal(false)
        .user(UserBuilder::default().uid(0_u32).gid(0_u32).build()?)
        .args(args)
        .env(variables.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>())
        .cwd(cwd)
        .capabilities(
            LinuxCapabilitiesBuilder::default()
                .bounding(capabilities.clone())
                .effective(capabilities.clone())
                .permitted(capabilities)
                .inheritable(HashSet::new())
                .ambient(HashSet::new())
                .build()?,
        )
        .no_new_privileges(identity.no_new_privileges)
        .build()?;
    // The builder's own default would be a limit that only some users may set; what this process has is right.
    process.set_rlimits(None);

    let mut mounts = kernel_mounts(identity.privileged, &from_machine(pod, layout))?;
    let taken: HashSet<&Path> = volume_mounts.iter().map(|(at, ..)| Path::new(at.as_str())).collect();
    mounts.retain(|mount| !taken.contains(mount.destination().as_path()));
    for (destination, source, read_only) in volume_mounts {
        mounts.push(bind(destination, source, *read_only)?);
    }
    let termination = container.termination_message_path.as_deref().filter(|path| !path.is_empty());
    mounts.push(bind(termination.unwrap_or(DEFAULT_TERMINATION_PATH), &layout.termination_log, false)?);

    let mut linux = LinuxBuilder::default()
        .namespaces(namespaces(layout.network.as_deref())?)
        .rootfs_propagation("private");
    if identity.privileged {
        linux = linux.masked_paths(Vec::new()).readonly_paths(Vec::new());
    } else {
        linux = linux
            .masked_paths(MASKED.map(str::to_owned).to_vec())
            .readonly_paths(READ_ONLY.map(str::to_owned).to_vec());
    }
    let mut linux = linux.build()?;
    // The builder's default names devices for a cgroup that is not the runtime's to make.
    linux.set_resources(None);
    SpecBuilder::default()
        .version("1.0.2")
        .hostname(env::hostname(pod))
        .root(RootBuilder::default().path(&layout.rootfs).readonly(identity.read_only_root).build()?)
        .process(process)
        .mounts(mounts)
        .linux(linux)
        .build()
}

/// Own pid, mount, IPC and UTS namespaces; the network is the pod's, or the machine's.
fn namespaces(network: Option<&Path>) -> Result<Vec<LinuxNamespace>, OciSpecError> {
    let own = [
        LinuxNamespaceType::Pid,
        LinuxNamespaceType::Mount,
        LinuxNamespaceType::Ipc,
        LinuxNamespaceType::Uts,
    ];
    let own = own.into_iter().map(|kind| LinuxNamespaceBuilder::default().typ(kind));
    let network =
        network.map(|path| LinuxNamespaceBuilder::default().typ(LinuxNamespaceType::Network).path(path));
    own.chain(network).map(LinuxNamespaceBuilder::build).collect()
}

/// Kernel interfaces that belong to the machine's namespaces and cannot be mounted anew, with where the machine has them, if
/// it has them for sure.
fn from_machine(pod: &Pod, layout: &Layout) -> BTreeMap<&'static str, Option<&'static str>> {
    let spec = pod.spec.as_ref();
    let shares = [
        ("/proc", Some("/proc"), spec.and_then(|spec| spec.host_pid) == Some(true)),
        ("/dev/mqueue", None, spec.and_then(|spec| spec.host_ipc) == Some(true)),
        ("/sys", Some("/sys"), layout.network.is_none()),
    ];
    let shared = shares.into_iter().filter(|(.., shared)| *shared && layout.in_user_namespace);
    shared.map(|(at, source, _)| (at, source)).collect()
}

fn kernel_mounts(
    privileged: bool,
    machine: &BTreeMap<&str, Option<&str>>,
) -> Result<Vec<Mount>, OciSpecError> {
    let sysfs = if privileged { "rw" } else { "ro" };
    let table: [(&str, &str, &str, &[&str]); 6] = [
        ("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        ("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        ("/dev/pts", "devpts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]),
        ("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        ("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        ("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", sysfs]),
    ];
    table
        .into_iter()
        .filter_map(|(at, kind, source, options)| match machine.get(at) {
            None => Some((at, kind, source, options, None)),
            Some(source) => source.map(|source| (at, "bind", source, options, Some("rbind"))),
        })
        .map(|(at, kind, source, options, bound)| {
            let options = options.iter().copied().chain(bound);
            MountBuilder::default()
                .destination(at)
                .typ(kind)
                .source(source)
                .options(options.map(str::to_owned).collect::<Vec<_>>())
                .build()
        })
        .collect()
}

fn bind(destination: &str, source: &Path, read_only: bool) -> Result<Mount, OciSpecError> {
    let access = if read_only { "ro" } else { "rw" };
    MountBuilder::default()
        .destination(destination)
        .typ("bind")
        .source(source)
        .options(["rbind", "rprivate", access].map(str::to_owned).to_vec())
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::example;
    use crate::user;
    use serde_json::{Value, json};

    fn layout() -> Layout {
        Layout {
            rootfs: "/d/rootfs".into(),
            termination_log: "/d/termination-log".into(),
            network: None,
            volumes: [("v".to_owned(), PathBuf::from("/d/volumes/v"))].into(),
            sub_paths: "/d/sub".into(),
            image_volumes: "/d/scratch/volumes".into(),
            devices: Vec::new(),
            in_user_namespace: false,
        }
    }

    fn built(container: Value, uses: &[Use]) -> Result<Bundle, ConfigError> {
        built_from(None, container, uses)
    }

    fn built_from(
        image: Option<&ImageConfig>,
        container: Value,
        uses: &[Use],
    ) -> Result<Bundle, ConfigError> {
        let mut container = container;
        container["name"] = json!("c");
        let container: Container = serde_json::from_value(container).expect("a container");
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p"}})).expect("a pod");
        let identity = user::identity(&pod, &container, "", &example()).expect("an identity");
        let variables = [("A".to_owned(), "1".to_owned())].into();
        bundle(&pod, &container, image, &variables, &identity, uses, &layout())
    }

    fn at(sub_path: Option<&str>, destination: &str, read_only: bool) -> Use {
        Use {
            volume: "v".into(),
            sub_path: sub_path.map(str::to_owned),
            destination: destination.into(),
            read_only,
        }
    }

    #[test]
    fn what_a_user_namespace_cannot_mount_is_the_machines() {
        let kinds = |spec: Value, layout: Layout| {
            let pod: Pod =
                serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).expect("a pod");
            let mounts = kernel_mounts(false, &from_machine(&pod, &layout)).expect("mounts");
            let found: BTreeMap<String, String> = mounts
                .iter()
                .map(|mount| {
                    (mount.destination().display().to_string(), mount.typ().clone().expect("a kind"))
                })
                .collect();
            ["/proc", "/dev/mqueue", "/sys"].map(|at| found.get(at).cloned().unwrap_or_default())
        };
        let inside = || Layout { in_user_namespace: true, ..layout() };
        let shares = json!({"containers": [], "hostPID": true, "hostIPC": true});
        let own = json!({"containers": []});
        assert_eq!(kinds(shares.clone(), layout()), ["proc", "mqueue", "sysfs"]);
        assert_eq!(kinds(shares, inside()), ["bind", "", "bind"]);
        assert_eq!(kinds(own.clone(), inside()), ["proc", "mqueue", "bind"]);
        assert_eq!(
            kinds(own, Layout { network: Some("/n".into()), ..inside() }),
            ["proc", "mqueue", "sysfs"]
        );
    }

    #[test]
    fn command_and_mounts() {
        let made = built(
            json!({"command": ["echo"], "args": ["$(A)", "$$(A)"], "terminationMessagePath": "/tekton/termination"}),
            &[at(None, "/workspace", true), at(Some("x/y"), "/dev/shm", false)],
        )
        .expect("a bundle");
        let spec = serde_json::to_value(&made.spec).expect("serialises");
        assert_eq!(spec["process"]["args"], json!(["echo", "1", "$(A)"]));
        for absent in ["/process/rlimits", "/linux/resources", "/linux/cgroupsPath"] {
            assert_eq!(spec.pointer(absent), None, "{absent}");
        }
        let mounts = spec["mounts"].as_array().expect("mounts");
        let bound: Vec<_> = mounts
            .iter()
            .filter(|mount| mount["type"] == "bind")
            .map(|mount| (&mount["destination"], &mount["source"], &mount["options"][2]))
            .collect();
        assert_eq!(
            bound,
            [
                (&json!("/workspace"), &json!("/d/volumes/v"), &json!("ro")),
                (&json!("/dev/shm"), &json!("/d/sub/0"), &json!("rw")),
                (&json!("/tekton/termination"), &json!("/d/termination-log"), &json!("rw")),
            ]
        );
        let shm = mounts.iter().filter(|mount| mount["destination"] == "/dev/shm").count();
        assert_eq!(shm, 1, "a volume takes the place of the default mount");
        assert_eq!(
            made.sub_paths,
            [SubPath { root: "/d/volumes/v".into(), path: "x/y".into(), target: "/d/sub/0".into() }]
        );
    }

    #[test]
    fn working_directory_is_made_where_it_will_be_seen() {
        let dir = |root: &str, path: &str| Some(WorkingDir { root: root.into(), path: path.into() });
        for (given, uses, expected) in [
            (None, vec![], None),
            (Some("/a/b"), vec![], dir("/d/rootfs", "a/b")),
            (Some("rel"), vec![], dir("/d/rootfs", "rel")),
            (Some("/workspace/src"), vec![at(None, "/workspace", false)], dir("/d/volumes/v", "src")),
            (Some("/workspace"), vec![at(None, "/workspace", false)], None),
            (Some("/workspace/src"), vec![at(None, "/workspace", true)], None),
            (Some("/workspaces"), vec![at(None, "/workspace", false)], dir("/d/rootfs", "workspaces")),
        ] {
            let made = built(json!({"command": ["x"], "workingDir": given}), &uses).expect("a bundle");
            assert_eq!(made.working_dir, expected, "{given:?}");
        }
    }

    #[test]
    fn limits_become_cgroup_numbers() {
        let made =
            built(json!({"command": ["x"], "resources": {"limits": {"memory": "64Mi", "cpu": "250m"}}}), &[])
                .expect("a bundle");
        let expected = Limits {
            memory: Some(64 << 20),
            cpu_quota: Some(25_000),
            cpu_shares: Some(256),
            ..Limits::default()
        };
        assert_eq!(made.limits, expected);
        let asking =
            json!({"command": ["x"], "resources": {"requests": {"cpu": "500m"}, "limits": {"cpu": 2}}});
        assert_eq!(built(asking, &[]).expect("a bundle").limits.cpu_shares, Some(512));
        assert_eq!(built(json!({"command": ["x"]}), &[]).expect("a bundle").limits.cpu_shares, Some(2));
    }

    #[test]
    fn no_command_is_refused() {
        let bare = ImageConfig::default();
        for (image, why) in
            [(None, "gives none with --rootfs host"), (Some(&bare), "has neither ENTRYPOINT nor CMD")]
        {
            let error = built_from(image, json!({"image": "busybox"}), &[]).expect_err("refused");
            let text =
                format!("no command specified for container \"c\": image \"busybox\" {why}; set command");
            assert_eq!(error.to_string(), text);
        }
    }

    #[test]
    fn an_image_says_what_the_container_does_not() {
        let image = ImageConfig {
            env: vec!["A=image".into(), "PATH=/opt/bin".into()],
            entrypoint: vec!["/serve".into()],
            cmd: vec!["$(A)".into()],
            working_dir: "/srv/app".into(),
            ..ImageConfig::default()
        };
        let made = built_from(Some(&image), json!({}), &[]).expect("a bundle");
        let spec = serde_json::to_value(&made.spec).expect("serialises");
        assert_eq!(spec["process"]["args"], json!(["/serve", "$(A)"]));
        assert_eq!(spec["process"]["env"], json!(["A=1", "HOSTNAME=p", "PATH=/opt/bin"]));
        assert_eq!(spec["process"]["cwd"], json!("/srv/app"));
        let dir = WorkingDir { root: "/d/rootfs".into(), path: "srv/app".into() };
        assert_eq!(made.working_dir, Some(dir));
        let own = built_from(Some(&image), json!({"workingDir": "/w", "args": ["$(A)"]}), &[]);
        let spec = serde_json::to_value(own.expect("a bundle").spec).expect("serialises");
        assert_eq!(spec["process"]["args"], json!(["/serve", "1"]));
        assert_eq!(spec["process"]["cwd"], json!("/w"));
    }

    #[test]
    fn an_image_gets_the_volumes_that_the_pod_does_not_give_it() {
        let image = ImageConfig {
            cmd: vec!["x".into()],
            volumes: ["/workspace/cache/", "/data", "../data/./", "/", "srv/../var/lib"]
                .map(str::to_owned)
                .to_vec(),
            ..ImageConfig::default()
        };
        let made = |uses: &[Use]| {
            let made = built_from(Some(&image), json!({"workingDir": "/data/deep"}), uses).expect("a bundle");
            let volumes: Vec<_> = made.image_volumes.iter().map(|made| made.path.clone()).collect();
            let spec = serde_json::to_value(&made.spec).expect("serialises");
            let mounts = spec["mounts"].as_array().expect("mounts").iter();
            let bound = mounts.filter(|mount| mount["type"] == "bind" && mount["options"][2] == "rw");
            let bound: Vec<_> = bound
                .map(|mount| {
                    format!(
                        "{} {}",
                        mount["source"].as_str().unwrap(),
                        mount["destination"].as_str().unwrap()
                    )
                })
                .collect();
            (volumes, bound, made.working_dir)
        };
        let (volumes, bound, working_dir) = made(&[at(None, "/workspace", false)]);
        assert_eq!(volumes, ["/data", "/var/lib", "/workspace/cache"].map(PathBuf::from));
        assert_eq!(
            bound,
            [
                "/d/volumes/v /workspace",
                "/d/scratch/volumes/0 /data",
                "/d/scratch/volumes/1 /var/lib",
                "/d/scratch/volumes/2 /workspace/cache",
                "/d/termination-log /dev/termination-log",
            ],
            "what is mounted in another comes after it"
        );
        let expected = WorkingDir { root: "/d/scratch/volumes/0".into(), path: "deep".into() };
        assert_eq!(working_dir, Some(expected));
        let (volumes, ..) = made(&[at(None, "/data/", false)]);
        assert_eq!(volumes, ["/var/lib", "/workspace/cache"].map(PathBuf::from), "the pod's takes its place");

        let many = ImageConfig { volumes: (0..65).map(|number| format!("/{number}")).collect(), ..image };
        let error = built_from(Some(&many), json!({"image": "busybox"}), &[]).expect_err("refused");
        assert!(error.to_string().contains("65 volumes of image \"busybox\""), "{error}");
    }

    #[test]
    fn the_user_is_said_last() {
        let mut spec = built(json!({"command": ["x"]}), &[]).expect("a bundle").spec;
        let groups = [3, 9].into();
        run_as(&mut spec, &Person { uid: 7, gid: 8, groups, home: Some("/home/build".into()) });
        let nobody = Person { uid: 5, gid: 0, groups: [].into(), home: None };
        run_as(&mut spec, &nobody);
        let shown = serde_json::to_value(&spec).expect("serialises");
        assert_eq!(shown["process"]["user"], json!({"uid": 5, "gid": 0}));
        assert_eq!(shown["process"]["env"][3], json!("HOME=/home/build"), "once set it stays");
        let mut spec = built(json!({"command": ["x"]}), &[]).expect("a bundle").spec;
        run_as(&mut spec, &nobody);
        assert_eq!(serde_json::to_value(&spec).expect("serialises")["process"]["env"][3], json!("HOME=/"));
    }

    #[test]
    fn host_root_hides_what_is_private() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p"}})).expect("a pod");
        let found = rootfs(&pod, Base::Host(&["/d"]), "nameserver 1.1.1.1\n", &example());
        assert_eq!(found.lowers, [Path::new("/")]);
        for hidden in ["/d", "/etc/shadow"] {
            assert!(found.hidden.iter().any(|path| path == hidden), "{hidden}");
        }
        for empty in ["/root", "/home", "/run", "/tmp"] {
            assert!(found.empty.contains_key(empty), "{empty}");
        }
        assert_eq!(found.files["/etc/resolv.conf"], "nameserver 1.1.1.1\n");
        assert!(found.files["/etc/hosts"].contains("10.209.0.9\tp\n"));
    }
}
