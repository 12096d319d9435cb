//! The newest changes, which watches resume from, and those that are yet to be told. Pure.

use std::{collections::VecDeque, sync::Arc};

use serde_json::Value;

use super::ObjectKey;
use crate::table::ResourceId;

/// Changes kept for watches to resume from. At some 10 kB a version this is at most about 80 MB, and covers the
/// writes of more than 200 task runs while a client reconnects; a client that was away for longer lists again.
pub const HISTORY: usize = 8192;

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeltaKind {
    /// It came into being.
    Added,
    /// It changed.
    Modified,
    /// It is gone.
    Deleted,
}

/// One change of one object; what watches are made of.
#[derive(Clone, Debug)]
pub struct Delta {
    /// The server-wide counter after this change, which is also the object's `metadata.resourceVersion`.
    pub resource_version: u64,
    /// The object's resource.
    pub resource: ResourceId,
    /// What happened.
    pub kind: DeltaKind,
    /// The object's namespace and name.
    pub key: ObjectKey,
    /// The object after the change, in its storage version; for a deletion its last state, with the
    /// resourceVersion of the deletion.
    pub object: Arc<Value>,
    /// The object before the change, so that watches see objects enter and leave their selectors.
    pub previous: Option<Arc<Value>>,
}

/// The changes of a server in the order they were made.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    deltas: VecDeque<Arc<Delta>>,
    /// Version of the newest change that fell off; watches can resume from here on.
    horizon: u64,
    /// Changes made since they were last taken.
    fresh: Vec<Arc<Delta>>,
}

impl History {
    /// A change that has just been made.
    pub(super) fn record(&mut self, delta: Delta) {
        let delta = Arc::new(delta);
        self.fresh.push(Arc::clone(&delta));
        self.deltas.push_back(delta);
        if self.deltas.len() > HISTORY
            && let Some(lost) = self.deltas.pop_front()
        {
            self.horizon = lost.resource_version;
        }
    }

    /// Forgets what was recorded, so that watches resume from this version at the earliest. What is fresh stays so.
    pub(super) fn begin_at(&mut self, version: u64) {
        self.deltas.clear();
        self.horizon = version;
    }

    /// Forgets what came after this version.
    pub(super) fn go_back_to(&mut self, version: u64) {
        self.horizon = self.horizon.min(version);
        let kept = self.deltas.partition_point(|delta| delta.resource_version <= version);
        self.deltas.truncate(kept);
    }

    /// Changes after `since`, or `None` where some of them fell off.
    pub(super) fn since(&self, since: u64) -> Option<impl Iterator<Item = &Arc<Delta>>> {
        if since < self.horizon {
            return None;
        }
        let start = self.deltas.partition_point(|delta| delta.resource_version <= since);
        Some(self.deltas.range(start..))
    }

    /// Changes since they were last taken.
    pub(super) fn fresh(&self) -> &[Arc<Delta>] {
        &self.fresh
    }

    /// Takes the changes made since the last call.
    pub(super) fn take_fresh(&mut self) -> Vec<Arc<Delta>> {
        std::mem::take(&mut self.fresh)
    }
}
