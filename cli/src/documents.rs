//! YAML files as the documents in them, each value with the place it stands at. Reads files, nothing else.

use std::collections::HashSet;
use std::fmt;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use ropewalk_api::strict;
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::budget::BudgetBreach;
use serde_saphyr::{Error, Location, Spanned};

use crate::diagnostic::Diagnostic;

/// The largest file taken in: what etcd would hold of one object, times the documents a file may reasonably have.
const MAX_FILE: u64 = 16 * 1024 * 1024;

/// How deep values nest: as deep as JSON is read, in which they are sent.
const MAX_DEPTH: usize = 128;

/// The stack that reading takes at the most, in bytes. In a debug build a level has been seen to take 42 kB, and threads
/// have 2 MB.
const STACK: usize = 16 << 20;

/// A file that was read.
#[derive(Debug)]
pub struct Source {
    /// As the user named it.
    pub path: PathBuf,
    /// Its content.
    pub text: String,
    found: bool,
    marks: OnceLock<Vec<Mark>>,
}

/// How many bytes of a line are counted through at the most to find a column. Lines that people write are shorter; what
/// programs write may be one line of megabytes, with thousands of findings in it.
const STRETCH: usize = 1024;

/// A place whose line and column are known: the start of each line, and more in long ones.
#[derive(Clone, Copy, Debug)]
struct Mark {
    /// In bytes.
    at: usize,
    /// Counted from 1.
    line: usize,
    /// Counted from 1, in characters.
    column: usize,
}

impl Source {
    /// A text by the name the user knows it by. A byte order mark is no part of it: editors do not count it as a column.
    pub fn new(path: impl Into<PathBuf>, text: impl Into<String>) -> Self {
        let mut text = text.into();
        if text.starts_with('\u{feff}') {
            text.drain(..'\u{feff}'.len_utf8());
        }
        Self { path: path.into(), text, found: false, marks: OnceLock::new() }
    }

    /// A text that nobody named: it lies in a directory. What is no object in it is somebody else's, and left out.
    #[must_use]
    pub(crate) fn found(self) -> Self {
        Self { found: true, ..self }
    }

    /// The line and column of a byte, both counted from 1, columns in characters.
    pub(crate) fn position(&self, at: usize) -> (usize, usize) {
        let mark = self.mark(at);
        let between = self.text.get(mark.at..at).unwrap_or_default();
        (mark.line, mark.column + between.chars().count())
    }

    /// How many bytes are counted through to find the column of one.
    #[cfg(test)]
    pub(crate) fn counted(&self, at: usize) -> usize {
        at - self.mark(at).at
    }

    /// The last mark that does not lie behind this byte. The text is gone through once, for the first of them.
    fn mark(&self, at: usize) -> Mark {
        let marks = self.marks.get_or_init(|| marks(&self.text));
        let behind = marks.partition_point(|mark| mark.at <= at);
        // The first stands at the start of the text.
        marks[behind.saturating_sub(1)]
    }
}

fn marks(text: &str) -> Vec<Mark> {
    let mut mark = Mark { at: 0, line: 1, column: 1 };
    let mut marks = vec![mark];
    let (mut line, mut column) = (1, 1);
    for (at, character) in text.char_indices() {
        if at - mark.at >= STRETCH {
            mark = Mark { at, line, column };
            marks.push(mark);
        }
        column += 1;
        if character == '\n' {
            (line, column) = (line + 1, 1);
            mark = Mark { at: at + 1, line, column };
            marks.push(mark);
        }
    }
    marks
}

/// One YAML document.
#[derive(Clone, Debug)]
pub struct Document {
    /// Where it was read from.
    pub source: Arc<Source>,
    /// The document as JSON.
    pub value: Value,
    root: Arc<Spanned<Node>>,
}

impl Document {
    /// The document's `kind`, if it has one.
    pub fn kind(&self) -> &str {
        self.value.get("kind").and_then(Value::as_str).unwrap_or_default()
    }

    /// The document's `apiVersion`, if it has one.
    pub fn api_version(&self) -> &str {
        self.value.get("apiVersion").and_then(Value::as_str).unwrap_or_default()
    }

    /// `metadata.name`, or `metadata.generateName` for an object that has none yet.
    pub fn name(&self) -> &str {
        let metadata = self.value.get("metadata");
        let field = |name| metadata.and_then(|metadata| metadata.get(name)).and_then(Value::as_str);
        field("name").or_else(|| field("generateName")).unwrap_or_default()
    }

    /// The bytes of the source that a field path names, such as `spec.steps[0].image`; of the deepest part of it that
    /// the document has.
    pub fn locate(&self, path: &str) -> Range<usize> {
        self.find(path).0
    }

