//! The choice of system calls of a container that libcontainer makes: without the C library for it, libcontainer passes
//! over what the OCI document says about system calls. So the last thing that happens in the container before its
//! command is ours.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::{fs, io};

use libcontainer::oci_spec::runtime::{
    Capability, LinuxCapabilities, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompOperator, Spec,
};
use libcontainer::workload::default::DefaultExecutor;
use libcontainer::workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError};
use nix::errno::Errno;
use nix::libc::{self, sock_filter, sock_fprog};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, remove_capability_from_bounding_set, set_capabilities,
};

use crate::node::files;

/// The directory, below an attempt's, with the document that libcontainer goes by.
const CONFINED: &str = "confined";

/// What it takes to install a filter where programs may still gain privileges, and to give that up again.
const NEEDED: [Capability; 2] = [Capability::SysAdmin, Capability::Setpcap];

/// Executes a command with a choice of system calls and with the capabilities that its document had.
#[derive(Clone)]
pub(super) struct Confined {
    filter: Vec<sock_filter>,
    /// What is left to the command; `None` where the document says so itself.
    capabilities: Option<HashSet<Capability>>,
}

impl Confined {
    /// What the container of this document is executed with; `None` where it says nothing of system calls. Capabilities
    /// that are needed to do so are added to the document.
    pub(super) fn of(spec: &mut Spec) -> io::Result<Option<Self>> {
        let Some(seccomp) = spec.linux().as_ref().and_then(|linux| linux.seccomp().clone()) else {
            return Ok(None);
        };
        let filter = filter(&seccomp)?;
        let Some(process) = spec.process_mut() else { return Ok(None) };
        let capabilities = if process.no_new_privileges() == Some(true) {
            None
        } else {
            let mut given = process.capabilities().clone().unwrap_or_default();
            let wanted = given.bounding().clone().unwrap_or_default();
            widen(&mut given);
            process.set_capabilities(Some(given));
            Some(wanted)
        };
        Ok(Some(Self { filter, capabilities }))
    }

    fn confine(&self) -> io::Result<()> {
        install(&self.filter)?;
        let Some(wanted) = &self.capabilities else { return Ok(()) };
        let surplus = NEEDED.into_iter().filter(|capability| !wanted.contains(capability));
        let surplus = surplus.fold(CapabilitySet::empty(), |set, capability| set | one(capability));
        for single in surplus.iter() {
            remove_capability_from_bounding_set(single)?;
        }
        let CapabilitySets { effective, permitted, inheritable } = capabilities(None)?;
        let left = CapabilitySets {
            effective: effective - surplus,
            permitted: permitted - surplus,
            inheritable: inheritable - surplus,
        };
        Ok(set_capabilities(None, left)?)
    }
}

impl Executor for Confined {
    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        self.confine().map_err(|error| {
            ExecutorError::Other(format!(
                "the container's choice of system calls cannot be enforced: {error}"
            ))
        })?;
        DefaultExecutor {}.exec(spec)
    }

    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        DefaultExecutor {}.validate(spec)
    }

    fn setup_envs(
        &self,
        envs: std::collections::HashMap<String, String>,
    ) -> Result<(), ExecutorSetEnvsError> {
        DefaultExecutor {}.setup_envs(envs)
    }
}

fn one(capability: Capability) -> CapabilitySet {
    match capability {
        Capability::SysAdmin => CapabilitySet::SYS_ADMIN,
        Capability::Setpcap => CapabilitySet::SETPCAP,
        _ => CapabilitySet::empty(),
    }
}

/// Adds what is needed until the command is executed.
fn widen(capabilities: &mut LinuxCapabilities) {
    let wider = |given: &Option<HashSet<Capability>>| {
        let given = given.iter().flatten().copied();
        Some(given.chain(NEEDED).collect::<HashSet<_>>())
    };
    let (bounding, effective, permitted) =
        (wider(capabilities.bounding()), wider(capabilities.effective()), wider(capabilities.permitted()));
    capabilities.set_bounding(bounding).set_effective(effective).set_permitted(permitted);
}

/// What a container of an attempt is executed with, and the directory with the document for libcontainer: the attempt's
/// own, or one below it that has the document which [`Confined::of`] makes.
pub(super) fn confined(attempt: &Path) -> io::Result<(Option<Confined>, PathBuf)> {
    let spec: Option<Spec> = files::read_json(&attempt.join(files::CONFIG))?;
    let mut spec = spec.ok_or(io::ErrorKind::NotFound)?;
    let confined = Confined::of(&mut spec)?;
    let directory = attempt.join(CONFINED);
    // Commands that are run in the container find it there.
    if confined.is_some() && !directory.exists() {
        fs::create_dir(&directory)?;
        files::write_json(&directory.join(files::CONFIG), &spec)?;
    }
    let directory = if confined.is_some() { directory } else { attempt.to_owned() };
    Ok((confined, directory))
}

