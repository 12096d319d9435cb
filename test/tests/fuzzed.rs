//! What is fuzzed in `fuzz/`, without a fuzzer: its inputs, those that once failed among them, and inputs spoilt by chance,
//! the same in every run. And inputs made to cost more than they are long, on the stack that a thread of a server has.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test program")]

#[path = "../../fuzz/targets.rs"]
mod targets;

use std::fs;
use std::path::Path;
use std::thread;

use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::RngSeed;
use ropewalk_api::validate::cel;
use ropewalk_cli::documents::{self, Source};
use ropewalk_cli::lint;
use ropewalk_test::objects;
use serde_json::Value;

type Target = fn(&[u8]);

const TARGETS: [(&str, Target); 5] = [
    ("admission", targets::admission),
    ("cel", targets::cel),
    ("conversion", targets::conversion),
    ("lint", targets::lint),
    ("substitution", targets::substitution),
];

/// The inputs of a target. The name of each says what it is about.
fn kept(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    // The order of a directory is not the same everywhere.
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

#[test]
fn inputs_that_are_kept_pass() {
    for (name, target) in TARGETS {
        let inputs = kept(name);
        assert!(!inputs.is_empty(), "there is nothing for {name}");
        for input in inputs {
            target(&input);
        }
    }
}

/// What is spoilt: the inputs of every target, and the objects of the table, right and wrong ones.
fn seeds() -> Vec<Vec<u8>> {
    let table = objects::table().unwrap();
    let objects = table.values().flatten().map(|case| case.object.to_string().into_bytes());
    TARGETS.iter().flat_map(|(name, _)| kept(name)).chain(objects).collect()
}

const PIECES: [&[u8]; 30] = [
    b"$(",
    b")",
    b"$(params.p)",
    b"$(tasks.a.results.r[*])",
    b"$(params[\"a.b\"])",
    b"\"",
    b"'",
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b"\n",
    b"  ",
    b"- ",
    b"&a ",
    b"*a",
    b"!!binary ",
    b"<<: ",
    b"null",
    b"1e999",
    b"-0",
    b"\\u0000",
    b"\\ud800",
    "é".as_bytes(),
    b"\xff",
    b"tekton.dev/v1beta1",
    b"x",
    b"== 1 &&",
];

/// The same inputs in every run; cargo-fuzz is for new ones.
fn always_the_same(cases: u32) -> ProptestConfig {
    let rng_seed = RngSeed::Fixed(6);
    ProptestConfig { cases, rng_seed, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(always_the_same(1500))]

    /// Right and wrong inputs with pieces of others, and of nothing, in them.
    #[test]
    fn spoilt_inputs_pass(
        seed in select(seeds()),
        changes in prop::collection::vec((any::<Index>(), 0..12_usize, select(&PIECES[..])), 0..4),
    ) {
        let mut input = seed;
        for (at, length, piece) in changes {
            let at = at.index(input.len() + 1);
            let end = (at + length).min(input.len());
            input.splice(at..end, piece.iter().copied());
        }
        for (_, target) in TARGETS {
            target(&input);
        }
    }

    #[test]
    fn heaps_of_pieces_pass(pieces in prop::collection::vec(select(&PIECES[..]), 0..40)) {
        let input = pieces.concat();
        for (_, target) in TARGETS {
            target(&input);
        }
    }
}

/// The stack of a thread unless somebody asks for more, in bytes: what the processes that judge objects have.
const STACK: usize = 2 << 20;

/// A stack that ends takes the process along.
fn on_a_threads_stack<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    thread::Builder::new().stack_size(STACK).spawn(work).unwrap().join().unwrap()
}

/// As `ropewalk lint` and `ropewalk run` read it; both say the same when it cannot be read.
fn linted(text: String) -> Vec<String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), &text).unwrap();
    let path = file.path().to_owned();
    let refused = on_a_threads_stack(move || documents::read(&path).err());
    let check = || lint::check_all(vec![Source::new("input.yaml", text)]);
    let findings = on_a_threads_stack(check);
    let found: Vec<_> = findings.iter().map(|finding| finding.diagnostic.message().to_owned()).collect();
    assert_eq!(refused.map(|refused| refused.message().to_owned()).as_ref(), found.first());
    found
}