    /// The bytes of a text in the value that a field path names; those of the field itself when the source does not
    /// spell that text as it is.
    pub fn locate_within(&self, path: &str, text: &str) -> Range<usize> {
        let (place, value, _) = self.find(path);
        if text.is_empty() || !value.value.holds(text) {
            return place;
        }
        let start = range(&self.source.text, &value.referenced).start;
        let found = self.source.text.get(start..).and_then(|rest| rest.find(text));
        found.map_or(place, |at| start + at..start + at + text.len())
    }

    /// The document has everything on this path.
    pub fn has(&self, path: &str) -> bool {
        self.find(path).2
    }

    /// The place a path leads to, the value there, and whether it is the end of the path.
    fn find(&self, path: &str) -> (Range<usize>, &Spanned<Node>, bool) {
        let mut place = range(&self.source.text, &self.root.referenced);
        let mut node = &*self.root;
        let mut rest = path.trim_start_matches('.');
        while !rest.is_empty() {
            let Some((location, next, after)) = node.value.step(rest) else { return (place, node, false) };
            place = range(&self.source.text, location);
            node = next;
            rest = after.trim_start_matches('.');
        }
        (place, node, true)
    }

    /// An error about a field of this document.
    pub fn error(&self, path: &str, message: impl Into<String>) -> Diagnostic {
        Diagnostic::new(message).at(Arc::clone(&self.source), self.locate(path))
    }
}

/// Reads every document of a file; empty ones are left out.
pub fn read(path: &Path) -> Result<Vec<Document>, Diagnostic> {
    let file = std::fs::File::open(path).map_err(|error| error.to_string());
    let text = file.and_then(bounded).and_then(text);
    let text = text.map_err(|why| Diagnostic::new(format!("cannot read \"{}\": {why}", path.display())))?;
    parse(Source::new(path, text))
}

/// A file's bytes, or why there are none. What is no regular file does not tell its size before.
pub(crate) fn bounded(content: impl Read) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    content.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(format!("it is larger than {MAX_FILE} bytes"));
    }
    Ok(bytes)
}

/// Bytes as text, or why they are none.
pub(crate) fn text(bytes: Vec<u8>) -> Result<String, String> {
    String::from_utf8(bytes).map_err(|error| {
        let right = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = right.split(|byte| *byte == b'\n').count();
        format!("it is not UTF-8 from line {line} on")
    })
}

/// Parses every document of a source; empty ones are left out, and a list counts as what is in it.
pub fn parse(source: Source) -> Result<Vec<Document>, Diagnostic> {
    let (documents, mut refused) = parse_all(source);
    if refused.is_empty() { Ok(documents) } else { Err(refused.swap_remove(0)) }
}

/// As [`parse`], with all that is no object, in the order it stands there, beside what is one.
pub(crate) fn parse_all(source: Source) -> (Vec<Document>, Vec<Diagnostic>) {
    let source = Arc::new(source);
    let roots = match nodes(&source.text) {
        Ok(roots) => roots,
        Err(Unread { place, message }) => {
            let unread = Diagnostic::new(format!("not valid YAML: {message}")).at(Arc::clone(&source), place);
            let unread = match advice(&source.text, &message) {
                Some(advice) => unread.hint(advice),
                None => unread,
            };
            return (Vec::new(), vec![unread]);
        }
    };
    let (mut documents, mut refused) = (Vec::new(), Vec::new());
    for root in roots.into_iter().flat_map(objects) {
        if source.found && ["apiVersion", "kind"].iter().all(|field| root.value.get(field).is_none()) {
            continue;
        }
        match document(&source, root) {
            Ok(document) => documents.push(document),
            Err(diagnostic) => refused.push(diagnostic),
        }
    }
    (documents, refused)
}

/// The objects of one document: none in an empty one, several in a list, as kubectl takes them.
fn objects(mut root: Spanned<Node>) -> Vec<Spanned<Node>> {
    if matches!(root.value, Node::Scalar(Value::Null)) {
        return Vec::new();
    }
    let is_list = root.value.text("kind").is_some_and(|kind| kind.ends_with("List"));
    match root.value.get_mut("items") {
        Some(Node::Seq(items)) if is_list => std::mem::take(items).into_iter().flat_map(objects).collect(),
        _ => vec![root],
    }
}

/// What helps against YAML that cannot be read.
fn advice(text: &str, message: &str) -> Option<&'static str> {
    if text.contains("{{") {
        return Some("if this is a template, lint what it renders: helm template CHART | ropewalk lint -");
    }
    message.contains("tab").then_some("YAML is indented with blanks, not with tabs")
}

