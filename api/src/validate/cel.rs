//! CEL in `when` as far as it can be judged as written, before anything is substituted: it can be read, and names nothing
//! that there is not (contract 2.1). Pure.
//!
//! Types are not checked: what compares a text with a number compiles here, and is false when it is evaluated.

use std::panic;
use std::sync::mpsc::{self, SyncSender};
use std::sync::{Mutex, PoisonError};
use std::thread;

use cel::Program;
use cel::common::ast::{EntryExpr, Expr, IdedExpr};

/// The longest expression, in bytes. Expressions that people write are a line.
pub const LONGEST: usize = 2048;

/// How deep brackets nest.
pub const DEEPEST: usize = 50;

/// The stack that reading takes at the most, in bytes: members and operators nest as far as there is text, and brackets are
/// dear. In a debug build, what these bounds let through has been seen to take 4 MB; threads have 2.
const STACK: usize = 16 << 20;

/// Names there are without anybody declaring them: those of types.
const KNOWN: [&str; 13] = [
    "bool",
    "bytes",
    "double",
    "dyn",
    "google",
    "int",
    "list",
    "map",
    "null_type",
    "string",
    "timestamp",
    "type",
    "uint",
];

/// Why an expression cannot be evaluated, whatever its variables become.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CelError {
    /// It would take too much to read.
    #[error("it is longer than {LONGEST} bytes")]
    Long,
    /// The same.
    #[error("its brackets are nested more than {DEEPEST} deep")]
    Deep,
    /// There was no thread to read it, or the parser gave up on it.
    #[error("it cannot be read")]
    Unread,
    /// It is no CEL.
    #[error("at {line}:{column}: {reason}")]
    Syntax {
        /// Counted from 1.
        line: usize,
        /// Counted from 1, in characters.
        column: usize,
        /// In the parser's words.
        reason: String,
    },
    /// It names what nobody declares.
    #[error("undeclared reference to \"{name}\"")]
    Undeclared {
        /// The name.
        name: String,
    },
}

/// Whether an expression can be evaluated once its variables are texts.
pub fn check(expression: &str) -> Result<(), CelError> {
    if expression.len() > LONGEST {
        return Err(CelError::Long);
    }
    if depth(expression) > DEEPEST {
        return Err(CelError::Deep);
    }
    ask(expression).unwrap_or(Err(CelError::Unread))
}

/// An expression, and where the answer goes.
type Question = (String, SyncSender<Result<(), CelError>>);

/// The way to the one thread that reads all expressions of a process: not to do two things at once, but for the stack. An
/// object of a megabyte has thousands of expressions, and a thread for each costs more than to read it.
static READER: Mutex<Option<SyncSender<Question>>> = Mutex::new(None);

/// Waits for the answer; there is none where no thread can be had.
fn ask(expression: &str) -> Option<Result<(), CelError>> {
    let (answer, answered) = mpsc::sync_channel(1);
    let reader = {
        let mut reader = READER.lock().unwrap_or_else(PoisonError::into_inner);
        if reader.is_none() {
            *reader = start();
        }
        reader.clone()?
    };
    reader.send((expression.to_owned(), answer)).ok()?;
    answered.recv().ok()
}

fn start() -> Option<SyncSender<Question>> {
    // Whoever asks waits anyway: nothing is kept in line.
    let (reader, questions) = mpsc::sync_channel::<Question>(0);
    let read_all = move || {
        for (expression, answer) in questions {
            // The parser may give up on one expression, and the next is somebody else's.
            let read = panic::catch_unwind(|| read(&expression)).unwrap_or(Err(CelError::Unread));
            // Who asks waits for it.
            let _ = answer.send(read);
        }
    };
    thread::Builder::new().name("cel".to_owned()).stack_size(STACK).spawn(read_all).ok()?;
    Some(reader)
}

fn read(expression: &str) -> Result<(), CelError> {
    let program = Program::compile(expression).map_err(|errors| syntax(&errors.errors))?;
    match undeclared(program.expression(), &mut Vec::new()) {
        Some(name) => Err(CelError::Undeclared { name: name.to_owned() }),
        None => Ok(()),
    }
}

/// The first error; those after it follow from it as a rule.
fn syntax(errors: &[cel::ParseError]) -> CelError {
    let number = |position: isize| usize::try_from(position).unwrap_or_default().max(1);
    let (line, column, reason) = errors
        .first()
        .map_or((1, 1, ""), |error| (number(error.pos.0), number(error.pos.1), error.msg.as_str()));
    // What the parser expects is a list of all of its tokens.
    let reason = reason.trim_start_matches("Syntax error: ").split(" expecting ").next().unwrap_or_default();
    CelError::Syntax { line, column, reason: reason.to_owned() }
}

