//! Which devices a container reaches: by a program of a few steps at its cgroup of version 2, which the kernel asks about each
//! device node that is opened, wherever that was made. IO: the kernel.

use std::fs::{self, File};
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::libc;

/// Major and minor numbers of the devices that every container may use, as container engines have it: null, zero, full,
/// random and urandom; tty, console and ptmx; and, whichever they are, those of pts.
const OPEN: [(i32, Option<i32>); 9] = [
    (1, Some(3)),
    (1, Some(5)),
    (1, Some(7)),
    (1, Some(8)),
    (1, Some(9)),
    (5, Some(0)),
    (5, Some(1)),
    (5, Some(2)),
    (136, None),
];

/// The directory, below that of all containers, in which is tried what the kernel can do.
const TRIAL: &str = "trial";

/// Commands of bpf(2), and what they are about.
const LOAD: libc::c_long = 5;
const ATTACH: libc::c_long = 8;
const CGROUP_DEVICE_PROGRAM: u32 = 15;
const CGROUP_DEVICE: u32 = 6;
/// Others may have programs there, too, and each has to allow.
const ALLOW_MULTI: u32 = 2;

/// Codes of steps: load a word from the context, copy, compare and jump, return.
const LOAD_WORD: u8 = 0x61;
const COPY: u8 = 0xbf;
const SET: u8 = 0xb7;
const SHIFT_RIGHT: u8 = 0x74;
const AND: u8 = 0x54;
const JUMP_IF_EQUAL: u8 = 0x15;
const JUMP_UNLESS_EQUAL: u8 = 0x55;
const RETURN: u8 = 0x95;

/// Bits of what is asked for, in the upper half of the context's first word; the lower one is the kind.
const READ_OR_WRITE: i32 = 2 | 4;
const CHARACTER_DEVICE: i32 = 2;

/// One step, as the kernel has them.
#[repr(C)]
#[derive(Clone, Copy)]
struct Step {
    code: u8,
    /// The one that is written in the lower half, the one that is read in the upper one.
    registers: u8,
    offset: i16,
    value: i32,
}

/// Whether the kernel closes devices to cgroups below this one.
pub(super) fn works(parent: &Path) -> bool {
    let trial = parent.join(TRIAL);
    let tried = fs::create_dir(&trial).and_then(|()| close(&trial));
    // There where that failed after it was made.
    let _ = fs::remove_dir(&trial);
    if let Err(error) = &tried {
        tracing::debug!(%error, "the kernel does not close devices to cgroups");
    }
    tried.is_ok()
}

/// Whether a directory is a cgroup of the version that has such programs.
pub(super) fn fits(cgroup: &Path) -> bool {
    cgroup.join("cgroup.controllers").exists()
}

/// Closes all devices but those that every container has to what is in a cgroup, for good.
pub(super) fn close(cgroup: &Path) -> io::Result<()> {
    let (program, cgroup) = (load(&program())?, File::open(cgroup)?);
    let attributes = [descriptor(&cgroup), descriptor(&program), CGROUP_DEVICE, ALLOW_MULTI];
    call(ATTACH, &attributes).map(drop)
}

/// Returns 1 for what is allowed and 0 for what is not. Nodes may be made of all devices: they open nothing.
fn program() -> Vec<Step> {
    let step = |code, written: u8, read: u8, offset, value| Step {
        code,
        registers: read << 4 | written,
        offset,
        value,
    };
    // To what allows: past two steps for each device that is left, and two that refuse. Jumps count from the next step.
    let to_the_end = |left: usize| i16::try_from(left * 2 + 2).unwrap_or(i16::MAX);
    let mut steps = vec![
        step(LOAD_WORD, 2, 1, 0, 0),
        step(COPY, 3, 2, 0, 0),
        step(SHIFT_RIGHT, 3, 0, 0, 16),
        step(AND, 3, 0, 0, READ_OR_WRITE),
        step(JUMP_IF_EQUAL, 3, 0, to_the_end(OPEN.len()) + 4, 0),
        step(AND, 2, 0, 0, 0xffff),
        // To what refuses, which is two before the end, as are the two steps that follow.
        step(JUMP_UNLESS_EQUAL, 2, 0, to_the_end(OPEN.len()), CHARACTER_DEVICE),
        step(LOAD_WORD, 4, 1, 4, 0),
        step(LOAD_WORD, 5, 1, 8, 0),
    ];
    for (at, (major, minor)) in OPEN.into_iter().enumerate() {
        let left = OPEN.len() - at - 1;
        steps.push(step(JUMP_UNLESS_EQUAL, 4, 0, 1, major));
        steps.push(match minor {
            Some(minor) => step(JUMP_IF_EQUAL, 5, 0, to_the_end(left), minor),
            // It is one of them already.
            None => step(JUMP_IF_EQUAL, 4, 0, to_the_end(left), major),
        });
    }
    let answer = |value| [step(SET, 0, 0, 0, value), step(RETURN, 0, 0, 0, 0)];
    steps.extend(answer(0).into_iter().chain(answer(1)));
    steps
}

