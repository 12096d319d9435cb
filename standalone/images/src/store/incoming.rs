//! An image on its way into the store.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use ropewalk_core::images::reference::{Digest, Reference};
use rustix::fs::{FlockOperation, flock, syncfs};
use tempfile::TempDir;

use super::error::{StoreError, failed};
use super::names::{Names, Origin};
use super::{ABOUT, About, Blob, CONFIGS, INCOMING, Image, LAYERS, ROOT, Store, USES, sync_directory, write};
use crate::compression::decompress;
use crate::documents::Config;
use crate::entries::ArchiveError;
use crate::hashing::{Hashing, chain_ids, hex};
use crate::unpack::{Unpacked, unpack};

/// A layer to be added.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Layer {
    /// The digest of its archive, as the image's configuration has it.
    pub diff_id: Digest,
    /// What is transferred, maybe compressed, as the manifest has it; archives of Docker have none.
    pub blob: Option<Blob>,
}

/// An image that is being added. Layers that are here or were added stay while it lives, whoever prunes; dropped before it is
/// finished it leaves nothing but whole layers, which the next attempt finds and [`Store::prune`] removes.
#[derive(Debug)]
pub struct Incoming {
    store: Store,
    directory: TempDir,
    /// Held for its lock, by which others know that somebody lives; dropped after the directory.
    _lock: File,
}

impl Incoming {
    /// Whoever calls it has the store's lock: nobody sees it before it is locked itself.
    pub(super) fn new(store: &Store) -> Result<Self, StoreError> {
        let parent = store.directory.join(INCOMING);
        let directory = TempDir::new_in(&parent).map_err(failed("make a directory in", &parent))?;
        let path = directory.path();
        let lock = File::open(path).map_err(failed("open", path))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|errno| failed("lock", path)(errno.into()))?;
        let uses = path.join(USES);
        fs::create_dir(&uses).map_err(failed("make", &uses))?;
        Ok(Self { store: store.clone(), directory, _lock: lock })
    }

    /// Where its files are for the time.
    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A file without a name on the disk of the store, for a layer that is still being transferred.
    pub fn scratch(&self) -> Result<File, StoreError> {
        tempfile::tempfile_in(self.path()).map_err(failed("make a file in", self.path()))
    }

    /// Whether a layer is here, upon these below it, from the lowest on. If it is it will stay.
    pub fn has_layer(&self, below: &[Digest], diff_id: &Digest) -> Result<bool, StoreError> {
        let chain = chain(below, diff_id);
        let _lock = self.store.lock()?;
        let path = self.path().join(USES).join(hex(&chain));
        File::create(&path).map_err(failed("make", &path))?;
        Ok(self.store.about(&chain)?.is_some())
    }

    /// Adds a layer, unless it is here, upon these below it, which are. Reads the input to its end, and fails unless what it
    /// read is what the layer should be. Of several that add one layer at once the first to finish does.
    pub fn add_layer(&self, below: &[Digest], layer: &Layer, input: impl Read) -> Result<(), StoreError> {
        if self.has_layer(below, &layer.diff_id)? {
            return Ok(());
        }
        let missing = || StoreError::MissingLayer(layer.diff_id.to_string());
        let (lowers, _) = self.store.lowers(&chain_ids(below))?.ok_or_else(missing)?;
        let place = TempDir::new_in(self.path()).map_err(failed("make a directory in", self.path()))?;
        let root = place.path().join(ROOT);
        fs::create_dir(&root).map_err(failed("make", &root))?;
        let Unpacked { bytes, opaque } = self.unpack(layer, input, &root, &lowers)?;
        let about = serde_json::to_vec(&About { bytes, opaque });
        let about = about.map_err(|error| failed("write", place.path())(error.into()))?;
        write(place.path(), ABOUT, &about)?;
        // A layer that is here is taken for whole, after a power failure too.
        let synced = File::open(&root).and_then(|root| Ok(syncfs(&root)?));
        synced.map_err(failed("write", &root))?;
        let to = self.store.layer(&chain(below, &layer.diff_id));
        match fs::rename(place.path(), &to) {
            // Somebody else was faster.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists
                ) =>
            {
                return Ok(());
            }
            renamed => renamed.map_err(failed("make", &to))?,
        }
        let _ = place.keep();
        sync_directory(&self.store.directory.join(LAYERS))
    }

    fn unpack(
        &self,
        layer: &Layer,
        input: impl Read,
        root: &Path,
        lowers: &[impl AsRef<Path>],
    ) -> Result<Unpacked, StoreError> {
        let failed = |source| StoreError::Unpack { diff_id: layer.diff_id.to_string(), source };
        // One byte more, so that one that is too long is not taken for whole.
        let limit = layer.blob.as_ref().map_or(u64::MAX, |blob| blob.size.saturating_add(1));
        let mut blob = Hashing::new(input.take(limit));
        let archive = decompress(&mut blob).map_err(|error| failed(ArchiveError::Read(error).into()))?;
        let mut archive = Hashing::new(archive);
        let unpacked = unpack(&mut archive, root, lowers, &self.store.limits);
        let (found_diff_id, _) = archive.finish();
        // What cannot be unpacked was not transferred well, most often; unless the transfer itself has failed.
        let rest = if blob.has_failed() { Ok(0) } else { io::copy(&mut blob, &mut io::sink()) };
        if let (Some(Blob { digest, size }), false) = (&layer.blob, blob.has_failed()) {
            let (found, bytes) = blob.finish();
            if found != digest.to_string() || bytes != *size {
                return Err(StoreError::Blob { digest: digest.to_string(), size: *size, found, bytes });
            }
        }
        let unpacked = unpacked.map_err(failed)?;
        rest.map_err(|error| failed(ArchiveError::Read(error).into()))?;
        if found_diff_id == layer.diff_id.to_string() {
            Ok(unpacked)
        } else {
            Err(StoreError::DiffId { diff_id: layer.diff_id.to_string(), found: found_diff_id })
        }
    }

    /// Adds the image itself, by the bytes of its configuration, of which all layers were added or found to be here. From now
    /// on these names are for it: with a tag, or with the digest of its manifest or of an index with it. The image is told under
    /// the first of them.
    pub fn finish(self, names: &[Reference], config: &[u8], origin: Origin) -> Result<Image, StoreError> {
        let id = Digest::of(config);
        let diff_ids = Config::parse(config)?.diff_ids;
        let lock = self.store.lock()?;
        for (chain, diff_id) in chain_ids(&diff_ids).iter().zip(&diff_ids) {
            if self.store.about(chain)?.is_none() {
                return Err(StoreError::MissingLayer(diff_id.to_string()));
            }
        }
        write(&self.store.directory.join(CONFIGS), &hex(&id), config)?;
        let mut known = Names::read(&self.store.directory)?;
        for name in names {
            known.add(name, &id, origin);
        }
        known.write(&self.store.directory)?;
        let reference = names.first().map_or_else(|| id.to_string(), Reference::full_name);
        let image = self.store.image(&id, reference.clone(), &known)?;
        drop(lock);
        image.ok_or(StoreError::Gone(reference))
    }

    /// Removes what it has, and tells if that fails.
    pub(super) fn close(self) -> Result<(), StoreError> {
        let path = self.path().to_owned();
        self.directory.close().map_err(failed("remove", &path))
    }
}

fn chain(below: &[Digest], diff_id: &Digest) -> Digest {
    let mut all = below.to_vec();
    all.push(diff_id.clone());
    chain_ids(&all).pop().unwrap_or_else(|| diff_id.clone())
}
