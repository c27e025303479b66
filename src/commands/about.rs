//! `crrl about`: what this program is, for whoever asks over ssh.

use std::io::Write as _;
use std::process::ExitCode;

use crrl_cluster::remote::About;
use crrl_types::HostPort;

/// Arguments of `crrl about`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Ask NVIDIA's driver for its devices.
    #[arg(long)]
    gpu: bool,
    /// See whether a packet goes to this address and back.
    #[arg(long, value_name = "HOST:PORT")]
    reach: Option<HostPort>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let about = About::this(args.gpu, args.reach.as_ref())?;
    writeln!(std::io::stdout(), "{}", serde_json::to_string(&about)?)?;
    Ok(ExitCode::SUCCESS)
}
