//! `crrl node`: one node of a run, started by the host or, with an invitation, by anybody.

mod tie;

use std::io::{BufRead as _, Read as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crrl_actors::log_level::LogLevel;
use crrl_actors::node::{Ground, NodeError};
use crrl_actors::settings;
use crrl_cluster::admission::{self, JoinError};
use crrl_cluster::invitation::{self, Invitation};
use crrl_cluster::renewal::now_s;
use crrl_cluster::run_dir::write_atomic;
use crrl_cluster::token::{self, Token};
use crrl_cluster::{MeshError, RunDir};
use crrl_config::ClusterConfig;
use crrl_transport::Pending;
use crrl_types::NodeName;

use super::failure::{Coded, DENIED, FAILED, UNREACHABLE, describe, say};
use crate::run::absolute;

/// Longest line that is read as a token.
const LINE_BYTES_MAX: u64 = 4096;

/// Runs one node of a cluster in the foreground until the run is over or it is told to stop (Ctrl-C,
/// SIGTERM). For Slurm, Kubernetes, systemd, or a shell on another machine.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Join a run with what `crrl cluster invite` printed or wrote: a token, or a file; `-` reads a
    /// token from the standard input, where nobody can see it in a list of processes.
    #[arg(long, value_name = "TOKEN", required_unless_present = "run_dir")]
    join: Option<String>,
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
    /// Pass adapters on to other rollout nodes at this address of this machine, as 10.0.0.7:7420:
    /// they then need not come from the parameter server once for each node.
    #[arg(long, value_name = "ADDRESS", requires = "join")]
    relay: Option<std::net::SocketAddr>,
    /// Leave when the standard input ends or falls silent (used over ssh).
    #[arg(long, hide = true, requires = "join")]
    tied: bool,
    /// Folder of the run (used by the host).
    #[arg(long, hide = true, requires = "name", conflicts_with = "join")]
    run_dir: Option<PathBuf>,
    /// Name of the node in the run's cluster.toml (used by the host).
    #[arg(long, hide = true, requires = "run_dir")]
    name: Option<String>,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let log = super::logging::to_stderr();
    let Args { join, dir, model, device, threads, relay, tied, run_dir, name } = args;
    match (join, run_dir, name) {
        (Some(with), ..) => {
            let own = Own { dir, model, device, threads, relay };
            let (dir, name) = own.join(&with)?;
            if tied {
                tie::to_stdin()?;
            }
            // Whoever started it over ssh starts it again with another token.
            run_node(&dir, &name, !tied, log)
        }
        (None, Some(dir), Some(name)) => run_node(&dir, &name.into(), false, log),
        _ => Err(Coded::usage("say --join TOKEN; `crrl cluster invite NAME --token` prints one")),
    }
}

/// What a guest has on its own machine.
struct Own {
    dir: Option<PathBuf>,
    model: Option<PathBuf>,
    device: Option<String>,
    threads: Option<usize>,
    relay: Option<std::net::SocketAddr>,
}

impl Own {
    /// Joins with a token or a file; gives the folder and the name to run under.
    fn join(self, with: &str) -> anyhow::Result<(PathBuf, NodeName)> {
        let refused = |error: &dyn std::fmt::Display| Coded::usage(error.to_string());
        let line = if with == "-" { Some(first_line()?) } else { None };
        let text = line.as_deref().unwrap_or(with);
        let name = if line.is_some() || text.starts_with(token::PREFIX) {
            let token: Token = text.parse().map_err(|error| refused(&error))?;
            self.knock(&token)?;
            token.name
        } else {
            let invitation = Invitation::load(Path::new(text)).map_err(|error| refused(&error))?;
            let run = self.run(&invitation.name);
            let change = |config: &mut ClusterConfig| self.change(&invitation.name, config);
            invitation.unpack(&run, now_s(), change).map_err(|error| refused(&error))?;
            invitation.name
        };
        let run = self.run(&name);
        let config = run.config()?;
        crrl_model::ModelDir::open(&config.model.path).map_err(|error| {
            Coded::preflight(format!(
                "{error}\n  the node needs the run's model on this machine: --model names its folder"
            ))
        })?;
        let dir = run.path().to_owned();
        say(&format!("{name} joins from {}; Ctrl-C leaves", dir.display()));
        Ok((dir, name))
    }

