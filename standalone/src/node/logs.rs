//! Where pods and their containers lie on disk, and the reading of their logs for the API server. Following a
//! log waits for the kernel's file notifications; nothing is polled.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use jiff::{SignedDuration, Timestamp};
use ropewalk_apiserver::LogRequest;
use tokio::sync::mpsc;

use super::files;
use super::watch::Watches;
use crate::server::LogSource;

/// Directory of all pods, below the data directory, by UID.
pub(super) const PODS: &str = "pods";
/// Directory of a pod's containers, by name and attempt.
pub(super) const CONTAINERS: &str = "containers";

/// Bytes handed on at once, and pieces that may wait for a slow reader: a follower never holds more than 1 MiB.
const CHUNK: usize = 64 * 1024;
const CHUNKS: usize = 16;

pub(super) fn attempt_dir(data_dir: &Path, uid: &str, container: &str, attempt: u32) -> PathBuf {
    container_dir(data_dir, uid, container).join(attempt.to_string())
}

/// The directory of the attempts of a container.
pub(super) fn container_dir(data_dir: &Path, uid: &str, container: &str) -> PathBuf {
    data_dir.join(PODS).join(uid).join(CONTAINERS).join(container)
}

/// Bytes of all logs of a pod.
pub(crate) fn bytes(data_dir: &Path, uid: &str) -> u64 {
    let list = |directory: PathBuf| fs::read_dir(directory).into_iter().flatten().flatten();
    let containers = list(data_dir.join(PODS).join(uid).join(CONTAINERS));
    let attempts = containers.flat_map(|container| list(container.path()));
    let sizes = attempts.filter_map(|attempt| fs::metadata(attempt.path().join(files::LOG)).ok());
    sizes.map(|log| log.len()).sum()
}

/// Reads the logs of the node with this data directory.
pub struct Logs {
    data_dir: PathBuf,
    watches: Arc<OnceLock<Watches>>,
}

impl Logs {
    /// Logs of the node that runs with `data_dir`, now or later.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self { data_dir: data_dir.into(), watches: Arc::default() }
    }
}

impl LogSource for Logs {
    fn open(&self, request: LogRequest) -> BoxStream<'static, io::Result<Bytes>> {
        let (sender, receiver) = mpsc::channel(CHUNKS);
        let (data_dir, watches) = (self.data_dir.clone(), Arc::clone(&self.watches));
        tokio::spawn(async move {
            if let Err(error) = send(&data_dir, &watches, &request, &sender).await {
                // The reader may be gone, which is also the most likely reason for the error.
                let _ = sender.send(Err(error)).await;
            }
        });
        stream::unfold(receiver, async |mut receiver| {
            let item = receiver.recv().await?;
            Some((item, receiver))
        })
        .boxed()
    }
}

async fn send(
    data_dir: &Path,
    watches: &OnceLock<Watches>,
    request: &LogRequest,
    sender: &mpsc::Sender<io::Result<Bytes>>,
) -> io::Result<()> {
    let Some(directory) = directory(data_dir, request) else {
        // What a kubelet says whose log files were removed: the answer has begun, so it is told in the log's place.
        let id = format!("{}-{}", request.uid, request.container);
        let text = format!("unable to retrieve container logs for ropewalk://{id}");
        // Fails only when the reader is gone.
        let _ = sender.send(Ok(Bytes::from(text))).await;
        return Ok(());
    };
    let watch = if request.follow {
        if watches.get().is_none() {
            // Another request may have been faster; its instance is as good.
            let _ = watches.set(Watches::new(true)?);
        }
        watches.get().map(|watches| watches.watch(&directory)).transpose()?
    } else {
        None
    };
    let (log, options) = (directory.join(files::LOG), request.clone());
    // Finding the last lines reads all of a log, which may take a while.
    let opened = tokio::task::spawn_blocking(move || Reader::open(&log, &options, Timestamp::now()));
    let mut reader = Some(opened.await.map_err(io::Error::other)??);
    loop {
        // Asked before the rest is read: what was written before the end is then not missed.
        let ended = directory.join(files::EXIT).exists() || !directory.exists();
        loop {
            let Some(mut taken) = reader.take() else { return Ok(()) };
            let read = tokio::task::spawn_blocking(move || taken.next_chunk().map(|chunk| (taken, chunk)));
            let (back, chunk) = read.await.map_err(io::Error::other)??;
            let done = back.is_done();
            reader = Some(back);
            if chunk.is_empty() {
                break;
            }
            if sender.send(Ok(Bytes::from(chunk))).await.is_err() || done {
                return Ok(());
            }
        }
        match &watch {
            Some(watch) if !ended => {
                tokio::select! {
                    () = watch.changed() => {}
                    () = sender.closed() => return Ok(()),
                }
            }
            _ => return Ok(()),
        }
    }
}

