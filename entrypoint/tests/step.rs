//! The real binary as a step: each test states what the controller, the next step and the user see.

mod support;

use std::error::Error;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ropewalk_entrypoint_protocol::duration::GoDuration;
use ropewalk_entrypoint_protocol::flags::{OnError, Script};
use ropewalk_entrypoint_protocol::termination::RunResult;
use ropewalk_entrypoint_protocol::when::WhenExpression;
use rstest::rstest;
use support::{Pod, TestResult, end, entrypoint, run, spawn, until, until_waiting};

fn signal(pid: u32, signal: Signal) -> TestResult {
    Ok(kill(Pid::from_raw(i32::try_from(pid)?), signal)?)
}

fn guard(input: &str, operator: &str, value: &str) -> WhenExpression {
    WhenExpression {
        input: input.into(),
        operator: operator.into(),
        values: vec![value.into()],
        cel: String::new(),
    }
}

#[test]
fn the_second_step_runs_after_the_first() -> TestResult {
    let pod = Pod::new()?;
    let log = pod.text("log");
    let second = spawn(&pod.shell(1, &format!("echo second >> {log}")))?;
    until_waiting(&pod, 1, &second)?;
    let first = run(&pod.shell(0, &format!("echo first >> {log}")))?;
    assert_eq!(first.code, Some(0), "{first:?}");
    assert_eq!(end(second)?.code, Some(0));
    assert_eq!(pod.read("log").as_deref(), Some("first\nsecond\n"));
    assert_eq!(pod.read("run/0/status/exitCode").as_deref(), Some("0"));
    assert_eq!(pod.read("run/1/out").as_deref(), Some(""));
    assert!(pod.path("run/0/status/results").is_dir());
    assert!(pod.path("run/0/status/artifacts").is_dir());
    Ok(())
}

#[test]
fn the_start_time_is_when_the_turn_came() -> TestResult {
    let pod = Pod::new()?;
    let second = spawn(&pod.shell(1, "true"))?;
    until_waiting(&pod, 1, &second)?;
    run(&pod.shell(0, "true"))?;
    end(second)?;
    let started: Vec<_> =
        [pod.message(0)?, pod.message(1)?].into_iter().filter_map(|m| m.started_at).collect();
    assert_eq!(started.len(), 2);
    assert!(started[0] <= started[1], "{started:?}");
    assert!(started.iter().all(|time| time.len() == "2006-01-02T15:04:05.000Z".len()), "{started:?}");
    Ok(())
}

#[test]
fn a_wait_file_can_be_asked_to_have_content() -> TestResult {
    let pod = Pod::new()?;
    pod.write("downward/ready", "")?;
    let mut flags = pod.step(0, &["cat", &pod.text("downward/ready")]);
    flags.wait_files = vec![pod.text("downward/ready")];
    flags.wait_file_content = true;
    let step = spawn(&flags)?;
    until_waiting(&pod, 0, &step)?;
    // As a kubelet does it: the new file takes the old one's place in one move.
    pod.write("downward/ready.new", "READY")?;
    fs::rename(pod.path("downward/ready.new"), pod.path("downward/ready"))?;
    assert_eq!(end(step)?.stdout, "READY");
    Ok(())
}

#[test]
fn a_wait_directory_may_appear_late() -> TestResult {
    let pod = Pod::new()?;
    let mut flags = pod.shell(0, "echo ran");
    flags.wait_files = vec![pod.text("late/ready")];
    let step = spawn(&flags)?;
    until_waiting(&pod, 0, &step)?;
    pod.write("late/ready", "")?;
    assert_eq!(end(step)?.stdout, "ran\n");
    Ok(())
}

#[test]
fn what_woke_the_step_is_given_back_while_the_command_runs() -> TestResult {
    let pod = Pod::new()?;
    let step = spawn(&pod.shell(1, &format!("while [ ! -e {} ]; do sleep 0.01; done", pod.text("go"))))?;
    until_waiting(&pod, 1, &step)?;
    let watches = || -> usize {
        let open = fs::read_dir(format!("/proc/{}/fd", step.id())).into_iter().flatten().flatten();
        open.filter(|fd| fs::read_link(fd.path()).is_ok_and(|to| to.ends_with("anon_inode:inotify"))).count()
    };
    assert_eq!(watches(), 1);
    pod.write("run/0/out", "")?;
    until("inotify to be closed", || watches() == 0)?;
    pod.write("go", "")?;
    assert_eq!(end(step)?.code, Some(0));
    Ok(())
}