/// Installs a filter for good.
#[allow(unsafe_code, reason = "no crate installs a filter without forbidding further privileges with it")]
fn install(filter: &[sock_filter]) -> io::Result<()> {
    let length = u16::try_from(filter.len()).map_err(io::Error::other)?;
    let program = sock_fprog { len: length, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the kernel only reads the program, which outlives the call.
    let result =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, std::ptr::from_ref(&program)) };
    Errno::result(result).map(drop).map_err(io::Error::from)
}

/// The newest system call this list was made for, set_mempolicy_home_node(2) and its like: of later ones nobody can know
/// here whether they are to be withheld. The numbers are the same on all machines from 424 on.
const NEWEST: u32 = 462;

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// Where struct seccomp_data has its parts.
const NUMBER: u32 = 0;
const MACHINE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// Classic BPF: load a word, compare it, answer.
const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const GREATER: u32 = libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K;
const ANY_BIT: u32 = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
const ANSWER: u32 = libc::BPF_RET | libc::BPF_K;

fn step(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    // Every code above fits.
    sock_filter { code: u16::try_from(code).unwrap_or_default(), jt, jf, k }
}

fn refuse(errno: u32) -> sock_filter {
    step(ANSWER, libc::SECCOMP_RET_ERRNO | errno, 0, 0)
}

/// The filter for a profile that allows what it does not name. Programs for another machine, 32-bit ones, get nothing.
fn filter(profile: &LinuxSeccomp) -> io::Result<Vec<sock_filter>> {
    let odd = |what: &str| io::Error::other(format!("the profile of system calls has {what}"));
    if profile.default_action() != LinuxSeccompAction::ScmpActAllow {
        return Err(odd("another default"));
    }
    let enosys = u32::try_from(libc::ENOSYS).map_err(io::Error::other)?;
    let mut program = vec![
        step(LOAD, MACHINE, 0, 0),
        step(EQUAL, ARCHITECTURE, 1, 0),
        refuse(enosys),
        step(LOAD, NUMBER, 0, 0),
        step(GREATER, NEWEST, 0, 1),
        refuse(enosys),
    ];
    for call in profile.syscalls().iter().flatten() {
        if call.action() != LinuxSeccompAction::ScmpActErrno {
            return Err(odd("another action"));
        }
        let errno = call.errno_ret().unwrap_or(1);
        for name in call.names() {
            // A system call that this machine does not have needs no withholding.
            let Some(number) = number(name) else { continue };
            match call.args().as_deref() {
                None | Some([]) => program.extend([step(EQUAL, number, 0, 1), refuse(errno)]),
                Some([argument]) => {
                    let value = u32::try_from(argument.value()).map_err(|_| odd("a large argument"))?;
                    let at = u32::try_from(argument.index()).map_err(io::Error::other)? * 8 + ARGUMENTS;
                    let compare = match argument.op() {
                        LinuxSeccompOperator::ScmpCmpEq => EQUAL,
                        // Of one bit: that it is set.
                        LinuxSeccompOperator::ScmpCmpMaskedEq if value.is_power_of_two() => ANY_BIT,
                        _ => return Err(odd("another comparison")),
                    };
                    program.extend([
                        step(EQUAL, number, 0, 4),
                        // Machines that have a filter for here are little-endian: the lower half comes first.
                        step(LOAD, at, 0, 0),
                        step(compare, value, 0, 1),
                        refuse(errno),
                        step(LOAD, NUMBER, 0, 0),
                    ]);
                }
                Some(_) => return Err(odd("several arguments")),
            }
        }
    }
    program.push(step(ANSWER, libc::SECCOMP_RET_ALLOW, 0, 0));
    Ok(program)
}

/// The number of a system call of the profiles that `ropewalk_kubelet::seccomp` makes; `None` on machines without it.
fn number(name: &str) -> Option<u32> {
    macro_rules! numbers {
        ($($name:ident => $number:ident,)*) => {
            match name { $(stringify!($name) => libc::$number,)* _ => old(name)? }
        };
    }
    let number = numbers! {
        acct => SYS_acct,
        add_key => SYS_add_key,
        bpf => SYS_bpf,
        chroot => SYS_chroot,
        clock_settime => SYS_clock_settime,
        clone => SYS_clone,
        clone3 => SYS_clone3,
        delete_module => SYS_delete_module,
        fanotify_init => SYS_fanotify_init,
        finit_module => SYS_finit_module,
        fsconfig => SYS_fsconfig,
        fsmount => SYS_fsmount,
        fsopen => SYS_fsopen,
        fspick => SYS_fspick,
        get_mempolicy => SYS_get_mempolicy,
        init_module => SYS_init_module,
        io_uring_enter => SYS_io_uring_enter,
        io_uring_register => SYS_io_uring_register,
        io_uring_setup => SYS_io_uring_setup,
        kcmp => SYS_kcmp,
        kexec_file_load => SYS_kexec_file_load,
        kexec_load => SYS_kexec_load,
        keyctl => SYS_keyctl,
        lookup_dcookie => SYS_lookup_dcookie,
        mbind => SYS_mbind,
        migrate_pages => SYS_migrate_pages,
        mount => SYS_mount,
        mount_setattr => SYS_mount_setattr,
        move_mount => SYS_move_mount,
        move_pages => SYS_move_pages,
        open_by_handle_at => SYS_open_by_handle_at,
        open_tree => SYS_open_tree,
        perf_event_open => SYS_perf_event_open,
        pidfd_getfd => SYS_pidfd_getfd,
        pivot_root => SYS_pivot_root,
        process_madvise => SYS_process_madvise,
        quotactl => SYS_quotactl,
        quotactl_fd => SYS_quotactl_fd,
        reboot => SYS_reboot,
        request_key => SYS_request_key,
        set_mempolicy => SYS_set_mempolicy,
        set_mempolicy_home_node => SYS_set_mempolicy_home_node,
        setdomainname => SYS_setdomainname,
        sethostname => SYS_sethostname,
        setns => SYS_setns,
        settimeofday => SYS_settimeofday,
        socket => SYS_socket,
        swapoff => SYS_swapoff,
        swapon => SYS_swapon,
        syslog => SYS_syslog,
        umount2 => SYS_umount2,
        unshare => SYS_unshare,
        userfaultfd => SYS_userfaultfd,
        vhangup => SYS_vhangup,
    };
    u32::try_from(number).ok()
}

