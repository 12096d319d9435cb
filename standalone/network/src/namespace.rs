//! Network namespaces that live by a file they are mounted on, without a process.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

/// The namespace of the calling thread. `/proc/self` would be the one of the process's first thread.
const OWN: &str = "/proc/thread-self/ns/net";

/// The file system that mounted namespaces belong to: `NSFS_MAGIC` of `linux/magic.h`.
const FILE_SYSTEM: i64 = 0x6e73_6673;

/// Makes a namespace and mounts it on a file, which is made, too.
pub(crate) fn make(file: &Path) -> io::Result<File> {
    File::create(file)?;
    own_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET)?;
        // Programs of any user may serve on any port: here they take none from anybody. Engines of containers do the same.
        fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0")?;
        mount(Some(OWN), file, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
        File::open(file)
    })
}

/// Does something inside a namespace.
pub(crate) fn inside<T: Send>(
    namespace: &File,
    work: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    own_thread(|| {
        setns(namespace, CloneFlags::CLONE_NEWNET)?;
        work()
    })
}

/// A thread that has entered a namespace must not be one that others go on using.
fn own_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("namespace".to_owned()).spawn_scoped(scope, work)?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread ended before its work")))
    })
}

/// Whether a namespace is mounted on the file: once the machine was started anew, none is.
pub(crate) fn is_mounted(file: &Path) -> bool {
    rustix::fs::statfs(file).is_ok_and(|found| found.f_type == FILE_SYSTEM)
}

/// Lets go of the namespace that is mounted on the file, if one is. It ends when nobody uses it.
pub(crate) fn let_go(file: &Path) -> io::Result<()> {
    // More than one after a process that was killed while it made one.
    while is_mounted(file) {
        umount2(file, MntFlags::MNT_DETACH)?;
    }
    Ok(())
}
