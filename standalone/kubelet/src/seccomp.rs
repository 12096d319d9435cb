//! The system calls that `seccompProfile: RuntimeDefault` withholds: those that container engines withhold by default.
//! No IO.
//!
//! Written as what is withheld, with the capability that gives it back, as that is the shorter list; what the kernel
//! learns later is for whoever enforces the list to withhold too.

use std::collections::BTreeSet;

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder, LinuxSeccompBuilder,
    LinuxSeccompOperator, LinuxSyscall, LinuxSyscallBuilder,
};

/// System calls nobody gets.
const WITHHELD: [&str; 17] = [
    "add_key",
    "io_uring_enter",
    "io_uring_register",
    "io_uring_setup",
    "kexec_file_load",
    "kexec_load",
    "keyctl",
    "migrate_pages",
    "move_pages",
    "pivot_root",
    "request_key",
    "swapoff",
    "swapon",
    "sysfs",
    "uselib",
    "userfaultfd",
    "ustat",
];

/// System calls and the capabilities that give them back, any one of them.
const WITH_CAPABILITY: [(&str, &[&str]); 41] = [
    ("acct", &["SYS_PACCT"]),
    ("bpf", &["SYS_ADMIN", "BPF"]),
    ("chroot", &["SYS_CHROOT"]),
    ("clock_settime", &["SYS_TIME"]),
    ("delete_module", &["SYS_MODULE"]),
    ("fanotify_init", &["SYS_ADMIN"]),
    ("finit_module", &["SYS_MODULE"]),
    ("fsconfig", &["SYS_ADMIN"]),
    ("fsmount", &["SYS_ADMIN"]),
    ("fsopen", &["SYS_ADMIN"]),
    ("fspick", &["SYS_ADMIN"]),
    ("get_mempolicy", &["SYS_NICE"]),
    ("init_module", &["SYS_MODULE"]),
    ("ioperm", &["SYS_RAWIO"]),
    ("iopl", &["SYS_RAWIO"]),
    ("kcmp", &["SYS_PTRACE"]),
    ("lookup_dcookie", &["SYS_ADMIN"]),
    ("mbind", &["SYS_NICE"]),
    ("mount", &["SYS_ADMIN"]),
    ("mount_setattr", &["SYS_ADMIN"]),
    ("move_mount", &["SYS_ADMIN"]),
    ("open_by_handle_at", &["DAC_READ_SEARCH"]),
    ("open_tree", &["SYS_ADMIN"]),
    ("perf_event_open", &["SYS_ADMIN", "PERFMON"]),
    ("pidfd_getfd", &["SYS_PTRACE"]),
    ("process_madvise", &["SYS_PTRACE"]),
    ("quotactl", &["SYS_ADMIN"]),
    ("quotactl_fd", &["SYS_ADMIN"]),
    ("reboot", &["SYS_BOOT"]),
    ("set_mempolicy", &["SYS_NICE"]),
    ("set_mempolicy_home_node", &["SYS_NICE"]),
    ("setdomainname", &["SYS_ADMIN"]),
    ("sethostname", &["SYS_ADMIN"]),
    ("setns", &["SYS_ADMIN"]),
    ("settimeofday", &["SYS_TIME"]),
    ("syslog", &["SYS_ADMIN", "SYSLOG"]),
    ("umount2", &["SYS_ADMIN"]),
    ("unshare", &["SYS_ADMIN"]),
    ("vhangup", &["SYS_TTY_CONFIG"]),
    // A list of its own below: with other arguments it is how processes start.
    ("clone", &["SYS_ADMIN"]),
    ("clone3", &["SYS_ADMIN"]),
];

/// The flags of clone(2) that make namespaces: mount, cgroup, UTS, IPC, user, pid and network.
const NAMESPACES: [u64; 7] =
    [0x0002_0000, 0x0200_0000, 0x0400_0000, 0x0800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000];

/// The address family of virtual machines' sockets: it reaches past the network namespace.
const AF_VSOCK: u64 = 40;

/// "Operation not permitted"
const EPERM: u32 = 1;

/// "Function not implemented": C libraries then use clone(2), whose flags a filter can see.
const ENOSYS: u32 = 38;

