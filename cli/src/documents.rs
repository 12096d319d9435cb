//! YAML files as the documents in them, each value with the place it stands at. Reads files, nothing else.

use std::collections::HashSet;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::budget::BudgetBreach;
use serde_saphyr::{Error, Location, Spanned};

use crate::diagnostic::Diagnostic;

/// The largest file taken in: what etcd would hold of one object, times the documents a file may reasonably have.
pub(crate) const MAX_FILE: u64 = 16 * 1024 * 1024;

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
        for component in components(path) {
            let found = match (&node.value, component) {
                (Node::Map(entries), Component::Key(key)) => entries
                    .iter()
                    .find(|(name, _)| name.value.eq_ignore_ascii_case(key))
                    .map(|(name, value)| (&name.referenced, value)),
                (Node::Seq(items), Component::Index(index)) => {
                    items.get(index).map(|item| (&item.referenced, item))
                }
                // Some paths name an element by its name: `params[version]`.
                (Node::Seq(items), Component::Key(name)) => items
                    .iter()
                    .find(|item| item.value.name() == Some(name))
                    .map(|item| (&item.referenced, item)),
                _ => None,
            };
            let Some((location, next)) = found else { return (place, node, false) };
            place = range(&self.source.text, location);
            node = next;
        }
        (place, node, true)
    }

    /// An error about a field of this document.
    pub fn error(&self, path: &str, message: impl Into<String>) -> Diagnostic {
        Diagnostic::new(message).at(Arc::clone(&self.source), self.locate(path))
    }
}

/// Reads every document of a file; empty ones are left out. Each that cannot be read is one diagnostic.
pub fn read(path: &Path) -> Result<Vec<Document>, Diagnostic> {
    let shown = path.display();
    let size = std::fs::metadata(path)
        .map_err(|error| Diagnostic::new(format!("cannot read \"{shown}\": {error}")))?;
    if size.len() > MAX_FILE {
        return Err(Diagnostic::new(format!("\"{shown}\" is larger than {MAX_FILE} bytes")));
    }
    let text = std::fs::read_to_string(path)
        .map_err(|error| Diagnostic::new(format!("cannot read \"{shown}\": {error}")))?;
    parse(Source { path: path.to_owned(), text })
}

/// Parses every document of a source; empty ones are left out.
pub fn parse(source: Source) -> Result<Vec<Document>, Diagnostic> {
    let source = Arc::new(source);
    let roots = nodes(&source.text).map_err(|Unread { place, message }| {
        Diagnostic::new(format!("not valid YAML: {message}")).at(Arc::clone(&source), place)
    })?;
    roots
        .into_iter()
        .filter(|root| !matches!(root.value, Node::Scalar(Value::Null)))
        .map(|root| document(&source, root))
        .collect()
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
    let place = error.location().map(|location| range(text, &location)).unwrap_or_default();
    let error = error.without_snippet();
    let message = error.to_string();
    let message = if let Error::Budget { breach: BudgetBreach::Depth { .. }, .. } = error {
        format!("it is nested more than {MAX_DEPTH} deep")
    } else if message.contains("budget breached") {
        // Its limits and options are the parser's own business.
        "it holds too many values, or its aliases expand to too much".to_owned()
    } else {
        // The parser repeats the place in its text; ours stands in front of it.
        let message = message.split(" at line ").next().unwrap_or(&message);
        message.split(", set DuplicateKeyPolicy").next().unwrap_or(message).to_owned()
    };
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
            return Err(document
                .error(field, message)
                .hint("every Kubernetes object starts with apiVersion and kind"));
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

    fn name(&self) -> Option<&str> {
        let Self::Map(entries) = self else { return None };
        entries.iter().find(|(key, _)| key.value == "name").and_then(|(_, value)| match &value.value {
            Self::Scalar(Value::String(name)) => Some(name.as_str()),
            _ => None,
        })
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

#[derive(Clone, Copy)]
enum Component<'a> {
    Key(&'a str),
    Index(usize),
}

fn components(path: &str) -> impl Iterator<Item = Component<'_>> {
    path.split(['.', '[', ']'])
        .filter(|part| !part.is_empty())
        .map(|part| part.parse().map_or(Component::Key(part), Component::Index))
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
        parse(Source { path: "test.yaml".into(), text: text.to_owned() })
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
    fn a_key_given_twice_is_refused() {
        assert!(parse_text("apiVersion: v1\nkind: A\nkind: B\n").is_err());
    }
}
