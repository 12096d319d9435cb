//! What keeps images from being removed: links to paths, which hold for as long as something is there. Nobody has to give a hold
//! back, so a process that is killed leaves none behind.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use ropewalk_core::images::reference::Digest;

use super::error::{StoreError, failed};
use super::{HOLDS, list};
use crate::hashing::hex;

pub(super) fn add(directory: &Path, id: &Digest, user: &Path) -> Result<(), StoreError> {
    let name = format!("{}.{}", hex(id), hex(&Digest::of(user.as_os_str().as_bytes())));
    let link = directory.join(HOLDS).join(name);
    match symlink(user, &link) {
        // The same one again.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.map_err(failed("make", &link)),
    }
}

/// Removes the holds of those that are gone. The rest: images by the digits of their ids, each with one that uses it.
pub(super) fn sweep(directory: &Path) -> Result<BTreeMap<String, PathBuf>, StoreError> {
    let mut held = BTreeMap::new();
    for link in list(&directory.join(HOLDS))? {
        let user = fs::read_link(&link).map_err(failed("read", &link))?;
        match fs::symlink_metadata(&user) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                fs::remove_file(&link).map_err(failed("remove", &link))?;
            }
            // One that cannot be looked at may be there.
            _ => {
                let name = link.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                held.insert(name.split('.').next().unwrap_or_default().to_owned(), user);
            }
        }
    }
    Ok(held)
}
