//! The images of a node in one directory, for any number of processes at once.
//!
//! ```text
//! lock              held for a moment by whoever reads and changes more than one of these
//! names.json        references, and the images they are for
//! configs/ID        an image: its configuration, under its digest; the file's time is when the image was last used
//! layers/CHAIN/     a layer, under the digest of it and what is below it: `root`, and `layer.json` about it
//! holds/ID.USER     a link to a path: the image is in use while there is something at that path
//! incoming/*/       what is being added, locked by its process; `uses/CHAIN` are layers that it will need
//! empty/            what an image without layers is made of
//! ```
//!
//! A layer or a configuration appears by renaming, complete and on disk. A name is written after its image and removed before
//! it, and so are images and their layers.

mod error;
mod holds;
mod incoming;
mod names;
mod prune;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use ropewalk_core::images::reference::Digest;
use rustix::fs::{FlockOperation, flock};
use rustix::io::retry_on_intr;
use serde::{Deserialize, Serialize};

use crate::documents::{Config, MAX_DOCUMENT};
use crate::hashing::{chain_ids, hex};
use crate::unpack::Limits;
pub use error::StoreError;
use error::failed;
pub use incoming::{Incoming, Layer};
use names::Names;
pub use names::Origin;

const LOCK: &str = "lock";
const CONFIGS: &str = "configs";
const LAYERS: &str = "layers";
const HOLDS: &str = "holds";
const INCOMING: &str = "incoming";
const USES: &str = "uses";
const EMPTY: &str = "empty";
const ROOT: &str = "root";
const ABOUT: &str = "layer.json";
/// What the names of files begin with that are being written.
const HALF: &str = ".half-";

/// Digits of an id that tell images of one machine apart, for people.
pub const SHORT_ID: usize = 12;

/// Content by its digest and its length in bytes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Blob {
    /// Of its bytes.
    pub digest: Digest,
    /// How many they are.
    pub size: u64,
}

/// An image that is here, whole.
#[derive(Clone, Debug)]
pub struct Image {
    /// The digest of its configuration, which names all of it.
    pub id: Digest,
    /// What it was asked for by, with everything filled in: `HOST/REPOSITORY:TAG`, `HOST/REPOSITORY@DIGEST` or the id.
    pub reference: String,
    /// What a pod's status calls it: `HOST/REPOSITORY@DIGEST`, or the id where nobody has told such a name.
    pub pinned: String,
    /// How the reference came here.
    pub origin: Origin,
    /// What it says about itself.
    pub config: Config,
    /// Its layers' directories for overlayfs, the topmost first; never empty.
    pub lowers: Vec<PathBuf>,
    /// Bytes of data in its layers.
    pub size: u64,
}

/// An image in a list.
#[derive(Clone, Debug, Serialize)]
pub struct Listed {
    /// As [`Image::id`].
    pub id: String,
    /// All its names.
    pub references: Vec<String>,
    /// Bytes of data in its layers, those that other images have too among them.
    pub size: u64,
    /// When it was made, as it says, in RFC 3339.
    pub created: Option<String>,
}

/// What was taken away.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Removed {
    /// Images, by id.
    pub images: Vec<String>,
    /// Bytes of data in the layers that nobody needed any more.
    pub bytes: u64,
}

/// What is known of a layer that is unpacked.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct About {
    /// Bytes of data in its files.
    bytes: u64,
    /// It hides everything below.
    opaque: bool,
}

/// The images in a directory.
#[derive(Clone, Debug)]
pub struct Store {
    directory: PathBuf,
    limits: Limits,
}

impl Store {
    /// Opens the directory, made if it is missing, and removes what killed processes left in the middle of adding. Each layer
    /// added from here on may take what the limits say.
    pub fn open(directory: &Path, limits: Limits) -> Result<Self, StoreError> {
        // Files of images belong to users of this machine by mere numbers, and some are setuid.
        let make = |path: &Path| DirBuilder::new().recursive(true).mode(0o700).create(path);
        make(directory).map_err(failed("make", directory))?;
        // Mounts are found by their paths, which the kernel tells without symbolic links.
        let directory = fs::canonicalize(directory).map_err(failed("find", directory))?;
        for name in [CONFIGS, LAYERS, HOLDS, INCOMING, EMPTY] {
            let path = directory.join(name);
            make(&path).map_err(failed("make", &path))?;
        }
        let store = Self { directory, limits };
        store.clear_dead()?;
        Ok(store)
    }

