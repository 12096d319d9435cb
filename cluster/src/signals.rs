//! The signals that ask a process to end.

use std::io;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use tokio::signal::unix::{SignalKind, signal};

/// Resolves when the process shall end; clones resolve together.
pub type Shutdown = Shared<BoxFuture<'static, ()>>;

/// Catches SIGTERM, which kubelets send, and SIGINT, which terminals send, from now on. Has to be called within a tokio
/// runtime.
pub fn shutdown() -> io::Result<Shutdown> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let caught = async move {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        tracing::info!(signal = name, "shutting down");
    };
    Ok(caught.boxed().shared())
}