/// System calls that only machines with a long past have.
#[cfg(target_arch = "x86_64")]
fn old(name: &str) -> Option<libc::c_long> {
    Some(match name {
        "ioperm" => libc::SYS_ioperm,
        "iopl" => libc::SYS_iopl,
        "sysfs" => libc::SYS_sysfs,
        "uselib" => libc::SYS_uselib,
        "ustat" => libc::SYS_ustat,
        _ => return None,
    })
}

#[cfg(not(target_arch = "x86_64"))]
fn old(_: &str) -> Option<libc::c_long> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel would answer: the filter, run on a system call.
    fn answer(program: &[sock_filter], machine: u32, number: u32, first: u64) -> u32 {
        let (mut at, mut word) = (0, 0);
        loop {
            let step = program[at];
            at += 1;
            match u32::from(step.code) {
                LOAD => {
                    word = match step.k {
                        NUMBER => number,
                        MACHINE => machine,
                        ARGUMENTS => u32::try_from(first & 0xffff_ffff).expect("a half"),
                        other => panic!("nothing is read at {other}"),
                    }
                }
                ANSWER => return step.k,
                code => {
                    let holds = match code {
                        EQUAL => word == step.k,
                        GREATER => word > step.k,
                        ANY_BIT => word & step.k != 0,
                        other => panic!("no such step: {other}"),
                    };
                    at += usize::from(if holds { step.jt } else { step.jf });
                }
            }
        }
    }

    fn of(capabilities: &[&str]) -> Vec<sock_filter> {
        let capabilities = capabilities.iter().map(|&name| name.to_owned()).collect();
        filter(&ropewalk_kubelet::seccomp::profile(&capabilities).expect("a profile")).expect("a filter")
    }

    #[test]
    fn every_call_of_the_profile_is_known_here() {
        let profile =
            ropewalk_kubelet::seccomp::profile(&std::collections::BTreeSet::new()).expect("a profile");
        for name in profile.syscalls().iter().flatten().flat_map(|call| call.names().clone()) {
            assert!(number(&name).is_some() || cfg!(not(target_arch = "x86_64")), "{name}");
        }
    }

    #[test]
    fn calls_are_answered() {
        let errno = |number: i32| libc::SECCOMP_RET_ERRNO | u32::try_from(number).expect("fits");
        let call = |name: &str| number(name).expect("known");
        let (plain, admin) = (of(&[]), of(&["SYS_ADMIN"]));
        let write = u32::try_from(libc::SYS_write).expect("fits");
        for (program, number, first, expected) in [
            (&plain, write, 1, libc::SECCOMP_RET_ALLOW),
            (&plain, call("mount"), 0, errno(libc::EPERM)),
            (&admin, call("mount"), 0, libc::SECCOMP_RET_ALLOW),
            (&admin, call("keyctl"), 0, errno(libc::EPERM)),
            (&plain, call("clone"), 17, libc::SECCOMP_RET_ALLOW),
            (&plain, call("clone"), 0x1000_0011, errno(libc::EPERM)),
            (&admin, call("clone"), 0x1000_0011, libc::SECCOMP_RET_ALLOW),
            (&plain, call("clone3"), 0, errno(libc::ENOSYS)),
            (&plain, call("socket"), 2, libc::SECCOMP_RET_ALLOW),
            (&plain, call("socket"), 40, errno(libc::EPERM)),
            (&plain, NEWEST, 0, libc::SECCOMP_RET_ALLOW),
            (&plain, NEWEST + 1, 0, errno(libc::ENOSYS)),
            // x32: the numbers of another machine on this one.
            (&plain, 0x4000_0000 | call("mount"), 0, errno(libc::ENOSYS)),
        ] {
            assert_eq!(answer(program, ARCHITECTURE, number, first), expected, "{number} {first:x}");
        }
        assert_eq!(answer(&plain, 0x4000_0003, 4, 0), errno(libc::ENOSYS), "a 32-bit program");
    }
}
