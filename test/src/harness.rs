//! Tests that run the same in every world: a [`World`] is an API server, our controllers and something that runs pods.
//! Reads and writes everything.
//!
//! A test is a function of a world. It takes a namespace of its own, applies YAML, waits for a level and asserts what it
//! then finds, always the set of children too:
//!
//! ```ignore
//! pub async fn quickstart(world: &World) -> Result<()> {
//!     let namespace = world.namespace("quickstart").await?;
//!     let runs = namespace.apply(include_str!("../../../../examples/quickstart.yaml")).await?;
//!     let ended = namespace.done(&runs[0], PATIENCE).await?;
//!     assert_eq!(ended.reason(), "Completed");
//!     assert_eq!(namespace.children(&ended).await?, set(["TaskRun quickstart-measure", ...]));
//!     namespace.finish().await
//! }
//! ```
//!
//! - [`World`]: `start`, `namespace`, `client`, `features`, and on a cluster [`World::audit`]. Images need no thought: every
//!   image that applied YAML names is one image of our own on the node, unless its registry ends in `.invalid`, which is how
//!   a test names an image that cannot be pulled. Nor do nodes: they get the labels that the YAML selects by, unless these
//!   are Kubernetes' own or filled in by the run. With `start_with_registry` images are pulled instead, and say what they run.
//! - [`Namespace`]: `apply`, `start` (one run), `until` (any level), `done`, `patch`, `children`, `pods`, `events`, `event`,
//!   `history`, `finish`.
//! - [`level`]: what to wait for with any other object.
//! - [`State`]: a run as it was found: `status`, `reason`, `message`, `diagnosis`, `uid`, `value` for the rest.
//! - [`audit::Audit`]: who asked the API server for what in a namespace.
//! - [`installation::Installation`] and [`processes::Process`]: what a test takes away, kills or cuts off, and brings back.
//!
//! The cluster is the one `KUBECONFIG` leads to, with our installation in it; `hack/cluster up` and `hack/install` bring both about.

pub mod admission;
pub mod audit;
mod features;
mod fitting;
mod history;
pub mod images;
pub mod installation;
pub mod level;
mod namespace;
mod nodes;
pub mod processes;
pub mod registry;
mod state;
mod world;

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

use ropewalk_standalone::node::shim;
use tracing_subscriber::EnvFilter;

pub use features::Features;
pub use history::History;
pub use namespace::{Namespace, RunKey, is_run, one_task, taskrun};
pub use state::State;
pub use world::{Kind, World};

/// Longer than what is waited for takes on a busy machine with two cores; a level that is not reached by then is a
/// failure.
pub const PATIENCE: Duration = Duration::from_mins(2);

/// How long the containers of a pod that is to end may take: its grace period when it names none, and a moment for the
/// node to see to it.
pub const GONE: Duration = Duration::from_secs(35);

/// What a program that starts worlds does first. One that was started as a container's shim does that work, and ends with
/// this; all others log what `ROPEWALK_LOG` asks for from now on.
pub fn begin() -> Option<ExitCode> {
    if std::env::args_os().nth(1).is_some_and(|argument| argument == "__shim") {
        return Some(shim::main(std::env::args_os().skip(2)));
    }
    tracing_subscriber::fmt().with_env_filter(EnvFilter::from_env("ROPEWALK_LOG")).init();
    None
}

/// How a program ends whose world is not to be had here: loudly, and as a failure where every tool is to be there.
#[expect(clippy::print_stderr, reason = "this is the output of the programs that start worlds")]
pub fn skip(world: Kind, lacking: &str) -> ExitCode {
    eprintln!("SKIPPED: everything in the world {world}, which needs {lacking}");
    if std::env::var_os("ROPEWALK_REQUIRE_TOOLS").is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// The elements as [`Namespace::children`] returns them.
pub fn set<const N: usize>(elements: [&str; N]) -> BTreeSet<String> {
    elements.map(str::to_owned).into()
}
