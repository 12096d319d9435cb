//! The command line's arguments.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use nix::unistd::{User, geteuid};
use ropewalk_quantity::Quantity;

/// Run Tekton pipelines on this machine.
#[derive(Debug, Parser)]
#[command(name = "ropewalk", version, about, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run what the files hold, with no cluster: the runs in them, or a run of a lone Task or Pipeline
    ///
    /// Exits with 0 when every run succeeded, 1 when one failed, 2 when something was refused, 130 when interrupted.
    Run(Run),
    /// Serve a Kubernetes API on this machine to kubectl, tkn and other clients, until interrupted
    ///
    /// Prints where, and the path of a kubeconfig that only its owner can read. Pods get tokens of their service accounts
    /// and what RBAC gives these. Objects, tokens and the authority of its certificate stay in the directory: the next
    /// `up` there goes on with them, however this one ended.
    ///
    /// So do containers: they run on when the command ends, by a signal, an update or a kill. The next one takes them
    /// over, and no step is executed twice. Under systemd that needs KillMode=process. To end containers too, end the
    /// command and then use `ropewalk down`.
    Up(Up),
    /// End what a `ropewalk up` that has ended left running
    ///
    /// That is containers, mounts, namespaces, cgroups and networks. Objects, logs and what claims hold stay in the directory; to
    /// the next `up` there, steps that ran have failed.
    Down(Down),
    /// See to the images on this machine, whether or not a `ropewalk up` or `run` goes on
    Image(Image),
    /// Print the pods that the files' runs become, the same every time
    ///
    /// They are those of `ropewalk run`: without an init container, the entrypoint a volume made of its image. A cluster
    /// whose nodes do not mount images gets pods with one init container that does the same.
    Render(Render),
    /// Find what is wrong with files before anybody runs them
    ///
    /// The checks are those of admission, and beside them whether the files agree with each other: references, params,
    /// results and workspaces. Exits with 0 when nothing is wrong (warnings are only told), 1 when something is, 2 when
    /// a file cannot be read.
    Lint(Lint),
}

/// Arguments of `ropewalk run`.
#[derive(Args, Debug)]
pub struct Run {
    /// YAML files; every document is applied, then the runs start
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,

    /// Set a param of every run started: a text, or a JSON array or object
    #[arg(short, long = "param", value_name = "NAME=VALUE", value_parser = pair)]
    pub params: Vec<(String, String)>,

    /// Bind a workspace of every run started to a directory of this machine
    #[arg(short, long = "workspace", value_name = "NAME=DIR", value_parser = pair)]
    pub workspaces: Vec<(String, String)>,

    /// What containers see as their root file system, in place of what their images have
    #[arg(long, value_enum, value_name = "WHAT")]
    pub rootfs: Option<Rootfs>,

    /// What runs the containers
    #[arg(long, value_enum, default_value_t = Runtime::Builtin, value_name = "WHICH")]
    pub runtime: Runtime,

    /// The namespace for documents that name none
    #[arg(short, long, default_value = "default")]
    pub namespace: String,

    /// What is printed on standard output
    #[arg(short, long, value_enum, default_value_t = Output::Text, value_name = "FORMAT")]
    pub output: Output,

    /// The directory for everything of containers, always the one that others use by default
    #[arg(skip = data_dir())]
    pub data_dir: PathBuf,
}

/// Arguments of `ropewalk up`.
#[derive(Args, Debug)]
pub struct Up {
    /// Where to listen; anything but a loopback address lets other machines try
    #[arg(long, default_value = "127.0.0.1:6443", value_name = "ADDRESS:PORT")]
    pub listen: SocketAddr,

    /// The directory for objects, keys, the kubeconfig and everything of containers
    #[arg(long, default_value_os_t = data_dir(), value_name = "DIR")]
    pub data_dir: PathBuf,

    /// What containers see as their root file system, in place of what their images have
    #[arg(long, value_enum, value_name = "WHAT")]
    pub rootfs: Option<Rootfs>,

    /// What runs the containers
    #[arg(long, value_enum, default_value_t = Runtime::Builtin, value_name = "WHICH")]
    pub runtime: Runtime,

    /// Which network pods have: `own`, a namespace each, behind this machine; or `host`, this machine's
    ///
    /// By default `own`, and where that cannot be done, `host`. It sets net.ipv4.ip_forward on this machine.
    #[arg(long, value_enum, value_name = "WHICH")]
    pub pod_network: Option<PodNetwork>,

    /// How many finished runs are kept; older ones are deleted, with their pods and logs
    #[arg(long, default_value_t = 1000, value_name = "NUMBER")]
    pub keep_runs: usize,

    /// For how many days a finished run is kept
    #[arg(long, default_value_t = 30, value_name = "DAYS")]
    pub keep_days: u32,

    /// How many GiB of logs are kept of finished runs; those of the newest are, however many
    #[arg(long, default_value_t = 8, value_name = "GIB")]
    pub keep_gib: u32,

    /// How many GiB of data images have before a pull removes others: pulled ones that nothing runs with, those least
    /// recently used first
    #[arg(long, default_value_t = 64, value_name = "GIB")]
    pub keep_images_gib: u32,
}

