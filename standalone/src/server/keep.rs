//! Group commit: the queue between the server's changes and the file, and the thread that writes all that wait there as
//! one transaction. See [`crate::store`] for what is promised.

use std::io;
use std::iter;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak, mpsc};
use std::thread;

use nix::sys::statvfs::statvfs;
use ropewalk_apiserver::{Delta, ResourceTable, Room};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::{Kernel, Shared};
use crate::store::{self, Changes, File, Key, StoreError};

/// Requests whose changes may wait to be written. More than arrive while one transaction is written, so that nobody
/// waits for room while the disk works; when it does not, they hold no more than this many bodies.
const PLACES: usize = 256;

/// The end of the queue that the server has.
pub(super) struct Keeper {
    sender: mpsc::Sender<Message>,
    places: Arc<Semaphore>,
    directory: PathBuf,
    /// Bytes of all objects in the file.
    bytes: Arc<AtomicU64>,
}

/// The end of the queue that the thread has.
pub(super) struct Queue {
    receiver: mpsc::Receiver<Message>,
    table: ResourceTable,
    bytes: Arc<AtomicU64>,
    file: File,
}

enum Message {
    Entry(Entry),
    Close(oneshot::Sender<()>),
}

/// What one request changed, and who waits for it to be on disk.
struct Entry {
    /// In order; none for a request that only saw the changes of others.
    deltas: Vec<Arc<Delta>>,
    /// The state's version after them.
    version: u64,
    /// Gets the outcome; closed where nobody waits any longer.
    done: oneshot::Sender<Result<(), Arc<StoreError>>>,
    /// Held for the place it takes.
    _permit: Option<OwnedSemaphorePermit>,
}

/// What has to happen before an answer may leave; nothing where there is no file, or all is in it.
pub(super) struct Pending(Option<oneshot::Receiver<Result<(), Arc<StoreError>>>>);

impl Pending {
    /// Waits until everything the answer tells is on disk, or taken back.
    pub(super) async fn kept(self) -> Result<(), Arc<StoreError>> {
        match self.0 {
            None => Ok(()),
            Some(done) => done.await.unwrap_or_else(|_| Err(Arc::new(StoreError::Closed))),
        }
    }
}

impl Keeper {
    /// Both ends, for objects of these resources.
    pub(super) fn new(table: ResourceTable, file: File) -> (Self, Queue) {
        let (sender, receiver) = mpsc::channel();
        let bytes = Arc::new(AtomicU64::new(file.bytes()));
        let directory = file.directory().to_owned();
        let places = Arc::new(Semaphore::new(PLACES));
        let keeper = Self { sender, places, directory, bytes: Arc::clone(&bytes) };
        (keeper, Queue { receiver, table, bytes, file })
    }

    /// A place in the queue for one request, once there is one.
    pub(super) async fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).acquire_owned().await.ok()
    }

    /// What may be written now.
    pub(super) fn room(&self) -> Room {
        // A disk that does not tell is found out about when it is written to.
        let free =
            statvfs(&self.directory).map_or(u64::MAX, |disk| disk.blocks_available() * disk.fragment_size());
        store::room(self.bytes.load(Ordering::Relaxed), free, &self.directory)
    }

    /// Lets the thread end; what the lock has seen before is written. The answer is when it has.
    pub(super) fn close(&self, _kernel: &Kernel) -> oneshot::Receiver<()> {
        let (done, closed) = oneshot::channel();
        // Without the thread the file is closed, which the receiver learns.
        let _ = self.sender.send(Message::Close(done));
        closed
    }
}

