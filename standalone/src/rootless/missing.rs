//! What keeps an ordinary user from making namespaces, as the kernel's settings tell it.

use std::fs;

use nix::errno::Errno;

/// What is missing, and what helps.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Missing {
    /// Debian's switch.
    #[error(
        "user namespaces are switched off; switch them on with \"sysctl kernel.unprivileged_userns_clone=1\""
    )]
    Switch,
    /// Ubuntu's switch.
    #[error(
        "AppArmor takes the capabilities of user namespaces away; let it leave them with \"sysctl \
         kernel.apparmor_restrict_unprivileged_userns=0\", or give this program a profile that allows \"userns\""
    )]
    AppArmor,
    /// The kernel's own limit.
    #[error("no more user namespaces are allowed; allow some with \"sysctl user.max_user_namespaces=15000\"")]
    Limit,
    /// The kernel was built without.
    #[error("this kernel has no user namespaces; use one with CONFIG_USER_NS")]
    Kernel,
    /// Something else forbids them.
    #[error(
        "user namespaces are forbidden ({0}), as in containers and by security modules; run the command outside of the \
         container, or allow it the system calls \"unshare\" and \"mount\""
    )]
    Forbidden(Errno),
}

/// Settings of the kernel; `None` for those that it does not have.
#[derive(Clone, Copy, Debug, Default)]
struct Settings {
    switch: Option<u64>,
    app_armor: Option<u64>,
    limit: Option<u64>,
}

impl Settings {
    fn read() -> Self {
        let value = |path: &str| fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok());
        Self {
            switch: value("/proc/sys/kernel/unprivileged_userns_clone"),
            app_armor: value("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
            limit: value("/proc/sys/user/max_user_namespaces"),
        }
    }
}

/// Why no user namespace can be made.
pub(super) fn namespaces(errno: Errno) -> Missing {
    why(errno, Settings::read())
}

/// Why what is made in a user namespace is refused.
pub(super) fn capabilities(errno: Errno) -> Missing {
    match Settings::read() {
        Settings { app_armor: Some(1), .. } => Missing::AppArmor,
        _ => Missing::Forbidden(errno),
    }
}

fn why(errno: Errno, settings: Settings) -> Missing {
    match settings {
        Settings { switch: Some(0), .. } => Missing::Switch,
        Settings { limit: Some(0), .. } => Missing::Limit,
        _ if matches!(errno, Errno::ENOSPC | Errno::EUSERS) => Missing::Limit,
        _ if errno == Errno::EINVAL => Missing::Kernel,
        Settings { app_armor: Some(1), .. } => Missing::AppArmor,
        _ => Missing::Forbidden(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        let open = Settings { switch: Some(1), app_armor: Some(0), limit: Some(9) };
        for (errno, settings, expected) in [
            (Errno::EPERM, Settings { switch: Some(0), ..open }, Missing::Switch),
            (Errno::ENOSPC, Settings { limit: Some(0), ..open }, Missing::Limit),
            (Errno::ENOSPC, open, Missing::Limit),
            (Errno::EINVAL, Settings::default(), Missing::Kernel),
            (Errno::EPERM, Settings { app_armor: Some(1), ..open }, Missing::AppArmor),
            (Errno::EPERM, open, Missing::Forbidden(Errno::EPERM)),
        ] {
            assert_eq!(why(errno, settings), expected, "{errno} {settings:?}");
        }
    }
}
