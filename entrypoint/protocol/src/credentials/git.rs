//! `.gitconfig` and `.git-credentials`, for git over http. Pure.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

use super::{CredentialError, Layout, Secrets, of_kind};
use crate::flags::{Credential, CredentialKind};

pub(super) const CONFIG: &str = ".gitconfig";
const CREDENTIALS: &str = ".git-credentials";

/// What a URL's user and password hold as they are.
const USER_INFO: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b',')
    .remove(b';')
    .remove(b'=');

pub(super) fn lay_out(
    credentials: &[Credential],
    secrets: &Secrets,
    layout: &mut Layout,
) -> Result<(), CredentialError> {
    let mut config = b"[credential]\n\thelper = store\n".to_vec();
    // git asks about a repository of its own with its path, about others without, and takes the first that fits: one
    // that has a path must not come before the one for the whole host.
    let (mut of_hosts, mut of_repositories) = (Vec::new(), Vec::new());
    let mut none = true;
    for Credential { secret, url, .. } in of_kind(credentials, CredentialKind::BasicGit) {
        none = false;
        let (username, password) = secrets.user(secret)?;
        let Some(place) = Place::of(url) else {
            layout.doubts.push(CredentialError::NoScheme { secret: secret.clone(), url: url.clone() });
            continue;
        };
        config.extend_from_slice(format!("[credential \"{url}\"]\n\tusername = ").as_bytes());
        config.extend(value(username));
        config.push(b'\n');
        if place.has_path() {
            config.extend_from_slice(b"\tuseHttpPath = true\n");
        }
        let lines = if place.has_path() { &mut of_repositories } else { &mut of_hosts };
        let encode = |text| percent_encode(text, USER_INFO);
        let Place { scheme, rest } = place;
        let line = format!("{scheme}://{}:{}@{rest}\n", encode(username), encode(password));
        lines.extend_from_slice(line.as_bytes());
    }
    if none {
        return Ok(());
    }
    of_hosts.extend(of_repositories);
    layout.files.insert(CONFIG.to_owned(), config);
    layout.files.insert(CREDENTIALS.to_owned(), of_hosts);
    Ok(())
}

struct Place<'a> {
    scheme: &'a str,
    /// Host, port and path.
    rest: &'a str,
}

impl<'a> Place<'a> {
    /// Of a URL; a user in it gives way to the secret's.
    fn of(url: &'a str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let host_ends = rest.find('/').unwrap_or(rest.len());
        let host_begins = rest[..host_ends].rfind('@').map_or(0, |at| at + 1);
        (!scheme.is_empty() && host_begins < host_ends).then_some(Self { scheme, rest: &rest[host_begins..] })
    }

    fn has_path(&self) -> bool {
        self.rest.find('/').is_some_and(|at| at + 1 < self.rest.len())
    }
}

/// A value of git's configuration: bare where that is read as it stands, as upstream writes all.
fn value(text: &[u8]) -> Vec<u8> {
    let special = |byte: &u8| matches!(byte, b'"' | b'#' | b';') || byte.is_ascii_control();
    let blank = |byte: Option<&u8>| byte == Some(&b' ');
    let quoted = text.iter().any(special) || blank(text.first()) || blank(text.last());
    let mut out = Vec::with_capacity(text.len());
    for byte in text {
        match byte {
            b'\\' => out.extend_from_slice(br"\\"),
            b'"' => out.extend_from_slice(br#"\""#),
            b'\n' => out.extend_from_slice(br"\n"),
            b'\t' => out.extend_from_slice(br"\t"),
            b'\x08' => out.extend_from_slice(br"\b"),
            other => out.push(*other),
        }
    }
    if quoted { [b"\"", out.as_slice(), b"\""].concat() } else { out }
}
