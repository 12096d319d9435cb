//! How far the pulls of images are, on the screen.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future;
use std::sync::Arc;
use std::time::Duration;

use indicatif::BinaryBytes;
use ropewalk_pull::Progress;
use ropewalk_standalone::node::Pulls;
use tokio::sync::watch;
use tokio::time::Instant;

use super::screen::Screen;

/// What takes less long is not worth a word about how far it is.
const QUIET: Duration = Duration::from_secs(1);

/// How often a word is, where words cannot be taken back: a log of builds shows that something goes on, and no more.
const REPEAT: Duration = Duration::from_secs(10);

/// How often a terminal is drawn anew at most; some thousand pieces come in a second.
const REDRAW: Duration = Duration::from_millis(100);

/// Shows them for as long as it is polled.
pub(super) async fn show(mut pulls: watch::Receiver<Pulls>, screen: &Arc<Screen>) -> Infallible {
    let mut words = Words::default();
    loop {
        let now = pulls.borrow_and_update().clone();
        if screen.is_live() {
            screen.pulling(&now);
        } else {
            words.tell(&now, Instant::now()).iter().for_each(|line| screen.line(line));
        }
        tokio::time::sleep(REDRAW).await;
        tokio::select! {
            Ok(()) = pulls.changed() => {}
            () = until(words.due) => {}
        }
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => future::pending().await,
    }
}

/// What is told of pulls where nothing can be taken back.
#[derive(Debug, Default)]
struct Words {
    /// When the next word about each is due.
    next: BTreeMap<String, Instant>,
    /// When that is for the first of them.
    due: Option<Instant>,
}

impl Words {
    fn tell(&mut self, pulls: &Pulls, now: Instant) -> Vec<String> {
        self.next.retain(|image, _| pulls.contains_key(image));
        let mut lines = Vec::new();
        for (image, progress) in pulls {
            let next = self.next.entry(image.clone()).or_insert(now + QUIET);
            if *next <= now {
                *next = now + REPEAT;
                lines.push(line(image, *progress));
            }
        }
        self.due = self.next.values().min().copied();
        lines
    }
}

fn line(image: &str, Progress { done, total }: Progress) -> String {
    if total == 0 {
        return format!("pulling image \"{image}\": asking its registry");
    }
    format!("pulling image \"{image}\": {} of {}", BinaryBytes(done), BinaryBytes(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_few_and_say_how_far_it_is() {
        let begun = Instant::now();
        let pulls = |done, total| Pulls::from([("app:1".to_owned(), Progress { done, total })]);
        let mut words = Words::default();
        let mut tell = |pulls: &Pulls, seconds| {
            let lines = words.tell(pulls, begun + Duration::from_secs(seconds));
            (lines, words.due.map(|due| (due - begun).as_secs()))
        };
        assert_eq!(tell(&pulls(0, 0), 0), (vec![], Some(1)), "short ones are not worth a word");
        let asking = "pulling image \"app:1\": asking its registry".to_owned();
        assert_eq!(tell(&pulls(0, 0), 1), (vec![asking], Some(11)));
        assert_eq!(tell(&pulls(1 << 20, 3 << 20), 5), (vec![], Some(11)));
        let half = "pulling image \"app:1\": 1.50 MiB of 3.00 MiB".to_owned();
        assert_eq!(tell(&pulls(3 << 19, 3 << 20), 12), (vec![half], Some(22)));
        assert_eq!(tell(&Pulls::new(), 13), (vec![], None));
        assert_eq!(tell(&pulls(0, 9), 30), (vec![], Some(31)), "a new one is quiet at first");
    }
}
