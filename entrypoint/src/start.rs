//! The program's start, in place of the standard library's. That one guards stacks against overflow, and with it comes
//! what the C library has to read text and floating point numbers: a tenth of the binary. The rest of what it does is done
//! here. IO: standard streams and signals of this process.

use std::ffi::c_int;
use std::fs::File;
use std::os::fd::{AsRawFd, IntoRawFd};

use nix::sys::signal::{SigHandler, Signal, signal};

/// What the C library calls.
#[allow(unsafe_code, reason = "the symbol is the C library's to call, and set only here")]
#[unsafe(no_mangle)]
extern "C" fn main() -> c_int {
    open_streams();
    ignore_broken_pipes();
    crate::run().into()
}

/// A closed standard stream would be the next file that is opened, and that would be written into.
fn open_streams() {
    while let Ok(file) = File::options().read(true).write(true).open("/dev/null") {
        if file.as_raw_fd() > 2 {
            return;
        }
        let _kept = file.into_raw_fd();
    }
}

/// Whoever stops reading a step's log ends no step.
#[allow(unsafe_code, reason = "a handler could do anything; none is set")]
fn ignore_broken_pipes() {
    // SAFETY: no handler runs when a signal is ignored. It fails for numbers that are no signal's only.
    let _ = unsafe { signal(Signal::SIGPIPE, SigHandler::SigIgn) };
}
