//! Variables replaced by values: one replacement set per pass, applied in one scan (contract 4.1 and 12.4).
//!
//! Text that a pass inserts is not looked at again by that pass, but is by the next one; that order is observable, so
//! the callers keep their passes apart instead of merging them into one set.

mod task_spec;

use std::collections::BTreeMap;

use ropewalk_api::variables::{self, Segment};
use ropewalk_api::{Param, ParamValue, WhenExpression};

pub use task_spec::{in_pod_template, in_sidecar, in_step, in_task_spec, in_workspace_binding};

/// Which spellings of a param's name are variables.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scope {
    /// In a Task: `params.x`, `params["x"]`, `params['x']` and `inputs.params.x`.
    Task,
    /// In a Pipeline: the same without `inputs.params.x`.
    Pipeline,
}

/// The values one pass knows, by the text between `$(` and `)`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Replacements {
    strings: BTreeMap<String, String>,
    arrays: BTreeMap<String, Vec<String>>,
    objects: BTreeMap<String, BTreeMap<String, String>>,
}

impl Replacements {
    /// A set with nothing in it: every text stays as it is.
    pub fn new() -> Self {
        Self::default()
    }

    /// Nothing would be replaced.
    pub fn is_empty(&self) -> bool {
        self.strings.is_empty() && self.arrays.is_empty() && self.objects.is_empty()
    }

    /// `$(key)` becomes this text.
    pub fn text(&mut self, key: impl Into<String>, value: impl Into<String>) {
        self.strings.insert(key.into(), value.into());
    }

    /// `$(key)` has this value: its elements also answer to `key[i]` and the whole to `key[*]`, its keys to `key.k`.
    /// A complete string that is the variable takes over the type.
    pub fn value(&mut self, key: &str, value: &ParamValue) {
        match value {
            ParamValue::String(text) => self.text(key, text),
            ParamValue::Array(items) => self.array(key, items),
            ParamValue::Object(entries) => {
                for (name, text) in entries {
                    self.text(format!("{key}.{name}"), text);
                }
                self.objects.insert(key.to_owned(), entries.clone());
            }
        }
    }

    /// A param in all its spellings (contract 4.1). Keys of objects have the dotted spelling only.
    pub fn param(&mut self, scope: Scope, name: &str, value: &ParamValue) {
        let mut dotted = vec![format!("params.{name}")];
        if scope == Scope::Task {
            dotted.push(format!("inputs.params.{name}"));
        }
        for key in dotted {
            self.value(&key, value);
        }
        for key in [format!("params[\"{name}\"]"), format!("params['{name}']")] {
            match value {
                ParamValue::String(text) => self.text(key, text),
                ParamValue::Array(items) => self.array(&key, items),
                ParamValue::Object(_) => {}
            }
        }
    }

    /// All of `params`, see [`Replacements::param`].
    pub fn params(&mut self, scope: Scope, params: &[Param]) {
        for param in params {
            self.param(scope, &param.name, &param.value);
        }
    }

    fn array(&mut self, key: &str, items: &[String]) {
        for (index, item) in items.iter().enumerate() {
            self.text(format!("{key}[{index}]"), item);
        }
        self.arrays.insert(key.to_owned(), items.to_vec());
    }

    /// Whether `$(key)` has a value of any type here.
    pub fn knows(&self, key: &str) -> bool {
        let bare = key.strip_suffix("[*]").unwrap_or(key);
        self.strings.contains_key(key) || self.arrays.contains_key(bare) || self.objects.contains_key(bare)
    }

    /// Replaces the string variables of a text; whole arrays and objects within a text stay verbatim.
    pub fn in_text(&self, text: &str) -> String {
        variables::substitute(text, |variable| self.strings.get(variable.key).cloned())
    }

    /// [`Replacements::in_text`], in place.
    pub fn apply(&self, text: &mut String) {
        // Most fields hold no variable at all: leave their buffers alone.
        if text.contains("$(") {
            *text = self.in_text(text);
        }
    }

    /// [`Replacements::apply`] on a field that may be absent.
    pub fn apply_option(&self, text: &mut Option<String>) {
        if let Some(text) = text {
            self.apply(text);
        }
    }

    /// Replaces in every element; one that is exactly a whole array becomes its elements.
    pub fn in_list(&self, items: &[String]) -> Vec<String> {
        items
            .iter()
            .flat_map(|item| match self.whole_array(item) {
                Some(elements) => elements.clone(),
                None => vec![self.in_text(item)],
            })
            .collect()
    }

