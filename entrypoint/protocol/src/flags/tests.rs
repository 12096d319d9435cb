use proptest::prelude::*;
use rstest::rstest;

use super::*;
use crate::duration::GoDuration;
use crate::when::WhenExpression;

fn args(line: &[&str]) -> Vec<String> {
    line.iter().map(ToString::to_string).collect()
}

fn step(line: &[&str]) -> Result<StepFlags, FlagError> {
    match parse(&args(line))? {
        Command::Run(flags) => Ok(flags),
        other => Err(FlagError::Unexpected(format!("{other:?}"))),
    }
}

fn credential(kind: CredentialKind, secret: &str, url: &str) -> Credential {
    Credential { kind, secret: secret.to_owned(), url: url.to_owned() }
}

#[test]
fn a_step_renders_in_upstreams_order() {
    let flags = StepFlags {
        wait_files: vec!["/tekton/downward/ready".into()],
        wait_file_content: true,
        post_file: "/tekton/run/0/out".into(),
        termination_path: "/tekton/termination".into(),
        step_metadata_dir: "/tekton/run/0/status".into(),
        credentials: vec![
            credential(CredentialKind::BasicDocker, "robot", "https://r.example"),
            credential(CredentialKind::DockerConfig, "pull", ""),
            credential(CredentialKind::DockerCfg, "old", ""),
            credential(CredentialKind::BasicGit, "bot", "https://git.example/a?b=c"),
            credential(CredentialKind::SshGit, "key", "git.example:2222/org/repo"),
        ],
        on_error: Some(OnError::Continue),
        timeout: Some(GoDuration::from_secs(90)),
        stdout_path: Some("/out".into()),
        stderr_path: Some("/err".into()),
        step_results: vec!["x".into(), "y".into()],
        when_expressions: vec![WhenExpression {
            input: "<a>".into(),
            operator: "in".into(),
            values: vec!["<a>".into()],
            cel: String::new(),
        }],
        results: Some(vec!["r".into(), "s".into()]),
        steps: vec!["step-a".into(), "step-b".into()],
        make_dirs: vec!["/workspace/b".into(), "/workspace/c".into()],
        working_dir: Some("/workspace/a".into()),
        script: Some(Script { path: "/tekton/scripts/script-0".into(), content: "$(x)".into() }),
        entrypoint: Some("sh".into()),
        root: None,
        args: vec!["-c".into(), "true".into()],
    };
    assert_eq!(
        flags.render(),
        args(&[
            "-wait_file",
            "/tekton/downward/ready",
            "-wait_file_content",
            "-post_file",
            "/tekton/run/0/out",
            "-termination_path",
            "/tekton/termination",
            "-step_metadata_dir",
            "/tekton/run/0/status",
            "-basic-docker=robot=https://r.example",
            "-docker-config=pull",
            "-docker-cfg=old",
            "-basic-git=bot=https://git.example/a?b=c",
            "-ssh-git=key=git.example:2222/org/repo",
            "-on_error",
            "continue",
            "-timeout",
            "1m30s",
            "-stdout_path",
            "/out",
            "-stderr_path",
            "/err",
            "-step_results",
            "x,y",
            "--when_expressions",
            r#"[{"input":"\u003ca\u003e","operator":"in","values":["\u003ca\u003e"]}]"#,
            "-results",
            "r,s",
            "-steps",
            "step-a,step-b",
            "-make_dir",
            "/workspace/b",
            "-make_dir",
            "/workspace/c",
            "-working_dir",
            "/workspace/a",
            "-script",
            "/tekton/scripts/script-0=JCh4KQ==",
            "-entrypoint",
            "sh",
            "--",
            "-c",
            "true",
        ])
    );
}

#[test]
fn nop_stands_alone() {
    assert_eq!(parse(&args(&["nop"])), Ok(Command::Nop));
    assert_eq!(step(&["nop", "x"]).map(|flags| flags.args), Ok(args(&["nop", "x"])));
}

/// Linux takes no argument longer than this, its final zero included.
const MAX_ARG_STRLEN: usize = 128 * 1024;

