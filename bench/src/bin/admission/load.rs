//! So many admissions a second, whatever becomes of those before.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::asking::{Asking, Reviews};

/// Admissions in flight: as many writes as an API server lets be. Those that are due and have no place wait, and their time
/// goes on.
const IN_FLIGHT: usize = 200;

/// Admissions that may wait: minutes of them. A webhook that far behind has failed.
const WAITING: usize = 100_000;

/// A load that has begun.
pub(crate) struct Load {
    due: mpsc::Receiver<Instant>,
    stop: Arc<AtomicBool>,
    asking: Arc<Asking>,
    reviews: Arc<Reviews>,
}

/// What came of it.
pub(crate) struct Asked {
    /// From the moment an admission was due until it was answered.
    pub(crate) times: Vec<Duration>,
    /// Why not, and how often.
    refused: BTreeMap<String, usize>,
}

impl Load {
    /// Begins with `rate` admissions a second.
    pub(crate) fn start(asking: &Arc<Asking>, reviews: &Reviews, rate: u32) -> Self {
        let (tell, due) = mpsc::channel(WAITING);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let pause = Duration::from_secs(1) / rate;
        // A thread of its own: the runtime's timer counts milliseconds.
        std::thread::spawn(move || {
            let mut next = Instant::now();
            while !stopped.load(Ordering::Relaxed) && tell.try_send(next).is_ok() {
                next += pause;
                std::thread::sleep(next.saturating_duration_since(Instant::now()));
            }
        });
        Self { due, stop, asking: Arc::clone(asking), reviews: Arc::new(reviews.clone()) }
    }

    /// Goes on until `end`, and then until all is answered.
    pub(crate) async fn for_as_long_as(mut self, end: impl Future<Output = ()>) -> Result<Asked> {
        let (mut asked, mut asking) = (Asked { times: Vec::new(), refused: BTreeMap::new() }, JoinSet::new());
        let places = Arc::new(Semaphore::new(IN_FLIGHT));
        let mut end = std::pin::pin!(end);
        let mut ended = false;
        loop {
            tokio::select! {
                () = &mut end, if !ended => {
                    ended = true;
                    self.stop.store(true, Ordering::Relaxed);
                }
                due = self.due.recv() => match due {
                    Some(due) => {
                        let (client, reviews) = (Arc::clone(&self.asking), Arc::clone(&self.reviews));
                        let places = Arc::clone(&places);
                        asking.spawn(async move {
                            let _place = places.acquire().await;
                            let answered = client.admit(&reviews).await;
                            (due.elapsed(), answered)
                        });
                    }
                    None if ended => break,
                    None => bail!("more than {WAITING} admissions wait"),
                },
                Some(done) = asking.join_next() => asked.take(done?),
            }
        }
        while let Some(done) = asking.join_next().await {
            asked.take(done?);
        }
        Ok(asked)
    }
}

impl Asked {
    fn take(&mut self, (took, answered): (Duration, Result<()>)) {
        self.times.push(took);
        if let Err(error) = answered {
            *self.refused.entry(format!("{error:#}")).or_default() += 1;
        }
    }

    /// That every admission was answered with consent.
    pub(crate) fn none_refused(&self) -> Result<()> {
        let first = self.refused.iter().max_by_key(|(_, count)| **count);
        let all: usize = self.refused.values().sum();
        first.map_or(Ok(()), |(why, _)| {
            Err(anyhow::anyhow!("{why}")).with_context(|| format!("{all} of {} refused", self.times.len()))
        })
    }
}