/// Why a text is no YAML.
struct Unread {
    place: Range<usize>,
    message: String,
}

/// Every document of a text.
fn nodes(text: &str) -> Result<Vec<Spanned<Node>>, Unread> {
    let read = || {
        let budget = serde_saphyr::budget! { max_depth: MAX_DEPTH };
        // kubectl reads 0755 as octal, and so must we: file modes are written like that.
        let options =
            serde_saphyr::options! { budget: budget, legacy_octal_numbers: true, with_snippet: false };
        serde_saphyr::from_multiple_with_options(text, options).map_err(|error| unread(text, &error))
    };
    // Not to do two things at once, but for the stack: this one waits.
    std::thread::scope(|scope| {
        let reading = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, read);
        reading.ok().and_then(|reading| reading.join().ok()).unwrap_or_else(|| {
            Err(Unread { place: 0..0, message: "it cannot be read, for want of a thread".to_owned() })
        })
    })
}

fn unread(text: &str, error: &serde_saphyr::Error) -> Unread {
    let mut place = error.location().map(|location| range(text, &location)).unwrap_or_default();
    let error = error.without_snippet();
    let message = error.to_string();
    let message = match error {
        Error::Budget { breach: BudgetBreach::Depth { .. }, .. } => {
            format!("it is nested more than {MAX_DEPTH} deep")
        }
        // Its limits and options are the parser's own business.
        _ if message.contains("budget breached") => {
            "it holds too many values, or its aliases expand to too much".to_owned()
        }
        // Values are anything.
        Error::Unexpected { expected: "string scalar", .. } | Error::NullIntoString { .. } => {
            "a key must be text".to_owned()
        }
        _ => {
            // The parser repeats the place in its text; ours stands in front of it.
            let message = message.split(" at line ").next().unwrap_or(&message);
            message.split(", set DuplicateKeyPolicy").next().unwrap_or(message).to_owned()
        }
    };
    // It points at what stands before it.
    if message.contains("found a tab")
        && let Some(tab) = text.get(place.start..).and_then(|rest| rest.find('\t'))
    {
        place = place.start + tab..place.start + tab + 1;
    }
    Unread { place, message }
}

fn document(source: &Arc<Source>, root: Spanned<Node>) -> Result<Document, Diagnostic> {
    let document = Document { source: Arc::clone(source), value: root.value.json(), root: Arc::new(root) };
    if !document.value.is_object() {
        return Err(document
            .error("", "a Kubernetes object was expected")
            .hint("write apiVersion, kind and metadata"));
    }
    for field in ["apiVersion", "kind"] {
        if document.value.get(field).and_then(Value::as_str).is_none_or(str::is_empty) {
            let message = format!("the document has no \"{field}\"");
            let fields = document.value.as_object().into_iter().flat_map(Map::keys).map(String::as_str);
            return Err(match strict::nearest(field, fields.filter(|other| *other != field)) {
                Some(other) => document.error(other, message).hint(format!("did you mean \"{field}\"?")),
                None => document
                    .error(field, message)
                    .hint("every Kubernetes object starts with apiVersion and kind"),
            });
        }
    }
    Ok(document)
}

/// A YAML value whose parts know their places.
#[derive(Clone, Debug)]
enum Node {
    Scalar(Value),
    Seq(Vec<Spanned<Node>>),
    Map(Vec<(Spanned<String>, Spanned<Node>)>),
}

impl Node {
    fn json(&self) -> Value {
        match self {
            Self::Scalar(value) => value.clone(),
            Self::Seq(items) => Value::Array(items.iter().map(|item| item.value.json()).collect()),
            Self::Map(entries) => {
                let entries = entries.iter().map(|(key, value)| (key.value.clone(), value.value.json()));
                Value::Object(entries.collect::<Map<_, _>>())
            }
        }
    }

    /// One of the texts in it contains this one.
    fn holds(&self, text: &str) -> bool {
        match self {
            Self::Scalar(Value::String(own)) => own.contains(text),
            Self::Scalar(_) => false,
            Self::Seq(items) => items.iter().any(|item| item.value.holds(text)),
            Self::Map(entries) => entries.iter().any(|(_, value)| value.value.holds(text)),
        }
    }

