//! `crrl remote`: holds the connection to a node on another machine.

use std::path::PathBuf;
use std::process::ExitCode;

use crrl_cluster::RunDir;

use super::failure::{Coded, FAILED, PREFLIGHT, UNREACHABLE};

/// Arguments of `crrl remote`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folder of the run.
    #[arg(long)]
    run_dir: PathBuf,
    /// Name of the node in the run's cluster.toml.
    #[arg(long)]
    name: String,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let _ = super::logging::to_stderr();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let run = RunDir::new(args.run_dir);
    let outcome = runtime.block_on(crrl_cluster::remote::run(&run, &args.name.into()));
    outcome.map_err(|error| {
        let code = match &error {
            // The host does not start a node again that ends with this code.
            error if error.is_hopeless() => PREFLIGHT,
            // One that has run it tries until its machine is back.
            error if error.is_unreachable() => UNREACHABLE,
            _ => FAILED,
        };
        Coded { code, message: error.to_string() }
    })?;
    Ok(ExitCode::SUCCESS)
}