#[test]
fn after_a_failed_step_the_next_is_skipped_and_says_so() -> TestResult {
    let pod = Pod::new()?;
    let second = {
        let mut flags = pod.shell(1, "echo ran");
        flags.results = Some(vec!["r".into()]);
        spawn(&flags)?
    };
    until_waiting(&pod, 1, &second)?;
    pod.write("results/r", "v")?;
    let mut flags = pod.shell(0, "exit 3");
    flags.results = Some(vec!["r".into()]);
    assert_eq!(run(&flags)?.code, Some(3));
    assert_eq!(pod.read("run/0/out"), None);
    assert_eq!(pod.read("run/0/status/exitCode"), None);
    assert_eq!(pod.message(0)?.results, [RunResult::task("r", "v")]);

    let second = end(second)?;
    assert_eq!((second.code, second.stdout.as_str()), (Some(1), ""));
    assert_eq!(second.stderr, "entrypoint: skipping this step because an earlier step failed\n");
    assert_eq!(pod.read("run/1/out.err").as_deref(), Some(""));
    assert_eq!(pod.read("run/1/status/exitCode"), None);
    let message = pod.message(1)?;
    assert_eq!(message.reason.as_deref(), Some("Skipped"));
    assert_eq!(message.results, []);
    assert!(message.started_at.is_some());
    Ok(())
}

#[rstest]
#[case::exit("exit 3", "3")]
#[case::signal("kill -KILL $$", "-1")]
fn an_ignored_failure_is_recorded_and_releases_the_next_step(
    #[case] script: &str,
    #[case] code: &str,
) -> TestResult {
    let pod = Pod::new()?;
    let mut flags = pod.shell(0, script);
    flags.on_error = Some(OnError::Continue);
    assert_eq!(run(&flags)?.code, Some(0));
    assert_eq!(pod.read("run/0/status/exitCode").as_deref(), Some(code));
    assert_eq!(pod.read("run/0/out").as_deref(), Some(""));
    assert_eq!(pod.message(0)?.exit_code.map(|c| c.to_string()).as_deref(), Some(code));
    Ok(())
}

#[test]
fn a_command_killed_by_a_signal_exits_255() -> TestResult {
    let pod = Pod::new()?;
    assert_eq!(run(&pod.shell(0, "kill -KILL $$"))?.code, Some(255));
    assert_eq!(pod.read("run/0/out.err").as_deref(), Some(""));
    Ok(())
}

#[test]
fn the_timeout_kills_the_whole_group() -> TestResult {
    let pod = Pod::new()?;
    let mut flags = pod.shell(0, "sleep 1000 & wait");
    flags.timeout = Some(GoDuration(200_000_000));
    flags.on_error = Some(OnError::Continue);
    // Returns only once every holder of the output is gone, the background process included.
    let ended = run(&flags)?;
    assert_eq!(ended.code, Some(1));
    assert_eq!(
        ended.stderr,
        "entrypoint: command \"sh\" was stopped: it ran longer than the step's timeout\n"
    );
    assert_eq!(pod.read("run/0/out.err").as_deref(), Some(""));
    assert_eq!(pod.read("run/0/status/exitCode"), None);
    assert_eq!(pod.message(0)?.reason.as_deref(), Some("TimeoutExceeded"));
    Ok(())
}

#[test]
fn a_timeout_of_zero_is_none() -> TestResult {
    let pod = Pod::new()?;
    let mut flags = pod.shell(0, "sleep 0.05");
    flags.timeout = Some(GoDuration::ZERO);
    assert_eq!(run(&flags)?.code, Some(0));
    Ok(())
}