    /// The first step of a path: where it leads, the value there, and what is left of the path.
    fn step<'p>(&self, path: &'p str) -> Option<(&Location, &Spanned<Node>, &'p str)> {
        let (first, rest) = match path.strip_prefix('[') {
            Some(inside) => inside.split_once(']')?,
            None => path.split_at(path.find(['.', '[']).unwrap_or(path.len())),
        };
        match self {
            Self::Scalar(_) => None,
            Self::Seq(items) => {
                let item = match first.parse::<usize>() {
                    Ok(index) => items.get(index),
                    // Some paths name an element by its name: `params[version]`.
                    Err(_) => items.iter().find(|item| item.value.text("name") == Some(first)),
                };
                item.map(|item| (&item.referenced, item, rest))
            }
            Self::Map(entries) => {
                let behind = |key: &str| match path.strip_prefix('[') {
                    Some(_) => first.eq_ignore_ascii_case(key).then_some(rest),
                    None => behind(path, key),
                };
                // The names of labels have dots in them: the longest key is meant.
                let fitting =
                    entries.iter().filter_map(|(key, value)| Some((key, value, behind(&key.value)?)));
                let (key, value, rest) = fitting.min_by_key(|(_, _, rest)| rest.len())?;
                Some((&key.referenced, value, rest))
            }
        }
    }

    fn get(&self, field: &str) -> Option<&Self> {
        let Self::Map(entries) = self else { return None };
        entries.iter().find(|(key, _)| key.value == field).map(|(_, value)| &value.value)
    }

    fn get_mut(&mut self, field: &str) -> Option<&mut Self> {
        let Self::Map(entries) = self else { return None };
        entries.iter_mut().find(|(key, _)| key.value == field).map(|(_, value)| &mut value.value)
    }

    fn text(&self, field: &str) -> Option<&str> {
        match self.get(field)? {
            Self::Scalar(Value::String(text)) => Some(text),
            _ => None,
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Node, E> {
        let number =
            Number::from_f64(value).ok_or_else(|| E::custom(format!("{value} is not a JSON number")))?;
        Ok(Node::Scalar(Value::Number(number)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut seq = Vec::new();
        while let Some(item) = items.next_element()? {
            seq.push(item);
        }
        Ok(Node::Seq(seq))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let mut map: Vec<(Spanned<String>, Spanned<Node>)> = Vec::new();
        let mut names = HashSet::new();
        while let Some((key, value)) = entries.next_entry::<Spanned<String>, _>()? {
            if !names.insert(key.value.clone()) {
                return Err(de::Error::custom(format!("the key \"{}\" stands there twice", key.value)));
            }
            map.push((key, value));
        }
        Ok(Node::Map(map))
    }
}

/// What is left of a path behind a key that it begins with.
fn behind<'p>(path: &'p str, key: &str) -> Option<&'p str> {
    let (start, rest) = path.split_at_checked(key.len())?;
    let is_whole = rest.is_empty() || rest.starts_with(['.', '[']);
    (is_whole && start.eq_ignore_ascii_case(key)).then_some(rest)
}

/// The bytes of one token, or of the rest of its line when the parser gave no length.
fn range(text: &str, location: &Location) -> Range<usize> {
    let start = byte_offset(text, location).unwrap_or_else(|| by_line(text, location));
    let content = text[start..].lines().next().unwrap_or_default();
    let token = content.split([':', ' ', ',']).next().unwrap_or_default();
    start..start + token.len()
}

/// Where the parser counted bytes itself, nobody has to for every finding.
fn byte_offset(text: &str, location: &Location) -> Option<usize> {
    let offset = usize::try_from(location.span().byte_offset()?).ok()?;
    text.is_char_boundary(offset).then_some(offset)
}

fn by_line(text: &str, location: &Location) -> usize {
    let line = usize::try_from(location.line()).unwrap_or(1).max(1);
    let column = usize::try_from(location.column()).unwrap_or(1).max(1);
    let start_of_line: usize = text.split_inclusive('\n').take(line - 1).map(str::len).sum();
    let rest = text.get(start_of_line..).unwrap_or_default();
    let content = rest.lines().next().unwrap_or_default();
    start_of_line + content.char_indices().nth(column - 1).map_or(content.len(), |(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_text(text: &str) -> Result<Vec<Document>, Diagnostic> {
        parse(Source::new("test.yaml", text))
    }

    fn located<'a>(document: &'a Document, path: &str) -> (usize, &'a str) {
        let range = document.locate(path);
        let text = &document.source.text;
        (text[..range.start].matches('\n').count() + 1, &text[range])
    }

    const TASK: &str = "---\n# a comment\napiVersion: tekton.dev/v1\nkind: Task\nmetadata:\n  name: t\nspec:\n  params:\n  - name: p\n    type: string\n  steps:\n  - name: one\n    image: busybox\n---\n";

    #[test]
    fn fields_are_found_where_they_stand() {
        let documents = parse_text(TASK).expect("valid");
        assert_eq!(documents.len(), 1, "the empty document is left out");
        let task = &documents[0];
        assert_eq!(located(task, "spec.steps[0].image"), (13, "image"));
        assert_eq!(located(task, "spec.params[p].type"), (10, "type"));
        assert_eq!(located(task, "spec.steps[0].nosuch"), (12, "name"));
        assert_eq!(located(task, "spec.steps[7].image"), (11, "steps"));
    }

    #[test]
    fn numbers_are_read_as_kubectl_reads_them() {
        let documents =
            parse_text("apiVersion: v1\nkind: X\nmode: 0755\nyes: true\nf: 1.5\n").expect("valid");
        assert_eq!(documents[0].value["mode"], 493);
        assert_eq!(documents[0].value["f"], 1.5);
    }

    #[test]
    fn what_is_no_object_is_refused_where_it_stands() {
        for (text, expected) in [
            ("just text\n", "a Kubernetes object was expected"),
            ("kind: Task\n", "the document has no \"apiVersion\""),
            ("apiVersion: v1\n", "the document has no \"kind\""),
        ] {
            assert_eq!(parse_text(text).expect_err(text).message(), expected);
        }
        let error = parse_text("a: [1\nb: 2\n").expect_err("not YAML");
        assert!(error.message().starts_with("not valid YAML: "), "{}", error.message());
    }

    #[test]
    fn a_list_is_what_is_in_it() {
        let object = |name: &str| format!("{{apiVersion: v1, kind: ConfigMap, metadata: {{name: {name}}}}}");
        let inner = format!("{{apiVersion: v1, kind: ConfigMapList, items: [{}]}}", object("b"));
        let text = format!("apiVersion: v1\nkind: List\nitems:\n- {}\n- {inner}\n-\n", object("a"));
        let documents = parse_text(&text).expect("valid");
        let names: Vec<_> = documents.iter().map(|document| (document.kind(), document.name())).collect();
        assert_eq!(names, [("ConfigMap", "a"), ("ConfigMap", "b")]);
        assert_eq!(located(&documents[1], "metadata.name"), (5, "name"));
        // It has items of its own.
        let documents = parse_text("apiVersion: v1\nkind: Shop\nitems: [{a: b}]\n").expect("valid");
        assert_eq!(documents.len(), 1);
    }

    #[test]
    fn keys_with_dots_and_keys_that_are_numbers_are_found() {
        let text = "apiVersion: v1\nkind: X\nlabels:\n  a: 1\n  a.b: 2\n  a.b/c: 3\n  7: 4\nlist:\n- name: x.y\n  value: z\n";
        let document = &parse_text(text).expect("valid")[0];
        assert_eq!(located(document, "labels.a"), (4, "a"));
        assert_eq!(located(document, "labels.a.b"), (5, "a.b"));
        assert_eq!(located(document, "labels.a.b/c"), (6, "a.b/c"));
        assert_eq!(located(document, "labels.7"), (7, "7"));
        assert_eq!(located(document, "list[x.y].value"), (10, "value"));
        assert_eq!(located(document, "list.0.value"), (10, "value"));
        assert!(!document.has("labels.a.c"));
    }

    #[test]
    fn everything_that_is_no_object_is_told() {
        let text = "kind: A\n---\napiVersion: v1\nkind: B\n---\n- a\n";
        let (documents, refused) = parse_all(Source::new("test.yaml", text));
        assert_eq!(documents.len(), 1);
        let messages: Vec<_> = refused.iter().map(Diagnostic::message).collect();
        assert_eq!(messages, ["the document has no \"apiVersion\"", "a Kubernetes object was expected"]);
        let (documents, refused) = parse_all(Source::new("test.yaml", text).found());
        assert_eq!((documents.len(), refused.len()), (1, 1), "the list is somebody else's");
    }

    /// A pipe does not tell its size, and a device has no end.
    #[test]
    fn what_is_too_large_is_not_read_to_its_end() {
        let error = read(Path::new("/dev/zero")).expect_err("no text of ours");
        assert_eq!(error.message(), "cannot read \"/dev/zero\": it is larger than 16777216 bytes");
        let scalar = std::io::repeat(b'a').take(100 << 20);
        assert_eq!(bounded(scalar).expect_err("100 MiB"), "it is larger than 16777216 bytes");
        assert_eq!(text(b"a\nb\xe9".to_vec()).expect_err("Latin-1"), "it is not UTF-8 from line 2 on");
    }

    #[test]
    fn a_key_given_twice_is_refused() {
        assert!(parse_text("apiVersion: v1\nkind: A\nkind: B\n").is_err());
    }
}
