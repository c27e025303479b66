//! `crrl host`: the process that starts, watches and stops the node processes of a run.

use std::path::PathBuf;
use std::process::ExitCode;

use crrl_cluster::RunDir;

/// Arguments of `crrl host`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folder of the run.
    #[arg(long)]
    run_dir: PathBuf,
    /// End when the standard input does.
    #[arg(long)]
    tied: bool,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let _ = super::logging::to_stderr();
    crrl_cluster::host::run(&RunDir::new(args.run_dir), args.tied)?;
    Ok(ExitCode::SUCCESS)
}
