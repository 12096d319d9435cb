//! Builds the static entrypoint and hands its path to the crate, which embeds it: one file is all there is to
//! copy to another machine. Set `ROPEWALK_ENTRYPOINT` to a file to embed that instead; packagers who build the
//! entrypoint apart, or with musl, need it.

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    println!("cargo::rerun-if-env-changed=ROPEWALK_ENTRYPOINT");
    let path = match env::var_os("ROPEWALK_ENTRYPOINT") {
        Some(given) => {
            let path = PathBuf::from(given);
            println!("cargo::rerun-if-changed={}", path.display());
            path
        }
        None => build()?,
    };
    verify(&path)?;
    println!("cargo::rustc-env=ROPEWALK_EMBEDDED_ENTRYPOINT={}", path.display());
    Ok(())
}

fn variable(name: &str) -> Result<String> {
    env::var(name).map_err(|error| format!("environment variable {name}: {error}").into())
}

fn build() -> Result<PathBuf> {
    let workspace = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let workspace = workspace.parent().ok_or("the crate has no parent directory")?;
    for source in ["src", "Cargo.toml", "protocol/src", "protocol/Cargo.toml"] {
        println!("cargo::rerun-if-changed={}", workspace.join("entrypoint").join(source).display());
    }

    // A target directory of its own: the one in use is locked by the cargo that runs this.
    let out = PathBuf::from(variable("OUT_DIR")?);
    let profile = out.ancestors().find(|path| path.ends_with("build")).and_then(Path::parent);
    let target_dir = profile.and_then(Path::parent).ok_or("OUT_DIR has an unknown form")?.join("entrypoint");
    let target = variable("TARGET")?;

    let mut cargo = Command::new(variable("CARGO")?);
    cargo
        .current_dir(workspace)
        .args(["build", "--quiet", "--package", "ropewalk-entrypoint", "--bin", "ropewalk-entrypoint"])
        .args(["--profile", "entrypoint", "--target", &target])
        .arg("--target-dir")
        .arg(&target_dir);
    // What the outer cargo sets for this script is not meant for another cargo: clippy's wrapper would check
    // instead of build, flags would leak into the static binary.
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let keep = ["CARGO_HOME", "CARGO_HTTP", "CARGO_NET", "CARGO_REGISTRIES", "CARGO_SOURCE"];
        let ours = text.starts_with("CARGO") && !keep.iter().any(|prefix| text.starts_with(prefix));
        if ours || ["RUSTC", "RUSTDOC", "RUSTFLAGS", "RUSTC_WORKSPACE_WRAPPER"].contains(&text.as_ref()) {
            cargo.env_remove(&name);
        }
    }
    cargo.env("RUSTFLAGS", "-C target-feature=+crt-static -C relocation-model=static");
    let status = cargo.status()?;
    if !status.success() {
        return Err(format!("building the entrypoint failed: {status}").into());
    }
    Ok(target_dir.join(target).join("entrypoint").join("ropewalk-entrypoint"))
}

/// The binary runs in images without any library: it must be an ELF file that names no program interpreter.
fn verify(path: &Path) -> Result<()> {
    let bytes = fs::read(path).map_err(|error| format!("entrypoint {}: {error}", path.display()))?;
    let number = |at: usize, size: usize| -> Option<u64> {
        let field = bytes.get(at..at + size)?;
        Some(field.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    };
    let is_static = || -> Option<bool> {
        // 64-bit little-endian ELF: program headers start at e_phoff, each e_phentsize long.
        if !bytes.starts_with(b"\x7fELF\x02\x01") {
            return None;
        }
        let (start, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
        let mut interpreter = false;
        for index in 0..count {
            interpreter |= number(usize::try_from(start + index * size).ok()?, 4)? == 3;
        }
        Some(!interpreter)
    };
    match is_static() {
        Some(true) => Ok(()),
        Some(false) => Err(format!("entrypoint {} is not statically linked", path.display()).into()),
        None => Err(format!("entrypoint {} is not a 64-bit ELF file", path.display()).into()),
    }
}
