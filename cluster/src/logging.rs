//! Logs on standard error.

use std::error::Error;
use std::fmt;
use std::io::IsTerminal;

use jiff::Timestamp;
use ropewalk_api::errors;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{DefaultFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

/// Without `ROPEWALK_LOG`: ours from `info` on, and of the libraries below only what went wrong.
const USUAL: &str = "warn,ropewalk=info";

/// Starts logging: text on a terminal and one JSON object a line elsewhere, from the levels `ROPEWALK_LOG` asks for in
/// the manner of `RUST_LOG`. To be called once.
pub fn init() {
    let filter = EnvFilter::try_from_env("ROPEWALK_LOG").unwrap_or_else(|_| EnvFilter::new(USUAL));
    let registry = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() {
        registry.with(layer).init();
    } else {
        registry.with(layer.event_format(Json)).init();
    }
}

/// One object a line. Not tracing-subscriber's own, which leaves out what an error was caused by.
struct Json;

impl<S: Subscriber + for<'a> LookupSpan<'a>> FormatEvent<S, DefaultFields> for Json {
    fn format_event(
        &self,
        _: &FmtContext<'_, S, DefaultFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        let mut fields = Fields::default();
        fields.insert("timestamp", format!("{:.6}", Timestamp::now()).into());
        fields.insert("level", metadata.level().as_str().into());
        event.record(&mut fields);
        fields.insert("target", metadata.target().into());
        writeln!(writer, "{}", Value::Object(fields.0))
    }
}

#[derive(Default)]
struct Fields(Map<String, Value>);

impl Fields {
    fn insert(&mut self, name: &str, value: Value) {
        self.0.insert(name.to_owned(), value);
    }
}

impl Visit for Fields {
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.insert(field.name(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.insert(field.name(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.insert(field.name(), value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.insert(field.name(), value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.insert(field.name(), value.into());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.insert(field.name(), errors::chain(value).into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.insert(field.name(), format!("{value:?}").into());
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("nobody panics").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Lines {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    #[derive(Debug, thiserror::Error)]
    #[error("cannot open \"door\"")]
    struct Shut(#[source] io::Error);

    #[test]
    fn an_error_is_told_with_its_causes() {
        let lines = Lines::default();
        let layer = tracing_subscriber::fmt::layer().with_writer(lines.clone()).event_format(Json);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let error = Shut(io::Error::other("no \"key\""));
            tracing::warn!(error = &error as &dyn Error, tries = 3, known = %true, "locked");
        });
        let text = String::from_utf8(lines.0.lock().expect("nobody panics").clone()).expect("text");
        assert_eq!(text.lines().count(), 1);
        let mut line: Value = serde_json::from_str(&text).expect("JSON");
        let time = line.as_object_mut().and_then(|line| line.remove("timestamp")).expect("a time");
        assert!(time.as_str().is_some_and(|time| time.parse::<Timestamp>().is_ok()), "{time}");
        let expected = serde_json::json!({
            "level": "WARN",
            "message": "locked",
            "error": "cannot open \"door\": no \"key\"",
            "tries": 3,
            "known": "true",
            "target": "ropewalk_cluster::logging::tests",
        });
        assert_eq!(line, expected);
    }
}