    /// Whether an image is here: by tag, by the digest of its manifest or of an index with it, or by its id. References may
    /// leave out what Docker fills in.
    pub fn find(&self, reference: &str) -> Result<Option<Image>, StoreError> {
        let names = Names::read(&self.directory)?;
        let Some((reference, id)) = names.find(reference)? else { return Ok(None) };
        self.image(&id, reference, &names)
    }

    /// All images, by name.
    pub fn list(&self) -> Result<Vec<Listed>, StoreError> {
        let _lock = self.lock()?;
        let names = Names::read(&self.directory)?;
        let mut listed = Vec::new();
        for (id, config) in self.configs()? {
            let mut size = 0;
            for chain in chain_ids(&config.diff_ids) {
                size += self.about(&chain)?.map_or(0, |about| about.bytes);
            }
            let references = names.of(&id).map(str::to_owned).collect();
            listed.push(Listed { id: id.to_string(), references, size, created: config.created });
        }
        listed.sort_by(|a, b| (&a.references, &a.id).cmp(&(&b.references, &b.id)));
        Ok(listed)
    }

    /// Keeps an image from being removed for as long as something is at the path `user`, as it is by now, by whichever process.
    /// Counts as using the image. It may have been removed since it was found, which is [`StoreError::Gone`].
    pub fn hold(&self, image: &Image, user: &Path) -> Result<(), StoreError> {
        let _lock = self.lock()?;
        let config = self.config_path(&image.id);
        match File::open(&config).and_then(|file| file.set_modified(SystemTime::now())) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(StoreError::Gone(image.reference.clone()));
            }
            touched => touched.map_err(failed("write", &config))?,
        }
        holds::sweep(&self.directory)?;
        holds::add(&self.directory, &image.id, user)
    }

    /// Begins to add an image.
    pub fn begin(&self) -> Result<Incoming, StoreError> {
        let _lock = self.lock()?;
        Incoming::new(self)
    }

    /// Takes a name away, and with the last one the image: digests alone do not keep what had a tag in the same repository. An
    /// id, or its first [`SHORT_ID`] digits or more, takes away the image with all its names. Fails if it is in use.
    pub fn remove(&self, reference: &str) -> Result<Removed, StoreError> {
        let lock = self.lock()?;
        let mut names = Names::read(&self.directory)?;
        let unknown = || StoreError::Unknown(reference.to_owned());
        let found = match names.find(reference)? {
            None => self.by_digits(reference)?,
            found => found,
        };
        let (name, id) = found.ok_or_else(unknown)?;
        if !self.config_path(&id).exists() {
            return Err(unknown());
        }
        names.remove(&name, &id);
        if names.of(&id).next().is_some() {
            names.write(&self.directory)?;
            return Ok(Removed::default());
        }
        if let Some(user) = holds::sweep(&self.directory)?.remove(&hex(&id)) {
            return Err(StoreError::InUse { reference: name, user });
        }
        names.write(&self.directory)?;
        self.take_away(&BTreeSet::from([id]), lock)
    }

    /// Takes away images that nothing uses, those least recently used first, until all layers together have at most this many
    /// bytes of data; and layers that no image has.
    pub fn prune(&self, keep: u64) -> Result<Removed, StoreError> {
        self.prune_unless(keep, |_, _| false)
    }

    /// As [`Store::prune`], but leaves what was loaded by hand, which nobody brings back by itself, and the image that room is
    /// made for, which may not be in use yet.
    pub fn prune_pulled(&self, keep: u64, newest: &Image) -> Result<Removed, StoreError> {
        self.prune_unless(keep, |names, id| *id == newest.id || names.has_loaded(id))
    }

    fn prune_unless(
        &self,
        keep: u64,
        stays: impl Fn(&Names, &Digest) -> bool,
    ) -> Result<Removed, StoreError> {
        self.clear_dead()?;
        let lock = self.lock()?;
        let held = holds::sweep(&self.directory)?;
        let mut names = Names::read(&self.directory)?;
        let mut images = Vec::new();
        for (id, config) in self.configs()? {
            let path = self.config_path(&id);
            let used =
                fs::metadata(&path).and_then(|found| found.modified()).map_err(failed("read", &path))?;
            let stays = held.contains_key(&hex(&id)) || stays(&names, &id);
            images.push(prune::Candidate { layers: chain_ids(&config.diff_ids), id, used, stays });
        }
        let mut sizes = BTreeMap::new();
        for chain in images.iter().flat_map(|image| &image.layers) {
            if let Some(about) = self.about(chain)? {
                sizes.insert(chain.clone(), about.bytes);
            }
        }
        let unwanted = prune::unwanted(images, &sizes, keep);
        for id in &unwanted {
            names.forget(id);
        }
        if !unwanted.is_empty() {
            names.write(&self.directory)?;
        }
        self.take_away(&unwanted, lock)
    }

    /// The only image whose id begins with these digits.
    fn by_digits(&self, digits: &str) -> Result<Option<(String, Digest)>, StoreError> {
        if digits.len() < SHORT_ID {
            return Ok(None);
        }
        let ids = self.configs()?.into_iter().map(|(id, _)| id).filter(|id| hex(id).starts_with(digits));
        let ids: Vec<_> = ids.collect();
        Ok(if let [id] = &ids[..] { Some((id.to_string(), id.clone())) } else { None })
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Removes images, and the layers that no other image and nobody who is adding one needs.
    fn take_away(&self, images: &BTreeSet<Digest>, lock: File) -> Result<Removed, StoreError> {
        let mut removed = Removed::default();
        for id in images {
            let path = self.config_path(id);
            fs::remove_file(&path).map_err(failed("remove", &path))?;
            removed.images.push(id.to_string());
        }
        sync_directory(&self.directory.join(CONFIGS))?;
        let mut needed: BTreeSet<String> = self.uses()?;
        for (_, config) in self.configs()? {
            needed.extend(chain_ids(&config.diff_ids).iter().map(hex));
        }
        // Out of sight now, and out of existence when others do not have to wait for it.
        let trash = Incoming::new(self)?;
        for path in list(&self.directory.join(LAYERS))? {
            let name = path.file_name().unwrap_or_default();
            if name.to_str().is_some_and(|name| needed.contains(name)) {
                continue;
            }
            removed.bytes += read_about(&path)?.map_or(0, |about| about.bytes);
            let to = trash.path().join(name);
            fs::rename(&path, &to).map_err(failed("remove", &path))?;
        }
        drop(lock);
        trash.close()?;
        Ok(removed)
    }

    /// Layers that somebody who is adding an image relies on.
    fn uses(&self) -> Result<BTreeSet<String>, StoreError> {
        let mut uses = BTreeSet::new();
        for incoming in list(&self.directory.join(INCOMING))? {
            let names = match list(&incoming.join(USES)) {
                // Its process ends it without the lock.
                Err(StoreError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => continue,
                names => names?,
            };
            let names = names.iter().filter_map(|path| path.file_name()?.to_str());
            uses.extend(names.map(str::to_owned));
        }
        Ok(uses)
    }

    fn image(&self, id: &Digest, reference: String, names: &Names) -> Result<Option<Image>, StoreError> {
        let Some(config) = self.config(id)? else { return Ok(None) };
        let Some((lowers, size)) = self.lowers(&chain_ids(&config.diff_ids))? else { return Ok(None) };
        let (pinned, origin) = (names.pinned(&reference, id), names.origin(&reference));
        let lowers = if lowers.is_empty() { vec![self.directory.join(EMPTY)] } else { lowers };
        Ok(Some(Image { id: id.clone(), reference, pinned, origin, size, config, lowers }))
    }

    /// The directories of a chain, the topmost first, as far as they are seen, and the bytes of data in all of them; `None`
    /// if one is missing.
    fn lowers(&self, chains: &[Digest]) -> Result<Option<(Vec<PathBuf>, u64)>, StoreError> {
        let (mut lowers, mut size) = (Vec::new(), 0);
        let mut is_hidden = false;
        for chain in chains.iter().rev() {
            let Some(about) = self.about(chain)? else { return Ok(None) };
            if !is_hidden {
                lowers.push(self.layer(chain).join(ROOT));
            }
            is_hidden |= about.opaque;
            size += about.bytes;
        }
        Ok(Some((lowers, size)))
    }

    /// All images with what they say about themselves.
    fn configs(&self) -> Result<Vec<(Digest, Config)>, StoreError> {
        let mut configs = Vec::new();
        for path in list(&self.directory.join(CONFIGS))? {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            // Something else is about to become one.
            let Ok(id) = format!("sha256:{name}").parse::<Digest>() else { continue };
            if let Some(config) = self.config(&id)? {
                configs.push((id, config));
            }
        }
        Ok(configs)
    }

    fn config(&self, id: &Digest) -> Result<Option<Config>, StoreError> {
        let path = self.config_path(id);
        let Some(content) = read(&path, MAX_DOCUMENT)? else { return Ok(None) };
        Config::parse(&content).map(Some).map_err(StoreError::Document)
    }

    fn about(&self, chain: &Digest) -> Result<Option<About>, StoreError> {
        read_about(&self.layer(chain))
    }

    fn config_path(&self, id: &Digest) -> PathBuf {
        self.directory.join(CONFIGS).join(hex(id))
    }

    fn layer(&self, chain: &Digest) -> PathBuf {
        self.directory.join(LAYERS).join(hex(chain))
    }

    /// Until it is dropped nobody else has it, in this process or another. Nobody keeps it while transferring or unpacking.
    fn lock(&self) -> Result<File, StoreError> {
        let path = self.directory.join(LOCK);
        let file = File::options().create(true).append(true).open(&path).map_err(failed("open", &path))?;
        let locked = retry_on_intr(|| flock(&file, FlockOperation::LockExclusive));
        locked.map_err(|errno| failed("lock", &path)(errno.into()))?;
        Ok(file)
    }

    /// Removes what nobody is adding any more.
    fn clear_dead(&self) -> Result<(), StoreError> {
        let mut dead = Vec::new();
        let lock = self.lock()?;
        // Files are written with the lock.
        for path in [list(&self.directory)?, list(&self.directory.join(CONFIGS))?].concat() {
            if path.file_name().is_some_and(|name| name.as_bytes().starts_with(HALF.as_bytes())) {
                fs::remove_file(&path).map_err(failed("remove", &path))?;
            }
        }
        for path in list(&self.directory.join(INCOMING))? {
            let file = match File::open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                file => file.map_err(failed("open", &path))?,
            };
            if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
                dead.push((path, file));
            }
        }
        drop(lock);
        for (path, _lock) in dead {
            remove_tree(&path)?;
        }
        Ok(())
    }
}