/// The directory of the attempt whose log is asked for; the kernel has made sure that there is or was one.
fn directory(data_dir: &Path, request: &LogRequest) -> Option<PathBuf> {
    let container = container_dir(data_dir, &request.uid, &request.container);
    let attempts = fs::read_dir(&container).ok()?.flatten();
    let mut attempts: Vec<u32> = attempts
        .filter(|entry| entry.path().join(files::LOG).exists())
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    attempts.sort_unstable();
    if request.previous {
        attempts.pop();
    }
    attempts.pop().map(|attempt| container.join(attempt.to_string()))
}

/// Turns the log file back into the bytes the container wrote.
struct Reader {
    file: BufReader<fs::File>,
    /// A line of the file that is not complete yet.
    partial: Vec<u8>,
    since: Option<Timestamp>,
    timestamps: bool,
    left: Option<u64>,
    /// Whether the next piece begins a line of output.
    at_line_start: bool,
}

/// One line of the log file.
struct Entry<'a> {
    time: &'a [u8],
    whole: bool,
    text: &'a [u8],
}

fn parse(line: &[u8]) -> Option<Entry<'_>> {
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let (time, _stream, tag) = (parts.next()?, parts.next()?, parts.next()?);
    Some(Entry { time, whole: tag == b"F", text: parts.next()? })
}

impl Reader {
    fn open(path: &Path, request: &LogRequest, now: Timestamp) -> io::Result<Self> {
        let mut file = BufReader::with_capacity(CHUNK, fs::File::open(path)?);
        let start = match request.tail_lines {
            Some(lines) => tail_offset(&mut file, lines)?,
            None => 0,
        };
        file.seek(SeekFrom::Start(start))?;
        let ago = request.since_seconds.and_then(|seconds| i64::try_from(seconds).ok());
        let ago = ago.and_then(|seconds| now.checked_sub(SignedDuration::from_secs(seconds)).ok());
        Ok(Self {
            file,
            partial: Vec::new(),
            since: request.since_time.or(ago),
            timestamps: request.timestamps,
            left: request.limit_bytes,
            at_line_start: true,
        })
    }

    fn is_done(&self) -> bool {
        self.left == Some(0)
    }

    /// The next piece of output, empty when the file has no more for now.
    fn next_chunk(&mut self) -> io::Result<Vec<u8>> {
        let mut chunk = Vec::new();
        while chunk.len() < CHUNK && !self.is_done() {
            let read = self.file.read_until(b'\n', &mut self.partial)?;
            if self.partial.last() != Some(&b'\n') {
                if read == 0 {
                    break;
                }
                continue;
            }
            let mut line = std::mem::take(&mut self.partial);
            line.pop();
            self.append(&line, &mut chunk);
        }
        Ok(chunk)
    }

    fn append(&mut self, line: &[u8], chunk: &mut Vec<u8>) {
        let Some(entry) = parse(line) else { return };
        if let Some(since) = self.since {
            let time = std::str::from_utf8(entry.time).ok().and_then(|time| time.parse::<Timestamp>().ok());
            if time.is_none_or(|time| time < since) {
                return;
            }
        }
        let before = chunk.len();
        if self.timestamps && self.at_line_start {
            chunk.extend_from_slice(entry.time);
            chunk.push(b' ');
        }
        chunk.extend_from_slice(entry.text);
        if entry.whole {
            chunk.push(b'\n');
        }
        self.at_line_start = entry.whole;
        if let Some(left) = &mut self.left {
            let allowed = usize::try_from(*left).unwrap_or(usize::MAX);
            chunk.truncate(before.saturating_add(allowed));
            *left -= (chunk.len() - before) as u64;
        }
    }
}

/// Where the last `lines` lines of output begin in the file.
fn tail_offset(file: &mut (impl BufRead + Seek), lines: u64) -> io::Result<u64> {
    let lines = usize::try_from(lines).unwrap_or(usize::MAX);
    let (mut starts, mut offset, mut begins) = (VecDeque::new(), 0, true);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = file.read_until(b'\n', &mut line)?;
        if read == 0 || line.last() != Some(&b'\n') {
            break;
        }
        if begins {
            starts.push_back(offset);
            if starts.len() > lines {
                starts.pop_front();
            }
        }
        begins = parse(&line).is_none_or(|entry| entry.whole);
        offset += read as u64;
    }
    Ok(starts.front().copied().unwrap_or(offset))
}

