//! Where two answers differ. No IO.

use serde_json::Value;

/// One place where answers to the same request differ.
#[derive(Clone, Debug)]
pub(crate) struct Difference<'a> {
    pub(crate) case: &'a str,
    pub(crate) step: &'a str,
    /// Pointer into the answer: `/code`, `/warnings`, or something below `/body`.
    pub(crate) path: String,
    /// What ours says; `None` where it says nothing.
    pub(crate) ours: Option<&'a Value>,
    /// What a kube-apiserver says.
    pub(crate) theirs: Option<&'a Value>,
}

/// All places where two answers differ. Lists of different lengths are one place.
pub(crate) fn differences<'a>(
    case: &'a str,
    step: &'a str,
    ours: &'a Value,
    theirs: &'a Value,
) -> Vec<Difference<'a>> {
    let mut found = Vec::new();
    visit(&mut found, case, step, String::new(), Some(ours), Some(theirs));
    found
}

fn visit<'a>(
    found: &mut Vec<Difference<'a>>,
    case: &'a str,
    step: &'a str,
    path: String,
    ours: Option<&'a Value>,
    theirs: Option<&'a Value>,
) {
    match (ours, theirs) {
        (Some(Value::Object(our)), Some(Value::Object(their))) => {
            for (key, value) in our {
                visit(found, case, step, format!("{path}/{key}"), Some(value), their.get(key));
            }
            for (key, value) in their.iter().filter(|(key, _)| !our.contains_key(*key)) {
                visit(found, case, step, format!("{path}/{key}"), None, Some(value));
            }
        }
        (Some(Value::Array(our)), Some(Value::Array(their))) if our.len() == their.len() => {
            for (index, (ours, theirs)) in our.iter().zip(their).enumerate() {
                visit(found, case, step, format!("{path}/{index}"), Some(ours), Some(theirs));
            }
        }
        _ if ours == theirs => {}
        _ => found.push(Difference { case, step, path, ours, theirs }),
    }
}
