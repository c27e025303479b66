//! What a node on another machine joins with: a token, or a file.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use crrl_cluster::invitation::{Guest, Invitation, InvitationError};
use crrl_cluster::{RunDir, admission, host};
use crrl_transport::Validity;
use crrl_types::{Host, HostPort, NodeName};

use crate::commands::failure::{Coded, quoted};

/// Who is invited, and how.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Name of the node: one the configuration calls external, or a new rollout node.
    name: String,
    /// Print a token for one node, to be used once, and write no file: the node makes its own key.
    #[arg(long)]
    token: bool,
    /// Minutes until the token can no longer be used.
    #[arg(long, default_value_t = 60, value_name = "MINUTES", requires = "token")]
    minutes: u32,
    /// File to write; NAME.join without it. It holds a private key: carry it by a safe way.
    #[arg(short, long, value_name = "FILE", conflicts_with = "token")]
    out: Option<PathBuf>,
    /// Address of this machine as the guest sees it, or its name, which the guest looks up at every
    /// dial: a machine whose address changes is found again.
    #[arg(long, value_name = "HOST")]
    address: Option<Host>,
    /// Hours until the node's certificate expires. A node that is connected then has renewed it by
    /// itself; without this, as configured (cluster.certificate_hours).
    #[arg(long, value_name = "HOURS")]
    hours: Option<u32>,
}

pub(super) fn run(run: &RunDir, args: Args) -> anyhow::Result<ExitCode> {
    let Args { name, token, minutes, out, address, hours } = args;
    let name = NodeName::from(name);
    let config = run.config()?;
    if config.nodes().iter().any(|node| node.name == name.as_str() && node.host.is_some()) {
        return Err(Coded::usage(format!(
            "{name} is started over ssh by this machine; it needs no invitation"
        )));
    }
    let address = address.or_else(|| config.cluster.address.parse().ok());
    let hours = hours.unwrap_or(config.cluster.certificate_hours);
    if token {
        let good_for = Duration::from_secs(60 * u64::from(minutes));
        return print_token(run, &name, address.as_ref(), hours, good_for);
    }
    let validity = Validity::hours(hours);
    write_file(run, &Guest { name, address, validity }, out)
}

fn refused(error: &InvitationError) -> anyhow::Error {
    Coded::usage(error.to_string())
}

fn print_token(
    run: &RunDir,
    name: &NodeName,
    address: Option<&Host>,
    hours: u32,
    good_for: Duration,
) -> anyhow::Result<ExitCode> {
    let token =
        admission::invite(run, name, address, hours, good_for).map_err(|error| refused(&error))?;
    writeln!(std::io::stdout(), "{token}")?;
    eprintln!(
        "lets {name} in once, at {} (UDP), within {} minutes. On the other machine:\n  crrl node \
         --join TOKEN --model PATH/TO/THE/SAME/MODEL",
        token.at,
        good_for.as_secs() / 60,
    );
    say_loopback(&token.at);
    if host::host_pid(run)?.is_none() {
        let run = quoted(&run.path().display().to_string());
        eprintln!(
            "the cluster is not up, so nobody opens yet: crrl cluster up -f {run}/cluster.toml"
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn write_file(run: &RunDir, guest: &Guest, out: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let out = out.unwrap_or_else(|| PathBuf::from(format!("{}.join", guest.name)));
    // Before a certificate is issued, which ends the validity of none but may be in the way.
    if out.exists() {
        return Err(Coded::usage(format!("{} is there already", out.display())));
    }
    let invitation = Invitation::issue(run, guest).map_err(|error| refused(&error))?;
    invitation.save(&out).map_err(|error| refused(&error))?;
    let places: Vec<String> =
        invitation.addresses.iter().map(|(node, at)| format!("{node} at {at} (UDP)")).collect();
    eprintln!(
        "{} written; it holds a private key. It dials {}. On the other machine:\n  crrl node --join \
         {} --model PATH/TO/THE/SAME/MODEL",
        out.display(),
        places.join(", "),
        out.display()
    );
    if let Some(at) = invitation.addresses.values().find(|at| at.is_loopback()) {
        say_loopback(at);
    }
    Ok(ExitCode::SUCCESS)
}

fn say_loopback(at: &HostPort) {
    if at.is_loopback() {
        eprintln!(
            "that is a loopback address: it can be reached on this machine only. For others, set \
             cluster.listen to an address they reach"
        );
    }
}