/// The end of a log as text: at most so many lines and bytes.
pub(super) fn tail(path: &Path, lines: u64, bytes: usize) -> String {
    let request = LogRequest {
        namespace: String::new(),
        pod: String::new(),
        uid: String::new(),
        container: String::new(),
        follow: false,
        previous: false,
        timestamps: false,
        tail_lines: Some(lines),
        limit_bytes: None,
        since_seconds: None,
        since_time: None,
    };
    let read = || -> io::Result<Vec<u8>> {
        let mut reader = Reader::open(path, &request, Timestamp::UNIX_EPOCH)?;
        let mut all = Vec::new();
        loop {
            let chunk = reader.next_chunk()?;
            if chunk.is_empty() {
                return Ok(all);
            }
            all.extend_from_slice(&chunk);
            let surplus = all.len().saturating_sub(bytes);
            all.drain(..surplus);
        }
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
1970-01-01T00:00:01.000000000Z stdout F one
1970-01-01T00:00:02.000000000Z stderr P long
1970-01-01T00:00:03.000000000Z stderr F  line
1970-01-01T00:00:04.000000000Z stdout F 
1970-01-01T00:00:05.000000000Z stdout P tail";

    fn request() -> LogRequest {
        LogRequest {
            namespace: "n".into(),
            pod: "p".into(),
            uid: "u".into(),
            container: "c".into(),
            follow: false,
            previous: false,
            timestamps: false,
            tail_lines: None,
            limit_bytes: None,
            since_seconds: None,
            since_time: None,
        }
    }

    /// What is read of two attempts, the first of which said no more than `before`.
    fn read(edit: impl FnOnce(&mut LogRequest)) -> String {
        let root = tempfile::tempdir().expect("a directory");
        for (attempt, text) in [(0, "1970-01-01T00:00:00.000000000Z stdout F before"), (1, LOG)] {
            let attempt = attempt_dir(root.path(), "u", "c", attempt);
            fs::create_dir_all(&attempt).expect("made");
            fs::write(attempt.join(files::LOG), format!("{text}\n")).expect("written");
        }
        let mut request = request();
        edit(&mut request);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let pieces: Vec<_> = Logs::new(root.path()).open(request).collect().await;
            let bytes = pieces.into_iter().map(|piece| piece.expect("readable")).collect::<Vec<_>>().concat();
            String::from_utf8(bytes).expect("text")
        })
    }

    #[test]
    fn the_bytes_come_back_as_they_were() {
        assert_eq!(read(|_| {}), "one\nlong line\n\ntail");
    }

    #[test]
    fn options_narrow_it_down() {
        assert_eq!(read(|request| request.tail_lines = Some(0)), "");
        assert_eq!(read(|request| request.tail_lines = Some(1)), "tail");
        assert_eq!(read(|request| request.tail_lines = Some(3)), "long line\n\ntail");
        assert_eq!(read(|request| request.limit_bytes = Some(6)), "one\nlo");
        assert_eq!(read(|request| request.tail_lines = Some(100)), read(|_| {}));
        assert_eq!(read(|request| (request.tail_lines, request.limit_bytes) = (Some(3), Some(4))), "long");
        assert_eq!(read(|request| request.previous = true), "before\n");
        assert_eq!(read(|request| request.since_seconds = Some(60)), "", "all of it is older than a minute");
        let gone = "unable to retrieve container logs for ropewalk://u-d";
        assert_eq!(read(|request| request.container = "d".into()), gone);
        let since = Timestamp::from_second(4).expect("in range");
        assert_eq!(read(|request| request.since_time = Some(since)), "\ntail");
        assert_eq!(
            read(|request| (request.timestamps, request.tail_lines) = (true, Some(3))),
            "1970-01-01T00:00:02.000000000Z long line\n1970-01-01T00:00:04.000000000Z \n\
             1970-01-01T00:00:05.000000000Z tail"
        );
    }

    #[tokio::test]
    async fn following_ends_with_the_container() {
        use std::io::Write;

        let root = tempfile::tempdir().expect("a directory");
        let attempt = attempt_dir(root.path(), "u", "c", 0);
        fs::create_dir_all(&attempt).expect("made");
        let line = |text: &str| format!("1970-01-01T00:00:01.000000000Z stdout F {text}\n");
        fs::write(attempt.join(files::LOG), line("first")).expect("written");
        let request = LogRequest { follow: true, ..request() };
        let mut pieces = Logs::new(root.path()).open(request);
        let first = pieces.next().await.expect("a piece").expect("readable");
        assert_eq!(first, "first\n");
        let mut file = fs::File::options().append(true).open(attempt.join(files::LOG)).expect("opened");
        file.write_all(line("second").as_bytes()).expect("written");
        let second = pieces.next().await.expect("a piece").expect("readable");
        assert_eq!(second, "second\n");
        files::write_atomically(&attempt.join(files::EXIT), b"{}").expect("written");
        assert!(pieces.next().await.is_none());
    }
}
