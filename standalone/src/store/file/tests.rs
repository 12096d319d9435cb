//! The file under crashes between any two steps, under damage, and through versions of its schema.

use std::collections::BTreeMap;

use redb::TableHandle as _;
use serde_json::json;

use super::super::testing::{Disk, Random};
use super::*;

type Objects = BTreeMap<String, Value>;

fn key(name: &str) -> Key {
    Key { resource: "configmaps".into(), namespace: "default".into(), name: name.into() }
}

/// Few objects, so that they are changed and deleted often; some larger than a page.
fn some_changes(random: &mut Random) -> Changes {
    let count = 1 + random.below(4);
    let change = |_| {
        let name = format!("object-{}", random.below(12));
        let text = "x".repeat(usize::try_from(random.below(3) * random.below(4000)).unwrap());
        let value = (random.below(4) > 0).then(|| Arc::new(json!({ "name": name, "text": text })));
        (key(&name), value)
    };
    (0..count).map(change).collect()
}

fn apply(objects: &mut Objects, changes: &Changes) {
    for (key, value) in changes {
        match value {
            Some(value) => objects.insert(key.name.clone(), (**value).clone()),
            None => objects.remove(&key.name),
        };
    }
}

fn contents(database: &Database) -> (u64, Objects) {
    let (kept, _) = read(database).unwrap();
    let objects = kept.objects.into_iter();
    (kept.version, objects.map(|value| (value["name"].as_str().unwrap().to_owned(), value)).collect())
}

/// Commits until the disk stops. The answer is what was acknowledged, with its version, and what was under way.
fn work(disk: &Disk, seed: u64, commits: u64) -> ((u64, Objects), Objects) {
    let mut random = Random(seed);
    let (mut kept, mut under_way) = ((0, Objects::new()), Objects::new());
    let Ok(database) = database(disk.clone()) else { return (kept, under_way) };
    for version in 1..=commits {
        let changes = some_changes(&mut random);
        apply(&mut under_way, &changes);
        if write(&database, version, &changes).is_err() {
            break;
        }
        kept = (version, under_way.clone());
    }
    (kept, under_way)
}

#[test]
fn a_crash_between_any_two_steps_loses_nothing_acknowledged() {
    const COMMITS: u64 = 6;
    // A new file gets its name when it is whole.
    let new = Disk::new(&[], usize::MAX);
    prepare(&database(new.clone()).unwrap(), UPGRADES).unwrap();
    let new = new.after_kill();
    for seed in 0..2 {
        let whole = Disk::new(&new, usize::MAX);
        let (kept, _) = work(&whole, seed, COMMITS);
        assert_eq!(kept.0, COMMITS);
        let steps = usize::MAX - whole.left();
        assert!(steps > 50, "{steps} steps are too few to have been counted");
        let mut seen = [0, 0];
        for crash in 0..steps {
            let disk = Disk::new(&new, crash);
            let (kept, under_way) = work(&disk, seed, COMMITS);
            let mut random = Random(seed ^ crash as u64);
            let cut = disk.after_power_cut(&mut random);
            for (how, bytes) in [("killed", disk.after_kill()), ("without power", cut)] {
                let place = format!("seed {seed}, {how} before step {crash}");
                let disk = Disk::new(&bytes, usize::MAX);
                let again = database(disk).unwrap_or_else(|error| panic!("{place}: {error}"));
                let found = contents(&again);
                let complete = (kept.0 + 1, under_way.clone());
                seen[usize::from(found != kept)] += 1;
                assert!(found == kept || found == complete, "{place}: version {} of {}", found.0, kept.0);
                // And it goes on.
                write(&again, 100, &some_changes(&mut random)).unwrap();
                assert_eq!(contents(&again).0, 100, "{place}");
            }
        }
        // A crash after the last synchronisation and before the acknowledgement is among them.
        assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
    }
}

fn in_directory() -> (tempfile::TempDir, PathBuf) {
    let root = tempfile::tempdir().expect("a directory");
    let path = root.path().join("objects.redb");
    (root, path)
}