#[test]
fn no_argument_of_a_long_script_is_too_long_for_the_kernel() {
    // Characters of two bytes, so that some piece would end inside one.
    let content = format!("#!/bin/sh\n{}", "\u{e4}".repeat(300_000));
    let script = Script { path: "/tekton/scripts/script-0-abcde".into(), content };
    let flags = StepFlags { script: Some(script), ..StepFlags::default() };
    let line = flags.render();
    assert!(line.iter().all(|argument| argument.len() < MAX_ARG_STRLEN));
    assert_eq!(parse(&line), Ok(Command::Run(flags)));
}

#[rstest]
#[case(&["-entrypoint", "sh", "--", "-c"])]
#[case(&["--entrypoint", "sh", "--", "-c"])]
#[case(&["-entrypoint=sh", "--", "-c"])]
#[case(&["--entrypoint=sh", "--", "-c"])]
fn both_dashes_and_both_forms_are_the_same(#[case] line: &[&str]) {
    let flags = step(line).unwrap_or_default();
    assert_eq!(flags.entrypoint.as_deref(), Some("sh"));
    assert_eq!(flags.args, ["-c"]);
}

#[rstest]
#[case(&["cmd", "-post_file", "x"], &["cmd", "-post_file", "x"])]
#[case(&["-", "x"], &["-", "x"])]
#[case(&["--", "prepare"], &["prepare"])]
#[case(&["--", "--", "x"], &["--", "x"])]
fn flags_end_at_the_first_other_argument(#[case] line: &[&str], #[case] rest: &[&str]) {
    assert_eq!(step(line).map(|flags| flags.args), Ok(args(rest)));
}

#[rstest]
#[case(&["-wait_file_content"], true)]
#[case(&["-wait_file_content=false"], false)]
#[case(&["-wait_file_content=T"], true)]
fn booleans_take_their_value_after_an_equals_sign_only(#[case] line: &[&str], #[case] expected: bool) {
    assert_eq!(step(line).map(|flags| flags.wait_file_content), Ok(expected));
}

#[test]
fn an_empty_result_list_differs_from_none() {
    assert_eq!(step(&["-results", "", "--"]).map(|flags| flags.results), Ok(Some(vec![])));
    assert_eq!(step(&["--"]).map(|flags| flags.results), Ok(None));
}

#[rstest]
#[case(&["-nosuch", "x"], "flag \"-nosuch\" is not known")]
#[case(&["-entrypoint"], "flag \"-entrypoint\" needs a value")]
#[case(&["---x"], "\"---x\" is not a flag")]
#[case(&["-=x"], "\"-=x\" is not a flag")]
#[case(&["-timeout", "5"], "flag \"-timeout\" cannot be \"5\": missing unit")]
#[case(&["-on_error", "ignore"], "flag \"-on_error\" cannot be \"ignore\": expected \"continue\"")]
#[case(&["-when_expressions", "{"], "flag \"-when_expressions\" cannot be \"{\"")]
#[case(&["-wait_file_content=maybe"], "flag \"-wait_file_content\" cannot be \"maybe\"")]
#[case(&["prepare", "-script", "/x"], "flag \"-script\" cannot be \"/x\": expected \"path=base64\"")]
#[case(&["prepare", "-script", "/x=*"], "flag \"-script\" cannot be \"/x=*\"")]
#[case(&["script", "--", "x"], "flag \"-script\" needs a value")]
#[case(&["script", "-script", "/x=", "-script", "/y="], "argument \"/y\" is not expected")]
#[case(&["-script", "/x=", "-script", "/y="], "argument \"/y\" is not expected")]
#[case(&["-basic-git", "x"], "flag \"-basic-git\" cannot be \"x\": expected \"secret=URL\"")]
#[case(&["-ssh-git=a/b=host"], "flag \"-ssh-git\" cannot be \"a/b=host\": that is no secret's name")]
#[case(&["-docker-config=.."], "flag \"-docker-config\" cannot be \"..\": that is no secret's name")]
#[case(&["-docker-cfg="], "flag \"-docker-cfg\" cannot be \"\": that is no secret's name")]
#[case(&["prepare", "x"], "argument \"x\" is not expected")]
#[case(&["prepare", "-post_file", "x"], "flag \"-post_file\" is not known")]
fn mistakes_are_named(#[case] line: &[&str], #[case] message: &str) {
    let error = parse(&args(line)).map_err(|e| e.to_string());
    assert!(error.as_ref().is_err_and(|e| e.starts_with(message)), "{error:?}");
}

