//! Takes a cluster down.

use std::io::Write as _;
use std::process::ExitCode;

use crrl_cluster::RunDir;
use crrl_cluster::host::{self, Down};

use crate::commands::failure::host_error;
use crate::commands::place::not_up;
use crate::meter::{Meter, Quiet};

pub(super) fn run(run: &RunDir, quiet: Quiet, json: bool) -> anyhow::Result<ExitCode> {
    let meter = Meter::start(quiet, "waiting for nodes to leave", "", 0);
    let (did, what) = match host::down(run).map_err(host_error)? {
        Down::NotRunning => ("nothing", not_up(run)),
        Down::Asked => ("asked", "every node has left".to_owned()),
        Down::Terminated => ("terminated", "every node was terminated".to_owned()),
        Down::Killed => {
            ("killed", "the host hung and was killed, and its nodes with it".to_owned())
        }
    };
    meter.note(&what);
    if json {
        let value = serde_json::json!({ "run": run.path(), "did": did });
        writeln!(std::io::stdout(), "{value}")?;
    }
    Ok(ExitCode::SUCCESS)
}
