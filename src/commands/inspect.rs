//! `crrl inspect`: a running cluster, watched from outside.

use std::io::{BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use crrl_cluster::RunDir;
use crrl_inspect::recording::Written;
use crrl_inspect::scripts::query::{self, Query};
use crrl_inspect::scripts::tracing::Ended;
use crrl_inspect::scripts::{actor, orders, schema, tracing, watching};
use crrl_inspect::units::bytes;
use crrl_inspect::{InspectError, tui};
use crrl_types::{Action as Act, Order, Target, TraceRequest, trace};

use super::failure::{Coded, say};
use super::place::Place;
use crate::meter::{Meter, Quiet};

/// Longest name that is typed.
const LINE_BYTES_MAX: u64 = 4096;
/// What is waited for where a cluster is looked at once.
const ASKING: &str = "asking the cluster";
/// Exit code of a cluster something is wrong with.
const UNHEALTHY: u8 = 1;

/// Watches a running cluster: nodes, actors, episodes, curves, faults, events; and, where a person says
/// so, changes it (`do`). Without a subcommand: on the terminal; `?` lists the keys, `q` leaves. Where
/// nobody names a run, it is the one in runs/default, or another under runs if only that is up.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    place: Place,
    /// Ask the cluster with this certificate of the run's folder; without it, with the operator's.
    #[arg(long = "as", global = true, value_name = "NAME")]
    who: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print the nodes.
    Nodes {
        /// Print JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        quiet: Quiet,
    },
    /// Print actors: what each is at, and what waits for it.
    Actors {
        /// Column to sort by: trouble, node, name, type, state, waiting, growth, oldest, rate, busy,
        /// handler, restarts, up; `-` in front turns the order around.
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
        #[command(flatten)]
        quiet: Quiet,
    },
    /// Print what an actor has published of its state: credit, leases, versions, ages; never tokens,
    /// prompts or keys. One that hangs still shows its last one, with its age. Exit code 0 if there is
    /// one, 1 if it publishes none, 2 if there is no such actor, 5 if it was cut, 6 if there may be one
    /// later.
    Actor {
        /// NODE/ACTOR, by its exact name.
        target: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        quiet: Quiet,
    },
    /// Print who supervises whom.
    Tree {
        /// Print JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        quiet: Quiet,
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
        #[command(flatten)]
        quiet: Quiet,
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
        #[command(flatten)]
        quiet: Quiet,
    },
    /// Write what is seen to a new file, until Ctrl-C or the end of the run: the cluster, and where the
    /// run's store is on this machine its history, curves and episodes. 1 GiB at most.
    Record {
        /// The file.
        #[arg(value_name = "FILE")]
        recording: PathBuf,
        /// Stop after so many seconds.
        #[arg(long = "for", value_name = "SECONDS")]
        record_for: Option<f64>,
        #[command(flatten)]
        quiet: Quiet,
    },
    /// Have something done to a node or an actor. Needs an operator's certificate. Exit code 0 if it was
    /// done, 1 if the target cannot do that, 2 if there is no such target, 5 if it was done in part, 6 if
    /// it may be possible later, 7 if the certificate does not allow it.
    Do {
        /// What.
        #[arg(value_parser = verbs())]
        action: Act,
        /// The node, or NODE/ACTOR, by its exact name.
        target: String,
        /// Do not ask for the target's name first.
        #[arg(long)]
        yes: bool,
        /// For `log`: what is written, as in `CRRL_LOG`: `info,crrl_actors=debug`. Without it, what the
        /// node was started with.
        #[arg(long, value_name = "FILTER")]
        filter: Option<String>,
        /// For `log`: only for so many seconds.
        #[arg(long = "for", value_name = "SECONDS")]
        log_for: Option<f64>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        quiet: Quiet,
    },
    /// Print messages of an actor, or of all actors of a node, as they come and are handled; never what
    /// is in them. Exit code 5 if there were too many, 6 if the node was lost.
    Trace {
        /// The node, or NODE/ACTOR, by its exact name.
        target: String,
        /// Only those that pass: `assign`, `!tick`, `from:coordinator`, `over:5ms`.
        #[arg(long, default_value = "", value_name = "FILTER", hide_default_value = true)]
        filter: String,
        /// End after so many events.
        #[arg(long, default_value_t = trace::COUNT, value_name = "N")]
        max_count: u64,
        /// End if there are more in a second.
        #[arg(long, default_value_t = trace::RATE, value_name = "N")]
        max_rate: u32,
        /// End after so many seconds.
        #[arg(long = "for", default_value_t = trace::TTL_MS as f64 / 1000.0, value_name = "SECONDS")]
        trace_for: f64,
        /// Print a JSON object a line.
        #[arg(long)]
        jsonl: bool,
    },
    /// Print what people have had done in this run, faults included, and what came of it.
    Orders {
        /// Print so many at most, the last ones.
        #[arg(long, default_value_t = 100, value_name = "N")]
        limit: usize,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print the JSON Schema of everything these commands print with --json and --jsonl.
    Schema,
    /// Show a recording as if the cluster ran: Space halts, the arrow keys move in time.
    Replay {
        /// The file.
        #[arg(value_name = "FILE")]
        recording: PathBuf,
    },
}

/// What can be done, each with what it means to a node and to an actor.
fn verbs() -> impl TypedValueParser<Value = Act> {
    let value = |act: Act| {
        let help = format!("A node: {} An actor: {}", act.means(false), act.means(true));
        PossibleValue::new(act.word()).help(help)
    };
    PossibleValuesParser::new(Act::ALL.map(value))
        .map(|word| Act::named(&word).expect("one of those listed"))
}

/// The action, with what else was said of it.
fn detailed(action: &Act, filter: Option<&str>, log_for: Option<f64>) -> Result<Act, InspectError> {
    match action {
        Act::Log { .. } => {
            let ms = |s: f64| u64::try_from(seconds(s).as_millis()).unwrap_or(u64::MAX);
            Ok(Act::Log { filter: filter.unwrap_or_default().to_owned(), for_ms: log_for.map(ms) })
        }
        _ if filter.is_some() || log_for.is_some() => {
            let says = "--filter and --for go with `log` only";
            Err(InspectError::Usage(says.to_owned()))
        }
        action => Ok(action.clone()),
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let reads_files =
        matches!(args.action, Some(Action::Orders { .. } | Action::Schema | Action::Replay { .. }));
    if reads_files && args.who.is_some() {
        let says = "--as goes with what asks a cluster; this reads a file";
        return Err(coded(&InspectError::Usage(says.to_owned())));
    }
    if let Some(Action::Schema) = &args.action {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", serde_json::to_string_pretty(&schema::schema())?)?;
        return Ok(ExitCode::SUCCESS);
    }
    // A recording needs no run.
    if let Some(Action::Replay { recording }) = &args.action {
        tui::replay(recording, colour()).map_err(|error| coded(&error))?;
        return Ok(ExitCode::SUCCESS);
    }
    let run = args.place.watched()?;
    inspect(&run, args.who.as_deref(), args.action.as_ref()).map_err(|error| coded(&error))
}

fn inspect(
    run: &RunDir,
    who: Option<&str>,
    action: Option<&Action>,
) -> Result<ExitCode, InspectError> {
    let mut out = std::io::stdout().lock();
    let (query, json, quiet) = match action {
        None => {
            tui::watch(run, who, colour())?;
            return Ok(ExitCode::SUCCESS);
        }
        Some(Action::Watch { jsonl }) => {
            watching::watch(run, who, *jsonl, &mut out)?;
            return Ok(ExitCode::SUCCESS);
        }
        Some(Action::Diagnose { look_for, json, quiet }) => {
            let look = || watching::diagnose(run, who, seconds(*look_for));
            let verdict = waited(*quiet, "looking at the cluster", look)?;
            watching::print(&verdict, *json, &mut out)?;
            return Ok(ExitCode::from(if verdict.healthy { 0 } else { UNHEALTHY }));
        }
        Some(Action::Record { recording, record_for, quiet }) => {
            let meter = Meter::start(*quiet, "recording", "frames", 0);
            let count = meter.count();
            let tell = |written: Written| {
                count.at(written.frames);
                count.say(bytes(written.bytes));
            };
            let says = watching::record(run, who, recording, record_for.map(seconds), &tell);
            drop(meter);
            say(&says?);
            return Ok(ExitCode::SUCCESS);
        }
        Some(Action::Replay { recording }) => {
            tui::replay(recording, colour())?;
            return Ok(ExitCode::SUCCESS);
        }
        Some(Action::Do { action, target, yes, filter, log_for, json, quiet }) => {
            let action = detailed(action, filter.as_deref(), *log_for)?;
            let order = Order { target: named(target)?, action };
            confirmed(&order, *yes)?;
            let answer =
                waited(*quiet, "waiting for the answer", || orders::give(run, who, &order))?;
            orders::print(&answer, *json, &mut out)?;
            return Ok(ExitCode::from(orders::exit_code(answer.outcome)));
        }
        Some(Action::Trace { target, filter, max_count, max_rate, trace_for, jsonl }) => {
            let request = TraceRequest {
                target: named(target)?,
                filter: filter.clone(),
                max_count: *max_count,
                max_rate: *max_rate,
                ttl_ms: u64::try_from(seconds(*trace_for).as_millis()).unwrap_or(u64::MAX),
            };
            let ended: Ended = tracing::trace(run, who, &request, *jsonl, &mut out)?;
            say(&ended.says());
            return Ok(ExitCode::from(ended.exit_code()));
        }
        Some(Action::Actor { target, json, quiet }) => {
            let target = named(target)?;
            let answer = waited(*quiet, ASKING, || actor::ask(run, who, &target))?;
            actor::print(&target, &answer, *json, &mut out)?;
            return Ok(ExitCode::from(orders::exit_code(answer.answer.outcome)));
        }
        Some(Action::Orders { limit, json }) => {
            orders::list(run, *limit, *json, &mut out)?;
            return Ok(ExitCode::SUCCESS);
        }
        Some(Action::Schema) => return Ok(ExitCode::SUCCESS),
        Some(Action::Nodes { json, quiet }) => (Query::Nodes, *json, *quiet),
        Some(Action::Tree { json, quiet }) => (Query::Tree, *json, *quiet),
        Some(Action::Actors { sort, limit, filter, json, quiet }) => {
            let (sort, filter) = (sort.clone(), filter.clone());
            (Query::Actors { sort, limit: *limit, filter }, *json, *quiet)
        }
        Some(Action::Episodes { limit, filter, json, quiet }) => {
            (Query::Episodes { limit: *limit, filter: filter.clone() }, *json, *quiet)
        }
    };
    let world = waited(quiet, ASKING, || query::ask(run, who, &query))?;
    if let Some(says) = query::print(&world, &query, json, &mut out)? {
        say(&says);
    }
    Ok(ExitCode::SUCCESS)
}

/// What comes of this, which is waited for in sight of whoever asked.
fn waited<T>(quiet: Quiet, doing: &'static str, work: impl FnOnce() -> T) -> T {
    let _meter = Meter::start(quiet, doing, "", 0);
    work()
}

fn named(target: &str) -> Result<Target, InspectError> {
    Target::parse(target).ok_or_else(|| {
        InspectError::Usage(format!("{target:?} is no target: write a node, or NODE/ACTOR"))
    })
}

/// Asks for the target's name, as the dialogue on the terminal does.
fn confirmed(order: &Order, yes: bool) -> Result<(), InspectError> {
    if yes {
        return Ok(());
    }
    let (input, name) = (std::io::stdin(), order.target.to_string());
    if !input.is_terminal() {
        let says = format!("nobody is there to confirm `{order}`; --yes goes on without");
        return Err(InspectError::Usage(says));
    }
    say(&format!("{order}: type {name} to go on"));
    let mut typed = String::new();
    input.lock().take(LINE_BYTES_MAX).read_line(&mut typed)?;
    match typed.trim() == name {
        true => Ok(()),
        false => Err(InspectError::Usage("that is not its name; nothing was done".to_owned())),
    }
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