/// Ten aliases of ten aliases of …: a few hundred bytes that stand for gigabytes.
#[test]
fn aliases_of_aliases_are_refused() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..10 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        text.extend([format!("a{level}: &a{level} [{aliases}]\n")]);
    }
    let found = linted(text);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("its aliases expand to too much"), "{found:?}");
}

/// Deeper than any stack: in every notation that nests.
#[test]
fn deep_nesting_is_refused() {
    const DEEP: usize = 200_000;
    for (open, close) in [("[", "]"), ("{a: ", "}"), ("- ", ""), ("? ", ""), ("!!seq [", "]"), ("&a [", "]")]
    {
        let found = linted(format!("a: \n  {}x{}\n", open.repeat(DEEP), close.repeat(DEEP)));
        assert!(found[0].starts_with("not valid YAML: "), "{open}: {found:?}");
        let found = linted(format!("a: \n  {}x{}\n", open.repeat(129), close.repeat(129)));
        assert_eq!(found, ["not valid YAML: it is nested more than 128 deep"], "{open}");
    }
    let indented: Vec<_> = (0..3000).map(|level| format!("{}a:\n", " ".repeat(level))).collect();
    assert!(linted(indented.concat())[0].starts_with("not valid YAML: "));
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let text = format!("{}1{}", open.repeat(DEEP), close.repeat(DEEP));
        let error = serde_json::from_str::<Value>(&text).unwrap_err().to_string();
        assert!(error.starts_with("recursion limit exceeded"), "{error}");
    }
}

/// What is read and only just is: pipelines in pipelines, and values that are anything, as deep as JSON may be.
#[test]
fn the_deepest_that_is_read_is_judged() {
    let object = |kind: &str, spec: String| {
        format!(r#"{{"apiVersion":"tekton.dev/v1","kind":"{kind}","metadata":{{"name":"x"}},"spec":{spec}}}"#)
    };
    let pipelines = |depth: usize| {
        let (open, close) = (r#"{"tasks":[{"name":"a","pipelineSpec":"#.repeat(depth), "}]}".repeat(depth));
        object("Pipeline", format!("{open}{{}}{close}"))
    };
    let value = |depth: usize| {
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        object("TaskRun", format!(r#"{{"params":[{{"name":"p","value":{open}1{close}}}]}}"#))
    };
    let custom = |depth: usize| {
        let (open, close) = (r#"{"a":"#.repeat(depth), "}".repeat(depth));
        let spec = format!(r#"{{"customSpec":{{"apiVersion":"a/v1","kind":"K","spec":{open}1{close}}}}}"#);
        object("CustomRun", spec).replace("dev/v1\"", "dev/v1beta1\"")
    };
    let nested: [(&str, &dyn Fn(usize) -> String); 3] =
        [("pipelines", &pipelines), ("value", &value), ("custom", &custom)];
    for (what, nested) in nested {
        let read = |depth: &usize| serde_json::from_str::<Value>(&nested(*depth)).is_ok();
        let deepest = (1..200).take_while(read).last().unwrap();
        assert!(deepest > 30, "{what}: {deepest}");
        let text = nested(deepest);
        on_a_threads_stack(move || {
            targets::admission(text.as_bytes());
            targets::conversion(text.as_bytes());
            targets::lint(text.as_bytes());
        });
    }
}

#[test]
fn a_huge_expression_is_refused_with_a_reason() {
    for huge in ["(".repeat(1 << 20), "1+".repeat(1 << 19), "!".repeat(1 << 20)] {
        targets::cel(huge.as_bytes());
        let error = cel::check(&huge).unwrap_err().to_string();
        assert_eq!(error, "it is longer than 2048 bytes");
    }
}
