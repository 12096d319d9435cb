//! `ropewalk image pull`.

use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use ropewalk_api::errors::chain;
use ropewalk_core::diagnosis::quoted;
use ropewalk_core::images::keyring::Keyring;
use ropewalk_core::images::reference::Reference;
use ropewalk_pull::{HOSTS, Progress, Puller, machine, registries};

use super::{open, short};
use crate::diagnostic::Diagnostic;

/// What takes less long is not worth a word about how far it is.
const QUIET: Duration = Duration::from_secs(1);

pub(super) fn pull(data_dir: &Path, directory: &Path, reference: &str) -> Result<(), Diagnostic> {
    let reference: Reference = reference
        .parse()
        .map_err(|error| Diagnostic::new(format!("cannot pull \"{reference}\": {error}")))?;
    let puller = Puller::new(open(directory)?, registries(data_dir.join(HOSTS)));
    let mut keyring = Keyring::default();
    let file = machine::file(|name| std::env::var_os(name));
    let advice = match &file {
        Some(file) => {
            machine::add(&mut keyring, file);
            format!("put some into \"{}\", as \"docker login\" does", file.display())
        }
        None => "set REGISTRY_AUTH_FILE to a file with some".to_owned(),
    };
    let runtime = tokio::runtime::Runtime::new().map_err(|error| crate::from_chain(&error))?;
    let shown = Shown::new();
    let pulled = runtime.block_on(puller.pull(&reference, keyring, &advice, |progress| shown.tell(progress)));
    shown.bar.finish_and_clear();
    // What a registry sent is quoted in there, which may be anything.
    let image = pulled.map_err(|error| Diagnostic::new(quoted(&chain(&*error))))?;
    crate::print(&format!("pulled {} ({})\n", image.reference, short(&image.id.to_string())))
}

/// How far it is, on a terminal.
struct Shown {
    bar: ProgressBar,
}

impl Shown {
    fn new() -> Self {
        let bar = ProgressBar::hidden();
        let style = ProgressStyle::with_template(
            "{bar:30} {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}",
        );
        if let Ok(style) = style {
            bar.set_style(style);
        }
        Self { bar }
    }

    fn tell(&self, Progress { done, total }: Progress) {
        self.bar.set_length(total);
        self.bar.set_position(done);
        if self.bar.is_hidden() && self.bar.elapsed() > QUIET {
            self.bar.set_draw_target(indicatif::ProgressDrawTarget::stderr());
        }
    }
}
