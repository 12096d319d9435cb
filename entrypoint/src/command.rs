//! Which program a step runs, and what to say when there is none.

use std::env::consts::ARCH;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use ropewalk_entrypoint_protocol::flags::StepFlags;
use serde_json::Value;

/// Commands by platform, put there by the controller when the image decides what runs.
const PLATFORM_COMMANDS: &str = "TEKTON_PLATFORM_COMMANDS";

/// Where programs are looked for when PATH is not set: what container runtimes set it to.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Longest first line worth reading for the name of an interpreter; the kernel reads 256 bytes.
const SHEBANG_BYTES: u64 = 256;

/// Why there is no command to run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    #[error("the step has no command: neither -entrypoint nor {PLATFORM_COMMANDS} is given")]
    None,
    #[error("parsing {PLATFORM_COMMANDS}")]
    PlatformCommands(#[source] serde_json::Error),
    #[error("the image has no command for platform \"{0}\"")]
    Platform(String),
    #[error("command {command:?} is not in PATH {path:?}; check its spelling and the step's image")]
    NotInPath { command: String, path: String },
    #[error("command {command:?} is not executable: {}", path.display())]
    NotExecutable { command: String, path: PathBuf },
    #[error("command {command:?} does not exist; check its spelling and the step's image")]
    Missing { command: String },
    #[error("command {command:?} needs the interpreter {interpreter:?}, which is not in the step's image")]
    MissingInterpreter { command: String, interpreter: String },
    #[error("starting command {command:?}")]
    Start { command: String, source: io::Error },
}

/// The command with its arguments, before substitution.
pub(crate) fn argv(flags: &StepFlags) -> Result<Vec<String>, CommandError> {
    let mut argv = match &flags.entrypoint {
        Some(entrypoint) => vec![entrypoint.clone()],
        None => match std::env::var(PLATFORM_COMMANDS) {
            Ok(commands) => for_platform(&commands, ARCH)?,
            Err(_) => return Err(CommandError::None),
        },
    };
    argv.extend_from_slice(&flags.args);
    Ok(argv)
}

/// The entry of this platform: with its usual variant first, as image indexes name it so.
fn for_platform(commands: &str, arch: &str) -> Result<Vec<String>, CommandError> {
    let commands: Value = serde_json::from_str(commands).map_err(CommandError::PlatformCommands)?;
    let command = |platform: &str| -> Option<Vec<String>> {
        commands.get(platform)?.as_array()?.iter().map(|part| part.as_str().map(str::to_owned)).collect()
    };
    let (arch, variant) = match arch {
        "x86_64" => ("amd64", None),
        "x86" => ("386", None),
        "aarch64" => ("arm64", Some("v8")),
        "arm" => ("arm", Some("v7")),
        "powerpc64" => ("ppc64le", None),
        other => (other, None),
    };
    let plain = format!("linux/{arch}");
    variant
        .and_then(|variant| command(&format!("{plain}/{variant}")))
        .or_else(|| command(&plain))
        .filter(|command| !command.is_empty())
        .ok_or(CommandError::Platform(plain))
}

/// The file a command names: itself when it has a slash, else the first executable of that name in
/// `path` (a PATH value).
pub(crate) fn locate(command: &str, path: Option<&OsStr>) -> Result<PathBuf, CommandError> {
    if command.contains('/') {
        return Ok(PathBuf::from(command));
    }
    let default = OsString::from(DEFAULT_PATH);
    let path = path.unwrap_or(&default);
    let not_found =
        || CommandError::NotInPath { command: command.to_owned(), path: path.to_string_lossy().into_owned() };
    if command.is_empty() {
        return Err(not_found());
    }
    let mut unusable = None;
    for directory in std::env::split_paths(path) {
        // An empty entry means the current directory; joined to "." it stays a path with a slash.
        let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { &directory };
        let candidate = directory.join(command);
        match fs::metadata(&candidate) {
            Ok(metadata) if metadata.is_file() => {
                if metadata.permissions().mode() & 0o111 != 0 {
                    return Ok(candidate);
                }
                unusable = unusable.or(Some(candidate));
            }
            _ => {}
        }
    }
    Err(match unusable {
        Some(path) => CommandError::NotExecutable { command: command.to_owned(), path },
        None => not_found(),
    })
}

/// Says why the kernel refused to start `program`. For a missing interpreter it reports the script
/// itself as missing, which sends users looking in the wrong place.
pub(crate) fn explain(command: &str, program: &Path, source: io::Error) -> CommandError {
    let command = command.to_owned();
    match source.kind() {
        io::ErrorKind::NotFound if program.exists() => match interpreter(program) {
            Some(interpreter) => CommandError::MissingInterpreter { command, interpreter },
            None => CommandError::Start { command, source },
        },
        io::ErrorKind::NotFound => CommandError::Missing { command },
        io::ErrorKind::PermissionDenied => CommandError::NotExecutable { command, path: program.to_owned() },
        _ => CommandError::Start { command, source },
    }
}

fn interpreter(script: &Path) -> Option<String> {
    let mut start = Vec::new();
    fs::File::open(script).ok()?.take(SHEBANG_BYTES).read_to_end(&mut start).ok()?;
    let line = start.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let line = OsStr::from_bytes(line).to_string_lossy();
    line.split_whitespace().next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const COMMANDS: &str = r#"{"linux/amd64":["/a","b"],"linux/arm64/v8":["/v8"],"linux/arm64":["/plain"],"linux/arm":["/arm"]}"#;

    #[rstest]
    #[case("x86_64", &["/a", "b"])]
    #[case("aarch64", &["/v8"])]
    #[case("arm", &["/arm"])]
    fn the_platform_with_its_variant_comes_first(#[case] arch: &str, #[case] expected: &[&str]) {
        assert_eq!(for_platform(COMMANDS, arch).unwrap_or_default(), expected);
    }

    #[test]
    fn a_platform_the_image_lacks_is_named() {
        let error = for_platform(COMMANDS, "s390x").map_err(|e| e.to_string());
        assert_eq!(error, Err("the image has no command for platform \"linux/s390x\"".to_owned()));
        assert!(matches!(for_platform("{", "x86_64"), Err(CommandError::PlatformCommands(_))));
        assert!(matches!(for_platform(r#"{"linux/amd64":[]}"#, "x86_64"), Err(CommandError::Platform(_))));
    }
}
