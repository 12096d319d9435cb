//! Scripts on a command line: as base64, so that no `$(...)` in them is expanded on the way, and in pieces, as the
//! kernel bounds the length of one argument. Pure.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::go::{Reader, bad, push};
use super::{FlagError, SCRIPT};

/// Bytes of text in one `-script` flag. The kernel takes arguments of up to 128 KiB, its `MAX_ARG_STRLEN`; base64 makes
/// four bytes of three, which leaves 8 KiB for the path.
const PIECE: usize = 90 * 1024;

/// A file made from a `script`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// Full path, under `/tekton/scripts`; contains no `=`.
    pub path: String,
    /// The text, shebang included.
    pub content: String,
}

impl Script {
    /// Appends the flags that [`read`] makes this script of.
    pub(super) fn push(&self, line: &mut Vec<String>) {
        let mut rest = self.content.as_str();
        loop {
            let (piece, after) = rest.split_at(rest.floor_char_boundary(PIECE));
            push(line, "-script", &format!("{}={}", self.path, STANDARD.encode(piece)));
            if after.is_empty() {
                return;
            }
            rest = after;
        }
    }
}

/// Takes up the value of one `-script` flag: the next piece of the last script if it has the same path, else the first
/// one of another.
pub(super) fn read(scripts: &mut Vec<Script>, value: &str) -> Result<(), FlagError> {
    let (path, encoded) =
        value.split_once('=').ok_or_else(|| bad("script", value, &"expected \"path=base64\""))?;
    let bytes = STANDARD.decode(encoded).map_err(|error| bad("script", value, &error))?;
    let content = String::from_utf8(bytes).map_err(|error| bad("script", value, &error))?;
    match scripts.last_mut().filter(|last| last.path == path) {
        Some(last) => last.content.push_str(&content),
        None => scripts.push(Script { path: path.to_owned(), content }),
    }
    Ok(())
}

/// The one script of a container that has at most one.
pub(super) fn at_most_one(scripts: Vec<Script>) -> Result<Option<Script>, FlagError> {
    let mut scripts = scripts.into_iter();
    let first = scripts.next();
    scripts.next().map_or(Ok(first), |second| Err(FlagError::Unexpected(second.path)))
}

/// A sidecar's script that its own container writes and executes, as no init container did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptFlags {
    /// The script.
    pub script: Script,
    /// Directory standing in for `/tekton`, outside pods.
    pub root: Option<String>,
    /// The script's arguments.
    pub args: Vec<String>,
}

impl ScriptFlags {
    /// The arguments of the container.
    pub fn render(&self) -> Vec<String> {
        let mut out = vec![SCRIPT.to_owned()];
        if let Some(root) = &self.root {
            push(&mut out, "-tekton_root", root);
        }
        self.script.push(&mut out);
        out.push("--".to_owned());
        out.extend_from_slice(&self.args);
        out
    }

    pub(super) fn parse(args: &[String]) -> Result<Self, FlagError> {
        let (mut scripts, mut root) = (Vec::new(), None);
        let mut reader = Reader::new(args);
        while let Some(flag) = reader.next_flag()? {
            match flag.name {
                "tekton_root" => root = Some(reader.value(&flag)?.to_owned()),
                "script" => read(&mut scripts, reader.value(&flag)?)?,
                other => return Err(FlagError::Unknown(other.to_owned())),
            }
        }
        let script = at_most_one(scripts)?.ok_or_else(|| FlagError::MissingValue("script".to_owned()))?;
        Ok(Self { script, root, args: reader.rest().to_vec() })
    }
}
