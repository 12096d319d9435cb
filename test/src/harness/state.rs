//! A run as it was found at one moment. Pure.

use ropewalk_core::diagnosis;
use serde_json::Value;

/// A TaskRun or PipelineRun.
#[derive(Clone, Debug)]
pub struct State {
    /// The whole object.
    pub value: Value,
}

impl State {
    /// Of `Succeeded`: `True`, `False`, `Unknown`, or empty when nobody has looked at the run yet.
    pub fn status(&self) -> &str {
        self.of_condition("Succeeded", "status")
    }

    /// Of `Succeeded`.
    pub fn reason(&self) -> &str {
        self.of_condition("Succeeded", "reason")
    }

    /// Of `Succeeded`: upstream's message.
    pub fn message(&self) -> &str {
        self.of_condition("Succeeded", "message")
    }

    /// What our second condition says; empty without it.
    pub fn diagnosis(&self) -> &str {
        self.of_condition(diagnosis::TYPE, "message")
    }

    /// The run has ended.
    pub fn is_done(&self) -> bool {
        matches!(self.status(), "True" | "False")
    }

    /// `metadata.uid`
    pub fn uid(&self) -> &str {
        self.value["metadata"]["uid"].as_str().unwrap_or_default()
    }

    fn of_condition(&self, type_: &str, field: &str) -> &str {
        let conditions = self.value["status"]["conditions"].as_array();
        let condition = conditions.and_then(|all| all.iter().find(|condition| condition["type"] == type_));
        condition.and_then(|condition| condition[field].as_str()).unwrap_or_default()
    }
}

/// All conditions, as failures of tests show them.
impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.value["status"]["conditions"].as_array() {
            None => f.write_str("no conditions"),
            Some(conditions) => {
                for (index, condition) in conditions.iter().enumerate() {
                    let text = |field: &str| condition[field].as_str().unwrap_or_default();
                    let separator = if index == 0 { "" } else { "; " };
                    write!(
                        f,
                        "{separator}{} {} {}: {}",
                        text("type"),
                        text("status"),
                        text("reason"),
                        text("message")
                    )?;
                }
                Ok(())
            }
        }
    }
}
