//! File notifications for all tasks of a node through one inotify instance: the kernel allows a user only 128.

use std::collections::HashMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

use super::descriptor;

/// Bytes of notifications read at once: dozens of them, as names in the attempt directories are short.
const BUFFER: usize = 4096;

/// The kernel's number of a watch.
type WatchDescriptor = i32;

type Waiting = HashMap<WatchDescriptor, Vec<Arc<Notify>>>;

struct Inner {
    fd: AsyncFd<OwnedFd>,
    flags: WatchFlags,
    waiting: Mutex<Waiting>,
}

impl Inner {
    fn waiting(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The watched directories of a node.
#[derive(Clone)]
pub(super) struct Watches(Arc<Inner>);

impl Watches {
    /// Notifies of files that appear in directories, with `writes` also of every write to one. Must be called within
    /// a tokio runtime, which then delivers the notifications.
    pub(super) fn new(writes: bool) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let mut flags = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::DELETE_SELF;
        flags.set(WatchFlags::MODIFY, writes);
        let inner = Arc::new(Inner { fd: descriptor::register(inotify)?, flags, waiting: Mutex::default() });
        let weak = Arc::downgrade(&inner);
        tokio::spawn(async move {
            // Ends with the runtime: the descriptor is polled through a strong reference while it waits.
            while let Some(inner) = weak.upgrade() {
                if deliver(&inner).await.is_err() {
                    return;
                }
            }
        });
        Ok(Self(inner))
    }

    /// Watches one directory.
    pub(super) fn watch(&self, directory: &Path) -> io::Result<Watch> {
        let notify = Arc::new(Notify::new());
        let mut waiting = self.0.waiting();
        let descriptor = inotify::add_watch(self.0.fd.get_ref(), directory, self.0.flags)?;
        waiting.entry(descriptor).or_default().push(Arc::clone(&notify));
        drop(waiting);
        Ok(Watch { inner: Arc::clone(&self.0), descriptor, notify })
    }
}

async fn deliver(inner: &Inner) -> io::Result<()> {
    let mut ready = inner.fd.readable().await?;
    let mut buffer = [MaybeUninit::uninit(); BUFFER];
    let mut events = Reader::new(inner.fd.get_ref(), &mut buffer);
    loop {
        match events.next() {
            Ok(event) => {
                let waiting = inner.waiting();
                // After an overflow nobody knows what was lost, so everybody looks.
                let all = event.events().contains(ReadFlags::QUEUE_OVERFLOW);
                let interested = waiting.iter().filter(|(watch, _)| all || **watch == event.wd());
                interested.flat_map(|(_, notify)| notify).for_each(|notify| notify.notify_one());
            }
            Err(Errno::AGAIN) => {
                ready.clear_ready();
                return Ok(());
            }
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// One interest in a directory; ends when dropped.
pub(super) struct Watch {
    inner: Arc<Inner>,
    descriptor: WatchDescriptor,
    notify: Arc<Notify>,
}

impl Watch {
    /// Returns once something happened since the last call, or since the watch was made.
    pub(super) async fn changed(&self) {
        self.notify.notified().await;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut waiting = self.inner.waiting();
        if let Some(interested) = waiting.get_mut(&self.descriptor) {
            interested.retain(|other| !Arc::ptr_eq(other, &self.notify));
            if interested.is_empty() {
                waiting.remove(&self.descriptor);
                // Fails when the directory is gone, and the watch with it.
                let _ = inotify::remove_watch(self.inner.fd.get_ref(), self.descriptor);
            }
        }
    }
}
