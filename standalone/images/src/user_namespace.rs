//! Whether this process is root of the machine or only in a user namespace, where the kernel lets it do less.

use std::fs;
use std::sync::LazyLock;

/// How the first user namespace maps users: all of them, each to itself.
const EVERY_ID: &str = "4294967295";

// Without the file there are no such namespaces.
static IN_ONE: LazyLock<bool> =
    LazyLock::new(|| fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| !map.contains(EVERY_ID)));

/// Whether this process lived in a user namespace that was made by somebody when it asked first. It owns files there only as the users that its
/// namespace has, makes no device nodes, and overlayfs keeps its marks in attributes of users.
pub fn is_in_user_namespace() -> bool {
    *IN_ONE
}

/// The attribute by which overlayfs knows a directory that hides those below it.
pub fn opaque_attribute() -> &'static str {
    if is_in_user_namespace() { "user.overlay.opaque" } else { "trusted.overlay.opaque" }
}