#[rstest]
#[case(Signal::SIGTERM, "TERM")]
#[case(Signal::SIGHUP, "HUP")]
#[case(Signal::SIGUSR1, "USR1")]
fn signals_reach_the_command(#[case] sent: Signal, #[case] name: &str) -> TestResult {
    let pod = Pod::new()?;
    let ready = pod.text("ready");
    // No background process: one forked but not yet executed would swallow the signal.
    let script = format!("trap 'echo got {name}; exit 7' {name}; : > {ready}; while :; do sleep 0.01; done");
    let step = spawn(&pod.shell(0, &script))?;
    until("the trap to be set", || pod.path("ready").exists())?;
    signal(step.id(), sent)?;
    let ended = end(step)?;
    assert_eq!((ended.code, ended.stdout), (Some(7), format!("got {name}\n")));
    Ok(())
}

/// As behind `nohup`, or in the background of a script: a shell may not trap what it was started to ignore.
#[test]
fn what_our_starter_ignores_reaches_the_command() -> TestResult {
    let pod = Pod::new()?;
    let script = "trap 'echo got HUP' HUP; trap 'echo got INT' INT; kill -HUP $$; kill -INT $$";
    let mut starter = Command::new("sh");
    starter.args(["-c", "trap '' HUP INT QUIT; exec \"$@\"", "sh"]);
    starter.arg(entrypoint().get_program()).args(pod.shell(0, script).render());
    let ended = end(starter.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?)?;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), "got HUP\ngot INT\n"), "{}", ended.stderr);
    Ok(())
}

#[test]
fn the_command_leads_a_group_of_its_own() -> TestResult {
    let pod = Pod::new()?;
    let ended = run(&pod.shell(0, "echo $$; cut -d' ' -f5 /proc/$$/stat"))?;
    let lines: Vec<_> = ended.stdout.lines().collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0], lines[1]);
    Ok(())
}

#[test]
fn a_waiting_step_ends_when_asked_to() -> TestResult {
    let pod = Pod::new()?;
    let step = spawn(&pod.shell(1, "echo ran"))?;
    until_waiting(&pod, 1, &step)?;
    signal(step.id(), Signal::SIGTERM)?;
    let ended = end(step)?;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(128 + 15), ""));
    Ok(())
}

#[rstest]
#[case::plain("abc")]
#[case::newline("abc\n")]
#[case::quotes("\"abc\"")]
#[case::array("[\"a\",\"b\"]\n")]
#[case::markup("<a href=\"x\">&</a>")]
#[case::empty("")]
fn results_are_kept_byte_for_byte(#[case] content: &str) -> TestResult {
    let pod = Pod::new()?;
    pod.write("results/r", content)?;
    pod.write("run/0/status/results/s", content)?;
    let mut flags = pod.shell(0, "true");
    flags.results = Some(vec!["missing".into(), "r".into()]);
    flags.step_results = vec!["s".into()];
    assert_eq!(run(&flags)?.code, Some(0));
    assert_eq!(pod.message(0)?.results, [RunResult::task("r", content), RunResult::step("s", content)]);
    Ok(())
}

