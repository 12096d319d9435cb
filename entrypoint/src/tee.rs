//! A command's output, copied to a file on its way to the container's log (contract 5.5).
//!
//! Served by the same `poll` as signals and the timeout: a thread per stream would add more to the
//! binary than this module.

use std::fs::{self, File, OpenOptions};
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::libc;

use crate::log;

/// What is read at once: the capacity of a pipe.
const CHUNK_BYTES: usize = 64 * 1024;

/// Where the copy that is not for the file goes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Log {
    /// Our standard output.
    Stdout,
    /// Our standard error.
    Stderr,
}

impl Log {
    /// The descriptor the command knows the stream by.
    pub(crate) fn descriptor(self) -> RawFd {
        match self {
            Log::Stdout => libc::STDOUT_FILENO,
            Log::Stderr => libc::STDERR_FILENO,
        }
    }
}

/// One stream on its way.
pub(crate) struct Tee {
    reader: PipeReader,
    /// `None` once writing to it failed.
    file: Option<File>,
    log: Log,
    at_end: bool,
}

impl Tee {
    /// Opens the file for appending, its directories made as needed, and a pipe for the command.
    pub(crate) fn open(path: &Path, log: Log) -> io::Result<(Tee, PipeWriter)> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        let file = OpenOptions::new().append(true).create(true).mode(0o644).open(path)?;
        let (reader, writer) = io::pipe()?;
        Ok((Tee { reader, file: Some(file), log, at_end: false }, writer))
    }

    /// Whether more may come.
    pub(crate) fn is_open(&self) -> bool {
        !self.at_end
    }

    /// Copies what is there. Blocks if nothing is, so `poll` comes first.
    pub(crate) fn copy(&mut self) {
        let mut chunk = vec![0; CHUNK_BYTES];
        let length = match self.reader.read(&mut chunk) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return,
            Err(_) => 0,
        };
        self.at_end = length == 0;
        let chunk = &chunk[..length];
        // A full disk must not take the log away, and a closed log not the file.
        if let Some(error) = self.file.as_mut().and_then(|file| file.write_all(chunk).err()) {
            log(&format!("copying output to its file, going on without: {error}"));
            self.file = None;
        }
        let _ = match self.log {
            Log::Stdout => write_through(&mut io::stdout(), chunk),
            Log::Stderr => write_through(&mut io::stderr(), chunk),
        };
    }
}

fn write_through(log: &mut dyn Write, chunk: &[u8]) -> io::Result<()> {
    log.write_all(chunk)?;
    log.flush()
}

impl AsFd for Tee {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}
