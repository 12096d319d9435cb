//! `ropewalk up`: serve the API to kubectl and every other client until a signal.

use std::process::ExitCode;

use jiff::SignedDuration;
use ropewalk_standalone::Standalone;
use ropewalk_standalone::node::{NetworkChoice, home};
use ropewalk_standalone::prune::Limits;

use crate::args;
use crate::diagnostic::Diagnostic;
use crate::run::{self, REFUSED, interrupted};

/// Runs the command. Containers run on when it returns.
pub async fn up(args: args::Up) -> ExitCode {
    match attempt(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(diagnostic) => {
            crate::report(&[diagnostic], false);
            ExitCode::from(REFUSED)
        }
    }
}

async fn attempt(args: args::Up) -> Result<(), Diagnostic> {
    let interrupt = interrupted();
    let directory = args.data_dir.clone();
    let config = ropewalk_standalone::Config {
        listen: Some(args.listen),
        pod_network: args.pod_network.map(|wish| match wish {
            args::PodNetwork::Own => NetworkChoice::Own,
            args::PodNetwork::Host => NetworkChoice::Host,
        }),
        keep: Limits {
            count: args.keep_runs,
            age: SignedDuration::from_hours(i64::from(args.keep_days) * 24),
            log_bytes: u64::from(args.keep_gib) << 30,
        },
        image_bytes: u64::from(args.keep_images_gib) << 30,
        ..run::config(args.rootfs, args.runtime, args.data_dir)
    };
    let mut standalone = Standalone::start(config).map_err(|error| crate::from_chain(&error))?;
    let told = standalone.served().map_or(Ok(()), |served| {
        let (address, file) = (served.address, served.kubeconfig.display());
        let network = &served.network;
        crate::print(&format!("serving at https://{address}\nexport KUBECONFIG={file}\n{network}\n"))
    });
    let served = match told {
        Ok(()) => tokio::select! {
            () = interrupt => Ok(()),
            error = standalone.failed() => Err(crate::from_chain(&error)),
        },
        refused => refused,
    };
    let stopped = standalone.stop().await.map_err(|error| crate::from_chain(&error));
    // What made it stop comes before what then could not be tidied.
    served.and(stopped)?;
    let running = home::running(&directory);
    if running == 0 {
        return Ok(());
    }
    crate::print(&format!(
        "{running} containers run on: the next \"ropewalk up\" takes them over, \"ropewalk down\" ends them\n"
    ))
}