#[test]
fn the_message_keeps_what_was_in_it() -> TestResult {
    let pod = Pod::new()?;
    pod.write("termination-0", r#"[{"key":"a","value":"1","type":1}]"#)?;
    pod.write("results/b", "2")?;
    let mut flags = pod.shell(0, "true");
    flags.results = Some(vec!["b".into()]);
    run(&flags)?;
    assert_eq!(pod.message(0)?.results, [RunResult::task("a", "1"), RunResult::task("b", "2")]);
    Ok(())
}

const TOO_LARGE: &str = "Termination message is above max allowed size 4096, caused by large task result.";

/// Bytes around the value of a message with one result of a one-letter name.
const AROUND: usize = 33;

#[test]
fn an_oversize_result_fails_the_step_but_the_next_one_runs() -> TestResult {
    let pod = Pod::new()?;
    pod.write("results/r", &"x".repeat(4096 - AROUND + 1))?;
    let mut flags = pod.shell(0, "true");
    flags.results = Some(vec!["r".into()]);
    flags.on_error = Some(OnError::Continue);
    let ended = run(&flags)?;
    assert_eq!(ended.code, Some(1));
    assert_eq!(ended.stderr, format!("entrypoint: {TOO_LARGE}\n"));
    assert_eq!(pod.read("run/0/out").as_deref(), Some(""));
    let message = pod.message(0)?;
    assert_eq!(message.results, []);
    assert!(message.started_at.is_some());
    assert_eq!(message.failure.as_deref(), Some(TOO_LARGE));
    Ok(())
}

#[test]
fn a_result_that_leaves_no_room_for_the_start_time_is_kept_and_fails_the_step() -> TestResult {
    let pod = Pod::new()?;
    let value = "x".repeat(4096 - AROUND);
    pod.write("results/r", &value)?;
    let mut flags = pod.shell(0, "true");
    flags.results = Some(vec!["r".into()]);
    let ended = run(&flags)?;
    assert_eq!(ended.code, Some(1));
    assert!(!ended.stderr.contains(TOO_LARGE) && ended.stderr.contains("no room"), "{ended:?}");
    assert_eq!(pod.message(0)?.results, [RunResult::task("r", value)]);
    Ok(())
}

#[test]
fn a_guard_that_does_not_hold_skips_the_step() -> TestResult {
    let pod = Pod::new()?;
    pod.write("results/r", "v")?;
    let mut flags = pod.shell(0, "echo ran");
    flags.results = Some(vec!["r".into()]);
    flags.when_expressions = vec![guard("a", "in", "a"), guard("a", "notin", "a")];
    let ended = run(&flags)?;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), ""));
    assert_eq!(pod.read("run/0/status/exitCode").as_deref(), Some("0"));
    assert_eq!(pod.read("run/0/out").as_deref(), Some(""));
    let message = pod.message(0)?;
    assert_eq!((message.reason.as_deref(), message.results.as_slice()), (Some("Skipped"), [].as_slice()));
    Ok(())
}

#[test]
fn a_guard_in_cel_is_refused_by_name() -> TestResult {
    let pod = Pod::new()?;
    let mut flags = pod.shell(0, "echo ran");
    flags.when_expressions = vec![WhenExpression { cel: "true".into(), ..WhenExpression::default() }];
    let ended = run(&flags)?;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""));
    assert!(ended.stderr.contains("CEL"), "{ended:?}");
    assert_eq!(pod.read("run/0/out.err").as_deref(), Some(""));
    Ok(())
}

#[test]
fn step_results_are_filled_in_everywhere() -> TestResult {
    let pod = Pod::new()?;
    pod.write("steps/step-a/results/list", r#"["x","y z"]"#)?;
    pod.write("steps/step-a/results/name", "printf")?;
    let mut flags = pod.step(
        0,
        &["$(steps.a.results.name)", "%s|", "$(steps.a.results.list[*])", "<$(steps.a.results.list[1])>"],
    );
    flags.when_expressions = vec![guard("$(steps.a.results.list[0])", "in", "x")];
    let ended = run(&flags)?;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), "x|y z|<y z>|"), "{ended:?}");

    let flags = pod.shell(1, "printf %s \"$FILLED-$PLAIN\"");
    pod.write("run/0/out", "")?;
    let child = entrypoint()
        .args(flags.render())
        .env("FILLED", "$(steps.a.results.list[0])")
        .env("PLAIN", "$(x)")
        .spawn()?;
    assert_eq!(end(child)?.stdout, "x-$(x)");
    Ok(())
}

#[test]
fn without_the_result_the_step_runs_with_the_literal_text() -> TestResult {
    let pod = Pod::new()?;
    let ended = run(&pod.step(0, &["printf", "%s", "$(steps.a.results.none)"]))?;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), "$(steps.a.results.none)"));
    assert!(ended.stderr.contains("reading \"$(steps.a.results.none)\""), "{ended:?}");
    Ok(())
}