    fn run(&self, name: &NodeName) -> RunDir {
        RunDir::new(absolute(self.dir.as_deref().unwrap_or(Path::new(name.as_str()))))
    }

    /// Gets a certificate and the run's settings with a token, unless this folder has got them with
    /// it before: a supervisor may start the node again and again.
    fn knock(&self, token: &Token) -> anyhow::Result<()> {
        let run = self.run(&token.name);
        let used = run.path().join("token.used");
        if std::fs::read_to_string(&used).is_ok_and(|id| id == token.id()) {
            return Ok(());
        }
        invitation::make_tls(&run)?;
        let pending = Pending::open(&run.tls(), &token.name)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let granted = runtime.block_on(admission::knock(token, &pending)).map_err(|error| {
            let code = match error {
                JoinError::Knock(_) => UNREACHABLE,
                JoinError::Refused(_) | JoinError::NotCoordinator(_) => DENIED,
                _ => FAILED,
            };
            Coded { code, message: error.to_string() }
        })?;
        granted.take_up(&run, pending, |config| self.change(&token.name, config))?;
        Ok(write_atomic(&used, token.id().as_bytes())?)
    }

    /// What is different on this machine.
    fn change(&self, name: &NodeName, config: &mut ClusterConfig) {
        if let Some(model) = &self.model {
            config.model.path = absolute(model);
        }
        if let Some(device) = &self.device {
            config.model.device.clone_from(device);
        }
        if let Some(relay) = self.relay {
            config.cluster.relay = relay.to_string();
        }
        for node in config.node.iter_mut().filter(|node| node.name == name.as_str()) {
            node.threads = self.threads.unwrap_or(node.threads);
            // What is said here beats what the run's configuration says of this node.
            node.device = self.device.clone().or_else(|| node.device.take());
            let relay = self.relay.map(|relay| relay.to_string());
            node.relay = relay.or_else(|| node.relay.take());
        }
    }
}

/// The first line of the standard input; the rest is left for others.
fn first_line() -> anyhow::Result<String> {
    let mut line = String::new();
    std::io::stdin().lock().take(LINE_BYTES_MAX).read_line(&mut line)?;
    Ok(line)
}

/// Runs a node until it ends. A `guest` has nobody who gives it another certificate.
fn run_node(
    dir: &Path,
    name: &NodeName,
    guest: bool,
    log: Option<LogLevel>,
) -> anyhow::Result<ExitCode> {
    let config = RunDir::new(dir).config()?;
    if let Some(node) = config.nodes().iter().find(|node| node.name == name.as_str()) {
        settings::set_threads(settings::threads(node))?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("node")
        .enable_all()
        .build()?;
    let ground = Ground { log, ..Ground::default() };
    let outcome = runtime.block_on(crrl_actors::node::run_on(ground, dir, name));
    // Threads of ours that are in the middle of a long computation must not hold the exit up.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    match outcome.map_err(anyhow::Error::from) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        // The host does not start a node again that ends with this code.
        Err(error) if is_hopeless(&error, guest) => Err(Coded::preflight(describe(&error))),
        Err(error) => Err(error),
    }
}

/// Whether a person has to do something before the node can go on.
fn is_hopeless(error: &anyhow::Error, guest: bool) -> bool {
    error.chain().any(|cause| {
        let node = cause.downcast_ref();
        matches!(node, Some(NodeError::Hopeless(_)))
            || guest && matches!(node, Some(NodeError::Mesh(MeshError::Expired(_))))
            || cause
                .downcast_ref::<std::io::Error>()
                .is_some_and(|error| error.kind() == std::io::ErrorKind::StorageFull)
    })
}
