//! The file that objects are kept in: a redb database with one table of objects and one of facts about itself.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::backends::FileBackend;
use redb::{
    Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, StorageBackend, StorageError,
    TableDefinition, WriteTransaction,
};
use ropewalk_apiserver::{ObjectKey, ResourceId, ResourceTable};
use serde_json::Value;

use super::StoreError;

/// Objects as JSON, by resource (`taskruns.tekton.dev`), namespace and name.
const OBJECTS: TableDefinition<'_, (&str, &str, &str), &[u8]> = TableDefinition::new("objects");

/// Numbers by name: [`SCHEMA`] and [`VERSION`].
const FACTS: TableDefinition<'_, &str, u64> = TableDefinition::new("facts");

/// What the tables look like; the number of [`UPGRADES`] and one.
const SCHEMA: &str = "schema";

/// The resourceVersion of the newest change.
const VERSION: &str = "version";

/// Bytes of the file that redb caches. Objects are read once, at the start; what is used later are the pages on the way
/// to those that change.
const CACHE: usize = 8 << 20;

/// Bytes of a file that nobody minds.
const SMALL: u64 = 64 << 20;

/// Brings a file from the schema of its index, counted from one, to the next.
pub(super) type Upgrade = fn(&WriteTransaction) -> Result<(), redb::Error>;

/// All there ever were, in order.
const UPGRADES: &[Upgrade] = &[];

/// Which object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    /// As in `taskruns.tekton.dev`.
    pub(crate) resource: String,
    /// Empty for an object of the cluster.
    pub(crate) namespace: String,
    /// Name.
    pub(crate) name: String,
}

impl Key {
    pub(crate) fn new(table: &ResourceTable, resource: ResourceId, key: &ObjectKey) -> Self {
        let resource = table.get(resource).qualified();
        Self { resource, namespace: key.namespace.clone(), name: key.name.clone() }
    }
}

/// Objects as they shall be from now on; `None` where there shall be none.
pub(crate) type Changes = BTreeMap<Key, Option<Arc<Value>>>;

/// What is in a file.
#[derive(Debug, Default, PartialEq)]
pub struct Kept {
    /// The resourceVersion of the newest change.
    pub version: u64,
    /// All objects.
    pub objects: Vec<Value>,
}

/// Opens the database at a path.
type Opener = Box<dyn Fn(&Path) -> Result<Database, StoreError> + Send>;

/// The open file. Nobody else opens it meanwhile.
pub struct File {
    path: PathBuf,
    open: Opener,
    /// None after an error, until it could be opened again.
    database: Option<Database>,
    /// Bytes of all objects.
    bytes: u64,
}

impl File {
    /// Opens the file, or makes it, readable to its owner alone, and reads what is in it. Every page is checked; a file
    /// that is damaged is not touched. One that is mostly holes is made smaller.
    pub fn open(path: &Path) -> Result<(Self, Kept), StoreError> {
        let failed = |source| StoreError::Open { path: path.to_owned(), source };
        if !path.try_exists().map_err(failed)? {
            make(path)?;
        }
        let (mut file, kept) = Self::load(path, Box::new(open), UPGRADES)?;
        let length = fs::metadata(path).map_err(failed)?.len();
        if is_worth_compacting(length, file.bytes)
            && let Some(database) = &mut file.database
        {
            // It says whether it could do more.
            while database.compact().map_err(|error| file_error(path, &error.into()))? {}
        }
        Ok((file, kept))
    }

    /// The directory it is in.
    pub(crate) fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(&self.path)
    }

    /// Bytes of all objects, as JSON.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Makes all changes or none, and returns when they are on disk. After an error either may be the case.
    pub(crate) fn commit(&mut self, version: u64, changes: &Changes) -> Result<(), StoreError> {
        let database = match self.database.take() {
            Some(database) => database,
            None => (self.open)(&self.path)?,
        };
        let written = write(&database, version, changes).map_err(|error| file_error(&self.path, &error))?;
        self.bytes = (self.bytes + written.added).saturating_sub(written.removed);
        self.database = Some(database);
        Ok(())
    }

    fn load(path: &Path, open: Opener, upgrades: &[Upgrade]) -> Result<(Self, Kept), StoreError> {
        let (path, database) = (path.to_owned(), open(path)?);
        let damaged = |error: redb::Error| StoreError::Damaged { path: path.clone(), why: error.to_string() };
        let known = newest(upgrades);
        let found = prepare(&database, upgrades).map_err(damaged)?;
        if found > known {
            return Err(StoreError::Newer { path, found, known });
        }
        let (kept, bytes) = read(&database).map_err(damaged)?;
        Ok((Self { path, open, database: Some(database), bytes }, kept))
    }

    /// A file on another disk than the machine's.
    #[cfg(test)]
    pub(crate) fn on(disk: &super::testing::Disk) -> (Self, Kept) {
        let disk = disk.clone();
        let open: Opener =
            Box::new(move |path| database(disk.clone()).map_err(|error| file_error(path, &error.into())));
        Self::load(Path::new("objects.redb"), open, UPGRADES).expect("loaded")
    }
}