/// A command line that cannot start, and what the user must be told.
fn unstartable(pod: &Pod) -> Result<Vec<(String, String)>, Box<dyn Error>> {
    let bare = pod.script("bare", "#!/bin/sh\n")?;
    fs::set_permissions(&bare, fs::Permissions::from_mode(0o644))?;
    let lost = pod.script("lost", "#!/no/such/shell -e\n")?;
    let none = pod.text("scripts/none");
    let advice = "check its spelling and the step's image";
    Ok(vec![
        ("no-such-command".into(), "command \"no-such-command\" is not in PATH \"".into()),
        (none.clone(), format!("command \"{none}\" does not exist; {advice}")),
        (bare.clone(), format!("command \"{bare}\" is not executable: {bare}")),
        (lost.clone(), format!("command \"{lost}\" needs the interpreter \"/no/such/shell\", which is not")),
    ])
}

#[test]
fn a_command_that_cannot_start_is_named_in_log_and_message() -> TestResult {
    let pod = Pod::new()?;
    for (command, reason) in unstartable(&pod)? {
        let mut flags = pod.step(0, &[&command]);
        flags.on_error = Some(OnError::Continue);
        let ended = run(&flags)?;
        assert_eq!(ended.code, Some(1), "{ended:?}");
        let expected = format!("entrypoint: error executing command: {reason}");
        assert!(ended.stderr.starts_with(&expected), "{ended:?}");
        assert_eq!(ended.stderr.lines().count(), 1);
        let message = pod.message(0)?;
        assert!(message.failure.as_ref().is_some_and(|f| f.starts_with(&reason)), "{message:?}");
        assert!(message.started_at.is_some());
        assert_eq!(pod.read("run/0/out.err").as_deref(), Some(""));
        fs::remove_file(pod.path("run/0/out.err"))?;
        fs::remove_file(pod.path("termination-0"))?;
    }
    Ok(())
}

#[test]
fn the_shebang_decides_what_runs_a_script() -> TestResult {
    let pod = Pod::new()?;
    let script = pod.script("s", "#!/bin/cat\nhello\n")?;
    assert_eq!(run(&pod.step(0, &[&script]))?.stdout, "#!/bin/cat\nhello\n");
    Ok(())
}

#[test]
fn output_is_copied_to_files() -> TestResult {
    let pod = Pod::new()?;
    pod.write("out", "before\n")?;
    let mut flags = pod.shell(0, "echo a; echo b >&2; seq 100000; exit 3");
    flags.stdout_path = Some(pod.text("out"));
    flags.stderr_path = Some(pod.text("deep/err"));
    let ended = run(&flags)?;
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(3), "b\n"));
    assert_eq!(ended.stdout.lines().count(), 100_001);
    assert_eq!(pod.read("out"), Some(format!("before\n{}", ended.stdout)));
    assert_eq!(pod.read("deep/err").as_deref(), Some("b\n"));
    Ok(())
}

#[test]
fn both_streams_can_go_to_one_file() -> TestResult {
    let pod = Pod::new()?;
    let mut flags = pod.shell(0, "echo a; echo b >&2");
    flags.stdout_path = Some(pod.text("out"));
    flags.stderr_path = Some(pod.text("out"));
    let ended = run(&flags)?;
    assert_eq!((ended.stdout.as_str(), ended.stderr.as_str()), ("a\n", "b\n"));
    let mut lines: Vec<_> = pod.read("out").unwrap_or_default().lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["a", "b"]);
    Ok(())
}

#[test]
fn output_of_background_processes_does_not_hold_the_step() -> TestResult {
    let pod = Pod::new()?;
    let mut flags = pod.shell(0, "yes & exit 0");
    flags.stdout_path = Some(pod.text("out"));
    assert_eq!(run(&flags)?.code, Some(0));
    Ok(())
}

