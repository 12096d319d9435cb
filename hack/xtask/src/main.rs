//! Chores of this repository: `cargo run -p xtask -- generate [--check]`.

mod generate;

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
}

fn main() -> anyhow::Result<()> {
    match Args::parse().chore {
        Chore::Generate { check } => generate::run(check),
    }
}
