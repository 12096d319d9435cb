use rstest::rstest;
use tempfile::TempDir;

use super::*;

/// A steps directory in which step `s` has one result of each type.
fn steps() -> std::io::Result<TempDir> {
    let dir = tempfile::tempdir()?;
    let results = dir.path().join("step-s/results");
    fs::create_dir_all(&results)?;
    for (name, content) in [
        ("text", "abc\n"),
        ("quoted", "\"abc\""),
        ("list", r#"["x","y"]"#),
        ("empty", "[]"),
        ("map", r#"{"k":"v"}"#),
        ("tricky", "$(steps.s.results.text)"),
    ] {
        fs::write(results.join(name), content)?;
    }
    Ok(dir)
}

#[rstest]
#[case("$(steps.s.results.text)", &["abc\n"])]
#[case("a-$(steps.s.results.quoted)-b", &["a-abc-b"])]
#[case("$(steps.s.results.list[1])", &["y"])]
#[case("$(steps.s.results.list[*])", &["x", "y"])]
#[case("$(steps.s.results.empty[*])", &[])]
#[case("$(steps.s.results.list)", &[""])]
#[case("$(steps.s.results.map)", &[""])]
#[case("$(steps.s.results.map.k)", &["v"])]
#[case("$(steps.s.results.tricky)", &["$(steps.s.results.text)"])]
#[case("$(params.x) $(steps.s.outputs.a) $(date +%s)", &["$(params.x) $(steps.s.outputs.a) $(date +%s)"])]
#[case("$(steps.s.results[\"text\"])", &["$(steps.s.results[\"text\"])"])]
fn an_argument_becomes(#[case] text: &str, #[case] expected: &[&str]) -> std::io::Result<()> {
    let dir = steps()?;
    let filled = many(&[text.to_owned()], dir.path()).map_err(|e| e.to_string());
    assert_eq!(filled, Ok(expected.iter().map(ToString::to_string).collect()));
    Ok(())
}

#[rstest]
#[case("$(steps.s.results.none)", "reading \"$(steps.s.results.none)\"")]
#[case("$(steps.t.results.text)", "reading \"$(steps.t.results.text)\"")]
#[case("$(steps.s.results.list[2])", "\"$(steps.s.results.list[2])\" is out of range, the result has 2")]
#[case("$(steps.s.results.text[0])", "\"$(steps.s.results.text[0])\" needs an array")]
#[case("$(steps.s.results.map[*])", "\"$(steps.s.results.map[*])\" needs an array")]
#[case("$(steps.s.results.text.k)", "\"$(steps.s.results.text.k)\" needs an object")]
#[case("$(steps.s.results.map.j)", "\"$(steps.s.results.map.j)\" names a key")]
#[case("a$(steps.s.results.list[*])", "\"$(steps.s.results.list[*])\" must be a whole argument")]
fn an_argument_is_refused(#[case] text: &str, #[case] message: &str) -> std::io::Result<()> {
    let dir = steps()?;
    let error = many(&[text.to_owned()], dir.path()).map_err(|e| e.to_string());
    assert!(error.as_ref().is_err_and(|e| e.starts_with(message)), "{error:?}");
    Ok(())
}

fn texts(env: &str, input: &str, argument: &str) -> Texts {
    Texts {
        env: vec![("A".into(), env.into()), ("B".into(), "same".into())],
        when: vec![WhenExpression { input: input.to_owned(), ..WhenExpression::default() }],
        argv: vec![argument.to_owned()],
    }
}

#[test]
fn environment_guards_and_command_are_filled_in() -> Result<(), Box<dyn std::error::Error>> {
    let dir = steps()?;
    let reference = "$(steps.s.results.quoted)";
    let mut given = texts(reference, reference, reference);
    given.fill_in(dir.path())?;
    assert_eq!(given.env, [("A".into(), "abc".into()), ("B".into(), "same".into())]);
    assert_eq!(given.when[0].input, "abc");
    assert_eq!(given.argv, ["abc"]);
    Ok(())
}

#[test]
fn the_first_error_leaves_the_rest_literal() -> std::io::Result<()> {
    let dir = steps()?;
    let reference = "$(steps.s.results.quoted)";
    let mut given = texts(reference, "$(steps.s.results.none)", reference);
    assert!(given.fill_in(dir.path()).is_err());
    assert_eq!(given.env, [("A".into(), "abc".into()), ("B".into(), "same".into())]);
    assert_eq!(given.when[0].input, "$(steps.s.results.none)");
    assert_eq!(given.argv, [reference]);
    Ok(())
}
