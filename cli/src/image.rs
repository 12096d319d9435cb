//! `ropewalk image`: what is in the store of images that `up` and `run` take them from.

mod pull;

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use indicatif::BinaryBytes;
use ropewalk_api::errors::chain;
use ropewalk_core::diagnosis::quoted;
use ropewalk_core::images::reference::Reference;
use ropewalk_images::{Limits, Listed, Removed, SHORT_ID, Store};
use ropewalk_standalone::node::IMAGES;

use crate::args::{self, ImageCommand, ImageOutput};
use crate::diagnostic::Diagnostic;
use crate::run::REFUSED;

/// Runs the command.
pub fn image(args: args::Image) -> ExitCode {
    let directory = args.data_dir.join(IMAGES);
    let done = match args.command {
        ImageCommand::Load { path, name } => load(&directory, &path, name.as_deref()),
        ImageCommand::Pull { reference } => pull::pull(&args.data_dir, &directory, &reference),
        ImageCommand::Ls { output } => ls(&directory, output),
        ImageCommand::Rm { references } => rm(&directory, &references),
        ImageCommand::Prune { keep } => prune(&directory, keep),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(diagnostic) => {
            crate::report(&[diagnostic], false);
            ExitCode::from(REFUSED)
        }
    }
}

fn open(directory: &Path) -> Result<Store, Diagnostic> {
    Store::open(directory, Limits::default()).map_err(|error| crate::from_chain(&error))
}

fn load(directory: &Path, path: &Path, name: Option<&str>) -> Result<(), Diagnostic> {
    // What the archive says is quoted in there, which may be anything.
    let failed = |error: &dyn std::error::Error| {
        Diagnostic::new(format!("cannot load \"{}\": {}", path.display(), quoted(&chain(error))))
    };
    let name = name.map(str::parse::<Reference>).transpose().map_err(|error| failed(&error))?;
    let images =
        ropewalk_images::load(&open(directory)?, path, name.as_ref()).map_err(|error| failed(&error))?;
    let lines =
        images.iter().map(|image| format!("loaded {} ({})\n", image.reference, short(&image.id.to_string())));
    crate::print(&lines.collect::<String>())
}

fn ls(directory: &Path, output: ImageOutput) -> Result<(), Diagnostic> {
    let images = open(directory)?.list().map_err(|error| crate::from_chain(&error))?;
    let text = match output {
        ImageOutput::Table => table(&images),
        ImageOutput::Json => {
            let images = serde_json::to_value(&images).map_err(|error| crate::from_chain(&error))?;
            format!("{images:#}\n")
        }
    };
    crate::print(&text)
}

fn rm(directory: &Path, references: &[String]) -> Result<(), Diagnostic> {
    let store = open(directory)?;
    for reference in references {
        let removed = store.remove(reference).map_err(|error| crate::from_chain(&error))?;
        crate::print(&told(&removed, &format!("removed the name \"{reference}\"")))?;
    }
    Ok(())
}

fn prune(directory: &Path, keep: u64) -> Result<(), Diagnostic> {
    let removed = open(directory)?.prune(keep).map_err(|error| crate::from_chain(&error))?;
    crate::print(&told(&removed, "removed no image"))
}

fn told(removed: &Removed, nothing: &str) -> String {
    let mut text = String::new();
    for id in &removed.images {
        let _ = writeln!(text, "removed image {}", short(id));
    }
    if text.is_empty() {
        let _ = writeln!(text, "{nothing}");
    }
    if removed.bytes > 0 {
        let _ = writeln!(text, "{} of data freed", BinaryBytes(removed.bytes));
    }
    text
}

fn short(id: &str) -> &str {
    let digits = id.split_once(':').map_or(id, |(_, digits)| digits);
    digits.get(..SHORT_ID).unwrap_or(digits)
}

/// A line for each tag; names by digest are long and mostly beside a tag, so they are shown where there is no other.
fn table(images: &[Listed]) -> String {
    let mut rows = vec![["REFERENCE", "ID", "SIZE", "CREATED"].map(str::to_owned)];
    for image in images {
        let mut names: Vec<&str> = image.references.iter().map(String::as_str).collect();
        if names.iter().any(|name| !name.contains('@')) {
            names.retain(|name| !name.contains('@'));
        }
        if names.is_empty() {
            names.push("<none>");
        }
        for name in names {
            rows.push([
                name.to_owned(),
                // What has no name is removed by its whole id.
                if name == "<none>" { image.id.clone() } else { short(&image.id).to_owned() },
                BinaryBytes(image.size).to_string(),
                image.created.clone().unwrap_or_default(),
            ]);
        }
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths = [width(0), width(1), width(2)];
    let mut text = String::new();
    for [name, id, size, created] in &rows {
        let line = format!("{name:0$}  {id:1$}  {size:2$}  {created}", widths[0], widths[1], widths[2]);
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}
