//! `crrl dashboard`: runs in a browser, under way or over.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use crrl_dashboard::{Dashboard, StartError, opener};

use super::failure::{Coded, say};
use super::place::Place;
use crate::interrupt::Interrupt;
use crate::run::absolute;

/// How long a reading that is under way may hold the end up.
const READING_MAX: Duration = Duration::from_secs(2);

/// Serves a page about a run, under way or over, to a browser of this machine: cluster map, actors,
/// curves, rollouts with their patches, faults. Several runs are compared. Prints the page's address,
/// which holds the token it opens with; Ctrl-C ends it. Changes nothing in a run. Where nobody names one,
/// it is the run in runs/default, or another under runs if only that is up, or else the newest.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folders of runs, instead of a configuration file.
    #[arg(value_name = "RUN", conflicts_with_all = ["file", "run"])]
    runs: Vec<PathBuf>,
    /// Configuration file of the cluster.
    #[arg(short = 'f', long, default_value = "cluster.toml", value_name = "FILE")]
    file: PathBuf,
    /// Folder of the run, instead of a configuration file.
    #[arg(long, value_name = "DIR", conflicts_with = "file")]
    run: Option<PathBuf>,
    /// Port of 127.0.0.1; without it, any that is free.
    #[arg(long, default_value_t = 0, value_name = "N", hide_default_value = true)]
    port: u16,
    /// Open the page in a browser.
    #[arg(long)]
    open: bool,
}

impl Args {
    fn folders(&self) -> anyhow::Result<Vec<PathBuf>> {
        let named: Vec<&PathBuf> = self.runs.iter().chain(&self.run).collect();
        if !named.is_empty() {
            return Ok(named.into_iter().map(|folder| absolute(folder)).collect());
        }
        let place = Place::of(self.file.clone(), None);
        Ok(vec![place.watched()?.path().to_owned()])
    }
}

/// Serves until a person ends it.
///
/// # Errors
/// A folder is not a run's; the port cannot be had.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let folders = args.folders()?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let served = runtime.block_on(async {
        let mut interrupt = Interrupt::listen()?;
        let dashboard =
            Dashboard::start(&folders, args.port).await.map_err(|error| coded(&error))?;
        let address = dashboard.address();
        {
            let mut out = std::io::stdout().lock();
            writeln!(out, "{address}")?;
            out.flush()?;
        }
        say("Ctrl-C ends it; whoever has this address can look.");
        let _page = args.open.then(|| opener::open(&address)).and_then(|opened| {
            opened.map_err(|error| say(&format!("no browser was opened: {error}"))).ok()
        });
        dashboard.serve(async { interrupt.said().await }).await?;
        Ok(ExitCode::SUCCESS)
    });
    runtime.shutdown_timeout(READING_MAX);
    served
}

fn coded(error: &StartError) -> anyhow::Error {
    match error {
        StartError::NotARun(_) | StartError::TooMany(_) => Coded::usage(error.to_string()),
        StartError::PortInUse(_) | StartError::Bind { .. } | StartError::System(_) => {
            Coded::preflight(error.to_string())
        }
    }
}