impl Kernel {
    /// Tells the watches of changes, at once or when they are on disk.
    pub(super) fn tell(
        &mut self,
        keeper: Option<&Keeper>,
        deltas: Vec<Arc<Delta>>,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Pending {
        let Some(keeper) = keeper else {
            self.fanout.publish(&deltas);
            self.told = self.state.version();
            return Pending(None);
        };
        if deltas.is_empty() && self.waiting == 0 {
            return Pending(None);
        }
        let (done, kept) = oneshot::channel();
        let entry = Entry { deltas, version: self.state.version(), done, _permit: permit };
        self.waiting += 1;
        if let Err(mpsc::SendError(Message::Entry(entry))) = keeper.sender.send(Message::Entry(entry)) {
            // The file is closed. This is the newest change, so it can go back alone.
            self.waiting -= 1;
            self.state.take_back(&entry.deltas);
        }
        Pending(Some(kept))
    }
}

impl Queue {
    /// Starts the thread. It ends with the server, or when asked to.
    pub(super) fn serve(self, shared: &Arc<Shared>) -> io::Result<()> {
        let shared = Arc::downgrade(shared);
        let mut writer = Writer { shared, queue: self, owed: Changes::new() };
        thread::Builder::new().name("store".to_owned()).spawn(move || {
            while let Ok(first) = writer.queue.receiver.recv() {
                if let Some(closed) = writer.work(first) {
                    drop(writer);
                    let _ = closed.send(());
                    return;
                }
            }
        })?;
        Ok(())
    }
}

struct Writer {
    shared: Weak<Shared>,
    queue: Queue,
    /// What has to be written to undo a transaction of which nobody knows whether it is on disk.
    owed: Changes,
}

impl Writer {
    /// Writes all that waits. The answer is whom to tell when the file is closed, if it shall be.
    fn work(&mut self, first: Message) -> Option<oneshot::Sender<()>> {
        let mut closing = None;
        let mut entries = collect(iter::once(first).chain(self.queue.receiver.try_iter()), &mut closing);
        let version = entries.last().map_or(0, |entry| entry.version);
        let outcome = self.write(version, &entries).map_err(Arc::new);
        // Without a server nobody waits, either.
        let Some(shared) = self.shared.upgrade() else { return closing };
        let mut kernel = shared.lock();
        match &outcome {
            Ok(()) => {
                for entry in &entries {
                    kernel.fanout.publish(&entry.deltas);
                }
                kernel.told = kernel.told.max(version);
            }
            Err(error) => {
                tracing::error!(error = &**error as &dyn std::error::Error, "what was written is taken back");
                // What came later builds on what is lost. Under the lock no more comes.
                entries.extend(collect(self.queue.receiver.try_iter(), &mut closing));
                let deltas: Vec<_> = entries.iter().flat_map(|entry| &entry.deltas).cloned().collect();
                kernel.state.take_back(&deltas);
                for delta in deltas {
                    let value = kernel.state.get(delta.resource, &delta.key).cloned();
                    self.owed.insert(Key::new(&self.queue.table, delta.resource, &delta.key), value);
                }
            }
        }
        kernel.waiting -= entries.len();
        drop(kernel);
        for entry in entries {
            // Whoever does not wait any longer does not want to know.
            let _ = entry.done.send(outcome.clone());
        }
        closing
    }

    /// Writes what was changed, if anything was: who only reads is not kept by a disk that fails.
    fn write(&mut self, version: u64, entries: &[Entry]) -> Result<(), StoreError> {
        let mut deltas = entries.iter().flat_map(|entry| &entry.deltas).peekable();
        if deltas.peek().is_none() {
            return Ok(());
        }
        let mut changes = self.owed.clone();
        changes.extend(store::changes(&self.queue.table, deltas));
        self.queue.file.commit(version, &changes)?;
        self.owed.clear();
        self.queue.bytes.store(self.queue.file.bytes(), Ordering::Relaxed);
        Ok(())
    }
}

fn collect(messages: impl Iterator<Item = Message>, closing: &mut Option<oneshot::Sender<()>>) -> Vec<Entry> {
    let mut entries = Vec::new();
    for message in messages {
        match message {
            Message::Entry(entry) => entries.push(entry),
            Message::Close(done) => *closing = Some(done),
        }
    }
    entries
}
