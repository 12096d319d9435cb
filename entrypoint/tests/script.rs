//! The real binary as a sidecar's command, and as what stops one.

mod support;

use nix::sys::signal::Signal;
use ropewalk_entrypoint_protocol::flags::{NOP, Script, ScriptFlags};
use support::{Ended, Pod, TestResult, end, entrypoint};

fn run(pod: &Pod, content: &str) -> std::io::Result<Ended> {
    let script = Script { path: pod.text("scripts/sidecar-script-0"), content: content.into() };
    let flags = ScriptFlags { script, root: Some(pod.text("")), args: vec!["a b".into()] };
    end(entrypoint().args(flags.render()).spawn()?)
}

#[test]
fn the_script_takes_the_process_over() -> TestResult {
    let pod = Pod::new()?;
    let ended = run(&pod, "#!/bin/sh\necho \"$0 $# $1\"; grep SigIgn /proc/$$/status; exit 7\n")?;
    assert_eq!(ended.code, Some(7));
    let (said, ignored) = ended.stdout.split_once("SigIgn:").ok_or("no mask")?;
    assert_eq!(said, format!("{} 1 a b\n", pod.text("scripts/sidecar-script-0")));
    let sigpipe = 1 << (Signal::SIGPIPE as u64 - 1);
    assert_eq!(
        u64::from_str_radix(ignored.trim(), 16)? & sigpipe,
        0,
        "Rust ignores it, and scripts rely on it"
    );
    Ok(())
}

#[test]
fn a_missing_interpreter_is_named() -> TestResult {
    let ended = run(&Pod::new()?, "#!/no/such/shell\n")?;
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("needs the interpreter \"/no/such/shell\""), "{ended:?}");
    Ok(())
}

#[test]
fn nop_ends_at_once() -> TestResult {
    let ended = end(entrypoint().arg(NOP).spawn()?)?;
    assert_eq!((ended.code, ended.stdout.as_str(), ended.stderr.as_str()), (Some(0), "", ""));
    Ok(())
}