/// The profile of a container with these capabilities, named without `CAP_`.
pub fn profile(capabilities: &BTreeSet<String>) -> Result<LinuxSeccomp, OciSpecError> {
    let mut names: Vec<&str> = WITHHELD.to_vec();
    let mut calls = Vec::new();
    for (name, back) in WITH_CAPABILITY {
        if back.iter().any(|capability| capabilities.contains(*capability)) {
            continue;
        }
        match name {
            "clone" => {
                for flag in NAMESPACES {
                    let argument = argument(flag, LinuxSeccompOperator::ScmpCmpMaskedEq)?;
                    calls.push(withheld(&["clone"], EPERM, Some(argument))?);
                }
            }
            "clone3" => calls.push(withheld(&["clone3"], ENOSYS, None)?),
            name => names.push(name),
        }
    }
    calls.push(withheld(&names, EPERM, None)?);
    let vsock = argument(AF_VSOCK, LinuxSeccompOperator::ScmpCmpEq)?;
    calls.push(withheld(&["socket"], EPERM, Some(vsock))?);
    LinuxSeccompBuilder::default()
        .default_action(LinuxSeccompAction::ScmpActAllow)
        .architectures(architectures())
        .syscalls(calls)
        .build()
}

/// The machine's own, and those whose programs it runs too.
fn architectures() -> Vec<Arch> {
    if cfg!(target_arch = "x86_64") {
        vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32]
    } else if cfg!(target_arch = "aarch64") {
        vec![Arch::ScmpArchAarch64, Arch::ScmpArchArm]
    } else {
        vec![Arch::ScmpArchNative]
    }
}

fn withheld(
    names: &[&str],
    errno: u32,
    argument: Option<LinuxSeccompArg>,
) -> Result<LinuxSyscall, OciSpecError> {
    let call = LinuxSyscallBuilder::default()
        .names(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>())
        .action(LinuxSeccompAction::ScmpActErrno)
        .errno_ret(errno);
    match argument {
        Some(argument) => call.args(vec![argument]).build(),
        None => call.build(),
    }
}

/// The first argument equal to `value`; masked: with these bits set.
fn argument(value: u64, operator: LinuxSeccompOperator) -> Result<LinuxSeccompArg, OciSpecError> {
    let argument = LinuxSeccompArgBuilder::default().index(0_usize).value(value).op(operator);
    match operator {
        LinuxSeccompOperator::ScmpCmpMaskedEq => argument.value_two(value).build(),
        _ => argument.build(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn withheld_with(capabilities: &[&str]) -> Vec<(String, Option<u32>, usize)> {
        let capabilities = capabilities.iter().map(|&name| name.to_owned()).collect();
        let profile = profile(&capabilities).expect("a profile");
        let calls = profile.syscalls().clone().unwrap_or_default();
        let each = calls.into_iter().flat_map(|call| {
            let arguments = call.args().as_ref().map_or(0, Vec::len);
            let errno = call.errno_ret();
            call.names().iter().map(move |name| (name.clone(), errno, arguments)).collect::<Vec<_>>()
        });
        each.collect()
    }

    #[test]
    fn capabilities_give_their_calls_back() {
        let names = |capabilities: &[&str]| -> Vec<String> {
            withheld_with(capabilities).into_iter().map(|(name, ..)| name).collect()
        };
        for (capability, call) in
            [("SYS_ADMIN", "mount"), ("SYS_ADMIN", "clone"), ("BPF", "bpf"), ("SYS_TIME", "clock_settime")]
        {
            assert!(names(&[]).iter().any(|name| name == call), "{call}");
            assert!(!names(&[capability]).iter().any(|name| name == call), "{call}");
        }
        for call in ["keyctl", "io_uring_setup"] {
            assert!(names(&["SYS_ADMIN"]).iter().any(|name| name == call), "{call}");
        }
    }

    #[test]
    fn processes_start_but_not_in_new_namespaces() {
        let calls = withheld_with(&[]);
        assert!(calls.iter().filter(|(name, ..)| name == "clone").all(|(_, _, arguments)| *arguments == 1));
        assert_eq!(calls.iter().filter(|(name, ..)| name == "clone").count(), 7);
        assert!(calls.contains(&("clone3".to_owned(), Some(38), 0)));
        assert!(calls.contains(&("socket".to_owned(), Some(1), 1)), "others than those of virtual machines");
    }
}