fn read_about(layer: &Path) -> Result<Option<About>, StoreError> {
    let path = layer.join(ABOUT);
    let Some(content) = read(&path, MAX_DOCUMENT)? else { return Ok(None) };
    let about = serde_json::from_slice(&content);
    about.map(Some).map_err(|error| failed("read", &path)(error.into()))
}

/// A whole file of no more than this many bytes, `None` if there is none.
fn read(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, StoreError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(failed("open", path))?,
    };
    let mut content = Vec::new();
    file.take(limit + 1).read_to_end(&mut content).map_err(failed("read", path))?;
    if content.len() as u64 > limit {
        return Err(failed("read", path)(io::ErrorKind::FileTooLarge.into()));
    }
    Ok(Some(content))
}

/// Writes a file so that it is there as it was or as it shall be, whatever happens.
fn write(directory: &Path, name: &str, content: &[u8]) -> Result<(), StoreError> {
    let path = directory.join(name);
    let written = tempfile::Builder::new().prefix(HALF).tempfile_in(directory).and_then(|mut file| {
        io::Write::write_all(&mut file, content)?;
        file.as_file().sync_all()?;
        file.persist(&path).map_err(|error| error.error)
    });
    written.map_err(failed("write", &path))?;
    sync_directory(directory)
}

fn sync_directory(path: &Path) -> Result<(), StoreError> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(failed("write", path))
}

fn list(directory: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let entries = fs::read_dir(directory).map_err(failed("list", directory))?;
    entries.map(|entry| entry.map(|entry| entry.path()).map_err(failed("list", directory))).collect()
}

fn remove_tree(path: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}
