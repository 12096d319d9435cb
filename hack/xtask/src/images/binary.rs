//! A program and what it needs to run: found from its ELF headers and the dynamic loader of this machine. Runs `ldd`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use object::Endianness;
use object::elf::FileHeader64;
use object::read::elf::{FileHeader, ProgramHeader};

/// A built program.
pub(crate) struct Binary {
    pub(crate) bytes: Vec<u8>,
    /// As OCI images name it.
    pub(crate) architecture: &'static str,
    /// Its loader and shared libraries, and theirs, sorted; empty when it is static. With glibc 2.34 and later these
    /// include name look-up; older ones load it by name at run time, which shows in no header.
    pub(crate) libraries: Vec<PathBuf>,
}

impl Binary {
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
        let (architecture, is_dynamic) =
            inspect(&bytes).with_context(|| format!("read {} as a program", path.display()))?;
        let libraries = if is_dynamic { libraries(path)? } else { Vec::new() };
        Ok(Self { bytes, architecture, libraries })
    }
}

/// The architecture, and whether a loader is asked for.
fn inspect(bytes: &[u8]) -> anyhow::Result<(&'static str, bool)> {
    let header = FileHeader64::<Endianness>::parse(bytes)?;
    let endian = header.endian()?;
    let architecture = match header.e_machine(endian) {
        object::elf::EM_X86_64 => "amd64",
        object::elf::EM_AARCH64 => "arm64",
        other => bail!("no image architecture is known for ELF machine {other:?}"),
    };
    let mut is_dynamic = false;
    for segment in header.program_headers(endian, bytes)? {
        is_dynamic |= segment.interpreter(endian, bytes)?.is_some();
    }
    Ok((architecture, is_dynamic))
}

fn libraries(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let output = Command::new("ldd")
        .arg(path)
        // Cargo points it at directories that no image has.
        .env_remove("LD_LIBRARY_PATH")
        .output()
        .context("run ldd")?;
    if !output.status.success() {
        bail!("ldd cannot read \"{}\": {}", path.display(), String::from_utf8_lossy(&output.stderr).trim());
    }
    parse(&String::from_utf8_lossy(&output.stdout))
}

/// Lines are `NAME => PATH (ADDRESS)`, `PATH (ADDRESS)` for the loader, `NAME (ADDRESS)` for what the kernel provides.
fn parse(listing: &str) -> anyhow::Result<Vec<PathBuf>> {
    let mut libraries = Vec::new();
    for line in listing.lines().map(str::trim) {
        let place = line.split_once(" => ").map_or(line, |(_, place)| place);
        if place == "not found" {
            bail!("a library is missing on this machine: {line}");
        }
        if place.starts_with('/') {
            libraries.push(PathBuf::from(place.split(" (").next().unwrap_or(place)));
        }
    }
    libraries.sort();
    libraries.dedup();
    if libraries.is_empty() {
        bail!("ldd names no library of a program that has a loader: {listing:?}");
    }
    Ok(libraries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loader_and_every_library_are_named_once() {
        let listing = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibm.so.6 => /lib/a/libm.so.6 (0x1)\n\
                       \tlibc.so.6 => /lib/a/libc.so.6 (0x2)\n\t/lib64/ld-linux-x86-64.so.2 (0x3)\n";
        let found = parse(listing).expect("readable");
        let expected = ["/lib/a/libc.so.6", "/lib/a/libm.so.6", "/lib64/ld-linux-x86-64.so.2"];
        assert_eq!(found, expected.map(PathBuf::from));
    }

    #[test]
    fn a_missing_library_is_an_error_that_names_it() {
        let error = parse("\tlibz.so.1 => not found\n").expect_err("missing");
        assert!(error.to_string().contains("libz.so.1"), "{error}");
    }

    #[test]
    fn what_is_no_program_is_refused() {
        assert!(inspect(b"#!/bin/sh\n").is_err());
    }
}