fn file_error(path: &Path, error: &redb::Error) -> StoreError {
    StoreError::Write { path: path.to_owned(), why: error.to_string() }
}

/// Whether a file of this length is mostly holes. Compaction writes every object, so small files, which cost nothing, are
/// left as they are.
fn is_worth_compacting(length: u64, bytes: u64) -> bool {
    length > SMALL && length / 3 > bytes
}

/// Makes a file beside the place and puts it there when it is whole: one that a crash leaves half made is no database,
/// and would be taken for a damaged one.
fn make(path: &Path) -> Result<(), StoreError> {
    let failed = |source| StoreError::Open { path: path.to_owned(), source };
    let beside = path.with_extension("new");
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let mut options = fs::File::options();
    options.read(true).write(true).create_new(true).mode(0o600).open(&beside).map_err(failed)?;
    let database = open(&beside)?;
    prepare(&database, UPGRADES).map_err(|error| file_error(path, &error))?;
    drop(database);
    fs::rename(&beside, path).map_err(failed)?;
    let directory = path.parent().map_or(Ok(()), |directory| fs::File::open(directory)?.sync_all());
    directory.map_err(failed)
}

fn open(path: &Path) -> Result<Database, StoreError> {
    let failed = |source| StoreError::Open { path: path.to_owned(), source };
    let file = fs::File::options().read(true).write(true).open(path).map_err(failed)?;
    let opened = FileBackend::new(file).and_then(database);
    opened.map_err(|error| match error {
        DatabaseError::Storage(StorageError::Io(source)) if source.kind() != ErrorKind::InvalidData => {
            failed(source)
        }
        error => StoreError::Damaged { path: path.to_owned(), why: error.to_string() },
    })
}

/// Every page is checked, as one that something else changed would be a panic later on.
fn database(backend: impl StorageBackend) -> Result<Database, DatabaseError> {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE).set_check_integrity_on_open(true);
    builder.create_with_backend(backend)
}

/// Makes the tables of a new file and upgrades those of an old one. The answer is the schema; one that is not known is
/// left as it is.
fn prepare(database: &Database, upgrades: &[Upgrade]) -> Result<u64, redb::Error> {
    let known = newest(upgrades);
    let transaction = begin(database)?;
    let found = transaction.open_table(FACTS)?.get(SCHEMA)?.map(|found| found.value());
    let found = match found {
        Some(found) if found >= known => {
            transaction.abort()?;
            return Ok(found);
        }
        Some(found) => found,
        None => known,
    };
    let missing = upgrades.iter().skip(usize::try_from(found).unwrap_or(usize::MAX).saturating_sub(1));
    for upgrade in missing {
        upgrade(&transaction)?;
    }
    transaction.open_table(OBJECTS)?;
    transaction.open_table(FACTS)?.insert(SCHEMA, known)?;
    transaction.commit()?;
    Ok(known)
}

fn newest(upgrades: &[Upgrade]) -> u64 {
    upgrades.len() as u64 + 1
}

/// What is in it, and the bytes of all objects.
fn read(database: &Database) -> Result<(Kept, u64), redb::Error> {
    let transaction = database.begin_read()?;
    let version = transaction.open_table(FACTS)?.get(VERSION)?.map_or(0, |version| version.value());
    let (mut objects, mut bytes) = (Vec::new(), 0);
    for entry in transaction.open_table(OBJECTS)?.iter()? {
        let (key, value) = entry?;
        let (resource, namespace, name) = key.value();
        let object = serde_json::from_slice(value.value());
        let object = object.map_err(|error| {
            redb::Error::Corrupted(format!("the object {resource} \"{namespace}/{name}\": {error}"))
        })?;
        objects.push(object);
        bytes += value.value().len() as u64;
    }
    Ok((Kept { version, objects }, bytes))
}

/// Bytes of objects that a transaction brought and took.
#[derive(Default)]
struct Written {
    added: u64,
    removed: u64,
}

fn write(database: &Database, version: u64, changes: &Changes) -> Result<Written, redb::Error> {
    let transaction = begin(database)?;
    let mut written = Written::default();
    {
        let mut objects = transaction.open_table(OBJECTS)?;
        for (key, value) in changes {
            let place = (key.resource.as_str(), key.namespace.as_str(), key.name.as_str());
            let json = value.as_ref().map(ToString::to_string);
            let previous = match &json {
                Some(json) => objects.insert(place, json.as_bytes())?,
                None => objects.remove(place)?,
            };
            written.added += json.map_or(0, |json| json.len() as u64);
            written.removed += previous.map_or(0, |previous| previous.value().len() as u64);
        }
        transaction.open_table(FACTS)?.insert(VERSION, version)?;
    }
    transaction.commit()?;
    Ok(written)
}

fn begin(database: &Database) -> Result<WriteTransaction, redb::Error> {
    let mut transaction = database.begin_write()?;
    // One synchronisation more, for which a page that is damaged later is an error. With one phase redb takes it for the
    // trace of a crash and silently goes back to the commit before.
    transaction.set_two_phase_commit(true);
    Ok(transaction)
}

#[cfg(test)]
mod tests;
