//! The controllers are cut off from the API server.

use std::time::{Duration, Instant};

use anyhow::Result;
use ropewalk_test::harness::installation::{CONTROLLER, Installation};
use ropewalk_test::harness::processes::Process;
use ropewalk_test::harness::{PATIENCE, World};

use crate::figure;
use crate::marked::{Marked, is_running, repairing};

/// How long: more than a lease, so that nobody holds one at the end.
const OUTAGE: Duration = Duration::from_secs(15);

/// Its first task ends during the outage, its second step begun in it.
const RUN: Marked = Marked { name: "cut", tasks: &[("first", &[4, 4]), ("second", &[0])] };

/// Begun during the outage.
const LATER: Marked = Marked { name: "later", tasks: &[("only", &[0])] };

/// From the end of the outage to the next child: the pause after a claim that came to nothing, a handshake that was sent
/// again, and the lists of whoever works then.
const RECOVERS: Duration = Duration::from_secs(15);

/// Packets vanish without a word, as when a switch dies: nobody is told that a connection is no more. In one process
/// there is no connection.
pub(crate) async fn cut(world: &World) -> Result<()> {
    let installation = Installation::of(world);
    let test = async {
        let address = installation.api_server().await?;
        let namespace = world.namespace("cut").await?;
        let run = RUN.start(&namespace).await?;
        let first = RUN.taskrun(&run, "first");
        namespace.until(&first, PATIENCE, is_running(0)).await?;

        let mut cuts = Vec::new();
        for pod in installation.pods(CONTROLLER).await? {
            cuts.push(Process::of(&pod)?.cut(address)?);
        }
        let over = tokio::time::Instant::now() + OUTAGE;
        let later = LATER.start(&namespace).await?;
        tokio::time::sleep_until(over).await;
        let state = namespace.until(&first, PATIENCE, |_| true).await?;
        assert!(is_running(0)(&state), "nobody can have heard of the step's end: {state}");
        drop(cuts);

        let over = Instant::now();
        namespace.until(&RUN.taskrun(&run, "second"), RECOVERS, |_| true).await?;
        figure("from the end of the outage to the next child", over.elapsed());
        for (marked, run) in [(&RUN, &run), (&LATER, &later)] {
            let ended = namespace.done(run, PATIENCE).await?;
            marked.assert_ended_well(&namespace, &ended).await?;
        }
        namespace.finish().await
    };
    Box::pin(repairing(test, async || installation.renew(CONTROLLER).await)).await
}