#[test]
fn the_image_decides_when_the_step_has_no_command() -> TestResult {
    let pod = Pod::new()?;
    let mut flags = pod.step(0, &[]);
    flags.args = vec!["b".into()];
    assert!(run(&flags)?.stderr.contains("the step has no command"));
    let commands = ["amd64", "arm64", "arm", "386", "ppc64le", "s390x", "riscv64"]
        .map(|arch| format!(r#""linux/{arch}":["echo","a"]"#))
        .join(",");
    let child = entrypoint()
        .args(flags.render())
        .env("TEKTON_PLATFORM_COMMANDS", format!("{{{commands}}}"))
        .spawn()?;
    assert_eq!(end(child)?.stdout, "a b\n");
    Ok(())
}

#[test]
fn a_bad_flag_is_named() -> TestResult {
    let ended = end(entrypoint().args(["-no_such_flag", "x"]).spawn()?)?;
    assert_eq!(ended.code, Some(1));
    assert_eq!(ended.stderr, "entrypoint: flag \"-no_such_flag\" is not known\n");
    Ok(())
}

#[test]
fn a_step_without_an_init_container_lays_out_what_it_needs() -> TestResult {
    let pod = Pod::new()?;
    // Beyond what the kernel takes as one argument.
    let padding = "#".repeat(300_000);
    let content =
        format!("#!/bin/sh\n{padding}\npwd; echo \"$0 $1 $(params.x)\"; ls {}\n", pod.text("steps"));
    let mut flags = pod.step(0, &[&pod.text("scripts/script-0"), "argument"]);
    flags.script = Some(Script { path: pod.text("scripts/script-0"), content });
    flags.steps = vec!["step-a".into(), "step-b".into()];
    flags.make_dirs = vec![pod.text("workspace/of-another")];
    flags.working_dir = Some(pod.text("workspace/src"));
    for _ in 0..2 {
        let ended = run(&flags)?;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let here = fs::canonicalize(pod.path("workspace/src"))?;
        let script = pod.text("scripts/script-0");
        assert_eq!(ended.stdout, format!("{}\n{script} argument \n0\n1\nstep-a\nstep-b\n", here.display()));
        assert!(pod.path("workspace/of-another").is_dir());
        assert_eq!(fs::read_link(pod.path("steps/step-b"))?, pod.path("run/1/status"));
    }
    Ok(())
}

#[test]
fn a_working_directory_that_cannot_be_made_fails_the_step_that_needs_it() -> TestResult {
    let pod = Pod::new()?;
    pod.write("workspace/file", "")?;
    let mut flags = pod.shell(0, "echo ran");
    flags.make_dirs = vec![pod.text("workspace/file/src")];
    assert_eq!(run(&flags)?.stdout, "ran\n");
    flags.working_dir = Some(pod.text("workspace/file/src"));
    let ended = run(&flags)?;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""));
    let message = format!("entering working directory {:?}", pod.text("workspace/file/src"));
    assert!(ended.stderr.contains(&message), "{ended:?}");
    assert!(pod.path("run/0/out.err").exists(), "later steps do not wait");
    Ok(())
}

#[test]
fn a_layout_that_cannot_be_made_stops_the_task() -> TestResult {
    let pod = Pod::new()?;
    let mut flags = pod.shell(0, "echo ran");
    flags.script = Some(Script { path: pod.text("elsewhere/script-0"), content: String::new() });
    let ended = run(&flags)?;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""));
    assert!(pod.path("run/0/out.err").exists());
    Ok(())
}

#[test]
fn a_user_without_privileges_runs_a_script_of_its_own() -> TestResult {
    if !support::is_root() {
        return Ok(());
    }
    let pod = Pod::new()?;
    // Volumes are open to every user; nothing else of a container need be.
    for dir in ["", "results", "steps", "scripts", "run/0", "workspace"] {
        fs::create_dir_all(pod.path(dir))?;
        fs::set_permissions(pod.path(dir), fs::Permissions::from_mode(0o777))?;
    }
    fs::File::create(pod.path("termination-0"))?.set_permissions(fs::Permissions::from_mode(0o666))?;
    let mut flags = pod.step(0, &[&pod.text("scripts/script-0")]);
    flags.script = Some(Script {
        path: pod.text("scripts/script-0"),
        content: "#!/bin/sh\nid -u; echo x > file\n".into(),
    });
    flags.steps = vec!["step-a".into()];
    flags.working_dir = Some(pod.text("workspace/src"));
    let ended = end(pod.as_user(65_532)?.args(flags.render()).spawn()?)?;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), "65532\n"), "{ended:?}");
    assert_eq!(pod.read("workspace/src/file").as_deref(), Some("x\n"));
    Ok(())
}