/// The deepest brackets. Those in texts count, too: an upper bound is all that is needed.
fn depth(expression: &str) -> usize {
    let mut depth: usize = 0;
    let mut deepest = 0;
    for byte in expression.bytes() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

/// The first name that is neither known nor one of these, which macros around declare.
fn undeclared<'a>(expression: &'a IdedExpr, declared: &mut Vec<&'a str>) -> Option<&'a str> {
    match &expression.expr {
        Expr::Ident(name) => {
            // What begins with "@" the parser has made up.
            let known =
                name.starts_with('@') || KNOWN.contains(&name.as_str()) || declared.contains(&name.as_str());
            (!known).then_some(name)
        }
        Expr::Call(call) => {
            let target = call.target.as_deref().and_then(|target| undeclared(target, declared));
            target.or_else(|| call.args.iter().find_map(|argument| undeclared(argument, declared)))
        }
        Expr::Comprehension(comprehension) => {
            let outside = [&comprehension.iter_range, &comprehension.accu_init];
            if let Some(name) = outside.into_iter().find_map(|part| undeclared(part, declared)) {
                return Some(name);
            }
            let before = declared.len();
            declared.extend([comprehension.iter_var.as_str(), comprehension.accu_var.as_str()]);
            declared.extend(comprehension.iter_var2.as_deref());
            let inside = [&comprehension.loop_cond, &comprehension.loop_step, &comprehension.result];
            let found = inside.into_iter().find_map(|part| undeclared(part, declared));
            declared.truncate(before);
            found
        }
        Expr::List(list) => list.elements.iter().find_map(|element| undeclared(element, declared)),
        Expr::Map(map) => map.entries.iter().find_map(|entry| in_entry(&entry.expr, declared)),
        Expr::Struct(fields) => fields.entries.iter().find_map(|entry| in_entry(&entry.expr, declared)),
        Expr::Select(select) => undeclared(&select.operand, declared),
        Expr::Literal(_) | Expr::Unspecified => None,
    }
}

fn in_entry<'a>(entry: &'a EntryExpr, declared: &mut Vec<&'a str>) -> Option<&'a str> {
    match entry {
        EntryExpr::StructField(field) => undeclared(&field.value, declared),
        EntryExpr::MapEntry(entry) => {
            undeclared(&entry.key, declared).or_else(|| undeclared(&entry.value, declared))
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("'$(params.branch)' == 'main'")]
    #[case("'$(tasks.a.results.r)' in ['a', 'b'] && !('x'.startsWith('y'))")]
    #[case("size('$(params.p)') > 3 ? true : false")]
    #[case("'$(params.p)'.matches('^v[0-9]+$')")]
    #[case("['a', 'b'].exists(item, item == '$(params.p)')")]
    #[case("{'a': 1}['a'] == 1 && type('a') == string")]
    #[case("[1, 2].all(x, [3].exists(y, x < y))")]
    #[case("true")]
    fn can_be_evaluated(#[case] expression: &str) {
        assert_eq!(check(expression), Ok(()));
    }

    #[rstest]
    #[case("$(params.branch) == 'main'", "at 1:1: ")]
    #[case("'a' = 'b'", "at 1:5: ")]
    #[case("'a' ==", "at 1:7: ")]
    #[case("'a' == 'b", "at 1:8: ")]
    #[case("true &&\n  )", "at 2:3: ")]
    #[case("params.branch == 'main'", "undeclared reference to \"params\"")]
    #[case("'a' == b", "undeclared reference to \"b\"")]
    #[case("[1].all(x, x == y)", "undeclared reference to \"y\"")]
    #[case("[1].all(x, true) && x == 1", "undeclared reference to \"x\"")]
    #[case("{'a': b}.a", "undeclared reference to \"b\"")]
    fn cannot_be_evaluated(#[case] expression: &str, #[case] expected: &str) {
        let error = check(expression).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }

    /// All are read by one thread.
    #[test]
    fn whoever_asks_gets_the_answer_to_what_was_asked() {
        let ask = |from: usize| {
            for number in 0..500 {
                let name = format!("of_{from}_{number}");
                assert_eq!(check(&name), Err(CelError::Undeclared { name: name.clone() }));
            }
        };
        thread::scope(|scope| {
            for from in 0..4 {
                scope.spawn(move || ask(from));
            }
        });
    }

    /// Each would take the stack of a thread in the end, which no handler survives.
    #[rstest]
    #[case("(", "true", ")")]
    #[case("[", "1", "]")]
    #[case("{1:", "1", "}")]
    #[case("!", "true", "")]
    #[case("-", "1", "")]
    #[case("a.", "b", "")]
    #[case("", "1", "[0]")]
    #[case("", "a", ".b")]
    #[case("", "a", ".b()")]
    #[case("1+", "1", "")]
    #[case("true||", "true", "")]
    #[case("true?true:", "true", "")]
    #[case("[1].all(x,", "true", ")")]
    #[case("f(", "1", ")")]
    #[case("a{b:", "1", "}")]
    #[case("(", "", "")]
    fn what_nests_is_bounded(#[case] open: &str, #[case] inner: &str, #[case] close: &str) {
        for longest in [LONGEST, 100_000] {
            let times = (longest - inner.len()) / (open.len() + close.len());
            // Either answer is one.
            let answer = check(&format!("{}{inner}{}", open.repeat(times), close.repeat(times)));
            assert!(longest == LONGEST || answer == Err(CelError::Long), "{answer:?}");
        }
    }

    /// The deepest of one kind around the longest of another.
    #[rstest]
    #[case("!", "")]
    #[case("a.", "")]
    #[case("", ".b()")]
    #[case("1+", "")]
    fn what_nests_in_what_nests_is_bounded(#[case] before: &str, #[case] after: &str) {
        let (open, close) = ("[1].all(x,".repeat(DEEPEST - 1), ")".repeat(DEEPEST - 1));
        let times = (LONGEST - open.len() - close.len() - 1) / (before.len() + after.len());
        let inner = format!("{}x{}", before.repeat(times), after.repeat(times));
        let answer = check(&format!("{open}{inner}{close}"));
        assert!(!matches!(answer, Err(CelError::Long | CelError::Deep)), "{answer:?}");
    }
}
