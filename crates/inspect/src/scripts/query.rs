//! One look at a cluster: nodes, actors, tree, episodes.

use std::io::Write;
use std::time::Duration;

use crrl_cluster::RunDir;
use serde::Serialize;
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use super::{line, remark, runtime, table};
use crate::error::InspectError;
use crate::feed::Session;
use crate::filter::Filter;
use crate::state::World;
use crate::state::actors::{ActorColumn, ActorRow};
use crate::state::episodes::{LiveColumn, LiveRow, Rollout};
use crate::state::nodes::NodeRow;
use crate::state::tree::{self, Leaf};
use crate::units::{age, bytes, count, gpus, grouped, growth, rate, round_trip, skew, wait};

/// Rates need two reports of a second each; it is not waited longer for them.
const RATES_TIMEOUT: Duration = Duration::from_millis(2_500);

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Query {
    /// Every node.
    Nodes,
    /// Actors, so many at most, in this order.
    Actors {
        /// A column by name; `-` in front turns the order around.
        sort: String,
        /// At most so many.
        limit: usize,
        /// As on the screen.
        filter: String,
    },
    /// Who supervises whom.
    Tree,
    /// Episodes under way, those that hang longest first.
    Episodes {
        /// At most so many.
        limit: usize,
        /// As on the screen.
        filter: String,
    },
}

/// Looks once, with a certificate of the folder, and prints; without a name, with the operator's. Rows
/// that are not printed are counted on stderr.
///
/// # Errors
/// [`InspectError`].
pub fn run(
    run: &RunDir,
    who: Option<&str>,
    query: &Query,
    as_json: bool,
    out: &mut dyn Write,
) -> Result<(), InspectError> {
    let world = ask(run, who, query)?;
    if let Some(says) = print(&world, query, as_json, out)? {
        remark(&says);
    }
    Ok(())
}

/// Looks once, with a certificate of the folder; without a name, with the operator's.
///
/// # Errors
/// [`InspectError`].
pub fn ask(run: &RunDir, who: Option<&str>, query: &Query) -> Result<World, InspectError> {
    // A query that makes no sense is told before anything is dialled.
    answer(&World::new(), query)?;
    let needs_rates = matches!(query, Query::Actors { .. } | Query::Tree);
    runtime()?.block_on(look(run, who, needs_rates))
}

async fn look(run: &RunDir, who: Option<&str>, needs_rates: bool) -> Result<World, InspectError> {
    let mut session = Session::open(run, who).await?;
    let mut world = World::new();
    let deadline = Instant::now() + RATES_TIMEOUT;
    loop {
        match timeout_at(deadline, session.next()).await {
            Ok(Ok(frame)) => world.fold(frame),
            Ok(Err(source)) if world.frame().is_none() => {
                return Err(InspectError::Unreachable { path: run.path().to_owned(), source });
            }
            Ok(Err(_)) | Err(_) => break,
        }
        let is_known = world.actors().iter().all(|actor| actor.rate.is_some());
        if !needs_rates || is_known {
            break;
        }
    }
    session.close().await;
    Ok(world)
}

/// What is printed.
struct Answer {
    value: Value,
    lines: Vec<String>,
    /// What is said of the rows that are not.
    left_out: Option<String>,
}

impl Answer {
    fn whole(value: Value, lines: Vec<String>) -> Self {
        Self { value, lines, left_out: None }
    }
}

/// Prints the answer to a query; gives what is to be said of the rows that were left out, if any were.
///
/// # Errors
/// The query makes no sense, or nobody reads.
pub fn print(
    world: &World,
    query: &Query,
    as_json: bool,
    out: &mut dyn Write,
) -> Result<Option<String>, InspectError> {
    let Answer { value, lines, left_out } = answer(world, query)?;
    if as_json {
        line(out, &value.to_string())?;
        return Ok(left_out);
    }
    for text in lines {
        if !line(out, &text)? {
            break;
        }
    }
    Ok(left_out)
}

fn answer(world: &World, query: &Query) -> Result<Answer, InspectError> {
    Ok(match query {
        Query::Nodes => Answer::whole(values(world.nodes()), nodes(world.nodes())),
        Query::Actors { sort, limit, filter } => {
            let mut rows = sorted(world, sort, filter)?;
            let left_out = cut(&mut rows, *limit, "actors");
            Answer { value: values(&rows), lines: actors(&rows), left_out }
        }
        Query::Tree => Answer::whole(tree_value(world), tree_lines(world)),
        Query::Episodes { limit, filter } => {
            let filter = parse::<Rollout<'_>>(filter)?;
            let mut rows: Vec<&LiveRow> = world.live().iter().collect();
            rows.retain(|row| filter.shows(&Rollout::Live(row)));
            LiveColumn::Idle.sort(true, &mut rows);
            let left_out = cut(&mut rows, *limit, "episodes under way");
            Answer { value: values(&rows), lines: episodes(&rows), left_out }
        }
    })
}

/// Leaves so many rows; what is said of the others.
fn cut<T>(rows: &mut Vec<T>, limit: usize, what: &str) -> Option<String> {
    let all = rows.len();
    rows.truncate(limit);
    let left = rows.len();
    (left < all)
        .then(|| format!("{} of {} {what}; --limit prints more", grouped(left), grouped(all)))
}

fn parse<T: crate::filter::Fields>(text: &str) -> Result<Filter, InspectError> {
    Filter::parse::<T>(text).map_err(|error| InspectError::Usage(format!("--filter: {error}")))
}

