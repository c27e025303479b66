//! `crrl cluster`: the nodes of a cluster.toml as processes of this machine.

mod down;
mod invite;
mod logs;
mod plan;
mod quarantine;
mod restart;
mod scale;
mod status;
mod up;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use crrl_cluster::RunDir;
use crrl_config::ClusterConfig;

use super::config::Source;
use super::place::Place;
use crate::meter::Quiet;
use crate::run::absolute;

/// Exit code of a cluster that is not as it should be.
const UNHEALTHY: u8 = 1;
/// Time between two looks at nodes that start, or at logs that are followed.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Arguments of `crrl cluster`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
    /// Show no progress.
    #[arg(short, long, global = true)]
    quiet: bool,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print what `up` would start and stop, and an id for exactly that; on a cluster that is up, also
    /// what is wanted and has to wait for `down`, and why. Exit code 3 if there is anything, 0 if all is
    /// as it should be.
    Plan {
        #[command(flatten)]
        source: Source,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Start every node and wait until all are ready; on a cluster that is up, start and stop rollout
    /// nodes as the configuration says now. Twice changes nothing. Exit code 5 if some are ready and
    /// others cannot be had. A run that has begun keeps its steps, seed, tasks and sampling; of one that
    /// is complete nothing is started.
    Up {
        #[command(flatten)]
        source: Source,
        /// Seconds to wait for the nodes to be ready; 0 does not wait.
        #[arg(long, default_value_t = 120, value_name = "SECONDS")]
        wait: u64,
        /// Do only what the plan of this id says; refuse if it would be another by now.
        #[arg(long, value_name = "ID")]
        plan: Option<String>,
        /// Print what was done and every node as JSON, also where not all of them became ready.
        #[arg(long)]
        json: bool,
    },
    /// Change the number of rollout nodes of this machine, its containers included, while the cluster
    /// is up: `crrl cluster scale rollout=4`. What a node that leaves was working on is handed to
    /// others. Nodes on other machines are not counted and stay as they are: which machines there are
    /// the configuration says. Add or remove their `[[node]]` and say `up`.
    Scale {
        /// `rollout=N`.
        #[arg(value_parser = scale::wanted)]
        wanted: usize,
        #[command(flatten)]
        place: Place,
        /// Seconds to wait for the nodes to be ready; 0 does not wait.
        #[arg(long, default_value_t = 120, value_name = "SECONDS")]
        wait: u64,
        /// Print what was done and every node as JSON, also where not all of them became ready.
        #[arg(long)]
        json: bool,
    },
    /// One line for each node: process, state, adapter. Exit code 0 if all are ready. Where nobody names
    /// a run, it is the one in runs/default, or another under runs if only that is up.
    Status {
        #[command(flatten)]
        place: Place,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// What the nodes wrote.
    Logs {
        /// Nodes to show; all if none is named. `host` is the process that watches them.
        nodes: Vec<String>,
        /// Go on as they write more, until Ctrl-C.
        #[arg(short = 'f', long)]
        follow: bool,
        /// Configuration file.
        #[arg(long, default_value = "cluster.toml", value_name = "FILE")]
        file: PathBuf,
        /// Folder of the run, instead of a configuration file.
        #[arg(long, value_name = "DIR", conflicts_with = "file")]
        run: Option<PathBuf>,
    },
    /// List the tasks that are handed out no more because they were the end of too many nodes, or let
    /// some out again.
    Quarantine {
        #[command(flatten)]
        place: Place,
        /// Let this task out; may be given several times.
        #[arg(long, value_name = "TASK")]
        release: Vec<String>,
        /// Let all of them out.
        #[arg(long, conflicts_with = "release")]
        release_all: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Let a node on another machine join a run that is up: prints a token (--token), or writes a file,
    /// for `crrl node --join` there.
    Invite {
        #[command(flatten)]
        guest: invite::Args,
        #[command(flatten)]
        place: Place,
    },
    /// Restart nodes one after the other, each with the program that is there now: rollout nodes finish
    /// what they have, the others go on from what is on disk.
    Restart {
        /// Nodes; without any, every node the host of this machine starts.
        nodes: Vec<String>,
        /// One after the other. There is no other way: all at once is `down` and `up`.
        #[arg(long, required = true)]
        rolling: bool,
        /// Seconds a rollout node may take to finish what it has; what is left is handed to others.
        #[arg(long, default_value_t = 60, value_name = "SECONDS")]
        drain: u64,
        /// Seconds each node may take to be ready again.
        #[arg(long, default_value_t = 120, value_name = "SECONDS")]
        wait: u64,
        #[command(flatten)]
        place: Place,
        /// Print what became of each node as JSON, also where one did not come back.
        #[arg(long)]
        json: bool,
    },
    /// Stop every node: asked first, then by signal. Nothing is left behind.
    Down {
        #[command(flatten)]
        place: Place,
        /// Print how they were stopped as JSON.
        #[arg(long)]
        json: bool,
    },
}

/// How long nodes are waited for, and how it is told.
#[derive(Debug, Clone, Copy)]
struct How {
    wait: Duration,
    quiet: Quiet,
    json: bool,
}

fn run_dir(config: &ClusterConfig) -> RunDir {
    RunDir::new(absolute(&config.run.dir))
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let quiet = Quiet { quiet: args.quiet };
    match args.action {
        Action::Plan { source, json } => plan::run(&source.load()?, json),
        Action::Up { source, wait, plan, json } => {
            let how = How { wait: Duration::from_secs(wait), quiet, json };
            up::run(source.load()?, plan.as_deref(), how)
        }
        Action::Scale { wanted, place, wait, json } => {
            let how = How { wait: Duration::from_secs(wait), quiet, json };
            scale::run(&place.run_dir()?, wanted, how)
        }
        Action::Status { place, json } => status::run(&place.watched()?, quiet, json),
        Action::Logs { nodes, follow, file, run } => {
            logs::run(&Place::of(file, run).watched()?, &nodes, follow)
        }
        Action::Quarantine { place, release, release_all, json } => {
            quarantine::run(&place.run_dir()?, &release, release_all, json)
        }
        Action::Invite { guest, place } => invite::run(&place.run_dir()?, guest),
        Action::Restart { nodes, rolling: _, drain, wait, place, json } => {
            let how = How { wait: Duration::from_secs(wait), quiet, json };
            restart::run(&place.run_dir()?, &nodes, Duration::from_secs(drain), how)
        }
        Action::Down { place, json } => down::run(&place.run_dir()?, quiet, json),
    }
}
