//! What clients are let in by, kept in a directory so that they go on being let in: the authority, the key that signs
//! tokens of service accounts, and the administrator's token. A file that is removed is made anew at the next start, and
//! what the old one let in is locked out. Reads and writes these files.

use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use super::private;
use super::tls::{Authority, TlsError};
use super::tokens::{Keys, KeysError};

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    /// A file cannot be read or written.
    #[error("cannot {what} \"{path}\"")]
    File {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A token key cannot be made, or what is in its file is none.
    #[error(
        "cannot use \"{path}\"; remove it to have a new one made, which ends every token of a service account"
    )]
    Keys {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: KeysError,
    },
    /// An authority cannot be made, or what is in its file is none.
    #[error(
        "cannot use \"{path}\"; remove it to have a new one made, for which clients need the new kubeconfig"
    )]
    Authority {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: TlsError,
    },
}

/// What clients are let in by.
pub struct Secrets {
    /// Who vouches for the server.
    pub authority: Authority,
    /// What tokens are checked with.
    pub keys: Keys,
    /// The administrator's token.
    pub admin: String,
}

impl Secrets {
    /// Those of this directory; what is missing is made. Only the directory's owner can look into it.
    pub fn open(directory: &Path) -> Result<Self, SecretsError> {
        let file = |what, path: &Path| {
            let path = path.to_owned();
            move |source| SecretsError::File { what, path, source }
        };
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(directory).map_err(file("make", directory))?;
        let text = |name: &str, make: &dyn Fn(&Path) -> Result<String, SecretsError>| {
            let path = directory.join(name);
            let text = if let Some(text) = private::read(&path).map_err(file("read", &path))? {
                text
            } else {
                let text = make(&path)?;
                private::write(&path, &text).map_err(file("write", &path))?;
                text
            };
            Ok((text, path))
        };
        let no_authority = |path: &Path| {
            let path = path.to_owned();
            move |source| SecretsError::Authority { path, source }
        };
        let no_keys = |path: &Path| {
            let path = path.to_owned();
            move |source| SecretsError::Keys { path, source }
        };
        let (authority, path) = text("authority.pem", &|path| {
            Ok(Authority::generate().map_err(no_authority(path))?.text().to_owned())
        })?;
        let authority = Authority::from_text(authority).map_err(no_authority(&path))?;
        let (admin, _) = text("admin.token", &|path| Keys::admin_token().map_err(no_keys(path)))?;
        let (signing, path) =
            text("service-accounts.key", &|path| Keys::signing_key().map_err(no_keys(path)))?;
        let keys = Keys::new(&signing, admin.trim()).map_err(no_keys(&path))?;
        Ok(Self { authority, keys, admin: admin.trim().to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn what_was_made_once_stays_and_is_private() {
        let root = tempfile::tempdir().expect("a directory");
        let directory = root.path().join("keys");
        let first = Secrets::open(&directory).expect("made");
        let again = Secrets::open(&directory).expect("read");
        assert_eq!(first.admin, again.admin);
        assert_eq!(first.authority.text(), again.authority.text());
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(&directory), 0o700);
        let files: Vec<PathBuf> =
            fs::read_dir(&directory).expect("listed").map(|entry| entry.expect("an entry").path()).collect();
        assert_eq!(files.len(), 3);
        assert!(files.iter().all(|path| mode(path) == 0o600));
        // Of what clients trust, nothing is private.
        assert!(first.authority.certificate().starts_with("-----BEGIN CERTIFICATE-----"));
        assert!(!first.authority.certificate().contains("PRIVATE"));
    }

    #[test]
    fn a_file_that_holds_something_else_is_named() {
        for (name, hint) in [
            ("authority.pem", "the new kubeconfig"),
            ("service-accounts.key", "every token of a service account"),
        ] {
            let root = tempfile::tempdir().expect("a directory");
            Secrets::open(root.path()).expect("made");
            fs::write(root.path().join(name), "nonsense").expect("written");
            let Err(error) = Secrets::open(root.path()) else { panic!("{name} was taken for a key") };
            assert!(error.to_string().contains(name) && error.to_string().contains(hint), "{error}");
        }
    }

    #[test]
    fn an_administrator_gets_a_new_token_by_removing_the_old_one() {
        let root = tempfile::tempdir().expect("a directory");
        let first = Secrets::open(root.path()).expect("made");
        fs::remove_file(root.path().join("admin.token")).expect("removed");
        let again = Secrets::open(root.path()).expect("made");
        assert!(again.keys.is_admin(&again.admin) && !again.keys.is_admin(&first.admin));
    }
}
