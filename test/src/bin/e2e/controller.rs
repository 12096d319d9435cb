//! The controller dies while a step runs.

use std::time::Duration;

use anyhow::Result;
use ropewalk_test::harness::installation::{CONTROLLER, Installation};
use ropewalk_test::harness::processes::{Process, Signal};
use ropewalk_test::harness::{PATIENCE, World};

use crate::marked::{Marked, is_running, repairing};

const RUN: Marked = Marked { name: "killed", tasks: &[("first", &[5, 0]), ("second", &[0])] };

/// The kubelet starts it again at once, the first time; the same pod's lease is its own. Lists and what is left to do are
/// seconds more.
const ENDS: Duration = Duration::from_mins(1);

/// Killed at once, so that it says nothing to anybody. The world of one process cannot lose its controller alone: all its
/// parts end together, and its API server's memory with them.
pub(crate) async fn killed(world: &World) -> Result<()> {
    let installation = Installation::of(world);
    let test = async {
        let namespace = world.namespace("killed").await?;
        let run = RUN.start(&namespace).await?;
        namespace.until(&RUN.taskrun(&run, "first"), PATIENCE, is_running(0)).await?;
        Process::of(&installation.leader().await?)?.signal(Signal::SIGKILL)?;
        let ended = namespace.done(&run, ENDS).await?;
        RUN.assert_ended_well(&namespace, &ended).await?;
        namespace.finish().await
    };
    Box::pin(repairing(test, async || installation.renew(CONTROLLER).await)).await
}
