//! Reads the bodies of requests before the kernel's lock is taken, and bounds how many are read at once.
//!
//! A body of the largest size takes tens of milliseconds to read, and as an object up to a hundred times its bytes. Small ones
//! are read by the worker that has the request, which does nothing else until it is through the kernel: there are as many as
//! workers. Large ones take a thread for blocking work, so that they leave the workers to everybody else, and a turn.

use bytes::Bytes;
use http::Request;
use ropewalk_apiserver::Body;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Bytes of a body that is read at once: most objects, and a few hundred microseconds.
const SMALL: usize = 64 * 1024;

/// Larger bodies that are objects at a time. Two, so that one client's does not hold up another's; more would cost memory,
/// and win little on the one machine there is.
const LARGE: usize = 2;

/// The turns of large bodies.
pub(super) struct Bodies(Semaphore);

impl Default for Bodies {
    fn default() -> Self {
        Self(Semaphore::new(LARGE))
    }
}

impl Bodies {
    /// As many turns as there are.
    #[cfg(test)]
    pub(super) fn take_all(&self) -> Option<SemaphorePermit<'_>> {
        self.0.try_acquire_many(u32::try_from(LARGE).unwrap_or(u32::MAX)).ok()
    }

    /// Reads a body, a large one when it is its turn; that lasts until the permit is dropped, when there is no object any
    /// more.
    pub(super) async fn read(&self, request: &Request<Bytes>) -> (Body, Option<SemaphorePermit<'_>>) {
        if request.body().len() <= SMALL {
            return (Body::of(request), None);
        }
        let turn = self.0.acquire().await.ok();
        let mut owned = Request::new(request.body().clone());
        *owned.method_mut() = request.method().clone();
        *owned.uri_mut() = request.uri().clone();
        *owned.headers_mut() = request.headers().clone();
        let read = tokio::task::spawn_blocking(move || Body::of(&owned)).await;
        // Nobody stops that thread but a runtime that ends, and with it this request.
        (read.unwrap_or_else(|_| Body::of(request)), turn)
    }
}