/// Names that may stand in a comma-separated list.
fn names() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec("[a-z/=.\\-]{1,6}", 0..3)
}

/// A few texts of any kind.
fn texts() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(any::<String>(), 0..4)
}

fn when_expressions() -> impl Strategy<Value = Vec<WhenExpression>> {
    prop::collection::vec(
        (any::<String>(), any::<String>(), texts(), any::<String>())
            .prop_map(|(input, operator, values, cel)| WhenExpression { input, operator, values, cel }),
        0..3,
    )
}

fn on_error() -> impl Strategy<Value = Option<OnError>> {
    prop::sample::select(vec![None, Some(OnError::Continue), Some(OnError::StopAndFail)])
}

fn credentials() -> impl Strategy<Value = Vec<Credential>> {
    let kind = prop::sample::select(vec![
        CredentialKind::BasicGit,
        CredentialKind::SshGit,
        CredentialKind::BasicDocker,
        CredentialKind::DockerConfig,
        CredentialKind::DockerCfg,
    ]);
    let credential = (kind, "[a-z0-9][a-z0-9.-]{0,8}", any::<String>()).prop_map(|(kind, secret, url)| {
        let url =
            if matches!(kind, CredentialKind::DockerConfig | CredentialKind::DockerCfg) { "" } else { &url };
        credential(kind, &secret, url)
    });
    prop::collection::vec(credential, 0..4)
}

prop_compose! {
    fn step_flags()(
        (wait_files, wait_file_content, step_results) in (names(), any::<bool>(), names()),
        (post_file, termination_path, step_metadata_dir) in any::<(String, String, String)>(),
        credentials in credentials(),
        (on_error, timeout) in (on_error(), any::<Option<i64>>()),
        (stdout_path, stderr_path) in any::<(Option<String>, Option<String>)>(),
        when_expressions in when_expressions(),
        results in prop::option::of(names()),
        (steps, make_dirs, script) in (names(), texts(), prop::option::of(script())),
        (entrypoint, root, working_dir) in any::<(Option<String>, Option<String>, Option<String>)>(),
        args in texts(),
    ) -> StepFlags {
        StepFlags {
            wait_files,
            wait_file_content,
            post_file,
            termination_path,
            step_metadata_dir,
            credentials,
            on_error,
            timeout: timeout.map(GoDuration),
            stdout_path,
            stderr_path,
            step_results,
            when_expressions,
            results,
            steps,
            make_dirs,
            working_dir,
            script,
            entrypoint,
            root,
            args,
        }
    }
}

prop_compose! {
    fn prepare_flags()(
        (copy_to, root, workspace) in any::<(Option<String>, Option<String>, Option<String>)>(),
        steps in texts(),
        scripts in prop::collection::btree_map("[^=]{0,8}", any::<String>(), 0..3),
        working_dirs in texts(),
    ) -> PrepareFlags {
        PrepareFlags {
            copy_to,
            steps,
            scripts: scripts.into_iter().map(|(path, content)| Script { path, content }).collect(),
            working_dirs,
            root,
            workspace,
        }
    }
}

prop_compose! {
    fn script()(path in "[^=]{0,8}", content in any::<String>()) -> Script {
        Script { path, content }
    }
}

prop_compose! {
    fn script_flags()(script in script(), root in any::<Option<String>>(), args in texts()) -> ScriptFlags {
        ScriptFlags { script, root, args }
    }
}

proptest! {
    #[test]
    fn a_step_reads_what_was_rendered(flags in step_flags()) {
        prop_assert_eq!(parse(&flags.render()), Ok(Command::Run(flags)));
    }

    #[test]
    fn prepare_reads_what_was_rendered(flags in prepare_flags()) {
        prop_assert_eq!(parse(&flags.render()), Ok(Command::Prepare(flags)));
    }

    #[test]
    fn a_sidecar_reads_what_was_rendered(flags in script_flags()) {
        prop_assert_eq!(parse(&flags.render()), Ok(Command::Script(flags)));
    }

    #[test]
    fn any_command_line_is_read_or_refused(line in texts()) {
        let _ = parse(&line);
    }

    #[test]
    fn any_flag_soup_is_read_or_refused(
        line in prop::collection::vec("-{0,3}(script|steps?|timeout|results|prepare|nop|x|)=?[a-z]{0,2}", 0..8)
    ) {
        let _ = parse(&line);
    }
}
