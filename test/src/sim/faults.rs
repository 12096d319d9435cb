//! What goes wrong, and when. All chance of a simulation comes from here. No IO.

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// How likely each fault is, in thousandths per occasion.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Odds {
    /// The controllers' process dies after a write.
    pub crash: u32,
    /// A write is carried out, and its answer is lost.
    pub lost_answer: u32,
    /// A request is answered by 500 and does nothing.
    pub refused: u32,
    /// A pod is gone before its node has looked at it.
    pub lost_pod: u32,
    /// A watch breaks and begins again from a list, so that what happened meanwhile is never told.
    pub broken_watch: u32,
}

/// The number of faults in one simulation: enough to meet each other, and few enough for runs to end.
const MOST: usize = 12;

/// Pods lost in one simulation. A run gives up at the fourth of one attempt.
const MOST_PODS: usize = 3;

/// The source of chance and of faults.
#[derive(Clone, Debug)]
pub(super) struct Faults {
    random: SmallRng,
    odds: Odds,
    happened: usize,
    pods: usize,
}

impl Faults {
    /// Faults that follow from the seed.
    pub(super) fn new(seed: u64, odds: Odds) -> Self {
        Self { random: SmallRng::seed_from_u64(seed), odds, happened: 0, pods: 0 }
    }

    /// How many faults there were so far.
    pub(super) fn happened(&self) -> usize {
        self.happened
    }

    /// A number below `bound`, which is at least 1.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.random.random_range(0..bound.max(1))
    }

    /// Whether something with these odds in thousandths happens.
    pub(super) fn chance(&mut self, thousandths: u32) -> bool {
        thousandths > 0 && self.random.random_range(0..1000) < thousandths
    }

    fn strikes(&mut self, thousandths: u32) -> bool {
        let strikes = self.happened < MOST && self.chance(thousandths);
        self.happened += usize::from(strikes);
        strikes
    }

    pub(super) fn crash(&mut self) -> bool {
        self.strikes(self.odds.crash)
    }

    pub(super) fn lost_answer(&mut self) -> bool {
        self.strikes(self.odds.lost_answer)
    }

    pub(super) fn refused(&mut self) -> bool {
        self.strikes(self.odds.refused)
    }

    pub(super) fn lost_pod(&mut self) -> bool {
        let lost = self.pods < MOST_PODS && self.strikes(self.odds.lost_pod);
        self.pods += usize::from(lost);
        lost
    }

    pub(super) fn broken_watch(&mut self) -> bool {
        self.strikes(self.odds.broken_watch)
    }
}
