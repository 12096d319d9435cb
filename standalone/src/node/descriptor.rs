//! Waiting for a file descriptor in the runtime.
#![allow(
    unsafe_code,
    reason = "tokio marks the registration unsafe; an owned descriptor is what it asks for"
)]

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Registers a descriptor for reading and writing. Must be called within a tokio runtime.
pub(super) fn duplex(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: as below.
    Ok(unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE | Interest::WRITABLE) }?)
}

/// Registers a descriptor for reading. Must be called within a tokio runtime.
pub(super) fn register(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is valid as long as it lives, and the `AsyncFd` owns it and hands out no `&mut`.
    Ok(unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }?)
}
