//! Credentials of the step: read from the secrets that are mounted, written where `$(credentials.path)` says, and copied
//! to HOME (contract 5.8). What goes in which file is decided in `ropewalk_entrypoint_protocol::credentials`.
//!
//! Before the step's turn, as upstream does it: a HOME that steps share has its files before the first of them changes
//! one.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{DirBuilder, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use ropewalk_entrypoint_protocol::credentials::{self, CredentialError, Secrets};
use ropewalk_entrypoint_protocol::flags::Credential;

use crate::{describe, log};

/// Longest key of a secret in bytes: the API server takes no larger secrets.
const MAX_KEY_BYTES: u64 = 1 << 20;

const DIR_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// Why a step cannot have its credentials. Names secrets and keys, never what is in them.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CredentialsError {
    #[error("reading key \"{key}\" of secret \"{secret}\"")]
    Read { secret: String, key: &'static str, source: io::Error },
    #[error("key \"{key}\" of secret \"{secret}\" is longer than {MAX_KEY_BYTES} bytes")]
    TooLong { secret: String, key: &'static str },
    #[error(transparent)]
    Secret(#[from] CredentialError),
}

/// Why a file could not be written.
#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error("creating directory {path:?}")]
    Directory { path: PathBuf, source: io::Error },
    #[error("opening {path:?}")]
    Open { path: PathBuf, source: io::Error },
    #[error("keeping {path:?} from others")]
    Mode { path: PathBuf, source: io::Error },
    #[error("writing {path:?}")]
    Write { path: PathBuf, source: io::Error },
}

/// Lays out the credentials below `root`, which stands for `/tekton`, and below `home`.
///
/// A secret that cannot be used fails the step. A file that cannot be written does not, as upstream has it: other users'
/// files may be in its place, and the step need not want it.
pub(crate) fn lay_out(
    credentials: &[Credential],
    root: &Path,
    home: Option<&OsStr>,
) -> Result<(), CredentialsError> {
    if credentials.is_empty() {
        return Ok(());
    }
    let secrets = read(credentials, &root.join("creds-secrets"))?;
    let dir = root.join("creds");
    let layout = credentials::lay_out(credentials, &secrets, &dir.to_string_lossy())?;
    for doubt in &layout.doubts {
        log(&format!("warning: {doubt}"));
    }
    for (name, error) in write_all(&layout.files, &dir) {
        log(&format!("error initializing credentials: {name:?}: {}", describe(&error)));
    }
    let Some(home) = home.filter(|home| !home.is_empty()) else {
        log("warning: credentials are not copied, as HOME is not set");
        return Ok(());
    };
    let home = Path::new(home);
    for (name, error) in write_all(&layout.files, home) {
        // Upstream's documentation explains the words.
        log(&format!(
            "warning: unsuccessful cred copy: {name:?} from \"{}\" to \"{}\": {}",
            dir.display(),
            home.display(),
            describe(&error)
        ));
    }
    Ok(())
}

fn read(credentials: &[Credential], mounted: &Path) -> Result<Secrets, CredentialsError> {
    let mut secrets = Secrets::default();
    for Credential { kind, secret, .. } in credentials {
        for key in credentials::keys(*kind) {
            // One that is missing is needed or not: that is decided with the others.
            match read_key(&mounted.join(secret).join(key)) {
                Ok(content) if content.len() as u64 > MAX_KEY_BYTES => {
                    return Err(CredentialsError::TooLong { secret: secret.clone(), key });
                }
                Ok(content) => secrets.insert(secret, key, content),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(CredentialsError::Read { secret: secret.clone(), key, source }),
            }
        }
    }
    Ok(secrets)
}

fn read_key(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)?.take(MAX_KEY_BYTES + 1).read_to_end(&mut content)?;
    Ok(content)
}

/// The first failure below each name in `dir`: the others would be of the same kind.
fn write_all<'a>(files: &'a BTreeMap<String, Vec<u8>>, dir: &Path) -> Vec<(&'a str, WriteError)> {
    let mut failures: Vec<(&str, WriteError)> = Vec::new();
    let mut failed = BTreeSet::new();
    for (path, content) in files {
        let name = path.split('/').next().unwrap_or(path);
        if failed.contains(name) {
            continue;
        }
        if let Err(error) = write(&dir.join(path), content) {
            failed.insert(name);
            failures.push((name, error));
        }
    }
    failures
}

/// Links are followed, as a HOME may be made of them.
fn write(path: &Path, content: &[u8]) -> Result<(), WriteError> {
    if let Some(parent) = path.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(DIR_MODE)
            .create(parent)
            .map_err(|source| WriteError::Directory { path: parent.to_owned(), source })?;
    }
    let path = || path.to_owned();
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(FILE_MODE)
        .open(path())
        .map_err(|source| WriteError::Open { path: path(), source })?;
    // One that was there may be open to others; nothing is in it yet that they may not read.
    file.set_permissions(Permissions::from_mode(FILE_MODE))
        .map_err(|source| WriteError::Mode { path: path(), source })?;
    file.set_len(0)
        .and_then(|()| file.write_all(content))
        .map_err(|source| WriteError::Write { path: path(), source })
}
