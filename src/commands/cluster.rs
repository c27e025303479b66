//! `crrl cluster`: the nodes of a cluster.toml as processes of this machine.

mod invite;
mod logs;
mod plan;
mod quarantine;
mod scale;
mod status;
mod up;

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use crrl_cluster::RunDir;
use crrl_cluster::host::{self, Down};
use crrl_cluster::invitation::Guest;
use crrl_config::{ClusterConfig, Overrides};
use crrl_transport::Validity;

use super::config::Source;
use super::failure::host_error;
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
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print what `up` would start and stop, and an id for exactly that. Exit code 3 if it would do
    /// anything, 0 if all is as it should be.
    Plan {
        #[command(flatten)]
        source: Source,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Start every node and wait until all are ready; on a cluster that is up, start and stop rollout
    /// nodes as the configuration says now. Twice changes nothing.
    Up {
        #[command(flatten)]
        source: Source,
        /// Seconds to wait for the nodes to be ready; 0 does not wait.
        #[arg(long, default_value_t = 120, value_name = "SECONDS")]
        wait: u64,
        /// Do only what the plan of this id says; refuse if it would be another by now.
        #[arg(long, value_name = "ID")]
        plan: Option<String>,
    },
    /// Change the number of rollout nodes of a cluster that is up: `crrl cluster scale rollout=4`.
    /// What a node that leaves was working on is handed to others.
    Scale {
        /// `rollout=N`.
        #[arg(value_parser = scale::wanted)]
        wanted: usize,
        #[command(flatten)]
        place: Place,
        /// Seconds to wait for the nodes to be ready; 0 does not wait.
        #[arg(long, default_value_t = 120, value_name = "SECONDS")]
        wait: u64,
    },
    /// One line for each node: process, state, adapter. Exit code 0 if all are ready.
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
    /// Write the file with which a node on another machine joins a run that is up: `crrl node --join
    /// FILE` there.
    Invite {
        /// Name of the node: one the configuration calls external, or a new rollout node.
        name: String,
        #[command(flatten)]
        place: Place,
        /// File to write; NAME.join without it. It holds a private key: carry it by a safe way.
        #[arg(short, long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Address of this machine as the guest sees it.
        #[arg(long, value_name = "IP")]
        address: Option<IpAddr>,
        /// Hours until the certificate in it expires.
        #[arg(long, default_value_t = 24 * 7, value_name = "HOURS")]
        hours: u32,
    },
    /// Stop every node: asked first, then by signal. Nothing is left behind.
    Down {
        #[command(flatten)]
        place: Place,
    },
}

/// Which run: the one of a configuration file, or the one in a folder.
#[derive(Debug, clap::Args)]
struct Place {
    #[command(flatten)]
    source: Source,
    /// Folder of the run, instead of a configuration file.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["file", "set"])]
    run: Option<PathBuf>,
}

impl Place {
    fn run_dir(&self) -> anyhow::Result<RunDir> {
        match &self.run {
            Some(dir) => Ok(RunDir::new(absolute(dir))),
            None => Ok(run_dir(&self.source.load()?)),
        }
    }
}

fn run_dir(config: &ClusterConfig) -> RunDir {
    RunDir::new(absolute(&config.run.dir))
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.action {
        Action::Plan { source, json } => plan::run(&source.load()?, json),
        Action::Up { source, wait, plan } => {
            up::run(source.load()?, plan.as_deref(), Duration::from_secs(wait))
        }
        Action::Scale { wanted, place, wait } => {
            scale::run(&place.run_dir()?, wanted, Duration::from_secs(wait))
        }
        Action::Status { place, json } => status::run(&place.run_dir()?, json),
        Action::Logs { nodes, follow, file, run } => {
            let run = match run {
                Some(dir) => RunDir::new(absolute(&dir)),
                None => run_dir(&crrl_config::load(
                    &file,
                    &Overrides::from_environment(std::env::vars()),
                )?),
            };
            logs::run(&run, &nodes, follow)
        }
        Action::Quarantine { place, release, release_all, json } => {
            quarantine::run(&place.run_dir()?, &release, release_all, json)
        }
        Action::Invite { name, place, out, address, hours } => {
            let guest = Guest { name: name.into(), address, validity: Validity::hours(hours) };
            invite::run(&place.run_dir()?, &guest, out)
        }
        Action::Down { place } => down(&place.run_dir()?),
    }
}

fn down(run: &RunDir) -> anyhow::Result<ExitCode> {
    let what = match host::down(run).map_err(host_error)? {
        Down::NotRunning => "nothing is running",
        Down::Asked => "every node has left",
        Down::Terminated => "every node was terminated",
        Down::Killed => "the host hung and was killed, and its nodes with it",
    };
    eprintln!("{what}");
    Ok(ExitCode::SUCCESS)
}