fn filled(path: &Path) -> Kept {
    let (mut file, kept) = File::open(path).expect("a new file");
    assert_eq!(kept, Kept::default());
    let mut random = Random(1);
    for version in 1..=20 {
        file.commit(version, &some_changes(&mut random)).expect("written");
    }
    drop(file);
    let (_, kept) = File::open(path).expect("opened again");
    assert!(kept.objects.len() > 5);
    kept
}

#[test]
fn what_was_committed_is_there_and_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let (_root, path) = in_directory();
    assert_eq!(filled(&path).version, 20);
    assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
    // Nobody else opens it meanwhile.
    let (_file, _) = File::open(&path).expect("opened");
    assert!(matches!(File::open(&path), Err(StoreError::Damaged { .. })));
}

#[test]
fn damage_is_told_and_the_file_left_alone() {
    let (_root, path) = in_directory();
    let kept = filled(&path);
    let good = fs::read(&path).expect("read");
    let mut random = Random(2);
    let mut damaged = Vec::new();
    for index in 0..300 {
        let mut bytes = good.clone();
        if index % 10 == 0 {
            bytes.truncate(usize::try_from(random.below(good.len() as u64)).unwrap());
        } else {
            let place = usize::try_from(random.below(good.len() as u64)).unwrap();
            bytes[place] ^= 1 << random.below(8);
        }
        fs::write(&path, &bytes).expect("written");
        match File::open(&path) {
            // It hit what is not in use.
            Ok((_, found)) => assert_eq!(found, kept, "change {index} went unnoticed"),
            Err(error) => {
                let error = error.to_string();
                assert!(error.contains("objects.redb") && error.contains("put a copy of it back"), "{error}");
                assert!(fs::read(&path).expect("read") == bytes, "change {index}: {error}");
                damaged.push(error);
            }
        }
    }
    assert!(damaged.len() > 30, "only {} changes were damage", damaged.len());
}

#[test]
fn a_file_that_was_half_made_is_made_again() {
    let (_root, path) = in_directory();
    fs::write(path.with_extension("new"), "half").expect("written");
    filled(&path);
    assert!(!path.with_extension("new").exists());
}

#[test]
fn other_files_are_refused() {
    let (_root, path) = in_directory();
    fs::write(&path, "this is a text".repeat(1000)).expect("written");
    let Err(error) = File::open(&path) else { panic!("a text was opened") };
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    let Err(error) = File::open(path.parent().expect("a directory")) else {
        panic!("a directory was opened")
    };
    assert!(matches!(error, StoreError::Open { .. }), "{error}");
}

#[test]
fn bytes_are_counted() {
    let (_root, path) = in_directory();
    let (mut file, _) = File::open(&path).expect("opened");
    let mut random = Random(3);
    let mut objects = Objects::new();
    for version in 1..=30 {
        let changes = some_changes(&mut random);
        apply(&mut objects, &changes);
        file.commit(version, &changes).expect("written");
        let bytes: usize = objects.values().map(|value| value.to_string().len()).sum();
        assert_eq!(file.bytes(), bytes as u64, "after {version}");
    }
    let bytes = file.bytes();
    drop(file);
    assert_eq!(File::open(&path).expect("opened").0.bytes(), bytes);
}

#[test]
fn only_large_files_of_holes_are_compacted() {
    const MIB: u64 = 1 << 20;
    for (length, bytes, expected) in [
        (64 * MIB, 0, false),
        (65 * MIB, 0, true),
        (90 * MIB, 30 * MIB - 1, true),
        (90 * MIB, 30 * MIB, false),
        (900 * MIB, 500 * MIB, false),
    ] {
        assert_eq!(is_worth_compacting(length, bytes), expected, "{length} {bytes}");
    }
}

#[test]
fn a_file_shrinks_when_most_of_it_is_gone() {
    let (_root, path) = in_directory();
    let (mut file, _) = File::open(&path).expect("opened");
    let large = |index: usize| {
        let name = format!("large-{index:02}");
        (key(&name), Some(Arc::new(json!({ "name": name, "text": "x".repeat(1 << 20) }))))
    };
    for version in 1..=10 {
        let some = (0..72).filter(|index| index % 10 == usize::try_from(version % 10).unwrap_or_default());
        file.commit(version, &some.map(large).collect()).expect("written");
    }
    // What stays is all over the file, so that it does not end earlier by itself.
    let gone: Changes = (0..72).filter(|index| index % 24 != 0).map(|index| (large(index).0, None)).collect();
    file.commit(11, &gone).expect("written");
    drop(file);
    let before = fs::metadata(&path).expect("there").len();
    let (file, kept) = File::open(&path).expect("opened");
    assert_eq!((kept.version, kept.objects.len()), (11, 3));
    drop(file);
    let after = fs::metadata(&path).expect("there").len();
    assert!(before > 64 << 20 && after < 16 << 20, "{before} bytes before, {after} after");
    assert_eq!(File::open(&path).expect("opened").1, kept);
}

