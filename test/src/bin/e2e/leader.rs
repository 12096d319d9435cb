//! One of two controllers works, and the other takes over.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ropewalk_test::harness::installation::{CONTROLLER, Holders, Installation};
use ropewalk_test::harness::processes::{Process, Signal};
use ropewalk_test::harness::{PATIENCE, World};

use crate::figure;
use crate::marked::{Marked, is_running, repairing};

/// Under the settings we ship: a lease of 12 s, counted from its last renewal.
const LOST: Duration = Duration::from_secs(15);

/// Whoever ends cleanly hands over.
const HANDED_OVER: Duration = Duration::from_secs(1);

/// Its first task ends while nobody leads.
const LOST_RUN: Marked = Marked { name: "lost", tasks: &[("first", &[4, 0]), ("second", &[0])] };

/// Its first task runs while the lead is handed over.
const HANDED_RUN: Marked = Marked { name: "handed", tasks: &[("first", &[4, 0]), ("second", &[0])] };

/// The leader stops as if its machine did: it says nothing, ends nothing, and nobody starts it again. Later it comes back
/// and has to find that its time is over. Then the new leader ends cleanly. In one process nobody else could lead.
pub(crate) async fn replaced(world: &World) -> Result<()> {
    let installation = Installation::of(world);
    installation.renew(CONTROLLER).await?;
    let lost = installation.leader().await?;
    let process = Process::of(&lost)?;
    let test = async {
        let namespace = world.namespace("leader").await?;
        let holders = Holders::follow(&installation).await?;
        let run = LOST_RUN.start(&namespace).await?;
        namespace.until(&LOST_RUN.taskrun(&run, "first"), PATIENCE, is_running(0)).await?;
        process.signal(Signal::SIGSTOP)?;
        let stopped = Instant::now();
        let seen = holders.until(LOST, |holders| holders.len() > 1).await?;
        figure("from the leader's loss to the next", seen[1].0 - stopped);
        assert_ne!(seen[1].1, "", "nobody was there to release the lease: {seen:?}");
        let ended = namespace.done(&run, PATIENCE).await?;
        LOST_RUN.assert_ended_well(&namespace, &ended).await?;

        process.signal(Signal::SIGCONT)?;
        installation.restarted(&lost).await?;
        installation.settled(CONTROLLER).await?;
        let seen = holders.until(PATIENCE, |_| true).await?;
        assert_eq!(seen.len(), 2, "nobody takes the lease from the one who holds it: {seen:?}");

        let run = HANDED_RUN.start(&namespace).await?;
        namespace.until(&HANDED_RUN.taskrun(&run, "first"), PATIENCE, is_running(0)).await?;
        installation.delete(&installation.leader().await?).await?;
        let seen = holders.until(PATIENCE, |holders| holders.len() > 3).await?;
        let (released, taken) = (&seen[2], &seen[3]);
        assert_eq!(released.1, "", "a clean stop releases the lease: {seen:?}");
        let took = taken.0 - released.0;
        figure("from the release of the lease to its next holder", took);
        ensure!(took < HANDED_OVER, "the lease was taken {took:?} after its release");
        let ended = namespace.done(&run, PATIENCE).await?;
        HANDED_RUN.assert_ended_well(&namespace, &ended).await?;
        namespace.finish().await
    };
    Box::pin(repairing(test, async || {
        // It may have ended long ago.
        let _ = process.signal(Signal::SIGCONT);
        installation.renew(CONTROLLER).await.context("the controllers do not come back")
    }))
    .await
}
