//! Makes, refreshes and removes the volumes of a pod, below `pods/<uid>/volumes`. All functions block.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use k8s_openapi::api::core::v1::{Pod, Volume};
use kube::ResourceExt;
use nix::mount::{MsFlags, mount};
use ropewalk_images::{Image, is_in_user_namespace};
use ropewalk_kubelet::image::ImageError;
use ropewalk_kubelet::machine::Event;
use ropewalk_kubelet::volume::{self, HostKind, Plan};
use ropewalk_kubelet::{ConfigError, Objects};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::{Node, files, instance, overlay};
use crate::rootless::NO_IDS;

const VOLUMES: &str = "volumes";
const PATHS: &str = "volumes.json";

/// Size of a volume in memory that names none: a quarter of what most build machines have, taken only as it is
/// written.
const MEMORY_VOLUME_BYTES: u64 = 1 << 30;

/// Why a volume could not be made; the text is what `kubectl describe` shows on a cluster.
#[derive(Debug, thiserror::Error)]
pub(super) enum VolumeError {
    #[error("MountVolume.SetUp failed for volume \"{volume}\" : {source}")]
    Config { volume: String, source: ConfigError },
    #[error("MountVolume.SetUp failed for volume \"{volume}\" : {source}")]
    Image { volume: String, source: ImageError },
    #[error("MountVolume.SetUp failed for volume \"{volume}\" : {detail}")]
    HostPath { volume: String, detail: String },
    #[error("MountVolume.SetUp failed for volume \"{volume}\" : {source}")]
    Io { volume: String, source: io::Error },
}

/// Where each volume of a pod is, as [`prepare`] left it.
#[derive(Default, Deserialize, Serialize)]
struct Paths(BTreeMap<String, PathBuf>);

/// The images that are volumes, by the volume's name; pulled first where their policy asks for it.
pub(super) async fn images(
    node: &Node,
    pod: &Pod,
    objects: &Objects,
    events: &mpsc::Sender<Event>,
) -> Result<BTreeMap<String, Image>, VolumeError> {
    let mut found = BTreeMap::new();
    let Some(images) = &node.images else { return Ok(found) };
    for volume in volumes(pod).filter(|volume| volume.image.is_some()) {
        let name = || volume.name.clone();
        let plan = volume::plan(pod, volume, objects, &node.facts)
            .map_err(|source| VolumeError::Config { volume: name(), source })?;
        if let Plan::Image { reference, policy } = plan {
            let image = images.get(pod, &reference, policy, events).await;
            found.insert(name(), image.map_err(|source| VolumeError::Image { volume: name(), source })?);
        }
    }
    Ok(found)
}

/// Makes all volumes. Repeating it is harmless: what exists is kept.
pub(super) fn prepare(
    node: &Node,
    pod: &Pod,
    objects: &Objects,
    images: &BTreeMap<String, Image>,
) -> Result<(), VolumeError> {
    let mut paths = Paths::default();
    for found in volumes(pod) {
        let volume = || found.name.clone();
        let path = if let Some(image) = images.get(&found.name) {
            make_image(node, pod, found, image)?
        } else {
            let plan = volume::plan(pod, found, objects, &node.facts)
                .map_err(|source| VolumeError::Config { volume: volume(), source })?;
            make(node, pod, found, plan)?
        };
        paths.0.insert(found.name.clone(), path);
    }
    let directory = node.pod_dir(&pod.uid().unwrap_or_default());
    fs::create_dir_all(&directory)
        .and_then(|()| files::write_json(&directory.join(PATHS), &paths))
        .map_err(|source| VolumeError::Io { volume: "*".to_owned(), source })
}

/// Bound of a volume of secrets, which lies in memory: dozens of the largest that an API server keeps.
const SECRET_VOLUME_BYTES: u64 = 64 << 20;

/// Where the volumes of a pod are.
pub(super) fn paths(node: &Node, pod: &Pod) -> io::Result<BTreeMap<String, PathBuf>> {
    let directory = node.pod_dir(&pod.uid().unwrap_or_default());
    let paths: Option<Paths> = files::read_json(&directory.join(PATHS))?;
    Ok(paths.unwrap_or_default().0)
}

/// Writes the files that follow the pod's metadata again.
pub(super) fn refresh(node: &Node, pod: &Pod, objects: &Objects) -> Result<(), VolumeError> {
    for found in volumes(pod).filter(|found| volume::follows_metadata(found)) {
        let plan = volume::plan(pod, found, objects, &node.facts)
            .map_err(|source| VolumeError::Config { volume: found.name.clone(), source })?;
        make(node, pod, found, plan)?;
    }
    Ok(())
}

/// Whether there are volumes for [`tear_down`].
pub(super) fn are_there(node: &Node, uid: &str) -> bool {
    node.pod_dir(uid).join(VOLUMES).exists()
}

