//! Watch fan-out: each change goes to every watch it concerns, through a bounded queue of its own.

use std::{
    io, mem,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::stream;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use jiff::Timestamp;
use ropewalk_apiserver::{Delta, WatchPlan};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior},
};

use super::{ResponseBody, Shared, clients::Room};

/// Changes a watch may lag behind before it is ended and its client lists again. A fan-out of some hundred pods
/// changes at once; a client further behind catches up faster by listing.
const QUEUE: usize = 1024;

/// Time between bookmarks, as in kube-apiserver: a client that reconnects resumes at most this far back.
const BOOKMARK_PERIOD: Duration = Duration::from_mins(1);

/// How long a watch lasts whose client did not say: kube-apiserver's minimum of half an hour.
const DEFAULT_TIMEOUT: Duration = Duration::from_mins(30);

struct Watcher {
    plan: Arc<WatchPlan>,
    queue: mpsc::Sender<Arc<Delta>>,
    lagged: Arc<AtomicBool>,
}

/// All open watches.
#[derive(Default)]
pub(super) struct Fanout {
    watchers: Vec<Watcher>,
}

/// The receiving end of one watch.
pub(super) struct Subscription {
    plan: Arc<WatchPlan>,
    initial: std::vec::IntoIter<Vec<u8>>,
    /// What the initial events take of their client's share; given back when they are on their way.
    room: Option<Room>,
    queue: mpsc::Receiver<Arc<Delta>>,
    lagged: Arc<AtomicBool>,
}

impl Fanout {
    /// Hands changes to the watches they concern; one whose queue is full is cut off, one whose client is gone is
    /// forgotten.
    pub(super) fn publish(&mut self, deltas: &[Arc<Delta>]) {
        if deltas.is_empty() {
            return;
        }
        self.watchers.retain(|watcher| {
            // A plan has seen what is only published now that it is on disk.
            let news = deltas.iter().filter(|delta| delta.resource_version > watcher.plan.position);
            for delta in news.filter(|delta| watcher.plan.concerns(delta)) {
                match watcher.queue.try_send(Arc::clone(delta)) {
                    Ok(()) => {}
                    Err(mpsc::error::TrySendError::Full(_)) => {
                        watcher.lagged.store(true, Ordering::Release);
                        return false;
                    }
                    Err(mpsc::error::TrySendError::Closed(_)) => return false,
                }
            }
            !watcher.queue.is_closed()
        });
    }

    /// Opens a watch that sees every change after those its plan has seen.
    pub(super) fn subscribe(&mut self, mut plan: WatchPlan, room: Option<Room>) -> Subscription {
        // Watches of quiet resources end unnoticed by `publish`; opening is when the list could grow.
        self.watchers.retain(|watcher| !watcher.queue.is_closed());
        let (sender, queue) = mpsc::channel(QUEUE);
        let initial = mem::take(&mut plan.initial).into_iter();
        let (plan, lagged) = (Arc::new(plan), Arc::new(AtomicBool::new(false)));
        self.watchers.push(Watcher { plan: Arc::clone(&plan), queue: sender, lagged: Arc::clone(&lagged) });
        Subscription { plan, initial, room, queue, lagged }
    }
}

struct Stream {
    shared: Arc<Shared>,
    subscription: Subscription,
    /// Version of the last bookmark, so that a quiet server sends none twice.
    told: u64,
    end: Instant,
    bookmarks: tokio::time::Interval,
    over: bool,
}

/// The body of a watch response.
pub(super) fn body(shared: Arc<Shared>, subscription: Subscription) -> ResponseBody {
    let now = Instant::now();
    let timeout = subscription.plan.timeout.unwrap_or(DEFAULT_TIMEOUT);
    let mut bookmarks = tokio::time::interval_at(now + BOOKMARK_PERIOD, BOOKMARK_PERIOD);
    bookmarks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let told = subscription.plan.position;
    let stream = Stream { shared, subscription, told, end: now + timeout, bookmarks, over: false };
    let frames = stream::unfold(stream, |mut stream| async move {
        let line = stream.next().await?;
        Some((Ok::<_, io::Error>(Frame::data(line)), stream))
    });
    StreamBody::new(frames).boxed_unsync()
}

impl Stream {
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(line) = self.subscription.initial.next() {
            return Some(Bytes::from(line));
        }
        self.subscription.room = None;
        while !self.over {
            tokio::select! {
                biased;
                delta = self.subscription.queue.recv() => {
                    let Some(delta) = delta else {
                        self.over = true;
                        let lagged = self.subscription.lagged.load(Ordering::Acquire);
                        return lagged.then(|| Bytes::from(WatchPlan::expired()));
                    };
                    if let Some(line) = self.subscription.plan.event(&delta, Timestamp::now()) {
                        return Some(Bytes::from(line));
                    }
                }
                () = tokio::time::sleep_until(self.end) => {
                    self.over = true;
                    // A last bookmark lets the client resume from here however quiet its resource was.
                    return self.bookmark();
                }
                _ = self.bookmarks.tick() => {
                    if let Some(line) = self.bookmark() {
                        return Some(line);
                    }
                }
            }
        }
        None
    }

    /// Changes still queued, and a bookmark behind them.
    fn bookmark(&mut self) -> Option<Bytes> {
        // Under the lock nothing is published: what is queued by then is all there is up to this version.
        let version = self.shared.lock().told;
        let mut lines = Vec::new();
        loop {
            match self.subscription.queue.try_recv() {
                Ok(delta) => {
                    let later = delta.resource_version > version;
                    lines
                        .extend(self.subscription.plan.event(&delta, Timestamp::now()).into_iter().flatten());
                    if later {
                        // Told out of turn, so a bookmark would point behind it.
                        return Some(Bytes::from(lines));
                    }
                }
                Err(mpsc::error::TryRecvError::Disconnected)
                    if self.subscription.lagged.load(Ordering::Acquire) =>
                {
                    self.over = true;
                    lines.extend(WatchPlan::expired());
                    return Some(Bytes::from(lines));
                }
                Err(_) => break,
            }
        }
        if self.subscription.plan.bookmarks && version > self.told {
            self.told = version;
            lines.extend(self.subscription.plan.bookmark(version));
        }
        (!lines.is_empty()).then(|| Bytes::from(lines))
    }
}