fn values<T: Serialize>(rows: &[T]) -> Value {
    serde_json::to_value(rows).unwrap_or_default()
}

fn sorted<'w>(
    world: &'w World,
    sort: &str,
    filter: &str,
) -> Result<Vec<&'w ActorRow>, InspectError> {
    let (name, is_turned) = match sort.strip_prefix('-') {
        Some(name) => (name, true),
        None => (sort, false),
    };
    let column = ActorColumn::named(name).ok_or_else(|| {
        let known: Vec<&str> = ActorColumn::ALL.iter().map(|(_, name)| *name).collect();
        InspectError::Usage(format!(
            "--sort: there is no column {name:?}; there are {}",
            known.join(", ")
        ))
    })?;
    let filter = parse::<ActorRow>(filter)?;
    let mut rows: Vec<&ActorRow> = world.actors().iter().filter(|row| filter.shows(*row)).collect();
    column.sort(column.is_descending() != is_turned, &mut rows);
    Ok(rows)
}

fn known<T>(value: Option<T>, shown: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| "-".to_owned(), shown)
}

fn nodes(rows: &[NodeRow]) -> Vec<String> {
    let head = [
        "NODE",
        "STATE",
        "ROLE",
        "VERSION",
        "TOK/s",
        "CPU%",
        "RSS",
        "REPORT",
        "RST",
        "RTT p50/p99",
        "SKEW",
        "BUILD",
        "ACTORS",
        "GPU",
        "DOING",
    ];
    let cells = |row: &NodeRow| {
        vec![
            row.name.clone(),
            row.state.word().to_owned(),
            row.roles.clone(),
            known(row.adapter, |v| format!("v{v}")),
            known(row.tokens_per_s, count),
            known(row.cpu_percent, |percent| format!("{percent:.0}")),
            known(row.rss_bytes, bytes),
            known(row.age_ms, age),
            known(row.restarts, |n| n.to_string()),
            round_trip(row.rtt_p50_ms, row.rtt_p99_ms),
            known(row.clock_skew_ms, skew),
            known(row.build.clone(), |build| build),
            row.actors.to_string(),
            gpus(&row.gpus),
            row.activity.clone(),
        ]
    };
    let numbers =
        ["VERSION", "TOK/s", "CPU%", "RSS", "REPORT", "RST", "RTT p50/p99", "SKEW", "ACTORS"];
    table::lines(&head, &numbers, &rows.iter().map(cells).collect::<Vec<_>>())
}

fn actors(rows: &[&ActorRow]) -> Vec<String> {
    let head = [
        "NODE",
        "NAME",
        "TYPE",
        "STATE",
        "MBOX",
        "ΔMBOX",
        "OLDEST",
        "MSG/s",
        "BUSY%",
        "RST",
        "UP",
        "HANDLER(age)",
    ];
    let cells = |row: &&ActorRow| {
        vec![
            row.node.clone(),
            row.name.clone(),
            row.kind.clone(),
            row.state_word().to_owned(),
            row.waiting.to_string(),
            known(row.waiting_growth, growth),
            wait(row.oldest_ms),
            known(row.rate, rate),
            known(row.busy, |share| format!("{:.0}", 100.0 * share)),
            row.restarts.to_string(),
            age(row.up_ms),
            known(row.at(|kind, ms| format!("{kind} ({})", age(ms))), |at| at),
        ]
    };
    let numbers = ["MBOX", "ΔMBOX", "OLDEST", "MSG/s", "BUSY%", "RST", "UP"];
    table::lines(&head, &numbers, &rows.iter().map(cells).collect::<Vec<_>>())
}

fn episodes(rows: &[&LiveRow]) -> Vec<String> {
    let head = ["EPISODE", "NODE", "TURNS", "CALLS", "AGE", "IDLE", "VERSION", "TASK", "DOING"];
    let cells = |row: &&LiveRow| {
        vec![
            row.episode.to_string(),
            row.node.clone(),
            row.turns.to_string(),
            row.calls.to_string(),
            age(row.age_ms),
            wait(row.idle_ms),
            format!("v{}", row.version),
            row.task.clone(),
            row.doing.clone(),
        ]
    };
    let numbers = ["EPISODE", "TURNS", "CALLS", "AGE", "IDLE", "VERSION"];
    table::lines(&head, &numbers, &rows.iter().map(cells).collect::<Vec<_>>())
}

/// A node with its actors.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct TreeNode<'w> {
    /// The node.
    pub node: &'w NodeRow,
    /// Its actors, in the order they were started.
    pub actors: Vec<&'w ActorRow>,
}

fn tree_value(world: &World) -> Value {
    let mut tree = Vec::new();
    for node in world.nodes() {
        let actors = world.actors().iter().filter(|actor| actor.node == node.name).collect();
        tree.push(TreeNode { node, actors });
    }
    values(&tree)
}

fn tree_lines(world: &World) -> Vec<String> {
    tree::rows(world)
        .iter()
        .map(|row| match row.what {
            Leaf::Node(node) => format!("{}  {}  {}", node.name, node.roles, node.state.word()),
            Leaf::Actor(actor) => {
                let waits = match actor.waiting {
                    0 => String::new(),
                    waiting => format!("  {waiting} wait"),
                };
                let failure = actor.last_failure.as_ref();
                let failure =
                    failure.map_or_else(String::new, |why| format!("  failed last: {why}"));
                format!("{}{}  {}{waits}{failure}", row.branch, actor.name, actor.state_word())
            }
        })
        .collect()
}
