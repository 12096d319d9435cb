//! The seam to whoever keeps the containers' logs.

use std::io;

use bytes::Bytes;
use futures::{StreamExt as _, stream, stream::BoxStream};
use ropewalk_apiserver::LogRequest;

/// Opens the log of a container; the kernel has checked that the container was started.
pub trait LogSource: Send + Sync {
    /// The log's bytes. With `follow` the stream ends when the container does, else at the end of what is there.
    /// An error breaks the response off.
    fn open(&self, request: LogRequest) -> BoxStream<'static, io::Result<Bytes>>;
}

/// A source for servers without containers: every log is empty.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoLogs;

impl LogSource for NoLogs {
    fn open(&self, _request: LogRequest) -> BoxStream<'static, io::Result<Bytes>> {
        stream::empty().boxed()
    }
}
