//! The API server dies and comes back.

use std::time::Instant;

use anyhow::Result;
use ropewalk_test::harness::images::hack;
use ropewalk_test::harness::installation::{CONTROLLER, Installation};
use ropewalk_test::harness::{PATIENCE, World};

use crate::figure;
use crate::marked::{Marked, is_running, repairing};

/// Its first step ends while there is no API server, or soon after.
const RUN: Marked = Marked { name: "restart", tasks: &[("first", &[4, 4]), ("second", &[0])] };

/// Begun when there is one again.
const LATER: Marked = Marked { name: "later", tasks: &[("only", &[0])] };

/// Killed, so that every connection breaks at once and every watch has to be taken up again. In one process nothing
/// would be left.
pub(crate) async fn restarted(world: &World) -> Result<()> {
    let installation = Installation::of(world);
    let test = async {
        let namespace = world.namespace("restart").await?;
        let run = RUN.start(&namespace).await?;
        namespace.until(&RUN.taskrun(&run, "first"), PATIENCE, is_running(0)).await?;
        hack("cluster", &["restart", "kube-apiserver"]).await?;
        let back = Instant::now();
        let later = LATER.start(&namespace).await?;
        for (marked, run) in [(&RUN, &run), (&LATER, &later)] {
            let ended = namespace.done(run, PATIENCE).await?;
            marked.assert_ended_well(&namespace, &ended).await?;
        }
        figure("from the API server's return to the end of two runs", back.elapsed());
        namespace.finish().await
    };
    Box::pin(repairing(test, async || installation.renew(CONTROLLER).await)).await
}
