//! The `ropewalk` command: parses arguments, starts the runtime, hands over.

use std::process::ExitCode;

use clap::Parser;
use ropewalk_cli::args::{Cli, Command};
use ropewalk_cli::{down, image, lint, render, rootless, run, up};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    // A container's shim is this program again. It must stay single-threaded, so it is told apart before anything else.
    if std::env::args_os().nth(1).is_some_and(|argument| argument == "__shim") {
        return ropewalk_standalone::node::shim::main(std::env::args_os().skip(2));
    }
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_env("ROPEWALK_LOG").unwrap_or_else(|_| EnvFilter::new("error"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    // Before there are threads, too.
    if let Some(refused) = cli.command.data_dir().and_then(rootless::enter) {
        return refused;
    }
    match cli.command {
        Command::Down(args) => down::down(&args),
        Command::Image(args) => image::image(args),
        Command::Lint(args) => lint::lint(&args),
        Command::Render(args) => render::render(&args),
        Command::Run(args) => block_on(run::run(args)),
        Command::Up(args) => block_on(up::up(args)),
    }
}

fn block_on(command: impl Future<Output = ExitCode>) -> ExitCode {
    match tokio::runtime::Runtime::new() {
        Ok(runtime) => {
            let code = runtime.block_on(command);
            // Whatever still blocks a thread has nothing left to do.
            runtime.shutdown_background();
            code
        }
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "cannot start the runtime");
            ExitCode::FAILURE
        }
    }
}
