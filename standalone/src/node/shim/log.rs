//! The log file of a container: one line per line of output, `<RFC 3339 time> <stdout|stderr> <F|P> <bytes>`,
//! where `F` ends in a newline that is not written again and `P` does not. The bytes are as they came.

use std::io::{self, Write};

use jiff::Timestamp;

/// Longest piece of a line kept in memory; a longer line is written in pieces. The size container engines use.
const PIECE: usize = 16 * 1024;

/// Where output came from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Stream {
    Out,
    Err,
}

impl Stream {
    fn as_str(self) -> &'static str {
        match self {
            Self::Out => "stdout",
            Self::Err => "stderr",
        }
    }
}

/// Splits output into lines and writes them.
pub(super) struct Log<W> {
    file: W,
    written: u64,
    limit: u64,
    full: bool,
    pending: [Vec<u8>; 2],
    batch: Vec<u8>,
}

impl<W: Write> Log<W> {
    /// A log that stops growing at `limit` bytes: a step that prints without end must not fill the disk.
    pub(super) fn new(file: W, limit: u64) -> Self {
        Self { file, written: 0, limit, full: false, pending: [Vec::new(), Vec::new()], batch: Vec::new() }
    }

    /// Takes in what was read from a stream at `now`.
    pub(super) fn push(&mut self, stream: Stream, mut bytes: &[u8], now: Timestamp) -> io::Result<()> {
        // What is not kept is not looked at either: a container that prints without end is not to cost the node's time.
        if self.full {
            return Ok(());
        }
        while !bytes.is_empty() {
            let pending = &mut self.pending[stream as usize];
            let room = PIECE - pending.len();
            let window = &bytes[..bytes.len().min(room)];
            if let Some(at) = window.iter().position(|byte| *byte == b'\n') {
                pending.extend_from_slice(&window[..at]);
                bytes = &bytes[at + 1..];
                self.emit(stream, 'F', now);
            } else {
                pending.extend_from_slice(window);
                bytes = &bytes[window.len()..];
                if pending.len() == PIECE {
                    self.emit(stream, 'P', now);
                }
            }
        }
        self.flush()
    }

    /// Writes what is left of a stream that ended without a newline.
    pub(super) fn end(&mut self, stream: Stream, now: Timestamp) -> io::Result<()> {
        if !self.pending[stream as usize].is_empty() {
            self.emit(stream, 'P', now);
        }
        self.flush()
    }

    fn emit(&mut self, stream: Stream, tag: char, now: Timestamp) {
        let line = std::mem::take(&mut self.pending[stream as usize]);
        let prefix = format!("{now:.9} {} {tag} ", stream.as_str());
        self.written += (prefix.len() + line.len() + 1) as u64;
        if self.written <= self.limit {
            self.batch.extend_from_slice(prefix.as_bytes());
            self.batch.extend_from_slice(&line);
            self.batch.push(b'\n');
        } else if !self.full {
            self.full = true;
            let limit = self.limit;
            let marker =
                format!("{now:.9} stderr F [the log ends here: it reached its limit of {limit} bytes]\n");
            self.batch.extend_from_slice(marker.as_bytes());
        }
        self.pending[stream as usize] = line;
        self.pending[stream as usize].clear();
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all(&std::mem::take(&mut self.batch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_second(0).expect("in range")
    }

    fn written(limit: u64, pushes: &[(Stream, &[u8])]) -> String {
        let mut bytes = Vec::new();
        let mut log = Log::new(&mut bytes, limit);
        for (stream, push) in pushes {
            log.push(*stream, push, now()).expect("memory");
        }
        log.end(Stream::Out, now()).expect("memory");
        log.end(Stream::Err, now()).expect("memory");
        String::from_utf8(bytes).expect("text").replace("1970-01-01T00:00:00.000000000Z ", "")
    }

    #[test]
    fn lines_of_both_streams() {
        let text = written(
            1 << 20,
            &[(Stream::Out, b"one\ntw"), (Stream::Err, b"bad\n\n"), (Stream::Out, b"o\ntail")],
        );
        assert_eq!(text, "stdout F one\nstderr F bad\nstderr F \nstdout F two\nstdout P tail\n");
    }

    #[test]
    fn long_lines_come_in_pieces() {
        let long = vec![b'x'; PIECE + 3];
        let text = written(1 << 20, &[(Stream::Out, &long), (Stream::Out, b"\n")]);
        assert_eq!(text, format!("stdout P {}\nstdout F xxx\n", "x".repeat(PIECE)));
    }

    #[test]
    fn a_full_log_says_so_once() {
        // The first line takes 81 bytes with its time; what comes after it does not fit.
        let text =
            written(100, &[(Stream::Out, &[b'x'; 40]), (Stream::Out, &[b'\n'; 100]), (Stream::Out, b"y\n")]);
        let marker = "stderr F [the log ends here: it reached its limit of 100 bytes]";
        assert_eq!(text, format!("stdout F {}\n{marker}\n", "x".repeat(40)));
    }
}
