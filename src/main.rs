//! The binary `crrl`: parses the command line and dispatches; one file per subcommand in
//! `commands/`, no logic here.
//!
//! stdout carries data, stderr everything else. Exit codes: 0 ok, 1 the answer is no, 2 usage or
//! configuration, 3 a plan has changes, 4 preflight failed, 5 partial, 6 unreachable, 7 denied, 130
//! stopped by a person (resumable).

#![expect(clippy::print_stdout, reason = "stdout is where a command's data goes")]

mod colour;
mod commands;
mod display;
mod interrupt;
mod ledger;
mod meter;
mod recipe;
mod requirements;
mod run;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

/// Train language models to repair code by letting them do it.
#[derive(Debug, Parser)]
#[command(name = "crrl", version, max_term_width = 100, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
#[expect(clippy::large_enum_variant, reason = "one exists in a process")]
enum Command {
    /// The main job: train the shipped policy on real Python code, with a before and an after.
    Quickstart(commands::quickstart::Args),
    /// Bring the cluster of a cluster.toml up, look at it, take it down.
    Cluster(commands::cluster::Args),
    /// A training run on the cluster of a cluster.toml.
    Train(commands::train::Args),
    /// Success and reward of a policy on a task file, without a cluster.
    Eval(commands::eval::Args),
    /// Supervised fine-tuning on oracle traces; also trains a small policy from scratch.
    Sft(commands::sft::Args),
    /// Make, list, show and verify repair tasks.
    Tasks(commands::tasks::Args),
    /// Check, merge and export models.
    Model(commands::model::Args),
    /// Follow the adapters a running cluster publishes, for tools outside it.
    Adapters(commands::adapters::Args),
    /// Watch a running cluster: nodes, actors, episodes, curves, faults; say what is wrong with it.
    Inspect(commands::inspect::Args),
    /// A web page about runs, under way or over: cluster, actors, curves, rollouts, comparison.
    Dashboard(commands::dashboard::Args),
    /// Make things go wrong in a running cluster, and see what became of it.
    Chaos(commands::chaos::Args),
    /// Whether a run lost or doubled anything: its ledger against its history and checkpoints.
    Audit(commands::audit::Args),
    /// What a run came to, as one HTML file; of several runs, side by side.
    Report(commands::report::Args),
    /// A run's curves as TensorBoard event files, JSON lines or CSV, and its traces for OpenTelemetry.
    Export(commands::export::Args),
    /// Score a patch against the gold patch.
    Reward(commands::reward::Args),
    /// Whether a run can be started here, and what to do where it cannot.
    Doctor(commands::doctor::Args),
    /// The certificates of a run: list, issue, rotate, revoke.
    Tls(commands::tls::Args),
    /// Write or print the configuration.
    Config(commands::config::Args),
    /// Print completions for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page.
    #[command(hide = true)]
    Man,
    /// Supervises the node processes of a run (started by `cluster up`).
    #[command(hide = true)]
    Host(commands::host::Args),
    /// Holds the connection to a node on another machine (started by `host`).
    #[command(hide = true)]
    Remote(commands::remote::Args),
    /// Prints what this program is, as JSON (asked for over ssh).
    #[command(hide = true)]
    About(commands::about::Args),
    /// One node of a run, on this machine or another.
    Node(commands::node::Args),
}

fn main() -> ExitCode {
    // The launcher must be a fresh single-threaded process: nothing may run before this.
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == crrl_sandbox::launcher::SUBCOMMAND) {
        crrl_sandbox::launcher::main();
    }
    let result = match Cli::parse().command {
        Command::Quickstart(args) => commands::quickstart::run(&args),
        Command::Cluster(args) => commands::cluster::run(args),
        Command::Train(args) => commands::train::run(&args),
        Command::Eval(args) => commands::eval::run(&args),
        Command::Sft(args) => commands::sft::run(&args),
        Command::Tasks(args) => commands::tasks::run(args),
        Command::Model(args) => commands::model::run(args),
        Command::Adapters(args) => commands::adapters::run(&args),
        Command::Inspect(args) => commands::inspect::run(&args),
        Command::Dashboard(args) => commands::dashboard::run(&args),
        Command::Chaos(args) => commands::chaos::run(args),
        Command::Audit(args) => commands::audit::run(&args),
        Command::Report(args) => commands::report::run(&args),
        Command::Export(args) => commands::export::run(&args),
        Command::Reward(args) => commands::reward::run(args),
        Command::Doctor(args) => commands::doctor::run(&args),
        Command::Tls(args) => commands::tls::run(args),
        Command::Config(args) => commands::config::run(args),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "crrl", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
        Command::Man => clap_mangen::Man::new(Cli::command())
            .render(&mut std::io::stdout())
            .map(|()| ExitCode::SUCCESS)
            .map_err(Into::into),
        Command::Host(args) => commands::host::run(args),
        Command::Remote(args) => commands::remote::run(args),
        Command::About(args) => commands::about::run(&args),
        Command::Node(args) => commands::node::run(args),
    };
    result.unwrap_or_else(|error| {
        commands::failure::say(&format!("crrl: {}", commands::failure::describe(&error)));
        commands::failure::exit_code(&error)
    })
}