/// What the kernel is told of a program.
#[repr(C)]
struct Program {
    kind: u32,
    length: u32,
    steps: u64,
    license: u64,
}

#[allow(unsafe_code, reason = "the kernel makes the descriptor")]
fn load(steps: &[Step]) -> io::Result<OwnedFd> {
    let attributes = Program {
        kind: CGROUP_DEVICE_PROGRAM,
        length: u32::try_from(steps.len()).map_err(io::Error::other)?,
        steps: steps.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
    };
    let made = i32::try_from(call(LOAD, &attributes)?).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made it for this call, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(made) })
}

fn descriptor(of: &impl AsRawFd) -> u32 {
    // None that is open is negative.
    of.as_raw_fd().unsigned_abs()
}

#[allow(unsafe_code, reason = "no crate makes this call but those that bring a compiler's output along")]
fn call<T>(command: libc::c_long, attributes: &T) -> io::Result<libc::c_long> {
    // SAFETY: the kernel reads as many bytes as it is told, of a value that outlives the call, and through the addresses in
    // it what its callers keep as long.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
    Ok(Errno::result(result)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the program as the kernel does, of which the verifier has seen no more than that it ends.
    fn asked(access: u32, kind: u32, major: u32, minor: u32) -> u64 {
        let context = [access << 16 | kind, major, minor];
        let (steps, mut registers, mut at) = (program(), [0_u64; 6], 0_usize);
        loop {
            let Step { code, registers: both, offset, value } = steps[at];
            let (written, read) = (usize::from(both & 15), usize::from(both >> 4));
            at += 1;
            let jump = |taken: bool| if taken { usize::try_from(offset).expect("forward") } else { 0 };
            let number = u64::from(value.unsigned_abs());
            match code {
                LOAD_WORD => {
                    registers[written] = context[usize::try_from(offset).expect("forward") / 4].into();
                }
                COPY => registers[written] = registers[read],
                SET => registers[written] = number,
                SHIFT_RIGHT => registers[written] >>= number,
                AND => registers[written] &= number,
                JUMP_IF_EQUAL => at += jump(registers[written] == number),
                JUMP_UNLESS_EQUAL => at += jump(registers[written] != number),
                RETURN => return registers[0],
                code => panic!("{code:x}"),
            }
        }
    }

    #[test]
    fn only_what_every_container_has_is_opened() {
        let (make, read, write) = (1, 2, 4);
        let (block, character) = (1, 2);
        for (major, minor) in
            [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2), (136, 0), (136, 77)]
        {
            for access in [make, read, write, read | write, make | read | write] {
                assert_eq!(asked(access, character, major, minor), 1, "{major}:{minor}");
                let made = u64::from(access == make);
                assert_eq!(
                    asked(access, block, major, minor),
                    made,
                    "a disk of the same numbers, {major}:{minor}"
                );
            }
        }
        for (major, minor) in
            [(1, 1), (1, 2), (1, 4), (1, 11), (5, 3), (8, 0), (10, 200), (10, 229), (3, 1), (254, 0)]
        {
            for kind in [block, character] {
                assert_eq!(asked(make, kind, major, minor), 1, "a node opens nothing");
                for access in [read, write, read | write, make | read] {
                    assert_eq!(asked(access, kind, major, minor), 0, "{major}:{minor}");
                }
            }
        }
    }
}
