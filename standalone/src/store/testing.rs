//! A disk in memory, for tests of what is left when it, the process or the power fails.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use redb::StorageBackend;

/// A disk in memory that a crash can stop before any of its operations.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk(Arc<Mutex<Plates>>);

#[derive(Debug, Default)]
struct Plates {
    /// What the kernel has: all that was written.
    cached: Vec<u8>,
    /// What is there when the power is back.
    synced: Vec<u8>,
    /// What was done since the last synchronisation: where, and which bytes; or a new length.
    unsynced: Vec<Step>,
    /// How many steps are done before the crash.
    left: usize,
}

#[derive(Clone, Debug)]
enum Step {
    Write(usize, Vec<u8>),
    Resize(usize),
}

impl Step {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(offset, data) => {
                // The write may survive, and the growth before it not.
                let end = offset + data.len();
                bytes.resize(bytes.len().max(end), 0);
                bytes[*offset..end].copy_from_slice(data);
            }
            Self::Resize(length) => bytes.resize(*length, 0),
        }
    }
}

impl Disk {
    pub(crate) fn new(bytes: &[u8], left: usize) -> Self {
        let plates = Plates { cached: bytes.to_vec(), synced: bytes.to_vec(), unsynced: Vec::new(), left };
        Self(Arc::new(Mutex::new(plates)))
    }

    /// How many steps are done before the crash.
    pub(crate) fn left(&self) -> usize {
        self.plates().left
    }

    /// Crashes after so many more steps, or works again.
    pub(crate) fn set_left(&self, left: usize) {
        self.plates().left = left;
    }

    fn plates(&self) -> MutexGuard<'_, Plates> {
        self.0.lock().unwrap()
    }

    fn step(&self, step: Option<Step>) -> io::Result<()> {
        let mut plates = self.plates();
        plates.left = plates.left.checked_sub(1).ok_or_else(|| io::Error::other("crashed"))?;
        if let Some(step) = step {
            step.apply(&mut plates.cached);
            plates.unsynced.push(step);
        } else {
            plates.synced = plates.cached.clone();
            plates.unsynced.clear();
        }
        Ok(())
    }

    /// What a process that was killed leaves.
    pub(crate) fn after_kill(&self) -> Vec<u8> {
        self.plates().cached.clone()
    }

    /// What a machine without power leaves: of what was not synchronised, any part, in any order.
    pub(crate) fn after_power_cut(&self, random: &mut Random) -> Vec<u8> {
        let plates = self.plates();
        let mut bytes = plates.synced.clone();
        for step in &plates.unsynced {
            if random.below(2) == 0 {
                step.apply(&mut bytes);
            }
        }
        bytes
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.plates().cached.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).unwrap();
        let plates = self.plates();
        let bytes = plates.cached.get(start..start + out.len());
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.step(Some(Step::Resize(usize::try_from(len).unwrap())))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.step(None)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.step(Some(Step::Write(usize::try_from(offset).unwrap(), data.to_vec())))
    }
}

/// splitmix64, so that a failure can be repeated.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}
