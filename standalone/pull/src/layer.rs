//! One layer: what comes is written to a file, and unpacked from there while it comes.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use ropewalk_images::{Blob, Digest, Incoming, Layer, StoreError};
use ropewalk_registry::Session;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::spawn_blocking;

use crate::error::Cause;
use crate::progress::Counter;

/// Pieces of some 16 kB between a connection and a disk: 1 MB, for a disk that is slow for a moment.
const PIECES: usize = 64;

/// A layer that is not here yet.
pub(crate) struct Missing {
    /// The layers below, from the lowest on.
    pub(crate) below: Vec<Digest>,
    pub(crate) layer: Layer,
    pub(crate) blob: Blob,
    /// Those below are here.
    pub(crate) turn: oneshot::Receiver<()>,
    /// This one is here.
    pub(crate) done: oneshot::Sender<()>,
}

/// Transfers a layer, and unpacks it when it is its turn.
pub(crate) async fn add(
    session: &Session<'_>,
    incoming: &Arc<Incoming>,
    missing: Missing,
    counter: &Counter,
) -> Result<(), Cause> {
    let Missing { below, layer, blob, turn, done } = missing;
    let held = Arc::clone(incoming);
    let file = Arc::new(blocking(move || held.scratch()).await?);
    let (sender, pieces) = mpsc::channel(PIECES);
    let (written, progress) = watch::channel(0);
    let input = Following {
        file: Arc::clone(&file),
        at: 0,
        size: blob.size,
        written: progress,
        runtime: Handle::current(),
    };
    let counter = counter.clone();
    let writer = spawn_blocking(move || {
        let outcome = write(&file, pieces, &written, &counter);
        // Whoever reads learns of an end after whoever asks does: the cause is told, and not what came of it.
        (outcome, written)
    });
    let transfer = async {
        let sent = session.download(&blob.digest, blob.size, &sender).await;
        drop(sender);
        let (outcome, written) = writer.await.map_err(|_| Cause::Broken)?;
        outcome.map_err(Cause::Write)?;
        sent?;
        Ok(written)
    };
    let held = Arc::clone(incoming);
    let unpack = async {
        turn.await.map_err(|_| Cause::Broken)?;
        blocking(move || held.add_layer(&below, &layer, input)).await
    };
    futures::future::try_join(transfer, unpack).await?;
    // Nobody waits for the last one.
    let _ = done.send(());
    Ok(())
}

fn write(
    file: &File,
    mut pieces: mpsc::Receiver<Bytes>,
    written: &watch::Sender<u64>,
    counter: &Counter,
) -> io::Result<()> {
    let mut at = 0;
    while let Some(piece) = pieces.blocking_recv() {
        file.write_all_at(&piece, at)?;
        at += piece.len() as u64;
        written.send_replace(at);
        counter.add(piece.len() as u64);
    }
    Ok(())
}

/// Reads a file while it is written, and waits for what is still to come.
struct Following {
    file: Arc<File>,
    at: u64,
    size: u64,
    written: watch::Receiver<u64>,
    runtime: Handle,
}

impl Read for Following {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.size || buffer.is_empty() {
            return Ok(0);
        }
        let written = self.runtime.block_on(self.written.wait_for(|written| *written > self.at));
        let available = *written.map_err(|_| io::Error::other("the transfer has ended"))? - self.at;
        let length = usize::try_from(available).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.file.read_at(&mut buffer[..length], self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

/// Does something with the store where nobody else waits for it.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Cause> {
    match spawn_blocking(work).await {
        Ok(outcome) => Ok(outcome?),
        Err(_) => Err(Cause::Broken),
    }
}