    /// Replaces in a value. A complete string that is exactly one dotted reference to an array or object becomes it
    /// (contract 4.1); bracket-quoted spellings never change the type.
    pub fn in_value(&self, value: &ParamValue) -> ParamValue {
        match value {
            ParamValue::String(text) => {
                let dotted = !text.contains(['"', '\'']);
                if dotted && let Some(items) = self.whole_array(text) {
                    return ParamValue::Array(items.clone());
                }
                if dotted && let Some(entries) = self.whole_object(text) {
                    return ParamValue::Object(entries.clone());
                }
                ParamValue::String(self.in_text(text))
            }
            ParamValue::Array(items) => ParamValue::Array(self.in_list(items)),
            ParamValue::Object(entries) => ParamValue::Object(
                entries.iter().map(|(key, text)| (key.clone(), self.in_text(text))).collect(),
            ),
        }
    }

    /// Replaces in the values of params.
    pub fn in_params(&self, params: &[Param]) -> Vec<Param> {
        params
            .iter()
            .map(|param| Param { name: param.name.clone(), value: self.in_value(&param.value) })
            .collect()
    }

    /// Replaces in when expressions: input, values and CEL text. An input that is exactly one whole array becomes its
    /// JSON text (contract 4.3).
    pub fn in_when(&self, when: &[WhenExpression]) -> Vec<WhenExpression> {
        when.iter()
            .map(|expression| WhenExpression {
                input: match self.whole_array(&expression.input) {
                    Some(items) => serde_json::Value::from(items.clone()).to_string(),
                    None => self.in_text(&expression.input),
                },
                operator: expression.operator.clone(),
                values: self.in_list(&expression.values),
                cel: self.in_text(&expression.cel),
            })
            .collect()
    }

    fn whole_array(&self, text: &str) -> Option<&Vec<String>> {
        self.arrays.get(only_key(text)?)
    }

    fn whole_object(&self, text: &str) -> Option<&BTreeMap<String, String>> {
        self.objects.get(only_key(text)?)
    }
}

/// The key of a text that is one variable and nothing else, without a closing `[*]`.
fn only_key(text: &str) -> Option<&str> {
    if !text.starts_with("$(") {
        return None;
    }
    match variables::parse(text).as_slice() {
        [Segment::Variable(variable)] => Some(variable.key.strip_suffix("[*]").unwrap_or(variable.key)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replacements() -> Replacements {
        let mut set = Replacements::new();
        set.param(Scope::Task, "s", &ParamValue::from("$(params.t)"));
        set.param(Scope::Task, "t", &ParamValue::from("inner"));
        set.param(Scope::Task, "a", &ParamValue::Array(vec!["one".into(), "two".into()]));
        set.param(Scope::Task, "o", &ParamValue::Object([("k".to_owned(), "v".to_owned())].into()));
        set
    }

    #[test]
    fn texts() {
        let set = replacements();
        for (text, expected) in [
            ("$(params.t)", "inner"),
            ("$(params['t'])$(params[\"t\"])$(inputs.params.t)", "innerinnerinner"),
            ("$(params.s)", "$(params.t)"),
            ("$$(params.t)", "$inner"),
            ("$(params.a[1])", "two"),
            ("$(params.a[2])", "$(params.a[2])"),
            ("x $(params.a[*])", "x $(params.a[*])"),
            ("$(params.o.k)", "v"),
            ("$(params[\"o\"].k)", "$(params[\"o\"].k)"),
            ("$(nosuch.thing)", "$(nosuch.thing)"),
        ] {
            assert_eq!(set.in_text(text), expected, "{text}");
        }
    }

    #[test]
    fn a_whole_array_element_becomes_elements() {
        let list = |items: &[&str]| {
            replacements().in_list(&items.iter().map(|&item| item.to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(list(&["-a", "$(params.a[*])", "z"]), ["-a", "one", "two", "z"]);
        assert_eq!(list(&["$(params.a)", "$(params['a'][*])"]), ["one", "two", "one", "two"]);
        assert_eq!(list(&["-$(params.a[*])"]), ["-$(params.a[*])"]);
    }

    #[test]
    fn a_complete_reference_changes_the_type() {
        let set = replacements();
        let array = ParamValue::Array(vec!["one".into(), "two".into()]);
        assert_eq!(set.in_value(&ParamValue::from("$(params.a[*])")), array);
        assert_eq!(set.in_value(&ParamValue::from("$(params.a)")), array);
        assert_eq!(set.in_value(&ParamValue::from("$(params.o)")).kind().as_str(), "object");
        assert_eq!(set.in_value(&ParamValue::from("$(params[\"a\"])")).kind().as_str(), "string");
    }

    #[test]
    fn a_whole_array_in_a_when_input_becomes_json() {
        let when =
            WhenExpression { input: "$(params.a[*])".into(), operator: "in".into(), ..Default::default() };
        assert_eq!(replacements().in_when(&[when])[0].input, r#"["one","two"]"#);
    }
}