/// Arguments of `ropewalk down`.
#[derive(Args, Debug)]
pub struct Down {
    /// The directory of the `ropewalk up`
    #[arg(long, default_value_os_t = data_dir(), value_name = "DIR")]
    pub data_dir: PathBuf,
}

/// Arguments of `ropewalk image`.
#[derive(Args, Debug)]
pub struct Image {
    /// What to do
    #[command(subcommand)]
    pub command: ImageCommand,

    /// The directory of `ropewalk up` and `run`
    #[arg(long, global = true, default_value_os_t = data_dir(), value_name = "DIR")]
    pub data_dir: PathBuf,
}

/// What to do with images.
#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Add the images for this machine in an OCI layout or an archive of `docker save`
    ///
    /// A layout may be a directory or an archive; an archive may be compressed with gzip or zstd.
    Load {
        /// The archive, or the directory of a layout
        #[arg(value_name = "FILE|DIR")]
        path: PathBuf,

        /// What to call the only image, in place of what it is called there
        #[arg(long, value_name = "REFERENCE")]
        name: Option<String>,
    },
    /// Bring an image here from its registry, or its newer state
    ///
    /// Credentials are taken from the file that REGISTRY_AUTH_FILE names, or from ~/.docker/config.json; mirrors, registries
    /// without TLS and private authorities from `certs.d` in the data directory, which has the form of containerd's.
    Pull {
        /// What to bring, such as registry.example/team/app:1
        #[arg(value_name = "REFERENCE")]
        reference: String,
    },
    /// List the images that are here
    Ls {
        /// What is printed on standard output
        #[arg(short, long, value_enum, default_value_t = ImageOutput::Table, value_name = "FORMAT")]
        output: ImageOutput,
    },
    /// Take away names, and the images that have no other; fails for an image that a container runs with
    Rm {
        /// References or ids, as `ls` shows them
        #[arg(required = true, value_name = "REFERENCE")]
        references: Vec<String>,
    },
    /// Take away images that no container runs with, those least recently used first
    Prune {
        /// How much of data may stay, such as 20Gi
        #[arg(long, default_value = "0", value_name = "SIZE", value_parser = size)]
        keep: u64,
    },
}

/// How images are listed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum ImageOutput {
    /// A line for each name
    Table,
    /// One JSON list
    Json,
}

/// Arguments of `ropewalk render`.
#[derive(Args, Debug)]
pub struct Render {
    /// YAML files with runs and what they refer to
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,

    /// The namespace for documents that name none
    #[arg(short, long, default_value = "default")]
    pub namespace: String,
}

/// Arguments of `ropewalk lint`.
#[derive(Args, Debug)]
pub struct Lint {
    /// YAML files, directories with such files, or `-` for standard input
    #[arg(required = true, value_name = "FILE|DIR|-")]
    pub files: Vec<PathBuf>,

    /// How findings are printed on standard output
    #[arg(short, long, value_enum, default_value_t = LintOutput::Text, value_name = "FORMAT")]
    pub output: LintOutput,
}

/// How findings are printed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum LintOutput {
    /// For people: each with its source line
    Text,
    /// One JSON list
    Json,
    /// SARIF 2.1.0, for code scanning
    Sarif,
    /// Workflow commands, which GitHub shows beside the lines
    Github,
}

/// What containers see as their root file system.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Rootfs {
    /// This machine's own, read-only beneath a throw-away layer; homes, data and sockets are hidden
    Host,
}

/// Which network pods have.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum PodNetwork {
    /// Each its own, unless it asks for this machine's
    Own,
    /// All this machine's
    Host,
}

/// What runs the containers.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Runtime {
    /// Nothing to install
    Builtin,
    /// The runc command found in PATH
    Runc,
}

/// What is printed on standard output.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Output {
    /// Progress, logs and a summary
    Text,
    /// The runs as they ended, as a JSON list; progress and logs go to standard error
    Json,
}

impl Command {
    /// The directory of containers and images that the command works on, if it does.
    pub fn data_dir(&self) -> Option<&Path> {
        match self {
            Self::Down(args) => Some(&args.data_dir),
            Self::Image(args) => Some(&args.data_dir),
            Self::Run(args) => Some(&args.data_dir),
            Self::Up(args) => Some(&args.data_dir),
            Self::Lint(_) | Self::Render(_) => None,
        }
    }
}

/// Root's data is the machine's; a user's is where the user's other data is.
fn data_dir() -> PathBuf {
    if geteuid().is_root() {
        return PathBuf::from("/var/lib/ropewalk");
    }
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || absolute("HOME").or_else(|| User::from_uid(geteuid()).ok().flatten().map(|user| user.dir));
    let data = absolute("XDG_DATA_HOME").or_else(|| home().map(|home| home.join(".local/share")));
    data.unwrap_or_else(|| PathBuf::from("/var/lib")).join("ropewalk")
}

/// Bytes, as Kubernetes writes quantities.
fn size(text: &str) -> Result<u64, String> {
    let bytes = text.parse().ok().and_then(|amount: Quantity| u64::try_from(amount.units()).ok());
    bytes.ok_or_else(|| "expected bytes, such as 500Mi or 20Gi".to_owned())
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}
