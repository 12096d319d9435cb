//! Images of many shapes, unpacked as `umoci` unpacks them; and archives that must not be unpacked at all.

mod archive;
mod fuzzed;
mod hostile;
mod images;
mod load;
mod store;
mod tree;

/// Files have owners, and only root may give them away.
fn lacks_root() -> bool {
    skip(!rustix::process::geteuid().is_root(), "root")
}

/// Says so when something is lacking; the gate lacks nothing.
#[expect(clippy::print_stderr, reason = "a skipped test says so loudly")]
fn skip(is_lacking: bool, what: &str) -> bool {
    if is_lacking {
        eprintln!("SKIPPED: unpacking layers, which needs {what}");
        assert!(std::env::var_os("ROPEWALK_REQUIRE_TOOLS").is_none(), "the gate needs {what}");
    }
    is_lacking
}
