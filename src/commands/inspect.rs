//! `crrl inspect`: a running cluster, watched from outside.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use crrl_cluster::RunDir;
use crrl_inspect::scripts::query::{self, Query};
use crrl_inspect::scripts::watching;
use crrl_inspect::{InspectError, tui};

use super::failure::{Coded, say};
use super::place::Place;

/// Exit code of a cluster something is wrong with.
const UNHEALTHY: u8 = 1;

/// Watches a running cluster and leaves no trace in it: nodes, actors, episodes, curves, faults,
/// events. Without a subcommand: on the terminal; `?` lists the keys, `q` leaves.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print the nodes.
    Nodes {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print actors: what each is at, and what waits for it.
    Actors {
        /// Column to sort by: trouble, node, name, type, state, waiting, oldest, rate, busy, handler,
        /// restarts, up; `-` in front turns the order around.
        #[arg(long, default_value = "trouble", value_name = "COLUMN", allow_hyphen_values = true)]
        sort: String,
        /// Print so many at most.
        #[arg(long, default_value_t = 100, value_name = "N")]
        limit: usize,
        /// Only those that pass, as typed behind `/` on the terminal: `node:rollout waiting>100 !idle`.
        #[arg(long, default_value = "", value_name = "FILTER", hide_default_value = true)]
        filter: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print who supervises whom.
    Tree {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print episodes under way, those that hang longest first.
    Episodes {
        /// Print so many at most.
        #[arg(long, default_value_t = 100, value_name = "N")]
        limit: usize,
        /// Only those that pass: `node:rollout-0 idle>10s`.
        #[arg(long, default_value = "", value_name = "FILTER", hide_default_value = true)]
        filter: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print a line a second, until the cluster ends or nobody reads.
    Watch {
        /// Print everything that is seen, whenever it changed, as a JSON object a line.
        #[arg(long)]
        jsonl: bool,
    },
    /// Say in words what is wrong. Exit code 0 if nothing is, 1 if something is, 6 if the cluster
    /// does not answer.
    Diagnose {
        /// Seconds to look before nothing is wrong. A node is missed after 5.
        #[arg(long = "for", default_value_t = 7.0, value_name = "SECONDS")]
        look_for: f64,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Write what is seen to a new file, until Ctrl-C or the end of the run.
    Record {
        /// The file.
        #[arg(value_name = "FILE")]
        recording: PathBuf,
        /// Stop after so many seconds.
        #[arg(long = "for", value_name = "SECONDS")]
        record_for: Option<f64>,
    },
    /// Show a recording as if the cluster ran: Space halts, the arrow keys move in time.
    Replay {
        /// The file.
        #[arg(value_name = "FILE")]
        recording: PathBuf,
    },
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    // A recording needs no run.
    if let Some(Action::Replay { recording }) = &args.action {
        tui::replay(recording, colour()).map_err(|error| coded(&error))?;
        return Ok(ExitCode::SUCCESS);
    }
    let run = args.place.run_dir()?;
    inspect(&run, args.action.as_ref()).map_err(|error| coded(&error))
}

fn inspect(run: &RunDir, action: Option<&Action>) -> Result<ExitCode, InspectError> {
    let mut out = std::io::stdout().lock();
    let (query, json) = match action {
        None => {
            tui::watch(run, colour())?;
            return Ok(ExitCode::SUCCESS);
        }
        Some(Action::Watch { jsonl }) => {
            watching::watch(run, *jsonl, &mut out)?;
            return Ok(ExitCode::SUCCESS);
        }
        Some(Action::Diagnose { look_for, json }) => {
            let verdict = watching::diagnose(run, seconds(*look_for))?;
            watching::print(&verdict, *json, &mut out)?;
            return Ok(ExitCode::from(if verdict.healthy { 0 } else { UNHEALTHY }));
        }
        Some(Action::Record { recording, record_for }) => {
            say(&watching::record(run, recording, record_for.map(seconds))?);
            return Ok(ExitCode::SUCCESS);
        }
        Some(Action::Replay { recording }) => {
            tui::replay(recording, colour())?;
            return Ok(ExitCode::SUCCESS);
        }
        Some(Action::Nodes { json }) => (Query::Nodes, *json),
        Some(Action::Tree { json }) => (Query::Tree, *json),
        Some(Action::Actors { sort, limit, filter, json }) => {
            let (sort, filter) = (sort.clone(), filter.clone());
            (Query::Actors { sort, limit: *limit, filter }, *json)
        }
        Some(Action::Episodes { limit, filter, json }) => {
            (Query::Episodes { limit: *limit, filter: filter.clone() }, *json)
        }
    };
    query::run(run, &query, json, &mut out)?;
    Ok(ExitCode::SUCCESS)
}

fn colour() -> bool {
    crate::colour::wanted(true, |name| std::env::var_os(name))
}

fn seconds(s: f64) -> Duration {
    Duration::try_from_secs_f64(s.max(0.0)).unwrap_or_default()
}

fn coded(error: &InspectError) -> anyhow::Error {
    Coded { code: error.exit_code(), message: error.to_string() }.into()
}
