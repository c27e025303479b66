//! `crrl node`: one node of a run, started by the host or, with an invitation, by anybody.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crrl_actors::node::NodeError;
use crrl_actors::settings;
use crrl_cluster::RunDir;
use crrl_cluster::invitation::Invitation;
use crrl_types::NodeName;

use super::failure::{Coded, describe, say};
use crate::run::absolute;

/// Runs one node of a cluster in the foreground until the run is over or it is told to stop (Ctrl-C,
/// SIGTERM). For Slurm, Kubernetes, systemd, or a shell on another machine.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Join a run with the file that `crrl cluster invite` wrote.
    #[arg(long, value_name = "FILE", required_unless_present = "run_dir")]
    join: Option<PathBuf>,
    /// Folder on this machine for the node's own files; without it, named after the node.
    #[arg(long, value_name = "DIR", requires = "join")]
    dir: Option<PathBuf>,
    /// The model on this machine, the same as everywhere; without it, where the run's
    /// configuration says.
    #[arg(long, value_name = "DIR", requires = "join")]
    model: Option<PathBuf>,
    /// Where tensors live on this machine; without it, as the run's configuration says.
    #[arg(long, value_name = "DEVICE", requires = "join")]
    device: Option<String>,
    /// Threads of its tensor work; 0 takes one for each core. Without it, as configured.
    #[arg(long, value_name = "N", requires = "join")]
    threads: Option<usize>,
    /// Folder of the run (used by the host).
    #[arg(long, hide = true, requires = "name", conflicts_with = "join")]
    run_dir: Option<PathBuf>,
    /// Name of the node in the run's cluster.toml (used by the host).
    #[arg(long, hide = true, requires = "run_dir")]
    name: Option<String>,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    super::logging::to_stderr();
    match (&args.join, args.run_dir, args.name) {
        (Some(file), ..) => {
            let (dir, name) = join(file, &args.dir, args.model, args.device, args.threads)?;
            run_node(&dir, &name)
        }
        (None, Some(dir), Some(name)) => run_node(&dir, &name.into()),
        _ => Err(Coded::usage("say --join FILE; `crrl cluster invite NAME` writes the file")),
    }
}

/// Unpacks an invitation; gives the folder and the name to run under.
fn join(
    file: &Path,
    dir: &Option<PathBuf>,
    model: Option<PathBuf>,
    device: Option<String>,
    threads: Option<usize>,
) -> anyhow::Result<(PathBuf, NodeName)> {
    let refused = |error: &dyn std::fmt::Display| Coded::usage(error.to_string());
    let invitation = Invitation::load(file).map_err(|error| refused(&error))?;
    let name = invitation.name.clone();
    let dir = absolute(dir.as_deref().unwrap_or(Path::new(name.as_str())));
    let run = RunDir::new(&dir);
    let now = crrl_machine::clock::now().duration_since(std::time::UNIX_EPOCH)?;
    let now_s = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let change = |config: &mut crrl_config::ClusterConfig| {
        if let Some(model) = model {
            config.model.path = absolute(&model);
        }
        if let Some(device) = device {
            config.model.device = device;
        }
        let nodes = config.node.iter_mut().filter(|node| node.name == name.as_str());
        for node in nodes {
            node.threads = threads.unwrap_or(node.threads);
        }
    };
    invitation.unpack(&run, now_s, change).map_err(|error| refused(&error))?;
    let config = run.config()?;
    crrl_model::ModelDir::open(&config.model.path).map_err(|error| {
        Coded::preflight(format!(
            "{error}\n  the node needs the run's model on this machine: --model names its folder"
        ))
    })?;
    say(&format!("{name} joins from {}; Ctrl-C leaves", dir.display()));
    Ok((dir, name))
}

fn run_node(dir: &Path, name: &NodeName) -> anyhow::Result<ExitCode> {
    let config = RunDir::new(dir).config()?;
    if let Some(node) = config.nodes().iter().find(|node| node.name == name.as_str()) {
        settings::set_threads(settings::threads(node))?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("node")
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(crrl_actors::node::run(dir, name));
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
