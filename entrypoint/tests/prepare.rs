//! The real binary as the pod's init container.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use ropewalk_entrypoint_protocol::flags::{PrepareFlags, Script};
use rstest::rstest;
use support::{Ended, Pod, TestResult, end, entrypoint, run};

fn prepare(flags: &PrepareFlags) -> std::io::Result<Ended> {
    end(entrypoint().args(flags.render()).spawn()?)
}

fn flags(pod: &Pod) -> PrepareFlags {
    PrepareFlags {
        root: Some(pod.text("")),
        workspace: Some(pod.text("workspace")),
        ..PrepareFlags::default()
    }
}

fn mode(path: PathBuf) -> std::io::Result<u32> {
    Ok(fs::metadata(path)?.permissions().mode() & 0o7777)
}

#[test]
fn everything_asked_for_is_in_place_however_often() -> TestResult {
    let pod = Pod::new()?;
    let content = "#!/bin/sh\necho \"$(params.x)\" < in > out\n";
    let mut flags = flags(&pod);
    flags.copy_to = Some(pod.text("entrypoint"));
    flags.steps = vec!["step-build".into(), "step-unnamed-1".into()];
    flags.scripts = vec![Script { path: pod.text("scripts/script-0"), content: content.into() }];
    flags.working_dirs = vec!["src/a".into(), pod.text("workspace/b"), pod.text("elsewhere")];
    for _ in 0..2 {
        let ended = prepare(&flags)?;
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
        assert_eq!(mode(pod.path("entrypoint"))?, 0o311);
        for (link, index) in [("step-build", 0), ("0", 0), ("step-unnamed-1", 1), ("1", 1)] {
            let target = fs::read_link(pod.path(&format!("steps/{link}")))?;
            assert_eq!(target, pod.path(&format!("run/{index}/status")));
        }
        assert_eq!(pod.read("scripts/script-0").as_deref(), Some(content));
        assert_eq!(mode(pod.path("scripts/script-0"))?, 0o755);
        assert!(pod.path("workspace/src/a").is_dir());
        assert!(pod.path("workspace/b").is_dir());
        assert!(!pod.path("elsewhere").exists());
    }
    Ok(())
}

#[test]
fn the_copy_runs_a_step_whose_files_the_links_lead_to() -> TestResult {
    let pod = Pod::new()?;
    let mut flags = flags(&pod);
    flags.copy_to = Some(pod.text("entrypoint"));
    flags.steps = vec!["step-a".into()];
    assert_eq!(prepare(&flags)?.code, Some(0));
    let first = pod.shell(0, &format!("printf v > {}", pod.text("steps/step-a/results/r")));
    let copy = std::process::Command::new(pod.path("entrypoint")).args(first.render()).status()?;
    assert_eq!(copy.code(), Some(0));
    assert_eq!(run(&pod.step(1, &["echo", "$(steps.a.results.r)"]))?.stdout, "v\n");
    Ok(())
}

#[rstest]
#[case("other/script-0")]
#[case("scripts/../other/script-0")]
#[case("scripts/deep/script-0")]
#[case("scripts/..")]
fn a_script_goes_nowhere_but_to_the_scripts(#[case] path: &str) -> TestResult {
    let pod = Pod::new()?;
    fs::create_dir_all(pod.path("other"))?;
    fs::create_dir_all(pod.path("scripts/deep"))?;
    let mut flags = flags(&pod);
    flags.scripts = vec![Script { path: pod.text(path), content: String::new() }];
    let ended = prepare(&flags)?;
    assert_eq!(ended.code, Some(1));
    let expected = format!("entrypoint: script {:?} is not directly in ", pod.text(path));
    assert!(ended.stderr.starts_with(&expected), "{ended:?}");
    assert!(!pod.path(path).is_file());
    Ok(())
}

#[rstest]
#[case("")]
#[case("..")]
#[case("../x")]
#[case("/x")]
fn a_step_name_is_no_path(#[case] name: &str) -> TestResult {
    let pod = Pod::new()?;
    let mut flags = flags(&pod);
    flags.steps = vec![name.into()];
    let ended = prepare(&flags)?;
    assert_eq!(ended.code, Some(1));
    assert_eq!(ended.stderr, format!("entrypoint: {name:?} is no step container's name\n"));
    Ok(())
}

/// A user who owns nothing here, as the images of a cluster have it.
const NOBODY: u32 = 65_532;

#[test]
fn a_working_directory_only_root_could_make_is_left_to_the_runtime() -> TestResult {
    if !support::is_root() {
        return Ok(());
    }
    let pod = Pod::new()?;
    for dir in ["", "scripts", "steps"] {
        fs::set_permissions(pod.path(dir), fs::Permissions::from_mode(0o777))?;
    }
    fs::create_dir_all(pod.path("workspace/mine"))?;
    let mut flags = flags(&pod);
    flags.copy_to = Some(pod.text("entrypoint"));
    flags.steps = vec!["step-a".into()];
    flags.scripts = vec![Script { path: pod.text("scripts/script-0"), content: "#!/bin/sh\n".into() }];
    flags.working_dirs = vec!["mine/src".into()];
    let ended = end(pod.as_user(NOBODY)?.args(flags.render()).spawn()?)?;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stderr.contains("leaving working directory"), "{ended:?}");
    assert!(!pod.path("workspace/mine/src").exists());
    assert_eq!(mode(pod.path("scripts/script-0"))?, 0o755);
    assert_eq!(mode(pod.path("entrypoint"))?, 0o311);
    Ok(())
}

#[test]
fn a_working_directory_is_for_every_user_of_the_pod() -> TestResult {
    let pod = Pod::new()?;
    fs::create_dir_all(pod.path("workspace/there"))?;
    fs::set_permissions(pod.path("workspace/there"), fs::Permissions::from_mode(0o700))?;
    let mut flags = flags(&pod);
    flags.working_dirs = vec!["src/a".into(), "there/b".into()];
    assert_eq!(prepare(&flags)?.code, Some(0));
    for (dir, expected) in [("src", 0o777), ("src/a", 0o777), ("there", 0o700), ("there/b", 0o777)] {
        assert_eq!(mode(pod.path(&format!("workspace/{dir}")))?, expected, "{dir}");
    }
    Ok(())
}