/// Unmounts and deletes the volumes that live only as long as the pod. Claims and hostPaths stay.
pub(super) fn tear_down(node: &Node, uid: &str) -> io::Result<()> {
    let directory = node.pod_dir(uid).join(VOLUMES);
    instance::unmount_below(&directory);
    match fs::remove_dir_all(&directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn volumes(pod: &Pod) -> impl Iterator<Item = &Volume> {
    pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten())
}

fn make(node: &Node, pod: &Pod, volume: &Volume, plan: Plan) -> Result<PathBuf, VolumeError> {
    let failed = |source: io::Error| VolumeError::Io { volume: volume.name.clone(), source };
    let uid = pod.uid().unwrap_or_default();
    let directory = node.pod_dir(&uid).join(VOLUMES).join(&volume.name);
    match plan {
        Plan::Empty { memory, size_limit } => {
            // Without the file an earlier process may have been killed half-way; with it containers may have run, and
            // changed the mode. What is in memory does not outlive the machine.
            let mut fresh = !node.pod_dir(&uid).join(PATHS).exists();
            fs::create_dir_all(&directory).map_err(failed)?;
            if memory && !is_mount_point(&directory).map_err(failed)? {
                let size = size_limit.unwrap_or(MEMORY_VOLUME_BYTES);
                mount_tmpfs(&directory, size).map_err(failed)?;
                fresh = true;
            }
            if fresh {
                open_to_pod(pod, &directory).map_err(failed)?;
            }
            Ok(directory)
        }
        Plan::Files(files) => {
            fs::create_dir_all(&directory).map_err(failed)?;
            // As on any node: what is secret reaches no disk.
            let secret = volume.secret.is_some() || volume.projected.is_some();
            if secret && !is_mount_point(&directory).map_err(failed)? {
                mount_tmpfs(&directory, SECRET_VOLUME_BYTES).map_err(failed)?;
            }
            write_files(pod, &directory, &files).map_err(failed)?;
            Ok(directory)
        }
        Plan::Host { path, kind } => {
            let path = PathBuf::from(path);
            host_path(&path, kind)
                .map_err(|detail| VolumeError::HostPath { volume: volume.name.clone(), detail })?;
            Ok(path)
        }
        Plan::Claim { name, uid } => {
            let namespace = pod.namespace().unwrap_or_default();
            // A claim that was deleted and made again under the same name starts empty.
            let directory = node.config.data_dir.join("claims").join(namespace).join(format!("{name}-{uid}"));
            let _one_at_a_time = node.claims.lock().unwrap_or_else(PoisonError::into_inner);
            if !directory.exists() {
                // Whole before it is in its place, where containers may change its mode.
                let made = directory.with_file_name(format!("{name}-{uid}.new"));
                fs::create_dir_all(&made).map_err(failed)?;
                open_to_pod(pod, &made).map_err(failed)?;
                fs::rename(&made, &directory).map_err(failed)?;
            }
            Ok(directory)
        }
        Plan::Entrypoint => Ok(node.entrypoint_image()),
        Plan::Image { reference, .. } => Err(VolumeError::Config {
            volume: volume.name.clone(),
            source: ConfigError::ImageVolume(reference),
        }),
    }
}

/// Mounts an image, which is in use as long as the volume's directory is there.
fn make_image(node: &Node, pod: &Pod, volume: &Volume, image: &Image) -> Result<PathBuf, VolumeError> {
    let name = || volume.name.clone();
    let failed = |source: io::Error| VolumeError::Io { volume: name(), source };
    let directory = node.pod_dir(&pod.uid().unwrap_or_default()).join(VOLUMES).join(&volume.name);
    let (root, empty) = (directory.join("root"), directory.join("empty"));
    for path in [&root, &empty] {
        fs::create_dir_all(path).map_err(failed)?;
    }
    if let Some(images) = &node.images {
        images.hold(image, &directory).map_err(|source| VolumeError::Image { volume: name(), source })?;
    }
    if !is_mount_point(&root).map_err(failed)? {
        overlay::mount_read_only(&image.lowers, &empty, &root).map_err(failed)?;
    }
    Ok(root)
}

fn is_mount_point(directory: &Path) -> io::Result<bool> {
    let parent = directory.parent().unwrap_or(directory);
    Ok(fs::metadata(directory)?.dev() != fs::metadata(parent)?.dev())
}

fn mount_tmpfs(directory: &Path, bytes: u64) -> io::Result<()> {
    let options = format!("size={bytes},mode=0777");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    Ok(mount(Some("tmpfs"), directory, Some("tmpfs"), flags, Some(options.as_str()))?)
}

/// Every user of the pod may write; with `fsGroup` what is made in it belongs to that group.
fn open_to_pod(pod: &Pod, directory: &Path) -> io::Result<()> {
    let group = fs_group(pod);
    if let Some(group) = group {
        give(directory, group)?;
    }
    let mode = if group.is_some() { 0o2777 } else { 0o777 };
    fs::set_permissions(directory, Permissions::from_mode(mode))
}

fn give(path: &Path, group: u32) -> io::Result<()> {
    match chown(path, None, Some(group)) {
        Err(error) if error.kind() == io::ErrorKind::InvalidInput && is_in_user_namespace() => {
            Err(io::Error::other(format!("fsGroup {group} {NO_IDS}")))
        }
        given => given,
    }
}

fn fs_group(pod: &Pod) -> Option<u32> {
    let context = pod.spec.as_ref()?.security_context.as_ref()?;
    context.fs_group.and_then(|group| u32::try_from(group).ok())
}

/// Writes each file whose content or mode changed beside its place and renames it there, so that a reader sees
/// the old or the new and a watcher of the directory one event.
fn write_files(pod: &Pod, directory: &Path, wanted: &BTreeMap<String, volume::File>) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    fs::set_permissions(directory, Permissions::from_mode(0o755))?;
    let group = fs_group(pod);
    for (path, file) in wanted {
        let target = directory.join(path);
        let mode = if group.is_some() { file.mode | 0o040 } else { file.mode };
        let same = |found: Vec<u8>| found == file.contents;
        // A container that is privileged can put anything here; only a file of ours is looked into.
        let kept = fs::symlink_metadata(&target)
            .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o7777 == mode);
        if kept && fs::read(&target).is_ok_and(same) {
            continue;
        }
        make_parents(directory, Path::new(path))?;
        let mut name = std::ffi::OsString::from("..");
        name.push(target.file_name().unwrap_or_default());
        let temporary = target.with_file_name(name);
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // Made anew, so that no link that stood there is followed.
        let mut opened = File::options().write(true).create_new(true).open(&temporary)?;
        opened.write_all(&file.contents)?;
        opened.set_permissions(Permissions::from_mode(mode))?;
        drop(opened);
        if let Some(group) = group {
            give(&temporary, group)?;
        }
        fs::rename(&temporary, &target)?;
    }
    Ok(())
}

