//! The credentials of this machine, in the file that docker, podman and others have. IO: one file.
//!
//! Programs that keep credentials elsewhere (`credsStore`, `credHelpers`) are not called.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use ropewalk_core::images::keyring::Keyring;

/// Bytes: a file with a token for each of a hundred registries has a tenth.
const MAX_FILE: u64 = 1 << 20;

/// Where credentials are: the file in `REGISTRY_AUTH_FILE`, or `~/.docker/config.json`.
pub fn file(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let set = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("REGISTRY_AUTH_FILE").or_else(|| Some(set("HOME")?.join(".docker/config.json")))
}

/// Adds the credentials in a file, if there is one, after those that are known already. One that cannot be read is noted in
/// the keyring: the image may not need it.
pub fn add(keyring: &mut Keyring, file: &Path) {
    let read = || {
        let mut content = Vec::new();
        File::open(file)?.take(MAX_FILE).read_to_end(&mut content)?;
        Ok(content)
    };
    let content: Result<_, io::Error> = read();
    match content {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        // What is no JSON cannot be read either.
        content => keyring.add_file(&file.to_string_lossy(), &content.unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_variable_wins_over_the_home() {
        let with = |auth_file: &str, home: Option<&str>| {
            file(|name| match name {
                "REGISTRY_AUTH_FILE" => Some(auth_file.into()),
                "HOME" => home.map(OsString::from),
                _ => None,
            })
        };
        assert_eq!(with("/a.json", Some("/home/me")), Some("/a.json".into()));
        assert_eq!(with("", Some("/home/me")), Some("/home/me/.docker/config.json".into()));
        assert_eq!(with("", None), None);
    }

    #[test]
    fn a_file_that_is_not_there_is_nothing_and_one_that_is_broken_is_told() {
        let reference = "r.example/a".parse().expect("a reference");
        let mut keyring = Keyring::default();
        add(&mut keyring, Path::new("/nowhere/config.json"));
        assert_eq!(keyring.explain(&reference, "log in"), "there are no credentials; log in");

        let mut good = tempfile::NamedTempFile::new().expect("a file");
        good.write_all(br#"{"auths":{"r.example":{"auth":"dTpw"}}}"#).expect("written");
        add(&mut keyring, good.path());
        assert_eq!(keyring.credentials(&reference)[0].username, "u");

        let mut keyring = Keyring::default();
        add(&mut keyring, Path::new("/proc"));
        assert!(keyring.explain(&reference, "log in").ends_with("file \"/proc\" cannot be read"));
    }
}
