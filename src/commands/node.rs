//! `crrl node`: one node of a run.

use std::path::PathBuf;
use std::process::ExitCode;

use crrl_actors::node::NodeError;
use crrl_actors::settings;
use crrl_cluster::RunDir;
use crrl_types::NodeName;

use super::failure::{Coded, describe};

/// Arguments of `crrl node`.
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
    super::logging::to_stderr();
    let config = RunDir::new(&args.run_dir).config()?;
    if let Some(node) = config.nodes().iter().find(|node| node.name == args.name) {
        settings::set_threads(settings::threads(node))?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("node")
        .enable_all()
        .build()?;
    let name = NodeName::from(args.name);
    let outcome = runtime.block_on(crrl_actors::node::run(&args.run_dir, &name));
    // Threads of ours that are in the middle of a long computation must not hold the exit up.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    match outcome.map_err(anyhow::Error::from) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        // The host does not start a node again that ends with this code.
        Err(error) if is_hopeless(&error) => Err(Coded::preflight(describe(&error))),
        Err(error) => Err(error),
    }
}

/// Whether a person has to do something before the node can go on.
fn is_hopeless(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        matches!(cause.downcast_ref(), Some(NodeError::Hopeless(_)))
            || cause
                .downcast_ref::<std::io::Error>()
                .is_some_and(|error| error.kind() == std::io::ErrorKind::StorageFull)
    })
}
