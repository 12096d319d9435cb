//! Chores of this repository: `cargo run -p xtask -- generate [--check]`, `cargo run -p xtask -- images --out DIR`.

#[cfg(test)]
mod config;
#[cfg(test)]
mod conformance;
mod generate;
mod images;
mod rbac;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Chores of this repository")]
struct Args {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Writes the files under config/ that are derived from the code.
    Generate {
        /// Writes nothing; fails when a file is not as it would be written.
        #[arg(long)]
        check: bool,
    },
    /// Writes controller.tar, webhook.tar and entrypoint.tar: container images as OCI archives.
    Images {
        /// Where to.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Where the built binaries are.
        #[arg(long, value_name = "DIR", default_value = "target/release")]
        from: PathBuf,
    },
}

fn main() -> anyhow::Result<()> {
    match Args::parse().chore {
        Chore::Generate { check } => generate::run(check),
        Chore::Images { out, from } => images::run(&from, &out),
    }
}
