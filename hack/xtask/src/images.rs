//! Container images from built binaries, without Docker: one archive per image, the same bytes for the same binaries.
//!
//! Each archive is an OCI image layout that also carries Docker's `manifest.json`, so `ctr images import`,
//! `kind load image-archive`, `docker load` and `skopeo` (`oci-archive:` and `docker-archive:`) all read it.

mod archive;
mod binary;

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use archive::{Image, Layer};
use binary::Binary;

/// Where image names begin; `config/` names the same images.
pub(crate) const PREFIX: &str = "ropewalk.dev";

/// `nonroot` of the distroless images, which admission policies know.
const USER: &str = "65532";

/// Writes `controller.tar`, `webhook.tar` and `entrypoint.tar` into `out`, from the binaries in `from`.
pub(crate) fn run(from: &Path, out: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(out).with_context(|| format!("make {}", out.display()))?;
    for name in ["controller", "webhook"] {
        let file = format!("ropewalk-{name}");
        write(&process(name, &Binary::read(&built(&from.join(&file))?)?, &file)?, out)?;
    }
    write(&entrypoint(&Binary::read(&built(&entrypoint_path(from)?)?)?)?, out)
}

/// The image name that `config/` and the command line use, `v` and the workspace's version being the tag.
pub(crate) fn reference(name: &str) -> String {
    format!("{PREFIX}/{name}:v{}", env!("CARGO_PKG_VERSION"))
}

fn write(image: &Image, out: &Path) -> anyhow::Result<()> {
    let path = out.join(format!("{}.tar", image.name));
    fs::write(&path, image.archive()?).with_context(|| format!("write {}", path.display()))
}

fn built(path: &Path) -> anyhow::Result<PathBuf> {
    if !path.is_file() {
        bail!("\"{}\" is not there; build first: cargo build --release --workspace", path.display());
    }
    Ok(path.to_owned())
}

/// Where `standalone/build.rs` leaves the static binary, or the one it was told to take.
fn entrypoint_path(from: &Path) -> anyhow::Result<PathBuf> {
    if let Some(given) = env::var_os("ROPEWALK_ENTRYPOINT") {
        return Ok(given.into());
    }
    // Binaries lie in `TARGET/PROFILE`, or in `TARGET/TRIPLE/PROFILE` when built with `--target`.
    let roots = [from.join("../entrypoint"), from.join("../../entrypoint")];
    let mut found = Vec::new();
    for root in roots.iter().filter(|root| root.is_dir()) {
        for entry in fs::read_dir(root).with_context(|| format!("list {}", root.display()))? {
            let path = entry?.path().join("entrypoint/ropewalk-entrypoint");
            if path.is_file() {
                found.push(path);
            }
        }
    }
    match found.as_slice() {
        [one] => Ok(one.clone()),
        [] => bail!(
            "no entrypoint beside \"{}\"; build first: cargo build --release --workspace",
            from.display()
        ),
        _ => bail!("several entrypoints, {found:?}: set ROPEWALK_ENTRYPOINT to one of them"),
    }
}

/// A process of the control plane: its libraries in one layer, which the images share, and itself in another.
fn process(name: &'static str, binary: &Binary, file: &str) -> anyhow::Result<Image> {
    let account = format!("nonroot:x:{USER}:{USER}:nonroot:/:/sbin/nologin\n");
    let mut base = BTreeMap::from([
        (
            "etc/passwd".to_owned(),
            (0o644, format!("root:x:0:0:root:/:/sbin/nologin\n{account}").into_bytes()),
        ),
        ("etc/group".to_owned(), (0o644, format!("root:x:0:\nnonroot:x:{USER}:\n").into_bytes())),
        // Host names come from the pod's own /etc/hosts before they are asked for.
        ("etc/nsswitch.conf".to_owned(), (0o644, b"hosts: files dns\n".to_vec())),
    ]);
    for library in &binary.libraries {
        let bytes = fs::read(library).with_context(|| format!("read {}", library.display()))?;
        let path = library.to_str().context("a library whose path is not UTF-8")?;
        base.insert(path.trim_start_matches('/').to_owned(), (0o755, bytes));
    }
    let program = BTreeMap::from([(file.to_owned(), (0o755, binary.bytes.clone()))]);
    Ok(Image {
        name,
        architecture: binary.architecture,
        entrypoint: vec![format!("/{file}")],
        layers: vec![Layer::new(&base, "libraries and accounts")?, Layer::new(&program, file)?],
    })
}

/// The binary alone, in the root directory: mounted as an image volume at `/tekton/bin` it is `/tekton/bin/entrypoint`.
fn entrypoint(binary: &Binary) -> anyhow::Result<Image> {
    if !binary.libraries.is_empty() {
        bail!("the entrypoint must be static, since it runs in any image, but needs {:?}", binary.libraries);
    }
    let files = BTreeMap::from([("entrypoint".to_owned(), (0o755, binary.bytes.clone()))]);
    Ok(Image {
        name: "entrypoint",
        architecture: binary.architecture,
        entrypoint: vec!["/entrypoint".to_owned(), "nop".to_owned()],
        layers: vec![Layer::new(&files, "entrypoint")?],
    })
}

#[cfg(test)]
mod tests;