/// A file of schema 1, made with nothing but the library: what it was when it was first released.
fn first_version(path: &Path) {
    let database = Database::create(path).expect("made");
    let transaction = database.begin_write().expect("begun");
    {
        let definition: TableDefinition<'_, (&str, &str, &str), &[u8]> = TableDefinition::new("objects");
        let mut objects = transaction.open_table(definition).expect("a table");
        let value =
            br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","namespace":"default"}}"#;
        objects.insert(("configmaps", "default", "a"), value.as_slice()).expect("inserted");
        let definition: TableDefinition<'_, &str, u64> = TableDefinition::new("facts");
        let mut facts = transaction.open_table(definition).expect("a table");
        facts.insert("schema", 1).expect("inserted");
        facts.insert("version", 41).expect("inserted");
    }
    transaction.commit().expect("committed");
}

#[test]
fn the_first_schema_is_read() {
    let (_root, path) = in_directory();
    first_version(&path);
    let (_, kept) = File::open(&path).expect("opened");
    let object = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "a", "namespace": "default" } });
    assert_eq!(kept, Kept { version: 41, objects: vec![object] });
}

#[test]
fn upgrades_run_once_and_in_order_and_a_newer_schema_is_refused() {
    fn label(transaction: &WriteTransaction, label: &str) -> Result<(), redb::Error> {
        let mut objects = transaction.open_table(OBJECTS)?;
        let place = ("configmaps", "default", "a");
        let mut value: Value = serde_json::from_slice(objects.get(place)?.expect("there").value()).unwrap();
        let labels = value["labels"].as_str().unwrap_or_default().to_owned() + label;
        value["labels"] = labels.into();
        objects.insert(place, value.to_string().as_bytes())?;
        Ok(())
    }
    const LATER: &[Upgrade] =
        &[|transaction| label(transaction, "first "), |transaction| label(transaction, "second ")];
    let (_root, path) = in_directory();
    first_version(&path);
    for known in [&LATER[..1], LATER, LATER] {
        let (_, kept) = File::load(&path, Box::new(open), known).expect("loaded");
        let labels = if known.len() == 1 { "first " } else { "first second " };
        assert_eq!((kept.version, &kept.objects[0]["labels"]), (41, &json!(labels)));
    }
    let Err(error) = File::open(&path) else { panic!("a newer schema was opened") };
    assert!(matches!(error, StoreError::Newer { found: 3, known: 1, .. }), "{error}");
    assert!(
        error.to_string().contains("newer ropewalk (its schema is 3, this program knows up to 1)"),
        "{error}"
    );
}

#[test]
fn an_upgrade_that_fails_changes_nothing() {
    const FAILS: &[Upgrade] = &[|transaction| {
        transaction.delete_table(OBJECTS)?;
        Err(redb::Error::Corrupted("not as expected".into()))
    }];
    let (_root, path) = in_directory();
    first_version(&path);
    let loaded = File::load(&path, Box::new(open), FAILS);
    assert!(matches!(loaded, Err(StoreError::Damaged { .. })));
    let database = open(&path).expect("opened");
    let transaction = database.begin_read().expect("begun");
    let tables = transaction.list_tables().expect("listed");
    assert_eq!(tables.map(|table| table.name().to_owned()).collect::<Vec<_>>(), ["facts", "objects"]);
    assert_eq!(contents_of_facts(&database), 1);
}

fn contents_of_facts(database: &Database) -> u64 {
    let transaction = database.begin_read().expect("begun");
    let facts = transaction.open_table(FACTS).expect("a table");
    facts.get(SCHEMA).expect("read").expect("there").value()
}