/// The directories between a volume and a file in it, open to readers whatever this process's umask is.
fn make_parents(directory: &Path, path: &Path) -> io::Result<()> {
    let mut here = directory.to_owned();
    for part in path.parent().into_iter().flat_map(Path::components) {
        here.push(part);
        match fs::create_dir(&here) {
            Ok(()) => fs::set_permissions(&here, Permissions::from_mode(0o755))?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn host_path(path: &Path, kind: HostKind) -> Result<(), String> {
    let shown = path.display();
    match kind {
        HostKind::DirectoryOrCreate if !path.exists() => {
            return fs::create_dir_all(path).map_err(|error| error.to_string());
        }
        HostKind::FileOrCreate if !path.exists() => {
            return File::create(path).map(drop).map_err(|error| error.to_string());
        }
        _ => {}
    }
    let found = fs::metadata(path).map_err(|error| format!("hostPath \"{shown}\": {error}"))?.file_type();
    let (fits, wanted) = match kind {
        HostKind::Any => (true, "anything"),
        HostKind::Directory | HostKind::DirectoryOrCreate => (found.is_dir(), "a directory"),
        HostKind::File | HostKind::FileOrCreate => (found.is_file(), "a file"),
        HostKind::Socket => (found.is_socket(), "a socket"),
        HostKind::CharDevice => (found.is_char_device(), "a character device"),
        HostKind::BlockDevice => (found.is_block_device(), "a block device"),
    };
    if fits { Ok(()) } else { Err(format!("hostPath type check failed: \"{shown}\" is not {wanted}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(contents: &str, mode: u32) -> volume::File {
        volume::File { contents: contents.as_bytes().to_vec(), mode }
    }

    #[test]
    fn files_are_replaced_only_when_they_change() {
        let root = tempfile::tempdir().expect("a directory");
        let pod = Pod::default();
        let inode = |path: &str| fs::metadata(root.path().join(path)).expect("exists").ino();
        let first =
            BTreeMap::from([("a".to_owned(), file("1", 0o644)), ("d/b".to_owned(), file("2", 0o600))]);
        write_files(&pod, root.path(), &first).expect("written");
        let before = (inode("a"), inode("d/b"));
        let second =
            BTreeMap::from([("a".to_owned(), file("new", 0o644)), ("d/b".to_owned(), file("2", 0o600))]);
        write_files(&pod, root.path(), &second).expect("written");
        assert_eq!(fs::read(root.path().join("a")).expect("read"), b"new");
        assert_ne!(inode("a"), before.0);
        assert_eq!(inode("d/b"), before.1, "what did not change is not touched");
    }

    #[test]
    fn host_paths_are_checked() {
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path().join("made");
        assert!(host_path(&path, HostKind::Directory).expect_err("missing").contains("made"));
        host_path(&path, HostKind::DirectoryOrCreate).expect("made");
        let error = host_path(&path, HostKind::File).expect_err("a directory");
        assert!(error.ends_with("is not a file"), "{error}");
    }
}
