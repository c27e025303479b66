//! What a cluster costs as it grows: messages, memory and CPU of the coordinator, of viewers and of
//! an audit, with simulated rollout workers.
//!
//!     cargo bench --bench scale -- machine --workers 100,1000,10000
//!
//! The product's own coordinator, mesh, store, board and screens run, nothing private to the
//! benchmark; what is simulated are the workers ([`worker`]) and the learner ([`learner`]). Each line
//! printed is one JSON object. `docs/SCALING.md` and `docs/benchmarks/inspector.md` say what came of it.
//!
//! - [`machine`]: the coordinator's decisions alone
//! - [`actor`]: its actor with a store on disk; also with and without what watches it
//! - [`message`]: what a probe costs a message
//! - [`network`]: its mesh, and workers in other processes that are killed
//! - [`viewers`]: what viewers cost it
//! - [`frames`]: how long a screen takes to draw
//! - [`audit`]: what an audit of a long run takes
//! - [`arithmetic`]: what all that comes to for a cluster that is not at hand
#![expect(clippy::print_stdout, reason = "its output is the point")]

mod actor;
mod arithmetic;
mod audit;
mod frames;
mod harness;
mod learner;
mod machine;
mod made_run;
mod made_work;
mod message;
mod network;
mod protobuf;
mod usage;
mod viewers;
mod worker;

use std::process::ExitCode;

use clap::Parser;

/// Measures what a cluster costs as it grows. Prints one JSON object a line.
#[derive(Debug, Parser)]
#[command(name = "scale")]
enum Bench {
    /// The coordinator's decisions alone, without actor, store and network.
    Machine(machine::Args),
    /// The coordinator's actor with a store on disk; messages are put into its inbox.
    Actor(actor::Args),
    /// What a probe costs a message.
    Message(message::Args),
    /// The coordinator with its mesh, and workers over QUIC in other processes; a tenth is killed.
    Network(network::Args),
    /// Workers that dial a coordinator: what `network` starts.
    #[command(hide = true)]
    Workers(worker::Args),
    /// Viewers of a coordinator that handles messages and knows many actors.
    Viewers(viewers::Args),
    /// Screens of the inspector with many rows.
    Frames(frames::Args),
    /// What measured costs come to for a large cluster and a large model.
    Arithmetic(arithmetic::Args),
    /// An audit of a made-up run.
    Audit(audit::Args),
    /// Tells of an audit of this folder: what `audit` starts.
    #[command(hide = true)]
    AuditOf(audit::OfArgs),
}

fn main() -> ExitCode {
    // `cargo bench` adds this.
    let arguments = std::env::args_os().filter(|argument| argument != "--bench");
    let done = match Bench::parse_from(arguments) {
        Bench::Machine(args) => machine::run(&args),
        Bench::Actor(args) => actor::run(&args),
        Bench::Message(args) => message::run(&args),
        Bench::Network(args) => network::run(&args),
        Bench::Workers(args) => worker::run(&args),
        Bench::Viewers(args) => viewers::run(&args),
        Bench::Frames(args) => frames::run(&args),
        Bench::Arithmetic(args) => arithmetic::run(&args),
        Bench::Audit(args) => audit::run(&args),
        Bench::AuditOf(args) => audit::of(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("scale: {error:#}");
            ExitCode::FAILURE
        }
    }
}
