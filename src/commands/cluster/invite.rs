//! The file with which a node on another machine joins.

use std::path::PathBuf;
use std::process::ExitCode;

use crrl_cluster::RunDir;
use crrl_cluster::invitation::{Guest, Invitation};

use crate::commands::failure::Coded;

pub(super) fn run(run: &RunDir, guest: &Guest, out: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let out = out.unwrap_or_else(|| PathBuf::from(format!("{}.join", guest.name)));
    // Before a certificate is issued, which ends the validity of none but may be in the way.
    if out.exists() {
        return Err(Coded::usage(format!("{} is there already", out.display())));
    }
    let invitation = Invitation::issue(run, guest).map_err(|e| Coded::usage(e.to_string()))?;
    invitation.save(&out).map_err(|error| Coded::usage(error.to_string()))?;
    let places: Vec<String> =
        invitation.addresses.iter().map(|(node, at)| format!("{node} at {at} (UDP)")).collect();
    eprintln!(
        "{} written; it holds a private key. It dials {}. On the other machine:\n  crrl node --join \
         {} --model PATH/TO/THE/SAME/MODEL",
        out.display(),
        places.join(", "),
        out.display()
    );
    if invitation.addresses.values().any(|at| at.ip().is_loopback()) {
        eprintln!(
            "these are loopback addresses: it can be taken on this machine only. For others, set \
             cluster.listen to an address they reach"
        );
    }
    Ok(ExitCode::SUCCESS)
}
